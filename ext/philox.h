// Noise as a function of (seed, position): Philox4x32-10 (Salmon et al. 2011), as poolnb/ops/philox.py specifies it.
#pragma once

#include "taps.h"

namespace poolnb {

enum class Stream : uint32_t { stochastic = 1, tdgs = 2 };

// The high and low words of the product by a constant.
POOLNB_HD void multiply(uint32_t x, uint32_t by, uint32_t& high, uint32_t& low) {
  const uint64_t product = uint64_t(x) * by;
  high = uint32_t(product >> 32);
  low = uint32_t(product);
}

#if defined(POOLNB_PACKS)
POOLNB_HD void multiply(BitsF x, uint32_t by, BitsF& high, BitsF& low) {
#if POOLNB_BYTES == 64
  const __m512i a = reinterpret_cast<__m512i>(x), b = _mm512_set1_epi64(by);
  const __m512i even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
  high = reinterpret_cast<BitsF>(_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_CDAB));
  low = x * by;
#else
#if POOLNB_BYTES == 32
  const __m256i a = reinterpret_cast<__m256i>(x), b = _mm256_set1_epi64x(by);
  const BitsD even = reinterpret_cast<BitsD>(_mm256_mul_epu32(a, b));
  const BitsD odd = reinterpret_cast<BitsD>(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), b));
#else
  const BitsD pairs = reinterpret_cast<BitsD>(x);
  const BitsD even = (pairs & 0xffffffffull) * uint64_t(by), odd = (pairs >> 32) * uint64_t(by);
#endif
  high = reinterpret_cast<BitsF>((even >> 32) | (odd & 0xffffffff00000000ull));
  low = reinterpret_cast<BitsF>((even & 0xffffffffull) | (odd << 32));
#endif
}
#endif

// The four output words, in place of the counter (block, draw, stream). `Words` is uint32_t or a pack of them.
template <class Words>
POOLNB_HD void philox(Words c[4], uint64_t seed) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  POOLNB_UNROLL for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply(c[0], 0xD2511F53u, high0, low0);
    multiply(c[2], 0xCD9E8D57u, high1, low1);
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// A multiple of 2^-24 strictly between 0 and 1: exact in every type.
template <class T>
POOLNB_HD T uniform(uint32_t word) { return (T(word >> 9) + T(0.5)) * T(1.1920928955078125e-7); }

template <class T>
POOLNB_HD T one_number(uint64_t seed, uint64_t block, uint32_t draw, Stream stream, int word) {
  uint32_t c[4] = {uint32_t(block), uint32_t(block >> 32), draw, uint32_t(stream)};
  philox(c, seed);
  return uniform<T>(word == 0 ? c[0] : word == 1 ? c[1] : word == 2 ? c[2] : c[3]);
}
// The number of a window, and of a window's tap.
template <class T>
POOLNB_HD T window_uniform(uint64_t seed, uint64_t position, Stream stream) {
  return one_number<T>(seed, position / 4, 0, stream, int(position % 4));
}
template <class T>
POOLNB_HD T tap_uniform(uint64_t seed, uint64_t position, int64_t tap, Stream stream) {
  return one_number<T>(seed, position, uint32_t(tap / 4), stream, int(tap % 4));
}

template <class V>
POOLNB_HD V gumbel(V uniform) { return -vlog_normal(-vlog_normal(uniform)); }

}  // namespace poolnb
