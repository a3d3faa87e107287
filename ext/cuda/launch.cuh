// From a problem to kernels: types, layout, grid. Included by the unit of each operator.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bodies.h"
#include "operators.h"

namespace poolnb {

constexpr int kThreads = 256;

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ Problem q, bool last, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    forward_body<Op, S, T>(q, last, i);
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
non_overlapping_kernel(const __grid_constant__ Problem q, bool last, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    non_overlapping_body<Op, S, T>(q, last, i);
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
    window_kernel(const __grid_constant__ Problem q, bool last, Left<Op, T>* left, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    window_body<Op, S, T>(q, last, left, i);
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const __grid_constant__ Problem q, bool last, const Left<Op, T>* left, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    gather_body<Op, S, T>(q, last, left, i);
}

template <class Op, class S, class T>
__global__ void __launch_bounds__(kThreads)
table_kernel(const __grid_constant__ Problem q, bool last, int64_t parts, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    table_body<Op, S, T>(q, last, parts, i);
}

inline unsigned blocks(int64_t n) {
  const int64_t wanted = (n + kThreads - 1) / kThreads;
  return unsigned(wanted < (int64_t(1) << 20) ? wanted : int64_t(1) << 20);
}

template <class Op, class S, class T>
void launch_forward(const Problem& q, bool last, cudaStream_t stream) {
  const int64_t n = window_count(q);
  forward_kernel<Op, S, T><<<blocks(n), kThreads, 0, stream>>>(q, last, n);
}

template <class Op, class S, class T>
void launch_backward(const Problem& q, bool last, void* scratch, cudaStream_t stream) {
  const int64_t windows = window_count(q), positions = position_count(q);
  if constexpr (Tabled<Op>) {
    const int64_t parts = table_parts(q), threads = parts * q.channels;
    if (q.want_parameters) table_kernel<Op, S, T><<<blocks(threads), kThreads, 0, stream>>>(q, last, parts, threads);
  }
  if (q.windows.non_overlapping()) {
    non_overlapping_kernel<Op, S, T><<<blocks(windows), kThreads, 0, stream>>>(q, last, windows);
    return;
  }
  auto* left = static_cast<Left<Op, T>*>(scratch);
  window_kernel<Op, S, T><<<blocks(windows), kThreads, 0, stream>>>(q, last, left, windows);
  gather_kernel<Op, S, T><<<blocks(positions), kThreads, 0, stream>>>(q, last, left, positions);
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
    launch_forward<Op, S, T>(q, last, static_cast<cudaStream_t>(stream));
  });
  return launch_error();
}

template <class Op>
const char* backward_cuda(const Problem& q, bool last, void* scratch, void* stream) {
  with_types(q.input[0].dtype, [&]<class S, class T>() {
    launch_backward<Op, S, T>(q, last, scratch, static_cast<cudaStream_t>(stream));
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
