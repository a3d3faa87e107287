// Adaptive pooling: y = beta e + (1 - beta) s, e = sum u_i x_i with u = softmax(d) and s = sum w_i x_i with
// w = softmax(x); d_i = 2 |x_i m| / (x_i^2 + m^2), 1 where both are 0, m the mean.  dy/dbeta = e - s;
// ds/dx_j = w_j (1 + x_j - s);  de/dx_j = u_j (1 + (x_j - e) dd_j/dx_j) + 1/n sum_i u_i (x_i - e) dd_i/dm.
// On the fast path what is saved of a tap is its derivative: where taps are in registers, so is all that it is made of.
// Without a beta it is e. d lies in [0, 1], so that its exponential needs no largest one; weights are exp(d - 1/2).
#pragma once

#include "../taps.h"

namespace poolnb {

template <bool mixes>
struct Adaptive {
  static constexpr int inputs = 1, parameters = mixes ? 1 : 0, noise = 0;
  static constexpr bool saves_two = mixes;

  template <class V>
  struct Window {
    V parameter[1];  // beta
    V mean, inv_mean, inv_n, inv_near, e, peak, inv_high, s, through_mean, y;
    typename Traits<V>::Mask has_pos_inf;  // safe path: the window holds +inf
  };

  // d of a tap, and its derivatives by the tap and by the mean, which are to be multiplied by x - e over the larger
  // size of the two. At 0 they are 0.
  template <class V>
  struct Likeness {
    V d, by_tap, by_mean, larger;
  };

  // On the fast path the ratio is |x| / |m|, whatever is larger: d = 2 r / (1 + r^2).
  template <bool safe, class V>
  static POOLNB_HD Likeness<V> likeness(const Window<V>& w, V x) {
    const V zero = splat<V>(0), one = splat<V>(1), two = splat<V>(2), a = vabs(x);
    V r, t, tap, mean;
    Likeness<V> l;
    if constexpr (safe) {
      const V known = select(infinite(x), zero, a), m = vabs(w.mean);
      const auto below = known <= m;
      l.larger = select(below, m, known);
      const auto nothing = l.larger == zero;
      l.larger = select(nothing, one, l.larger);
      r = select(nothing, one, select(below, known, m) / l.larger);
      t = one / (one + r * r);
      const V smaller_slope = two * (one - r * r) * t * t, larger_slope = zero - r * smaller_slope;
      tap = select(below, smaller_slope, larger_slope);
      mean = select(below, larger_slope, smaller_slope);
    } else {
      r = a * w.inv_mean;
      t = quick_reciprocal(vfma(r, r, one));
      tap = two * t * (two * t - one);  // 2 (1 - r^2) / (1 + r^2)^2
      mean = zero - r * tap;
    }
    l.d = two * r * t;
    l.by_tap = signed_as(x, tap);
    l.by_mean = safe ? signed_as(w.mean, mean) : mean;  // on the fast path without the mean's sign
    return l;
  }
  template <class V>
  static POOLNB_HD V signed_as(V sign, V x) {
    const V zero = splat<V>(0);
    return select(sign > zero, x, select(sign < zero, zero - x, zero));
  }
  template <class V>
  static POOLNB_HD V scaled(const Likeness<V>& l, V half) { return splat<V>(2) * (half / l.larger); }

  // exp(t) for t from -1/2 to 1/2, within 1.2 units in the last place.
  template <class V>
  static POOLNB_HD V exp_half(V t) {
    if constexpr (sizeof(typename Traits<V>::Number) == 8) {
      return vexp(t);
    } else {
      V q = vfma(t, splat<V>(0.00137807673f), splat<V>(0.00841917255f));
      q = vfma(q, t, splat<V>(0.0416733895f));
      q = vfma(q, t, splat<V>(0.166656173f));
      q = vfma(q, t, splat<V>(0.499999293f));
      q = vfma(q, t, splat<V>(1.00000032f));
      return vfma(q, t, splat<V>(1.0f));
    }
  }

  // exp of d - 1/2, and of x - peak: weights, not yet normalised.
  template <bool safe, class V>
  static POOLNB_HD V near(const Window<V>& w, V x, const Likeness<V>& l, auto valid) {
    using T = typename Traits<V>::Number;
    const V near = exp_half(l.d - splat<V>(T(0.5)));
    if constexpr (!safe) return select(valid, near, splat<V>(0));
    const V e = select(w.has_pos_inf, one_where<V>(x == splat<V>(kInf<T>)), near);
    return select(valid, select(x == splat<V>(-kInf<T>), splat<V>(0), e), splat<V>(0));
  }
  template <bool safe, class V>
  static POOLNB_HD V high(const Window<V>& w, V x, auto valid) {
    using T = typename Traits<V>::Number;
    if constexpr (!safe) {
      const V scale = splat<V>(T(1.4426950408889634));
      return select(valid, vexp2((x - w.peak) * scale), splat<V>(0));
    }
    const V e = select(w.has_pos_inf, one_where<V>(x == splat<V>(kInf<T>)), vexp(x - w.peak));
    return select(valid, select(x == splat<V>(-kInf<T>), splat<V>(0), e), splat<V>(0));
  }
  // (x - e) / 2, which does not overflow.
  template <class V>
  static POOLNB_HD V half_centred(V x, V e, V weight) {
    using T = typename Traits<V>::Number;
    const V half = splat<V>(T(0.5));
    return centred<true>(half * x, half * e, weight);
  }
  // x - of, for sums: 0 where a weight is 0 or the result infinite.
  template <bool safe, class V>
  static POOLNB_HD V centred(V x, V of, V weight) {
    if constexpr (!safe) return x - of;
    return select((weight == splat<V>(0)) | infinite(of), splat<V>(0), x - of);
  }

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const V zero = splat<V>(0), none = splat<V>(-kInf<T>);
    auto any_neg_inf = zero != zero;
    w.has_pos_inf = zero != zero;
    V peak = none;
    Sum<V> sum, number;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      peak = vmax(peak, select(taps.valid(i), x, none));
      if constexpr (safe) {
        w.has_pos_inf = w.has_pos_inf | ((x == splat<V>(kInf<T>)) & taps.valid(i));
        any_neg_inf = any_neg_inf | ((x == none) & taps.valid(i));
        sum += select(infinite(x), zero, x);
        number += select(x == none, zero, one_where<V>(taps.valid(i)));
      } else {
        sum += x;
        number += one_where<V>(taps.valid(i));
      }
    }, sum, number);
    const V n = number.value();
    if constexpr (safe) {
      w.peak = select(infinite(peak), zero, peak);
      w.inv_n = splat<V>(1) / select(n == zero, splat<V>(1), n);
      Sum<V> shares;  // where the sum overflows, to infinity or in both directions to NaN, they do not
      each_tap(taps, [&](int64_t i) POOLNB_INLINE {
        const V x = taps.x(i);
        shares += select(infinite(x), zero, x) * w.inv_n;
      }, shares);
      w.mean = select(infinite_or_nan(sum.value()), shares.value(), sum.value() * w.inv_n);
    } else {
      w.peak = peak;
      w.inv_n = splat<V>(1) / n;
      w.mean = sum.value() * w.inv_n;
      // Zeros have a mean of 0 and are alike. Other taps with such a mean, or with one whose reciprocal is no normal
      // number, need the safe path, where a NaN leads.
      const V size = vabs(w.mean), nan = splat<V>(std::numeric_limits<T>::quiet_NaN());
      const auto usual = (size > splat<V>(4 * std::numeric_limits<T>::min())) & (size < splat<V>(kLargest<T> / 16));
      const V unusual = select(size == zero, select(peak == zero, zero, nan), nan);
      w.inv_mean = select(usual, quick_reciprocal(size), unusual);
    }
    Sum<V> all_near, sum_near, all_high, sum_high, moved, moved_near;
    Overflow<V, Saved::backward && mixes && !safe> overflow;
    Parts<V> parts[Taps::fixed ? kFixed : 1];
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      const Likeness<V> l = likeness<safe>(w, x);
      const V e = near<safe>(w, x, l, taps.valid(i));
      if constexpr (Taps::fixed) parts[i].near = e, parts[i].by_tap = l.by_tap;
      all_near += e;
      sum_near += e * x;
      overflow += x;
      if constexpr (Saved::backward && !safe) {  // the sum of u (x - e) dd/dm in two parts, since e is not known yet
        moved += e * l.by_mean;
        moved_near += e * l.by_mean * x;
      }
      if constexpr (!mixes && (safe || !Taps::fixed)) saved.put(i, e);
      if constexpr (mixes) {
        const V h = high<safe>(w, x, taps.valid(i));
        all_high += h;
        sum_high += h * x;
        if constexpr (safe || !Taps::fixed) saved.put(i, h);
        if constexpr (Saved::keeps && !safe && !Taps::fixed) saved.put_more(i, e);
        if constexpr (Taps::fixed) parts[i].high = h;
      }
    }, all_near, sum_near, all_high, sum_high, moved, moved_near);
    if constexpr (safe) {
      finish_safe(w, taps, all_near.value(), all_high.value(), any_neg_inf);
    } else {
      w.inv_near = quick_reciprocal(all_near.value());
      w.e = w.y = sum_near.value() * w.inv_near;
      if constexpr (mixes) {
        w.inv_high = quick_reciprocal(all_high.value());
        w.s = sum_high.value() * w.inv_high;
        w.y = overflow.added_to(w.parameter[0] * w.e + (splat<V>(1) - w.parameter[0]) * w.s);
      }
    }
    if constexpr (Saved::backward && safe) look_through_mean(w, taps, options);
    if constexpr (Saved::backward && !safe) {
      const V through_mean = (moved_near.value() - w.e * moved.value()) * w.inv_near * w.inv_mean * w.inv_n;
      w.through_mean = signed_as(w.mean, through_mean);
    }
    if constexpr (Saved::keeps && !safe) {
      each_tap(taps, [&](int64_t i) POOLNB_INLINE {
        const V x = taps.x(i);
        if constexpr (Taps::fixed) {
          saved.put(i, slope(w, x, parts[i], options));
        } else {  // exponentials have been saved
          const V first = saved.get(i), by_tap = likeness<false>(w, x).by_tap;
          const Parts<V> p{mixes ? saved.get_more(i) : first, by_tap, first};
          saved.put(i, slope(w, x, p, options));
        }
      });
    }
  }

  // Of a tap on the fast path: its weights, not yet normalised, and the derivative of its likeness.
  template <class V>
  struct Parts {
    V near, by_tap, high;
  };
  static constexpr int kFixed = 9;  // the most taps whose number is known when this is compiled

  // dy/dx there.
  template <class V>
  static POOLNB_HD V slope(const Window<V>& w, V x, const Parts<V>& p, const Options& options) {
    const V one = splat<V>(1), near = p.near * w.inv_near;
    const bool semi = semi_grad(options);
    V d = semi ? near : vfma(near, vfma(p.by_tap, (x - w.e) * w.inv_mean, one), w.through_mean);
    if constexpr (mixes) {
      const V high = p.high * w.inv_high, of_soft = semi ? high : vfma(high, x - w.s, high);
      d = w.parameter[0] * d + (one - w.parameter[0]) * of_soft;
    }
    return d;
  }

  // With weights of sum 1: a sum of e x could overflow where the mean does not.
  template <class V, class Taps>
  static POOLNB_HD void finish_safe(Window<V>& w, const Taps& taps, V all_near, V all_high, auto any_neg_inf) {
    using T = typename Traits<V>::Number;
    const V zero = splat<V>(0), one = splat<V>(1), none = splat<V>(-kInf<T>);
    w.inv_near = one / select(all_near == zero, one, all_near);
    w.inv_high = one / select(all_high == zero, one, all_high);
    Sum<V> sum_near, sum_high;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), known = select(x == none, zero, x);
      sum_near += near<true>(w, x, likeness<true>(w, x), taps.valid(i)) * w.inv_near * known;
      if constexpr (mixes) sum_high += high<true>(w, x, taps.valid(i)) * w.inv_high * known;
    }, sum_near, sum_high);
    const auto nothing_else = (all_near == zero) & any_neg_inf;
    w.e = w.y = select(nothing_else, none, sum_near.value());
    if constexpr (mixes) {
      w.s = select(nothing_else, none, sum_high.value());
      const V mixed = w.parameter[0] * w.e + (one - w.parameter[0]) * w.s;
      w.y = select(infinite(w.s), w.s, mixed);  // e is then, too
    }
  }

  template <class V, class Taps>
  static POOLNB_HD void look_through_mean(Window<V>& w, const Taps& taps, const Options& options) {
    Sum<V> sum;
    if (semi_grad(options)) return;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i);
      const Likeness<V> l = likeness<true>(w, x);
      const V weight = near<true>(w, x, l, taps.valid(i)) * w.inv_near;
      sum += weight * l.by_mean * scaled(l, half_centred(x, w.e, weight));
    }, sum);
    w.through_mean = sum.value() * w.inv_n;
  }

  static POOLNB_HD bool semi_grad(const Options& options) {
    if constexpr (mixes) return options.ada.semi_grad;
    else return options.edscw.semi_grad;
  }

  // What forward saved; on the safe path the weight that costs more to find again.
  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options& options) {
    const V x = taps.x(i);
    if constexpr (!safe) {
      const Likeness<V> l = likeness<false>(w, x);
      Parts<V> p{near<false>(w, x, l, taps.valid(i)), l.by_tap, splat<V>(0)};
      if constexpr (mixes) p.high = high<false>(w, x, taps.valid(i));
      return slope(w, x, p, options);
    }
    if constexpr (mixes) return high<safe>(w, x, taps.valid(i));
    else return near<safe>(w, x, likeness<safe>(w, x), taps.valid(i));
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V kept, int64_t, const Options& options, Sum<V>*, V&) {
    using T = typename Traits<V>::Number;
    if constexpr (!safe) return kept;
    const Likeness<V> l = likeness<true>(w, x);
    V u;
    if constexpr (mixes) u = near<true>(w, x, l, Always()) * w.inv_near;
    else u = kept * w.inv_near;
    const bool semi = semi_grad(options);
    V d = u;
    if (!semi) {
      const V mean = select(x == splat<V>(-kInf<T>), splat<V>(0), w.through_mean);
      d = u + u * l.by_tap * scaled(l, half_centred(x, w.e, u)) + mean;
    }
    if constexpr (mixes) {
      const V h = kept * w.inv_high, slope = semi ? h : h + h * centred<true>(x, w.s, h);
      d = w.parameter[0] * d + (splat<V>(1) - w.parameter[0]) * slope;
    }
    return select(w.y == w.y, d, w.y);
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>& w, V* d_params) {
    if constexpr (!mixes) return;
    d_params[0] = w.e - w.s;
    if constexpr (safe) d_params[0] = select(infinite(w.s), splat<V>(0), d_params[0]);
  }
};

}  // namespace poolnb
