// Blur pooling: y = sum b_i x_i / sum b_i, b the product over the axes of C(k - 1, j).  dy/dx_i = b_i / sum b.
// On the safe path weights are taken from their two parts, beside the largest of the valid taps: where a window of very
// many taps has far ones alone, none of their weights is a number.
#pragma once

#include "../binomial.h"
#include "../taps.h"

namespace poolnb {

struct Blur {
  static constexpr int inputs = 1, parameters = 0, noise = 0;
  static constexpr bool binomial = true;

  template <class V>
  struct Window {
    V parameter[1];
    V peak, inv_sum, y;  // peak, of the safe path: the largest exponent of 2 among the weights
  };

  // The weight, not yet normalised.
  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    if constexpr (!safe) return select(taps.valid(i), taps.weight(i), splat<V>(0));
    else return select(taps.valid(i), taps.weight_part(i) * vexp2(taps.weight_whole(i) - w.peak), splat<V>(0));
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    if constexpr (safe) {
      V peak = splat<V>(-kInf<T>);
      for (int64_t i = 0; i < taps.count(); ++i)
        peak = vmax(peak, select(taps.valid(i), taps.weight_whole(i), splat<V>(-kInf<T>)));
      w.peak = select(peak == splat<V>(-kInf<T>), splat<V>(0), peak);
    }
    Sum<V> all, sum;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V e = recompute<safe>(w, taps, i, options);
      saved.put(i, e);
      all += e;
      sum += e * taps.x(i);
    }, all, sum);
    const V total = all.value();
    if constexpr (safe) {
      w.inv_sum = splat<V>(1) / select(total == splat<V>(0), splat<V>(1), total);
      w.y = mean(w, taps, options);
    } else {
      // Weights that are 0 or have lost digits must not be all there is.
      constexpr T step = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min() / (step * step);
      w.inv_sum = splat<V>(1) / total;
      w.y = select(total < splat<V>(least), splat<V>(kInf<T>), sum.value() * w.inv_sum);
    }
  }

  // With weights of sum 1: a sum of b x could overflow where the mean does not. An infinite tap counts whatever its
  // weight, as a NaN does.
  template <class V, class Taps>
  static POOLNB_HD V mean(const Window<V>& w, const Taps& taps, const Options& options) {
    Sum<V> sum;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), weight = recompute<true>(w, taps, i, options) * w.inv_sum;
      sum += select(infinite(x), x, weight * x);
    }, sum);
    return sum.value();
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V, V, V e, int64_t, const Options&, Sum<V>*, V&) {
    return e * w.inv_sum;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
