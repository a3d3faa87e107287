// Windows of 2 x 2 that cover contiguous rows: their taps are taken apart in registers, without blocks.
#pragma once

#include "unit.h"

namespace poolnb {

template <class Op, class T>
class Pairs : Unit<Op, T> {
  using Base = Unit<Op, T>;
  using typename Base::V, typename Base::Window, typename Base::Place;
  using Base::lanes, Base::p_, Base::q_, Base::w_, Base::parameter_sum_, Base::first_, Base::windows_,
      Base::n_, Base::c_, Base::start, Base::read_parameters, Base::noise, Base::write_parameters;

 public:
  explicit Pairs(const Plan<T>& plan) : Base(plan) {}

  void forward(int64_t unit) {
    start(unit);
    forward_pairs();
  }
  void backward(int64_t unit, T* partial) {
    start(unit);
    backward_pairs();
    if (q_.want_parameters) write_parameters(partial);
  }

 private:
  // each(d, h, column, fresh) for packs of windows along rows; the last one of a row overlaps its neighbour, and only
  // its `fresh` lanes are new.
  template <class Each>
  POOLNB_HD void each_pair_pack(const Each& each) const {
    const int64_t row = w_.output[2];
    const auto all = splat<V>(0) == splat<V>(0);
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    const auto last = load<V>(number) >= splat<V>(T((lanes - row % lanes) % lanes));
    for (int64_t d = 0; d < windows_[0]; ++d)
      for (int64_t h = 0; h < windows_[1]; ++h) {
        for (int64_t at = 0; at + lanes <= row; at += lanes) each(d, h, at, all);
        if (row % lanes) each(d, h, row - lanes, last);
      }
  }

  // The two rows of the windows of row (d, h); taps 0 and 1 are in the first one.
  void pair_rows(const View& v, int64_t d, int64_t h, T* rows[2]) const {
    d = (first_[0] + d) * w_.kernel[0];
    h = (first_[1] + h) * w_.kernel[1];
    T* data = static_cast<T*>(v.data);
    rows[0] = data + v.offset(n_, c_, d, h, 0);
    rows[1] = data + v.offset(n_, c_, d + (w_.kernel[0] - 1), h + (w_.kernel[1] - 1), 0);
  }

  static POOLNB_HD void read_pairs(T* const rows[2], int64_t at, V* taps) {
    for (int r = 0; r < 2; ++r) {
      const T* from = rows[r] + 2 * at;
      unweave(load<V>(from), load<V>(from + lanes), taps[2 * r], taps[2 * r + 1], std::make_index_sequence<lanes>());
    }
  }
  static POOLNB_HD void write_pairs(T* const rows[2], int64_t at, const V* taps) {
    for (int r = 0; r < 2; ++r) {
      T* to = rows[r] + 2 * at;
      V a, b;
      weave(taps[2 * r], taps[2 * r + 1], a, b, std::make_index_sequence<lanes>());
      store<V>(to, a);
      store<V>(to + lanes, b);
    }
  }

  template <class M>
  POOLNB_HD bool look_at_pairs(Window& w, HeldTaps<V>& taps, int64_t d, int64_t h, int64_t at, M& memo) const {
    const Place place{0, p_.out.at(d, h, at), 0, 0, 0, 0};
    T* rows[2];
    pair_rows(q_.input[0], d, h, rows);
    read_pairs(rows, at, taps.value);
    if constexpr (Op::inputs > 1) {
      pair_rows(q_.input[1], d, h, rows);
      read_pairs(rows, at, taps.value_second);
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
    pair_rows(q_.grad_input[0], d, h, rows);
    write_pairs(rows, at, part);
    if (Op::inputs > 1 && q_.grad_input[Op::inputs - 1].data) {
      pair_rows(q_.grad_input[Op::inputs - 1], d, h, rows);
      write_pairs(rows, at, part_second);
    }
    if (!q_.want_parameters) return;
    Op::template finish<careful>(w, own);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = parameter_sum_[i].data() + (q_.channelwise[i] ? 0 : p_.out.at(d, h, at));
      store<V>(sum, load<V>(sum) + select(fresh, g * own[i], splat<V>(0)));
    }
  }
};

}  // namespace poolnb
