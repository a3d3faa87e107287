// Stochastic pooling: a tap drawn with p_i = a_i / sum a, a = max(x, 0); without a draw y = sum p_i x_i. A window
// without a positive tap has equal probabilities; taps of +inf share them, taps of -inf have none.
// dy/dx is 1 at the drawn tap; else 2 p_i - sum p^2 at a positive tap and 0 at others, p_i where no tap is positive.
#pragma once

#include "../philox.h"
#include "../taps.h"

namespace poolnb {

struct Stochastic {
  static constexpr int inputs = 1, parameters = 0, noise = 1;
  static constexpr Stream stream = Stream::stochastic;

  template <class V>
  struct Window {
    V parameter[1];
    V peak, inv_sum, squares, number, y;  // number: the drawn tap; the count of taps if none could be drawn

    // In proportion to the probability of the tap. The largest tap divides all, so that no sum overflows.
    template <bool safe>
    POOLNB_HD V share(V x, auto valid) const {
      using T = typename Traits<V>::Number;
      const auto flat = peak == splat<V>(0);
      V s = select(x > splat<V>(0), x, splat<V>(0));
      if constexpr (safe) {
        const V limit = one_where<V>(x == splat<V>(kInf<T>));
        s = select(x == x, s, x) / select(flat, splat<V>(1), peak);
        s = select(flat, one_where<V>(x != splat<V>(-kInf<T>)), s);
        s = select(peak == splat<V>(kInf<T>), limit, s);
      } else {
        s = select(flat, splat<V>(1), s / peak);
      }
      return select(valid, s, splat<V>(0));
    }
  };

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    using T = typename Traits<V>::Number;
    const int64_t count = taps.count();
    V peak = splat<V>(0), sum = splat<V>(0), least = splat<V>(kInf<T>);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i);
      if constexpr (safe) {
        peak = select((x > peak) | (x != x), x, peak);
        least = select((x < least) | (x != x), x, least);
      } else {
        peak = select(x > peak, x, peak);
        sum = sum + x;
      }
    }
    w.peak = peak;
    if (options.draws) {
      draw<safe>(w, taps);
      // Not finite where a tap is not, whichever was drawn; safe path: where nothing could be, what the taps are.
      w.y = safe ? select(w.number == splat<V>(T(count)), least, w.y) : w.y + sum * splat<V>(0);
      return;
    }
    Sum<V> all, moment, squares;
    auto any_neg_inf = splat<V>(0) != splat<V>(0);
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V x = taps.x(i), s = w.template share<safe>(x, taps.valid(i));
      if constexpr (safe) any_neg_inf = any_neg_inf | ((x == splat<V>(-kInf<T>)) & taps.valid(i));
      saved.put(i, s);
      all += s;
      moment += s * x;
      squares += s * s;
    }, all, moment, squares);
    const V total = all.value();
    const auto nothing = total == splat<V>(0);
    w.inv_sum = splat<V>(1) / (safe ? select(nothing, splat<V>(1), total) : total);
    w.squares = squares.value() * w.inv_sum * w.inv_sum;
    if constexpr (safe) {
      // With weights of sum 1: a sum of s x could overflow where the mean does not.
      Sum<V> mean;
      each_tap(taps, [&](int64_t i) POOLNB_INLINE {
        const V x = taps.x(i), weight = w.template share<true>(x, taps.valid(i)) * w.inv_sum;
        mean += weight * select(x == splat<V>(-kInf<T>), splat<V>(0), x);
      }, mean);
      w.y = select(nothing & any_neg_inf, splat<V>(-kInf<T>), mean.value());
    } else {
      w.y = moment.value() * w.inv_sum + sum * splat<V>(0);
    }
  }

  // What a tap counts for in a draw. Sums are kept in float64, so that every kernel draws the same tap; numbers of
  // fewer bits cannot make them overflow, and are taken as they are.
  template <bool safe, class V>
  static POOLNB_HD auto odds(const Window<V>& w, V x, auto valid) {
    using T = typename Traits<V>::Number;
    if constexpr (sizeof(T) == 8) return widen(w.template share<safe>(x, valid));
    V s = select(x > splat<V>(0), x, splat<V>(0));
    if constexpr (safe) {
      s = select(x == x, s, x);
      const V neg_inf = splat<V>(-kInf<typename Traits<V>::Number>);
      s = select(w.peak == splat<V>(0), one_where<V>(x != neg_inf), s);
      s = select(infinite(w.peak), one_where<V>(infinite(s)), s);
    } else {
      s = select(w.peak == splat<V>(0), splat<V>(1), s);
    }
    return widen(select(valid, s, splat<V>(0)));
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD void draw(Window<V>& w, const Taps& taps) {
    using T = typename Traits<V>::Number;
    const int64_t count = taps.count();
    auto total = odds<safe>(w, taps.x(0), taps.valid(0));
    POOLNB_UNROLL for (int64_t i = 1; i < count; ++i) total = total + odds<safe>(w, taps.x(i), taps.valid(i));
    const auto mark = widen(taps.noise(0)) * total;
    auto cumulated = odds<safe>(w, taps.x(0), taps.valid(0));
    V number = splat<V>(0), y = taps.x(0);
    POOLNB_UNROLL for (int64_t i = 1; i < count; ++i) {
      const auto passed = narrow_mask<V>(cumulated <= mark);
      y = select(passed, taps.x(i), y);
      number = number + select(passed, splat<V>(1), splat<V>(0));
      cumulated = cumulated + odds<safe>(w, taps.x(i), taps.valid(i));
    }
    if constexpr (safe) number = select(narrow_mask<V>(widen(splat<V>(0)) < total), number, splat<V>(T(count)));
    w.number = number;
    w.y = y;
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    return w.template share<safe>(taps.x(i), taps.valid(i));
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V, V s, int64_t i, const Options& options, Sum<V>*, V&) {
    using T = typename Traits<V>::Number;
    if (options.draws) return one_where<V>(w.number == splat<V>(T(i)));
    const V p = s * w.inv_sum;
    V d = select(x > splat<V>(0), p + p - w.squares, splat<V>(0));
    d = select(w.peak == splat<V>(0), p, d);
    if constexpr (safe) {
      d = select(w.peak == splat<V>(kInf<T>), p, d);
      d = select(w.y == w.y, d, w.y);
    }
    return d;
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}

  // As sums over taps (../cpu/sums.h), without a draw: of a, a^2, and of x for windows without a positive tap.
  template <class V>
  struct Sums {
    static constexpr int features = 3, learned = 3, back = 3, from[2] = {10, 10};
    static constexpr bool keeps = true;
    static constexpr float reach = 1, reach_back = 1;

    POOLNB_HD Sums(V, const Options&) {}
    // Sizes whose squares are no normal numbers by far are out of reach.
    POOLNB_HD V exponent(V x, V) const {
      const auto fits = ((x <= splat<V>(0)) | (x > splat<V>(1e-15f))) & (vabs(x) < splat<V>(1e15f));
      return select(fits, splat<V>(0), splat<V>(std::numeric_limits<float>::quiet_NaN()));
    }
    template <int>
    POOLNB_HD void tap(V x, V, V* f) const {
      f[0] = vmax(x, splat<V>(0));
      f[1] = f[0] * f[0];
      f[2] = x;
    }
    static POOLNB_HD V inverse(V total) { return select(total == splat<V>(0), splat<V>(0), splat<V>(1) / total); }
    template <int>
    POOLNB_HD V value(const V* sums, V n) const {
      return select(sums[0] == splat<V>(0), sums[2] * inverse(n), sums[1] * inverse(sums[0]));
    }
    POOLNB_HD void hand_back(const V* sums, V n, V y, V g, V* b) const {
      const auto flat = sums[0] == splat<V>(0);
      b[0] = normal_or_nan(g * inverse(sums[0]), g, sums[0]);
      b[1] = select(flat, splat<V>(0), b[0] * y);
      b[2] = select(flat, g * inverse(n), splat<V>(0));
    }
    POOLNB_HD V tap_grad(V x, V, V a, const V* s, V&) const {
      return select(x > splat<V>(0), (a + a) * s[0] - s[1], s[2]);
    }
    POOLNB_HD V param_grad(const V*, V, V, V&) const { return splat<V>(0); }
  };
};

}  // namespace poolnb
