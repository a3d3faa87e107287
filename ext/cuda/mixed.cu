#include "../windows/mixed.h"

#include "launch.cuh"

namespace poolnb {
template void forward_cuda<Mixed>(const Problem&, bool, void*);
template void backward_cuda<Mixed>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Mixed>(const Problem&);
}  // namespace poolnb
