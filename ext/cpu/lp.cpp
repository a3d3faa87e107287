#include "../windows/power.h"

#include "run.h"

namespace poolnb {
template void forward<Lp>(const Problem&, const Parallel&);
template void backward<Lp>(const Problem&, const Parallel&);
}  // namespace poolnb
