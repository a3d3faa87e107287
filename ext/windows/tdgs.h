// Temperature-driven Gumbel-softmax pooling. Logits z_i / t, t = max(T, 0) + eps, z = x / |x| over the window, or x.
// With a draw, q = softmax((z / t + Gumbel noise) / tau) and y = sum q_i x_i, or if hard the tap of the largest score,
// with the gradient of q in its place; without one, q = softmax(z / t) and y = sum q_i x_i.
// dy/dx_i = s_i + (q_i (z_i - m) - z_i v) / (t tau), m and v mean and variance of z under q, s what weighs the taps;
// the term z_i v only with the norm. dy/dT = -|x| v / (t t tau).
#pragma once

#include "../philox.h"
#include "../taps.h"

namespace poolnb {

struct Tdgs {
  static constexpr int inputs = 1, parameters = 1, noise = 2;
  static constexpr Stream stream = Stream::tdgs;

  template <class V>
  struct Window {
    V parameter[1];  // T
    V t, over_t, over_size, over_norm, norm, peak, over_total, mean, spread, number, y;
    typename Traits<V>::Mask hot;  // careful: the window holds +inf

    template <bool careful>
    POOLNB_HD V z(V x) const {
      if constexpr (careful) x = select(infinite(x), splat<V>(0), x);
      return x * over_size * over_norm;
    }
    template <bool careful>
    POOLNB_HD V score(V x, V noise, auto valid, const Options& options) const {
      using T = typename Traits<V>::Number;
      V s = z<careful>(x) * over_t;
      if (options.draws) s = (s + noise) * splat<V>(T(1 / options.value[0]));
      if constexpr (careful) {
        s = select(s > splat<V>(kLargest<T>), splat<V>(kLargest<T>), s);
        s = select(s < splat<V>(-kLargest<T>), splat<V>(-kLargest<T>), s);
        s = select(x == splat<V>(-kInf<T>), x, s);
        s = select(hot & (x < splat<V>(kInf<T>)), splat<V>(-kInf<T>), s);
      }
      return select(valid, s, splat<V>(-kInf<T>));
    }
  };

  template <bool careful, class V, class Taps, class Memo>
  static POOLNB_HD void look(Window<V>& w, const Taps& taps, const Options& options, Memo& memo) {
    using T = typename Traits<V>::Number;
    const int64_t count = taps.count();
    const V cold_score = splat<V>(-kInf<T>);
    const V raw = w.parameter[0];
    w.t = select(raw < splat<V>(0), splat<V>(0), raw) + splat<V>(T(options.value[3]));
    w.over_t = splat<V>(1) / w.t;
    V sum = splat<V>(0), size = splat<V>(0), least = splat<V>(kInf<T>);
    w.hot = splat<V>(0) != splat<V>(0);
    auto frozen = w.hot;
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i);
      V a = vabs(x);
      if constexpr (careful) {
        w.hot = w.hot | (x == splat<V>(kInf<T>));
        frozen = frozen | (x == cold_score);
        least = select((x < least) | (x != x), x, least);
        a = select(infinite(x), splat<V>(0), a);
      }
      size = select((a > size) | (a != a), a, size);
      sum = sum + x;
    }
    w.over_size = w.over_norm = w.norm = splat<V>(1);
    if (options.value[2] != 0) {
      // A window of zeros stays as it is; sizes below the normal numbers have no reciprocal.
      const V tiny = splat<V>(std::numeric_limits<T>::min());
      size = select(size == splat<V>(0), splat<V>(1), select(size < tiny, tiny, size));
      w.over_size = splat<V>(1) / size;
      V square = splat<V>(0);
      POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
        V x = taps.x(i);
        if constexpr (careful) x = select(infinite(x), splat<V>(0), x);
        const V scaled = x * w.over_size;
        square = square + scaled * scaled;
      }
      const V norm = vsqrt(select(square == splat<V>(0), splat<V>(1), square));
      w.over_norm = splat<V>(1) / norm;
      w.norm = size * norm;
    }
    const bool hard = options.draws && options.value[1] != 0;
    const auto noise = [&](int64_t i) { return options.draws ? taps.noise(i) : splat<V>(0); };
    V peak = cold_score, number = splat<V>(T(count)), chosen = splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i);
      const V s = w.template score<careful>(x, noise(i), taps.valid(i), options);
      auto larger = s > peak;
      if constexpr (careful) larger = larger | (s != s);
      peak = select(larger, s, peak);
      number = select(larger, splat<V>(T(i)), number);
      chosen = select(larger, x, chosen);
      memo.put(i, s);
    }
    if constexpr (careful) {
      // No draw where all scores are -inf or one is NaN.
      number = select(peak == peak, number, splat<V>(T(count)));
      chosen = select(number == splat<V>(T(count)), least, chosen);
      peak = select(peak == cold_score, splat<V>(0), peak);
    }
    w.number = number;
    w.peak = peak;
    constexpr bool forward = !Memo::backward;
    if (forward && hard) {
      w.y = careful ? select(w.t == w.t, chosen, w.t) : chosen + (sum + w.t) * splat<V>(0);
      return;
    }
    V total = splat<V>(0), moment = splat<V>(0), mean = splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      V x = taps.x(i);
      V s;
      if constexpr (Memo::keeps) s = memo.get(i);
      else s = w.template score<careful>(x, noise(i), taps.valid(i), options);
      const V e = careful ? vexp(s - peak) : vexp_down(s - peak);
      memo.put(i, e);
      total = total + e;
      mean = mean + e * w.template z<careful>(x);
      if constexpr (careful) x = select(x == cold_score, splat<V>(0), x);
      moment = moment + e * x;
    }
    const auto nothing = total == splat<V>(0);
    w.over_total = splat<V>(1) / (careful ? select(nothing, splat<V>(1), total) : total);
    w.mean = mean * w.over_total;
    w.y = moment * w.over_total;
    if constexpr (careful) {
      w.y = select(nothing & frozen, cold_score, w.y);
      if (hard) w.y = select(w.t == w.t, chosen, w.t);
    } else {
      w.y = (hard ? chosen : w.y) + (sum + w.t + w.over_total) * splat<V>(0);
    }
    if constexpr (!forward) {
      V spread = splat<V>(0);
      POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
        const V z = w.template z<careful>(taps.x(i)), centred = z - w.mean;
        V e;
        if constexpr (Memo::keeps) e = memo.get(i);
        else e = remember<careful>(w, taps, i, options);
        spread = spread + e * centred * centred;
      }
      w.spread = spread * w.over_total;
    }
  }

  template <bool careful, class V, class Taps>
  static POOLNB_HD V remember(const Window<V>& w, const Taps& taps, int64_t i, const Options& options) {
    const V noise = options.draws ? taps.noise(i) : splat<V>(0);
    const V s = w.template score<careful>(taps.x(i), noise, taps.valid(i), options) - w.peak;
    return careful ? vexp(s) : vexp_down(s);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool careful, class V>
  static POOLNB_HD V slope(const Window<V>& w, V x, V, V e, int64_t i, const Options& options, V* own, V&) {
    using T = typename Traits<V>::Number;
    const V q = e * w.over_total, z = w.template z<careful>(x);
    const V over_width = options.draws ? w.over_t * splat<V>(T(1 / options.value[0])) : w.over_t;
    V turned = q * (z - w.mean);
    if (options.value[2] != 0) turned = turned - z * w.spread;
    const bool hard = options.draws && options.value[1] != 0;
    const V direct = hard ? one_where<V>(w.number == splat<V>(T(i))) : q;
    if (i == 0) {
      const V norm = options.value[2] != 0 ? w.norm : splat<V>(1);
      const V down = norm * w.spread * over_width * w.over_t;
      own[0] = select(w.parameter[0] > splat<V>(0), -down, splat<V>(0));
    }
    return direct + turned * over_width;
  }

  template <bool careful, class V>
  static POOLNB_HD void finish(const Window<V>&, V*) {}
};

}  // namespace poolnb
