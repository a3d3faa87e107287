// Rank pooling: y = sum w_r x_(r) / sum w_r over the ranks that a window has, x_(1) the largest tap.
// dy/dx_(r) = w_r / sum w;  dy/dw_r = (x_(r) - y) / sum w.
// A weight of 0 is nothing even of an infinite tap, and a NaN is something whatever its weight. Weights of sum 0 give
// 0. A thread of a GPU compares every tap with every other one: n^2 comparisons of a window of n taps.
#pragma once

#include "order.h"

namespace poolnb {

struct Rank : InOrder {
  static constexpr int inputs = 1, parameters = 0, noise = 0;
  static constexpr int tables = 1;
  static constexpr bool per_rank = true;  // its table has a weight for every rank

  template <class V>
  struct Window {
    V parameter[1];
    V largest, inv_sum, y;  // of the weights: the largest one, 1 by the sum of their parts of it
    int64_t number;         // of one number: how many taps are valid
  };

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options&, Saved& saved) {
#if defined(POOLNB_VECTORS)
    if constexpr (Traits<V>::lanes > 1) {
      if constexpr (safe || Taps::many) lane_by_lane(w, taps, saved);
      else by_network(w, taps, saved);
      return;
    }
#endif
    if constexpr (Traits<V>::lanes == 1) by_counting(w, taps);
  }

  // ---- one number --------------------------------------------------------------------------------------------------

  template <class T, class Taps>
  static POOLNB_HD void by_counting(Window<T>& w, const Taps& taps) {
    const int64_t n = w.number = valid_taps(taps);
    T largest = -kInf<T>;
    for (int64_t r = 0; r < n; ++r) largest = vmax(T(taps.entry(0, 0, r)), largest);
    w.largest = largest == T(0) || n == 0 ? T(1) : largest;
    Sum<T> total;
    for (int64_t r = 0; r < n; ++r) {
      total += T(taps.entry(0, 0, r)) / w.largest;
      if (r % kTerms == kTerms - 1) total.carry();
    }
    w.inv_sum = total.value() == T(0) ? T(0) : T(1) / total.value();
    Sum<T> sum;
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      if (!taps.valid(i)) return;
      const T x = taps.x(i), share = share_of(w, taps, rank_of<T>(taps, i, x));
      if (share != T(0) || !infinite(x)) sum += share * x;
    }, sum);
    w.y = sum.value();
  }
  template <class T, class Taps>
  static POOLNB_HD T share_of(const Window<T>& w, const Taps& taps, int64_t rank) {
    return T(taps.entry(0, 0, rank)) / w.largest * w.inv_sum;
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
#if defined(POOLNB_VECTORS)
    if constexpr (Traits<V>::lanes > 1) {
      V slope = splat<V>(0);
      each_lane<V>(taps, [&](int64_t lane) { slope[lane] = taps.order.long_rows[2 * lane][i]; });
      return slope;
    }
#endif
    if constexpr (Traits<V>::lanes == 1)
      return taps.valid(i) ? share_of(w, taps, rank_of<V>(taps, i, V(taps.x(i)))) : V(0);
  }

  template <class T, class Taps, class Each>
  static POOLNB_HD void each_table_grad(const Window<T>& w, const Taps& taps, T g, bool, const Each& each) {
    for (int64_t i = 0; i < taps.count(); ++i) {
      if (!taps.valid(i)) continue;
      const T x = taps.x(i);
      each(0, 0, rank_of<T>(taps, i, x), g, weight_grad(x, w.y, w.inv_sum / w.largest));
    }
    for (int64_t r = w.number; r < taps.count(); ++r) each(0, 0, r, T(0), T(0));
  }
  template <class T>
  static POOLNB_HD T weight_grad(T x, T y, T by_sum) {
    if (y != y) return by_sum == T(0) ? by_sum * y : y;
    return infinite(x) || infinite(y) ? T(0) : (x - y) * by_sum;
  }

#if defined(POOLNB_VECTORS)
  // ---- vectors of lanes --------------------------------------------------------------------------------------------

  template <class V, class Taps, class Saved>
  static POOLNB_HD void by_network(Window<V>& w, const Taps& taps, Saved& saved) {
    using T = typename Traits<V>::Number;
    constexpr int known = Taps::known;
    const int64_t n = taps.count();
    Kept<V, Taps> kept(taps, 0), numbers(taps, 1);
    V* const x = kept.at;
    V number, rank[known > 0 ? known : 1];
    const V all_finite = take_taps(taps, x, number);
    if constexpr (Saved::backward && known > 0) count_ranks<known>(x, rank);
    if constexpr (Saved::backward && known == 0) {
      for (int64_t i = 0; i < n; ++i) numbers.at[i] = splat<V>(T(i));
      sort_taps(x, numbers.at, n);
    } else {
      sort_values<known>(x, n);
    }
    Sum<V> total, sum;
    each_tap(taps, [&](int64_t r) POOLNB_INLINE {
      const V weight = present_weight(taps, r, number);
      total += weight;
      sum += weight * select(present<Taps>(r, number), x[r], splat<V>(0));
    }, total, sum);
    // Weights that are 0 or have lost digits must not be all there is, nor their sum overflow.
    constexpr T step = std::numeric_limits<T>::epsilon(), least = std::numeric_limits<T>::min() / (step * step);
    const V all = total.value(), inv_sum = splat<V>(1) / all;
    w.y = select((all < splat<V>(least)) | infinite(all), splat<V>(kInf<T>), sum.value() * inv_sum + all_finite);
    if constexpr (!Saved::backward) return;
    if constexpr (Saved::keeps) {
      if constexpr (known > 0) {
        V share[known];
        POOLNB_UNROLL for (int r = 0; r < known; ++r) share[r] = present_weight(taps, r, number) * inv_sum;
        POOLNB_UNROLL for (int i = 0; i < known; ++i) {
          V slope = share[0];
          POOLNB_UNROLL for (int r = 1; r < known; ++r) slope = select(rank[i] == splat<V>(T(r)), share[r], slope);
          saved.put(i, slope);
        }
      } else {
        for (int64_t r = 0; r < n; ++r) {
          const V share = present_weight(taps, r, number) * inv_sum, tap = numbers.at[r];
          for (int lane = 0; lane < Traits<V>::lanes; ++lane) saved.kept[int64_t(tap[lane])][lane] = share[lane];
        }
      }
      POOLNB_UNROLL for (int64_t r = 0; r < n; ++r)
        saved.put_more(r, select(present<Taps>(r, number), (x[r] - w.y) * inv_sum, splat<V>(0)));
    }
  }
  template <class Taps, class V>
  static POOLNB_HD auto present(int64_t r, V number) {
    if constexpr (all_valid<Taps>) return Always{};
    else return splat<V>(typename Traits<V>::Number(r)) < number;
  }
  template <class V, class Taps>
  static POOLNB_HD V present_weight(const Taps& taps, int64_t r, V number) {
    return select(present<Taps>(r, number), taps.entry(0, 0, r), splat<V>(0));
  }

  template <class T, class Tap>
  struct Ranked {
    T x;
    Tap tap;
    bool operator<(const Ranked& other) const { return stands_before(x, tap, other.x, other.tap); }
  };

  template <class V, class Taps, class Saved>
  static void lane_by_lane(Window<V>& w, const Taps& taps, Saved& saved) {
    w.y = splat<V>(0);
    if constexpr (Saved::keeps)
      for (int64_t i = 0; i < taps.count(); ++i) saved.put(i, splat<V>(0)), saved.put_more(i, splat<V>(0));
    each_lane<V>(taps, [&](int64_t lane) {
      if (taps.count() >> 31) sort_lane<int64_t>(w, taps, saved, lane);
      else sort_lane<int32_t>(w, taps, saved, lane);
    });
  }

  template <class Tap, class V, class Taps, class Saved>
  static void sort_lane(Window<V>& w, const Taps& taps, Saved& saved, int64_t lane) {
    using T = typename Traits<V>::Number;
    const int64_t n = valid_taps_of_lane(taps, lane);
    std::vector<Ranked<T, Tap>> ranked;
    ranked.reserve(n);
    each_tap_of_lane(taps, lane, [&](int64_t i, T x) { ranked.push_back({x, Tap(i)}); });
    std::sort(ranked.begin(), ranked.end());
    T largest = -kInf<T>;
    for (int64_t r = 0; r < n; ++r) largest = std::max(largest, taps.order.entry_of_lane(0, 0, r, lane));
    if (largest == 0) largest = 1;
    double all = 0, sum = 0;
    for (int64_t r = 0; r < n; ++r) all += taps.order.entry_of_lane(0, 0, r, lane) / largest;
    const double inv_sum = all == 0 ? 0 : 1 / all;
    const auto share = [&](int64_t r) { return T(taps.order.entry_of_lane(0, 0, r, lane) / largest * inv_sum); };
    for (int64_t r = 0; r < n; ++r)
      if (share(r) != 0 || !infinite(ranked[r].x)) sum += double(share(r)) * ranked[r].x;
    const T y = T(sum), by_sum = T(inv_sum / largest);
    w.y[lane] = y;
    if constexpr (!Saved::backward) return;
    if constexpr (!Saved::keeps)
      for (int row : {0, 1}) taps.order.long_rows[2 * lane + row].assign(taps.count(), 0);
    for (int64_t r = 0; r < n; ++r) {
      const T slope = y == y ? share(r) : y, by_weight = weight_grad(ranked[r].x, y, by_sum);
      if constexpr (Saved::keeps) {
        saved.kept[ranked[r].tap][lane] = slope;
        saved.more[r][lane] = by_weight;
      } else {
        taps.order.long_rows[2 * lane][ranked[r].tap] = slope;
        taps.order.long_rows[2 * lane + 1][r] = by_weight;
      }
    }
  }
#endif

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
