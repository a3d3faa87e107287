// Windows that share taps, of an operator that goes by sums (sums.h): the features of every tap are made once, and added
// along one axis, then the next, which takes k + k additions where a window has k * k taps. Backward sends what windows
// hand back the same way in the other direction, and ends with one expression per tap. Blocks lie as in block.h: there
// one tap of all windows is one stretch of numbers, and a sum along an axis adds such stretches.
// A block with values out of reach, or with a result that is not finite, goes window by window.
#pragma once

#include "sums.h"
#include "windows.h"

namespace poolnb {

// to[i] = the sum of from[i + offset], for vectors of i.
template <class V, class T = typename Traits<V>::Number>
POOLNB_HD void add_stretches(T* to, const T* from, const std::vector<int64_t>& offsets, int64_t length) {
  constexpr int64_t lanes = Traits<V>::lanes;
  int64_t i = 0;
  for (; i + 4 * lanes <= length; i += 4 * lanes) {
    V sum[4] = {};
    for (const int64_t offset : offsets)
      for (int k = 0; k < 4; ++k) sum[k] = sum[k] + load<V>(from + i + k * lanes + offset);
    for (int k = 0; k < 4; ++k) store<V>(to + i + k * lanes, sum[k]);
  }
  for (; i < length; i += lanes) {
    V sum = splat<V>(0);
    for (const int64_t offset : offsets) sum = sum + load<V>(from + i + offset);
    store<V>(to + i, sum);
  }
}

template <class Op, class T>
class Overlapping : Generic<Op, T> {
  using Base = Generic<Op, T>;
  using typename Base::V;
  using Base::lanes, Base::p_, Base::q_, Base::w_, Base::masked_, Base::x_block_, Base::sum_block_, Base::y_block_,
      Base::valid_block_, Base::parameter_, Base::band_, Base::windows_, Base::n_, Base::c_,
      Base::count_, Base::vectors_;
  using Sums = typename Op::template Sums<V>;
  static constexpr int kFeatures = std::max(Sums::features, Sums::learned);

 public:
  explicit Overlapping(const Plan<T>& plan)
      : Base(plan), learns_(plan.backward && Op::parameters && q_.want_parameters), pitch_(p_.in.plane + lead()) {
    const int64_t size = p_.in.size + lanes, planes = p_.in.size / p_.in.plane;
    for (int k = 0; k < features(); ++k) feature_[k] = Buffer<T>(size), sum_[k] = Buffer<T>(size);
    for (auto& part : part_) part = Buffer<T>(planes * pitch_ + lanes);
    number_ = Buffer<T>(masked_ ? size : 0);
    for (auto& back : back_) back = Buffer<T>(p_.backward ? pitch_ + lanes : 0);
    for (auto& spread : spread_) spread = Buffer<T>(p_.backward ? size : 0);
  }

  void forward(int64_t unit) {
    this->each_image(unit, [&] {
      if (forward_sums()) write_block(y_block_.data(), p_.out, this->window_box(), q_.output, n_, c_, count_);
      else this->forward_image();
    });
  }

  void backward(int64_t unit, T* partial) {
    this->each_image(unit, [&] {
      if (!backward_sums()) this->backward_image();
    });
    if (q_.want_parameters) this->write_parameters(partial);
  }

 private:
  int features() const { return learns_ ? Sums::learned : Sums::features; }

  bool forward_sums() {
    if (!make_features<Sums::features>(Sums::reach)) return false;
    Reach<V> seen;
    each_window([&](const Sums& op, int64_t at, auto active) {
      V sums[kFeatures];
      const V y = op.template value<Sums::features>(read_sums(at, sums), number(at));
      seen.result(select(active, y, splat<V>(0)));
      store<V>(y_block_.data() + at, y);
    });
    return seen.finite(real_lanes());
  }

  bool backward_sums() {
    if constexpr (Sums::learned > 0)
      if (learns_) return !p_.folded && backward_sums<Op::parameters != 0>();
    return backward_sums<false>();
  }
  template <bool learns>
  bool backward_sums() {
    if (!make_features<learns ? Sums::learned : Sums::features>(Sums::reach_back)) return false;
    read_block(y_block_.data(), p_.out, this->window_box(), q_.grad, n_, c_, count_);
    if (!hand_back<learns>()) return false;
    for (int k = 0; k < Sums::back; ++k) spread(back_[k].data() + lead(), spread_[k].data());
    if (!make_grads()) return false;
    for (int i = 0; i < Op::inputs; ++i)
      if (q_.grad_input[i].data) this->write_sum(i);
    if constexpr (learns) {
      T* sum = this->parameter_sum_[0].data();
      store<V>(sum, load<V>(sum) + learned_);
    }
    return true;
  }

  // All, but for what follows the last channel.
  typename Traits<V>::Mask real_lanes() const {
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    return load<V>(number) < splat<V>(T(p_.channels ? count_ : lanes));
  }

  // ---- the features of taps, and their sums over windows -----------------------------------------------------------

  template <int count>
  __attribute__((noinline)) bool make_features(float reach) {
    Reach<V> seen;
    const char* next = next_channel();
    each_tap([&](const Sums& op, int64_t at, auto valid) POOLNB_INLINE {
      const V x = tap(0, at, valid), second = Op::inputs > 1 ? tap(Op::inputs - 1, at, valid) : x;
      __builtin_prefetch(next + at * number_size(), 0, 2);
      look_at(seen, op, x, second, valid);
      V f[count];
      op.template tap<count>(x, second, f);
      for (int k = 0; k < count; ++k) store<V>(feature_[k].data() + at, select(valid, f[k], splat<V>(0)));
    });
    if (!seen.within(reach, real_lanes())) return false;
    for (int k = 0; k < count; ++k) add_windows(feature_[k].data(), sum_[k].data());
    if (masked_ && (q_.mask.data || counted_band_ != band_)) {
      add_windows(valid_block_.data(), number_.data());
      counted_band_ = band_;
    }
    return true;
  }

  // What the next unit is likely to read: else memory is idle while this one is worked on.
  int64_t number_size() const { return p_.halves ? 2 : sizeof(T); }
  const char* next_channel() const {
    const View& v = q_.input[0];
    return static_cast<const char*>(this->at_positions(v)) + v.stride[1] * count_ * number_size();
  }

  template <class Valid>
  POOLNB_HD V tap(int i, int64_t at, Valid valid) const {
    return select(valid, load<V>(x_block_[i].data() + at), splat<V>(0));
  }

  // each(op, at, valid) for every vector of a block of taps. Where channels are folded into depth, a slice has its own
  // parameter, and what its last vector says of the next slice is overwritten by that one.
  template <class Each>
  POOLNB_HD void each_tap(const Each& each) const {
    const auto run = [&](V parameter, int64_t at, int64_t n) POOLNB_INLINE {
      const Sums op(parameter, q_.options);
      if (masked_)
        for (int64_t i = 0; i < n; ++i, at += lanes) each(op, at, load<V>(valid_block_.data() + at) != splat<V>(0));
      else
        for (int64_t i = 0; i < n; ++i, at += lanes) each(op, at, Always{});
    };
    const Layout& in = p_.in;
    if (!p_.folded || !Op::parameters) {
      run(parameter(0), 0, in.size / lanes);
    } else {
      for (int64_t d = 0; d < windows_[0]; ++d)
        for (int64_t plane = 0; plane < in.size; plane += in.plane)
          run(splat<V>(parameter_[0].data()[p_.out.at(d, 0, 0)]), plane + d * in.step[0],
              (in.step[0] + lanes - 1) / lanes);
    }
  }

  // Of a vector of windows; a block along channels is one vector wide.
  POOLNB_HD V parameter(int64_t window) const {
    if constexpr (Op::parameters == 0) return splat<V>(0);
    const T* from = parameter_[0].data();
    return p_.folded ? load<V>(from + window) : p_.channels ? load<V>(from) : splat<V>(from[0]);
  }

  // ---- windows ------------------------------------------------------------------------------------------------------

  // each(op, at, active) for every vector of windows.
  template <class Each>
  POOLNB_HD void each_window(const Each& each) const {
    if (!p_.channels) {
      for (int64_t b = 0; b < vectors_; ++b)
        each(Sums(parameter(b * lanes), q_.options), b * lanes, this->is_active(b));
      return;
    }
    const Sums op(parameter(0), q_.options);
    this->Unit<Op, T>::each_window([&](int64_t d, int64_t h, int64_t w) POOLNB_INLINE {
      each(op, p_.out.at(d, h, w), Always{});
    });
  }

  template <int count = Sums::features>
  POOLNB_HD const V* read_sums(int64_t at, V* sums) const {
    for (int k = 0; k < count; ++k) sums[k] = load<V>(sum_[k].data() + at);
    return sums;
  }
  POOLNB_HD V number(int64_t at) const {
    return masked_ ? load<V>(number_.data() + at) : splat<V>(T(w_.taps()));
  }

  template <bool learns>
  __attribute__((noinline)) bool hand_back() {
    constexpr int count = learns ? Sums::learned : Sums::features;
    const T* g = y_block_.data();
    const T* g_counted = this->counted(g);
    for (auto& back : back_) back.zero();
    Reach<V> seen;
    V learned = splat<V>(0), size = splat<V>(0), rough = splat<V>(0);
    each_window([&](const Sums& op, int64_t at, auto active) POOLNB_INLINE {
      V sums[kFeatures], back[Sums::back];
      read_sums<count>(at, sums);
      const V n = number(at), y = op.template value<count>(sums, n), gy = load<V>(g + at);
      op.hand_back(sums, n, y, gy, back);
      seen.result(select(active, y, splat<V>(0)));
      for (int k = 0; k < Sums::back; ++k)
        store<V>(back_[k].data() + lead() + at, select(active, back[k], splat<V>(0)));
      if constexpr (learns) {
        V lost;
        const V d = select(active, op.param_grad(sums, n, y, lost), splat<V>(0));
        const V gp = select(active, load<V>(g_counted + at), splat<V>(0));
        lost = select(active, lost, splat<V>(0));
        learned = learned + gp * d;
        size = size + vabs(gp * d);
        rough = rough + vabs(gp) * lost;
      }
    });
    learned_ = learned;
    return seen.finite(real_lanes()) && (!learns || few_digits_lost(size, rough));
  }

  bool few_digits_lost(V size, V rough) const {
    if (!p_.channels) size = sum_of_lanes(size), rough = sum_of_lanes(rough);
    return !any((rough > splat<V>(kRough) * size) & real_lanes());
  }

  __attribute__((noinline)) bool make_grads() {
    Reach<V> seen;
    each_tap([&](const Sums& op, int64_t at, auto valid) POOLNB_INLINE {
      const V x = tap(0, at, valid), second = Op::inputs > 1 ? tap(Op::inputs - 1, at, valid) : x;
      V back[Sums::back], d_second = splat<V>(0);
      for (int k = 0; k < Sums::back; ++k) back[k] = load<V>(spread_[k].data() + at);
      const V e = load<V>(feature_[0].data() + at);
      const V d = select(valid, op.tap_grad(x, second, e, back, d_second), splat<V>(0));
      d_second = select(valid, d_second, splat<V>(0));
      seen.result(d);
      seen.result(d_second);
      store<V>(sum_block_[0].data() + at, d);
      if (Op::inputs > 1) store<V>(sum_block_[Op::inputs - 1].data() + at, d_second);
    });
    return seen.finite(real_lanes());
  }

  // ---- sums along axes ------------------------------------------------------------------------------------------------

  // Where an axis changes nothing, it is left out.
  bool idle(int a) const { return w_.kernel[a] == 1 && w_.stride[a] == 1 && (a == 0 || w_.size[a] == 1); }
  int64_t shift(int a) const { return w_.dilation[a] * (w_.kernel[a] - 1) / w_.stride[a] * p_.in.step[a]; }
  // Zeros before a plane of what windows hand back: taps at the begin of a row have no windows before the first.
  int64_t lead() const { return p_.channels ? 0 : round_up(shift(0) + shift(1) + shift(2), lanes); }
  // Positions of a block along an axis.
  int64_t extent(int a) const { return (a == 0 ? p_.in.size : p_.in.step[a - 1]) / p_.in.step[a]; }

  // From a block of taps to windows, the last axis first.
  __attribute__((noinline)) void add_windows(const T* from, T* to) {
    const int last = !idle(0) ? 0 : !idle(1) ? 1 : 2;
    for (int a = 2; a >= last; --a) {
      if (idle(a)) continue;
      T* next = a == last ? to : part_[a % 2].data();
      p_.channels ? add_runs(a, from, next) : add_planes(a, from, next);
      from = next;
    }
  }
  // Planes of remainders become one, axis by axis.
  void add_planes(int a, const T* from, T* to) {
    const Layout& in = p_.in;
    int64_t length = p_.out.at(windows_[0] - 1, windows_[1] - 1, windows_[2] - 1) + 1, outer = 1, inner = in.plane;
    for (int b = 0; b < a; ++b) length += shift(b), outer *= in.stride[b];
    offsets_.clear();
    for (int64_t k = 0; k < w_.kernel[a]; ++k) {
      const int64_t at = k * w_.dilation[a];
      offsets_.push_back(at % in.stride[a] * inner + at / in.stride[a] * in.step[a]);
    }
    for (int64_t r = 0; r < outer; ++r) add_stretches<V>(to + r * inner, from + r * in.stride[a] * inner, offsets_, length);
  }
  // Along channels, positions become windows, axis by axis; what lies inside of an axis is a run.
  void add_runs(int a, const T* from, T* to) {
    const int64_t step = a == 2 ? p_.in.step[2] : p_.out.step[a], box = this->input_box().extent[0];
    offsets_.clear();
    for (int64_t k = 0; k < w_.kernel[a]; ++k) offsets_.push_back(k * w_.dilation[a] * step);
    const int64_t rows = a == 0 ? 1 : a == 1 ? box : box * extent(1);
    const int64_t pitch = extent(a) * step, to_pitch = p_.out.step[a - 1 < 0 ? 0 : a - 1];
    const bool together = w_.stride[a] == 1;  // the windows of a row are one run
    const int64_t run = a == 2 ? lanes : a == 1 ? windows_[2] * lanes : (windows_[1] - 1) * p_.out.step[1] + windows_[2] * lanes;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t o = 0; o < (together ? 1 : windows_[a]); ++o)
        add_stretches<V>(to + r * to_pitch + o * p_.out.step[a], from + r * pitch + o * w_.stride[a] * step, offsets_,
                         together ? (windows_[a] - 1) * step + run : run);
  }

  // And back, the first axis first: from windows to the taps that they hold.
  __attribute__((noinline)) void spread(const T* from, T* to) {
    for (int a = 0; a < 3; ++a) {
      if (a < 2 && idle(a)) continue;
      T* next = a == 2 ? to : part_[a % 2].data() + lead();
      p_.channels ? spread_runs(a, from, next) : spread_planes(a, from, next);
      from = next;
    }
  }
  void spread_planes(int a, const T* from, T* to) {
    const Layout& in = p_.in;
    int64_t outer = 1;
    for (int b = 0; b < a; ++b) outer *= in.stride[b];
    for (int64_t r = 0; a < 2 && r < outer * in.stride[a]; ++r) std::fill_n(to + r * pitch_ - lead(), lead(), T(0));
    for (int64_t q = 0; q < in.stride[a]; ++q) {
      offsets_.clear();
      for (int64_t k = 0; k < w_.kernel[a]; ++k) {
        const int64_t at = k * w_.dilation[a];
        if (at % in.stride[a] == q) offsets_.push_back(-(at / in.stride[a]) * in.step[a]);
      }
      for (int64_t r = 0; r < outer; ++r)
        add_stretches<V>(to + (r * in.stride[a] + q) * (a == 2 ? in.plane : pitch_), from + r * pitch_, offsets_, in.plane);
    }
  }
  void spread_runs(int a, const T* from, T* to) {
    const int64_t step = p_.out.step[a], rows = a == 0 ? 1 : a == 1 ? extent(0) : extent(0) * extent(1);
    const int64_t from_pitch = a == 0 ? 0 : p_.out.step[a - 1], to_step = a == 2 ? p_.in.step[2] : step;
    const int64_t run = a == 2 ? lanes : a == 1 ? windows_[2] * lanes : (windows_[1] - 1) * p_.out.step[1] + windows_[2] * lanes;
    for (int64_t i = 0; i < extent(a); ++i) {
      offsets_.clear();
      for (int64_t o = 0; o < windows_[a]; ++o) {
        const int64_t at = i - o * w_.stride[a], k = at / w_.dilation[a];
        if (at >= 0 && at % w_.dilation[a] == 0 && k < w_.kernel[a]) offsets_.push_back(o * step);
      }
      for (int64_t r = 0; r < rows; ++r)
        add_stretches<V>(to + (r * extent(a) + i) * to_step, from + r * from_pitch, offsets_, run);
    }
  }

  const bool learns_;
  const int64_t pitch_;  // between planes with their zeros before them
  Buffer<T> feature_[kFeatures], sum_[kFeatures], part_[2], number_, back_[Sums::back], spread_[Sums::back];
  std::vector<int64_t> offsets_;
  V learned_;
  int64_t counted_band_ = -1;
};

}  // namespace poolnb
