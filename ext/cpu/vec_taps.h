// The taps of a vector of windows, as the window maths sees them (../taps.h), and what is saved of them.
#pragma once

#include "../taps.h"
#include "lines.h"

namespace poolnb {

// What an operator that is ordered or has tables has beside its taps.
template <class T>
struct Order {
  // Entries of tables: vectors of them, row by row and table by table, where the taps are not many; and where they lie:
  // a lane's channel counts from the first one, on the axis where channels are.
  const T* vectors = nullptr;
  int64_t vector_step = 0;
  const Table* tables = nullptr;
  int64_t first_channel = 0;
  int channel_axis = 1;
  // The channel of a lane, counted in the unit, is (place + lane) / lanes_of_channel. Lanes before `end` hold a window,
  // if they are `active`, or that is null.
  int64_t place = 0, lanes_of_channel = 1, end = 0;
  const T* active = nullptr;
  T* scratch = nullptr;               // two numbers per tap and lane, where the taps are not many
  std::vector<T>* long_rows = nullptr;  // where they are: per lane a row for the taps' slopes and one for the ranks'

  int64_t channel(int64_t lane) const { return (place + lane) / lanes_of_channel; }
  bool holds_window(int64_t lane) const { return lane < end && (!active || active[lane] != 0); }
  POOLNB_HD int64_t number(int t, int64_t f, int64_t i) const {
    return (t ? tables[0].numbers() : 0) + f * tables[t].width + i;
  }
  T entry_of_lane(int t, int64_t f, int64_t i, int64_t lane) const {
    const View& v = tables[t].view;
    const int64_t c = first_channel + channel(lane);
    return static_cast<const T*>(v.data)[c * v.stride[channel_axis] + f * v.stride[3] + i * v.stride[4]];
  }
  template <class V>
  V gather(int t, int64_t f, int64_t i) const {
    V entry = splat<V>(0);
    for (int64_t lane = 0; lane < Traits<V>::lanes; ++lane)
      if (holds_window(lane)) entry[lane] = entry_of_lane(t, f, i, lane);
    return entry;
  }
  template <class V, bool many>
  POOLNB_HD V entry(int t, int64_t f, int64_t i) const {
    if (many && !vectors) return gather<V>(t, f, i);
    return load<V>(vectors + number(t, f, i) * vector_step);
  }
};

// One vector of windows: K taps (0: `n`; -1: `n`, which may be so many that they have no table); `masked`: some of them
// may not be valid.
template <class V, int K, bool masked>
struct VecTaps {
  using T = typename Traits<V>::Number;
  static constexpr bool fixed = K > 0, many = K < 0;
  static constexpr int known = K > 0 ? K : 0;
  const int64_t *offset, *offset_valid;  // null: multiples of `step`
  const T *from, *from_second, *from_valid, *from_noise;
  int64_t n, noise_step, step, step_valid;
  const T* weights;  // of an operator that has some: of every tap the weight, then its first part, then its second
  Order<T> order;

  POOLNB_HD int64_t count() const { return K > 0 ? K : n; }
  POOLNB_HD int64_t filters(int t) const { return order.tables[t].filters; }
  POOLNB_HD V entry(int t, int64_t f, int64_t i) const { return order.template entry<V, many>(t, f, i); }
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

// K taps that are in registers already.
template <class V, int K>
struct HeldTaps {
  using T = typename Traits<V>::Number;
  static constexpr bool fixed = true, many = false;
  static constexpr int known = K;
  V value[K], value_second[K];
  const T* from_noise;
  int64_t noise_step;
  const T* weights;
  Order<T> order;

  POOLNB_HD int64_t count() const { return K; }
  POOLNB_HD int64_t filters(int t) const { return order.tables[t].filters; }
  POOLNB_HD V entry(int t, int64_t f, int64_t i) const { return order.template entry<V, many>(t, f, i); }
  POOLNB_HD Always valid(int64_t) const { return {}; }
  POOLNB_HD V x(int64_t i) const { return value[i]; }
  POOLNB_HD V second(int64_t i) const { return value_second[i]; }
  POOLNB_HD V noise(int64_t i) const { return load<V>(from_noise + i * noise_step); }
  POOLNB_HD V weight(int64_t i) const { return splat<V>(weights[i]); }
  POOLNB_HD V weight_part(int64_t i) const { return splat<V>(weights[K + i]); }
  POOLNB_HD V weight_whole(int64_t i) const { return splat<V>(weights[2 * K + i]); }
};

// Of any number of taps, in memory.
template <class V>
struct Saved<V, 0> {
  static constexpr bool keeps = true, backward = true;
  V *kept, *more;
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD void put_more(int64_t i, V v) { more[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
  POOLNB_HD V get_more(int64_t i) const { return more[i]; }
};

}  // namespace poolnb
