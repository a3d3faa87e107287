#include "../windows/stochastic.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Stochastic>(const Problem&, bool, void*);
template const char* backward_cuda<Stochastic>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Stochastic>(const Problem&);
}  // namespace poolnb
