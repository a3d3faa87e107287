// The CUDA kernels' bodies: what one thread does. They are plain functions of (problem, thread number), so that a loop
// on the CPU can run them too, under sanitizers, and compare the results with PyTorch's.
//
// Forward: one thread per window. Backward: where windows do not overlap, one thread per window again. Where they do,
// it leaves what its taps need to know of it, and one thread per input position gathers from the windows that hold it.
// No atomics: every number is written by one thread, and sums run in a fixed order.
#pragma once

#include "../binomial.h"
#include "../taps.h"
#include "../philox.h"

namespace poolnb {

// ---- numbers in memory ---------------------------------------------------------------------------------------------

struct HalfBits { uint16_t bits; };
struct BFloatBits { uint16_t bits; };

#if defined(__CUDACC__)
__device__ __forceinline__ float number_of(HalfBits x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float number_of(BFloatBits x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ void put_number(HalfBits* p, float x) { p->bits = __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ void put_number(BFloatBits* p, float x) {
  p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
#define POOLNB_BODY __device__ __forceinline__
#else
#define POOLNB_BODY inline
#endif
POOLNB_BODY float number_of(float x) { return x; }
POOLNB_BODY double number_of(double x) { return x; }
POOLNB_BODY void put_number(float* p, float x) { *p = x; }
POOLNB_BODY void put_number(double* p, double x) { *p = x; }

// The second input is stored as the first one is or, beside a half type, as sums are; so is its gradient, each by itself.
template <class S, class T>
POOLNB_BODY T read_second(const View& v, int64_t at) {
  if (sizeof(S) < sizeof(T) && v.dtype == Dtype::float32) return static_cast<const T*>(v.data)[at];
  return T(number_of(static_cast<const S*>(v.data)[at]));
}
template <class S, class T>
POOLNB_BODY void put_gradient(int input, const View& v, int64_t at, T x) {
  if (input > 0 && sizeof(S) < sizeof(T) && v.dtype == Dtype::float32) static_cast<T*>(v.data)[at] = x;
  else put_number(static_cast<S*>(v.data) + at, x);
}

// Numbers that are stored as sums are.
template <class T>
POOLNB_BODY T read_number(const View& v, int64_t at) {
  if (v.dtype == Dtype::float64) return T(static_cast<const double*>(v.data)[at]);
  return T(static_cast<const float*>(v.data)[at]);
}
template <class T>
POOLNB_BODY void put_sum(const View& v, int64_t at, T x) {
  if (v.dtype == Dtype::float64) static_cast<double*>(v.data)[at] = double(x);
  else static_cast<float*>(v.data)[at] = float(x);
}

// ---- taps ----------------------------------------------------------------------------------------------------------

struct Site {
  int64_t n, c, o[3];
};

// A division takes a GPU as long as an exponential, and more instructions; axes of size 1 and steps of 1 need none.
POOLNB_BODY int64_t quotient(int64_t x, int64_t by) { return by == 1 ? x : x / by; }
// The place on an axis of n places, of a number that counts it first; what is left counts the other axes.
POOLNB_BODY int64_t take(int64_t& number, int64_t n) {
  if (n == 1) return 0;
  const int64_t all = number;
  number = all / n;
  return all - number * n;
}

// Read as they are needed. S is the stored type, T the type of sums.
template <class Op, class S, class T>
struct GlobalTaps {
  static constexpr bool fixed = false;
  const Problem& q;
  Site at;
  uint64_t position;
  mutable int64_t number = 0, k[3] = {0, 0, 0};  // the tap that was asked for last, and its place in the window

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
  POOLNB_BODY uint64_t seed() const { return q.options.seed_at ? uint64_t(*q.options.seed_at) : q.options.seed; }
  POOLNB_BODY T noise(int64_t i) const {
    if constexpr (Op::noise == 1) return window_uniform<T>(seed(), position, Op::stream);
    else if constexpr (Op::noise == 2) return gumbel_factor(tap_uniform<T>(seed(), position, i, Op::stream));
    else return T(0);
  }
  POOLNB_BODY int64_t filters(int t) const { return q.table[t].filters; }
  POOLNB_BODY T entry(int t, int64_t f, int64_t i) const {
    const View& v = q.table[t].view;
    return read_number<T>(v, v.offset(0, at.c, 0, f, i));
  }
  POOLNB_BODY Scaled scaled_weight(int64_t i) const {
    go_to(i);
    Scaled b;
    for (int a = 0; a < 3; ++a) b = b * binomial(q.windows.kernel[a] - 1, k[a]);
    return b;
  }
  POOLNB_BODY T weight(int64_t i) const { return T(scaled_weight(i).value()); }
  POOLNB_BODY T weight_part(int64_t i) const { return T(scaled_weight(i).part); }
  POOLNB_BODY T weight_whole(int64_t i) const { return T(scaled_weight(i).whole); }
};

template <class Op, class S, class T>
POOLNB_BODY GlobalTaps<Op, S, T> taps_of(const Problem& q, const Site& s) {
  const Windows& w = q.windows;
  const int64_t place = (s.o[0] * w.output[1] + s.o[1]) * w.output[2] + s.o[2];
  const int64_t plane = w.output[0] * w.output[1] * w.output[2];
  return {q, s, uint64_t((s.n * q.channels + s.c) * plane + place)};
}

template <class Op, class T, class Window>
POOLNB_BODY void read_parameters(const Problem& q, const Site& s, Window& w) {
  for (int i = 0; i < Op::parameters; ++i)
    w.parameter[i] = read_number<T>(q.parameter[i], q.parameter[i].offset(s.n, s.c, s.o[0], s.o[1], s.o[2]));
}

// Windows in the order of the output's memory: threads of a warp read and write neighbours. `last`: channels run first.
POOLNB_BODY Site window_site(const Problem& q, bool last, int64_t thread) {
  const int64_t* o = q.windows.output;
  Site s;
  if (last) s.c = take(thread, q.channels);
  for (int a = 2; a >= 0; --a) s.o[a] = take(thread, o[a]);
  if (!last) s.c = take(thread, q.channels);
  s.n = thread;
  return s;
}

// A GPU takes every window on the safe path where the fast one does not give a finite number, as a CPU does.
template <class Op, class Window, class Taps, class Saved>
POOLNB_BODY bool forward_fast_or_safe(Window& w, const Taps& taps, const Options& options, Saved& saved) {
  Op::template forward<false>(w, taps, options, saved);
  if (!infinite_or_nan(Op::value(w))) return false;
  Op::template forward<true>(w, taps, options, saved);
  return true;
}

// ---- forward -------------------------------------------------------------------------------------------------------

template <class Op, class S, class T>
POOLNB_BODY void forward_body(const Problem& q, bool last, int64_t thread) {
  const Site s = window_site(q, last, thread);
  typename Op::template Window<T> w;
  NothingSaved none;
  read_parameters<Op, T>(q, s, w);
  forward_fast_or_safe<Op>(w, taps_of<Op, S, T>(q, s), q.options, none);
  put_number(static_cast<S*>(q.output.data) + q.output.offset(s.n, s.c, s.o[0], s.o[1], s.o[2]), Op::value(w));
}

template <class Op, class Left, class Taps, class T>
POOLNB_BODY T one_tap_grad(const Left& l, const Taps& taps, int64_t i, const Options& options, Sum<T>* d_params,
                           T& second) {
  const T x = taps.x(i), other = Op::inputs > 1 ? taps.second(i) : T(0);
  if (l.safe) {
    const T kept = Op::template recompute<true>(l.window, taps, i, options);
    return Op::template tap_grad<true>(l.window, x, other, kept, i, options, d_params, second);
  }
  const T kept = Op::template recompute<false>(l.window, taps, i, options);
  return Op::template tap_grad<false>(l.window, x, other, kept, i, options, d_params, second);
}

// ---- backward ------------------------------------------------------------------------------------------------------

// What a window leaves for its taps.
template <class Op, class T>
struct Left {
  typename Op::template Window<T> window;
  bool safe;
};

template <class S, class T>
POOLNB_BODY T gradient_of(const Problem& q, const Site& s) {
  return T(number_of(static_cast<const S*>(q.grad.data)[q.grad.offset(s.n, s.c, s.o[0], s.o[1], s.o[2])]));
}

template <class Op, class T>
POOLNB_BODY void write_parameters(const Problem& q, const Site& s, const Left<Op, T>& l, T g, const Sum<T>* sums) {
  T d_params[Op::parameters + 1];
  for (int i = 0; i < Op::parameters; ++i) d_params[i] = sums[i].value();
  if (l.safe) Op::template finalize_param_grad<true>(l.window, d_params);
  else Op::template finalize_param_grad<false>(l.window, d_params);
  for (int i = 0; i < Op::parameters; ++i) {
    const View& v = q.grad_parameter[i];
    put_sum(v, v.offset(s.n, s.c, s.o[0], s.o[1], s.o[2]), g * d_params[i]);
  }
}

template <class Op, class S, class T>
POOLNB_BODY Left<Op, T> forward_again(const Problem& q, const Site& s, const GlobalTaps<Op, S, T>& taps) {
  Left<Op, T> l;
  Recompute saved;
  read_parameters<Op, T>(q, s, l.window);
  l.safe = forward_fast_or_safe<Op>(l.window, taps, q.options, saved);
  return l;
}

// Where no two windows overlap, a window's thread writes the gradients of its taps; the rest has been filled with 0.
template <class Op, class S, class T>
POOLNB_BODY void non_overlapping_body(const Problem& q, bool last, int64_t thread) {
  const Site s = window_site(q, last, thread);
  const auto taps = taps_of<Op, S, T>(q, s);
  const auto l = forward_again<Op, S, T>(q, s, taps);
  Sum<T> d_params[Op::parameters + 1];
  const T g = gradient_of<S, T>(q, s);
  each_tap(taps, [&](int64_t i) POOLNB_INLINE {
    int64_t in[3];
    T part[2] = {};
    part[0] = one_tap_grad<Op>(l, taps, i, q.options, d_params, part[1]);
    if (!taps.where(i, in)) return;
    for (int k = 0; k < Op::inputs; ++k) {
      const View& v = q.grad_input[k];
      if (v.data) put_gradient<S, T>(k, v, v.offset(s.n, s.c, in[0], in[1], in[2]), g * part[k]);
    }
  }, d_params[0]);
  if (!q.want_parameters) return;
  write_parameters<Op, T>(q, s, l, g, d_params);
}

// Where windows overlap: first what every window leaves, and its part of the parameters' gradients.
template <class Op, class S, class T>
POOLNB_BODY void window_body(const Problem& q, bool last, Left<Op, T>* left, int64_t thread) {
  const Site s = window_site(q, last, thread);
  const auto taps = taps_of<Op, S, T>(q, s);
  const auto l = forward_again<Op, S, T>(q, s, taps);
  left[thread] = l;
  if (!q.want_parameters || Op::parameters == 0) return;
  Sum<T> d_params[Op::parameters + 1];
  T unused = 0;
  each_tap(taps, [&](int64_t i) POOLNB_INLINE {
    one_tap_grad<Op>(l, taps, i, q.options, d_params, unused);
  }, d_params[0]);
  write_parameters<Op, T>(q, s, l, gradient_of<S, T>(q, s), d_params);
}

// The gradients of tables: a thread adds up what every so many-th window of a channel gives, in their order. Threads of a
// warp read neighbours, and write neighbours.
template <class Op, class S, class T>
POOLNB_BODY void table_body(const Problem& q, bool last, int64_t parts, int64_t thread) {
  const int64_t *o = q.windows.output, windows = q.batch * q.windows.count();
  const int64_t part = last ? thread / q.channels : thread % parts;
  Site s;
  s.c = last ? thread % q.channels : thread / parts;
  const auto at = [&](int t, int64_t f, int64_t i) { return q.table[t].grad.offset(part, s.c, 0, f, i); };
  for (int64_t window = part; window < windows; window += parts) {
    s.n = window;
    for (int a = 2; a >= 0; --a) s.o[a] = take(s.n, o[a]);
    const auto taps = taps_of<Op, S, T>(q, s);
    const auto l = forward_again<Op, S, T>(q, s, taps);
    const T g = gradient_of<S, T>(q, s);
    Op::each_table_grad(l.window, taps, g, true, [&](int t, int64_t f, int64_t i, T a, T b) {
      const View& v = q.table[t].grad;
      const T sum = window == part ? T(0) : read_number<T>(v, at(t, f, i));
      put_sum(v, at(t, f, i), sum + a * b);
    });
  }
}

// What the window gives to its tap at input position `at`: nothing where the dilation passes it by.
template <class Op, class S, class T>
POOLNB_BODY void add_window(const Problem& q, bool last, const Left<Op, T>* left, const Site& s, const int64_t at[3],
                            Sum<T>* sum) {
  const Windows& w = q.windows;
  const auto taps = taps_of<Op, S, T>(q, s);
  for (int a = 0; a < 3; ++a) {
    const int64_t steps = at[a] - w.first(a, s.o[a]);
    taps.k[a] = quotient(steps, w.dilation[a]);
    if (taps.k[a] * w.dilation[a] != steps) return;
    taps.number = taps.number * w.kernel[a] + taps.k[a];
  }
  const int64_t tap = taps.number;
  if (!taps.valid(tap)) return;
  const int64_t plane = w.output[0] * w.output[1] * w.output[2];
  const int64_t place = (s.o[0] * w.output[1] + s.o[1]) * w.output[2] + s.o[2];
  const int64_t number = last ? (s.n * plane + place) * q.channels + s.c : (s.n * q.channels + s.c) * plane + place;
  const T g = gradient_of<S, T>(q, s);
  Sum<T> d_params[Op::parameters + 1];
  T second = 0;
  sum[0] += g * one_tap_grad<Op>(left[number], taps, tap, q.options, d_params, second);
  if constexpr (Op::inputs > 1) sum[1] += g * second;
}

// Then one thread per input position, in the order of the input's memory, gathers.
template <class Op, class S, class T>
POOLNB_BODY void gather_body(const Problem& q, bool last, const Left<Op, T>* left, int64_t thread) {
  const Windows& w = q.windows;
  int64_t n, c = 0, at[3], rest = thread;
  if (last) c = take(rest, q.channels);
  for (int a = 2; a >= 0; --a) at[a] = take(rest, w.size[a]);
  if (!last) c = take(rest, q.channels);
  n = rest;
  int64_t begin[3], end[3];  // windows that may hold the position
  for (int a = 0; a < 3; ++a) {
    const int64_t padded = at[a] + w.padding[a], first = padded - w.span(a) + 1;
    const int64_t after = quotient(padded, w.stride[a]) + 1;
    begin[a] = first > 0 ? quotient(first + w.stride[a] - 1, w.stride[a]) : 0;
    end[a] = after < w.output[a] ? after : w.output[a];
  }
  Sum<T> sum[Op::inputs];
  int64_t added = 0;
  Site s{n, c, {0, 0, 0}};
  for (s.o[0] = begin[0]; s.o[0] < end[0]; ++s.o[0])
    for (s.o[1] = begin[1]; s.o[1] < end[1]; ++s.o[1])
      for (s.o[2] = begin[2]; s.o[2] < end[2]; ++s.o[2]) {
        add_window<Op, S, T>(q, last, left, s, at, sum);
        if (++added % kTerms == 0)
          for (auto& each : sum) each.carry();
      }
  for (int i = 0; i < Op::inputs; ++i) {
    const View& v = q.grad_input[i];
    if (v.data) put_gradient<S, T>(i, v, v.offset(n, c, at[0], at[1], at[2]), sum[i].value());
  }
}

}  // namespace poolnb
