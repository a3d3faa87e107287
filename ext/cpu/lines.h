// Lines of numbers, in and out of memory: steps, and conversion by vectors. Nothing here knows of windows.
#pragma once

#include <algorithm>
#include <vector>

#include "numbers.h"

namespace poolnb {

// ---- lines: n numbers with a step ---------------------------------------------------------------------------------

// Floats here, another number of theirs there: moved by vectors.
template <class T, class S>
constexpr bool by_vectors = std::is_same_v<T, float> && (std::is_same_v<S, Half> || std::is_same_v<S, BFloat>);

// One vector is what many runs of channels are: no call for that.
template <class T>
inline void copy_line(T* to, const T* from, int64_t n) {
  if (n == Traits<Vec<T>>::lanes) store<Vec<T>>(to, load<Vec<T>>(from));
  else std::memcpy(to, from, n * sizeof(T));
}

template <class T, class S>
inline void read_line(T* to, int64_t to_step, const S* from, int64_t step, int64_t n) {
  int64_t i = 0;
  if (to_step == 1 && step == 1) {
    if constexpr (std::is_same_v<T, S>) return copy_line(to, from, n);
    if constexpr (by_vectors<T, S>)
      for (constexpr int lanes = Traits<VecF>::lanes; i + lanes <= n; i += lanes)
        store<VecF>(to + i, load_as<VecF>(from + i));
  }
  for (; i < n; ++i) to[i * to_step] = T(number(from[i * step]));
}

template <class T, class S>
inline void write_line(S* to, int64_t to_step, const T* from, int64_t step, int64_t n) {
  int64_t i = 0;
  if (to_step == 1 && step == 1) {
    if constexpr (std::is_same_v<T, S>) return copy_line(to, from, n);
    if constexpr (by_vectors<T, S>)
      for (constexpr int lanes = Traits<VecF>::lanes; i + lanes <= n; i += lanes)
        store_as(to + i, load<VecF>(from + i));
  }
  for (; i < n; ++i) put(to + i * to_step, from[i * step]);
}

// Pairs: even numbers in one line, odd ones in another. Whole vectors are shuffled; the last overlaps its neighbour,
// so that no number is moved alone.
template <class T, int64_t lanes>
struct Vector {
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};

// Lines shorter than `lanes` go with fewer at once.
template <int64_t lanes, class T>
inline void read_pairs_by(T* even, T* odd, const T* from, int64_t n) {
  if constexpr (lanes == 1) {
    if (n) *even = from[0], *odd = from[1];
  } else {
    if (n < lanes) return read_pairs_by<lanes / 2>(even, odd, from, n);
    for (int64_t i = 0; i < n; i += lanes) {
      const int64_t at = i + lanes <= n ? i : n - lanes;
      typename Vector<T, lanes>::type a, b, e, o;
      std::memcpy(&a, from + 2 * at, sizeof a);
      std::memcpy(&b, from + 2 * at + lanes, sizeof b);
      deinterleave(a, b, e, o, std::make_index_sequence<lanes>());
      std::memcpy(even + at, &e, sizeof e);
      std::memcpy(odd + at, &o, sizeof o);
    }
  }
}
template <int64_t lanes, class T>
inline void write_pairs_by(T* to, const T* even, const T* odd, int64_t n) {
  if constexpr (lanes == 1) {
    if (n) to[0] = *even, to[1] = *odd;
  } else {
    if (n < lanes) return write_pairs_by<lanes / 2>(to, even, odd, n);
    for (int64_t i = 0; i < n; i += lanes) {
      const int64_t at = i + lanes <= n ? i : n - lanes;
      typename Vector<T, lanes>::type a, b, e, o;
      std::memcpy(&e, even + at, sizeof e);
      std::memcpy(&o, odd + at, sizeof o);
      interleave(e, o, a, b, std::make_index_sequence<lanes>());
      std::memcpy(to + 2 * at, &a, sizeof a);
      std::memcpy(to + 2 * at + lanes, &b, sizeof b);
    }
  }
}

template <class T, class S>
inline void read_pairs(T* even, T* odd, const S* from, int64_t n) {
  if constexpr (std::is_same_v<T, S>) return read_pairs_by<Traits<Vec<T>>::lanes>(even, odd, from, n);
  int64_t i = 0;
  if constexpr (by_vectors<T, S>)
    for (constexpr int lanes = Traits<VecF>::lanes; i + lanes <= n; i += lanes) {
      VecF e, o;
      load_pairs(from + 2 * i, e, o);
      store<VecF>(even + i, e);
      store<VecF>(odd + i, o);
    }
  for (; i < n; ++i) {
    even[i] = T(number(from[2 * i]));
    odd[i] = T(number(from[2 * i + 1]));
  }
}

template <class T, class S>
inline void write_pairs(S* to, const T* even, const T* odd, int64_t n) {
  if constexpr (std::is_same_v<T, S>) return write_pairs_by<Traits<Vec<T>>::lanes>(to, even, odd, n);
  int64_t i = 0;
  if constexpr (by_vectors<T, S>)
    for (constexpr int lanes = Traits<VecF>::lanes; i + lanes <= n; i += lanes)
      store_pairs(to + 2 * i, load<VecF>(even + i), load<VecF>(odd + i));
  for (; i < n; ++i) {
    put(to + 2 * i, even[i]);
    put(to + 2 * i + 1, odd[i]);
  }
}

// ---- tiles: as many lines as a vector has lanes, from lines to columns and back --------------------------------------

template <int half, class V, size_t... i>
POOLNB_HD void exchange(V& a, V& b, std::index_sequence<i...>) {
  constexpr int n = sizeof...(i);
  const V first = __builtin_shufflevector(a, b, (int(i) & half ? n + int(i) - half : int(i))...);
  b = __builtin_shufflevector(a, b, (int(i) & half ? n + int(i) : int(i) + half)...);
  a = first;
}
template <int half, class V>
POOLNB_HD void transpose(V* lines) {
  constexpr int lanes = Traits<V>::lanes;
  if constexpr (half > 0) {
    POOLNB_UNROLL for (int k = 0; k < lanes; ++k)
      if (!(k & half)) exchange<half>(lines[k], lines[k + half], std::make_index_sequence<lanes>());
    transpose<half / 2>(lines);
  }
}

template <class T, class S>
constexpr bool by_tiles = std::is_same_v<T, S> || by_vectors<T, S>;

// `to` and `from`: `lanes` lines each, so many numbers apart; one of them holds T.
template <class T, class From, class To>
inline void turn_tile(To* to, int64_t to_step, const From* from, int64_t step) {
  using V = Vec<T>;
  constexpr int lanes = Traits<V>::lanes;
  V lines[lanes];
  POOLNB_UNROLL for (int k = 0; k < lanes; ++k) lines[k] = load_as<V>(from + k * step);
  transpose<lanes / 2>(lines);
  POOLNB_UNROLL for (int k = 0; k < lanes; ++k) {
    if constexpr (std::is_same_v<T, To>) store<V>(to + k * to_step, lines[k]);
    else store_as(to + k * to_step, lines[k]);
  }
}

// tile(line, position) for all tiles of `lines` times `n` numbers, the last along a line overlapping its neighbour. How
// many lines were in one.
template <class T, class Tile>
inline int64_t each_tile(int64_t lines, int64_t n, const Tile& tile) {
  constexpr int64_t lanes = Traits<Vec<T>>::lanes;
  int64_t k = 0;
  for (; k + lanes <= lines && n >= lanes; k += lanes)
    for (int64_t i = 0; i < n; i += lanes) tile(k, std::min(i, n - lanes));
  return k;
}

// ---- buffers --------------------------------------------------------------------------------------------------------

// A buffer on a boundary of 64 bytes, all 0.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n = 0) : store_(n ? n + 64 / sizeof(T) : 0), size_(n) {
    const auto at = reinterpret_cast<uintptr_t>(store_.data());
    data_ = store_.data() + ((64 - at % 64) % 64) / sizeof(T);
  }
  int64_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  void fill(T x) { std::fill(store_.begin(), store_.end(), x); }
  void zero() { fill(0); }

  Buffer(Buffer&& other) = default;
  Buffer& operator=(Buffer&& other) = default;

 private:
  std::vector<T> store_;
  int64_t size_;
  T* data_;
};

}  // namespace poolnb
