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
    V over_total, y;
  };

  template <bool careful, class V, class Taps, class Memo>
  static POOLNB_HD void look(Window<V>& w, const Taps& taps, const Options&, Memo& memo) {
    using T = typename Traits<V>::Number;
    const V cold_score = splat<V>(-kInf<T>);
    const int64_t count = taps.count();
    auto hot_tap = splat<V>(0) != splat<V>(0), hot_logit = hot_tap, frozen = hot_tap;
    if constexpr (careful) {
      for (int64_t i = 0; i < count; ++i) {
        const V x = taps.x(i), l = taps.second(i);
        const auto counted = (x != cold_score) & (l != cold_score) & taps.valid(i);
        hot_tap = hot_tap | (counted & (x == splat<V>(kInf<T>)));
        hot_logit = hot_logit | (counted & (l == splat<V>(kInf<T>)));
        frozen = frozen | ((x == cold_score) & taps.valid(i));
      }
    }
    const auto score = [&](int64_t i) {
      const V x = taps.x(i);
      V l = taps.second(i);
      if constexpr (careful) {
        const V one = select(x == splat<V>(kInf<T>), splat<V>(0), cold_score);
        const V two = select(l == splat<V>(kInf<T>), splat<V>(0), cold_score);
        const auto out = (x == cold_score) | (l == cold_score);
        l = select(hot_tap, one, select(hot_logit, two, l));
        l = select(out, cold_score, l);
      }
      return select(taps.valid(i), l, cold_score);
    };
    V peak = cold_score;
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V l = score(i);
      peak = select(l > peak, l, peak);
    }
    if constexpr (careful) peak = select(peak == cold_score, splat<V>(0), peak);
    V total = splat<V>(0), sum = splat<V>(0);
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      V x = taps.x(i);
      const V e = careful ? vexp(score(i) - peak) : vexp_down(score(i) - peak);
      if constexpr (careful) x = select(x == cold_score, splat<V>(0), x);
      memo.put(i, e);
      total = total + e;
      sum = sum + e * x;
    }
    const auto nothing = total == splat<V>(0);
    w.over_total = splat<V>(1) / (careful ? select(nothing, splat<V>(1), total) : total);
    w.y = sum * w.over_total;
    if constexpr (careful) w.y = select(nothing & frozen, cold_score, w.y);
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.y; }

  template <bool careful, class V>
  static POOLNB_HD V slope(const Window<V>& w, V x, V, V e, int64_t, const Options&, V*, V& d_second) {
    const V weight = e * w.over_total;
    V centred = x - w.y;
    if constexpr (careful)
      centred = select(weight == splat<V>(0), splat<V>(0), select(infinite(w.y), splat<V>(0), centred));
    d_second = weight * centred;
    return weight;
  }

  template <bool careful, class V>
  static POOLNB_HD void finish(const Window<V>&, V*) {}
};

}  // namespace poolnb
