// Windows of four taps of tensors whose channels lie together, used where they lie: a vector is one window of some
// channels, and its taps are four runs of memory.
#pragma once

#include "registers.h"

namespace poolnb {

template <class Op, class T, bool halves>
class ChannelsLast4 : public Registers<Op, T, 4, ChannelsLast4<Op, T, halves>> {
  using Base = Registers<Op, T, 4, ChannelsLast4<Op, T, halves>>;
  friend Base;
  using typename Base::V;
  using Base::lanes, Base::p_, Base::q_, Base::w_;

 public:
  explicit ChannelsLast4(const Plan<T>& plan) : Base(plan), dtype_(q_.input[0].dtype) {
    std::copy_n(this->read_.table(), 4, tap_);
    if (p_.backward) std::copy_n(this->sum_.table(), 4, tap_sum_);
  }

 private:
  // From the first number of the unit's image, in the inputs, in their gradients, in the output, in blocks.
  struct At {
    int64_t x, sum, y, out, lane;
  };

  template <class Each>
  POOLNB_HD void each_vector(const Each& each) {
    for (int i = 0; i < Op::inputs; ++i) {
      x_[i] = this->at_positions(q_.input[i]);
      if (p_.backward && q_.grad_input[i].data) dx_[i] = this->at_positions(q_.grad_input[i]);
    }
    y_ = this->at_windows(p_.backward ? q_.grad : q_.output);
    const int64_t width = this->vectors_ * lanes;
    int64_t out = 0;
    for (int64_t d = 0; d < this->windows_[0]; ++d)
      for (int64_t h = 0; h < this->windows_[1]; ++h) {
        At at{this->place(p_.read, d, h, 0), this->place(p_.sum, d, h, 0), p_.write.at(d, h, 0), out, 0};
        for (int64_t w = 0; w < this->windows_[2]; ++w) {
          if (width < kLongRun) ask_ahead(at, width);
          // Unrolled, one instruction reads at equal steps, which the processor foresees.
          _Pragma("GCC unroll 4") for (int64_t l = 0; l < width; l += lanes)
            each(At{at.x + l, at.sum + l, at.y + l, at.out + l, l});
          at.x += p_.read.step[2] * w_.stride[2];
          at.sum += p_.sum.step[2] * w_.stride[2];
          at.y += p_.write.step[2];
          at.out += p_.out.step[2];
        }
        out = at.out;
      }
  }

  // Short runs of channels in two rows, taken by turns: the memory does not see what comes next, and is asked for it.
  POOLNB_HD void ask_ahead(const At& at, int64_t width) const {
    for (int i = 0; i < Op::inputs; ++i)
      with_float_type<halves>(dtype_, x_[i], [&](auto* x) POOLNB_INLINE {
        for (int k = 0; k < 4; ++k)
          for (int64_t l = 0; l < width; l += kLine / sizeof(*x))
            __builtin_prefetch(x + at.x + tap_[k] + l + kSoon, 0, 3);
      });
  }

  POOLNB_HD void read_taps(const At& at, int i, V* taps) const {
    with_float_type<halves>(dtype_, x_[i], [&](auto* x) POOLNB_INLINE {
      for (int k = 0; k < 4; ++k) taps[k] = load_as<V>(x + at.x + tap_[k]);
    });
  }
  POOLNB_HD void write_taps(const At& at, int i, const V* taps) const {
    with_float_type<halves>(dtype_, dx_[i], [&](auto* dx) POOLNB_INLINE {
      for (int k = 0; k < 4; ++k) {
        auto* const to = dx + at.sum + tap_sum_[k];
        if (p_.streams) stream_as(to, taps[k]);
        else store_as(to, taps[k]);
      }
    });
  }
  POOLNB_HD V read_output(const At& at) const {
    V g;
    with_float_type<halves>(dtype_, y_, [&](auto* y) POOLNB_INLINE { g = load_as<V>(y + at.y); });
    return g;
  }
  POOLNB_HD void write_output(const At& at, V value) const {
    with_float_type<halves>(dtype_, y_, [&](auto* y) POOLNB_INLINE { store_as(y + at.y, value); });
  }
  int64_t out(const At& at) const { return at.out; }
  int64_t lane(const At& at) const { return at.lane; }
  int64_t held(const At&) const { return lanes; }
  Always fresh(const At&) const { return {}; }

  static constexpr int64_t kSoon = 512;     // numbers
  static constexpr int64_t kLongRun = 256;  // numbers
  static constexpr int64_t kLine = 64;      // bytes that memory gives at once

  const Dtype dtype_;
  void *x_[kMaxInputs], *dx_[kMaxInputs], *y_;
  int64_t tap_[4], tap_sum_[4];
};

}  // namespace poolnb
