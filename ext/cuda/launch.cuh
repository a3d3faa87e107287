// From a problem to kernels: types, layout, grid. Included by one .cu file per operator.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "bodies.h"
#include "operators.h"

namespace poolnb {

constexpr int kThreads = 256;

template <class Op, class S, class T, bool last>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ Problem q, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    forward_body<Op, S, T, last>(q, i);
}

template <class Op, class S, class T, bool last>
__global__ void __launch_bounds__(kThreads)
    window_kernel(const __grid_constant__ Problem q, Left<Op, T>* left, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    window_body<Op, S, T, last>(q, left, i);
}

template <class Op, class S, class T, bool last>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const __grid_constant__ Problem q, const Left<Op, T>* left, int64_t n) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < n; i += int64_t(gridDim.x) * kThreads)
    gather_body<Op, S, T, last>(q, left, i);
}

inline unsigned blocks(int64_t n) {
  const int64_t wanted = (n + kThreads - 1) / kThreads;
  return unsigned(wanted < (int64_t(1) << 20) ? wanted : int64_t(1) << 20);
}

template <class Op, class S, class T, bool last>
void launch_forward(const Problem& q, cudaStream_t stream) {
  const int64_t n = window_count(q);
  forward_kernel<Op, S, T, last><<<blocks(n), kThreads, 0, stream>>>(q, n);
}

template <class Op, class S, class T, bool last>
void launch_backward(const Problem& q, void* scratch, cudaStream_t stream) {
  auto* left = static_cast<Left<Op, T>*>(scratch);
  const int64_t windows = window_count(q), positions = position_count(q);
  window_kernel<Op, S, T, last><<<blocks(windows), kThreads, 0, stream>>>(q, left, windows);
  gather_kernel<Op, S, T, last><<<blocks(positions), kThreads, 0, stream>>>(q, left, positions);
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

template <class Op>
int64_t scratch_bytes(const Problem& q) {
  const bool wide = q.input[0].dtype == Dtype::float64;
  return window_count(q) * int64_t(wide ? sizeof(Left<Op, double>) : sizeof(Left<Op, float>));
}

template <class Op>
void forward_cuda(const Problem& q, bool last, void* stream) {
  with_types(q.input[0].dtype, [&]<class S, class T>() {
    if (last) launch_forward<Op, S, T, true>(q, static_cast<cudaStream_t>(stream));
    else launch_forward<Op, S, T, false>(q, static_cast<cudaStream_t>(stream));
  });
}

template <class Op>
void backward_cuda(const Problem& q, bool last, void* scratch, void* stream) {
  with_types(q.input[0].dtype, [&]<class S, class T>() {
    if (last) launch_backward<Op, S, T, true>(q, scratch, static_cast<cudaStream_t>(stream));
    else launch_backward<Op, S, T, false>(q, scratch, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace poolnb
