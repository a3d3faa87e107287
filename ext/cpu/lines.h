// Lines of numbers, in and out of memory: the half types, steps, and their conversion. Nothing here knows of windows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../lane.h"

namespace poolnb {

// ---- numbers in memory --------------------------------------------------------------------------------------------

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

// ---- lines: n numbers with a step ---------------------------------------------------------------------------------

template <class T, class S>
inline void read_line(T* to, int64_t to_step, const S* from, int64_t step, int64_t n) {
  if (to_step == 1 && step == 1) {
    if constexpr (std::is_same_v<T, S>) std::memcpy(to, from, n * sizeof(T));
    else for (int64_t i = 0; i < n; ++i) to[i] = T(number(from[i]));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_step] = T(number(from[i * step]));
  }
}

template <class T, class S>
inline void write_line(S* to, int64_t to_step, const T* from, int64_t step, int64_t n) {
  if (to_step == 1 && step == 1) {
    if constexpr (std::is_same_v<T, S>) std::memcpy(to, from, n * sizeof(T));
    else for (int64_t i = 0; i < n; ++i) put(to + i, from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) put(to + i * to_step, from[i * step]);
  }
}

// Every second number to `even`, the others to `odd`, and back: what a stride of 2 needs. Whole packs are shuffled; the
// last one overlaps its neighbour, so that no number is moved alone.
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
  if constexpr (std::is_same_v<T, S>) return read_pairs_by<Traits<Pack<T>>::lanes>(even, odd, from, n);
  for (int64_t i = 0; i < n; ++i) {
    even[i] = T(number(from[2 * i]));
    odd[i] = T(number(from[2 * i + 1]));
  }
}

template <class T, class S>
inline void write_pairs(S* to, const T* even, const T* odd, int64_t n) {
  if constexpr (std::is_same_v<T, S>) return write_pairs_by<Traits<Pack<T>>::lanes>(to, even, odd, n);
  for (int64_t i = 0; i < n; ++i) {
    put(to + 2 * i, even[i]);
    put(to + 2 * i + 1, odd[i]);
  }
}

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
