// Standard deviation: y = sqrt(mean (x_i - m)^2 + eps), m the mean.  dy/dx_i = (x_i - m) / (n y).
// Differences are taken from the largest tap, so that equal taps differ by 0 exactly. On the safe path they are divided
// by the largest of them, or by sqrt(eps) where that is more: no square over- or underflows. A window that holds an
// infinity gives +inf, and has the derivatives of one with 1 or -1 at the infinite taps and 0 at the others.
#pragma once

#include "../taps.h"

namespace poolnb {

struct Std {
  static constexpr int inputs = 1, parameters = 0, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];
    V peak, mean, slope, y;            // mean: of the differences; slope: what they are multiplied with
    V unit;                            // safe path: what they have been divided by
    typename Traits<V>::Mask has_inf;  // safe path: the window holds an infinity

    // x - m, on the safe path over `unit`.
    template <bool safe>
    POOLNB_HD V centred(V x, auto valid) const {
      V below = x - peak;
      if constexpr (safe) below = (bounded(x) - peak) / unit;
      return select(valid, below - mean, splat<V>(0));
    }
    // On the safe path: a quarter, so that no difference overflows.
    POOLNB_HD V bounded(V x) const {
      using T = typename Traits<V>::Number;
      const V sign = select(x > splat<V>(0), splat<V>(1), splat<V>(-1));
      const V other = select(x == x, splat<V>(0), x);
      return select(has_inf, select(infinite(x), sign, other), x * splat<V>(T(0.25)));
    }
  };

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    if constexpr (safe) forward_safe(w, taps, options, saved);
    else forward_fast(w, taps, options, saved);
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_fast(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    V peak = splat<V>(-kInf<T>);
    POOLNB_UNROLL for (int64_t i = 0; i < taps.count(); ++i)
      peak = vmax(peak, select(taps.valid(i), taps.x(i), splat<V>(-kInf<T>)));
    w.peak = peak;
    Sum<V> below, number, squares;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      below += select(taps.valid(i), taps.x(i) - peak, splat<V>(0));
      number += one_where<V>(taps.valid(i));
    }, below, number);
    const V inv_n = splat<V>(1) / number.value();
    w.mean = below.value() * inv_n;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V d = w.template centred<false>(taps.x(i), taps.valid(i));
      saved.put(i, d);
      squares += d * d;
    }, squares);
    const V variance = squares.value() * inv_n + splat<V>(T(options.std.eps));
    // What the squares may have lost has to show; an overflow, an infinity and a NaN do by themselves.
    constexpr T step = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min() / (step * step);
    w.y = select(variance < splat<V>(least), splat<V>(kInf<T>), vsqrt(variance));
    w.slope = inv_n / w.y;
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_safe(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V none = splat<V>(0), least = splat<V>(std::numeric_limits<T>::min());
    w.has_inf = none != none;
    for (int64_t i = 0; i < taps.count(); ++i) w.has_inf = w.has_inf | (infinite(taps.x(i)) & taps.valid(i));
    V peak = splat<V>(-kInf<T>), low = splat<V>(kInf<T>);
    Sum<V> number, below, squares;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = w.bounded(taps.x(i));
      peak = vmax(peak, select(taps.valid(i), x, splat<V>(-kInf<T>)));
      low = vmin(low, select(taps.valid(i), x, splat<V>(kInf<T>)));
      number += one_where<V>(taps.valid(i));
    }, number);
    const auto empty = number.value() == none;
    w.peak = select(empty, none, peak);
    const V root = select(w.has_inf, least, vmax(least, splat<V>(T(0.25 * vsqrt(options.std.eps)))));
    w.unit = vmax(root, select(empty, none, peak - low));
    w.mean = none;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      below += w.template centred<true>(taps.x(i), taps.valid(i));
    }, below);
    const V n = vmax(number.value(), splat<V>(1));
    w.mean = below.value() / n;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V d = w.template centred<true>(taps.x(i), taps.valid(i));
      saved.put(i, d);
      squares += d * d;
    }, squares);
    const V spread = vsqrt(squares.value() / n + (root / w.unit) * (root / w.unit));
    w.slope = splat<V>(1) / (n * spread);
    w.y = select(empty, none, splat<V>(4) * (w.unit * spread));
    w.y = select(w.has_inf & (w.y == w.y), splat<V>(kInf<T>), w.y);
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    return w.template centred<safe>(taps.x(i), taps.valid(i));
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V, V, V centred, int64_t, const Options&, Sum<V>*, V&) {
    const V d = centred * w.slope;
    return safe ? select(w.y == w.y, d, w.y) : d;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
