#include "../windows/tdgs.h"

#include "launch.cuh"

namespace poolnb {
template void forward_cuda<Tdgs>(const Problem&, bool, void*);
template void backward_cuda<Tdgs>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Tdgs>(const Problem&);
}  // namespace poolnb
