#include "../windows/power.h"

#include "run.h"

namespace poolnb {
template void forward<Gem>(const Problem&, const Parallel&);
template void backward<Gem>(const Problem&, const Parallel&);
}  // namespace poolnb
