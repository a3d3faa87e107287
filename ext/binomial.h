// Binomial coefficients as weights of taps: far ones of a long window are no numbers of any type, so they come in two
// parts.
#pragma once

#include "vec_math.h"

namespace poolnb {

// part * 2^whole, part in [1, 2).
struct Scaled {
  double part = 1;
  int whole = 0;

  // Its parts set right.
  POOLNB_HD static Scaled of(double part, double whole) {
    const int more = ilogb(part);
    return {ldexp(part, -more), int(whole) + more};
  }
  POOLNB_HD Scaled operator*(const Scaled& other) const { return of(part * other.part, double(whole) + other.whole); }
  POOLNB_HD double value() const { return ldexp(part, whole); }
};

// C(n, j) / 2^n.
POOLNB_HD Scaled binomial(int64_t n, int64_t j) {
  const int64_t steps = j < n - j ? j : n - j;
  if (n <= 60) {  // every number on the way is a whole one
    double c = 1;
    for (int64_t i = 0; i < steps; ++i) c = c * double(n - i) / double(i + 1);
    return Scaled::of(c, -double(n));
  }
  const double log = lgamma(double(n + 1)) - lgamma(double(steps + 1)) - lgamma(double(n - steps + 1));
  const double exponent = log * 1.4426950408889634074, whole = floor(exponent);
  return Scaled::of(exp2(exponent - whole), whole - double(n));
}

// Operators whose taps have such weights say so: `static constexpr bool binomial = true`.
template <class Op>
concept Binomial = requires { Op::binomial; };

}  // namespace poolnb
