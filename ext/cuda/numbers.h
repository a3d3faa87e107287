// Numbers in memory: half types are read and written as bits.
#pragma once

#include <type_traits>

#include "../geometry.h"

#if defined(__CUDACC__)
#define POOLNB_BODY __device__ __forceinline__
#else
#define POOLNB_BODY inline
#endif

namespace poolnb {

struct HalfBits { uint16_t bits; };
struct BFloatBits { uint16_t bits; };

#if defined(__CUDACC__)
__device__ __forceinline__ float number_of(HalfBits x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ float number_of(BFloatBits x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ void put_number(HalfBits* p, float x) { p->bits = __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ void put_number(BFloatBits* p, float x) {
  p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
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
using StoredSum = std::conditional_t<sizeof(T) == 8, double, float>;
template <class T>
POOLNB_BODY T read_number(const View& v, int64_t at) {
  return T(static_cast<const StoredSum<T>*>(v.data)[at]);
}
template <class T>
POOLNB_BODY void put_sum(const View& v, int64_t at, T x) {
  static_cast<StoredSum<T>*>(v.data)[at] = StoredSum<T>(x);
}

}  // namespace poolnb
