// Quantile pooling: the q-quantile of a window, linear between ranks. Counted from the smallest of n taps, from 0 on,
// it lies at q (n - 1): between the lower tap at its whole part and the upper one above that, at the fraction f.
// dy/dx = 1 - f at the lower tap, f at the upper one;  dy/dq = (n - 1) (upper - lower).
#pragma once

#include "mixed.h"
#include "order.h"

namespace poolnb {

struct Quantile : InOrder {
  static constexpr int inputs = 1, parameters = 1, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];                // q
    V low, high, fraction, steps, y;  // steps: from the smallest to the largest tap
    int64_t lower[Traits<V>::lanes], upper[Traits<V>::lanes];  // which taps, but of sorted vectors
  };

  // Where the quantile of n taps lies, for one number. In float64: the fraction is what the steps of a long window leave
  // of q's digits.
  struct Spot {
    int64_t from_top, above;  // ranks of the lower and the upper tap
    double fraction;
  };
  template <class T>
  static POOLNB_HD Spot spot(T q, int64_t n) {
    const int64_t steps = n > 1 ? n - 1 : 0;
    const double at = double(q) * double(steps);
    const int64_t last = steps > 0 ? steps - 1 : 0, whole = !(at > 0) ? 0 : at >= double(last) ? last : int64_t(at);
    const int64_t from_top = steps - whole;
    return {from_top, from_top > 0 ? from_top - 1 : 0, at - double(whole)};
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options&, Saved& saved) {
#if defined(POOLNB_VECTORS)
    if constexpr (Traits<V>::lanes > 1) {
      if constexpr (safe || Taps::many) lane_by_lane(w, taps, saved);
      else by_network(w, taps, saved);
      return;
    }
#endif
    if constexpr (Traits<V>::lanes == 1) by_counting(w, taps);
  }

  // low + f (high - low), where a share of 0 is nothing even of an infinite value.
  template <class T>
  static POOLNB_HD T between(T low, T high, T fraction) {
    return Mixed::share(fraction, high) + Mixed::share(T(1) - fraction, low);
  }

  // ---- one number --------------------------------------------------------------------------------------------------

  template <class T, class Taps>
  static POOLNB_HD void by_counting(Window<T>& w, const Taps& taps) {
    const int64_t n = valid_taps(taps);
    const Spot at = spot(w.parameter[0], n);
    w.low = w.high = T(0);
    w.lower[0] = w.upper[0] = -1;
    bool any_nan = false;
    for (int64_t i = 0; i < taps.count(); ++i) {
      if (!taps.valid(i)) continue;
      const T x = taps.x(i);
      any_nan = any_nan || x != x;
      const int64_t rank = rank_of<T>(taps, i, x);
      if (rank == at.from_top) w.lower[0] = i, w.low = x;
      if (rank == at.above) w.upper[0] = i, w.high = x;
    }
    w.fraction = T(at.fraction);
    w.steps = T(n > 1 ? n - 1 : 0);
    w.y = any_nan ? splat<T>(std::numeric_limits<T>::quiet_NaN()) : between(w.low, w.high, w.fraction);
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps&, int64_t i, const Options&) {
#if defined(POOLNB_VECTORS)
    if constexpr (Traits<V>::lanes > 1) return slope_of(w, i);
#endif
    if constexpr (Traits<V>::lanes == 1)
      return (i == w.lower[0] ? V(1) - w.fraction : V(0)) + (i == w.upper[0] ? w.fraction : V(0));
  }

#if defined(POOLNB_VECTORS)
  // ---- vectors of lanes --------------------------------------------------------------------------------------------

  template <class V, class Taps, class Saved>
  static POOLNB_HD void by_network(Window<V>& w, const Taps& taps, Saved& saved) {
    using T = typename Traits<V>::Number;
    const int64_t n = taps.count();
    const V zero = splat<V>(0), one = splat<V>(1);
    Kept<V, Taps> kept(taps, 0);
    V* const x = kept.at;
    constexpr int known = Taps::known;
    V number, rank[known > 0 ? known : 1];
    const V all_finite = take_taps(taps, x, number);
    if constexpr (Saved::keeps && known > 0) count_ranks<known>(x, rank);
    sort_values<Taps::known>(x, n);
    w.steps = number - one;
    // q (n - 1) in two parts, of which none is rounded: with the upper half of q's digits, and with the rest.
    V part = w.parameter[0], rest = zero;
    if constexpr (sizeof(T) == 4) {
      part = upper_half(part);
      rest = (w.parameter[0] - part) * w.steps;
    }
    part = part * w.steps;
    constexpr T magic = sizeof(T) == 4 ? T(12582912) : T(6755399441055744);  // rounds what is added to it
    V whole = ((part + rest) + splat<V>(magic)) - splat<V>(magic);
    whole = whole - one_where<V>((part - whole) + rest < zero);
    whole = vmax(vmin(whole, w.steps - one), zero);
    w.fraction = (part - whole) + rest;
    const V from_top = w.steps - whole, above = vmax(from_top - one, zero);
    w.low = w.high = x[0];
    POOLNB_UNROLL for (int64_t r = 1; r < n; ++r) {
      w.low = select(from_top == splat<V>(T(r)), x[r], w.low);
      w.high = select(above == splat<V>(T(r)), x[r], w.high);
    }
    const V step = w.high - w.low;
    w.y = select(w.fraction < splat<V>(T(0.5)), w.low + w.fraction * step, w.high - (one - w.fraction) * step);
    w.y = w.y + all_finite;
    // An empty window has no tap that could be below another one.
    if constexpr (!all_valid<Taps>) w.y = select(number == zero, splat<V>(kInf<T>), w.y);
    if constexpr (Saved::keeps && known > 0) {
      const V below = one - w.fraction;
      POOLNB_UNROLL for (int i = 0; i < known; ++i)
        saved.put(i, select(rank[i] == from_top, below, zero) + select(rank[i] == above, w.fraction, zero));
    }
    if constexpr (Saved::keeps && known == 0) save_slopes(w, taps, from_top, above, saved);
  }

  // The tap of a rank is, of those that hold its value, the one that as many stand before as are not larger.
  template <class V, class Taps, class Saved>
  static POOLNB_HD void save_slopes(const Window<V>& w, const Taps& taps, V from_top, V above, Saved& saved) {
    const V zero = splat<V>(0), one = splat<V>(1);
    const int64_t n = taps.count();
    V lower = from_top, upper = above;  // how many equal ones come first
    POOLNB_UNROLL for (int64_t i = 0; i < n; ++i) {
      const V x = taps.x(i);
      lower = lower - one_where<V>((x > w.low) & taps.valid(i));
      upper = upper - one_where<V>((x > w.high) & taps.valid(i));
    }
    const V below = one - w.fraction;
    POOLNB_UNROLL for (int64_t i = 0; i < n; ++i) {
      const V x = taps.x(i);
      const auto is_low = (x == w.low) & taps.valid(i), is_high = (x == w.high) & taps.valid(i);
      saved.put(i, select(is_low & (lower == zero), below, zero) + select(is_high & (upper == zero), w.fraction, zero));
      lower = lower - one_where<V>(is_low);
      upper = upper - one_where<V>(is_high);
    }
  }

  static POOLNB_HD VecF upper_half(VecF q) { return reinterpret_cast<VecF>(reinterpret_cast<BitsF>(q) & 0xfffff000u); }
  static POOLNB_HD VecD upper_half(VecD q) { return q; }

  template <class V, class Taps, class Saved>
  static void lane_by_lane(Window<V>& w, const Taps& taps, Saved& saved) {
    w.y = w.low = w.high = w.fraction = w.steps = splat<V>(0);
    for (int64_t lane = 0; lane < Traits<V>::lanes; ++lane) w.lower[lane] = w.upper[lane] = -1;
    each_lane<V>(taps, [&](int64_t lane) { select_lane<Saved::backward>(w, taps, lane); });
    if constexpr (Saved::keeps)
      for (int64_t i = 0; i < taps.count(); ++i) saved.put(i, slope_of(w, i));
  }

  template <bool backward, class V, class Taps>
  static void select_lane(Window<V>& w, const Taps& taps, int64_t lane) {
    using T = typename Traits<V>::Number;
    std::vector<T> values;
    values.reserve(valid_taps_of_lane(taps, lane));
    bool any_nan = false;
    each_tap_of_lane(taps, lane, [&](int64_t, T x) {
      values.push_back(x);
      any_nan = any_nan || x != x;
    });
    if (any_nan) w.y[lane] = std::numeric_limits<T>::quiet_NaN();
    if (any_nan || values.empty()) return;
    const Spot at = spot(T(w.parameter[0][lane]), values.size());
    const auto lower = values.begin() + at.from_top;
    std::nth_element(values.begin(), lower, values.end(), std::greater<T>());
    const T low = *lower, high = at.from_top > 0 ? *std::min_element(values.begin(), lower) : low;
    const T fraction = T(at.fraction), steps = T(values.size() - 1);
    w.low[lane] = low;
    w.high[lane] = high;
    w.fraction[lane] = fraction;
    w.steps[lane] = steps;
    w.y[lane] = between(low, high, fraction);
    if constexpr (!backward) return;
    // The tap of a rank is, of those that hold its value, the one that as many stand before as are not larger.
    int64_t before_lower = at.from_top, before_upper = at.above;
    for (const T x : values) before_lower -= x > low, before_upper -= x > high;
    each_tap_of_lane(taps, lane, [&](int64_t i, T x) {
      if (x == low && before_lower-- == 0) w.lower[lane] = i;
      if (x == high && before_upper-- == 0) w.upper[lane] = i;
    });
  }
  template <class V>
  static V slope_of(const Window<V>& w, int64_t i) {
    V slope = splat<V>(0);
    for (int64_t lane = 0; lane < Traits<V>::lanes; ++lane) {
      if (w.lower[lane] == i) slope[lane] += 1 - w.fraction[lane];
      if (w.upper[lane] == i) slope[lane] += w.fraction[lane];
    }
    return slope;
  }
#endif

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>& w, V* d_params) {
    d_params[0] = w.steps * (w.high - w.low);
    if constexpr (safe) {
      d_params[0] = select(infinite(w.low) | infinite(w.high), splat<V>(0), d_params[0]);
      d_params[0] = select(w.y == w.y, d_params[0], w.y);
    }
  }
};

}  // namespace poolnb
