// Tree pooling: a leaf is a linear filter of the window, v x; an inner node is s left + (1 - s) right, s = sigmoid(u x) of
// its gate u; y is the root. Nodes stand in the order of a heap: the children of node i are 2 i + 1 and 2 i + 2, inner
// nodes come first. With a_i the product of the shares from the root to node i, dy/d(v x) = a of the leaf, and dy/d(u x) =
// a_i s (1 - s) (left - right); a tap's slope is the sum of those times the filters' weights of it.
// An infinite tap gives a filter the infinity that the sign of its weight says, and nothing at a weight of 0.
#pragma once

#include "mixed.h"

namespace poolnb {

struct Tree {
  static constexpr int inputs = 1, parameters = 0, noise = 0;
  static constexpr int tables = 2;  // leaves, gates
  static constexpr bool shared = true;
  static constexpr int kMost = 4;  // leaves

  template <class V>
  struct Window {
    V parameter[1];
    V slope[2 * kMost - 1], y;  // slope: by the filters' responses, node by node
  };

  // call(number of leaves), as a constant.
  template <class Taps, class Call>
  static POOLNB_HD void with_leaves(const Taps& taps, const Call& call) {
    if (taps.filters(0) == 2) call(std::integral_constant<int, 2>{});
    else call(std::integral_constant<int, kMost>{});
  }

  // What tap i weighs in the filter of a node.
  template <int leaves, class Taps>
  static POOLNB_HD auto weight(const Taps& taps, int node, int64_t i) {
    constexpr int inner = leaves - 1;
    return node < inner ? taps.entry(1, node, i) : taps.entry(0, node - inner, i);
  }

  template <bool safe, class V>
  static POOLNB_HD void add_part(Sum<V>& response, V weight, V x) {
    if constexpr (!safe) return response.add_product(weight, x);
    const V zero = splat<V>(0);
    const V far = select(weight > zero, x, select(weight < zero, -x, zero));
    response += weight * select(infinite(x), zero, x) + select(infinite(x), far, zero);
  }
  template <bool safe, class V>
  static POOLNB_HD V between(V share, V left, V right) {
    const V rest = splat<V>(1) - share;
    if constexpr (safe) return Mixed::share(share, left) + Mixed::share(rest, right);
    else return share * left + rest * right;
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options&, Saved& saved) {
    with_leaves(taps, [&](auto leaves) POOLNB_INLINE {
      evaluate<leaves.value, safe>(w, taps, saved);
      if constexpr (Saved::keeps)
        each_tap_in_turn(taps, 0, taps.count(), [&](int64_t i) POOLNB_INLINE {
          saved.put(i, slope_of<leaves.value>(w, taps, i));
        });
    });
  }

  template <int leaves, bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void evaluate(Window<V>& w, const Taps& taps, Saved&) {
    constexpr int inner = leaves - 1, nodes = inner + leaves;
    const V one = splat<V>(1);
    Sum<V> responses[nodes];
    const int64_t count = taps.count();
    for (int64_t begin = 0; begin < count; begin += kTerms) {
      const int64_t end = begin + kTerms < count ? begin + kTerms : count;
      each_tap_in_turn(taps, begin, end, [&](int64_t i) POOLNB_INLINE {
        const V x = taps.x(i);
        POOLNB_UNROLL for (int k = 0; k < nodes; ++k) add_part<safe>(responses[k], weight<leaves>(taps, k, i), x);
      });
      if (are_long(taps))
        for (auto& each : responses) each.carry();
    }
    V value[nodes], share[inner];
    POOLNB_UNROLL for (int k = nodes - 1; k >= 0; --k) {
      value[k] = responses[k].value();
      if (k >= inner) continue;
      share[k] = sigmoid<safe>(value[k]);
      value[k] = between<safe>(share[k], value[2 * k + 1], value[2 * k + 2]);
    }
    w.y = value[0];
    if constexpr (!Saved::backward) return;
    w.slope[0] = one;
    POOLNB_UNROLL for (int k = 0; k < inner; ++k) {
      const V arriving = w.slope[k], rest = one - share[k];
      const V half = Mixed::half_difference<safe>(value[2 * k + 1], value[2 * k + 2]);
      w.slope[2 * k + 1] = arriving * share[k];
      w.slope[2 * k + 2] = arriving * rest;
      w.slope[k] = half * (arriving * splat<V>(2) * share[k] * rest);
    }
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    V slope;
    with_leaves(taps, [&](auto leaves) POOLNB_INLINE { slope = slope_of<leaves.value>(w, taps, i); });
    return slope;
  }
  template <int leaves, class V, class Taps>
  static POOLNB_HD V slope_of(const Window<V>& w, const Taps& taps, int64_t i) {
    V slope = w.slope[0] * weight<leaves>(taps, 0, i);
    POOLNB_UNROLL for (int k = 1; k < 2 * leaves - 1; ++k) slope = vfma(w.slope[k], weight<leaves>(taps, k, i), slope);
    return slope;
  }

  template <class V, class Taps, class Each>
  static POOLNB_HD void each_table_grad(const Window<V>& w, const Taps& taps, V g, auto counted, const Each& each) {
    const V zero = splat<V>(0);
    with_leaves(taps, [&](auto leaves) POOLNB_INLINE {
      constexpr int inner = leaves.value - 1, nodes = inner + leaves.value;
      V slope[nodes];
      POOLNB_UNROLL for (int k = 0; k < nodes; ++k) slope[k] = select(counted, g * w.slope[k], zero);
      each_tap_in_turn(taps, 0, taps.count(), [&](int64_t i) POOLNB_INLINE {
        const V given = taps.x(i), x = select(counted, select(infinite(given), zero, given), zero);
        POOLNB_UNROLL for (int k = 0; k < nodes; ++k)
          each(k < inner ? 1 : 0, k < inner ? k : k - inner, i, slope[k], x);
      });
    });
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>&, V, V, V slope, int64_t, const Options&, Sum<V>*, V&) { return slope; }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
