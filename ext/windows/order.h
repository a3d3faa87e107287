// The taps of a window in order: the largest first, NaN before it, ties in tap order, taps that are not valid last.
// Three ways lead there. Vectors of lanes go through a sorting network, where every tap is finite and their number is
// bounded. Where it is not, and for all that is not finite, each lane is sorted by itself. A thread of a GPU, which has
// no memory for so many numbers, counts who stands before a tap.
#pragma once

#include "../taps.h"

#if defined(POOLNB_VECTORS)
#include <algorithm>
#include <array>
#include <utility>
#include <vector>
#endif

namespace poolnb {

// An operator that looks at its taps in order: the slope of each is found with the result, and NaN where that is.
struct InOrder {
  static constexpr bool ordered = true;

  template <class Window>
  static POOLNB_HD auto value(const Window& w) { return w.y; }

  template <bool safe, class Window, class V>
  static POOLNB_HD V tap_grad(const Window& w, V, V, V slope, int64_t, const Options&, Sum<V>*, V&) {
    return safe ? select(w.y == w.y, slope, w.y) : slope;
  }
};

// ---- one number: by counting ----------------------------------------------------------------------------------------

// Whether tap j stands before tap i.
template <class T>
POOLNB_HD bool stands_before(T x_j, int64_t j, T x_i, int64_t i) {
  const bool j_nan = x_j != x_j, i_nan = x_i != x_i;
  if (j_nan != i_nan) return j_nan;
  if (!j_nan && x_j != x_i) return x_j > x_i;
  return j < i;
}

// How many valid taps stand before tap i, which holds x.
template <class T, class Taps>
POOLNB_HD int64_t rank_of(const Taps& taps, int64_t i, T x) {
  int64_t rank = 0;
  for (int64_t j = 0; j < taps.count(); ++j)
    if (taps.valid(j) && stands_before(T(taps.x(j)), j, x, i)) ++rank;
  return rank;
}

template <class Taps>
POOLNB_HD int64_t valid_taps(const Taps& taps) {
  int64_t n = 0;
  for (int64_t i = 0; i < taps.count(); ++i) n += taps.valid(i) ? 1 : 0;
  return n;
}

#if defined(POOLNB_VECTORS)

// ---- vectors of lanes: by a network ---------------------------------------------------------------------------------

// exchange(i, j), i < j, for every pair that the network compares: Batcher's merge exchange, of any number of entries.
template <class Exchange>
constexpr void each_exchange(int64_t n, const Exchange& exchange) {
  int64_t top = 1;
  while (2 * top < n) top *= 2;
  for (int64_t p = top; p > 0; p /= 2) {
    int64_t q = top, remainder = 0, distance = p;
    while (true) {
      for (int64_t first = remainder; first + distance < n; first += 2 * p) {
        const int64_t end = first + p < n - distance ? first + p : n - distance;
        for (int64_t i = first; i < end; ++i) exchange(i, i + distance);
      }
      if (q == p) break;
      distance = q - p;
      q /= 2;
      remainder = p;
    }
  }
}

// The same pairs as constants, for loops that are unrolled.
template <int n>
struct Network {
  static constexpr int size = [] {
    int pairs = 0;
    each_exchange(n, [&](int64_t, int64_t) { ++pairs; });
    return pairs;
  }();
  static constexpr auto pairs = [] {
    std::array<std::pair<int, int>, size + 1> all{};
    int at = 0;
    each_exchange(n, [&](int64_t i, int64_t j) { all[at++] = {int(i), int(j)}; });
    return all;
  }();
  template <class Exchange, size_t... k>
  static POOLNB_HD void each(const Exchange& exchange, std::index_sequence<k...>) {
    (exchange(pairs[k].first, pairs[k].second), ...);
  }
};

// Descending. `known`: n, where it is a constant; else 0.
template <int known, class V>
POOLNB_HD void sort_values(V* x, int64_t n) {
  const auto exchange = [x](int64_t i, int64_t j) POOLNB_INLINE {
    const V a = x[i], b = x[j];
    x[i] = vmax(a, b);
    x[j] = vmin(a, b);
  };
  if constexpr (known > 0) Network<known>::each(exchange, std::make_index_sequence<Network<known>::size>());
  else each_exchange(n, exchange);
}
// With the numbers of the taps, which decide between equal ones.
template <class V>
POOLNB_HD void sort_taps(V* x, V* number, int64_t n) {
  each_exchange(n, [x, number](int64_t i, int64_t j) POOLNB_INLINE {
    const V a = x[i], b = x[j], k = number[i], l = number[j];
    const auto swap = (b > a) | ((b == a) & (l < k));
    x[i] = select(swap, b, a);
    x[j] = select(swap, a, b);
    number[i] = select(swap, l, k);
    number[j] = select(swap, k, l);
  });
}

// How many taps stand before each of few.
template <int n, class V>
POOLNB_HD void count_ranks(const V* x, V* rank) {
  using T = typename Traits<V>::Number;
  POOLNB_UNROLL for (int i = 0; i < n; ++i) rank[i] = splat<V>(T(i));
  POOLNB_UNROLL for (int j = 1; j < n; ++j)
    POOLNB_UNROLL for (int i = 0; i < j; ++i) {
      const V passes = one_where<V>(x[j] > x[i]);
      rank[i] = rank[i] + passes;
      rank[j] = rank[j] - passes;
    }
}

template <class Taps>
constexpr bool all_valid = std::is_same_v<decltype(std::declval<Taps>().valid(0)), Always>;

// Where a vector keeps its taps: in registers if their number is known, else in the unit's scratch.
template <class V, class Taps>
struct Kept {
  static constexpr int known = Taps::known;
  V held[known > 0 ? known : 1];
  V* const at;

  POOLNB_HD Kept(const Taps& taps, int part) : at(place(taps, part)) {}
  POOLNB_HD V* place(const Taps& taps, int part) {
    if constexpr (known > 0) return held;
    else return reinterpret_cast<V*>(taps.order.scratch) + part * taps.count();
  }
};

// What a window's taps are before they are sorted: -inf where they are not valid. Returns 0, or NaN where one is not
// finite; `number`: how many are valid.
template <class V, class Taps>
POOLNB_HD V take_taps(const Taps& taps, V* x, V& number) {
  using T = typename Traits<V>::Number;
  V all_finite = splat<V>(0);
  const int64_t n = taps.count();
  number = splat<V>(all_valid<Taps> ? T(n) : T(0));
  POOLNB_UNROLL for (int64_t i = 0; i < n; ++i) {
    const V tap = taps.x(i);
    all_finite = vfma(tap, splat<V>(0), all_finite);
    x[i] = select(taps.valid(i), tap, splat<V>(-kInf<T>));
    if constexpr (!all_valid<Taps>) number = number + one_where<V>(taps.valid(i));
  }
  return all_finite;
}

// ---- lane by lane ---------------------------------------------------------------------------------------------------

inline bool holds(Always, int64_t) { return true; }
template <class M>
inline bool holds(M mask, int64_t lane) { return mask[lane] != 0; }

// each(number, x) for every valid tap of a lane.
template <class Taps, class Each>
inline void each_tap_of_lane(const Taps& taps, int64_t lane, const Each& each) {
  for (int64_t i = 0; i < taps.count(); ++i)
    if (holds(taps.valid(i), lane)) each(i, taps.x(i)[lane]);
}
template <class Taps>
inline int64_t valid_taps_of_lane(const Taps& taps, int64_t lane) {
  int64_t n = 0;
  each_tap_of_lane(taps, lane, [&](int64_t, auto) { ++n; });
  return n;
}
// each(lane) for every lane that holds a window.
template <class V, class Taps, class Each>
inline void each_lane(const Taps& taps, const Each& each) {
  for (int64_t lane = 0; lane < Traits<V>::lanes; ++lane)
    if (taps.order.holds_window(lane)) each(lane);
}

#endif

}  // namespace poolnb
