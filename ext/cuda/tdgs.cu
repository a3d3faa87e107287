#include "../windows/tdgs.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Tdgs>(const Problem&, bool, void*);
template const char* backward_cuda<Tdgs>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Tdgs>(const Problem&);
}  // namespace poolnb
