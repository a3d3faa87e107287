#include "../windows/lse.h"

#include "launch.cuh"

namespace poolnb {
template void forward_cuda<Lse>(const Problem&, bool, void*);
template void backward_cuda<Lse>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Lse>(const Problem&);
}  // namespace poolnb
