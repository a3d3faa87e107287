// Temperature-driven Gumbel-softmax pooling. Logits z_i / t, t = max(T, 0) + eps, z = x / |x| over the window, or x.
// With a draw, q = softmax((z / t + Gumbel noise) / tau) and y = sum q_i x_i, or if hard the tap of the largest score,
// with the gradient of q in its place; without one, q = softmax(z / t) and y = sum q_i x_i.
// dy/dx_i = s_i + (q_i (z_i - m) - z_i v) / (t tau), m and v mean and variance of z under q, s what weighs the taps;
// the term z_i v only with the norm. dy/dT = -|x| v / (t t tau).
// The noise comes as its exp: for tau = 1 it multiplies the weights, and no log is needed.
#pragma once

#include "../philox.h"
#include "../taps.h"

namespace poolnb {

struct Tdgs {
  static constexpr int inputs = 1, parameters = 1, noise = 2;
  static constexpr Stream stream = Stream::tdgs;

  static POOLNB_HD bool is_hard(const Options& options) { return options.draws && options.tdgs.hard; }
  static POOLNB_HD bool is_tempered(const Options& options) { return options.draws && options.tdgs.tau != 1; }

  // 1 / tau; without a draw, 1. It is asked for at every tap, and tau is 1 as a rule: a branch costs less than a
  // division.
  template <class T>
  static POOLNB_HD T inv_tau(const Options& options) { return is_tempered(options) ? T(1 / options.tdgs.tau) : T(1); }

  template <class V>
  struct Window {
    V parameter[1];  // T
    V inv_t, inv_norm, norm, peak, inv_sum, mean, spread, number, y;
    V scale;                       // of a tap's logit, base 2
    V top;                         // the largest logit: next to large ones a sum with the noise would lose it; safe
                                   // path: half the largest z
    V t, inv_size;                // safe path
    typename Traits<V>::Mask has_pos_inf;  // safe path: the window holds +inf

    template <bool safe>
    POOLNB_HD V z(V x) const {
      if constexpr (safe) return select(infinite(x), splat<V>(0), x) * inv_size * inv_norm;
      else return x * inv_norm;
    }
    // z less its mean; where it has no weight the difference may overflow.
    template <bool safe>
    POOLNB_HD V centred(V x, V weight) const {
      const V difference = z<safe>(x) - mean;
      if constexpr (safe) return select(weight == splat<V>(0), splat<V>(0), difference);
      return difference;
    }
    // Base 2, on the fast path, before it is divided by tau; with noise only if it has to be.
    POOLNB_HD V score(V x, V factor, const Options& options) const {
      const V s = x * scale;
      if (!is_tempered(options)) return s;
      const auto l = vlog2(factor);
      return s - top + (l.whole + l.part);
    }
    POOLNB_HD V weight(V x, V factor, auto valid, const Options& options) const {
      using T = typename Traits<V>::Number;
      V exponent = score(x, factor, options) - peak;
      if (is_tempered(options)) exponent = exponent * splat<V>(inv_tau<T>(options));
      V e = vexp2(exponent);
      if (options.draws && !is_tempered(options)) e = e * factor;
      return select(valid, e, splat<V>(0));
    }
    // Half of z, -inf where the tap has no part.
    POOLNB_HD V half_z(V x, auto valid) const {
      using T = typename Traits<V>::Number;
      const V none = splat<V>(-kInf<T>);
      const V half = select(x == none, x, splat<V>(T(0.5)) * z<true>(x));
      return select(valid, select(has_pos_inf & (x < splat<V>(kInf<T>)), none, half), none);
    }
    // In differences from the largest, at most 0: z / t may overflow for all taps. In halves: a difference may as well.
    POOLNB_HD V safe_score(V x, V factor, auto valid, const Options& options) const {
      using T = typename Traits<V>::Number;
      const V half = (half_z(x, valid) - top) / t, s = half + half;
      return options.draws ? (s + vlog(factor)) * splat<V>(inv_tau<T>(options)) : s;
    }
  };

  template <class V, class Taps>
  static POOLNB_HD V factor(const Taps& taps, int64_t i, const Options& options) {
    return options.draws ? taps.noise(i) : splat<V>(1);
  }

  // The largest of logit(i), 0 where all are -inf.
  template <class V, class Taps>
  static POOLNB_HD V largest(const Taps& taps, const auto& logit) {
    const V nothing = splat<V>(-kInf<typename Traits<V>::Number>);
    V top = nothing;
    const int64_t count = taps.count();
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) top = vmax(top, logit(i));
    return select(top == nothing, splat<V>(0), top);
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    if constexpr (safe) forward_safe(w, taps, options, saved);
    else forward_fast(w, taps, options, saved);
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_fast(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const int64_t count = taps.count();
    const V t = vmax(w.parameter[0], splat<V>(0)) + splat<V>(T(options.tdgs.eps));
    w.inv_t = quick_reciprocal(t);
    V size = splat<V>(0);
    Sum<V> squares;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      size = size + vabs(x);
      squares += x * x;
    }, squares);
    // What is not finite has to show, what overflows in a square or a difference, and what a square lost.
    V show = (size + t + squares.value()) * splat<V>(0);
    w.inv_norm = w.norm = splat<V>(1);
    if (options.tdgs.normalize) {
      constexpr T step = std::numeric_limits<T>::epsilon(), small = std::numeric_limits<T>::min() / (step * step);
      const auto nothing = size == splat<V>(0);
      V square = squares.value();
      show = select((square < splat<V>(small)) & !nothing, splat<V>(kInf<T>), show);
      square = select(nothing, splat<V>(1), square);
      w.inv_norm = quick_rsqrt(square);
      w.norm = square * w.inv_norm;
    }
    w.scale = w.inv_norm * w.inv_t * splat<V>(T(1.4426950408889634));
    w.top = splat<V>(0);
    if (is_tempered(options)) {
      w.top = largest<V>(taps, [&](int64_t i) POOLNB_INLINE {
        return select(taps.valid(i), taps.x(i) * w.scale, splat<V>(-kInf<T>));
      });
    }
    w.peak = splat<V>(-kInf<T>);
    // The tap of the peak: a mean of differences from it is exact where all the weight is on equal taps.
    V base = splat<V>(0), of_peak = splat<V>(T(count));
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i), s = w.score(x, factor<V>(taps, i, options), options);
      const auto larger = taps.valid(i) & (s > w.peak);
      w.peak = select(larger, s, w.peak);
      base = select(larger, x, base);
      if (is_tempered(options)) of_peak = select(larger, splat<V>(T(i)), of_peak);
    }
    V heaviest = splat<V>(0), chosen = splat<V>(0);
    Sum<V> total, mean, apart;
    w.number = splat<V>(T(count));
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), e = w.weight(x, factor<V>(taps, i, options), taps.valid(i), options);
      const auto larger = e > heaviest;
      heaviest = select(larger, e, heaviest);
      w.number = select(larger, splat<V>(T(i)), w.number);
      chosen = select(larger, x, chosen);
      saved.put(i, e);
      total += e;
      mean += e * x;
      if constexpr (Saved::backward) apart += e * (x - base);
    }, total, mean, apart);
    // A score with noise draws for itself: a large tau makes all weights equal, to their last digit.
    if (is_tempered(options)) w.number = of_peak, chosen = base;
    w.inv_sum = quick_reciprocal(total.value());
    const V soft = mean.value() * w.inv_sum;
    w.y = (is_hard(options) ? chosen : soft) + (show + w.inv_sum * splat<V>(0));
    if constexpr (Saved::backward) {
      w.mean = (base + apart.value() * w.inv_sum) * w.inv_norm;
      find_spread<false>(w, taps, options, saved);
    }
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_safe(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const int64_t count = taps.count();
    const V neg_inf = splat<V>(-kInf<T>);
    const V raw = w.parameter[0];
    w.t = select(raw < splat<V>(0), splat<V>(0), raw) + splat<V>(T(options.tdgs.eps));
    w.inv_t = splat<V>(1) / w.t;
    V size = splat<V>(0), least = splat<V>(kInf<T>);
    w.has_pos_inf = splat<V>(0) != splat<V>(0);
    auto any_neg_inf = w.has_pos_inf;
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i), a = select(infinite(x), splat<V>(0), vabs(x));
      w.has_pos_inf = w.has_pos_inf | (x == splat<V>(kInf<T>));
      any_neg_inf = any_neg_inf | (x == neg_inf);
      least = select((x < least) | (x != x), x, least);
      size = select((a > size) | (a != a), a, size);
    }
    w.inv_size = w.inv_norm = w.norm = splat<V>(1);
    if (options.tdgs.normalize) {
      // A window of zeros stays as it is; sizes below the normal numbers have no reciprocal.
      const V tiny = splat<V>(std::numeric_limits<T>::min());
      size = select(size == splat<V>(0), splat<V>(1), select(size < tiny, tiny, size));
      w.inv_size = splat<V>(1) / size;
      Sum<V> squares;
      each_tap(taps, [&](int64_t i) POOLNB_INLINE {
        const V x = taps.x(i), scaled = select(infinite(x), splat<V>(0), x) * w.inv_size;
        squares += scaled * scaled;
      }, squares);
      const V square = squares.value();
      const V norm = vsqrt(select(square == splat<V>(0), splat<V>(1), square));
      w.inv_norm = splat<V>(1) / norm;
      w.norm = size * norm;
    }
    w.top = largest<V>(taps, [&](int64_t i) POOLNB_INLINE { return w.half_z(taps.x(i), taps.valid(i)); });
    V peak = neg_inf, number = splat<V>(T(count)), chosen = splat<V>(0), base = splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i), s = w.safe_score(x, factor<V>(taps, i, options), taps.valid(i), options);
      const auto larger = (s > peak) | (s != s);
      peak = select(larger, s, peak);
      base = select(larger, splat<V>(T(0.5)) * w.template z<true>(x), base);
      number = select(larger, splat<V>(T(i)), number);
      chosen = select(larger, x, chosen);
    }
    // No draw where all scores are -inf or one is NaN.
    number = select(peak == peak, number, splat<V>(T(count)));
    chosen = select(number == splat<V>(T(count)), least, chosen);
    w.number = number;
    w.peak = select(peak == neg_inf, splat<V>(0), peak);
    Sum<V> all, mean;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), e = recompute<true>(w, taps, i, options);
      saved.put(i, e);
      all += e;
      mean += e * (splat<V>(T(0.5)) * w.template z<true>(x) - base);  // halves: a difference could overflow
    }, all, mean);
    const V total = all.value();
    const auto nothing = total == splat<V>(0);
    w.inv_sum = splat<V>(1) / select(nothing, splat<V>(1), total);
    w.mean = splat<V>(2) * (base + mean.value() * w.inv_sum);
    // With weights of sum 1: a sum of e x could overflow where the mean does not.
    Sum<V> soft;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), weight = recompute<true>(w, taps, i, options) * w.inv_sum;
      soft += weight * select(x == neg_inf, splat<V>(0), x);
    }, soft);
    w.y = select(nothing & any_neg_inf, neg_inf, soft.value());
    if (is_hard(options)) w.y = select(w.t == w.t, chosen, w.t);
    if constexpr (Saved::backward) find_spread<true>(w, taps, options, saved);
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void find_spread(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    Sum<V> spread;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      V e;
      if constexpr (Saved::keeps) e = saved.get(i);
      else e = recompute<safe>(w, taps, i, options);
      const V centred = w.template centred<safe>(taps.x(i), e);
      spread += e * centred * centred;
    }, spread);
    w.spread = spread.value() * w.inv_sum;
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options& options) {
    const V x = taps.x(i), noise = factor<V>(taps, i, options);
    if constexpr (safe) return vexp(w.safe_score(x, noise, taps.valid(i), options) - w.peak);
    else return w.weight(x, noise, taps.valid(i), options);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V e, int64_t i, const Options& options, Sum<V>* d_params,
                              V&) {
    using T = typename Traits<V>::Number;
    const V q = e * w.inv_sum, z = w.template z<safe>(x);
    const V inv_width = w.inv_t * splat<V>(inv_tau<T>(options));
    V turned = q * w.template centred<safe>(x, e);
    if (options.tdgs.normalize) turned = turned - z * w.spread;
    const V direct = is_hard(options) ? one_where<V>(w.number == splat<V>(T(i))) : q;
    if (i == 0) {
      const V norm = options.tdgs.normalize ? w.norm : splat<V>(1);
      const V down = norm * w.spread * inv_width * w.inv_t;
      d_params[0] += select(w.parameter[0] > splat<V>(0), -down, splat<V>(0));
    }
    return direct + turned * inv_width;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
