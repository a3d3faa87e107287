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

// The gradients of tables are left in so many parts per channel, each the sum of one thread: as many as keep a GPU busy, if
// they take no more than so many numbers. They depend on the problem alone, and so do results.
#ifndef POOLNB_TABLE_THREADS
#define POOLNB_TABLE_THREADS (1 << 17)
#endif
constexpr int64_t kTableNumbers = 1 << 26;
inline int64_t table_parts(const Problem& q) {
  const int64_t numbers = q.channels * (q.table[0].numbers() + q.table[1].numbers());
  const int64_t busy = POOLNB_TABLE_THREADS / q.channels, fit = kTableNumbers / (numbers > 0 ? numbers : 1);
  const int64_t most = q.batch * q.windows.count(), parts = busy < fit ? busy : fit;
  return parts < 1 || most < 1 ? 1 : parts < most ? parts : most;
}

// Whether backward leaves numbers of the inputs' gradients as they are, which must be 0 before: where windows do not
// overlap each writes its own valid taps.
inline bool leaves_gaps(const Problem& q) {
  return q.windows.non_overlapping() && (q.mask.data || !q.windows.tile_input());
}

// `last`: the tensors' memory runs along channels first. Gradients of parameters are written in full, one per window.
// Returned is what went wrong, or null.
template <class Op>
const char* forward_cuda(const Problem& q, bool last, void* stream);
template <class Op>
const char* backward_cuda(const Problem& q, bool last, void* scratch, void* stream);
// Device memory that backward needs for what overlapping windows leave.
template <class Op>
int64_t scratch_bytes(const Problem& q);

}  // namespace poolnb
