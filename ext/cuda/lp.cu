#include "../windows/power.h"

#include "launch.cuh"

namespace poolnb {
template const char* forward_cuda<Lp>(const Problem&, bool, void*);
template const char* backward_cuda<Lp>(const Problem&, bool, void*, void*);
template int64_t scratch_bytes<Lp>(const Problem&);
}  // namespace poolnb
