// The random numbers of many windows at once: packs of Philox counters.
#pragma once

#include <algorithm>

#include "../philox.h"

namespace poolnb {

constexpr int kWords = POOLNB_BYTES / 4;

// Words of the blocks `block` .. `block + kWords - 1`: word[k][i] is output k of block i.
inline void philox_words(uint64_t seed, uint64_t block, uint32_t draw, Stream stream, uint32_t word[4][kWords]) {
  uint32_t low[kWords], high[kWords];
  for (int i = 0; i < kWords; ++i) {
    low[i] = uint32_t(block + i);
    high[i] = uint32_t((block + i) >> 32);
  }
  BitsF c[4] = {{}, {}, BitsF{} + draw, BitsF{} + uint32_t(stream)};
  std::memcpy(&c[0], low, sizeof low);
  std::memcpy(&c[1], high, sizeof high);
  philox(c, seed);
  std::memcpy(word, c, sizeof c);
}

template <class T>
inline void uniforms(const uint32_t* words, T* numbers) {
  for (int i = 0; i < kWords; ++i) numbers[i] = uniform<T>(words[i]);
}

// One number for each of the positions `first` .. `first + n - 1`.
template <class T>
void draw_windows(T* to, uint64_t first, int64_t n, uint64_t seed, Stream stream) {
  uint32_t word[4][kWords];
  T number[4][kWords];
  for (uint64_t block = first / 4; block * 4 < first + n; block += kWords) {
    philox_words(seed, block, 0, stream, word);
    for (int k = 0; k < 4; ++k) uniforms(word[k], number[k]);
    const int64_t start = int64_t(block * 4 - first);  // negative in the first block
    for (int64_t i = std::max<int64_t>(0, -start); i < std::min<int64_t>(4 * kWords, n - start); ++i)
      to[start + i] = number[i % 4][i / 4];
  }
}

// Gumbel noise for each tap of those positions: tap t of position i goes to[t * step + i].
template <class T>
void draw_taps(T* to, int64_t step, int64_t taps, uint64_t first, int64_t n, uint64_t seed, Stream stream) {
  uint32_t word[4][kWords];
  alignas(64) T number[kWords];
  for (int64_t tap = 0; tap < taps; tap += 4)
    for (int64_t i = 0; i < n; i += kWords) {
      philox_words(seed, first + i, uint32_t(tap / 4), stream, word);
      for (int k = 0; k < 4 && tap + k < taps; ++k) {
        uniforms(word[k], number);
        for (int l = 0; l < kWords; l += Traits<Pack<T>>::lanes) store(number + l, gumbel(load<Pack<T>>(number + l)));
        std::copy_n(number, std::min<int64_t>(kWords, n - i), to + (tap + k) * step + i);
      }
    }
}

}  // namespace poolnb
