#include "../windows/stochastic.h"

#include "run.h"

namespace poolnb {
template void forward<Stochastic>(const Problem&, const Parallel&);
template void backward<Stochastic>(const Problem&, const Parallel&);
}  // namespace poolnb
