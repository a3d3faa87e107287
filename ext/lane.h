// Arithmetic of the window maths: on one number (a GPU thread, a host loop over threads) or on a pack of lanes (CPU).
//
// The same template serves both: a pack is the compiler's vector type, a mask is what its comparisons return. Packs
// have exp and log of their own, made of operations that vectorise. In units in the last place, exp is within 1.01 of
// the exact value, log and log1p within 1.7, expm1 within 2.2; results of exp below the smallest normal number may be
// 0, and arguments of log are normal numbers. tests/native/test_native_math.py measures it.
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

template <class T>
POOLNB_HD T select(bool m, T a, T b) { return m ? a : b; }
POOLNB_HD bool any(bool m) { return m; }
POOLNB_HD float vexp(float x) { return expf(x); }
POOLNB_HD double vexp(double x) { return exp(x); }
POOLNB_HD float vlog(float x) { return logf(x); }
POOLNB_HD double vlog(double x) { return log(x); }
POOLNB_HD float vsqrt(float x) { return sqrtf(x); }
POOLNB_HD double vsqrt(double x) { return sqrt(x); }
POOLNB_HD float vexpm1(float x) { return expm1f(x); }
POOLNB_HD double vexpm1(double x) { return expm1(x); }
POOLNB_HD float vlog1p(float x) { return log1pf(x); }
POOLNB_HD double vlog1p(double x) { return log1p(x); }
POOLNB_HD float vfma(float a, float b, float c) { return a * b + c; }
POOLNB_HD double vfma(double a, double b, double c) { return a * b + c; }

// log2(x) = whole + part, for positive normal numbers: a difference of two such logs keeps its digits, however large
// the logs are.
template <class V>
struct Log2 { V whole, part; };
template <class T>
POOLNB_HD Log2<T> scalar_log2(T x) {
  int whole;
  const T m = std::frexp(x, &whole);
  return {T(whole), std::log2(m)};
}
POOLNB_HD Log2<float> vlog2(float x) { return scalar_log2(x); }
POOLNB_HD Log2<double> vlog2(double x) { return scalar_log2(x); }
// 2^x for x that does not overflow; results below the normal numbers are rough, and 0 well below.
POOLNB_HD float vexp2(float x) { return exp2f(x); }
POOLNB_HD double vexp2(double x) { return exp2(x); }
// 2^(x + y) that rounds no large sum; for results that are normal numbers.
template <class T>
POOLNB_HD T scalar_exp2(T x, T y) {
  const T whole = rint(x + y);
  return ldexp(exp2((x - whole) + y), int(whole));
}
POOLNB_HD float vexp2(float x, float y) { return scalar_exp2(x, y); }
POOLNB_HD double vexp2(double x, double y) { return scalar_exp2(x, y); }
// 1 / x and 1 / sqrt(x), the last place left to chance. Where a result is no normal number it may be NaN.
POOLNB_HD float quick_reciprocal(float x) { return 1 / x; }
POOLNB_HD double quick_reciprocal(double x) { return 1 / x; }
POOLNB_HD float quick_rsqrt(float x) { return 1 / sqrtf(x); }
POOLNB_HD double quick_rsqrt(double x) { return 1 / sqrt(x); }

template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kLargest = std::numeric_limits<T>::max();

// ---- packs --------------------------------------------------------------------------------------------------------

#if !defined(__CUDACC__) && !defined(POOLNB_SCALAR_ONLY)
#define POOLNB_PACKS 1

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define POOLNB_BYTES 64
#elif defined(__AVX2__)
#define POOLNB_BYTES 32
#else
#define POOLNB_BYTES 16
#endif

typedef float PackF __attribute__((vector_size(POOLNB_BYTES)));
typedef double PackD __attribute__((vector_size(POOLNB_BYTES)));
typedef int32_t MaskF __attribute__((vector_size(POOLNB_BYTES)));
typedef int64_t MaskD __attribute__((vector_size(POOLNB_BYTES)));
typedef uint32_t BitsF __attribute__((vector_size(POOLNB_BYTES)));
typedef uint64_t BitsD __attribute__((vector_size(POOLNB_BYTES)));

template <>
struct Traits<PackF> {
  using Number = float;
  using Mask = MaskF;
  using Bits = BitsF;
  static constexpr int lanes = POOLNB_BYTES / 4;
};
template <>
struct Traits<PackD> {
  using Number = double;
  using Mask = MaskD;
  using Bits = BitsD;
  static constexpr int lanes = POOLNB_BYTES / 8;
};

template <class T>
using Pack = std::conditional_t<std::is_same_v<T, float>, PackF, PackD>;

POOLNB_HD PackF select(MaskF m, PackF a, PackF b) { return m ? a : b; }
POOLNB_HD PackD select(MaskD m, PackD a, PackD b) { return m ? a : b; }

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
template <class V>
POOLNB_HD void store(typename Traits<V>::Number* p, V v) { std::memcpy(p, &v, sizeof v); }

// a * b + c, rounded once where the processor can. Elsewhere products are rounded before they are added (the flag
// -ffp-contract=off): x * y - (x * y) has to be 0.
POOLNB_HD PackF vfma(PackF a, PackF b, PackF c) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<PackF>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif POOLNB_BYTES == 32 && defined(__FMA__)
  return reinterpret_cast<PackF>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}
POOLNB_HD PackD vfma(PackD a, PackD b, PackD c) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<PackD>(
      _mm512_fmadd_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b), reinterpret_cast<__m512d>(c)));
#elif POOLNB_BYTES == 32 && defined(__FMA__)
  return reinterpret_cast<PackD>(
      _mm256_fmadd_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b), reinterpret_cast<__m256d>(c)));
#else
  return a * b + c;
#endif
}
POOLNB_HD PackF vfma(PackF a, PackF b, float c) { return vfma(a, b, PackF{} + c); }
POOLNB_HD PackD vfma(PackD a, PackD b, double c) { return vfma(a, b, PackD{} + c); }
POOLNB_HD PackF vfma(PackF a, float b, float c) { return vfma(a, PackF{} + b, PackF{} + c); }
POOLNB_HD PackD vfma(PackD a, double b, double c) { return vfma(a, PackD{} + b, PackD{} + c); }

// exp(x) = 2^n exp(r), |r| <= ln(2)/2: n by adding and taking off 1.5 * 2^23 (2^52), exp(r) = 1 + r + r^2 q(r) with q
// the minimax polynomial, 2^n by adding n to the exponent's bits. `vexp_down` is for arguments of at most 0.
POOLNB_HD PackF vexp_down(PackF x) {
  const PackF magic = PackF{} + 12582912.0f;
  const PackF shifted = vfma(x, PackF{} + 1.44269504f, magic);
  const PackF n = shifted - magic;
  PackF r = vfma(n, PackF{} - 0.693145752f, x);
  r = vfma(n, PackF{} - 1.42860677e-6f, r);
  PackF q = vfma(r, 0.0013814456f, 0.00836878024f);
  q = vfma(q, r, 0.0416683944f);
  q = vfma(q, r, 0.166665201f);
  q = vfma(q, r, 0.499999934f);
  const PackF p = vfma(q, r * r, r) + 1.0f;
  const BitsF bits = reinterpret_cast<BitsF>(p) + (reinterpret_cast<BitsF>(shifted) << 23);
  return select(x < -87.33654f, PackF{}, reinterpret_cast<PackF>(bits));
}
POOLNB_HD PackD vexp_down(PackD x) {
  const PackD magic = PackD{} + 6755399441055744.0;
  const PackD shifted = vfma(x, PackD{} + 1.4426950408889634, magic);
  const PackD n = shifted - magic;
  PackD r = vfma(n, PackD{} - 0.69314718036912382, x);
  r = vfma(n, PackD{} - 1.9082149292705877e-10, r);
  PackD q = vfma(r, 2.500004362594217179e-8, 2.7630377480841329281e-7);
  q = vfma(q, r, 2.7557587084982003667e-6);
  q = vfma(q, r, 0.000024801492765728744958);
  q = vfma(q, r, 0.00019841269505062708808);
  q = vfma(q, r, 0.0013888888943920152364);
  q = vfma(q, r, 0.0083333333334954834007);
  q = vfma(q, r, 0.041666666666529196284);
  q = vfma(q, r, 0.16666666666666410457);
  q = vfma(q, r, 0.50000000000000107203);
  const PackD p = vfma(q, r * r, r) + 1.0;
  const BitsD bits = reinterpret_cast<BitsD>(p) + (reinterpret_cast<BitsD>(shifted) << 52);
  return select(x < -708.39641853226408, PackD{}, reinterpret_cast<PackD>(bits));
}
// For every argument; NaN stays NaN whatever its payload.
POOLNB_HD PackF vexp(PackF x) {
  const PackF y = select(x > 88.7228394f, PackF{} + kInf<float>, vexp_down(x));
  return select(x == x, y, x);
}
POOLNB_HD PackD vexp(PackD x) {
  const PackD y = select(x > 709.78271289338397, PackD{} + kInf<double>, vexp_down(x));
  return select(x == x, y, x);
}

// log(x) = e ln(2) + log(m), m in [sqrt(1/2), sqrt(2)): the exponent's bits are read off after a shift by sqrt(1/2).
// `vlog_normal` is for positive normal numbers.
POOLNB_HD PackF vlog_normal(PackF x) {
  const BitsF bits = reinterpret_cast<BitsF>(x) - 0x3f3504f3u;
  const MaskF e = reinterpret_cast<MaskF>(bits) >> 23;
  const PackF m = reinterpret_cast<PackF>((bits & 0x007fffffu) + 0x3f3504f3u);
  const PackF f = m - 1.0f, n = __builtin_convertvector(e, PackF);
  PackF q = vfma(f, -0.0764514299f, 0.129230791f);
  q = vfma(q, f, -0.132432119f);
  q = vfma(q, f, 0.141791189f);
  q = vfma(q, f, -0.166087245f);
  q = vfma(q, f, 0.200020922f);
  q = vfma(q, f, -0.250016014f);
  q = vfma(q, f, 0.333333242f);
  q = vfma(q, f, -0.499999881f);
  PackF y = vfma(q, f * f, n * 1.42860677e-6f);
  return vfma(n, PackF{} + 0.693145752f, y + f);
}
POOLNB_HD PackF vlog(PackF x) {
  PackF y = select(x == 0.0f, PackF{} - kInf<float>, vlog_normal(x));
  y = select(x == kInf<float>, x, y);
  return select(x < 0.0f, PackF{} + std::numeric_limits<float>::quiet_NaN(), select(x == x, y, x));
}
POOLNB_HD PackD vlog_normal(PackD x) {
  const BitsD bits = reinterpret_cast<BitsD>(x) - 0x3fe6a09e667f3bcdull;
  const MaskD e = reinterpret_cast<MaskD>(bits) >> 52;
  const PackD m = reinterpret_cast<PackD>((bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  const PackD f = m - 1.0, n = __builtin_convertvector(e, PackD);
  const PackD s = f / (f + 2.0), z = s * s;
  PackD q = vfma(z, 0.14796436229574908746, 0.1531400462459673485);
  q = vfma(q, z, 0.18183566010270402976);
  q = vfma(q, z, 0.2222219854304481982);
  q = vfma(q, z, 0.28571428742657644047);
  q = vfma(q, z, 0.39999999999413580539);
  q = vfma(q, z, 0.66666666666667345576);
  // 2 s = f - s f keeps the digits of f.
  return vfma(n, PackD{} + 0.69314718036912382, f - s * (f - q * z) + n * 1.9082149292705877e-10);
}
POOLNB_HD PackD vlog(PackD x) {
  PackD y = select(x == 0.0, PackD{} - kInf<double>, vlog_normal(x));
  y = select(x == kInf<double>, x, y);
  return select(x < 0.0, PackD{} + std::numeric_limits<double>::quiet_NaN(), select(x == x, y, x));
}

POOLNB_HD PackF vsqrt(PackF x) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<PackF>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#elif POOLNB_BYTES == 32
  return reinterpret_cast<PackF>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#else
  for (int i = 0; i < Traits<PackF>::lanes; ++i) x[i] = sqrtf(x[i]);
  return x;
#endif
}
POOLNB_HD PackD vsqrt(PackD x) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<PackD>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(x)));
#elif POOLNB_BYTES == 32
  return reinterpret_cast<PackD>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x)));
#else
  for (int i = 0; i < Traits<PackD>::lanes; ++i) x[i] = sqrt(x[i]);
  return x;
#endif
}

// log2(x), the whole part read off as in `vlog_normal`.
POOLNB_HD Log2<PackF> vlog2(PackF x) {
  const BitsF bits = reinterpret_cast<BitsF>(x) - 0x3f3504f3u;
  const MaskF e = reinterpret_cast<MaskF>(bits) >> 23;
  const PackF f = reinterpret_cast<PackF>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  PackF q = vfma(f, 0.12926425f, -0.2089338f);
  q = vfma(q, f, 0.21521226f);
  q = vfma(q, f, -0.23867568f);
  q = vfma(q, f, 0.2879391f);
  q = vfma(q, f, -0.36071625f);
  q = vfma(q, f, 0.48091027f);
  q = vfma(q, f, -0.7213472f);
  q = vfma(q, f, 1.442695f);
  return {__builtin_convertvector(e, PackF), q * f};
}
POOLNB_HD Log2<PackD> vlog2(PackD x) {
  const BitsD bits = reinterpret_cast<BitsD>(x) - 0x3fe6a09e667f3bcdull;
  const MaskD e = reinterpret_cast<MaskD>(bits) >> 52;
  const PackD m = reinterpret_cast<PackD>((bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  return {__builtin_convertvector(e, PackD), vlog_normal(m) * 1.4426950408889634};
}

// From the processor's estimate of 14 bits by one step of Newton's.
POOLNB_HD PackF quick_reciprocal(PackF x) {
#if POOLNB_BYTES == 64
  const PackF y = reinterpret_cast<PackF>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return vfma(y, vfma(-x, y, PackF{} + 1.0f), y);
#else
  return 1.0f / x;
#endif
}
POOLNB_HD PackD quick_reciprocal(PackD x) { return 1.0 / x; }
POOLNB_HD PackF quick_rsqrt(PackF x) {
#if POOLNB_BYTES == 64
  const PackF y = reinterpret_cast<PackF>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(x)));
  return vfma(y * 0.5f, vfma(-x * y, y, PackF{} + 1.0f), y);
#else
  return 1.0f / vsqrt(x);
#endif
}
POOLNB_HD PackD quick_rsqrt(PackD x) { return 1.0 / vsqrt(x); }

// expm1(x) = 2^n expm1(r) + (2^n - 1), for x from -87 (-708) to 88 (709); below, -1.
POOLNB_HD PackF vexpm1(PackF x) {
  x = select(x < -87.0f, PackF{} - 87.0f, x);
  const PackF magic = PackF{} + 12582912.0f;
  const PackF shifted = vfma(x, PackF{} + 1.44269504f, magic);
  const PackF n = shifted - magic;
  PackF r = vfma(n, PackF{} - 0.693145752f, x);
  r = vfma(n, PackF{} - 1.42860677e-6f, r);
  PackF q = vfma(r, 0.0013814456f, 0.00836878024f);
  q = vfma(q, r, 0.0416683944f);
  q = vfma(q, r, 0.166665201f);
  q = vfma(q, r, 0.499999934f);
  const BitsF scale = (reinterpret_cast<BitsF>(shifted) << 23) + 0x3f800000u;
  const PackF s = reinterpret_cast<PackF>(scale);
  return vfma(s, vfma(q, r * r, r), s - 1.0f);
}
POOLNB_HD PackD vexpm1(PackD x) {
  x = select(x < -708.0, PackD{} - 708.0, x);
  const PackD magic = PackD{} + 6755399441055744.0;
  const PackD shifted = vfma(x, PackD{} + 1.4426950408889634, magic);
  const PackD n = shifted - magic;
  PackD r = vfma(n, PackD{} - 0.69314718036912382, x);
  r = vfma(n, PackD{} - 1.9082149292705877e-10, r);
  PackD q = vfma(r, 2.500004362594217179e-8, 2.7630377480841329281e-7);
  q = vfma(q, r, 2.7557587084982003667e-6);
  q = vfma(q, r, 0.000024801492765728744958);
  q = vfma(q, r, 0.00019841269505062708808);
  q = vfma(q, r, 0.0013888888943920152364);
  q = vfma(q, r, 0.0083333333334954834007);
  q = vfma(q, r, 0.041666666666529196284);
  q = vfma(q, r, 0.16666666666666410457);
  q = vfma(q, r, 0.50000000000000107203);
  const BitsD scale = (reinterpret_cast<BitsD>(shifted) << 52) + 0x3ff0000000000000ull;
  const PackD s = reinterpret_cast<PackD>(scale);
  return vfma(s, vfma(q, r * r, r), s - 1.0);
}

// log1p(x) for x > -1: the log of u = 1 + x as rounded, and what rounding took from it, to first order.
POOLNB_HD PackF vlog1p(PackF x) {
  const PackF u = x + 1.0f;
  return vlog(u) + (x - (u - 1.0f)) / u;
}
POOLNB_HD PackD vlog1p(PackD x) {
  const PackD u = x + 1.0;
  return vlog(u) + (x - (u - 1.0)) / u;
}
#endif

// In float64, for sums whose rounding decides something; and a comparison of such, back to the mask of V.
POOLNB_HD double widen(float x) { return x; }
POOLNB_HD double widen(double x) { return x; }
template <class V>
POOLNB_HD bool narrow_mask(bool m) { return m; }
template <class V>
POOLNB_HD V narrow(double x) { return V(x); }
#if defined(POOLNB_PACKS)
// Two packs: a vector longer than the registers would be compared number by number.
struct Wide { PackD low, high; };
POOLNB_HD Wide operator+(Wide a, Wide b) { return {a.low + b.low, a.high + b.high}; }
POOLNB_HD Wide operator*(Wide a, Wide b) { return {a.low * b.low, a.high * b.high}; }
POOLNB_HD PackD widen(PackD x) { return x; }
template <class V>
POOLNB_HD V narrow(PackD x) { return x; }
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
POOLNB_HD Wide widen(PackF x) {
  const __m512 all = reinterpret_cast<__m512>(x);
  return {reinterpret_cast<PackD>(_mm512_cvtps_pd(_mm512_castps512_ps256(all))),
          reinterpret_cast<PackD>(_mm512_cvtps_pd(_mm512_extractf32x8_ps(all, 1)))};
}
template <class V>
POOLNB_HD MaskF narrow_mask(WideMask m) {
  return reinterpret_cast<MaskF>(_mm512_movm_epi32(__mmask16(m.low | m.high << 8)));
}
#else
struct WideMask { MaskD low, high; };
POOLNB_HD WideMask operator<(Wide a, Wide b) { return {a.low < b.low, a.high < b.high}; }
POOLNB_HD WideMask operator<=(Wide a, Wide b) { return {a.low <= b.low, a.high <= b.high}; }
POOLNB_HD Wide widen(PackF x) {
  typedef float Half __attribute__((vector_size(POOLNB_BYTES / 2)));
  Half half[2];
  std::memcpy(half, &x, sizeof x);
  return {__builtin_convertvector(half[0], PackD), __builtin_convertvector(half[1], PackD)};
}
// All bits of a number's mask are equal: every second word is enough.
template <size_t... i>
POOLNB_HD MaskF every_second(MaskF a, MaskF b, std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, (2 * i)...);
}
template <class V>
POOLNB_HD MaskF narrow_mask(WideMask m) {
  const auto all = std::make_index_sequence<Traits<PackF>::lanes>();
  return every_second(reinterpret_cast<MaskF>(m.low), reinterpret_cast<MaskF>(m.high), all);
}
#endif
template <class V>
POOLNB_HD MaskD narrow_mask(MaskD m) { return m; }
#endif

// ---- written once for both ----------------------------------------------------------------------------------------

#if !defined(POOLNB_PACKS)
template <class T>
POOLNB_HD T vexp_down(T x) { return vexp(x); }
template <class T>
POOLNB_HD T vlog_normal(T x) { return vlog(x); }
#else
POOLNB_HD float vexp_down(float x) { return vexp(x); }
POOLNB_HD double vexp_down(double x) { return vexp(x); }
POOLNB_HD float vlog_normal(float x) { return vlog(x); }
POOLNB_HD double vlog_normal(double x) { return vlog(x); }
#endif

template <class V>
POOLNB_HD V splat(typename Traits<V>::Number x) { return V{} + x; }
// The larger one; a NaN in `b` is lost, a NaN in `a` kept.
template <class V>
POOLNB_HD V vmax(V a, V b) {
#if defined(POOLNB_PACKS) && POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, PackF>)
    return reinterpret_cast<PackF>(_mm512_max_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a)));
#endif
  return select(a < b, b, a);
}
template <class V>
POOLNB_HD V vmin(V a, V b) {
#if defined(POOLNB_PACKS) && POOLNB_BYTES == 64
  if constexpr (std::is_same_v<V, PackF>)
    return reinterpret_cast<PackF>(_mm512_min_ps(reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(a)));
#endif
  return select(b < a, b, a);
}
#if defined(POOLNB_PACKS)
// 2^r 2^n, |r| <= 1/2, n the whole number that `shifted` holds in its last bits.
POOLNB_HD PackF exp2_parts(PackF r, PackF shifted) {
  PackF q = vfma(r, 0.00015453163f, 0.0013390863f);
  q = vfma(q, r, 0.009618083f);
  q = vfma(q, r, 0.05550357f);
  q = vfma(q, r, 0.2402265f);
  q = vfma(q, r, 0.6931472f);
  const BitsF bits = reinterpret_cast<BitsF>(vfma(q, r, 1.0f)) + (reinterpret_cast<BitsF>(shifted) << 23);
  return reinterpret_cast<PackF>(bits);
}
POOLNB_HD PackD exp2_parts(PackD r, PackD shifted) {
  const PackD near = vexp_down(r * 0.69314718055994531);
  return reinterpret_cast<PackD>(reinterpret_cast<BitsD>(near) + (reinterpret_cast<BitsD>(shifted) << 52));
}
template <class V>
constexpr typename Traits<V>::Number kShift = sizeof(V{}[0]) == 4 ? 12582912.0 : 6755399441055744.0;
template <class V>
POOLNB_HD V pack_exp2(V x) {
  // One below the smallest exponent, all bits of the result are 0.
  x = vmax(x, splat<V>(std::numeric_limits<typename Traits<V>::Number>::min_exponent - 2));
  const V shifted = x + kShift<V>;
  return exp2_parts(x - (shifted - kShift<V>), shifted);
}
template <class V>
POOLNB_HD V pack_exp2(V x, V y) {
  const V shifted = (x + y) + kShift<V>;
  return exp2_parts((x - (shifted - kShift<V>)) + y, shifted);
}
POOLNB_HD PackF vexp2(PackF x) { return pack_exp2(x); }
POOLNB_HD PackD vexp2(PackD x) { return pack_exp2(x); }
POOLNB_HD PackF vexp2(PackF x, PackF y) { return pack_exp2(x, y); }
POOLNB_HD PackD vexp2(PackD x, PackD y) { return pack_exp2(x, y); }
#endif
// Without the sign, that of -0 too.
POOLNB_HD float vabs(float x) { return fabsf(x); }
POOLNB_HD double vabs(double x) { return fabs(x); }
#if defined(POOLNB_PACKS)
POOLNB_HD PackF vabs(PackF x) { return reinterpret_cast<PackF>(reinterpret_cast<BitsF>(x) & 0x7fffffffu); }
POOLNB_HD PackD vabs(PackD x) { return reinterpret_cast<PackD>(reinterpret_cast<BitsD>(x) & 0x7fffffffffffffffull); }
#endif
template <class V>
POOLNB_HD auto infinite_or_nan(V x) { return (x - x) != (x - x); }
template <class V>
POOLNB_HD auto infinite(V x) { return vabs(x) == splat<V>(kInf<typename Traits<V>::Number>); }

}  // namespace poolnb
