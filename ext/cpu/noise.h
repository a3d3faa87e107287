// The random numbers of many windows at once: vectors of Philox counters.
#pragma once

#include <algorithm>

#include "../philox.h"
#include "lines.h"

namespace poolnb {

constexpr int kWords = POOLNB_BYTES / 4;

// Words of the blocks `first[j]`, `first[j] + step`, ... of each of n vectors: word[j][k][i] is output k of the i-th.
template <int n>
POOLNB_HD void philox_words(const PhiloxKeys& keys, const uint64_t first[n], uint64_t step, uint32_t draw,
                            Stream stream, BitsF word[n][4]) {
  BitsD number{};
  for (int i = 0; i < kWords / 2; ++i) number[i] = 2 * i * step;
  BitsD half[2 * n][4];  // of the blocks of even number, of odd number
  POOLNB_UNROLL for (int h = 0; h < 2 * n; ++h) {
    half[h][0] = number + (first[h / 2] + h % 2 * step);
    half[h][1] = half[h][0] >> 32;
    half[h][2] = BitsD{} + draw;
    half[h][3] = BitsD{} + uint64_t(stream);
  }
  philox<2 * n>(half, keys);
  POOLNB_UNROLL for (int j = 0; j < n; ++j)
    POOLNB_UNROLL for (int k = 0; k < 4; ++k)
      word[j][k] = reinterpret_cast<BitsF>((half[2 * j][k] & 0xffffffffull) | (half[2 * j + 1][k] << 32));
}

// Numbers in (0, 1) from a vector of words.
template <class T>
POOLNB_HD void uniforms(BitsF word, T* to) {
  if constexpr (sizeof(T) == 4) {
    store(to, (__builtin_convertvector(MaskF(word >> 9), VecF) + 0.5f) * 1.1920928955078125e-7f);
  } else {
    uint32_t words[kWords];
    std::memcpy(words, &word, sizeof words);
    for (int i = 0; i < kWords; ++i) to[i] = uniform<T>(words[i]);
  }
}

// Gumbel factors from a vector of words.
template <class T>
POOLNB_HD void gumbel_factors(BitsF word, T* to) {
  uniforms(word, to);
  for (int l = 0; l < kWords; l += Traits<Vec<T>>::lanes) store(to + l, gumbel_factor(load<Vec<T>>(to + l)));
}

// One number for each of the positions `first` .. `first + n - 1`.
template <class T>
void draw_windows(T* to, uint64_t first, int64_t n, const PhiloxKeys& keys, Stream stream) {
  constexpr auto all = std::make_index_sequence<kWords>();
  BitsF word[1][4], pair[4], row[4];
  uint32_t words[4 * kWords];
  for (uint64_t block = first / 4; block * 4 < first + n; block += kWords) {
    philox_words<1>(keys, &block, 1, 0, stream, word);
    // From one vector per word to the order of positions.
    interleave(word[0][0], word[0][2], pair[0], pair[1], all);
    interleave(word[0][1], word[0][3], pair[2], pair[3], all);
    interleave(pair[0], pair[2], row[0], row[1], all);
    interleave(pair[1], pair[3], row[2], row[3], all);
    std::memcpy(words, row, sizeof row);
    const int64_t start = int64_t(block * 4 - first);  // negative in the first block
    const int64_t begin = std::max<int64_t>(0, -start), end = std::min<int64_t>(4 * kWords, n - start);
    if (end - begin == 4 * kWords)
      for (int64_t i = 0; i < 4 * kWords; ++i) to[start + i] = uniform<T>(words[i]);
    else
      for (int64_t i = begin; i < end; ++i) to[start + i] = uniform<T>(words[i]);
  }
}

// The Gumbel factor of each tap of those positions: tap t of position i goes to[t * step + i].
template <class T>
void draw_taps(T* to, int64_t step, int64_t taps, uint64_t first, int64_t n, const PhiloxKeys& keys, Stream stream) {
  BitsF word[2][4];
  T noise[kWords];
  for (int64_t tap = 0; tap < taps; tap += 4)
    for (int64_t i = 0; i < n; i += 2 * kWords) {
      const uint64_t blocks[2] = {first + i, first + i + kWords};
      philox_words<2>(keys, blocks, 1, uint32_t(tap / 4), stream, word);
      for (int j = 0; j < 2; ++j)
        for (int k = 0; k < 4 && tap + k < taps; ++k) {
          const int64_t left = n - i - j * kWords;
          T* there = to + (tap + k) * step + i + j * kWords;
          gumbel_factors(word[j][k], noise);
          if (left >= kWords) std::copy_n(noise, kWords, there);
          else if (left > 0) std::copy_n(noise, left, there);
        }
    }
}

// The same for vectors of positions `first`, `first + apart`, ... and for the next positions, `count` in all: those of
// position i from to[i * width] on, whole vectors.
template <class T>
void draw_taps_across(T* to, int64_t width, int64_t step, int64_t taps, uint64_t first, int64_t count, uint64_t apart,
                      const PhiloxKeys& keys, Stream stream) {
  BitsF word[2][4];
  T noise[kWords];
  for (int64_t tap = 0; tap < taps; tap += 4)
    for (int64_t i = 0; i < count; i += 2) {
      const int64_t next[2] = {i, std::min(i + 1, count - 1)};
      const uint64_t blocks[2] = {first + next[0], first + next[1]};
      philox_words<2>(keys, blocks, apart, uint32_t(tap / 4), stream, word);
      for (int j = 0; j < 2; ++j)
        for (int k = 0; k < 4 && tap + k < taps; ++k) {
          gumbel_factors(word[j][k], noise);
          std::copy_n(noise, Traits<Vec<T>>::lanes, to + (tap + k) * step + next[j] * width);
        }
    }
}

// One number for each of the same positions; `apart` is a multiple of 4, so that four positions share a block.
template <class T>
void draw_windows_across(T* to, int64_t width, uint64_t first, int64_t count, uint64_t apart, const PhiloxKeys& keys,
                         Stream stream) {
  BitsF word[1][4];
  T number[kWords];
  for (int64_t i = -int64_t(first % 4); i < count; i += 4) {
    const uint64_t block = (first + i) / 4;
    philox_words<1>(keys, &block, apart / 4, 0, stream, word);
    for (int64_t k = std::max<int64_t>(0, -i); k < std::min<int64_t>(4, count - i); ++k) {
      uniforms(word[0][k], number);
      std::copy_n(number, Traits<Vec<T>>::lanes, to + (i + k) * width);
    }
  }
}

}  // namespace poolnb
