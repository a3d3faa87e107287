// A number of the window maths: one (a GPU thread, a host loop over threads) or a vector of lanes (CPU).
//
// The same template serves both: a vector is the compiler's vector type, a mask is what its comparisons return.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "geometry.h"

#if !defined(__CUDACC__) && !defined(POOLNB_SCALAR_ONLY) && (defined(__AVX512DQ__) || defined(__AVX2__))
#include <immintrin.h>
#endif

namespace poolnb {

// ---- one number ---------------------------------------------------------------------------------------------------

template <class T>
struct ScalarTraits {
  using Number = T;
  using Mask = bool;
  static constexpr int lanes = 1;
};

template <class V>
struct Traits : ScalarTraits<V> {};
template <class V>
constexpr bool kVector = Traits<V>::lanes > 1;

template <class T>
POOLNB_HD T select(bool m, T a, T b) { return m ? a : b; }
POOLNB_HD bool any(bool m) { return m; }
POOLNB_HD float vfma(float a, float b, float c) { return a * b + c; }
POOLNB_HD double vfma(double a, double b, double c) { return a * b + c; }

template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kLargest = std::numeric_limits<T>::max();

// ---- vectors --------------------------------------------------------------------------------------------------------

#if !defined(__CUDACC__) && !defined(POOLNB_SCALAR_ONLY)
#define POOLNB_VECTORS 1

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define POOLNB_BYTES 64
#elif defined(__AVX2__)
#define POOLNB_BYTES 32
#else
#define POOLNB_BYTES 16
#endif

typedef float VecF __attribute__((vector_size(POOLNB_BYTES)));
typedef double VecD __attribute__((vector_size(POOLNB_BYTES)));
typedef int32_t MaskF __attribute__((vector_size(POOLNB_BYTES)));
typedef int64_t MaskD __attribute__((vector_size(POOLNB_BYTES)));
typedef uint32_t BitsF __attribute__((vector_size(POOLNB_BYTES)));
typedef uint64_t BitsD __attribute__((vector_size(POOLNB_BYTES)));

template <>
struct Traits<VecF> {
  using Number = float;
  using Mask = MaskF;
  using Bits = BitsF;
  static constexpr int lanes = POOLNB_BYTES / 4;
};
template <>
struct Traits<VecD> {
  using Number = double;
  using Mask = MaskD;
  using Bits = BitsD;
  static constexpr int lanes = POOLNB_BYTES / 8;
};

template <class T>
using Vec = std::conditional_t<std::is_same_v<T, float>, VecF, VecD>;

POOLNB_HD VecF select(MaskF m, VecF a, VecF b) { return m ? a : b; }
POOLNB_HD VecD select(MaskD m, VecD a, VecD b) { return m ? a : b; }

template <class M>
POOLNB_HD bool any_lane(M m) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(m), reinterpret_cast<__m512i>(m)) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(m)) != 0;
#else
  uint64_t word[2];
  std::memcpy(word, &m, sizeof word);
  return (word[0] | word[1]) != 0;
#endif
}
POOLNB_HD bool any(MaskF m) { return any_lane(m); }
POOLNB_HD bool any(MaskD m) { return any_lane(m); }

template <class V>
POOLNB_HD V load(const typename Traits<V>::Number* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// Where as many bytes as there are lanes are not 0. Compilers take small vectors of bytes apart, one by one.
template <class V>
POOLNB_HD typename Traits<V>::Mask load_mask(const uint8_t* p) {
  using M = typename Traits<V>::Mask;
#if POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, VecF>)
    return reinterpret_cast<M>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))) != 0;
#elif POOLNB_BYTES == 32
  if constexpr (std::is_same_v<V, VecF>)
    return reinterpret_cast<M>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))) != 0;
#endif
  M m;
  for (int i = 0; i < Traits<V>::lanes; ++i) m[i] = p[i] ? -1 : 0;
  return m;
}
template <class V>
POOLNB_HD void store(typename Traits<V>::Number* p, V v) { std::memcpy(p, &v, sizeof v); }
// Past the caches, to a multiple of the vector's size; other threads may read it after `finish_streams`.
template <class V>
POOLNB_HD void stream(void* p, V v) {
#if POOLNB_BYTES == 64
  if constexpr (sizeof v == 64) return _mm512_stream_si512(static_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
#endif
#if POOLNB_BYTES >= 32
  if constexpr (sizeof v == 32) return _mm256_stream_si256(static_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
#endif
  std::memcpy(p, &v, sizeof v);
}
inline void finish_streams() {
#if POOLNB_BYTES >= 32
  _mm_sfence();
#endif
}

// a * b + c, rounded once where the processor can. Elsewhere products are rounded before they are added (the flag
// -ffp-contract=off): x * y - (x * y) has to be 0.
POOLNB_HD VecF vfma(VecF a, VecF b, VecF c) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<VecF>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif POOLNB_BYTES == 32 && defined(__FMA__)
  return reinterpret_cast<VecF>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
POOLNB_HD VecD vfma(VecD a, VecD b, VecD c) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<VecD>(
      _mm512_fmadd_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), reinterpret_cast<__m512d>(c)));
#elif POOLNB_BYTES == 32 && defined(__FMA__)
  return reinterpret_cast<VecD>(
      _mm256_fmadd_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b), reinterpret_cast<__m256d>(c)));
#else
  return a * b + c;
#endif
}
POOLNB_HD VecF vfma(VecF a, VecF b, float c) { return vfma(a, b, VecF{} + c); }
POOLNB_HD VecD vfma(VecD a, VecD b, double c) { return vfma(a, b, VecD{} + c); }
POOLNB_HD VecF vfma(VecF a, float b, float c) { return vfma(a, VecF{} + b, VecF{} + c); }
POOLNB_HD VecD vfma(VecD a, double b, double c) { return vfma(a, VecD{} + b, VecD{} + c); }
#endif

// In float64, for sums whose rounding decides something; and a comparison of such, back to the mask of V.
POOLNB_HD double widen(float x) { return x; }
POOLNB_HD double widen(double x) { return x; }
template <class V>
POOLNB_HD bool narrow_mask(bool m) { return m; }
template <class V>
POOLNB_HD V narrow(double x) { return V(x); }
#if defined(POOLNB_VECTORS)
// Two vectors: a vector longer than the registers would be compared number by number.
struct Wide { VecD low, high; };
POOLNB_HD Wide operator+(Wide a, Wide b) { return {a.low + b.low, a.high + b.high}; }
POOLNB_HD Wide operator*(Wide a, Wide b) { return {a.low * b.low, a.high * b.high}; }
POOLNB_HD VecD widen(VecD x) { return x; }
template <class V>
POOLNB_HD V narrow(VecD x) { return x; }
template <class V>
POOLNB_HD V narrow(Wide x) {
  typedef float Half __attribute__((vector_size(POOLNB_BYTES / 2)));
  const Half half[2] = {__builtin_convertvector(x.low, Half), __builtin_convertvector(x.high, Half)};
  V v;
  std::memcpy(&v, half, sizeof v);
  return v;
}
#if POOLNB_BYTES == 64
struct WideMask { __mmask8 low, high; };
template <int compare>
POOLNB_HD WideMask compared(Wide a, Wide b) {
  return {_mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a.low), reinterpret_cast<__m512d>(b.low), compare),
          _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(a.high), reinterpret_cast<__m512d>(b.high), compare)};
}
POOLNB_HD WideMask operator<(Wide a, Wide b) { return compared<_CMP_LT_OQ>(a, b); }
POOLNB_HD WideMask operator<=(Wide a, Wide b) { return compared<_CMP_LE_OQ>(a, b); }
POOLNB_HD Wide widen(VecF x) {
  const __m512 all = reinterpret_cast<__m512>(x);
  return {reinterpret_cast<VecD>(_mm512_cvtps_pd(_mm512_castps512_ps256(all))),
          reinterpret_cast<VecD>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(all, 1)))};
}
template <class V>
POOLNB_HD MaskF narrow_mask(WideMask m) {
  return reinterpret_cast<MaskF>(_mm512_movm_epi32(__mmask16(m.low | m.high << 8)));
}
#else
struct WideMask { MaskD low, high; };
POOLNB_HD WideMask operator<(Wide a, Wide b) { return {a.low < b.low, a.high < b.high}; }
POOLNB_HD WideMask operator<=(Wide a, Wide b) { return {a.low <= b.low, a.high <= b.high}; }
POOLNB_HD Wide widen(VecF x) {
  typedef float Half __attribute__((vector_size(POOLNB_BYTES / 2)));
  Half half[2];
  std::memcpy(half, &x, sizeof x);
  return {__builtin_convertvector(half[0], VecD), __builtin_convertvector(half[1], VecD)};
}
// All bits of a number's mask are equal: every second word is enough.
template <size_t... i>
POOLNB_HD MaskF every_second(MaskF a, MaskF b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, (2 * i)...);
}
template <class V>
POOLNB_HD MaskF narrow_mask(WideMask m) {
  const auto all = std::make_index_sequence<Traits<VecF>::lanes>();
  return every_second(reinterpret_cast<MaskF>(m.low), reinterpret_cast<MaskF>(m.high), all);
}
#endif
template <class V>
POOLNB_HD MaskD narrow_mask(MaskD m) { return m; }
#endif

// ---- written once for both ----------------------------------------------------------------------------------------

template <class V>
POOLNB_HD V splat(typename Traits<V>::Number x) { return V{} + x; }
// The larger one; a NaN in `b` is lost, a NaN in `a` kept.
template <class V>
POOLNB_HD V vmax(V a, V b) {
#if defined(POOLNB_VECTORS) && POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, VecF>)
    return reinterpret_cast<VecF>(_mm512_max_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a)));
#endif
  return select(a < b, b, a);
}
template <class V>
POOLNB_HD V vmin(V a, V b) {
#if defined(POOLNB_VECTORS) && POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, VecF>)
    return reinterpret_cast<VecF>(_mm512_min_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a)));
#endif
  return select(b < a, b, a);
}
// Without the sign, that of -0 too.
POOLNB_HD float vabs(float x) { return fabsf(x); }
POOLNB_HD double vabs(double x) { return fabs(x); }
#if defined(POOLNB_VECTORS)
POOLNB_HD VecF vabs(VecF x) { return reinterpret_cast<VecF>(reinterpret_cast<BitsF>(x) & 0x7fffffffu); }
POOLNB_HD VecD vabs(VecD x) { return reinterpret_cast<VecD>(reinterpret_cast<BitsD>(x) & 0x7fffffffffffffffull); }
#endif
// 0 where both are, and nowhere else.
POOLNB_HD float either(float a, float b) { return fabsf(a) + fabsf(b); }
POOLNB_HD double either(double a, double b) { return fabs(a) + fabs(b); }
#if defined(POOLNB_VECTORS)
POOLNB_HD VecF either(VecF a, VecF b) {
  return reinterpret_cast<VecF>(reinterpret_cast<BitsF>(a) | reinterpret_cast<BitsF>(b));
}
POOLNB_HD VecD either(VecD a, VecD b) {
  return reinterpret_cast<VecD>(reinterpret_cast<BitsD>(a) | reinterpret_cast<BitsD>(b));
}
#endif
template <class V>
POOLNB_HD auto infinite_or_nan(V x) { return (x - x) != (x - x); }
template <class V>
POOLNB_HD auto infinite(V x) { return vabs(x) == splat<V>(kInf<typename Traits<V>::Number>); }

}  // namespace poolnb
