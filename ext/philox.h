// Noise as a function of (seed, position): Philox4x32-10 (Salmon et al. 2011), as poolnb/ops/philox.py specifies it.
#pragma once

#include "taps.h"

namespace poolnb {

enum class Stream : uint32_t { stochastic = 1, tdgs = 2, s3 = 3 };

// The product of two words.
POOLNB_HD uint64_t multiply(uint64_t x, uint32_t by) { return (x & 0xffffffffull) * by; }
#if defined(POOLNB_VECTORS)
POOLNB_HD BitsD multiply(BitsD x, uint32_t by) {
#if POOLNB_BYTES == 64
  return reinterpret_cast<BitsD>(_mm512_mul_epu32(reinterpret_cast<__m512i>(x), _mm512_set1_epi64(by)));
#elif POOLNB_BYTES == 32
  return reinterpret_cast<BitsD>(_mm256_mul_epu32(reinterpret_cast<__m256i>(x), _mm256_set1_epi64x(by)));
#else
  return (x & 0xffffffffull) * uint64_t(by);
#endif
}
#endif

// The keys of the ten rounds.
struct PhiloxKeys {
  uint64_t low[10], high[10];
  explicit POOLNB_HD PhiloxKeys(uint64_t seed) {
    for (uint32_t round = 0; round < 10; ++round) {
      low[round] = uint32_t(seed) + round * 0x9E3779B9u;
      high[round] = uint32_t(seed >> 32) + round * 0xBB67AE85u;
    }
  }
};

// The four output words of n counters (block, draw, stream), in place: the low halves of uint64_t, or of vectors of
// them. The high halves are not looked at. Counters take their rounds together, so that none waits for another.
template <int n, class Words>
POOLNB_HD void philox(Words c[][4], const PhiloxKeys& keys) {
  POOLNB_UNROLL for (int round = 0; round < 10; ++round)
    POOLNB_UNROLL for (int i = 0; i < n; ++i) {
      const Words p0 = multiply(c[i][0], 0xD2511F53u), p1 = multiply(c[i][2], 0xCD9E8D57u);
      c[i][0] = (p1 >> 32) ^ c[i][1] ^ keys.low[round];
      c[i][1] = p1;
      c[i][2] = (p0 >> 32) ^ c[i][3] ^ keys.high[round];
      c[i][3] = p0;
    }
}

// A multiple of 2^-24 strictly between 0 and 1: exact in every type.
template <class T>
POOLNB_HD T uniform(uint32_t word) { return (T(word >> 9) + T(0.5)) * T(1.1920928955078125e-7); }

template <class T>
POOLNB_HD T one_number(uint64_t seed, uint64_t block, uint32_t draw, Stream stream, int word) {
  uint64_t c[1][4] = {{block, block >> 32, draw, uint64_t(stream)}};
  philox<1>(c, PhiloxKeys(seed));
  return uniform<T>(uint32_t(word == 0 ? c[0][0] : word == 1 ? c[0][1] : word == 2 ? c[0][2] : c[0][3]));
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

// Gumbel noise is the log of this: what multiplies a weight where the noise is added to its log.
template <class V>
POOLNB_HD V gumbel_factor(V uniform) { return quick_reciprocal(-vlog_normal(uniform)); }

}  // namespace poolnb
