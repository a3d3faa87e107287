// Counts what the CUDA kernels' bodies do, by running them on the CPU with numbers that count: special functions and
// divisions by kind, numbers read, random numbers made. Prints one JSON row per operator, windows and direction, of
// float32 tensors; counts are per window. test_kernel_counts.py compares them with the record in book/results/native.
#define POOLNB_SCALAR_ONLY 1

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../../ext/geometry.h"

struct Counts { double exp = 0, log = 0, root = 0, division = 0, reads = 0, noise = 0; };
static Counts counts;

namespace poolnb {

struct Counted {
  float value = 0;
  constexpr Counted() = default;
  template <class Number>
  constexpr Counted(Number x) : value(float(x)) {}
  template <class Number>
  constexpr explicit operator Number() const { return Number(value); }
};
constexpr Counted operator+(Counted a, Counted b) { return a.value + b.value; }
constexpr Counted operator-(Counted a, Counted b) { return a.value - b.value; }
constexpr Counted operator-(Counted a) { return -a.value; }
constexpr Counted operator*(Counted a, Counted b) { return a.value * b.value; }
constexpr Counted operator/(Counted a, Counted b) {
  if (!std::is_constant_evaluated()) ++counts.division;
  return a.value / b.value;
}
constexpr Counted& operator+=(Counted& a, Counted b) { return a = a + b; }
constexpr bool operator<(Counted a, Counted b) { return a.value < b.value; }
constexpr bool operator>(Counted a, Counted b) { return a.value > b.value; }
constexpr bool operator<=(Counted a, Counted b) { return a.value <= b.value; }
constexpr bool operator>=(Counted a, Counted b) { return a.value >= b.value; }
constexpr bool operator==(Counted a, Counted b) { return a.value == b.value; }
constexpr bool operator!=(Counted a, Counted b) { return a.value != b.value; }

struct Stored { float value; };
inline Counted number_of(Stored x) { return ++counts.reads, x.value; }
inline void put_number(Stored* p, Counted x) { p->value = x.value; }

}  // namespace poolnb

template <>
struct std::numeric_limits<poolnb::Counted> : std::numeric_limits<float> {};

#include "../../ext/vec_math.h"

namespace poolnb {

inline Counted vexp(Counted x) { return ++counts.exp, expf(x.value); }
inline Counted vexp2(Counted x) { return ++counts.exp, exp2f(x.value); }
inline Counted vexp2(Counted x, Counted y) { return ++counts.exp, exp2f(x.value + y.value); }
inline Counted vexpm1(Counted x) { return ++counts.exp, expm1f(x.value); }
inline Counted vlog(Counted x) { return ++counts.log, logf(x.value); }
inline Counted vlog1p(Counted x) { return ++counts.log, log1pf(x.value); }
inline Log2<Counted> vlog2(Counted x) { return ++counts.log, Log2<Counted>{0, log2f(x.value)}; }
inline Counted vsqrt(Counted x) { return ++counts.root, sqrtf(x.value); }
inline Counted quick_reciprocal(Counted x) { return Counted(1) / x; }
inline Counted quick_rsqrt(Counted x) { return Counted(1) / vsqrt(x); }
inline double widen(Counted x) { return x.value; }
inline Counted vabs(Counted x) { return fabsf(x.value); }
inline Counted either(Counted a, Counted b) { return vabs(a) + vabs(b); }
inline Counted vfma(Counted a, Counted b, Counted c) { return a * b + c; }

}  // namespace poolnb

#include "../../ext/cuda/operators.h"
// after the declarations
#include "../../ext/cuda/bodies.h"
#include "all_windows.h"  // of every operator; written by who compiles this
#include "options.h"

using namespace poolnb;

template <>
Counted poolnb::uniform<Counted>(uint32_t word) {
  return ++counts.noise, (word >> 9) * 1.1920929e-7f + 5.9604645e-8f;
}

static void print(const char* name, const char* windows, const char* kernel, double n, size_t left) {
  std::printf("{\"operator\": \"%s\", \"windows\": \"%s\", \"kernel\": \"%s\", \"exp\": %.2f, \"log\": %.2f, "
              "\"root\": %.2f, \"division\": %.2f, \"reads\": %.2f, \"noise\": %.2f, \"left\": %zu}\n",
              name, windows, kernel, counts.exp / n, counts.log / n, counts.root / n, counts.division / n,
              counts.reads / n, counts.noise / n, left);
  counts = {};
}

constexpr int64_t kSize = 96;

template <class S>
static View view(std::vector<S>& data, int64_t width) {
  View v;
  v.data = data.data();
  v.stride[3] = width;
  v.stride[4] = 1;
  return v;
}

template <class Op>
static void count(const char* name, float parameter, char** options, const char* windows, int64_t kernel,
                  int64_t stride, int64_t padding) {
  Problem q;
  const int64_t out = (kSize + 2 * padding - kernel) / stride + 1;
  q.windows = {{1, kSize, kSize}, {1, kernel, kernel}, {1, stride, stride}, {0, padding, padding}, {1, 1, 1}, {1, out, out}};
  q.batch = q.channels = 1;
  q.options.draws = Op::noise > 0;
  set_options<Op>(q.options, [&] { return std::atof(*options++); });
  q.want_parameters = true;
  std::vector<Stored> x(kSize * kSize), second(x), grad_x(x), grad_second(x), y(out * out), grad(y);
  for (size_t i = 0; i < x.size(); ++i) x[i].value = 0.1f + (i * 37 % 101) / 50.0f, second[i].value = x[i].value - 1;
  for (auto& g : grad) g.value = 1;
  std::vector<float> d_params(2, parameter), grad_own(2 * out * out);
  q.input[0] = view(x, kSize), q.input[1] = view(second, kSize);
  q.grad_input[0] = view(grad_x, kSize), q.grad_input[1] = view(grad_second, kSize);
  q.output = view(y, out), q.grad = view(grad, out);
  for (int i = 0; i < Op::parameters; ++i) {
    q.parameter[i].data = d_params.data() + i;
    q.grad_parameter[i] = view(grad_own, out);
  }
  // Tables: the same number for all entries, of as many filters as an operator can have.
  std::vector<float> grad_table(Tabled<Op> ? 2 * 4 * q.windows.taps() : 0);
  for (Table& table : q.table) {
    table.filters = 4;
    table.width = q.windows.taps();
    table.view.data = d_params.data();
    table.grad.data = grad_table.data() + (&table - q.table) * table.numbers();
    table.grad.stride[3] = table.width;
    table.grad.stride[4] = 1;
  }
  const int64_t n = window_count(q);
  const size_t left = sizeof(Left<Op, float>);
  const Grid grid(q, false);
  with_shape<Counted, 2, 3>(q, grid, [&]<int H, int W>() {
    for (int64_t i = 0; i < n; ++i) forward_body<Op, Stored, Counted, H, W>(q, grid, i);
  });
  print(name, windows, "forward", n, left);
  if constexpr (Tabled<Op>) {
    table_body<Op, Stored, Counted>(q, grid, 1, 0);
    print(name, windows, "table", n, left);
  }
  if (q.windows.non_overlapping()) {
    with_shape<Counted, 2>(q, grid, [&]<int H, int W>() {
      for (int64_t i = 0; i < n; ++i) non_overlapping_body<Op, Stored, Counted, H, W>(q, grid, i);
    });
    return print(name, windows, "non_overlapping", n, left);
  }
  std::vector<Left<Op, Counted>> kept(n);
  with_shape<Counted, 3>(q, grid, [&]<int H, int W>() {
    for (int64_t i = 0; i < n; ++i) window_body<Op, Stored, Counted, H, W>(q, grid, kept.data(), i);
  });
  print(name, windows, "window", n, left);
  for (int64_t i = 0; i < position_count(q); ++i) gather_body<Op, Stored, Counted>(q, grid, kept.data(), i);
  print(name, windows, "gather", n, left);
}

// count OPERATOR PARAMETER [OPTION ...]
int main(int argc, char** argv) {
  if (argc < 3) return 2;
  struct Geometry { const char* name; int64_t kernel, stride, padding; };
  for (const auto& [windows, kernel, stride, padding] :
       {Geometry{"k2s2", 2, 2, 0}, Geometry{"k3s2p1", 3, 2, 1}, Geometry{"k3s1p1", 3, 1, 1}}) {
#define POOLNB_OPERATOR(Op, name, parts) \
  if (!std::strcmp(argv[1], #name))      \
    count<Op>(#name, std::atof(argv[2]), argv + 3, windows, kernel, stride, padding);
#include "../../ext/operators.def"
  }
}
