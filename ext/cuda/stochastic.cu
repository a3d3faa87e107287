#include "../windows/stochastic.h"

#include "launch.cuh"

namespace poolnb {
template void forward_cuda<Stochastic>(const Problem&, bool, void*);
template void backward_cuda<Stochastic>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Stochastic>(const Problem&);
}  // namespace poolnb
