// Power means: y = (sum c a_i^p)^(1/p) of sizes a_i >= 0. GeM: a = max(x, eps), c = 1/n; Lp: a = |x|, c = 1.
// With m the largest size, r = a / m, S = sum c r^p: y = m S^(1/p), dy/da_i = c r_i^p y / (S a_i), and
// dy/dp = y/p (sum c r^p ln r / S - ln(S) / p). Nothing over- or underflows, because r <= 1.
#pragma once

#include "../taps.h"

namespace poolnb {

template <bool gem>
struct PowerMean {
  static constexpr int inputs = 1, parameters = 1, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];  // p
    V unit, over_unit, share, over_total, entropy, log_root, y;
    typename Traits<V>::Mask hot;  // careful: the window holds an infinite size

    // p ln r, 0 for r = 1 though p be infinite.
    static POOLNB_HD V exponent(V p, V log_ratio) {
      return select(log_ratio == splat<V>(0), splat<V>(0), p * log_ratio);
    }
    // r^p, and ln r.
    template <bool careful>
    POOLNB_HD V power(V a, auto valid, V& log_ratio) const {
      using T = typename Traits<V>::Number;
      const V tiny = splat<V>(std::numeric_limits<T>::min());
      // The largest size has the ratio 1 to the last bit: a large p would make nothing of less.
      V r = careful ? a / unit : select(a == unit, splat<V>(1), a * over_unit);
      if constexpr (careful) r = select(hot, one_where<V>(a == splat<V>(kInf<T>)), r);
      log_ratio = careful ? vlog(vmax(r, tiny)) : vlog_normal(vmax(r, tiny));
      const V e = careful ? vexp(exponent(parameter[0], log_ratio)) : vexp_down(parameter[0] * log_ratio);
      return select(valid, select(r < tiny, splat<V>(0), e), splat<V>(0));
    }
  };

  template <class V>
  static POOLNB_HD V size(V x, const Options& options) {
    using T = typename Traits<V>::Number;
    if constexpr (!gem) return vabs(x);
    else return select(x < splat<V>(T(options.value[0])), splat<V>(T(options.value[0])), x);
  }

  template <bool careful, class V, class Taps, class Memo>
  static POOLNB_HD void look(Window<V>& w, const Taps& taps, const Options& options, Memo& memo) {
    using T = typename Traits<V>::Number;
    const V tiny = splat<V>(std::numeric_limits<T>::min()), p = w.parameter[0];
    const int64_t count = taps.count();
    V unit = tiny, n = splat<V>(0), sum = splat<V>(0);
    w.hot = splat<V>(0) != splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V a = size(taps.x(i), options);
      sum = sum + a;
      auto larger = a > unit;
      if constexpr (careful) {
        const auto is_hot = (a == splat<V>(kInf<T>)) & taps.valid(i);
        w.hot = w.hot | is_hot;
        larger = (larger | (a != a)) & (a != splat<V>(kInf<T>));
      }
      unit = select(larger & taps.valid(i), a, unit);
      n = n + one_where<V>(taps.valid(i));
    }
    w.share = gem ? splat<V>(1) / vmax(n, splat<V>(1)) : splat<V>(1);
    w.unit = unit;
    w.over_unit = splat<V>(1) / unit;
    V total = splat<V>(0), entropy = splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      V l;
      const V e = w.template power<careful>(size(taps.x(i), options), taps.valid(i), l);
      memo.put(i, e);
      total = total + e;
      entropy = entropy + e * l;
    }
    total = total * w.share;
    entropy = entropy * w.share;
    auto nothing = total == splat<V>(0);
    total = select(nothing, splat<V>(1), total);
    w.log_root = vlog(total) / p;
    w.over_total = splat<V>(1) / total;
    w.entropy = entropy * w.over_total - w.log_root;
    w.y = select(nothing, splat<V>(0), unit * vexp(w.log_root));
    if constexpr (careful) w.y = select(w.hot & (w.y == w.y), splat<V>(kInf<T>), w.y);
    // What is not finite has to show, p too, and a size whose reciprocal is no normal number.
    else w.y = w.y + (sum * splat<V>(4) + p) * splat<V>(0);
  }

  template <bool careful, class V, class Taps>
  static POOLNB_HD V remember(const Window<V>& w, const Taps& taps, int64_t i, const Options& options) {
    V log_ratio;
    return w.template power<careful>(size(taps.x(i), options), taps.valid(i), log_ratio);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool careful, class V>
  static POOLNB_HD V slope(const Window<V>& w, V x, V, V e, int64_t, const Options& options, V*, V&) {
    using T = typename Traits<V>::Number;
    const V a = size(x, options);
    V d = e * w.share * w.over_total * (w.y / a);
    if constexpr (careful) {
      // An infinite result is shared by the infinite taps: r / rho with r = 1.
      const V limit = vexp(w.exponent(splat<V>(1) - w.parameter[0], w.log_root)) * w.share * e;
      d = select(w.hot, limit, d);
    }
    d = select(e == splat<V>(0), splat<V>(0), d);
    d = gem ? select(x < splat<V>(T(options.value[0])), splat<V>(0), d) : select(x < splat<V>(0), -d, d);
    if constexpr (careful) d = select(w.hot | (w.y == w.y), d, w.y);
    return d;
  }

  template <bool careful, class V>
  static POOLNB_HD void finish(const Window<V>& w, V* own) {
    const V y = careful ? select(infinite(w.y), splat<V>(0), w.y) : w.y;
    own[0] = y / w.parameter[0] * w.entropy;
  }
};

struct Gem : PowerMean<true> {};
struct Lp : PowerMean<false> {};

}  // namespace poolnb
