#include "../windows/soft.h"

#include "run.h"

namespace poolnb {
template void forward<Soft>(const Problem&, const Parallel&);
template void backward<Soft>(const Problem&, const Parallel&);
}  // namespace poolnb
