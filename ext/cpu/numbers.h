// Numbers in memory, one or a vector at a time: the half types are half of a float there, and floats in registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../vec_math.h"

namespace poolnb {

// ---- one number ---------------------------------------------------------------------------------------------------

struct Half { uint16_t bits; };
struct BFloat { uint16_t bits; };

inline float number(BFloat x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline float number(float x) { return x; }
inline double number(double x) { return x; }
inline float number(bool x) { return x; }

#if defined(__FLT16_MAX__)
inline float number(Half x) {
  _Float16 y;
  std::memcpy(&y, &x, 2);
  return float(y);
}
inline void put(Half* p, float x) {
  const _Float16 y = _Float16(x);
  std::memcpy(p, &y, 2);
}
#else
inline float number(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  uint32_t bits = (rest << 13) + 0x38000000u;
  if (rest >= 0x7c00) bits += 0x38000000u;
  float y;
  if (rest < 0x0400) {
    y = float(rest) * 5.9604644775390625e-8f;  // subnormal: rest * 2^-24
    return sign ? -y : y;
  }
  bits |= sign;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline void put(Half* p, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t sign = (bits >> 16) & 0x8000, size = bits & 0x7fffffff;
  uint32_t half;
  if (size > 0x7f800000) half = 0x7e00;
  else if (size >= 0x477ff000) half = 0x7c00;  // 65520 and more round to infinity
  else if (size < 0x38800000) {                // subnormal: the float unit rounds to a multiple of 2^-24
    float y;
    std::memcpy(&y, &size, 4);
    y += 0.5f;  // the unit in the last place of [0.5, 1) is 2^-24
    uint32_t shifted;
    std::memcpy(&shifted, &y, 4);
    half = shifted - 0x3f000000;
  } else half = (size + 0xfff + ((size >> 13) & 1) - 0x38000000) >> 13;
  p->bits = uint16_t(sign | half);
}
#endif
inline void put(BFloat* p, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  p->bits = uint16_t(x == x ? rounded : 0x7fc0);
}
inline void put(float* p, float x) { *p = x; }
inline void put(float* p, double x) { *p = float(x); }
inline void put(double* p, double x) { *p = x; }
inline void put(double* p, float x) { *p = x; }

template <class T>
constexpr Dtype dtype_of = std::is_same_v<T, float> ? Dtype::float32 : Dtype::float64;

// `use(pointer)` with the pointer's type as `dtype` says.
template <class Use>
inline void with_type(Dtype dtype, void* data, const Use& use) {
  switch (dtype) {
    case Dtype::float16: return use(static_cast<Half*>(data));
    case Dtype::bfloat16: return use(static_cast<BFloat*>(data));
    case Dtype::float32: return use(static_cast<float*>(data));
    case Dtype::float64: return use(static_cast<double*>(data));
    default: return use(static_cast<bool*>(data));
  }
}

// The memory of a tensor's number.
inline void* memory_at(const View& v, int64_t offset) {
  void* found = nullptr;
  with_type(v.dtype, v.data, [&](auto* data) { found = data + offset; });
  return found;
}

// ---- vectors --------------------------------------------------------------------------------------------------------

// Every second number to `even`, the others to `odd`, and back: what a stride of 2 needs.
template <class V, size_t... i>
POOLNB_HD void deinterleave(const V a, const V b, V& even, V& odd, std::index_sequence<i...>) {
  even = __builtin_shufflevector(a, b, (2 * i)...);
  odd = __builtin_shufflevector(a, b, (2 * i + 1)...);
}
template <class V, size_t... i>
POOLNB_HD void interleave(const V even, const V odd, V& a, V& b, std::index_sequence<i...>) {
  constexpr size_t n = sizeof...(i);
  a = __builtin_shufflevector(even, odd, (i % 2 * n + i / 2)...);
  b = __builtin_shufflevector(even, odd, (i % 2 * n + i / 2 + n / 2)...);
}


typedef uint16_t Bits16 __attribute__((vector_size(POOLNB_BYTES / 2)));

POOLNB_HD BitsF bits_at(const void* p) {
  BitsF bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}
// A float's bits, the upper half rounded to the nearest bfloat16, to even in the middle.
POOLNB_HD BitsF rounded_to_bfloat(VecF x) {
  const BitsF bits = reinterpret_cast<BitsF>(x);
  const BitsF up = bits + 0x7fffu + ((bits >> 16) & 1u);
  return x == x ? up : BitsF{} + 0x7fc00000u;
}

// One vector from `p`, and to it.
template <class V>
POOLNB_HD V load_as(const typename Traits<V>::Number* p) { return load<V>(p); }
template <class V>
POOLNB_HD void store_as(typename Traits<V>::Number* p, V x) { store<V>(p, x); }
template <class V>
POOLNB_HD void stream_as(typename Traits<V>::Number* p, V x) { stream(p, x); }

template <class V>
POOLNB_HD V load_as(const BFloat* p) {
#if POOLNB_BYTES == 64  // a compiler takes the vector apart to widen it
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return reinterpret_cast<V>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
#else
  Bits16 half;
  std::memcpy(&half, p, sizeof half);
  return reinterpret_cast<V>(__builtin_convertvector(half, BitsF) << 16);
#endif
}
POOLNB_HD Bits16 bfloat_bits(VecF x) {
  const BitsF bits = rounded_to_bfloat(x) >> 16;
#if POOLNB_BYTES == 64
  return reinterpret_cast<Bits16>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bits)));
#else
  return __builtin_convertvector(bits, Bits16);
#endif
}
POOLNB_HD void store_as(BFloat* p, VecF x) {
  const Bits16 half = bfloat_bits(x);
  std::memcpy(p, &half, sizeof half);
}
POOLNB_HD void stream_as(BFloat* p, VecF x) { stream(p, bfloat_bits(x)); }

template <class V>
POOLNB_HD V load_as(const Half* p) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<V>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif POOLNB_BYTES == 32 && defined(__F16C__)
  return reinterpret_cast<V>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  V x;
  for (int i = 0; i < Traits<V>::lanes; ++i) x[i] = number(p[i]);
  return x;
#endif
}
POOLNB_HD Bits16 half_bits(VecF x) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<Bits16>(
      _mm512_cvtps_ph(reinterpret_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif POOLNB_BYTES == 32 && defined(__F16C__)
  return reinterpret_cast<Bits16>(
      _mm256_cvtps_ph(reinterpret_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  Half half[Traits<VecF>::lanes];
  for (int i = 0; i < Traits<VecF>::lanes; ++i) put(half + i, x[i]);
  Bits16 bits;
  std::memcpy(&bits, half, sizeof bits);
  return bits;
#endif
}
POOLNB_HD void store_as(Half* p, VecF x) {
  const Bits16 half = half_bits(x);
  std::memcpy(p, &half, sizeof half);
}
POOLNB_HD void stream_as(Half* p, VecF x) { stream(p, half_bits(x)); }

// from[index[0]], from[index[1]], ...
template <class V>
POOLNB_HD V load_at(const typename Traits<V>::Number* from, const int32_t* index) {
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, VecF>)
    return reinterpret_cast<V>(_mm512_i32gather_ps(_mm512_loadu_si512(index), from, 4));
#endif
  V x;
  for (int i = 0; i < Traits<V>::lanes; ++i) x[i] = from[index[i]];
  return x;
}

// Two vectors in a row, even and odd numbers apart, and back.
template <class V, class S>
POOLNB_HD void load_pairs(const S* p, V& even, V& odd) {
  constexpr int lanes = Traits<V>::lanes;
  deinterleave(load_as<V>(p), load_as<V>(p + lanes), even, odd, std::make_index_sequence<lanes>());
}
template <class V, class S>
POOLNB_HD void store_pairs(S* p, V even, V odd) {
  constexpr int lanes = Traits<V>::lanes;
  V a, b;
  interleave(even, odd, a, b, std::make_index_sequence<lanes>());
  store_as(p, a);
  store_as(p + lanes, b);
}
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
// Two bfloat16 lie in one word of 32 bits, the even one in its lower half: no shuffle is needed.
template <class V>
POOLNB_HD void load_pairs(const BFloat* p, V& even, V& odd) {
  const BitsF both = bits_at(p);
  even = reinterpret_cast<V>(both << 16);
  odd = reinterpret_cast<V>(both & 0xffff0000u);
}
POOLNB_HD void store_pairs(BFloat* p, VecF even, VecF odd) {
  const BitsF both = (rounded_to_bfloat(even) >> 16) | (rounded_to_bfloat(odd) & 0xffff0000u);
  std::memcpy(p, &both, sizeof both);
}
#endif

// The first n pairs of two vectors alone; the others read as 0 and are not written.
template <class V, class S>
POOLNB_HD void load_pairs(const S* p, V& even, V& odd, int64_t n) {
  constexpr int lanes = Traits<V>::lanes;
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<S, float>) {
    const uint32_t there = uint32_t((uint64_t(1) << 2 * n) - 1);
    const V a = reinterpret_cast<V>(_mm512_maskz_loadu_ps(there & 0xffff, p));
    const V b = reinterpret_cast<V>(_mm512_maskz_loadu_ps(there >> 16, p + lanes));
    return deinterleave(a, b, even, odd, std::make_index_sequence<lanes>());
  }
#endif
  S part[2 * lanes] = {};
  std::memcpy(part, p, 2 * n * sizeof(S));
  load_pairs(part, even, odd);
}
template <class V, class S>
POOLNB_HD void store_pairs(S* p, V even, V odd, int64_t n) {
  constexpr int lanes = Traits<V>::lanes;
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<S, float>) {
    const uint32_t there = uint32_t((uint64_t(1) << 2 * n) - 1);
    V a, b;
    interleave(even, odd, a, b, std::make_index_sequence<lanes>());
    _mm512_mask_storeu_ps(p, there & 0xffff, reinterpret_cast<__m512>(a));
    return _mm512_mask_storeu_ps(p + lanes, there >> 16, reinterpret_cast<__m512>(b));
  }
#endif
  S part[2 * lanes];
  store_pairs(part, even, odd);
  std::memcpy(p, part, 2 * n * sizeof(S));
}
// The first n numbers of a vector, likewise.
template <class V, class S>
POOLNB_HD V load_as(const S* p, int64_t n) {
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<S, float>) return reinterpret_cast<V>(_mm512_maskz_loadu_ps((1u << n) - 1, p));
#endif
  S part[Traits<V>::lanes] = {};
  std::memcpy(part, p, n * sizeof(S));
  return load_as<V>(part);
}
template <class V, class S>
POOLNB_HD void store_as(S* p, V x, int64_t n) {
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<S, float>) return _mm512_mask_storeu_ps(p, (1u << n) - 1, reinterpret_cast<__m512>(x));
#endif
  S part[Traits<V>::lanes];
  store_as(part, x);
  std::memcpy(p, part, n * sizeof(S));
}

// `use(pointer)`, as with_type, for tensors of floats, or of one of the `halves`. A look at the type costs little
// beside a conversion, but would be seen beside floats.
template <bool halves, class Use>
POOLNB_HD void with_float_type(Dtype dtype, void* data, const Use& use) {
  if constexpr (!halves) use(static_cast<float*>(data));
  else if (dtype == Dtype::bfloat16) use(static_cast<BFloat*>(data));
  else use(static_cast<Half*>(data));
}

}  // namespace poolnb
