// Log-sum-exp pooling: y = (1/r) ln mean exp(r x). Written in differences, it holds from r = 0 (the mean) to large r:
// y = m + log1p(mean expm1(r (x - m))) / r, m the tap that r favours. With v = r (x - y): dy/dx_i = exp(v_i) / n, where
// exp(v) = exp(r (x - m)) / mean exp(r (x - m)), and dy/dr = mean (x - y)^2 phi'(v), phi(v) = (exp(v) - 1) / v.
#pragma once

#include "../taps.h"

namespace poolnb {

struct Lse {
  static constexpr int inputs = 1, parameters = 1, noise = 0;
  static constexpr int64_t kFew = 16;  // taps

  // With v = r (x - m) and L = r (y - m): the sums of expm1(v) and of bend(v), see there.
  template <class V>
  struct Few {
    bool are = false;
    V growth, bends, log_mean, inv_r;
  };
  struct Never {
    static constexpr bool are = false;
  };

  template <class V>
  struct Window {
    V parameter[1];  // r
    V r, n, inv_n, inv_sum, inv_n_pos_inf, peak, y;
    V rise;  // y - m
    bool many;  // taps: sums are carried
    std::conditional_t<kVector<V>, Few<V>, Never> few;  // a GPU would have to store it for every window
  };

  // On the safe path, infinities are the largest numbers until the end, and taps are halved and r doubled: no inf - inf,
  // and no difference that overflows.
  template <bool safe, class V>
  static POOLNB_HD V bounded(V x) {
    using T = typename Traits<V>::Number;
    if constexpr (!safe) return x;
    return splat<V>(T(0.5)) * clamped(x);
  }
  template <class V>
  static POOLNB_HD V clamped(V x) {
    using T = typename Traits<V>::Number;
    x = select(x > splat<V>(kLargest<T>), splat<V>(kLargest<T>), x);
    return select(x < splat<V>(-kLargest<T>), splat<V>(-kLargest<T>), x);
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options&, Saved& saved) {
    if constexpr (!safe && kVector<V>) {
      using T = typename Traits<V>::Number;
      w.few.are = taps.count() <= kFew && !any(vabs(w.parameter[0]) < splat<V>(T(1e-6)));  // v^2 has its digits
      if (w.few.are) return forward_few(w, taps, saved);
    }
    forward_any<safe>(w, taps, saved);
  }

  // Of few taps, where 1 / r exists. What is not finite shows in y.
  template <class V, class Taps, class Saved>
  static POOLNB_HD void forward_few(Window<V>& w, const Taps& taps, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V r = w.parameter[0], sign = select(r < splat<V>(0), splat<V>(-1), splat<V>(1)), one = splat<V>(1);
    const V lowest = splat<V>(sizeof(T) == 8 ? -708 : -87);  // exp of it is a normal number
    V peak = splat<V>(-kInf<T>), show = splat<V>(0);
    V others[Taps::fixed ? kFew : 1];  // all but the largest
    Sum<V> n, growth, bends;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V facing = select(taps.valid(i), taps.x(i) * sign, splat<V>(-kInf<T>));
      if constexpr (Taps::fixed) others[i] = vmin(peak, facing);
      peak = vmax(peak, facing);
      n += one_where<V>(taps.valid(i));
    }, n);
    w.peak = peak * sign;
    // The largest tap gives 0 to the sum: its exponential is needed for the way back alone.
    constexpr bool by_others = Taps::fixed && !Saved::backward && std::is_same_v<decltype(taps.valid(0)), Always>;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      if constexpr (by_others) {
        show = show + x;
        if (i > 0) growth += expm1_of(exp_parts(vmax(sign * r * (others[i] - peak), lowest)));
        return;
      }
      const V v = vmax(r * (x - w.peak), lowest);
      const auto parts = exp_parts(v);
      const V up = expm1_of(parts), e = up + one;
      growth += select(taps.valid(i), up, splat<V>(0));
      if constexpr (Saved::backward) bends += select(taps.valid(i), bend(v, parts, e, up), splat<V>(0));
      show = show + x;
      saved.put(i, select(taps.valid(i), e, splat<V>(-1)));
    }, growth, bends);
    w.r = r, w.n = n.value(), w.inv_n = one / w.n, w.many = false;
    w.few.growth = growth.value(), w.few.bends = bends.value(), w.few.inv_r = quick_reciprocal(r);
    const V up = w.few.growth * w.inv_n, mean = up + one;  // of at most 1, and at least 1 / n
    w.few.log_mean = vlog_normal(mean) + (up - (mean - one)) * quick_reciprocal(mean);
    w.inv_sum = quick_reciprocal(w.n + w.few.growth);
    w.y = vfma(w.few.log_mean, w.few.inv_r, w.peak) + show * splat<V>(0);
  }

  // bend(v) = v exp(v) - expm1(v), about v^2 / 2 near 0: there v is the remainder of exp's argument, of its polynomial.
  template <class Parts, class V>
  static POOLNB_HD V bend(V v, const Parts& parts, V e, V e_minus_1) {
    const V near = parts.r * parts.r * vfma(parts.q, parts.r - splat<V>(1), splat<V>(1));
    return select(parts.r == v, near, vfma(v, e, -e_minus_1));
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward_any(Window<V>& w, const Taps& taps, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V raw = w.parameter[0];
    const V sign = select(raw < splat<V>(0), splat<V>(-1), splat<V>(1)), half = splat<V>(T(0.5));
    V peak = splat<V>(-kInf<T>), low = splat<V>(kInf<T>);
    Sum<V> number;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V facing = select(taps.valid(i), bounded<safe>(taps.x(i)) * sign, splat<V>(-kInf<T>));
      peak = vmax(peak, facing);
      low = vmin(low, select(taps.valid(i), facing, splat<V>(kInf<T>)));
      number += one_where<V>(taps.valid(i));
    }, number);
    const V n = number.value();
    // Where |r| times the range of the taps is below rounding, y is their mean, and 1 / r may not exist.
    w.r = safe ? clamped(raw + raw + splat<V>(0)) : raw + splat<V>(0);  // no -0
    const auto flat = vabs(w.r) * (peak * half - low * half) < splat<V>(std::numeric_limits<T>::epsilon() / 16);
    const auto empty = n == splat<V>(0);
    if constexpr (safe) peak = select(empty, splat<V>(0), peak);
    peak = peak * sign;
    w.n = n;
    w.many = are_long(taps);
    w.inv_n = splat<V>(1) / (safe ? select(empty, splat<V>(1), n) : n);
    V show = splat<V>(0);
    Sum<V> growth, total, drop;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = bounded<safe>(taps.x(i));
      const V up = vexpm1(select(taps.valid(i), w.r * (x - peak), splat<V>(0)));
      growth += select(x == x, up, x);
      const V e = are_long(taps) ? vexp(w.r * (x - peak)) : up + splat<V>(1);  // of many small ones, up + 1 is coarse
      total += select(taps.valid(i), e, splat<V>(0));
      drop += select(taps.valid(i), (x - peak) * w.inv_n, splat<V>(0));
      show = show + x;
      saved.put(i, select(taps.valid(i), up + splat<V>(1), splat<V>(-1)));
    }, growth, total, drop);
    w.peak = peak;
    w.rise = vlog1p(growth.value() * w.inv_n) / w.r;
    V all = n + growth.value();
    if (are_long(taps)) {  // most of n and growth may cancel
      const V mean = total.value() * w.inv_n;
      w.rise = select(mean < half, vlog(vmax(mean, splat<V>(std::numeric_limits<T>::min()))) / w.r, w.rise);
      all = total.value();
    }
    w.rise = select(flat, drop.value(), w.rise);
    w.inv_sum = splat<V>(1) / vmax(all, splat<V>(1));
    w.y = peak + w.rise;
    if (!safe && are_long(taps)) {  // what y lacks: m and y - m may cancel
      Sum<V> left;
      each_tap(taps, [&](int64_t i) POOLNB_INLINE {
        const V d = taps.x(i) - w.y;
        left += select(taps.valid(i), select(flat, d, vexpm1(w.r * d)), splat<V>(0));
      }, left);
      const V mean = left.value() * w.inv_n, more = select(flat, mean, vlog1p(mean) / w.r);
      w.rise = (w.y - peak) + more;
      w.y = w.y + more;
    }
    w.inv_n_pos_inf = splat<V>(0);
    // On the fast path, an infinity that r suppresses has to show all the same.
    if constexpr (safe) w.y = w.y + w.y, limits(w, taps, empty);
    else w.y = w.y + show * splat<V>(0);
  }

  // +inf where a tap is; -inf where all taps are, or one is and r does not suppress it.
  template <class V, class Taps, class M>
  static POOLNB_HD void limits(Window<V>& w, const Taps& taps, M empty) {
    using T = typename Traits<V>::Number;
    V n_pos_inf = splat<V>(0), n_neg_inf = splat<V>(0), other = splat<V>(0);
    auto nan = empty & !empty;
    for (int64_t i = 0; i < taps.count(); ++i) {
      const V x = taps.x(i), one = one_where<V>(taps.valid(i));
      n_pos_inf = n_pos_inf + select(x == splat<V>(kInf<T>), one, splat<V>(0));
      n_neg_inf = n_neg_inf + select(x == splat<V>(-kInf<T>), one, splat<V>(0));
      other = other + select(x == splat<V>(-kInf<T>), splat<V>(0), one);
      nan = nan | ((x != x) & taps.valid(i));
    }
    V y = select(empty, splat<V>(0), w.y);
    const auto sunk = (n_neg_inf > splat<V>(0)) & ((other == splat<V>(0)) | (w.parameter[0] <= splat<V>(0)));
    y = select(sunk, splat<V>(-kInf<T>), y);
    y = select(n_pos_inf > splat<V>(0), splat<V>(kInf<T>), y);
    w.y = select(nan, splat<V>(std::numeric_limits<T>::quiet_NaN()), y);
    w.inv_n_pos_inf = splat<V>(1) / vmax(n_pos_inf, splat<V>(1));
  }

  // exp(r (x - m)), -1 where the tap is not valid.
  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    const V e = vexpm1(w.r * (bounded<safe>(taps.x(i)) - w.peak)) + splat<V>(1);
    return select(taps.valid(i), e, splat<V>(-1));
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  // phi'(v) = (v exp(v) - exp(v) + 1) / v^2; near 0 its series 1/2 + v/3 + v^2/8 + ...
  template <class V>
  static POOLNB_HD V phi_slope(V v, V e) {
    using T = typename Traits<V>::Number;
    const auto small = vabs(v) < splat<V>(T(0.5));
    const V far = select(small, splat<V>(1), v);
    constexpr int terms = sizeof(T) == 8 ? 14 : 8;
    V series = splat<V>(0);
    POOLNB_UNROLL for (int k = terms - 1; k >= 0; --k)
      series = vfma(series, v, splat<V>(T((k + 1) / factorial(k + 2))));
    return select(small, series, vfma(far, e, splat<V>(1) - e) * quick_reciprocal(far * far));
  }
  static constexpr double factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V kept, int64_t, const Options&, Sum<V>* d_params, V&) {
    using T = typename Traits<V>::Number;
    V d = vmax(kept, splat<V>(0)) * w.inv_sum;
    if (!safe && w.few.are) return d;
    const V tap = bounded<safe>(x);
    // x - y in two steps: y itself may be rounded to m.
    V excess = (tap - w.peak) - w.rise;
    // exp of this times r is 0 in every type, and its square finite.
    const V floor = splat<V>(T(-1e4)) / w.r;
    excess = select(w.r < splat<V>(0), vmin(excess, floor), vmax(excess, floor));
    // Where windows are long the weights are far below 1, and what exp lacks of the last digits shows in their mean.
    const V e = w.many ? vexpm1(w.r * excess) + splat<V>(1) : d * w.n;
    V curve = excess * (excess * phi_slope(w.r * excess, e) * w.inv_n);  // excess^2 may overflow
    if constexpr (safe) {
      const V shared = select(x == splat<V>(kInf<T>), w.inv_n_pos_inf, splat<V>(0));
      const V limit = select(w.y == splat<V>(kInf<T>), shared, splat<V>(0));
      d = select(infinite(w.y), limit, d);
      curve = select(infinite(w.y), splat<V>(0), splat<V>(4) * curve);
    }
    d_params[0] += select(kept < splat<V>(0), splat<V>(0), curve);
    return d;
  }

  // Of few taps, with L = ln mean exp(v):
  //   r^2 dy/dr = mean(v exp(v)) / mean(exp(v)) - L = (mean(bend(v)) - bend(L)) / mean(exp(v)).
  // The last difference is at least an n-th of what it is made of.
  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>& w, V* d_params) {
    if constexpr (!safe && kVector<V>) {
      if (!w.few.are) return;
      const V l = w.few.log_mean, up = w.few.growth * w.inv_n;
      const V bent = bend(l, exp_parts(l), up + splat<V>(1), up);
      d_params[0] = (w.few.bends - bent * w.n) * w.inv_sum * w.few.inv_r * w.few.inv_r;
    }
  }

  // As sums over taps (../cpu/sums.h), with v = r x: of exp(v), and of expm1(v), which keeps the digits of small v. For
  // r, with L = r y, either difference above, whichever loses less. The sum of expm1(v) is one of them then.
  template <class V>
  struct Sums {
    static constexpr int features = 2, learned = 3, back = 1, from[2] = {4, 4};
    static constexpr bool keeps = true;
    static constexpr float reach = 32, reach_back = 32;
    V r, inv_r;

    POOLNB_HD Sums(V parameter, const Options&) : r(parameter), inv_r(splat<V>(1) / parameter) {}
    // Where r is small, taps whose products with it lose digits are not small themselves.
    POOLNB_HD V exponent(V x, V) const {
      return select(vabs(r) < splat<V>(1e-3f), splat<V>(std::numeric_limits<float>::infinity()), r * x);
    }
    template <int count>
    POOLNB_HD void tap(V x, V, V* f) const {
      const V v = r * x;
      const auto parts = exp_parts(v);
      f[0] = exp_of(parts);
      f[1] = expm1_of(parts);
      if constexpr (count > 2) {
        f[2] = bend(v, parts, f[0], f[1]);
        f[1] = v * f[0];
      }
    }
    template <int count>
    POOLNB_HD V value(const V* sums, V n) const {
      const V one = splat<V>(1), inv_n = one / vmax(n, one), mean = sums[0] * inv_n;
      const V minus_1 = (count > 2 ? sums[1] - sums[2] : sums[1]) * inv_n, rounded = one + minus_1;
      // One logarithm for both: that of the mean, or log1p as in ../vec_math.h.
      const auto far = mean < splat<V>(0.5f);
      const V of = select(far, vmax(mean, splat<V>(std::numeric_limits<float>::min())), rounded);
      const V left = select(far, splat<V>(0), (minus_1 - (rounded - one)) * quick_reciprocal(rounded));
      const V log_mean = vlog_normal(of) + left;
      return select(n == splat<V>(0), splat<V>(0), log_mean * inv_r);
    }
    POOLNB_HD void hand_back(const V* sums, V, V, V g, V* b) const {
      const V share = select(sums[0] == splat<V>(0), splat<V>(0), g * quick_reciprocal(sums[0]));
      b[0] = normal_or_nan(share, g, sums[0]);
    }
    POOLNB_HD V tap_grad(V, V, V e, const V* s, V&) const { return e * s[0]; }
    POOLNB_HD V param_grad(const V* sums, V n, V y, V& rough) const {
      const auto none = sums[0] == splat<V>(0);
      const V inv = quick_reciprocal(select(none, splat<V>(1), sums[0])), inv_n = splat<V>(1) / vmax(n, splat<V>(1));
      const V l = r * y, bent = bend(l, exp_parts(l), sums[0] * inv_n, (sums[1] - sums[2]) * inv_n) * n * inv;
      const V bends = sums[2] * inv;
      const auto by_bends = bends < vabs(l);
      rough = vmin(bends, vabs(l)) * inv_r * inv_r;
      return select(by_bends, bends - bent, sums[1] * inv - l) * inv_r * inv_r;
    }
  };
};

}  // namespace poolnb
