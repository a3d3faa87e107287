// The taps of one window (or of one window per lane), as the window maths sees them:
//   count()   how many taps; taps known to be padding for every lane may be missing
//   x(i)      the tap's value, 0 where it is not valid
//   second(i) the tap of the second input, for operators that have one
//   valid(i)  whether it counts: a mask, or `Always` where all do
//   order(i)  its row-major number within the full window
#pragma once

#include "lane.h"

#if defined(__CUDACC__)
#define POOLNB_UNROLL _Pragma("unroll")
#else
#define POOLNB_UNROLL _Pragma("GCC unroll 16")
#endif

namespace poolnb {

// The mask that is always true: it costs nothing.
struct Always {};
template <class V>
POOLNB_HD V select(Always, V a, V) { return a; }
template <class M>
POOLNB_HD M operator&(M m, Always) { return m; }
template <class M>
POOLNB_HD M operator&(Always, M m) { return m; }
POOLNB_HD Always operator&(Always, Always) { return {}; }

// Where backward keeps one number per tap between its two looks at a window; forward keeps nothing.
struct NoMemo {
  template <class V>
  POOLNB_HD void put(int64_t, V) {}
};

}  // namespace poolnb
