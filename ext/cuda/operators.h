// The CUDA side as the glue sees it: no CUDA header.
#pragma once

#include "../geometry.h"

namespace poolnb {

inline int64_t window_count(const Problem& q) {
  const int64_t* o = q.windows.output;
  return q.batch * q.channels * o[0] * o[1] * o[2];
}
inline int64_t position_count(const Problem& q) {
  const int64_t* s = q.windows.size;
  return q.batch * q.channels * s[0] * s[1] * s[2];
}

// `last`: the tensors' memory runs along channels first. Gradients of parameters are written in full, one per window.
// Where windows are non_overlapping, the gradients of inputs must be 0 before. Returned is what went wrong, or null.
template <class Op>
const char* forward_cuda(const Problem& q, bool last, void* stream);
template <class Op>
const char* backward_cuda(const Problem& q, bool last, void* scratch, void* stream);
// Device memory that backward needs for what overlapping windows leave.
template <class Op>
int64_t scratch_bytes(const Problem& q);

}  // namespace poolnb
