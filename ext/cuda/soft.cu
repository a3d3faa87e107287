#include "../windows/soft.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Soft>(const Problem&, bool, void*);
template const char* backward_cuda<Soft>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Soft>(const Problem&);
}  // namespace poolnb
