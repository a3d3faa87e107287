// The taps of a vector of windows, as the window maths sees them (../taps.h), and what is saved of them.
#pragma once

#include "../taps.h"
#include "lines.h"

namespace poolnb {

// One vector of windows: K taps (0: `n`; -1: `n`, which may be so many that they have no table); `masked`: some of them
// may not be valid.
template <class V, int K, bool masked>
struct VecTaps {
  using T = typename Traits<V>::Number;
  static constexpr bool fixed = K > 0, many = K < 0;
  const int64_t *offset, *offset_valid;  // null: multiples of `step`
  const T *from, *from_second, *from_valid, *from_noise;
  int64_t n, noise_step, step, step_valid;
  const T* weights;  // of an operator that has some: of every tap the weight, then its first part, then its second

  POOLNB_HD int64_t count() const { return K > 0 ? K : n; }
  POOLNB_HD int64_t place(int64_t i) const { return many && !offset ? i * step : offset[i]; }
  POOLNB_HD int64_t place_valid(int64_t i) const { return many && !offset_valid ? i * step_valid : offset_valid[i]; }
  POOLNB_HD auto valid(int64_t i) const {
    if constexpr (masked) return load<V>(from_valid + place_valid(i)) != splat<V>(0);
    else return Always{};
  }
  POOLNB_HD V x(int64_t i) const { return select(valid(i), load<V>(from + place(i)), splat<V>(0)); }
  POOLNB_HD V second(int64_t i) const { return select(valid(i), load<V>(from_second + place(i)), splat<V>(0)); }
  POOLNB_HD V noise(int64_t i) const { return load<V>(from_noise + i * noise_step); }
  POOLNB_HD V weight(int64_t i) const { return splat<V>(weights[i]); }
  POOLNB_HD V weight_part(int64_t i) const { return splat<V>(weights[count() + i]); }
  POOLNB_HD V weight_whole(int64_t i) const { return splat<V>(weights[2 * count() + i]); }
};

// Four taps that are in registers already.
template <class V>
struct HeldTaps {
  using T = typename Traits<V>::Number;
  static constexpr bool fixed = true;
  V value[4], value_second[4];
  const T* from_noise;
  int64_t noise_step;
  const T* weights;

  POOLNB_HD int64_t count() const { return 4; }
  POOLNB_HD Always valid(int64_t) const { return {}; }
  POOLNB_HD V x(int64_t i) const { return value[i]; }
  POOLNB_HD V second(int64_t i) const { return value_second[i]; }
  POOLNB_HD V noise(int64_t i) const { return load<V>(from_noise + i * noise_step); }
  POOLNB_HD V weight(int64_t i) const { return splat<V>(weights[i]); }
  POOLNB_HD V weight_part(int64_t i) const { return splat<V>(weights[4 + i]); }
  POOLNB_HD V weight_whole(int64_t i) const { return splat<V>(weights[8 + i]); }
};

template <class V, int K>
struct Saved {
  static constexpr bool keeps = true, backward = true;
  V kept[K];
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
};
template <class V>
struct Saved<V, 0> {
  static constexpr bool keeps = true, backward = true;
  V* kept;
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
};

}  // namespace poolnb
