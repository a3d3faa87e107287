// The taps of one window as one thread sees them: see ../taps.h for what the window maths asks of them.
#pragma once

#include "../binomial.h"
#include "../philox.h"
#include "../taps.h"
#include "grid.h"

namespace poolnb {

// What all of them know of their window: its parameters' tables, and its numbers of noise.
template <class Op, class T, class Number>
struct WindowOf {
  const Problem& q;
  BasicSite<Number> at;

  POOLNB_BODY uint64_t position() const {
    const Windows& w = q.windows;
    const Number place = (at.o[0] * Number(w.output[1]) + at.o[1]) * Number(w.output[2]) + at.o[2];
    return uint64_t((at.n * Number(q.channels) + at.c) * Number(w.count()) + place);
  }
  POOLNB_BODY uint64_t seed() const { return q.options.seed_at ? uint64_t(*q.options.seed_at) : q.options.seed; }
  POOLNB_BODY T noise(int64_t i) const {
    if constexpr (Op::noise == 1) return window_uniform<T>(seed(), position(), Op::stream);
    else if constexpr (Op::noise == 2) return gumbel_factor(tap_uniform<T>(seed(), position(), i, Op::stream));
    else return T(0);
  }
  POOLNB_BODY int64_t filters(int t) const { return q.table[t].filters; }
  POOLNB_BODY T entry(int t, int64_t f, int64_t i) const {
    const View& v = q.table[t].view;
    return read_number<T>(v, at.c * Number(v.stride[1]) + Number(f) * Number(v.stride[3]) + Number(i) * Number(v.stride[4]));
  }
  // Of the tap at place k of the window.
  POOLNB_BODY Scaled binomial_at(const Number k[3]) const {
    Scaled b;
    for (int a = 0; a < 3; ++a) b = b * binomial(q.windows.kernel[a] - 1, k[a]);
    return b;
  }
};

// Of any number, read as they are needed. S is the stored type, T the type of sums.
template <class Op, class S, class T>
struct GlobalTaps : WindowOf<Op, T, int64_t> {
  static constexpr bool fixed = false;
  using Base = WindowOf<Op, T, int64_t>;
  using Base::q, Base::at;
  mutable int64_t number = 0, k[3] = {0, 0, 0};  // the tap that was asked for last, and its place in the window

  POOLNB_BODY GlobalTaps(const Problem& problem, const Site& site) : Base{problem, site} {}

  POOLNB_BODY int64_t count() const { return q.windows.taps(); }

  // Every loop asks for the taps in their order: from one to the next no division is needed.
  POOLNB_BODY void go_to(int64_t i) const {
    const int64_t* kernel = q.windows.kernel;
    if (i < number) number = k[0] = k[1] = k[2] = 0;
    for (; number < i; ++number) {
      if (++k[2] < kernel[2]) continue;
      k[2] = 0;
      if (++k[1] < kernel[1]) continue;
      k[1] = 0;
      ++k[0];
    }
  }

  // Where tap i lies; false in the padding and where the mask says so.
  POOLNB_BODY bool where(int64_t i, int64_t in[3]) const {
    const Windows& w = q.windows;
    go_to(i);
    for (int a = 0; a < 3; ++a) {
      in[a] = w.first(a, at.o[a]) + k[a] * w.dilation[a];
      if (in[a] < 0 || in[a] >= w.size[a]) return false;
    }
    if (!q.mask.data) return true;
    return static_cast<const bool*>(q.mask.data)[q.mask.offset(at.n, at.c, in[0], in[1], in[2])];
  }
  POOLNB_BODY bool valid(int64_t i) const {
    int64_t in[3];
    return where(i, in);
  }
  POOLNB_BODY T x(int64_t i) const {
    int64_t in[3];
    if (!where(i, in)) return T(0);
    return T(number_of(static_cast<const S*>(q.input[0].data)[q.input[0].offset(at.n, at.c, in[0], in[1], in[2])]));
  }
  POOLNB_BODY T second(int64_t i) const {
    int64_t in[3];
    if (!where(i, in)) return T(0);
    return read_second<S, T>(q.input[1], q.input[1].offset(at.n, at.c, in[0], in[1], in[2]));
  }
  template <class Use>
  POOLNB_BODY void each_input(int64_t i, const Use& use) const {
    int64_t in[3];
    if (where(i, in)) use([&](const View& v) { return v.offset(at.n, at.c, in[0], in[1], in[2]); });
  }
  POOLNB_BODY Scaled scaled_weight(int64_t i) const {
    go_to(i);
    return this->binomial_at(k);
  }
  POOLNB_BODY T weight(int64_t i) const { return T(scaled_weight(i).value()); }
  POOLNB_BODY T weight_part(int64_t i) const { return T(scaled_weight(i).part); }
  POOLNB_BODY T weight_whole(int64_t i) const { return T(scaled_weight(i).whole); }
};

// Of H x W neighbours, known when this is compiled: all are read at once, into registers.
template <class Op, class S, class T, int H, int W>
struct HeldTaps : WindowOf<Op, T, int32_t> {
  static constexpr bool fixed = true;
  static constexpr int known = H * W;
  using Base = WindowOf<Op, T, int32_t>;
  using Base::q, Base::at;
  int32_t first[2];
  bool ok[known];
  T value[known], value_second[Op::inputs > 1 ? known : 1];

  POOLNB_BODY HeldTaps(const Problem& problem, const ShortSite& site) : Base{problem, site} {
    const Windows& w = q.windows;
    for (int a = 0; a < 2; ++a) first[a] = at.o[a + 1] * int32_t(w.stride[a + 1]) - int32_t(w.padding[a + 1]);
    POOLNB_UNROLL for (int i = 0; i < known; ++i)
      ok[i] = uint32_t(first[0] + i / W) < uint32_t(w.size[1]) && uint32_t(first[1] + i % W) < uint32_t(w.size[2]);
    if (q.mask.data) {
      const int32_t from = start(q.mask);
      POOLNB_UNROLL for (int i = 0; i < known; ++i)
        ok[i] = ok[i] && static_cast<const bool*>(q.mask.data)[step(q.mask, from, i)];
    }
    const int32_t from = start(q.input[0]);
    POOLNB_UNROLL for (int i = 0; i < known; ++i)
      value[i] = ok[i] ? T(number_of(static_cast<const S*>(q.input[0].data)[step(q.input[0], from, i)])) : T(0);
    if constexpr (Op::inputs > 1) {
      const int32_t from_second = start(q.input[1]);
      POOLNB_UNROLL for (int i = 0; i < known; ++i)
        value_second[i] = ok[i] ? read_second<S, T>(q.input[1], step(q.input[1], from_second, i)) : T(0);
    }
  }

  POOLNB_BODY static constexpr int64_t count() { return known; }
  POOLNB_BODY bool valid(int64_t i) const { return ok[i]; }
  POOLNB_BODY T x(int64_t i) const { return value[i]; }
  POOLNB_BODY T second(int64_t i) const { return value_second[Op::inputs > 1 ? i : 0]; }
  template <class Use>
  POOLNB_BODY void each_input(int64_t i, const Use& use) const {
    if (ok[i]) use([&](const View& v) { return step(v, start(v), i); });
  }
  POOLNB_BODY T weight(int64_t i) const { return T(row(H, i / W) * row(W, i % W)) / T(1 << (H + W - 2)); }

 private:
  POOLNB_BODY int32_t start(const View& v) const {
    return offset<int32_t>(v, at.n, at.c, at.o[0], first[0], first[1]);
  }
  POOLNB_BODY static int32_t step(const View& v, int32_t from, int64_t i) {
    return from + int32_t(i / W) * int32_t(v.stride[3]) + int32_t(i % W) * int32_t(v.stride[4]);
  }
  // C(n - 1, j), n at most 3.
  POOLNB_BODY static constexpr int row(int n, int64_t j) { return n == 3 && j == 1 ? 2 : 1; }
};

// One of a window, of which all but the tap is known already.
template <class Op, class T, class Number>
struct OneTap : WindowOf<Op, T, Number> {
  static constexpr bool fixed = false;
  using WindowOf<Op, T, Number>::q;
  Number k[3];
  T value, value_second;

  POOLNB_BODY int64_t number() const {
    return (k[0] * Number(q.windows.kernel[1]) + k[1]) * Number(q.windows.kernel[2]) + k[2];
  }
  POOLNB_BODY bool valid(int64_t) const { return true; }
  POOLNB_BODY T x(int64_t) const { return value; }
  POOLNB_BODY T second(int64_t) const { return value_second; }
  POOLNB_BODY T weight(int64_t) const { return T(this->binomial_at(k).value()); }
  POOLNB_BODY T weight_part(int64_t) const { return T(this->binomial_at(k).part); }
  POOLNB_BODY T weight_whole(int64_t) const { return T(this->binomial_at(k).whole); }
};

// `call.operator()<n, n>()` for windows of n x n neighbours, n one of `held`; `<0, 0>` for all others, for offsets of 64
// bits, and where T is double, which most GPUs are slow with.
template <class T, int... held, class Call>
void with_shape(const Problem& q, const Grid& grid, const Call& call) {
  const Windows& w = q.windows;
  bool done = false;
  if constexpr (sizeof(T) == 4) {
    const bool flat = grid.is_short && w.kernel[0] == 1 && w.stride[0] == 1 && w.padding[0] == 0;
    const bool square = flat && w.kernel[1] == w.kernel[2] && w.dilation[1] == 1 && w.dilation[2] == 1;
    ((!done && square && w.kernel[1] == held ? (done = true, call.template operator()<held, held>()) : void()), ...);
  }
  if (!done) call.template operator()<0, 0>();
}

}  // namespace poolnb
