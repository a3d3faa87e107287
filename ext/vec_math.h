// exp, log and their kin for the numbers of vec.h.
//
// Vectors have their own, made of operations that vectorise. In units in the last place, exp is within 1.01 of the
// exact value, log and log1p within 1.7, expm1 within 2.2; results of exp below the smallest normal number may be 0,
// and arguments of log are normal numbers. tests/native/test_native_math.py measures it.
#pragma once

#include "vec.h"

namespace poolnb {

// ---- one number ---------------------------------------------------------------------------------------------------

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
#if defined(__CUDA_ARCH__)
// Within 2 units in the last place, in one instruction; the rounding of exp2f takes three more.
POOLNB_HD float vexp2(float x) {
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(x));
  return x;
}
#else
POOLNB_HD float vexp2(float x) { return exp2f(x); }
#endif
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
#if defined(__CUDA_ARCH__)
// From the chip's estimate by one step of Newton's, as vectors do it.
POOLNB_HD float quick_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return fmaf(y, fmaf(-x, y, 1), y);
}
POOLNB_HD float quick_rsqrt(float x) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return fmaf(y * 0.5f, fmaf(-x * y, y, 1), y);
}
#else
POOLNB_HD float quick_reciprocal(float x) { return 1 / x; }
POOLNB_HD float quick_rsqrt(float x) { return 1 / sqrtf(x); }
#endif
POOLNB_HD double quick_reciprocal(double x) { return 1 / x; }
POOLNB_HD double quick_rsqrt(double x) { return 1 / sqrt(x); }

// ---- vectors ------------------------------------------------------------------------------------------------------

#if defined(POOLNB_VECTORS)
// x = n ln(2) + r, |r| <= ln(2)/2: n by adding and taking off 1.5 * 2^23 (2^52), whose last bits hold it then. `near` is
// expm1(r) = r + r^2 q, with q the minimax polynomial.
template <class V>
struct ExpParts { V r, q, near, shifted; };
POOLNB_HD ExpParts<VecF> exp_parts(VecF x) {
  const VecF magic = VecF{} + 12582912.0f;
  const VecF shifted = vfma(x, VecF{} + 1.44269504f, magic);
  const VecF n = shifted - magic;
  VecF r = vfma(n, VecF{} - 0.693145752f, x);
  r = vfma(n, VecF{} - 1.42860677e-6f, r);
  VecF q = vfma(r, 0.0013814456f, 0.00836878024f);
  q = vfma(q, r, 0.0416683944f);
  q = vfma(q, r, 0.166665201f);
  q = vfma(q, r, 0.499999934f);
  return {r, q, vfma(q, r * r, r), shifted};
}
POOLNB_HD ExpParts<VecD> exp_parts(VecD x) {
  const VecD magic = VecD{} + 6755399441055744.0;
  const VecD shifted = vfma(x, VecD{} + 1.4426950408889634, magic);
  const VecD n = shifted - magic;
  VecD r = vfma(n, VecD{} - 0.69314718036912382, x);
  r = vfma(n, VecD{} - 1.9082149292705877e-10, r);
  VecD q = vfma(r, 2.500004362594217179e-8, 2.7630377480841329281e-7);
  q = vfma(q, r, 2.7557587084982003667e-6);
  q = vfma(q, r, 0.000024801492765728744958);
  q = vfma(q, r, 0.00019841269505062708808);
  q = vfma(q, r, 0.0013888888943920152364);
  q = vfma(q, r, 0.0083333333334954834007);
  q = vfma(q, r, 0.041666666666529196284);
  q = vfma(q, r, 0.16666666666666410457);
  q = vfma(q, r, 0.50000000000000107203);
  return {r, q, vfma(q, r * r, r), shifted};
}
// y 2^n, for a result that is a normal number: n is added to the exponent's bits.
POOLNB_HD VecF scaled_by(VecF y, VecF shifted) {
  return reinterpret_cast<VecF>(reinterpret_cast<BitsF>(y) + (reinterpret_cast<BitsF>(shifted) << 23));
}
POOLNB_HD VecD scaled_by(VecD y, VecD shifted) {
  return reinterpret_cast<VecD>(reinterpret_cast<BitsD>(y) + (reinterpret_cast<BitsD>(shifted) << 52));
}
// exp(x) = 2^n exp(r), for results that are normal numbers.
template <class V>
POOLNB_HD V exp_of(const ExpParts<V>& parts) { return scaled_by(parts.near + splat<V>(1), parts.shifted); }
// For arguments of at most 0.
POOLNB_HD VecF vexp_down(VecF x) { return select(x < -87.33654f, VecF{}, exp_of(exp_parts(x))); }
POOLNB_HD VecD vexp_down(VecD x) { return select(x < -708.39641853226408, VecD{}, exp_of(exp_parts(x))); }
// For every argument; NaN stays NaN whatever its payload.
POOLNB_HD VecF vexp(VecF x) {
  const VecF y = select(x > 88.7228394f, VecF{} + kInf<float>, vexp_down(x));
  return select(x == x, y, x);
}
POOLNB_HD VecD vexp(VecD x) {
  const VecD y = select(x > 709.78271289338397, VecD{} + kInf<double>, vexp_down(x));
  return select(x == x, y, x);
}

// log(x) = e ln(2) + log(m), m in [sqrt(1/2), sqrt(2)): the exponent's bits are read off after a shift by sqrt(1/2).
// `vlog_normal` is for positive normal numbers.
POOLNB_HD VecF vlog_normal(VecF x) {
  const BitsF bits = reinterpret_cast<BitsF>(x) - 0x3f3504f3u;
  const MaskF e = reinterpret_cast<MaskF>(bits) >> 23;
  const VecF m = reinterpret_cast<VecF>((bits & 0x007fffffu) + 0x3f3504f3u);
  const VecF f = m - 1.0f, n = __builtin_convertvector(e, VecF);
  VecF q = vfma(f, -0.0764514299f, 0.129230791f);
  q = vfma(q, f, -0.132432119f);
  q = vfma(q, f, 0.141791189f);
  q = vfma(q, f, -0.166087245f);
  q = vfma(q, f, 0.200020922f);
  q = vfma(q, f, -0.250016014f);
  q = vfma(q, f, 0.333333242f);
  q = vfma(q, f, -0.499999881f);
  VecF y = vfma(q, f * f, n * 1.42860677e-6f);
  return vfma(n, VecF{} + 0.693145752f, y + f);
}
POOLNB_HD VecF vlog(VecF x) {
  VecF y = select(x == 0.0f, VecF{} - kInf<float>, vlog_normal(x));
  y = select(x == kInf<float>, x, y);
  return select(x < 0.0f, VecF{} + std::numeric_limits<float>::quiet_NaN(), select(x == x, y, x));
}
POOLNB_HD VecD vlog_normal(VecD x) {
  const BitsD bits = reinterpret_cast<BitsD>(x) - 0x3fe6a09e667f3bcdull;
  const MaskD e = reinterpret_cast<MaskD>(bits) >> 52;
  const VecD m = reinterpret_cast<VecD>((bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  const VecD f = m - 1.0, n = __builtin_convertvector(e, VecD);
  const VecD s = f / (f + 2.0), z = s * s;
  VecD q = vfma(z, 0.14796436229574908746, 0.1531400462459673485);
  q = vfma(q, z, 0.18183566010270402976);
  q = vfma(q, z, 0.2222219854304481982);
  q = vfma(q, z, 0.28571428742657644047);
  q = vfma(q, z, 0.39999999999413580539);
  q = vfma(q, z, 0.66666666666667345576);
  // 2 s = f - s f keeps the digits of f.
  return vfma(n, VecD{} + 0.69314718036912382, f - s * (f - q * z) + n * 1.9082149292705877e-10);
}
POOLNB_HD VecD vlog(VecD x) {
  VecD y = select(x == 0.0, VecD{} - kInf<double>, vlog_normal(x));
  y = select(x == kInf<double>, x, y);
  return select(x < 0.0, VecD{} + std::numeric_limits<double>::quiet_NaN(), select(x == x, y, x));
}

POOLNB_HD VecF vsqrt(VecF x) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<VecF>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#elif POOLNB_BYTES == 32
  return reinterpret_cast<VecF>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#else
  for (int i = 0; i < Traits<VecF>::lanes; ++i) x[i] = sqrtf(x[i]);
  return x;
#endif
}
POOLNB_HD VecD vsqrt(VecD x) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<VecD>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(x)));
#elif POOLNB_BYTES == 32
  return reinterpret_cast<VecD>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x)));
#else
  for (int i = 0; i < Traits<VecD>::lanes; ++i) x[i] = sqrt(x[i]);
  return x;
#endif
}

// log2(x), the whole part read off as in `vlog_normal`.
POOLNB_HD Log2<VecF> vlog2(VecF x) {
  const BitsF bits = reinterpret_cast<BitsF>(x) - 0x3f3504f3u;
  const MaskF e = reinterpret_cast<MaskF>(bits) >> 23;
  const VecF f = reinterpret_cast<VecF>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  VecF q = vfma(f, 0.12926425f, -0.2089338f);
  q = vfma(q, f, 0.21521226f);
  q = vfma(q, f, -0.23867568f);
  q = vfma(q, f, 0.2879391f);
  q = vfma(q, f, -0.36071625f);
  q = vfma(q, f, 0.48091027f);
  q = vfma(q, f, -0.7213472f);
  q = vfma(q, f, 1.442695f);
  return {__builtin_convertvector(e, VecF), q * f};
}
POOLNB_HD Log2<VecD> vlog2(VecD x) {
  const BitsD bits = reinterpret_cast<BitsD>(x) - 0x3fe6a09e667f3bcdull;
  const MaskD e = reinterpret_cast<MaskD>(bits) >> 52;
  const VecD m = reinterpret_cast<VecD>((bits & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull);
  return {__builtin_convertvector(e, VecD), vlog_normal(m) * 1.4426950408889634};
}

// From the processor's estimate of 14 bits by one step of Newton's.
POOLNB_HD VecF quick_reciprocal(VecF x) {
#if POOLNB_BYTES == 64
  const VecF y = reinterpret_cast<VecF>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return vfma(y, vfma(-x, y, VecF{} + 1.0f), y);
#else
  return 1.0f / x;
#endif
}
POOLNB_HD VecD quick_reciprocal(VecD x) { return 1.0 / x; }
POOLNB_HD VecF quick_rsqrt(VecF x) {
#if POOLNB_BYTES == 64
  const VecF y = reinterpret_cast<VecF>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(x)));
  return vfma(y * 0.5f, vfma(-x * y, y, VecF{} + 1.0f), y);
#else
  return 1.0f / vsqrt(x);
#endif
}
POOLNB_HD VecD quick_rsqrt(VecD x) { return 1.0 / vsqrt(x); }

// expm1(x) = 2^n expm1(r) + (2^n - 1), for x from -87 (-708) to 88 (709); below, -1.
template <class V>
POOLNB_HD V expm1_of(const ExpParts<V>& parts) {
  const V s = scaled_by(splat<V>(1), parts.shifted);
  return vfma(s, parts.near, s - splat<V>(1));
}
POOLNB_HD VecF vexpm1(VecF x) { return expm1_of(exp_parts(select(x < -87.0f, VecF{} - 87.0f, x))); }
POOLNB_HD VecD vexpm1(VecD x) { return expm1_of(exp_parts(select(x < -708.0, VecD{} - 708.0, x))); }

// log1p(x) for x > -1: the log of u = 1 + x as rounded, and what rounding took from it, to first order.
POOLNB_HD VecF vlog1p(VecF x) {
  const VecF u = x + 1.0f;
  return vlog(u) + (x - (u - 1.0f)) * quick_reciprocal(u);
}
POOLNB_HD VecD vlog1p(VecD x) {
  const VecD u = x + 1.0;
  return vlog(u) + (x - (u - 1.0)) / u;
}
#endif

// ---- written once for both ----------------------------------------------------------------------------------------

#if !defined(POOLNB_VECTORS)
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

#if defined(POOLNB_VECTORS)
// 2^r 2^n, |r| <= 1/2, n the whole number that `shifted` holds in its last bits.
POOLNB_HD VecF exp2_parts(VecF r, VecF shifted) {
  VecF q = vfma(r, 0.00015453163f, 0.0013390863f);
  q = vfma(q, r, 0.009618083f);
  q = vfma(q, r, 0.05550357f);
  q = vfma(q, r, 0.2402265f);
  q = vfma(q, r, 0.6931472f);
  return scaled_by(vfma(q, r, 1.0f), shifted);
}
POOLNB_HD VecD exp2_parts(VecD r, VecD shifted) { return scaled_by(vexp_down(r * 0.69314718055994531), shifted); }
template <class V>
constexpr typename Traits<V>::Number kShift = sizeof(V{}[0]) == 4 ? 12582912.0 : 6755399441055744.0;
template <class V>
POOLNB_HD V vec_exp2(V x) {
  // One below the smallest exponent, all bits of the result are 0.
  x = vmax(x, splat<V>(std::numeric_limits<typename Traits<V>::Number>::min_exponent - 2));
  const V shifted = x + kShift<V>;
  return exp2_parts(x - (shifted - kShift<V>), shifted);
}
template <class V>
POOLNB_HD V vec_exp2(V x, V y) {
  const V shifted = (x + y) + kShift<V>;
  return exp2_parts((x - (shifted - kShift<V>)) + y, shifted);
}
POOLNB_HD VecF vexp2(VecF x) { return vec_exp2(x); }
POOLNB_HD VecD vexp2(VecD x) { return vec_exp2(x); }
POOLNB_HD VecF vexp2(VecF x, VecF y) { return vec_exp2(x, y); }
POOLNB_HD VecD vexp2(VecD x, VecD y) { return vec_exp2(x, y); }
#endif

// `safe`: down to the smallest number; else 0 from where exp comes near to an overflow.
template <bool safe, class V>
POOLNB_HD V sigmoid(V x) {
  using T = typename Traits<V>::Number;
  const V one = splat<V>(1);
  if constexpr (safe) return one / (one + vexp(-x));
  const V most = splat<V>(T(0.68) * std::numeric_limits<T>::max_exponent);  // exp does not overflow
  const V y = select(-x > most, splat<V>(0), quick_reciprocal(one + vexp_down(vmin(-x, most))));
  return select(x == x, y, x);
}

}  // namespace poolnb
