// Power means: y = (sum c a_i^p)^(1/p) of sizes a_i >= 0. GeM: a = max(x, eps), c = 1/n; Lp: a = |x|, c = 1.
// With m the largest size, r = a / m, S = sum c r^p: y = m S^(1/p), dy/da_i = c r_i^p y / (S a_i), and
// dy/dp = y/p (sum c r^p ln r / S - ln(S) / p). Nothing over- or underflows, because r <= 1.
// On the fast path, r^p is 2^(p (log2 a - log2 m)): logs do not wait for the largest size, and m need not be exact; and
// Lp with p = 2, as most use it, is a root of squares, dy/dx_i = x_i / y. `two`: p is known to be 2.
// GeM with p near 0 is next to the geometric mean, and ln S next to 0: see `near_zero`.
#pragma once

#include "../taps.h"

namespace poolnb {

template <bool gem, bool two = false>
struct PowerMean {
  static constexpr int inputs = 1, parameters = 1, noise = 0;

  template <class V>
  struct Window {
    V parameter[1];  // p
    V peak;          // log2 m; safe path: m
    V share, inv_p, inv_sum, entropy, y;
    V log_root;                      // safe path: ln S / p
    V number;                        // safe path: which tap is the first largest one
    typename Traits<V>::Mask has_pos_inf;    // safe path: the window holds an infinite size
    bool squares = false;            // on the fast path: p = 2, and `inv_sum` is 1 / y, or finite where y is 0

    // r^p on the fast path; `exponent` becomes its log2.
    POOLNB_HD V power(V a, auto valid, V& exponent) const {
      using T = typename Traits<V>::Number;
      const auto l = vlog2(a);
      exponent = vmax(((l.whole - peak) + l.part) * parameter[0], splat<V>(2 * kLowest<T>));  // finite for a size of 0
      V e = vexp2(exponent);
      if constexpr (!gem) e = select(a < splat<V>(std::numeric_limits<T>::min()), splat<V>(0), e);
      return select(valid, e, splat<V>(0));
    }

    // p ln r, 0 for r = 1 though p be infinite.
    static POOLNB_HD V scaled(V p, V log_ratio) {
      return select(log_ratio == splat<V>(0), splat<V>(0), p * log_ratio);
    }
    // On the safe path: whether a tap has a share. r is 0 beside an infinite tap.
    POOLNB_HD auto has_share(V a) const {
      using T = typename Traits<V>::Number;
      return ((a > splat<V>(0)) & !has_pos_inf) | (a == splat<V>(kInf<T>)) | (a != a);
    }
    // ln r of such a tap. A ratio below the normal numbers is not formed.
    POOLNB_HD V log_ratio(V a) const {
      using T = typename Traits<V>::Number;
      const V tiny = splat<V>(std::numeric_limits<T>::min()), r = a / peak;
      const V l = select(r < tiny, vlog(vmax(a, tiny)) - vlog(vmax(peak, tiny)), vlog(vmax(r, tiny)));
      return select(has_pos_inf & (a == a), splat<V>(0), l);
    }
    POOLNB_HD V safe_power(V a, auto valid) const {
      const V e = select(has_share(a), vexp(scaled(parameter[0], log_ratio(a))), splat<V>(0));
      return select(valid, e, splat<V>(0));
    }
  };

  // The smallest exponent of 2 that gives a normal number.
  template <class T>
  static constexpr T kLowest = std::numeric_limits<T>::min_exponent - 1;

  // Whether the fast path has the digits: near 0 it loses 1 / p of them, and a large p times a log may overflow.
  template <class V>
  static POOLNB_HD auto moderate(V p) {
    using T = typename Traits<V>::Number;
    return (p >= splat<V>(T(0.25))) & (p <= splat<V>(T(1e4)));
  }

  template <class V>
  static POOLNB_HD V size(V x, const Options& options) {
    using T = typename Traits<V>::Number;
    if constexpr (!gem) return vabs(x);
    else return vmax(x, splat<V>(T(options.gem.eps)));
  }

  template <class V>
  static POOLNB_HD V share_of(V n) { return gem ? splat<V>(1) / vmax(n, splat<V>(1)) : splat<V>(1); }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    if constexpr (safe) forward_safe(w, taps, options, saved);
    else forward_fast(w, taps, options, saved);
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_fast(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V lowest = splat<V>(kLowest<T>), p = w.parameter[0];
    if (two || (!gem && !any(p != splat<V>(2)))) return add_squares(w, taps, saved);
    V sum = splat<V>(0), subnormal = splat<V>(0);
    Sum<V> n;
    w.peak = lowest;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V a = size(taps.x(i), options);
      const auto l = vlog2(a);
      sum = sum + a;
      const auto tiny = a < splat<V>(std::numeric_limits<T>::min());
      if constexpr (!gem) subnormal = vmax(subnormal, select(tiny, a, splat<V>(0)));
      w.peak = vmax(w.peak, select(taps.valid(i), l.whole + l.part, lowest));
      n += one_where<V>(taps.valid(i));
    }, n);
    w.share = share_of(n.value());
    Sum<V> powers, entropy;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      V exponent;
      const V e = w.power(size(taps.x(i), options), taps.valid(i), exponent);
      saved.put(i, e);
      powers += e;
      if constexpr (Saved::backward) entropy += e * exponent;
    }, powers, entropy);
    V total = powers.value();
    // Sizes are 0 all.
    const auto nothing = (total == splat<V>(0)) & (sum == splat<V>(0));
    total = total * w.share;
    const auto l = vlog2(total);
    const V log_total = l.whole + l.part;
    w.inv_p = quick_reciprocal(p);
    w.inv_sum = quick_reciprocal(total);
    w.entropy = (entropy.value() * w.share * w.inv_sum - log_total) * w.inv_p * splat<V>(T(0.69314718055994531));
    const V root = log_total * w.inv_p;
    w.y = vexp2(w.peak, root);
    w.y = select(vabs(w.peak + root) < splat<V>(-1 - kLowest<T>), w.y, splat<V>(std::numeric_limits<T>::quiet_NaN()));
    // What is not finite has to show, p too, and sizes that are no normal numbers.
    const bool small = gem && options.gem.eps < std::numeric_limits<T>::min();
    w.y = w.y + (sum * splat<V>(4) + p) * splat<V>(small ? kInf<T> : 0);
    w.y = select(moderate(p), w.y, splat<V>(std::numeric_limits<T>::quiet_NaN()));
    if constexpr (!gem) {
      w.y = select(nothing, splat<V>(0), w.y);
      w.y = select(subnormal > splat<V>(0), splat<V>(std::numeric_limits<T>::quiet_NaN()), w.y);
      w.inv_sum = select(nothing, splat<V>(0), w.inv_sum);
      w.entropy = select(nothing, splat<V>(0), w.entropy);
    }
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void add_squares(Window<V>& w, const Taps& taps, Saved& saved) {
    using T = typename Traits<V>::Number;
    constexpr T step = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min() / (step * step);
    w.squares = true;
    V some = splat<V>(0);  // not 0 where a tap is not
    Sum<V> squares;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      saved.put(i, splat<V>(0));
      some = either(some, x);
      squares.add_product(x, x);
    }, squares);
    const V total = squares.value();
    // Where all taps are 0 the gradient is 0 times this. Of what is not finite, y is NaN.
    w.inv_sum = quick_rsqrt(vmax(total, splat<V>(least)));
    const auto lost = (total < splat<V>(least)) & (some != splat<V>(0));  // digits of a square
    w.y = select(lost, splat<V>(std::numeric_limits<T>::quiet_NaN()), total * w.inv_sum);
  }

  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_safe(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V inf = splat<V>(kInf<T>);
    if constexpr (gem) {  // nearer to 0, nothing changes but that products underflow
      const V least = splat<V>(T(0x1p-100)), p = w.parameter[0];
      w.parameter[0] = select((p >= splat<V>(0)) & (p < least), least, p);
    }
    const V p = w.parameter[0];
    V unit = splat<V>(0), largest = splat<V>(0);
    Sum<V> n;
    w.has_pos_inf = splat<V>(0) != splat<V>(0);
    w.number = splat<V>(-1);
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V a = size(taps.x(i), options);
      const auto larger = (a > largest) & taps.valid(i);
      largest = select(larger, a, largest);
      w.number = select(larger, splat<V>(T(i)), w.number);
      w.has_pos_inf = w.has_pos_inf | ((a == inf) & taps.valid(i));
      unit = select(((a > unit) | (a != a)) & (a != inf) & taps.valid(i), a, unit);
      n += one_where<V>(taps.valid(i));
    }, n);
    w.share = share_of(n.value());
    unit = select(unit == splat<V>(0), splat<V>(1), unit);
    w.peak = unit;
    Sum<V> powers, entropy;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V a = size(taps.x(i), options), e = w.safe_power(a, taps.valid(i));
      saved.put(i, e);
      powers += e;
      entropy += select(e == splat<V>(0), splat<V>(0), e * w.log_ratio(a));
    }, powers, entropy);
    V total = powers.value() * w.share;
    const auto nothing = total == splat<V>(0);
    total = select(nothing, splat<V>(1), total);
    w.inv_p = splat<V>(1) / p;
    w.log_root = vlog(total) / p;
    w.inv_sum = splat<V>(1) / total;
    w.entropy = entropy.value() * w.share * w.inv_sum - w.log_root;
    if constexpr (gem) near_zero(w, taps, options, total);
    w.y = select(nothing, splat<V>(0), unit * vexp(w.log_root));
    w.y = select(w.has_pos_inf & (w.y == w.y), inf, w.y);
  }

  // For p near 0: ln S from sum c (r^p - 1), and with u_i = ln(r_i^p / S) = p v_i
  // dy/dp = y sum c v_i^2 g(u_i), g(u) = (u e^u - e^u + 1) / u^2, of which no term is negative.
  template <class V, class Taps>
  static POOLNB_HD void near_zero(Window<V>& w, const Taps& taps, const Options& options, V total) {
    using T = typename Traits<V>::Number;
    const V p = w.parameter[0], zero = splat<V>(0);
    const auto near = p < splat<V>(T(0.25));
    if (!any(near)) return;
    Sum<V> below;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V a = size(taps.x(i), options), d = select(w.has_share(a), vexpm1(p * w.log_ratio(a)), splat<V>(-1));
      below += select(taps.valid(i), d, zero);
    }, below);
    const V log_root = select(total < splat<V>(T(0.5)), w.log_root, vlog1p(below.value() * w.share) / p);
    Sum<V> bent;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V a = size(taps.x(i), options), v = w.log_ratio(a) - log_root;
      const V term = select(w.has_share(a), v * v * bend(p * v), splat<V>(1) / (p * p));
      bent += select(taps.valid(i), term, zero);
    }, bent);
    w.log_root = select(near, log_root, w.log_root);
    w.entropy = select(near, p * (bent.value() * w.share), w.entropy);
  }

  // (u e^u - e^u + 1) / u^2, by its series sum u^k / (k! (k + 2)) where the difference would lose digits.
  template <class V>
  static POOLNB_HD V bend(V u) {
    using T = typename Traits<V>::Number;
    constexpr int terms = std::numeric_limits<T>::digits > 24 ? 14 : 8;
    V series = splat<V>(T(1.0 / (terms + 2)));
    POOLNB_UNROLL for (int k = terms; k > 0; --k) series = splat<V>(T(1.0 / (k + 1))) + u * series * splat<V>(T(1.0 / k));
    const auto far = vabs(u) > splat<V>(T(0.5));
    const V e = vexp(u);
    return select(far, (u * e - e + splat<V>(1)) / (u * u), series);
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options& options) {
    const V a = size(taps.x(i), options);
    if constexpr (safe) return w.safe_power(a, taps.valid(i));
    V exponent;
    return w.power(a, taps.valid(i), exponent);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V e, int64_t i, const Options& options, Sum<V>* d_params,
                              V&) {
    using T = typename Traits<V>::Number;
    if (!safe && (two || (!gem && w.squares))) {
      const V d = x * w.inv_sum;
      const auto l = vlog2(vmax(vabs(d), splat<V>(std::numeric_limits<T>::min())));
      d_params[0] += d * d * (l.whole + l.part);
      return d;
    }
    const V a = size(x, options);
    V d;
    if constexpr (safe) {
      // (r / rho)^(p - 1); r = 1 for the infinite taps, which share an infinite result.
      const V p = w.parameter[0];
      d = vexp(w.scaled(p - splat<V>(1), w.log_ratio(a) - w.log_root)) * w.share;
      const V first = one_where<V>(w.number == splat<V>(T(i)));  // p = inf: the gradient of the max
      d = select(infinite(p), first, select(w.has_share(a), d, splat<V>(0)));
    } else {
      const V part = e * (w.share * w.inv_sum);
      d = part * w.y * quick_reciprocal(gem ? a : vmax(a, splat<V>(std::numeric_limits<T>::min())));
    }
    d = gem ? select(x < splat<V>(T(options.gem.eps)), splat<V>(0), d) : select(x < splat<V>(0), -d, d);
    if constexpr (safe) d = select(w.y == w.y, d, w.y);
    return d;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>& w, V* d_params) {
    using T = typename Traits<V>::Number;
    if (!safe && (two || (!gem && w.squares))) {
      d_params[0] = d_params[0] * w.y * splat<V>(T(0.5 * 0.69314718055994531));
      return;
    }
    const V y = safe ? select(infinite(w.y), splat<V>(0), w.y) : w.y;
    d_params[0] = select(y == splat<V>(0), y, y * (w.inv_p * w.entropy));  // y / p may overflow
  }

  // As sums over taps (../cpu/sums.h): of a^p, and of a^p log2 a for p. Lp's taps of 0 have neither, whatever their log.
  template <class V>
  struct Sums {
    static constexpr int features = 1, learned = 2, back = 1, from[2] = {two ? 10 : 4, 4};
    static constexpr bool keeps = !two, squared = two;
    static constexpr float reach = 100, reach_back = 80;  // 2^100 times 2^24 taps is a number; no sum is a difference
    V p, inv_p, eps;
    bool squares, by_window;  // the latter: p or eps leaves this path too few digits

    POOLNB_HD Sums(V parameter, const Options& options)
        : p(parameter), inv_p(splat<V>(1) / parameter), eps(splat<V>(gem ? float(options.gem.eps) : 0.0f)),
          squares(two || (!gem && !any(parameter != splat<V>(2)))),
          by_window(any(!moderate(parameter)) || (gem && any(eps < splat<V>(kTiny)))) {}
    static constexpr float kTiny = std::numeric_limits<float>::min();

    POOLNB_HD V size(V x) const { return gem ? vmax(x, eps) : vabs(x); }
    static POOLNB_HD V log2_of(V a) {
      const auto l = vlog2(a);
      return l.whole + l.part;
    }
    POOLNB_HD V exponent(V x, V) const {
      const V a = size(x), none = splat<V>(std::numeric_limits<float>::quiet_NaN());
      if constexpr (squared) return a;
      if (squares) {  // within either reach, without a logarithm
        const auto near = (a >= splat<V>(0x1p-40f)) & (a <= splat<V>(0x1p40f));
        return select(near | (a == splat<V>(0)), splat<V>(0), none);
      }
      V l = p * log2_of(a);
      if (by_window) return none;
      if constexpr (gem) return select(a <= splat<V>(kLargest<float>), l, none);
      l = select(a < splat<V>(kTiny), none, l);
      return select(a == splat<V>(0), splat<V>(0), select(a <= splat<V>(kLargest<float>), l, none));
    }
    template <int count>
    POOLNB_HD void tap(V x, V, V* f) const {
      const V a = size(x);
      if (count == 1 && squares) return void(f[0] = a * a);
      const V l = log2_of(a), e = squares ? a * a : vexp2(p * l);
      f[0] = gem ? e : select(a == splat<V>(0), splat<V>(0), e);
      if constexpr (count > 1) f[1] = gem ? e * l : select(a == splat<V>(0), splat<V>(0), e * l);
    }
    static POOLNB_HD V mean(V sum, V n) { return gem ? sum / vmax(n, splat<V>(1)) : sum; }
    template <int>
    POOLNB_HD V value(const V* sums, V n) const {
      const V total = mean(sums[0], n);
      const V most = splat<V>(std::numeric_limits<typename Traits<V>::Number>::max_exponent);  // 2^most is infinite
      V root = squares ? vsqrt(total) : vexp2(vmin(log2_of(total) * inv_p, most));
      // Large taps, and those that are not finite, are seen here and not by `exponent`.
      if constexpr (squared) root = select(total > splat<V>(0x1p80f), splat<V>(std::numeric_limits<float>::quiet_NaN()), root);
      return select(total == splat<V>(0), splat<V>(0), root);
    }
    POOLNB_HD void hand_back(const V* sums, V, V y, V g, V* b) const {
      // Of a window of zeros: 0, or NaN, which shows what g is.
      const V share = g * select(sums[0] == splat<V>(0), splat<V>(0), y * quick_reciprocal(sums[0]));
      b[0] = normal_or_nan(share, g, sums[0]);
    }
    // dy/da = a^(p - 1) y / sum a^p.
    POOLNB_HD V tap_grad(V x, V, V e, const V* s, V&) const {
      if (squares) return x * s[0];
      const V a = size(x);
      // e / a first: times s, a small e may be no normal number.
      if constexpr (gem) return select(x < eps, splat<V>(0), e * quick_reciprocal(a) * s[0]);
      const V d = select(a == splat<V>(0), splat<V>(0), e * quick_reciprocal(vmax(a, splat<V>(kTiny))) * s[0]);
      return select(x < splat<V>(0), -d, d);
    }
    POOLNB_HD V param_grad(const V* sums, V n, V y, V& rough) const {
      const V total = mean(sums[0], n), scale = y * inv_p * splat<V>(0.6931472f);
      const auto none = sums[0] == splat<V>(0);
      const V log_root = select(none, splat<V>(0), log2_of(total) * inv_p);
      rough = vabs(scale * log_root);
      return select(none, splat<V>(0), scale * (sums[1] * quick_reciprocal(sums[0]) - log_root));
    }
  };
};

}  // namespace poolnb
