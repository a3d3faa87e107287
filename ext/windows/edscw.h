// Adaptive pooling by nearness to the mean alone.
#pragma once

#include "adaptive.h"

namespace poolnb {

struct Edscw : Adaptive<false> {};

}  // namespace poolnb
