// The GPU's kernels for torch: they run on its current stream and in its memory.
#define USE_CUDA 1
#include "../bindings.h"
#include "operators.h"

#include <torch/csrc/stable/accelerator.h>

namespace poolnb {
namespace {

struct Cuda {
  static constexpr const char* key = "CUDA";
  static constexpr bool reduces = false;
  static int64_t parts(const Problem& q) { return table_parts(q); }
  static bool leaves_gaps(const Problem& q) { return poolnb::leaves_gaps(q); }
  static int32_t device_type() { return aoti_torch_device_type_cuda(); }

  static void* stream(int32_t device) {
    void* current = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &current));
    return current;
  }
  static void check(const char* error) { STD_TORCH_CHECK(!error, "poolnb: a CUDA kernel failed: ", error); }

  static constexpr const char* more = "";
  static void implement_more(StableLibrary&) {}
  template <class Op>
  static void forward(const Problem& q, const Call& call) {
    const int32_t device = call.input.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(device);
    check(forward_cuda<Op>(q, call.last, stream(device)));
  }
  template <class Op>
  static void backward(const Problem& q, const Call& call) {
    const int32_t device = call.input.get_device_index();
    const torch::stable::accelerator::DeviceGuard guard(device);
    // Freed when this returns: torch hands it out again to later work of the same stream alone.
    const Tensor scratch = empty<Cuda>("sums of a gradient", {scratch_bytes<Op>(q)}, false, ScalarType::Byte, device);
    check(backward_cuda<Op>(q, call.last, scratch.data_ptr(), stream(device)));
  }
};

}  // namespace
}  // namespace poolnb

POOLNB_LIBRARY(poolnb::Cuda)
