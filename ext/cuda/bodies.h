// The CUDA kernels' bodies: what one thread does. They are plain functions of (problem, grid, thread number), so that a
// loop on the CPU can run them too, under sanitizers, and compare the results with PyTorch's.
//
// Forward: one thread per window. Backward: where windows do not overlap, one thread per window again. Where they do,
// it leaves what its taps need to know of it, and one thread per input position gathers from the windows that hold it.
// No atomics: every number is written by one thread, and sums run in a fixed order.
//
// Windows of H x W taps are held in registers and take the fast path; one whose result is not finite, as it is with an
// infinity, a NaN, an overflow or without a tap, is done again by the body for windows of any size (H = 0), out of line.
#pragma once

#include "taps.h"

#if defined(__CUDACC__)
#define POOLNB_RARE __device__ __noinline__
#else
#define POOLNB_RARE inline __attribute__((noinline))
#endif

namespace poolnb {

template <class Op, class T, class Window, class Number>
POOLNB_BODY void read_parameters(const Problem& q, const BasicSite<Number>& s, Window& w) {
  for (int i = 0; i < Op::parameters; ++i) w.parameter[i] = read_number<T>(q.parameter[i], offset(q.parameter[i], s));
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

template <class Op, class S, class T, class Number>
POOLNB_BODY void put_output(const Problem& q, const BasicSite<Number>& s, const typename Op::template Window<T>& w) {
  put_number(static_cast<S*>(q.output.data) + offset(q.output, s), Op::value(w));
}

template <class Op, class S, class T>
POOLNB_RARE void forward_any(const Problem& q, const Grid& grid, int64_t thread) {
  const Site s = grid.window<int64_t>(thread);
  typename Op::template Window<T> w;
  NothingSaved none;
  read_parameters<Op, T>(q, s, w);
  forward_fast_or_safe<Op>(w, GlobalTaps<Op, S, T>(q, s), q.options, none);
  put_output<Op, S, T>(q, s, w);
}

template <class Op, class S, class T, int H, int W>
POOLNB_BODY void forward_body(const Problem& q, const Grid& grid, int64_t thread) {
  if constexpr (H == 0) {
    forward_any<Op, S, T>(q, grid, thread);
  } else {
    const ShortSite s = grid.window<int32_t>(int32_t(thread));
    typename Op::template Window<T> w;
    NothingSaved none;
    read_parameters<Op, T>(q, s, w);
    Op::template forward<false>(w, HeldTaps<Op, S, T, H, W>(q, s), q.options, none);
    if (infinite_or_nan(Op::value(w))) return forward_any<Op, S, T>(q, grid, thread);
    put_output<Op, S, T>(q, s, w);
  }
}

// ---- backward ------------------------------------------------------------------------------------------------------

// What a window leaves for its taps.
template <class Op, class T>
struct Left {
  typename Op::template Window<T> window;
  bool safe;
};

template <class S, class T, class Number>
POOLNB_BODY T gradient_of(const Problem& q, const BasicSite<Number>& s) {
  return T(number_of(static_cast<const S*>(q.grad.data)[offset(q.grad, s)]));
}

template <bool safe, class Op, class T, class Number>
POOLNB_BODY void write_parameters(const Problem& q, const BasicSite<Number>& s, const typename Op::template Window<T>& w, T g,
                                  const Sum<T>* sums) {
  T d_params[Op::parameters + 1];
  for (int i = 0; i < Op::parameters; ++i) d_params[i] = sums[i].value();
  Op::template finalize_param_grad<safe>(w, d_params);
  for (int i = 0; i < Op::parameters; ++i) {
    const View& v = q.grad_parameter[i];
    put_sum(v, offset(v, s), g * d_params[i]);
  }
}

// The derivatives by tap i and by its second input, added to those by the parameters.
template <bool safe, class Op, class T, class Taps, class Saved>
POOLNB_BODY T tap_grad(const typename Op::template Window<T>& w, const Taps& taps, const Saved& saved, int64_t i,
                       const Options& options, Sum<T>* d_params, T& second) {
  T kept;
  if constexpr (Saved::keeps) kept = saved.get(i);
  else kept = Op::template recompute<safe>(w, taps, i, options);
  const T other = Op::inputs > 1 ? taps.second(i) : T(0);
  return Op::template tap_grad<safe>(w, taps.x(i), other, kept, i, options, d_params, second);
}

// The gradients of a window's taps, where no other window has a part in them.
template <bool safe, class Op, class S, class T, class Number, class Taps, class Saved>
POOLNB_BODY void write_taps(const Problem& q, const BasicSite<Number>& s, const typename Op::template Window<T>& w, const Taps& taps,
                            const Saved& saved) {
  Sum<T> d_params[Op::parameters + 1];
  const T g = gradient_of<S, T>(q, s);
  each_tap(taps, [&](int64_t i) POOLNB_INLINE {
    T part[2] = {};
    part[0] = tap_grad<safe, Op, T>(w, taps, saved, i, q.options, d_params, part[1]);
    taps.each_input(i, [&](const auto& place) {
      for (int k = 0; k < Op::inputs; ++k) {
        const View& v = q.grad_input[k];
        if (v.data) put_gradient<S, T>(k, v, place(v), g * part[k]);
      }
    });
  }, d_params[0]);
  if (q.want_parameters) write_parameters<safe, Op, T>(q, s, w, g, d_params);
}

template <class Op, class S, class T>
POOLNB_BODY Left<Op, T> forward_again(const Problem& q, const Site& s, const GlobalTaps<Op, S, T>& taps) {
  Left<Op, T> l;
  Recompute saved;
  read_parameters<Op, T>(q, s, l.window);
  l.safe = forward_fast_or_safe<Op>(l.window, taps, q.options, saved);
  return l;
}

template <class Op, class S, class T>
POOLNB_RARE void write_any(const Problem& q, const Grid& grid, int64_t thread) {
  const Site s = grid.window<int64_t>(thread);
  const GlobalTaps<Op, S, T> taps(q, s);
  const auto l = forward_again<Op, S, T>(q, s, taps);
  if (l.safe) write_taps<true, Op, S, T>(q, s, l.window, taps, Recompute());
  else write_taps<false, Op, S, T>(q, s, l.window, taps, Recompute());
}

// What the taps in order save is of vectors.
template <class Op, class T, int K>
using Keeps = std::conditional_t<Ordered<Op>, Recompute, Saved<T, K>>;

// Where no two windows overlap, a window's thread writes the gradients of its taps; the rest has been filled with 0.
template <class Op, class S, class T, int H, int W>
POOLNB_BODY void non_overlapping_body(const Problem& q, const Grid& grid, int64_t thread) {
  if constexpr (H == 0) {
    write_any<Op, S, T>(q, grid, thread);
  } else {
    const ShortSite s = grid.window<int32_t>(int32_t(thread));
    const HeldTaps<Op, S, T, H, W> taps(q, s);
    typename Op::template Window<T> w;
    Keeps<Op, T, H * W> saved;
    read_parameters<Op, T>(q, s, w);
    Op::template forward<false>(w, taps, q.options, saved);
    if (infinite_or_nan(Op::value(w))) return write_any<Op, S, T>(q, grid, thread);
    write_taps<false, Op, S, T>(q, s, w, taps, saved);
  }
}

// The gradients of a window's parameters alone.
template <bool safe, class Op, class S, class T, class Number, class Taps, class Saved>
POOLNB_BODY void give_parameters(const Problem& q, const BasicSite<Number>& s, const typename Op::template Window<T>& w,
                                 const Taps& taps, const Saved& saved) {
  if (!q.want_parameters || Op::parameters == 0) return;
  Sum<T> d_params[Op::parameters + 1];
  T unused = 0;
  each_tap(taps, [&](int64_t i) POOLNB_INLINE {
    tap_grad<safe, Op, T>(w, taps, saved, i, q.options, d_params, unused);
  }, d_params[0]);
  write_parameters<safe, Op, T>(q, s, w, gradient_of<S, T>(q, s), d_params);
}

template <class Op, class S, class T>
POOLNB_RARE void leave_any(const Problem& q, const Grid& grid, Left<Op, T>* left, int64_t thread) {
  const Site s = grid.window<int64_t>(thread);
  const GlobalTaps<Op, S, T> taps(q, s);
  const auto l = left[thread] = forward_again<Op, S, T>(q, s, taps);
  if (l.safe) give_parameters<true, Op, S, T>(q, s, l.window, taps, Recompute());
  else give_parameters<false, Op, S, T>(q, s, l.window, taps, Recompute());
}

// Where windows overlap: first what every window leaves, and its part of the parameters' gradients.
template <class Op, class S, class T, int H, int W>
POOLNB_BODY void window_body(const Problem& q, const Grid& grid, Left<Op, T>* left, int64_t thread) {
  if constexpr (H == 0) {
    leave_any<Op, S, T>(q, grid, left, thread);
  } else {
    const ShortSite s = grid.window<int32_t>(int32_t(thread));
    const HeldTaps<Op, S, T, H, W> taps(q, s);
    Left<Op, T> l;
    Keeps<Op, T, H * W> saved;
    l.safe = false;
    read_parameters<Op, T>(q, s, l.window);
    Op::template forward<false>(l.window, taps, q.options, saved);
    if (infinite_or_nan(Op::value(l.window))) return leave_any<Op, S, T>(q, grid, left, thread);
    left[thread] = l;
    give_parameters<false, Op, S, T>(q, s, l.window, taps, saved);
  }
}

// The gradients of tables: a thread adds up what every so many-th window of a channel gives, in their order. Threads of a
// warp read neighbours, and write neighbours.
template <class Op, class S, class T>
POOLNB_BODY void table_body(const Problem& q, const Grid& grid, int64_t parts, int64_t thread) {
  const int64_t windows = q.batch * q.windows.count();
  const int64_t part = grid.last ? thread / q.channels : thread % parts;
  Site s;
  s.c = grid.last ? thread % q.channels : thread / parts;
  const auto at = [&](int t, int64_t f, int64_t i) { return q.table[t].grad.offset(part, s.c, 0, f, i); };
  for (int64_t window = part; window < windows; window += parts) {
    s.n = window;
    for (int a = 2; a >= 0; --a) s.o[a] = grid.output[a].take(s.n);
    const GlobalTaps<Op, S, T> taps(q, s);
    const auto l = forward_again<Op, S, T>(q, s, taps);
    const T g = gradient_of<S, T>(q, s);
    Op::each_table_grad(l.window, taps, g, true, [&](int t, int64_t f, int64_t i, T a, T b) {
      const View& v = q.table[t].grad;
      const T sum = window == part ? T(0) : read_number<T>(v, at(t, f, i));
      put_sum(v, at(t, f, i), sum + a * b);
    });
  }
}

// What a window gives to its tap. A tap's place in the order of all takes all of them.
template <class Op, class S, class T, class Number>
POOLNB_BODY void add_window(const Problem& q, const Left<Op, T>& l, const OneTap<Op, T, Number>& tap, Sum<T>* sum) {
  const int64_t number = tap.number();
  const T g = gradient_of<S, T>(q, tap.at);
  Sum<T> d_params[Op::parameters + 1];
  T second = 0;
  const auto part = [&](const auto& taps) {
    if (l.safe) return tap_grad<true, Op, T>(l.window, taps, Recompute(), number, q.options, d_params, second);
    return tap_grad<false, Op, T>(l.window, taps, Recompute(), number, q.options, d_params, second);
  };
  if constexpr (PerRank<Op>) {
    const auto& at = tap.at;
    sum[0] += g * part(GlobalTaps<Op, S, T>(q, Site{at.n, at.c, {at.o[0], at.o[1], at.o[2]}}));
  } else {
    sum[0] += g * part(tap);
  }
  if constexpr (Op::inputs > 1) sum[1] += g * second;
}

// The windows of an axis that may hold a position, and at which tap.
template <class Number>
struct AxisOfPosition {
  Number begin, end, padded, stride, dilation;

  POOLNB_BODY AxisOfPosition(const Windows& w, const Divider& by_stride, int a, Number at)
      : padded(at + Number(w.padding[a])), stride(Number(w.stride[a])), dilation(Number(w.dilation[a])) {
    const Number first = padded - Number(w.span(a)) + 1, after = by_stride.quotient(padded) + 1;
    begin = first > 0 ? by_stride.quotient(first + stride - 1) : 0;
    end = after < Number(w.output[a]) ? after : Number(w.output[a]);
  }
  // False where the dilation passes it by.
  POOLNB_BODY bool holds(Number window, Number& tap) const {
    const Number steps = padded - window * stride;
    tap = dilation == 1 ? steps : steps / dilation;
    return tap * dilation == steps;
  }
};

// Then one thread per input position, in the order of the input's memory, gathers.
template <class Op, class S, class T, class Number>
POOLNB_BODY void gather_from(const Problem& q, const Grid& grid, const Left<Op, T>* left, Number thread) {
  const BasicSite<Number> p = grid.position<Number>(thread);
  Sum<T> sum[Op::inputs];
  if (!q.mask.data || static_cast<const bool*>(q.mask.data)[offset(q.mask, p)]) {
    OneTap<Op, T, Number> tap{{q, {p.n, p.c, {0, 0, 0}}}, {0, 0, 0}, T(0), T(0)};
    tap.value = T(number_of(static_cast<const S*>(q.input[0].data)[offset(q.input[0], p)]));
    if constexpr (Op::inputs > 1) tap.value_second = read_second<S, T>(q.input[1], offset(q.input[1], p));
    const auto axis = [&](int a) { return AxisOfPosition<Number>(q.windows, grid.stride[a], a, p.o[a]); };
    const AxisOfPosition<Number> depth = axis(0), height = axis(1), width = axis(2);
    int64_t added = 0;
    Number* const o = tap.at.o;
    for (o[0] = depth.begin; o[0] < depth.end; ++o[0]) {
      if (!depth.holds(o[0], tap.k[0])) continue;
      for (o[1] = height.begin; o[1] < height.end; ++o[1]) {
        if (!height.holds(o[1], tap.k[1])) continue;
        for (o[2] = width.begin; o[2] < width.end; ++o[2]) {
          if (!width.holds(o[2], tap.k[2])) continue;
          add_window<Op, S, T>(q, left[grid.number(q, tap.at)], tap, sum);
          if (++added % kTerms == 0)
            for (auto& each : sum) each.carry();
        }
      }
    }
  }
  for (int i = 0; i < Op::inputs; ++i) {
    const View& v = q.grad_input[i];
    if (v.data) put_gradient<S, T>(i, v, offset(v, p), sum[i].value());
  }
}

template <class Op, class S, class T>
POOLNB_RARE void gather_any(const Problem& q, const Grid& grid, const Left<Op, T>* left, int64_t thread) {
  gather_from<Op, S, T>(q, grid, left, thread);
}
template <class Op, class S, class T>
POOLNB_BODY void gather_body(const Problem& q, const Grid& grid, const Left<Op, T>* left, int64_t thread) {
  if (grid.is_short) gather_from<Op, S, T>(q, grid, left, int32_t(thread));
  else gather_any<Op, S, T>(q, grid, left, thread);
}

}  // namespace poolnb
