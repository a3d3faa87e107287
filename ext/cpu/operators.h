// What the glue calls: two functions per operator of ../operators.def, each operator's in a unit of its own.
#pragma once

#include <cstdint>
#include <functional>

#include "../geometry.h"

namespace poolnb {

// run(begin, end) over 0 .. n in parallel, at least `grain` at once.
using Parallel = std::function<void(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& run)>;

template <class Op>
void forward(const Problem& q, const Parallel& parallel);
template <class Op>
void backward(const Problem& q, const Parallel& parallel);

}  // namespace poolnb
