// Softmax-weighted pooling: y = sum w_i x_i, w = softmax(beta x).  dy/dx_i = w_i (1 + beta (x_i - y)), and w_i alone
// for the semi-gradient; dy/dbeta = Var_w(x).
#pragma once

#include "../taps.h"

namespace poolnb {

struct Soft {
  static constexpr int inputs = 1, parameters = 1, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];  // beta
    V scale, inv_sum, y;
    V peak;                                // the largest logit; safe path: the finite tap that beta favours
    typename Traits<V>::Mask has_pos_inf;  // safe path: the window holds +inf

    // On the fast path, to the base 2.
    template <bool safe>
    POOLNB_HD V logit(V x, auto valid) const {
      using T = typename Traits<V>::Number;
      if constexpr (!safe) {
        return select(valid, scale * x, splat<V>(-kInf<T>));
      } else {
        const auto is_pos_inf = x == splat<V>(kInf<T>);
        const auto neg_inf = x == splat<V>(-kInf<T>);
        // beta (x - peak), at most 0: beta * x may overflow for all taps. In halves, as a difference may overflow too.
        const V half = splat<V>(T(0.5)), l_half = parameter[0] * (half * x - half * peak);
        V l = select(neg_inf, splat<V>(-kInf<T>), l_half + l_half);
        l = select(has_pos_inf, select(is_pos_inf, splat<V>(0), splat<V>(-kInf<T>)), l);
        return select(valid, l, splat<V>(-kInf<T>));
      }
    }
    // exp(logit - peak), not yet normalised.
    template <bool safe>
    POOLNB_HD V weight(V x, auto valid) const {
      if constexpr (safe) return vexp(logit<true>(x, valid));
      return select(valid, vexp2(logit<false>(x, valid) - peak), splat<V>(0));
    }
  };

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const int64_t n = taps.count();
    w.scale = w.parameter[0] * splat<V>(T(1.4426950408889634));
    const V none = splat<V>(-kInf<T>);
    V peak = none;
    if constexpr (safe) {
      const V sign = select(w.parameter[0] < splat<V>(0), splat<V>(-1), splat<V>(1));
      w.has_pos_inf = splat<V>(0) != splat<V>(0);
      POOLNB_UNROLL for (int64_t i = 0; i < n; ++i) {
        const V x = taps.x(i);
        w.has_pos_inf = w.has_pos_inf | ((x == splat<V>(kInf<T>)) & taps.valid(i));
        peak = vmax(peak, select(infinite(x), none, select(taps.valid(i), x * sign, none)));
      }
      peak = select(peak == none, splat<V>(0), peak * sign);
    } else {
      POOLNB_UNROLL for (int64_t i = 0; i < n; ++i)
        peak = vmax(peak, w.template logit<false>(taps.x(i), taps.valid(i)));
    }
    w.peak = peak;
    Sum<V> all, sum;
    Overflow<V, Saved::backward && !safe> overflow;
    auto any_neg_inf = splat<V>(0) != splat<V>(0);
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), e = w.template weight<safe>(x, taps.valid(i));
      if constexpr (safe) any_neg_inf = any_neg_inf | ((x == splat<V>(-kInf<T>)) & taps.valid(i));
      saved.put(i, e);
      all += e;
      sum += e * x;
      overflow += x;
    }, all, sum);
    const V total = all.value();
    if constexpr (safe) {
      w.inv_sum = splat<V>(1) / select(total == splat<V>(0), splat<V>(1), total);
      w.y = weighted_safe(w, taps, options);
      w.y = select((total == splat<V>(0)) & any_neg_inf, splat<V>(-kInf<T>), w.y);
    } else {
      w.inv_sum = quick_reciprocal(total);
      w.y = overflow.added_to(sum.value() * w.inv_sum);
    }
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    return w.template weight<safe>(taps.x(i), taps.valid(i));
  }

  // With weights of sum 1: a sum of e x could overflow where the mean does not.
  template <class V, class Taps>
  static POOLNB_HD V weighted_safe(const Window<V>& w, const Taps& taps, const Options& options) {
    Sum<V> mean;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), weight = recompute<true>(w, taps, i, options) * w.inv_sum;
      mean += weight * select(x == splat<V>(-kInf<typename Traits<V>::Number>), splat<V>(0), x);
    }, mean);
    return mean.value();
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V e, int64_t, const Options& options, Sum<V>* d_params, V&) {
    using T = typename Traits<V>::Number;
    const V weight = e * w.inv_sum;
    // On the safe path a half of it: it may overflow.
    V centred = x - w.y;
    if constexpr (safe) {
      const V half = splat<V>(T(0.5));
      centred = select((weight == splat<V>(0)) | infinite(w.y), splat<V>(0), half * x - half * w.y);
    }
    const V unit = splat<V>(safe ? 2 : 1), weighted = weight * centred;
    d_params[0] += weighted * centred * (unit * unit);
    const V d = options.soft.semi_grad ? weight : weight + w.parameter[0] * weighted * unit;
    return safe ? select(w.y == w.y, d, w.y) : d;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}

  // As sums over taps (../cpu/sums.h): of e = exp(beta x), e x, and e x^2 for beta. dx = e (1 + beta x) sum g / sum e
  // less e beta sum g y / sum e.
  template <class V>
  struct Sums {
    static constexpr int features = 2, learned = 3, back = 2, from[2] = {4, 4};
    static constexpr bool keeps = true;
    static constexpr float reach = 32, reach_back = 16;
    V beta;
    bool semi_grad;

    POOLNB_HD Sums(V parameter, const Options& options) : beta(parameter), semi_grad(options.soft.semi_grad) {}
    POOLNB_HD V exponent(V x, V) const { return beta * x; }
    template <int count>
    POOLNB_HD void tap(V x, V, V* f) const {
      f[0] = vexp_down(beta * x);
      f[1] = f[0] * x;
      if constexpr (count > 2) f[2] = f[1] * x;
    }
    static POOLNB_HD V inverse(V total) {
      return select(total == splat<V>(0), splat<V>(0), quick_reciprocal(total));
    }
    template <int>
    POOLNB_HD V value(const V* sums, V) const { return sums[1] * inverse(sums[0]); }
    POOLNB_HD void hand_back(const V* sums, V, V y, V g, V* b) const {
      b[0] = normal_or_nan(g * inverse(sums[0]), g, sums[0]);
      b[1] = b[0] * y;
    }
    POOLNB_HD V tap_grad(V x, V, V e, const V* s, V&) const {
      if (semi_grad) return e * s[0];
      return e * (s[0] + beta * (x * s[0] - s[1]));
    }
    POOLNB_HD V param_grad(const V* sums, V, V y, V& rough) const {
      rough = sums[2] * inverse(sums[0]);
      return rough - y * y;
    }
  };
};

}  // namespace poolnb
