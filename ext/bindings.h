// What the CPU's and the GPU's library share: torch's tensors in, problems out. With ../*/bind.cpp the only file that
// knows torch, through the part of its C interface that is stable from 2.11 on.
//
// A backend says where kernels run:
//   key                        the dispatch key they are registered with
//   device_type()              torch's number of the device
//   reduces                    whether its kernels sum a parameter's gradient over everything but the channels
//   parts(q)                   if not: in how many parts they leave the gradients of tables
//   forward<Op>(q, call)       carry out a problem
//   backward<Op>(q, call)
//   more, implement_more(library)   operators that are made of parts beside those of operators.def: their names, each
//                              after a blank, and the parts' registration
#pragma once

#define TORCH_TARGET_VERSION (((0ULL + 2) << 56) | ((0ULL + 11) << 48))

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cmath>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "geometry.h"

namespace poolnb {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::detail::StableLibrary;
using torch::stable::detail::from;
using torch::stable::detail::to;
using Sizes = std::vector<int64_t>;

// ---- tensors ------------------------------------------------------------------------------------------------------

// Of a tensor that `check` has seen.
Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half: return Dtype::float16;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::Bool: return Dtype::boolean;
    default: return Dtype::int64;
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

Sizes sizes(const Tensor& t) {
  Sizes s;
  for (int64_t d = 0; d < t.dim(); ++d) s.push_back(t.size(d));
  return s;
}

// ---- arguments ----------------------------------------------------------------------------------------------------

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
  bool last;  // the output's layout, and of the input's gradient: channels last
  Tensor input;
  std::vector<Tensor> tensors;  // own tensors of the operator, in the schema's order
  std::optional<Tensor> mask;
};

// What an operator's own tensor must look like; the words and the rules are those of poolnb/ops/checks.py.
enum class Form { per_channel, per_channel_and_window, per_tap, leaves, gates, like_output, like_input };

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

std::string text(const int64_t* entries, size_t n) {
  std::string all;
  for (size_t i = 0; i < n; ++i) all += (i ? ", " : "") + std::to_string(entries[i]);
  return "(" + all + ")";
}
std::string text(const Sizes& entries) { return text(entries.data(), entries.size()); }

std::string text(ScalarType type) {
  switch (type) {
    case ScalarType::Half: return "float16";
    case ScalarType::BFloat16: return "bfloat16";
    case ScalarType::Float: return "float32";
    case ScalarType::Double: return "float64";
    case ScalarType::Bool: return "bool";
    case ScalarType::Long: return "int64";
    default: return torch::headeronly::toString(type);
  }
}

// `elements`: how many these strides take.
template <class Backend>
Tensor empty_strided(const char* what, const Sizes& size, const Sizes& stride, int64_t elements, ScalarType type,
                     int32_t device) {
  AtenTensorHandle made;
  if (aoti_torch_empty_strided(size.size(), size.data(), stride.data(), to<int32_t>(from(type)),
                               Backend::device_type(), device, &made) != AOTI_TORCH_SUCCESS)
    refuse("no memory for the ", what, ": shape ", text(size), " takes ", elements, " elements of ",
           type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : type == ScalarType::Byte ? 1 : 2, " bytes");
  return Tensor(made);
}

template <class Backend>
Tensor empty(const char* what, const Sizes& size, bool last, ScalarType type, int32_t device) {
  Sizes stride(size.size());
  int64_t step = 1;
  const int64_t dims = size.size();
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t d = !last ? dims - 1 - i : i == 0 ? 1 : i == dims - 1 ? 0 : dims - i;
    stride[d] = step;
    if (__builtin_mul_overflow(step, std::max<int64_t>(size[d], 1), &step))
      throw std::runtime_error("output_size must give an output of fewer than 2**63 elements");
  }
  return empty_strided<Backend>(what, size, stride, step, type, device);
}

int32_t device_type(const Tensor& t) {
  int32_t type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &type));
  return type;
}
std::string device(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return device_type(t) == aoti_torch_device_type_meta() ? "meta" : "another device";
}

bool floating(ScalarType type) {
  return type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
         type == ScalarType::Double;
}
ScalarType sums_of(ScalarType type) { return type == ScalarType::Double ? type : ScalarType::Float; }

// A storage can be cut behind a tensor's back.
void check_memory(const char* name, const Tensor& t) {
  int64_t last = t.storage_offset(), bytes;
  const auto size = t.sizes(), stride = t.strides();
  for (size_t d = 0; d < size.size(); ++d) {
    if (size[d] == 0) return;
    last += (size[d] - 1) * stride[d];
  }
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(t.get(), &bytes));
  if ((last + 1) * int64_t(t.element_size()) > bytes)
    refuse(name, " must have memory for all its elements, got a storage that was cut");
}

// Dimension d may have size `size[d]`, and what `other` says as well: a digit, or nothing.
void check_shape(const char* name, const Tensor& t, const Sizes& size, const char* other) {
  const auto got = t.sizes();
  bool fits = got.size() == size.size();
  for (size_t d = 0; fits && d < size.size(); ++d)
    fits = got[d] == size[d] || (other[d] != '-' && got[d] == other[d] - '0');
  if (fits) return;
  std::string wanted;
  for (size_t d = 0; d < size.size(); ++d) {
    wanted += (d ? ", " : "") + std::to_string(size[d]);
    if (other[d] != '-' && size[d] != other[d] - '0') wanted += std::string(" or ") + other[d];
  }
  refuse(name, " must have shape (", wanted, "), got shape ", text(sizes(t)));
}

void check_tensor(const char* name, const Tensor& t, const Tensor& input, ScalarType type, bool as_input,
                  const Sizes& size, const char* other, bool seed = false) {
  if (!t.defined()) refuse(name, " must be a torch.Tensor, got None");
  const ScalarType got = t.scalar_type(), given = input.scalar_type();
  if (got != type && !(as_input && got == given))
    refuse(name, " must have dtype ", as_input && given != type ? text(given) + " or " : "", text(type), " beside ",
           text(given), " input, got ", text(got));
  const bool together = device_type(t) == device_type(input) && t.get_device_index() == input.get_device_index();
  if (!together && !(seed && t.is_cpu()))
    refuse(name, " must be on input's device ", device(input), ", got ", device(t));
  check_memory(name, t);
  check_shape(name, t, size, other);
}

constexpr double kFar = 1 << 20, kPerPosition = 64;  // as poolnb/geometry.py has them

// The fewest and the most windows along one axis, whatever the padding behind it.
void output_sizes(const Windows& w, int a, int64_t both[2]) {
  const int64_t s = w.stride[a], room = w.size[a] + w.padding[a] - w.span(a);
  both[0] = room < 0 ? 1 : room / s + 1;
  both[1] = (w.size[a] + w.padding[a] - 1) / s + 1;
}

// How many positions the windows reach over, those of the input included. In floating numbers: it may be any number.
double reach(const Windows& w) {
  double all = 1;
  for (int a = 0; a < 3; ++a) all *= std::max<double>(w.size[a], w.stride[a] * double(w.output[a] - 1) + w.span(a));
  return all;
}

void check_windows(const Windows& w, int dims) {
  struct Field { const char* name; const int64_t* entries; int64_t least; };
  const int first = 3 - dims;
  for (const Field& f : {Field{"kernel_size", w.kernel, 1}, Field{"stride", w.stride, 1}, Field{"padding", w.padding, 0},
                         Field{"dilation", w.dilation, 1}, Field{"output_size", w.output, 1}})
    for (int a = first; a < 3; ++a)
      if (f.entries[a] < f.least || f.entries[a] >= int64_t(1) << 31)
        refuse(f.name, " must be at least ", f.least, " and below 2**31 in every dimension, got ",
               text(f.entries + first, dims));
  int64_t taps = 1, both[3][2];
  bool follows = true, many = false, narrow = true;
  Sizes spans;
  for (int a = first; a < 3; ++a) {
    const int64_t span = w.span(a);
    spans.push_back(span);
    narrow = narrow && w.padding[a] < span;
    many = many || __builtin_mul_overflow(taps, w.kernel[a], &taps) || taps >= int64_t(1) << 62;
    output_sizes(w, a, both[a]);
    follows = follows && w.output[a] >= both[a][0] && w.output[a] <= both[a][1];
  }
  if (!narrow)
    refuse("padding must be less than the extent of a window, dilation * (kernel_size - 1) + 1 = ", text(spans),
           ", got ", text(w.padding + first, dims));
  if (many) refuse("kernel_size must have fewer than 2**62 taps, got ", text(w.kernel + first, dims));
  if (!follows) {
    Sizes fewest, most;
    for (int a = first; a < 3; ++a) fewest.push_back(both[a][0]), most.push_back(both[a][1]);
    refuse("output_size must follow from the input's size and the windows, from ", text(fewest), " to ", text(most),
           ", got ", text(w.output + first, dims));
  }
  double size = 1;
  for (int a = first; a < 3; ++a) size *= w.size[a];
  if (reach(w) > std::max(kFar, kPerPosition * size))
    refuse("padding must leave windows that reach over at most 64 positions per input position, got padding=",
           text(w.padding + first, dims), " before spatial size ", text(w.size + first, dims), ", kernel_size=",
           text(w.kernel + first, dims), ", stride=", text(w.stride + first, dims), ", dilation=",
           text(w.dilation + first, dims));
}

void check_input(const Tensor& x, int32_t device) {
  if (!x.defined()) refuse("input must be a torch.Tensor, got None");
  if (!floating(x.scalar_type()))
    refuse("input must have one of the dtypes float16, bfloat16, float32, float64, got ", text(x.scalar_type()));
  if (device_type(x) != device) refuse("input must be on the device of these kernels, got ", poolnb::device(x));
  check_memory("input", x);
  const auto size = x.sizes();
  if (size.size() < 3 || size.size() > 5)
    refuse("input must have 3 to 5 dimensions, (N, C, *spatial), got shape ", text(sizes(x)));
  for (size_t d = 1; d < size.size(); ++d)
    if (size[d] == 0) refuse("input must not be empty, the batch dimension excepted, got shape ", text(sizes(x)));
}

int64_t* axes(Sizes& five, const Sizes& given, int64_t fill) {
  five.assign(3 - given.size(), fill);
  five.insert(five.end(), given.begin(), given.end());
  return five.data();
}

void read_windows(Arguments& arguments, Windows& w, const Tensor& x) {
  const size_t dims = x.dim() - 2;
  Sizes size = sizes(x), three;
  size.erase(size.begin(), size.begin() + 2);
  std::copy_n(axes(three, size, 1), 3, w.size);
  int64_t* const fields[] = {w.kernel, w.stride, w.padding, w.dilation, w.output};
  const char* const names[] = {"kernel_size", "stride", "padding", "dilation", "output_size"};
  for (int i = 0; i < 5; ++i) {
    const Sizes given = arguments.take<Sizes>();
    if (given.size() != dims)
      refuse(names[i], " must be a sequence of ", dims, " ints, got ", given.size(), " entries: ", text(given));
    std::copy_n(axes(three, given, fields[i] == w.padding ? 0 : 1), 3, fields[i]);
  }
  check_windows(w, dims);
}

// A parameter of one number per channel, (C,), or of a tensor that broadcasts to the output, batch dimension or not.
void place_parameter(Problem& q, int i, const Tensor& t, int64_t dims) {
  View& v = q.parameter[i];
  if (t.dim() == 1) {
    v = View();
    v.data = t.data_ptr();
    v.dtype = dtype_of(t);
    v.stride[1] = t.size(0) == 1 ? 0 : t.stride(0);
    q.channelwise[i] = true;
    return;
  }
  const int64_t missing = dims + 2 - t.dim();
  v.data = t.data_ptr();
  v.dtype = dtype_of(t);
  q.channelwise[i] = missing == 0;
  for (int64_t d = 0; d < t.dim(); ++d) {
    const int64_t full = d + missing, axis = full < 2 ? full : full + 3 - dims, n = t.size(d);
    v.stride[axis] = n == 1 ? 0 : t.stride(d);
    if (axis != 1 && n != 1) q.channelwise[i] = false;
  }
}

// The axes of a view that a table's dimensions are: (C,), (C, taps), (filters, taps).
const int* table_axes(Form form) {
  static constexpr int of_channels[] = {1, 4}, of_filters[] = {3, 4};
  return form == Form::leaves || form == Form::gates ? of_filters : of_channels;
}

// Of the dimensions that the table itself has.
View table_view(const Tensor& t, Form form, int64_t dims) {
  View v;
  v.data = t.data_ptr();
  v.dtype = dtype_of(t);
  for (int64_t d = 0; d < dims; ++d) v.stride[table_axes(form)[d]] = t.size(d) == 1 ? 0 : t.stride(d);
  return v;
}

Table table(const Tensor& t, Form form) {
  Table made;
  made.view = table_view(t, form, t.dim());
  made.filters = table_axes(form)[0] == 3 ? t.size(0) : 1;
  made.width = t.dim() == 1 ? 1 : t.size(1);
  return made;
}

double positive(const char* name, double value) {
  if (!(value > 0 && std::isfinite(value))) refuse(name, " must be a finite number greater than 0, got ", value);
  return value;
}

template <class Op>
void read_options(Arguments& arguments, Options& options);
#define POOLNB_OPERATOR(Op, name, parts)                                                      \
  template <>                                                                                 \
  void read_options<Op>([[maybe_unused]] Arguments & arguments, Options & options) {          \
    [[maybe_unused]] auto& param = options.name;                                                \
    parts                                                                                     \
  }
#define NUMBER(option) param.option = positive(#option, arguments.take<double>());
#define FLAG(option) param.option = arguments.take<bool>();
#include "operators.def"

void read_seed(const std::optional<Tensor>& seed, Options& options) {
  options.draws = seed.has_value();
  if (!seed) return;
  const auto* at = static_cast<const int64_t*>(seed->data_ptr());
  if (seed->is_cpu()) options.seed = uint64_t(*at);
  else options.seed_at = at;
}

Sizes output_size(const Call& call) {
  Sizes size{call.problem.batch, call.problem.channels};
  for (int64_t d = 5 - call.input.dim(); d < 3; ++d) size.push_back(call.problem.windows.output[d]);
  return size;
}

// ---- kernels ------------------------------------------------------------------------------------------------------

// What the schema of an operator holds beside input, mask, geometry and options: how many own tensors are a second
// input and parameters, whether a seed follows them.
struct Schema {
  struct Own { const char* name = ""; Form form = Form::per_channel; };
  const char* name;
  int inputs = 1, parameters = 0;
  bool seed = false, tabled = false;  // tabled: its parameters are tables
  Own own[2] = {};                    // tensors

  constexpr Schema with_input(const char* tensor) const {
    Schema s = *this;
    s.own[s.inputs++ - 1] = {tensor, Form::like_input};
    return s;
  }
  constexpr Schema with_parameter(const char* tensor, Form form) const {
    Schema s = *this;
    s.own[s.inputs - 1 + s.parameters++] = {tensor, form};
    s.tabled = tabled || form == Form::per_tap || form == Form::leaves || form == Form::gates;
    return s;
  }
  constexpr Schema with_seed() const {
    Schema s = *this;
    s.seed = true;
    return s;
  }
};

template <class Op>
constexpr Schema schema{};
#define POOLNB_OPERATOR(Op, name, parts) \
  template <>                            \
  constexpr Schema schema<Op> = Schema{#name} parts;
#define INPUT(tensor) .with_input(#tensor)
#define PARAMETER(tensor, form) .with_parameter(#tensor, Form::form)
#define SEED .with_seed()
#include "operators.def"

void check_param(const Schema::Own& own, const Tensor& param, const Call& call) {
  const ScalarType sums = sums_of(call.input.scalar_type());
  const Sizes output = output_size(call);
  const int64_t channels = call.problem.channels, taps = call.problem.windows.taps();
  const auto check = [&](const Sizes& size, const char* other, bool as_input = false) {
    check_tensor(own.name, param, call.input, sums, as_input, size, other);
  };
  switch (own.form) {
    case Form::per_channel: return check({channels}, "-");
    case Form::per_channel_and_window: return check(Sizes(output.begin() + 1, output.end()), "----");
    case Form::per_tap: return check({channels, taps}, "--");
    case Form::leaves: return check({2, taps}, "4-");
    case Form::gates: return check({call.tensors[0].size(0) - 1, taps}, "--");
    case Form::like_output: return check(output, "11111");
    case Form::like_input: return check(sizes(call.input), "-1---", true);
  }
}

// Own tensors are the second input, if the operator has one, then parameters or tables.
void place(Call& call, const Schema& s) {
  Problem& q = call.problem;
  q.input[0] = view(call.input);
  if (s.inputs > 1) q.input[1] = view(call.tensors[0]);
  for (int i = 0; i < s.parameters; ++i) {
    const int k = s.inputs - 1 + i;
    // What is expanded along the batch has a gradient for every image: it must not look like one entry for all.
    if (Tensor& t = call.tensors[k]; !s.tabled && t.dim() == call.input.dim() && t.size(0) > 1 && t.stride(0) == 0)
      t = torch::stable::clone(t);
    if (s.tabled) q.table[i] = table(call.tensors[k], s.own[k].form);
    else place_parameter(q, i, call.tensors[k], call.input.dim() - 2);
  }
  if (call.mask) q.mask = view(*call.mask);
}

template <class Backend, class Op>
Call read_call(Arguments& arguments) {
  constexpr auto s = schema<Op>;
  Call call{{}, false, arguments.take<Tensor>(), {}, {}};
  check_input(call.input, Backend::device_type());
  call.last = channels_last(call.input);
  call.mask = arguments.take<std::optional<Tensor>>();
  for (int i = 1; i < s.inputs + s.parameters; ++i) call.tensors.push_back(arguments.take<Tensor>());
  std::optional<Tensor> seed;
  if (s.seed) seed = arguments.take<std::optional<Tensor>>();
  call.problem.batch = call.input.size(0);
  call.problem.channels = call.input.size(1);
  read_windows(arguments, call.problem.windows, call.input);
  if (call.mask) check_tensor("mask", *call.mask, call.input, ScalarType::Bool, false, sizes(call.input), "11---");
  for (size_t i = 0; i < call.tensors.size(); ++i) check_param(s.own[i], call.tensors[i], call);
  if (seed) check_tensor("seed", *seed, call.input, ScalarType::Long, false, {}, "", true);
  read_seed(seed, call.problem.options);
  read_options<Op>(arguments, call.problem.options);
  place(call, s);
  return call;
}

template <class Backend, class Op>
void forward_kernel(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments(stack);
  Call call = read_call<Backend, Op>(arguments);
  Problem& q = call.problem;
  const int32_t device = call.input.get_device_index();
  Tensor output = empty<Backend>("output", output_size(call), call.last, call.input.scalar_type(), device);
  q.output = view(output);
  if (output.numel() > 0) Backend::template forward<Op>(q, call);
  stack[0] = from(output);
}

// The gradient of an own tensor: kernels write it in full, and what the tensor was broadcast along is summed up.
template <class Backend>
class ParamGradient {
 public:
  ParamGradient(const Tensor& param, const Sizes& full, bool reduced, bool last, bool wanted)
      : param_(param), result_(wanted ? make(sizes(param), channels_last(param), param.scalar_type())
                                  : make(Sizes{0}, false, param.scalar_type())), full_(result_) {
    if (!wanted) return;
    if (full[0] == 0) torch::stable::fill_(result_, 0);  // no kernel will write it
    if (reduced || sizes(param) == full) return;
    const bool is_double = param.scalar_type() == ScalarType::Double;
    full_ = make(full, last, is_double ? ScalarType::Double : ScalarType::Float);
    const int64_t dims = full.size(), first = param.dim() == 1 ? 1 : dims - param.dim();  // (C,) is 1
    for (int64_t d = 0; d < dims; ++d)
      if (d < first || d >= first + param.dim() || param.size(d - first) != full[d]) summed_.push_back(d);
    keep_ = param.dim() == dims;
  }

  void zero() { torch::stable::fill_(full_, 0); }

  View target() const {
    View v = view(full_);
    if (full_.dim() == 1) {  // (C,)
      const int64_t step = v.stride[0];
      v.stride[0] = 0;
      v.stride[1] = step;
    }
    return v;
  }

  Tensor finish() {
    if (summed_.empty() || full_.numel() == 0) return result_;
    const torch::headeronly::IntHeaderOnlyArrayRef summed(summed_);
    return torch::stable::sum_out(result_, full_, summed, keep_, param_.scalar_type());
  }

 private:
  Tensor make(const Sizes& size, bool last, ScalarType type) const {
    return empty<Backend>("gradient", size, last, type, param_.get_device_index());
  }

  Tensor param_, result_, full_;
  Sizes summed_;
  bool keep_ = true;
};

// The gradient of a table. A backend that does not sum leaves one number per entry, channel and part, which are summed
// up here; threads, of channels and parts, are neighbours in memory, channels first if `last`.
template <class Backend>
class TableGradient {
 public:
  TableGradient(const Tensor& param, Form form, const Problem& q, bool last, bool wanted)
      : form_(form), type_(param.scalar_type()),
        result_(empty<Backend>("gradient", wanted ? sizes(param) : Sizes{0}, false, type_, device_of(param))),
        full_(result_) {
    if (!wanted) return;
    if (q.batch == 0) torch::stable::fill_(result_, 0);  // no kernel will write it
    if (Backend::reduces || q.batch == 0) return;
    const int64_t parts = Backend::parts(q), threads = q.channels * parts;
    const bool shared = table_axes(form)[0] == 3;
    Sizes size = sizes(param), stride(size.size(), threads);
    const int64_t channel_step = last ? 1 : parts, part_step = last ? q.channels : 1;
    stride[0] = shared ? size[1] * threads : channel_step;
    if (shared) size.push_back(q.channels), stride.push_back(channel_step);
    size.push_back(parts), stride.push_back(part_step);
    for (int64_t d = param.dim(); d < int64_t(size.size()); ++d) summed_.push_back(d);
    const int64_t all = param.numel() * (shared ? threads : parts);
    full_ = empty_strided<Backend>("parts of a gradient", size, stride, all, type_, device_of(param));
    channel_step_ = channel_step;
    part_step_ = part_step;
  }

  View target() const {
    View v = table_view(full_, form_, result_.dim());
    if (summed_.empty()) return v;
    v.stride[0] = part_step_;
    v.stride[1] = channel_step_;
    return v;
  }

  Tensor finish() {
    if (summed_.empty()) return result_;
    return torch::stable::sum_out(result_, full_, torch::headeronly::IntHeaderOnlyArrayRef(summed_), false, type_);
  }

 private:
  static int32_t device_of(const Tensor& t) { return t.get_device_index(); }

  Form form_;
  ScalarType type_;
  Tensor result_, full_;
  Sizes summed_;
  int64_t channel_step_ = 0, part_step_ = 0;
};

template <class Backend, class Op>
void backward_kernel(StableIValue* stack, uint64_t, uint64_t) {
  constexpr auto s = schema<Op>;
  Arguments arguments(stack);
  const bool want = arguments.take<bool>();
  const Tensor grad = arguments.take<Tensor>();
  Call call = read_call<Backend, Op>(arguments);
  Problem& q = call.problem;
  check_tensor("grad", grad, call.input, call.input.scalar_type(), false, output_size(call), "-----");
  q.want_parameters = want;
  q.grad = view(grad);
  const int32_t device = call.input.get_device_index();
  const Tensor grad_input = empty<Backend>("gradient", sizes(call.input), call.last, call.input.scalar_type(), device);
  const bool gaps = Backend::leaves_gaps(q);
  if (gaps) torch::stable::fill_(grad_input, 0);
  q.grad_input[0] = view(grad_input);
  std::vector<TableGradient<Backend>> tables;
  for (int i = 0; s.tabled && i < s.parameters; ++i) {
    tables.emplace_back(call.tensors[i], s.own[i].form, q, call.last, want);
    if (want) q.table[i].grad = tables.back().target();
  }
  std::vector<ParamGradient<Backend>> param;
  for (int i = 0; !s.tabled && i < s.inputs - 1 + s.parameters; ++i) {
    const bool second = i < s.inputs - 1;
    const int parameter = i - (s.inputs - 1);
    const bool reduced = Backend::reduces && !second && q.channelwise[parameter];
    Sizes full = second ? sizes(call.input) : output_size(call);
    if (Backend::reduces && !second && shared_by_images(q.parameter[parameter]))
      full[0] = groups_of_images(q.batch, images_of_a_group(q.batch));
    param.emplace_back(call.tensors[i], full, reduced, call.last, want);
    if (!want) continue;
    if (second && gaps) param.back().zero();
    (second ? q.grad_input[1] : q.grad_parameter[parameter]) = param.back().target();
  }
  if (call.input.numel() > 0) Backend::template backward<Op>(q, call);
  *stack++ = from(grad_input);
  for (auto& g : tables) *stack++ = from(g.finish());
  for (auto& g : param) *stack++ = from(g.finish());
}

// `each.operator()<Op>(name)` for every operator.
template <class Each>
void each_operator(const Each& each) {
#define POOLNB_OPERATOR(Op, name, parts) each.template operator()<Op>(#name);
#include "operators.def"
}

template <class Backend>
std::string names() {
  std::string all;
  each_operator([&]<class Op>(const char* name) { all += std::string(all.empty() ? "" : " ") + name; });
  return all + Backend::more;
}

template <class Backend>
class Registration {
 public:
  void activate() {
    if (library_) return;
    library_ = std::make_unique<StableLibrary>(StableLibrary::Kind::IMPL, "poolnb", Backend::key, __FILE__, __LINE__);
    each_operator([&]<class Op>(const char* name) {
      const std::string op = std::string(name) + "_pool";
      library_->impl(op.c_str(), forward_kernel<Backend, Op>);
      library_->impl((op + "_backward").c_str(), backward_kernel<Backend, Op>);
    });
    Backend::implement_more(*library_);
  }
  void deactivate() { library_.reset(); }

 private:
  std::unique_ptr<StableLibrary> library_;
};

}  // namespace
}  // namespace poolnb

// Loading a library registers nothing. `poolnb_activate` registers the kernels of every operator with the schemas that
// poolnb/ops defined, `poolnb_deactivate` takes them away again; `poolnb_operators`: their names, separated by blanks.
#define POOLNB_LIBRARY(Backend)                                                                      \
  static poolnb::Registration<Backend> registration;                                                 \
  extern "C" {                                                                                       \
  __attribute__((visibility("default"))) void poolnb_activate() { registration.activate(); }         \
  __attribute__((visibility("default"))) void poolnb_deactivate() { registration.deactivate(); }     \
  __attribute__((visibility("default"))) const char* poolnb_operators() {                            \
    static const std::string all = poolnb::names<Backend>();                                         \
    return all.c_str();                                                                              \
  }                                                                                                  \
  }
