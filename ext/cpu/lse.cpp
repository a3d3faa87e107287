#include "../windows/lse.h"

#include "run.h"

namespace poolnb {
template void forward<Lse>(const Problem&, const Parallel&);
template void backward<Lse>(const Problem&, const Parallel&);
}  // namespace poolnb
