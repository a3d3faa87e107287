// The Lp norm: a power mean of |x| without the 1/n.
#pragma once

#include "power.h"

namespace poolnb {

struct Lp : PowerMean<false> {
  using Usual = PowerMean<false, true>;
  static constexpr float usual = 2;
};

}  // namespace poolnb
