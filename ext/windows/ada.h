// Adaptive pooling: the two weightings, mixed by beta.
#pragma once

#include "adaptive.h"

namespace poolnb {

struct Ada : Adaptive<true> {};

}  // namespace poolnb
