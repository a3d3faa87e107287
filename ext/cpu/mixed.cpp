#include "../windows/mixed.h"

#include "run.h"

namespace poolnb {
template void forward<Mixed>(const Problem&, const Parallel&);
template void backward<Mixed>(const Problem&, const Parallel&);
}  // namespace poolnb
