// Which window or which position a thread works on.
#pragma once

#include "numbers.h"
#include "operators.h"

namespace poolnb {

// Division of numbers of at least 0. A GPU has no instruction for it: below 2^31 a product and a shift find the quotient,
// which is exact (Granlund and Montgomery 1994); what is longer is divided as it is.
class Divider {
 public:
  static constexpr int64_t kShort = int64_t(1) << 31;

  Divider() = default;
  explicit Divider(int64_t by) : by_(by > 1 ? by : 1), short_(by < kShort) {
    while ((int64_t(1) << shift_) < by) ++shift_;
    const uint64_t above = (uint64_t(1) << shift_) - uint64_t(by_);
    factor_ = short_ ? uint32_t((above << 32) / uint64_t(by_)) + 1 : 0;
  }

  POOLNB_HD int64_t quotient(int64_t x) const { return x < kShort && short_ ? of_short(uint32_t(x)) : x / by_; }
  // The place on an axis of `by` places, of a number that counts it first; what is left counts the other axes.
  POOLNB_HD int64_t take(int64_t& number) const {
    const int64_t all = number;
    number = quotient(all);
    return all - number * by_;
  }
  // Of numbers and `by` below 2^31.
  POOLNB_HD int32_t quotient(int32_t x) const { return int32_t(of_short(uint32_t(x))); }
  POOLNB_HD int32_t take(int32_t& number) const {
    const int32_t all = number;
    number = quotient(all);
    return all - number * int32_t(by_);
  }

 private:
  POOLNB_HD uint32_t of_short(uint32_t x) const {
#if defined(__CUDA_ARCH__)
    return (__umulhi(x, factor_) + x) >> shift_;
#else
    return (uint32_t((uint64_t(x) * factor_) >> 32) + x) >> shift_;
#endif
  }

  int64_t by_ = 1;
  uint32_t factor_ = 1, shift_ = 0;
  bool short_ = true;
};

// Sample, channel, and window or position. Where all offsets are below 2^31, `Number` is int32_t: products of 64 bits take
// a GPU four instructions.
template <class Number>
struct BasicSite {
  Number n, c, o[3];
};
using Site = BasicSite<int64_t>;
using ShortSite = BasicSite<int32_t>;

template <class Number>
POOLNB_BODY Number offset(const View& v, Number n, Number c, Number d, Number h, Number w) {
  return n * Number(v.stride[0]) + c * Number(v.stride[1]) + d * Number(v.stride[2]) + h * Number(v.stride[3]) +
         w * Number(v.stride[4]);
}
template <class Number>
POOLNB_BODY Number offset(const View& v, const BasicSite<Number>& s) {
  return offset<Number>(v, s.n, s.c, s.o[0], s.o[1], s.o[2]);
}

// Threads run in the order of memory, so that those of a warp read and write neighbours. `last`: channels run first.
struct Grid {
  bool last;
  bool is_short;  // every number, and every offset in a tensor, is below 2^31
  Divider channels, output[3], size[3], stride[3];

  Grid(const Problem& q, bool last) : last(last), channels(q.channels) {
    for (int a = 0; a < 3; ++a) {
      output[a] = Divider(q.windows.output[a]);
      size[a] = Divider(q.windows.size[a]);
      stride[a] = Divider(q.windows.stride[a]);
    }
    is_short = reaches_short(q);
  }

  // Of a window, and of a position.
  template <class Number>
  POOLNB_BODY BasicSite<Number> window(int64_t thread) const { return place<Number>(output, thread); }
  template <class Number>
  POOLNB_BODY BasicSite<Number> position(int64_t thread) const { return place<Number>(size, thread); }
  // The number of the thread of a window.
  template <class Number>
  POOLNB_BODY Number number(const Problem& q, const BasicSite<Number>& s) const {
    const int64_t* o = q.windows.output;
    const Number place = (s.o[0] * Number(o[1]) + s.o[1]) * Number(o[2]) + s.o[2], plane = Number(q.windows.count());
    const Number channels = Number(q.channels);
    return last ? (s.n * plane + place) * channels + s.c : (s.n * channels + s.c) * plane + place;
  }

 private:
  template <class Number>
  POOLNB_BODY BasicSite<Number> place(const Divider (&axes)[3], Number thread) const {
    BasicSite<Number> s;
    if (last) s.c = channels.take(thread);
    for (int a = 2; a >= 0; --a) s.o[a] = axes[a].take(thread);
    if (!last) s.c = channels.take(thread);
    s.n = thread;
    return s;
  }

  static bool reaches_short(const Problem& q) {
    const Windows& w = q.windows;
    const auto reaches = [&](const View& v, const int64_t* space) {
      const int64_t sizes[5] = {q.batch, q.channels, space[0], space[1], space[2]};
      int64_t last = 0;
      for (int d = 0; d < 5; ++d) last += sizes[d] * v.stride[d];
      return last < Divider::kShort;
    };
    bool all = window_count(q) < Divider::kShort && position_count(q) < Divider::kShort && reaches(q.mask, w.size);
    for (int a = 0; a < 3; ++a) all = all && w.size[a] + w.padding[a] + w.stride[a] + w.span(a) < Divider::kShort;
    for (int i = 0; i < kMaxInputs; ++i) all = all && reaches(q.input[i], w.size) && reaches(q.grad_input[i], w.size);
    for (int i = 0; i < kMaxParameters; ++i)
      all = all && reaches(q.parameter[i], w.output) && reaches(q.grad_parameter[i], w.output);
    for (const Table& t : q.table) {
      const int64_t* stride = t.view.stride;
      all = all && q.channels * stride[1] + t.filters * stride[3] + t.width * stride[4] < Divider::kShort;
    }
    return all && reaches(q.output, w.output) && reaches(q.grad, w.output);
  }
};

}  // namespace poolnb
