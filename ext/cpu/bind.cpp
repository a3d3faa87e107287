// The CPU's kernels for torch.
#include "../bindings.h"
#include "operators.h"

namespace poolnb {
namespace {

void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& run) {
  if (n > 0) torch::stable::parallel_for(0, n, grain, run);
}

struct Cpu {
  static constexpr const char* key = "CPU";
  static constexpr bool reduces = true;
  static int64_t parts(const Problem&) { return 1; }
  static bool leaves_gaps(const Problem&) { return false; }
  static int32_t device_type() { return aoti_torch_device_type_cpu(); }
  template <class Op>
  static void forward(const Problem& q, const Call&) { poolnb::forward<Op>(q, parallel); }
  template <class Op>
  static void backward(const Problem& q, const Call&) { poolnb::backward<Op>(q, parallel); }
};

}  // namespace
}  // namespace poolnb

POOLNB_LIBRARY(poolnb::Cpu)
