// Weighted pooling: y = sum w_i x_i, w = softmax over the window of the second input.  dy/dx_i = w_i,
// dy/dl_i = w_i (x_i - y). A tap of -inf or a logit of -inf has weight 0; taps of +inf share all weight, else logits of
// +inf do.
#pragma once

#include "../taps.h"

namespace poolnb {

struct Weighted {
  static constexpr int inputs = 2, parameters = 0, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];
    V peak, inv_sum, y;
    typename Traits<V>::Mask has_pos_inf_tap, has_pos_inf_logit;  // safe path: the window holds one that counts

    template <bool safe>
    POOLNB_HD V score(V x, V l, auto valid) const {
      using T = typename Traits<V>::Number;
      const V none = splat<V>(-kInf<T>);
      if constexpr (safe) {
        const V tap_alone = select(x == splat<V>(kInf<T>), splat<V>(0), none);
        const V logit_alone = select(l == splat<V>(kInf<T>), splat<V>(0), none);
        const auto out = (x == none) | (l == none);
        l = select(has_pos_inf_tap, tap_alone, select(has_pos_inf_logit, logit_alone, l));
        l = select(out, none, l);
      }
      return select(valid, l, none);
    }
  };

  // The weight, not yet normalised.
  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    const V s = w.template score<safe>(taps.x(i), taps.second(i), taps.valid(i)) - w.peak;
    return safe ? vexp(s) : vexp_down(s);
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V neg_inf = splat<V>(-kInf<T>);
    const int64_t count = taps.count();
    w.has_pos_inf_tap = w.has_pos_inf_logit = splat<V>(0) != splat<V>(0);
    auto any_neg_inf = w.has_pos_inf_tap;
    if constexpr (safe) {
      for (int64_t i = 0; i < count; ++i) {
        const V x = taps.x(i), l = taps.second(i);
        const auto counted = (x != neg_inf) & (l != neg_inf) & taps.valid(i);
        w.has_pos_inf_tap = w.has_pos_inf_tap | (counted & (x == splat<V>(kInf<T>)));
        w.has_pos_inf_logit = w.has_pos_inf_logit | (counted & (l == splat<V>(kInf<T>)));
        any_neg_inf = any_neg_inf | ((x == neg_inf) & taps.valid(i));
      }
    }
    V peak = neg_inf;
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V l = w.template score<safe>(taps.x(i), taps.second(i), taps.valid(i));
      peak = select(l > peak, l, peak);
    }
    if constexpr (safe) peak = select(peak == neg_inf, splat<V>(0), peak);
    w.peak = peak;
    Sum<V> all, sum;
    Overflow<V, Saved::backward && !safe> overflow;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), e = recompute<safe>(w, taps, i, options);
      saved.put(i, e);
      all += e;
      sum += e * x;
      overflow += x;
    }, all, sum);
    const V total = all.value();
    const auto nothing = total == splat<V>(0);
    w.inv_sum = splat<V>(1) / (safe ? select(nothing, splat<V>(1), total) : total);
    w.y = safe ? weighted_safe(w, taps, options) : overflow.added_to(sum.value() * w.inv_sum);
    if constexpr (safe) w.y = select(nothing & any_neg_inf & (w.y == w.y), neg_inf, w.y);
  }

  // With weights of sum 1: a sum of e x could overflow where the mean does not.
  template <class V, class Taps>
  static POOLNB_HD V weighted_safe(const Window<V>& w, const Taps& taps, const Options& options) {
    Sum<V> mean;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), weight = recompute<true>(w, taps, i, options) * w.inv_sum;
      mean += weight * select(infinite(x) & (weight == splat<V>(0)), splat<V>(0), x);
    }, mean);
    return mean.value();
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V e, int64_t, const Options&, Sum<V>*, V& d_second) {
    const V weight = e * w.inv_sum;
    if constexpr (safe) {  // in halves: the difference may overflow
      const V half = splat<V>(typename Traits<V>::Number(0.5));
      const V centred = select((weight == splat<V>(0)) | infinite(w.y), splat<V>(0), half * x - half * w.y);
      d_second = splat<V>(2) * (weight * centred);
    } else {
      d_second = weight * (x - w.y);
    }
    return weight;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}

  // As sums over taps (../cpu/sums.h): of e = exp(l) and e x. dl = e (x sum g / sum e - sum g y / sum e).
  template <class V>
  struct Sums {
    static constexpr int features = 2, learned = 2, back = 2, from[2] = {4, 4};
    static constexpr bool keeps = true;
    static constexpr float reach = 32, reach_back = 32;  // the logits' size is in no difference

    POOLNB_HD Sums(V, const Options&) {}
    POOLNB_HD V exponent(V, V l) const { return l; }
    template <int>
    POOLNB_HD void tap(V x, V l, V* f) const {
      f[0] = vexp_down(l);
      f[1] = f[0] * x;
    }
    static POOLNB_HD V inverse(V total) { return select(total == splat<V>(0), splat<V>(0), splat<V>(1) / total); }
    template <int>
    POOLNB_HD V value(const V* sums, V) const { return sums[1] * inverse(sums[0]); }
    POOLNB_HD void hand_back(const V* sums, V, V y, V g, V* b) const {
      b[0] = normal_or_nan(g * inverse(sums[0]), g, sums[0]);
      b[1] = normal_or_nan(b[0] * y, b[0], y);
    }
    POOLNB_HD V tap_grad(V x, V, V e, const V* s, V& d_second) const {
      d_second = e * (x * s[0] - s[1]);
      return e * s[0];
    }
    POOLNB_HD V param_grad(const V*, V, V, V&) const { return splat<V>(0); }
  };
};

}  // namespace poolnb
