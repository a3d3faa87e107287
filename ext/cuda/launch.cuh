// From a problem to kernels: types, layout, grid. Included by the unit of each operator.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bodies.h"
#include "operators.h"

namespace poolnb {

constexpr int kThreads = 256;
// Blocks at once on a multiprocessor, that enough numbers are on their way from memory: those that hold their taps get by
// with the registers that this leaves them, where all else is out of line.
constexpr int blocks_at_once(int held) { return held == 0 ? 1 : held == 2 ? 5 : 4; }

// `body(thread)` for every one of n threads, below 2^31 if `held`.
template <int held, class Body>
__device__ __forceinline__ void each_thread(int64_t n, const Body& body) {
  using Number = std::conditional_t<held == 0, int64_t, uint32_t>;
  for (Number i = Number(blockIdx.x) * kThreads + threadIdx.x; i < Number(n); i += Number(gridDim.x) * kThreads) body(i);
}

template <class Op, class S, class T, int H, int W>
__global__ void __launch_bounds__(kThreads, blocks_at_once(H))
forward_kernel(const __grid_constant__ Problem q, const __grid_constant__ Grid grid, int64_t n) {
  each_thread<H>(n, [&](int64_t i) { forward_body<Op, S, T, H, W>(q, grid, i); });
}

template <class Op, class S, class T, int H, int W>
__global__ void __launch_bounds__(kThreads, blocks_at_once(H))
non_overlapping_kernel(const __grid_constant__ Problem q, const __grid_constant__ Grid grid, int64_t n) {
  each_thread<H>(n, [&](int64_t i) { non_overlapping_body<Op, S, T, H, W>(q, grid, i); });
}

template <class Op, class S, class T, int H, int W>
__global__ void __launch_bounds__(kThreads, blocks_at_once(H))
window_kernel(const __grid_constant__ Problem q, const __grid_constant__ Grid grid, Left<Op, T>* left, int64_t n) {
  each_thread<H>(n, [&](int64_t i) { window_body<Op, S, T, H, W>(q, grid, left, i); });
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
gather_kernel(const __grid_constant__ Problem q, const __grid_constant__ Grid grid, const Left<Op, T>* left, int64_t n) {
  each_thread<0>(n, [&](int64_t i) { gather_body<Op, S, T>(q, grid, left, i); });
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
table_kernel(const __grid_constant__ Problem q, const __grid_constant__ Grid grid, int64_t parts, int64_t n) {
  each_thread<0>(n, [&](int64_t i) { table_body<Op, S, T>(q, grid, parts, i); });
}

inline unsigned blocks(int64_t n) {
  const int64_t wanted = (n + kThreads - 1) / kThreads;
  return unsigned(wanted < (int64_t(1) << 20) ? wanted : int64_t(1) << 20);
}

template <class Op, class S, class T>
void launch_forward(const Problem& q, const Grid& grid, cudaStream_t stream) {
  const int64_t n = window_count(q);
  with_shape<T, 2, 3>(q, grid, [&]<int H, int W>() {
    forward_kernel<Op, S, T, H, W><<<blocks(n), kThreads, 0, stream>>>(q, grid, n);
  });
}

template <class Op, class S, class T>
void launch_backward(const Problem& q, const Grid& grid, void* scratch, cudaStream_t stream) {
  const int64_t windows = window_count(q), positions = position_count(q);
  if constexpr (Tabled<Op>) {
    const int64_t parts = table_parts(q), threads = parts * q.channels;
    if (q.want_parameters) table_kernel<Op, S, T><<<blocks(threads), kThreads, 0, stream>>>(q, grid, parts, threads);
  }
  if (q.windows.non_overlapping()) {
    with_shape<T, 2>(q, grid, [&]<int H, int W>() {
      non_overlapping_kernel<Op, S, T, H, W><<<blocks(windows), kThreads, 0, stream>>>(q, grid, windows);
    });
    return;
  }
  auto* left = static_cast<Left<Op, T>*>(scratch);
  with_shape<T, 3>(q, grid, [&]<int H, int W>() {
    window_kernel<Op, S, T, H, W><<<blocks(windows), kThreads, 0, stream>>>(q, grid, left, windows);
  });
  gather_kernel<Op, S, T><<<blocks(positions), kThreads, 0, stream>>>(q, grid, left, positions);
}

// `call.operator()<stored type, type of sums>()`.
template <class Call>
void with_types(Dtype dtype, const Call& call) {
  switch (dtype) {
    case Dtype::float16: return call.template operator()<HalfBits, float>();
    case Dtype::bfloat16: return call.template operator()<BFloatBits, float>();
    case Dtype::float64: return call.template operator()<double, double>();
    default: return call.template operator()<float, float>();
  }
}

// What went wrong with a launch, or null.
inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <class Op>
int64_t scratch_bytes(const Problem& q) {
  if (q.windows.non_overlapping()) return 0;
  const bool wide = q.input[0].dtype == Dtype::float64;
  return window_count(q) * int64_t(wide ? sizeof(Left<Op, double>) : sizeof(Left<Op, float>));
}

template <class Op>
const char* forward_cuda(const Problem& q, bool last, void* stream) {
  with_types(q.input[0].dtype, [&]<class S, class T>() {
    launch_forward<Op, S, T>(q, Grid(q, last), static_cast<cudaStream_t>(stream));
  });
  return launch_error();
}

template <class Op>
const char* backward_cuda(const Problem& q, bool last, void* scratch, void* stream) {
  with_types(q.input[0].dtype, [&]<class S, class T>() {
    launch_backward<Op, S, T>(q, Grid(q, last), scratch, static_cast<cudaStream_t>(stream));
  });
  return launch_error();
}

}  // namespace poolnb

// The unit of one operator: poolnb/_build.py writes one for each, so that they are compiled side by side.
#define POOLNB_UNIT(Op)                                                 \
  namespace poolnb {                                                    \
  template const char* forward_cuda<Op>(const Problem&, bool, void*);   \
  template const char* backward_cuda<Op>(const Problem&, bool, void*, void*); \
  template int64_t scratch_bytes<Op>(const Problem&);                   \
  }
