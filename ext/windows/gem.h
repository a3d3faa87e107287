// The generalised mean: a power mean of max(x, eps).
#pragma once

#include "power.h"

namespace poolnb {

struct Gem : PowerMean<true> {};

}  // namespace poolnb
