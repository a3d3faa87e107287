// Windows of 2 x 2 that cover contiguous rows: their taps are taken apart in registers, without blocks.
//
// `narrow`: rows shorter than a pack follow each other without a gap, and a pack takes several. Its taps are 4 * lanes
// numbers in a row, as they are without `narrow` in two rows.
#pragma once

#include "unit.h"

namespace poolnb {

template <class Op, class T, bool narrow>
class Pairs : Unit<Op, T> {
  using Base = Unit<Op, T>;
  using typename Base::V, typename Base::Window, typename Base::Place;
  using Base::lanes, Base::p_, Base::q_, Base::w_, Base::parameter_sum, Base::first_, Base::windows_,
      Base::n_, Base::c_, Base::each_image, Base::read_parameters, Base::noise, Base::write_parameters;

 public:
  explicit Pairs(const Plan<T>& plan) : Base(plan) {
    const int64_t width = narrow ? w_.output[2] : lanes;  // windows of a row in a pack
    for (int64_t k = 0; k < 2 * lanes; ++k) {
      const int64_t window = k % lanes, row = k / (2 * width), in_row = k % (2 * width);
      split_[k / lanes][window] = window / width * 2 * width + window % width + k / lanes * width;
      join_[k / lanes][window] = row * width + in_row % width + in_row / width * lanes;
    }
  }

  void forward(int64_t unit) {
    each_image(unit, [&] { forward_pairs(); });
  }
  void backward(int64_t unit, T* partial) {
    each_image(unit, [&] { backward_pairs(); });
    if (q_.want_parameters) write_parameters(partial);
  }

 private:
  // each(d, h, column, fresh) for packs of windows along rows; the last one of a row overlaps its neighbour, and only
  // its `fresh` lanes are new. Narrow rows count as one.
  template <class Each>
  POOLNB_HD void each_pair_pack(const Each& each) const {
    const int64_t depth = narrow ? 1 : windows_[0], height = narrow ? 1 : windows_[1];
    const int64_t row = narrow ? windows_[0] * windows_[1] * w_.output[2] : w_.output[2];
    const auto all = splat<V>(0) == splat<V>(0);
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    const auto last = load<V>(number) >= splat<V>(T((lanes - row % lanes) % lanes));
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t h = 0; h < height; ++h) {
        for (int64_t at = 0; at + lanes <= row; at += lanes) each(d, h, at, all);
        if (row % lanes) each(d, h, row - lanes, last);
      }
  }

  // Where the taps of the pack at (d, h, at) begin: 0 and 1 of its windows, 2 and 3. Of narrow rows: the first half of
  // the numbers, the second half.
  void find_taps(const View& v, int64_t d, int64_t h, int64_t at, T* rows[2]) const {
    d = (first_[0] + d) * w_.kernel[0];
    h = (first_[1] + h) * w_.kernel[1];
    T* data = static_cast<T*>(v.data);
    rows[0] = data + v.offset(n_, c_, d, h, 0) + (narrow ? 4 : 2) * at;
    rows[1] = narrow ? rows[0] + 2 * lanes
                     : data + v.offset(n_, c_, d + (w_.kernel[0] - 1), h + (w_.kernel[1] - 1), 0) + 2 * at;
  }

  // Even numbers are taps 0 and 2, odd ones 1 and 3.
  POOLNB_HD void read_taps(T* const rows[2], V* taps) const {
    V part[4];
    for (int r = 0; r < 2; ++r)
      unweave(load<V>(rows[r]), load<V>(rows[r] + lanes), part[2 * r], part[2 * r + 1], Numbers());
    for (int k = 0; k < 4; ++k) taps[k] = narrow ? __builtin_shuffle(part[k % 2], part[k % 2 + 2], split_[k / 2]) : part[k];
  }
  POOLNB_HD void write_taps(T* const rows[2], const V* taps) const {
    V part[4];
    for (int k = 0; k < 4; ++k) part[k] = narrow ? __builtin_shuffle(taps[k % 2], taps[k % 2 + 2], join_[k / 2]) : taps[k];
    for (int r = 0; r < 2; ++r) {
      V a, b;
      weave(part[2 * r], part[2 * r + 1], a, b, Numbers());
      store<V>(rows[r], a);
      store<V>(rows[r] + lanes, b);
    }
  }

  Place place_of(int64_t d, int64_t h, int64_t at) const { return {0, p_.out.at(d, h, at), 0, 0, 0, 0}; }

  template <class M>
  POOLNB_HD bool look_at_pairs(Window& w, HeldTaps<V>& taps, int64_t d, int64_t h, int64_t at, M& memo) const {
    const Place place = place_of(d, h, at);
    T* rows[2];
    find_taps(q_.input[0], d, h, at, rows);
    read_taps(rows, taps.value);
    if constexpr (Op::inputs > 1) {
      find_taps(q_.input[1], d, h, at, rows);
      read_taps(rows, taps.value_second);
    }
    taps.from_noise = noise(place);
    taps.noise_step = p_.out.size;
    read_parameters(w, place);
    Op::template look<false>(w, taps, q_.options, memo);
    return !any(infinite_or_nan(Op::value(w)));
  }

  template <class M>
  __attribute__((noinline)) void look_at_pairs_with_care(Window& w, const HeldTaps<V>& taps, M& memo) const {
    Op::template look<true>(w, taps, q_.options, memo);
  }

  __attribute__((noinline)) void forward_pairs() const {
    each_pair_pack([&](int64_t d, int64_t h, int64_t at, auto) {
      Window w;
      HeldTaps<V> taps;
      NoMemo none;
      if (!look_at_pairs(w, taps, d, h, at, none)) look_at_pairs_with_care(w, taps, none);
      T* y = static_cast<T*>(q_.output.data) + q_.output.offset(n_, c_, first_[0] + d, first_[1] + h, at);
      store<V>(y, Op::value(w));
    });
  }

  __attribute__((noinline)) void backward_pairs() {
    each_pair_pack([&](int64_t d, int64_t h, int64_t at, auto fresh) {
      Window w;
      HeldTaps<V> taps;
      Memo<V, 4> memo;
      const T* g = static_cast<const T*>(q_.grad.data) + q_.grad.offset(n_, c_, first_[0] + d, first_[1] + h, at);
      if (look_at_pairs(w, taps, d, h, at, memo)) {
        write_slopes<false>(w, taps, memo, d, h, at, load<V>(g), fresh);
      } else {
        look_at_pairs_with_care(w, taps, memo);
        write_slopes<true>(w, taps, memo, d, h, at, load<V>(g), fresh);
      }
    });
  }

  template <bool careful, class Fresh>
  POOLNB_HD void write_slopes(const Window& w, const HeldTaps<V>& taps, const Memo<V, 4>& memo, int64_t d, int64_t h,
                              int64_t at, V g, Fresh fresh) {
    V own[Op::parameters + 1], part[4], part_second[4];
    for (int i = 0; i <= Op::parameters; ++i) own[i] = splat<V>(0);
    POOLNB_UNROLL for (int i = 0; i < 4; ++i) {
      const V second = Op::inputs > 1 ? taps.second(i) : splat<V>(0);
      V d_second = splat<V>(0);
      part[i] = g * Op::template slope<careful>(w, taps.x(i), second, memo.get(i), i, q_.options, own, d_second);
      part_second[i] = g * d_second;
    }
    T* rows[2];
    find_taps(q_.grad_input[0], d, h, at, rows);
    write_taps(rows, part);
    if (Op::inputs > 1 && q_.grad_input[Op::inputs - 1].data) {
      find_taps(q_.grad_input[Op::inputs - 1], d, h, at, rows);
      write_taps(rows, part_second);
    }
    if (!q_.want_parameters) return;
    Op::template finish<careful>(w, own);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = parameter_sum(i, place_of(d, h, at));
      store<V>(sum, load<V>(sum) + select(fresh, g * own[i], splat<V>(0)));
    }
  }

  using Numbers = std::make_index_sequence<lanes>;
  // Of even (or odd) numbers of narrow rows to two taps, and back.
  typename Traits<V>::Mask split_[2], join_[2];
};

}  // namespace poolnb
