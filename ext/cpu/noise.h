// The random numbers of many windows at once: packs of Philox counters.
#pragma once

#include <algorithm>

#include "../philox.h"
#include "lines.h"

namespace poolnb {

constexpr int kWords = POOLNB_BYTES / 4;

// Words of the blocks `block`, `block + step`, ...: word[k][i] is output k of the i-th one.
POOLNB_HD void philox_words(uint64_t seed, uint64_t block, uint64_t step, uint32_t draw, Stream stream, BitsF word[4]) {
  BitsD number{};
  for (int i = 0; i < kWords / 2; ++i) number[i] = i;
  const BitsD first = number * step + block, second = first + kWords / 2 * step;
  unweave(reinterpret_cast<BitsF>(first), reinterpret_cast<BitsF>(second), word[0], word[1],
          std::make_index_sequence<kWords>());  // low and high halves
  word[2] = BitsF{} + draw;
  word[3] = BitsF{} + uint32_t(stream);
  philox(word, seed);
}

// Gumbel noise from a pack of words.
template <class T>
POOLNB_HD void gumbels(BitsF word, T* noise) {
  if constexpr (sizeof(T) == 4) {
    store(noise, gumbel((__builtin_convertvector(MaskF(word >> 9), PackF) + 0.5f) * 1.1920928955078125e-7f));
    return;
  }
  uint32_t words[kWords];
  std::memcpy(words, &word, sizeof words);
  for (int i = 0; i < kWords; ++i) noise[i] = uniform<T>(words[i]);
  for (int l = 0; l < kWords; l += Traits<Pack<T>>::lanes) store(noise + l, gumbel(load<Pack<T>>(noise + l)));
}

// One number for each of the positions `first` .. `first + n - 1`.
template <class T>
void draw_windows(T* to, uint64_t first, int64_t n, uint64_t seed, Stream stream) {
  constexpr auto all = std::make_index_sequence<kWords>();
  BitsF word[4], pair[4], row[4];
  uint32_t words[4 * kWords];
  for (uint64_t block = first / 4; block * 4 < first + n; block += kWords) {
    philox_words(seed, block, 1, 0, stream, word);
    // From one pack per word to the order of positions.
    weave(word[0], word[2], pair[0], pair[1], all);
    weave(word[1], word[3], pair[2], pair[3], all);
    weave(pair[0], pair[2], row[0], row[1], all);
    weave(pair[1], pair[3], row[2], row[3], all);
    std::memcpy(words, row, sizeof row);
    const int64_t start = int64_t(block * 4 - first);  // negative in the first block
    const int64_t begin = std::max<int64_t>(0, -start), end = std::min<int64_t>(4 * kWords, n - start);
    if (end - begin == 4 * kWords)
      for (int64_t i = 0; i < 4 * kWords; ++i) to[start + i] = uniform<T>(words[i]);
    else
      for (int64_t i = begin; i < end; ++i) to[start + i] = uniform<T>(words[i]);
  }
}

// Gumbel noise for each tap of those positions: tap t of position i goes to[t * step + i].
template <class T>
void draw_taps(T* to, int64_t step, int64_t taps, uint64_t first, int64_t n, uint64_t seed, Stream stream) {
  BitsF word[4];
  T noise[kWords];
  for (int64_t tap = 0; tap < taps; tap += 4)
    for (int64_t i = 0; i < n; i += kWords) {
      philox_words(seed, first + i, 1, uint32_t(tap / 4), stream, word);
      for (int k = 0; k < 4 && tap + k < taps; ++k) {
        gumbels(word[k], noise);
        T* there = to + (tap + k) * step + i;
        if (n - i >= kWords) std::copy_n(noise, kWords, there);
        else std::copy_n(noise, n - i, there);
      }
    }
}

// The same for one pack of positions `first`, `first + apart`, ...; a whole pack is written.
template <class T>
void draw_taps_across(T* to, int64_t step, int64_t taps, uint64_t first, uint64_t apart, uint64_t seed, Stream stream) {
  BitsF word[4];
  T noise[kWords];
  for (int64_t tap = 0; tap < taps; tap += 4) {
    philox_words(seed, first, apart, uint32_t(tap / 4), stream, word);
    for (int k = 0; k < 4 && tap + k < taps; ++k) {
      gumbels(word[k], noise);
      std::copy_n(noise, Traits<Pack<T>>::lanes, to + (tap + k) * step);
    }
  }
}

}  // namespace poolnb
