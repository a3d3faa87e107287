// The CPU's kernels for torch.
#include "../bindings.h"
#include "draw_starts.h"
#include "max_map.h"
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
  static constexpr const char* more = " maxblur s3";
  static void implement_more(StableLibrary& library);
  template <class Op>
  static void forward(const Problem& q, const Call&) { poolnb::forward<Op>(q, parallel); }
  template <class Op>
  static void backward(const Problem& q, const Call&) { poolnb::backward<Op>(q, parallel); }
};

// ---- what S3 and max-blur pooling are made of: see poolnb/ops/max_map.py --------------------------------------------

// A list of one entry per dimension, each at least 1.
Sizes take_sizes(Arguments& arguments, const char* name, size_t dims) {
  const Sizes given = arguments.take<Sizes>();
  bool fits = given.size() == dims;
  for (const int64_t n : given) fits = fits && n >= 1 && n < int64_t(1) << 31;
  if (!fits) refuse(name, " must be ", dims, " ints of at least 1 and below 2**31, got ", text(given));
  return given;
}

void check_starts(const MaxMap& q, int dims) {
  for (int a = 3 - dims; a < 3; ++a)
    for (int64_t o = 0; o < q.output[a]; ++o)
      if (q.start[a][o] <= -q.kernel[a] || q.start[a][o] >= q.size[a])
        refuse("starts must be windows that hold a position of the input, got ", q.start[a][o], " with kernel_size ",
               q.kernel[a], " and size ", q.size[a]);
}

// (input, starts, kernel_size, output_size). `starts` has those of all axes, one axis after the other.
struct MapCall {
  Tensor input, starts;
  Sizes size;  // of the map
  bool last;
  MaxMap problem;

  explicit MapCall(Arguments& arguments) : input(arguments.take<Tensor>()), starts(arguments.take<Tensor>()) {
    static constexpr int64_t zero = 0;
    check_input(input, Cpu::device_type());
    const int dims = input.dim() - 2;
    Sizes kernel, output, spatial;
    axes(kernel, take_sizes(arguments, "kernel_size", dims), 1);
    axes(output, take_sizes(arguments, "output_size", dims), 1);
    check_tensor("starts", starts, input, ScalarType::Long, false, {output[0] + output[1] + output[2] - 3 + dims}, "-");
    if (starts.size(0) > 1 && starts.stride(0) != 1)
      refuse("starts must be contiguous, got a stride of ", starts.stride(0));
    size = sizes(input);
    axes(spatial, Sizes(size.begin() + 2, size.end()), 1);
    MaxMap& q = problem;
    q = {size[0], size[1], {}, {}, {}, {}, view(input), {}, {}};
    const int64_t* next = static_cast<const int64_t*>(starts.data_ptr());
    for (int a = 0; a < 3; ++a) {
      q.size[a] = spatial[a], q.kernel[a] = kernel[a], q.output[a] = output[a];
      q.start[a] = a < 3 - dims ? &zero : next;
      if (a >= 3 - dims) next += q.output[a];
    }
    check_starts(q, dims);
    std::copy(output.end() - dims, output.end(), size.begin() + 2);
    last = channels_last(input);
    if (input.numel() > 0) check_lines("input", q.input, input);
  }

  // One lane of channels, or of columns, follows the other in memory.
  void check_lines(const char* name, const View& v, const Tensor& t) const {
    if (last ? v.stride[1] != 1 : v.stride[4] > 1)
      refuse(name, " must be contiguous or channels last, got shape ", text(sizes(t)));
  }
};

void max_map_forward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  MapCall call(arguments);
  const Tensor map = empty<Cpu>("output", call.size, call.last, call.input.scalar_type(), 0);
  call.problem.map = view(map);
  max_map(call.problem, parallel, false);
  stack[0] = from(map);
}

void max_map_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  const Tensor grad = arguments.take<Tensor>();
  MapCall call(arguments);
  const ScalarType type = sums_of(call.input.scalar_type());
  check_tensor("grad", grad, call.input, type, false, call.size, "-----");
  const Tensor grad_input = empty<Cpu>("gradient", sizes(call.input), call.last, type, 0);
  call.problem.map = view(grad);
  if (grad.numel() > 0) call.check_lines("grad", call.problem.map, grad);
  call.problem.grad_input = view(grad_input);
  max_map(call.problem, parallel, true);
  stack[0] = from(grad_input);
}

// (seed, counts, output_size, stride, grid_size): the starts of all axes, one axis after the other.
void s3_starts(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  const Tensor seed = arguments.take<Tensor>();
  check_tensor("seed", seed, seed, ScalarType::Long, false, {}, "");
  const Sizes counts = arguments.take<Sizes>();
  const size_t dims = counts.size();
  const Sizes output = take_sizes(arguments, "output_size", dims), stride = take_sizes(arguments, "stride", dims);
  const Sizes grid = take_sizes(arguments, "grid_size", dims);
  int64_t all = 0;
  for (size_t a = 0; a < dims; all += output[a++]) {
    if (grid[a] % stride[a] != 0)
      refuse("grid_size must be multiples of the stride ", text(stride), ", got ", text(grid));
    if (counts[a] <= (output[a] - 1) * stride[a] || counts[a] > output[a] * stride[a])
      refuse("counts must give output_size ", text(output), " at stride ", text(stride), ", got ", text(counts));
  }
  const Tensor starts = empty<Cpu>("starts", {all}, false, ScalarType::Long, 0);
  int64_t* kept = static_cast<int64_t*>(starts.data_ptr());
  const uint64_t key = *static_cast<const int64_t*>(seed.data_ptr());
  for (size_t a = 0; a < output.size(); kept += output[a++])
    draw_starts(kept, key, a, counts[a], output[a], stride[a], grid[a]);
  stack[0] = from(starts);
}

void Cpu::implement_more(StableLibrary& library) {
  library.impl("_max_map", max_map_forward);
  library.impl("_max_map_backward", max_map_backward);
  library.impl("_s3_starts", s3_starts);
}

}  // namespace
}  // namespace poolnb

POOLNB_LIBRARY(poolnb::Cpu)
