#include "../windows/weighted.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Weighted>(const Problem&, bool, void*);
template const char* backward_cuda<Weighted>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Weighted>(const Problem&);
}  // namespace poolnb
