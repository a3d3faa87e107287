#include "../windows/lse.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Lse>(const Problem&, bool, void*);
template const char* backward_cuda<Lse>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Lse>(const Problem&);
}  // namespace poolnb
