#include "../windows/tdgs.h"

#include "run.h"

namespace poolnb {
template void forward<Tdgs>(const Problem&, const Parallel&);
template void backward<Tdgs>(const Problem&, const Parallel&);
}  // namespace poolnb
