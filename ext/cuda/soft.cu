#include "../windows/soft.h"

#include "launch.cuh"

namespace poolnb {
template void forward_cuda<Soft>(const Problem&, bool, void*);
template void backward_cuda<Soft>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Soft>(const Problem&);
}  // namespace poolnb
