// The only file that knows torch, through the part of its C interface that is stable from 2.11 on.
//
// Loading the library registers nothing. `poolnb_activate` registers the CPU kernels of every operator with the schemas
// that poolnb/ops defined, `poolnb_deactivate` takes them away again.
#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 11) << 48))

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <memory>
#include <optional>
#include <vector>

#include "cpu/operators.h"

namespace poolnb {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::detail::from;
using torch::stable::detail::to;
using Sizes = std::vector<int64_t>;

// ---- tensors ---------------------------------------------------------------------------------------------------------

Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::Bool: return Dtype::boolean;
    case ScalarType::Long: return Dtype::int64;
    default: STD_TORCH_CHECK(false, "poolnb: a tensor has a dtype that the compiled kernels do not take");
  }
}

// (N, C, *spatial) as five dimensions; dimensions of size 1 have stride 0.
View view(const Tensor& t) {
  View v;
  v.data = t.data_ptr();
  v.dtype = dtype_of(t);
  const int64_t dims = t.dim();
  for (int64_t d = 0; d < dims; ++d) v.stride[d < 2 ? d : d + 5 - dims] = t.size(d) == 1 ? 0 : t.stride(d);
  return v;
}

// The layout that poolnb.geometry.memory_format names.
bool channels_last(const Tensor& x) {
  const int64_t dims = x.dim();
  if (dims < 4 || x.size(1) == 1 || x.numel() == 0) return false;
  bool spatial = false;
  int64_t last = -1;
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t d = i == 0 ? 1 : i == dims - 1 ? 0 : dims - i;
    if (x.size(d) == 1) continue;
    if (d >= 2) spatial = true;
    if (x.stride(d) <= last) return false;
    last = x.stride(d);
  }
  return spatial;
}

Tensor empty(const Sizes& size, bool last, ScalarType type) {
  Sizes stride(size.size());
  int64_t step = 1;
  const int64_t dims = size.size();
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t d = !last ? dims - 1 - i : i == 0 ? 1 : i == dims - 1 ? 0 : dims - i;
    stride[d] = step;
    step *= std::max<int64_t>(size[d], 1);
  }
  AtenTensorHandle made;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, size.data(), stride.data(), to<int32_t>(from(type)),
                                                  aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

Sizes sizes(const Tensor& t) {
  Sizes s;
  for (int64_t d = 0; d < t.dim(); ++d) s.push_back(t.size(d));
  return s;
}

// ---- arguments -------------------------------------------------------------------------------------------------------

// The dispatcher's stack, read from the front. Every argument is taken exactly once.
class Arguments {
 public:
  explicit Arguments(StableIValue* stack) : next_(stack) {}
  template <class T>
  T take() { return to<T>(*next_++); }

 private:
  StableIValue* next_;
};

struct Call {
  Problem problem;
  Tensor input;
  std::vector<Tensor> tensors;  // own tensors of the operator, in the schema's order
  std::optional<Tensor> mask;
};

int64_t* axes(Sizes& five, const Sizes& given, int64_t fill) {
  five.assign(3 - given.size(), fill);
  five.insert(five.end(), given.begin(), given.end());
  return five.data();
}

void read_windows(Arguments& arguments, Windows& w, const Tensor& x) {
  const size_t dims = x.dim() - 2;
  STD_TORCH_CHECK(dims >= 1 && dims <= 3, "poolnb: input must have 3 to 5 dimensions, got ", x.dim());
  Sizes size = sizes(x), three;
  size.erase(size.begin(), size.begin() + 2);
  std::copy_n(axes(three, size, 1), 3, w.size);
  int64_t* const fields[] = {w.kernel, w.stride, w.padding, w.dilation, w.output};
  for (int64_t* field : fields) {
    const Sizes given = arguments.take<Sizes>();
    STD_TORCH_CHECK(given.size() == dims, "poolnb: expected ", dims, " entries per geometry argument, got ", given.size());
    std::copy_n(axes(three, given, field == w.padding ? 0 : 1), 3, field);
  }
  for (int a = 0; a < 3; ++a)
    STD_TORCH_CHECK(w.kernel[a] > 0 && w.stride[a] > 0 && w.dilation[a] > 0 && w.padding[a] >= 0 && w.output[a] > 0,
                    "poolnb: kernel_size, stride, dilation and output_size must be positive, padding not negative");
}

// Own tensors become the second input (if the operator has one), then parameters.
void place(Call& call, int inputs, int parameters) {
  Problem& q = call.problem;
  q.input[0] = view(call.input);
  if (inputs > 1) {
    q.input[1] = view(call.tensors[0]);
  }
  for (int i = 0; i < parameters; ++i) {
    const Tensor& t = call.tensors[inputs - 1 + i];
    q.channelwise[i] = t.dim() == 1;
    if (q.channelwise[i]) {
      STD_TORCH_CHECK(t.size(0) == q.channels, "poolnb: a channel parameter has ", t.size(0), " entries, not ", q.channels);
      q.parameter[i] = View();
      q.parameter[i].data = t.data_ptr();
      q.parameter[i].dtype = dtype_of(t);
      q.parameter[i].stride[1] = t.stride(0);
    } else {
      q.parameter[i] = view(t);
    }
  }
  if (call.mask) q.mask = view(*call.mask);
}

// Attributes: b bool, f float, i int, t an int64 tensor with one number.
void read_options(Arguments& arguments, Problem& q, const char* kinds) {
  double* to = q.option;
  for (const char* k = kinds; *k; ++k)
    *to++ = *k == 'b' ? arguments.take<bool>() : *k == 'f' ? arguments.take<double>() : double(arguments.take<int64_t>());
}

void parallel(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& run) {
  if (n > 0) torch::stable::parallel_for(0, n, grain, run);
}

// ---- kernels ---------------------------------------------------------------------------------------------------------

// What the schema of an operator holds beside input, mask and geometry.
struct SoftCall {
  using Op = Soft;
  static constexpr const char *name = "soft_pool", *options = "b";
  static constexpr int inputs = 1, parameters = 1;
};

template <class C>
Call read_call(Arguments& arguments) {
  Call call{{}, arguments.take<Tensor>(), {}, {}};
  call.mask = arguments.take<std::optional<Tensor>>();
  for (int i = 1; i < C::inputs + C::parameters; ++i) call.tensors.push_back(arguments.take<Tensor>());
  call.problem.batch = call.input.size(0);
  call.problem.channels = call.input.size(1);
  read_windows(arguments, call.problem.windows, call.input);
  read_options(arguments, call.problem, C::options);
  place(call, C::inputs, C::parameters);
  return call;
}

template <class C>
void forward_kernel(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  Call call = read_call<C>(arguments);
  Problem& q = call.problem;
  Sizes size = sizes(call.input);
  for (size_t d = 2; d < size.size(); ++d) size[d] = q.windows.output[d + 5 - size.size() - 2];
  Tensor output = empty(size, channels_last(call.input), call.input.scalar_type());
  q.output = view(output);
  if (output.numel() > 0) forward<typename C::Op>(q, parallel);
  stack[0] = from(output);
}

template <class C>
void backward_kernel(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  const bool want = arguments.take<bool>();
  const Tensor grad = arguments.take<Tensor>();
  Call call = read_call<C>(arguments);
  Problem& q = call.problem;
  q.want_parameters = want;
  q.grad = view(grad);
  std::vector<Tensor> results{empty(sizes(call.input), channels_last(call.input), call.input.scalar_type())};
  q.grad_input[0] = view(results[0]);
  for (int i = 0; i < C::parameters; ++i) {
    const Tensor& t = call.tensors[C::inputs - 1 + i];
    results.push_back(want ? empty(sizes(t), false, t.scalar_type()) : empty({0}, false, t.scalar_type()));
    if (!want) continue;
    q.grad_parameter[i] = view(results.back());
    if (q.channelwise[i]) q.grad_parameter[i].stride[1] = 1;
    if (call.input.numel() == 0) torch::stable::fill_(results.back(), 0);
  }
  if (call.input.numel() > 0) backward<typename C::Op>(q, parallel);
  for (size_t i = 0; i < results.size(); ++i) stack[i] = from(results[i]);
}

using torch::stable::detail::StableLibrary;

template <class C>
void add(StableLibrary& library) {
  library.impl(C::name, forward_kernel<C>);
  library.impl((std::string(C::name) + "_backward").c_str(), backward_kernel<C>);
}

std::unique_ptr<StableLibrary> active;

}  // namespace
}  // namespace poolnb

extern "C" {

__attribute__((visibility("default"))) void poolnb_activate() {
  using namespace poolnb;
  if (active) return;
  active = std::make_unique<torch::stable::detail::StableLibrary>(
      torch::stable::detail::StableLibrary::Kind::IMPL, "poolnb", "CPU", __FILE__, __LINE__);
  add<SoftCall>(*active);
}

__attribute__((visibility("default"))) void poolnb_deactivate() { poolnb::active.reset(); }

// Names, separated by blanks.
__attribute__((visibility("default"))) const char* poolnb_operators() { return "soft"; }
}
