// The Lp norm: a power mean of |x| without the 1/n.
#pragma once

#include "power.h"

namespace poolnb {

struct Lp : PowerMean<false> {};

}  // namespace poolnb
