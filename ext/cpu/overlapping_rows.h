// Windows that share taps, of an operator that goes by sums (sums.h), over tensors whose rows are used where they lie:
// no block is filled, and what is kept of a row stays in the nearest cache. Some rows of windows at a time, features are
// made and summed along rows of taps, and these rows are added. Backward, what windows hand back is summed along their
// rows, and these are added for every row of taps that no later window holds. A step takes several rows: what was
// stored last is not yet where a vector across two stores could be read from.
// `phases`: the stride along rows. Columns are kept apart by their remainder, so that one tap of all windows is one
// stretch; what lies before and behind a row is 0 and stays so. The last vector of a row overlaps its neighbour.
// A unit with values out of reach, or with a result that is not finite, goes window by window.
#pragma once

#include <bit>
#include <optional>

#include "sums.h"
#include "windows.h"

namespace poolnb {

template <class Op, class T, bool halves, int phases>
class OverlappingRows {
  using V = Vec<T>;
  using M = typename Traits<V>::Mask;
  using Sums = typename Op::template Sums<V>;
  static constexpr int64_t lanes = Traits<V>::lanes;
  static constexpr int kFeatures = std::max(Sums::features, Sums::learned);
  static constexpr int64_t kTogether = 8;  // rows of windows
  static constexpr int64_t kSoon = 3072;   // numbers from what is looked at to what memory is asked for

 public:
  explicit OverlappingRows(const Plan<T>& plan)
      : p_(plan), q_(plan.q), w_(plan.w), width_(w_.size[2]), out_(w_.output[2]),
        sharing_((w_.span(1) - 1) / w_.stride[1] + 1),
        held_(std::bit_ceil(uint64_t(w_.span(1) + (kTogether - 1) * w_.stride[1]))),
        spreads_(std::bit_ceil(uint64_t(sharing_ + kTogether - 1))) {
    const int64_t reach = w_.span(2) + w_.padding[2];
    lead_ = round_up(reach, lanes);
    pitch_ = lead_ + round_up(std::max(out_, width_ / phases + 1) + reach, lanes);
    for (int64_t k = 0; k < w_.kernel[2]; ++k) {
      const int64_t at = k * w_.dilation[2] - w_.padding[2], phase = (at % phases + phases) % phases;
      const int64_t offset = (at - phase) / phases;
      taps_.push_back(phase * pitch_ + offset);
      windows_[phase].push_back(-offset);
    }
    for (auto& feature : feature_) feature = Buffer<T>(held_ * phases * pitch_);
    for (auto& sum : sum_) sum = Buffer<T>((held_ + 1) * pitch_);
    for (auto& back : back_) back = Buffer<T>(p_.backward ? kTogether * pitch_ : 0);
    for (auto& spread : spread_) spread = Buffer<T>(p_.backward ? (spreads_ + 1) * phases * pitch_ : 0);
    count_valid();
  }

  void forward(int64_t unit) {
    start(unit);
    if (!forward_rows()) window_by_window().forward(unit);
  }

  // `partial`: see windows.h.
  void backward(int64_t unit, T* partial) {
    constexpr bool can_learn = Op::parameters && Sums::learned;
    start(unit);
    const bool learns = can_learn && q_.want_parameters;
    const bool done = learns ? backward_rows<can_learn>(partial) : backward_rows<false>(nullptr);
    if (!done) window_by_window().backward(unit, partial);
  }

 private:
  void start(int64_t unit) {
    band_ = unit / (p_.groups * p_.chunks);
    n_ = unit % (p_.groups * p_.chunks) / p_.chunks;
    c_ = unit % p_.chunks;
    own_ = band_ * p_.band[1];
    first_ = std::max<int64_t>(0, own_ - p_.halo[1]);
    is_last_ = band_ + 1 == p_.parts[1];
    end_ = is_last_ ? w_.output[1] : own_ + p_.band[1];
  }

  Generic<Op, T>& window_by_window() {
    if (!generic_) generic_.emplace(p_);
    return *generic_;
  }

  // Of a row of windows: how many of their taps are valid, along the row.
  void count_valid() {
    valid_ = Buffer<T>(pitch_);
    for (int64_t o = 0; o < out_; ++o)
      for (int64_t k = 0; k < w_.kernel[2]; ++k) {
        const int64_t at = w_.first(2, o) + k * w_.dilation[2];
        valid_.data()[o] += at >= 0 && at < width_;
      }
  }

  // ---- rows ---------------------------------------------------------------------------------------------------------

  // each(first) for vectors of n numbers, the last one over its neighbour; `step` of them lie in a vector.
  template <int64_t step, class Each>
  static POOLNB_HD void each_vector(int64_t n, const Each& each) {
    for (int64_t at = 0; at < n; at += step) each(std::min(at, n - step));
  }

  void* row_of(const View& v, int64_t row) const { return v.data ? memory_at(v, v.offset(n_, c_, 0, row, 0)) : nullptr; }

  POOLNB_HD void load_phases(const View& v, void* row, int64_t at, V* x) const {
    with_float_type<halves>(v.dtype, row, [&](auto* from) POOLNB_INLINE {
      if constexpr (phases == 1) x[0] = load_as<V>(from + at);
      else load_pairs(from + at, x[0], x[1]);
    });
  }
  POOLNB_HD void store_phases(const View& v, void* row, int64_t at, const V* x) const {
    with_float_type<halves>(v.dtype, row, [&](auto* to) POOLNB_INLINE {
      if constexpr (phases == 1) store_as(to + at, x[0]);
      else store_pairs(to + at, x[0], x[1]);
    });
  }
  // What will be read soon: else memory is idle while sums are added.
  POOLNB_HD void ask_for(const void* row, int64_t at) const {
    constexpr int64_t size = halves ? 2 : sizeof(T);
    for (int i = 0; i < phases; ++i)
      __builtin_prefetch(static_cast<const char*>(row) + (at + i * lanes + kSoon) * size, 0, 2);
  }

  // Numbers that lie at offsets from each other: K of them, or 0: as many as there are.
  template <int K>
  struct Several {
    const T* from;
    const std::vector<int64_t>& offsets;
    const T* at[K ? K : 1];
    POOLNB_HD Several(const T* from, const std::vector<int64_t>& offsets) : from(from), offsets(offsets) {
      for (int k = 0; k < K; ++k) at[k] = from + offsets[k];
    }
    POOLNB_HD V sum(int64_t i) const {
      V sum = splat<V>(0);
      if constexpr (K > 0) sum = load<V>(at[0] + i);
      POOLNB_UNROLL for (int k = 1; k < K; ++k) sum = sum + load<V>(at[k] + i);
      if constexpr (K == 0) for (const int64_t offset : offsets) sum = sum + load<V>(from + offset + i);
      return sum;
    }
  };
  // call(n), as a constant where n is one of the `counts`; else 0.
  template <int... counts, class Call>
  static void fixed(size_t n, const Call& call) {
    const bool found = ((n == counts && (call(std::integral_constant<int, counts>{}), true)) || ...);
    if (!found) call(std::integral_constant<int, 0>{});
  }

  // ---- rows of taps -------------------------------------------------------------------------------------------------

  int64_t place(int64_t row) const { return (row & (held_ - 1)) * phases * pitch_ + lead_; }

  // What rows of windows need of rows of taps that were not looked at yet.
  template <int count>
  void take_rows(const Sums& op, int64_t begin, int64_t end, Reach<V>& seen) {
    const int64_t first = std::max(next_, w_.first(1, begin));
    next_ = std::max(first, std::min(w_.first(1, end - 1) + w_.span(1), w_.size[1]));
    make_features<count>(op, first, next_, seen);
    fixed<2, 3>(taps_.size(), [&](auto K) { add_along<K.value>(count, first, next_); });
  }

  template <int count>
  __attribute__((noinline)) void make_features(const Sums op, int64_t first, int64_t last, Reach<V>& all_seen) {
    Reach<V> seen = all_seen;
    const auto column = [pitch = pitch_](uint64_t at) POOLNB_INLINE { return at % phases * pitch + at / phases; };
    for (int64_t row = first; row < last; ++row) {
      void* const from = row_of(q_.input[0], row);
      void* const from_second = row_of(q_.input[Op::inputs - 1], row);
      T* to[count];
      for (int f = 0; f < count; ++f) to[f] = feature_[f].data() + place(row);
      each_vector<phases * lanes>(width_, [&](int64_t at) POOLNB_INLINE {
        V x[phases], second[phases];
        load_phases(q_.input[0], from, at, x);
        ask_for(from, at);
        if (Op::inputs > 1) load_phases(q_.input[Op::inputs - 1], from_second, at, second), ask_for(from_second, at);
        for (int i = 0; i < phases; ++i) {
          const V l = Op::inputs > 1 ? second[i] : x[i];
          look_at(seen, op, x[i], l, Always{});
          V made[count];
          op.template tap<count>(x[i], l, made);
          for (int f = 0; f < count; ++f) store<V>(to[f] + column(at + i), made[f]);
        }
      });
    }
    all_seen = seen;
  }

  template <int K>
  __attribute__((noinline)) void add_along(int count, int64_t first, int64_t last) {
    for (int f = 0; f < count; ++f)
      for (int64_t row = first; row < last; ++row) {
        const Several<K> taps(feature_[f].data() + place(row), taps_);
        T* to = sum_[f].data() + (row & (held_ - 1)) * pitch_;
        each_vector<lanes>(out_, [&](int64_t o) POOLNB_INLINE { store<V>(to + o, taps.sum(o)); });
      }
  }

  // ---- rows of windows ----------------------------------------------------------------------------------------------

  // Where the sums of a row of windows lie, those of rows outside of the input in the row of zeros behind the others.
  int64_t find_rows(int64_t o) {
    int64_t valid = 0;
    rows_.clear();
    for (int64_t k = 0; k < w_.kernel[1]; ++k) {
      const int64_t row = w_.first(1, o) + k * w_.dilation[1];
      const bool inside = row >= 0 && row < w_.size[1];
      rows_.push_back((inside ? row & (held_ - 1) : held_) * pitch_);
      valid += inside;
    }
    return valid;
  }
  // each(o, sums, n) for the vectors of a row of windows.
  template <int count, int K, class Each>
  POOLNB_HD void each_sums(int64_t row, const Each& each) {
    const V valid_rows = splat<V>(T(find_rows(row)));
    std::optional<Several<K>> several[count];
    for (int f = 0; f < count; ++f) several[f].emplace(sum_[f].data(), rows_);
    const T* valid = valid_.data();
    each_vector<lanes>(out_, [&](int64_t o) POOLNB_INLINE {
      V sums[count];
      for (int f = 0; f < count; ++f) sums[f] = several[f]->sum(o);
      each(o, sums, load<V>(valid + o) * valid_rows);
    });
  }

  // ---- forward ------------------------------------------------------------------------------------------------------

  bool forward_rows() {
    const Sums op(parameter(), q_.options);
    Reach<V> seen;
    next_ = 0;
    for (int64_t begin = first_; begin < end_; begin += kTogether) {
      const int64_t end = std::min(begin + kTogether, end_);
      take_rows<Sums::features>(op, begin, end, seen);
      fixed<2, 3>(w_.kernel[1], [&](auto K) { write_values<K.value>(op, begin, end, seen); });
    }
    return seen.within(Sums::reach) && seen.finite();
  }

  template <int K>
  __attribute__((noinline)) void write_values(const Sums op, int64_t begin, int64_t end, Reach<V>& all_seen) {
    Reach<V> seen = all_seen;
    for (int64_t row = begin; row < end; ++row) {
      void* const to = row_of(q_.output, row);
      each_sums<Sums::features, K>(row, [&](int64_t o, const V* sums, V n) POOLNB_INLINE {
        const V y = op.template value<Sums::features>(sums, n);
        seen.result(y);
        with_float_type<halves>(q_.output.dtype, to, [&](auto* at) POOLNB_INLINE { store_as(at + o, y); });
      });
    }
    all_seen = seen;
  }

  // ---- backward -----------------------------------------------------------------------------------------------------

  template <bool learns>
  bool backward_rows(T* partial) {
    constexpr int count = learns ? Sums::learned : Sums::features;
    const Sums op(parameter(), q_.options);
    const int64_t begin = std::max<int64_t>(0, w_.first(1, own_));
    const int64_t end = is_last_ ? w_.size[1] : std::min(w_.size[1], w_.first(1, end_));
    Reach<V> seen;
    next_ = 0;
    learned_ = size_ = rough_ = splat<V>(0);
    for (int64_t row = begin, from = first_; from < end_; from += kTogether) {
      const int64_t to = std::min(from + kTogether, end_);
      take_rows<count>(op, from, to, seen);
      fixed<2, 3>(w_.kernel[1], [&](auto K) { hand_back<learns, K.value>(op, from, to, seen); });
      for (int phase = 0; phase < phases; ++phase)
        fixed<1, 2, 3>(windows_[phase].size(), [&](auto K) { spread<K.value>(phase, from, to); });
      const int64_t ready = to < end_ ? std::min(end, w_.first(1, to)) : end;
      fixed<2, 3>(sharing_, [&](auto K) { write_grads<K.value>(op, row, ready, to - 1, seen); });
      row = std::max(row, ready);
    }
    if (!seen.within(Sums::reach_back) || !seen.finite()) return false;
    if constexpr (learns) {
      if (any(sum_of_lanes(rough_) > splat<V>(kRough) * sum_of_lanes(size_))) return false;
      partial[p_.partial_row(band_, n_) * q_.channels + c_] = sum_of_lanes(learned_)[0];
    }
    return true;
  }

  template <bool learns, int K>
  __attribute__((noinline)) void hand_back(const Sums op, int64_t begin, int64_t end, Reach<V>& all_seen) {
    constexpr int count = learns ? Sums::learned : Sums::features;
    Reach<V> seen = all_seen;
    for (int64_t row = begin; row < end; ++row) {
      void* const from = row_of(q_.grad, row);
      T* to[Sums::back];
      for (int k = 0; k < Sums::back; ++k) to[k] = back_[k].data() + row % kTogether * pitch_ + lead_;
      V learned = splat<V>(0), size = splat<V>(0), rough = splat<V>(0);
      each_sums<count, K>(row, [&](int64_t o, const V* sums, V n) POOLNB_INLINE {
        V back[Sums::back], g;
        const V y = op.template value<count>(sums, n);
        with_float_type<halves>(q_.grad.dtype, from, [&](auto* at) POOLNB_INLINE { g = load_as<V>(at + o); });
        op.hand_back(sums, n, y, g, back);
        seen.result(y);
        for (int k = 0; k < Sums::back; ++k) store<V>(to[k] + o, back[k]);
        if constexpr (learns) {
          V lost;
          const V d = op.param_grad(sums, n, y, lost), gp = select(fresh(o), g, splat<V>(0));
          learned = learned + gp * d;
          size = size + vabs(gp * d);
          rough = rough + vabs(gp) * lost;
        }
      });
      if (!learns || row < own_) continue;  // of the halo's windows another unit adds the parameter's gradient
      learned_ = learned_ + learned, size_ = size_ + size, rough_ = rough_ + rough;
    }
    all_seen = seen;
  }
  // Windows of a vector that the one before does not hold.
  M fresh(int64_t o) const {
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    return load<V>(number) >= splat<V>(T((lanes - o % lanes) % lanes));
  }

  // What rows of windows hand back, summed along them, for the columns of a remainder.
  int64_t spread_place(int64_t o) const { return (o & (spreads_ - 1)) * phases * pitch_; }
  template <int K>
  __attribute__((noinline)) void spread(int phase, int64_t begin, int64_t end) {
    const int64_t columns = (width_ - phase + phases - 1) / phases;
    for (int k = 0; k < Sums::back; ++k)
      for (int64_t o = begin; o < end; ++o) {
        const Several<K> windows(back_[k].data() + o % kTogether * pitch_ + lead_, windows_[phase]);
        T* to = spread_[k].data() + spread_place(o) + phase * pitch_;
        each_vector<lanes>(columns, [&](int64_t c) POOLNB_INLINE { store<V>(to + c, windows.sum(c)); });
      }
  }

  // The rows of windows that hold a row of taps, none behind `last`, and zeros for those that are missing: whether one
  // does.
  bool find_windows(int64_t row, int64_t last) {
    rows_.clear();
    const int64_t from = row + w_.padding[1] - w_.span(1) + 1;  // where the first window may begin
    int64_t o = std::max(first_, from <= 0 ? 0 : (from + w_.stride[1] - 1) / w_.stride[1]);
    for (; o <= last && w_.first(1, o) <= row; ++o)
      if ((row - w_.first(1, o)) % w_.dilation[1] == 0) rows_.push_back(spread_place(o));
    const bool some = !rows_.empty();
    rows_.resize(sharing_, spreads_ * phases * pitch_);
    return some;
  }
  void write_zeros(int64_t row) const {
    const V zeros[phases] = {};
    for (int i = 0; i < Op::inputs; ++i) {
      void* const to = row_of(q_.grad_input[i], row);
      if (to) each_vector<phases * lanes>(width_, [&](int64_t at) { store_phases(q_.grad_input[i], to, at, zeros); });
    }
  }
  // Of rows of taps that no row of windows behind `last` holds.
  template <int K>
  __attribute__((noinline)) void write_grads(const Sums op, int64_t begin, int64_t end, int64_t last,
                                             Reach<V>& all_seen) {
    constexpr int second_input = Op::inputs - 1;
    Reach<V> seen = all_seen;
    const auto column = [pitch = pitch_](uint64_t at) POOLNB_INLINE { return at % phases * pitch + at / phases; };
    for (int64_t row = begin; row < end; ++row) {
      if (!find_windows(row, last)) {
        write_zeros(row);
        continue;
      }
      void* const from = row_of(q_.input[0], row);
      void* const from_second = row_of(q_.input[second_input], row);
      void* const to = row_of(q_.grad_input[0], row);
      void* const to_second = second_input ? row_of(q_.grad_input[second_input], row) : nullptr;
      const T* kept = feature_[0].data() + place(row);
      std::optional<Several<K>> back[Sums::back];
      for (int k = 0; k < Sums::back; ++k) back[k].emplace(spread_[k].data(), rows_);
      each_vector<phases * lanes>(width_, [&](int64_t at) POOLNB_INLINE {
        V x[phases], second[phases], d[phases], d_second[phases];
        load_phases(q_.input[0], from, at, x);
        if (second_input) load_phases(q_.input[second_input], from_second, at, second);
        for (int i = 0; i < phases; ++i) {
          const int64_t c = column(at + i);
          V sums[Sums::back];
          for (int k = 0; k < Sums::back; ++k) sums[k] = back[k]->sum(c);
          d_second[i] = splat<V>(0);
          d[i] = op.tap_grad(x[i], second_input ? second[i] : x[i], load<V>(kept + c), sums, d_second[i]);
          seen.result(d[i]);
          seen.result(d_second[i]);
        }
        store_phases(q_.grad_input[0], to, at, d);
        if (to_second) store_phases(q_.grad_input[second_input], to_second, at, d_second);
      });
    }
    all_seen = seen;
  }

  V parameter() const {
    if constexpr (Op::parameters == 0) return splat<V>(0);
    const View& v = q_.parameter[0];
    T x = 0;
    with_type(v.dtype, v.data, [&](auto* from) { x = T(number(from[v.offset(n_, c_, 0, 0, 0)])); });
    return splat<V>(x);
  }

  const Plan<T>& p_;
  const Problem& q_;
  const Windows& w_;
  const int64_t width_, out_;     // columns of the input, of the output
  const int64_t sharing_;         // rows of windows that may hold a row of taps
  const int64_t held_, spreads_;  // rows of taps that are kept, rows of windows: powers of 2
  int64_t lead_, pitch_;          // zeros before a row; from row to row
  std::vector<int64_t> taps_, windows_[phases];  // of a window along its row; windows that hold columns of a remainder
  std::vector<int64_t> rows_;
  Buffer<T> feature_[kFeatures], sum_[kFeatures], valid_, back_[Sums::back], spread_[Sums::back];
  int64_t band_ = 0, n_ = 0, c_ = 0, own_ = 0, first_ = 0, end_ = 0, next_ = 0;
  bool is_last_ = true;
  V learned_, size_, rough_;
  std::optional<Generic<Op, T>> generic_;
};

}  // namespace poolnb
