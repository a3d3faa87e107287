#include "../windows/mixed.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Mixed>(const Problem&, bool, void*);
template const char* backward_cuda<Mixed>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Mixed>(const Problem&);
}  // namespace poolnb
