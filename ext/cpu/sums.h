// Operators whose windows are functions of sums, over their taps, of features of the single tap. Such an operator has
//   Sums<V>(parameter, options)   with
//     features, learned           how many sums a result takes, and how many with the parameter's gradient; 0: that one
//                                 goes window by window
//     back                        numbers that a window hands back to its taps
//     keeps                       whether f[0] costs more to make again than to keep; if not, several vectors of
//                                 channels are taken at once where one window covers all
//     from[backward]              taps per position from which on that pays along channels, where a tap costs less
//     reach, reach_back           how far `exponent` may lie from 0, forward and backward
//     exponent(x, second)         what keeps the features in range; NaN for a tap that needs the window by window path
//     squared                     if there and true: the first feature is the square of x, and `exponent` the size of x,
//                                 which has no reach: `value` is NaN where squares are too large
//     tap<count>(x, second, f)    the features of a tap, so many; f[0] alone is kept for `tap_grad`
//     value<count>(sums, n)       the output of a window with n valid taps; 0 of none, as every operator has it
//     hand_back(sums, n, y, g, b) from the output's gradient g; NaN where digits are lost
//     tap_grad(x, second, f0, s, d_second)   dx, of the sums of what its windows hand back; sets the second input's
//     param_grad(sums, n, y, rough)          dy/dparameter; `rough`: the size of what was subtracted to get it
// Features are made once per tap, not once per tap and window: see overlapping.h and global.h.
//
// No reference is taken off the exponents, so that no pass over the taps has to find one: `reach` keeps exp within
// float32, and what rounding a product costs, reach * 2^-24 of a weight, within a few times 1e-6. Backward subtracts
// numbers that are up to `reach_back` times larger than the difference: it is smaller. What is out of reach, or not
// finite, goes window by window, as all does without this.
#pragma once

#include "../taps.h"
#include "plan.h"

namespace poolnb {

template <class Op>
concept Summed = requires { Op::template Sums<VecF>::features; };

// What a plan has to know; whether a call can go by sums does not depend on where its windows lie.
template <class Op, class T>
Operator operator_of(const Problem& q, bool backward) {
  int sums = 0;
  if constexpr (Summed<Op> && Plan<T>::fixed) {
    const bool learns = backward && Op::parameters && q.want_parameters;
    if (!q.options.draws && (!learns || Op::template Sums<VecF>::learned)) sums = Op::template Sums<VecF>::from[backward];
  }
  return {Op::inputs, Tabled<Op>, sums};
}

constexpr float kLeastSquared = 0x1p-40f;  // the square of a smaller number loses digits, unless that is 0

// What is kept while taps are looked at: the farthest exponent, and whether something was not finite. Bits of numbers
// without their sign are in the order of the numbers, infinity and NaN behind them.
template <class V>
class Reach {
  using Bits = typename Traits<V>::Mask;
  using Unsigned = typename Traits<V>::Bits;

 public:
  POOLNB_HD void look(V exponent) { see(far_, exponent); }
  // Of a number that is squared: whether it is too small. Less 1, the bits of 0 are behind those of all others.
  POOLNB_HD void look_at_size(V size) {
    const auto bits = reinterpret_cast<Unsigned>(size) - 1;
    small_ = bits < small_ ? bits : small_;
  }
  POOLNB_HD void result(V y) { see(largest_, y); }
  // In the lanes that are asked for.
  template <class M = Always>
  POOLNB_HD bool within(float reach, M lanes = {}) const {
    const V far = reinterpret_cast<V>(far_);
    const auto small = small_ < reinterpret_cast<Unsigned>(splat<V>(kLeastSquared));
    return !any((far > splat<V>(reach)) & lanes) && !any(infinite_or_nan(far) & lanes) && !any(small & lanes);
  }
  template <class M = Always>
  POOLNB_HD bool finite(M lanes = {}) const { return !any(infinite_or_nan(reinterpret_cast<V>(largest_)) & lanes); }

 private:
  static POOLNB_HD void see(Bits& most, V x) {
    const Bits bits = reinterpret_cast<Bits>(vabs(x));
    most = bits > most ? bits : most;
  }
  Bits far_{}, largest_{};
  Unsigned small_ = ~Unsigned{};
};

template <class Sums, class V, class M>
POOLNB_HD void look_at(Reach<V>& seen, const Sums& op, V x, V second, M valid) {
  const V exponent = select(valid, op.exponent(x, second), splat<V>(0));
  if constexpr (requires { requires Sums::squared; }) seen.look_at_size(exponent);
  else seen.look(exponent);
}

// The sum of a vector's numbers, in every lane of the result.
template <int half, class V, size_t... i>
POOLNB_HD V fold_lanes(V x, std::index_sequence<i...> all) {
  if constexpr (half == 0) return x;
  else return fold_lanes<half / 2>(x + __builtin_shufflevector(x, x, (i ^ half)...), all);
}
template <class V>
POOLNB_HD V sum_of_lanes(V x) {
  constexpr int lanes = Traits<V>::lanes;
  return fold_lanes<lanes / 2>(x, std::make_index_sequence<lanes>());
}

// Lane k: the sum of the numbers of vector k, in one order for all.
template <class V, size_t... i>
POOLNB_HD V add_pairs(V a, V b, std::index_sequence<i...> all) {
  V even, odd;
  deinterleave(a, b, even, odd, all);
  return even + odd;
}
template <int64_t n, class V>
POOLNB_HD V sums_of_lanes(const V* x) {
  if constexpr (n == 1) return x[0];
  else return add_pairs(sums_of_lanes<n / 2>(x), sums_of_lanes<n / 2>(x + n / 2),
                        std::make_index_sequence<Traits<V>::lanes>());
}

// The gradient of a parameter is a difference, too: whether few digits are lost in it.
constexpr float kRough = 16;

}  // namespace poolnb
