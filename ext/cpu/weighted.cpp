#include "../windows/weighted.h"

#include "run.h"

namespace poolnb {
template void forward<Weighted>(const Problem&, const Parallel&);
template void backward<Weighted>(const Problem&, const Parallel&);
}  // namespace poolnb
