// Mixed pooling: y = alpha max x + (1 - alpha) mean x.  dy/dx_i = alpha at the first largest tap, and (1 - alpha) / n;
// dy/dalpha = max - mean.
#pragma once

#include "../taps.h"

namespace poolnb {

struct Mixed {
  static constexpr int inputs = 1, parameters = 1, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];  // alpha
    V largest, number, mean, inv_n, y;  // number: which tap is the largest
  };

  // A share of 0 is nothing, even of an infinite value or of a mean that is inf - inf.
  template <class V>
  static POOLNB_HD V share(V alpha, V value) {
    const auto not_finite = infinite(value) | (value != value);
    const V finite = alpha * select(not_finite, splat<V>(0), value);
    return finite + select(not_finite, select(alpha == splat<V>(0), splat<V>(0), value), splat<V>(0));
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options&, Saved& saved) {
    find_extremes<safe>(w, taps, [&](int64_t i, V x) POOLNB_INLINE { saved.put(i, x); });
    blend<safe>(w);
  }

  // Largest tap and mean; also(i, x) for every tap, which adds to `more`.
  template <bool safe, class V, class Taps, class Also, class... More>
  static POOLNB_HD void find_extremes(Window<V>& w, const Taps& taps, const Also& also, More&... more) {
    using T = typename Traits<V>::Number;
    V largest = splat<V>(-kInf<T>), number = splat<V>(-1);
    Sum<V> sum, valid;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      auto hit = x > largest;
      if constexpr (safe) hit = (hit | (x != x) | (number < splat<V>(0))) & (largest == largest);
      hit = hit & taps.valid(i);
      largest = select(hit, x, largest);
      number = select(hit, splat<V>(T(i)), number);
      sum += x;
      valid += one_where<V>(taps.valid(i));
      also(i, x);
    }, sum, valid, more...);
    w.number = number;
    const V n = valid.value();
    if constexpr (safe) {
      w.inv_n = splat<V>(1) / select(n == splat<V>(0), splat<V>(1), n);
      w.largest = select(number < splat<V>(0), splat<V>(0), largest);
      // Where the sum overflows, to infinity or in both directions to NaN, shares of it do not.
      Sum<V> mean;
      each_tap(taps, [&](int64_t i) POOLNB_INLINE { mean += taps.x(i) * w.inv_n; }, mean);
      w.mean = select(infinite_or_nan(sum.value()), mean.value(), sum.value() * w.inv_n);
    } else {
      w.inv_n = splat<V>(1) / n;
      w.largest = largest;
      w.mean = sum.value() * w.inv_n;
    }
  }

  template <bool safe, class V>
  static POOLNB_HD void blend(Window<V>& w) {
    const V alpha = w.parameter[0], rest = splat<V>(1) - alpha;
    w.y = safe ? share(alpha, w.largest) + share(rest, w.mean) : alpha * w.largest + rest * w.mean;
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>&, const Taps& taps, int64_t i, const Options&) {
    return taps.x(i);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V, V, V, int64_t i, const Options&, Sum<V>*, V&) {
    using T = typename Traits<V>::Number;
    const V alpha = w.parameter[0], rest = (splat<V>(1) - alpha) * w.inv_n;
    return rest + select(w.number == splat<V>(T(i)), alpha, splat<V>(0));
  }

  // (first - second) / 2, which does not overflow; 0 where one of them is infinite.
  template <bool safe, class V>
  static POOLNB_HD V half_difference(V first, V second) {
    using T = typename Traits<V>::Number;
    const V half = splat<V>(T(0.5)), difference = half * first - half * second;
    if constexpr (safe) return select(infinite(first) | infinite(second), splat<V>(0), difference);
    else return difference;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>& w, V* d_params) {
    d_params[0] = splat<V>(2) * half_difference<safe>(w.largest, w.mean);
  }
};

}  // namespace poolnb
