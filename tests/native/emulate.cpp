// Runs the CUDA kernels' bodies on the CPU: a loop over blocks and threads. Built with AddressSanitizer and
// UndefinedBehaviorSanitizer; every tensor is a block of its own of exactly its size, so that a step outside is caught.
// Reads cases from the file named first, writes results to the file named second; test_cuda_bodies.py makes and
// compares them.
#define POOLNB_SCALAR_ONLY 1
#define POOLNB_TABLE_THREADS 10  // so that a thread has more than one window

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

#include "../../ext/cuda/operators.h"
// after the declarations
#include "../../ext/cuda/bodies.h"
#include "all_windows.h"  // of every operator; written by who compiles this
#include "options.h"

namespace poolnb {

// The half types, which a GPU converts by its own functions.
float number_of(HalfBits x) { return std::bit_cast<_Float16>(x.bits); }
float number_of(BFloatBits x) { return std::bit_cast<float>(uint32_t(x.bits) << 16); }
void put_number(HalfBits* p, float x) { p->bits = std::bit_cast<uint16_t>(_Float16(x)); }
void put_number(BFloatBits* p, float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), rounded = bits + 0x7fff + ((bits >> 16) & 1);
  p->bits = x == x ? uint16_t(rounded >> 16) : 0x7fc0;
}
uint8_t number_of(uint8_t x) { return x; }
void put_number(uint8_t* p, uint8_t x) { *p = x; }

}  // namespace poolnb

using namespace poolnb;

namespace {

template <class S>
constexpr Dtype stored_as = std::is_same_v<S, HalfBits>     ? Dtype::float16
                            : std::is_same_v<S, BFloatBits> ? Dtype::bfloat16
                            : std::is_same_v<S, float>      ? Dtype::float32
                            : std::is_same_v<S, double>     ? Dtype::float64
                                                            : Dtype::boolean;

FILE* in;
FILE* out;

template <class T>
T read_one() {
  T x;
  if (fread(&x, sizeof x, 1, in) != 1) abort();
  return x;
}

// A tensor (N, C, D, H, W); in memory with channels last if asked for.
template <class S>
struct Held {
  std::vector<S> data;
  int64_t size[5], stride[5];

  Held(int64_t n, int64_t c, const int64_t* space, bool last, bool given) {
    const int64_t sizes[5] = {n, c, space[0], space[1], space[2]};
    const int order[2][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}};
    int64_t step = 1;
    for (int d : order[last]) {
      size[d] = sizes[d];
      stride[d] = step;
      step *= sizes[d];
    }
    S unwritten;
    put_number(&unwritten, 77);  // what is not written shows
    data = std::vector<S>(step, unwritten);
    if (given) each([&](S& x) { put_number(&x, decltype(number_of(x))(read_one<double>())); });
  }
  template <class Use>
  void each(const Use& use) {
    int64_t i[5];
    for (i[0] = 0; i[0] < size[0]; ++i[0])
      for (i[1] = 0; i[1] < size[1]; ++i[1])
        for (i[2] = 0; i[2] < size[2]; ++i[2])
          for (i[3] = 0; i[3] < size[3]; ++i[3])
            for (i[4] = 0; i[4] < size[4]; ++i[4]) {
              int64_t at = 0;
              for (int d = 0; d < 5; ++d) at += i[d] * stride[d];
              use(data[at]);
            }
  }
  void write() {
    each([&](S& x) {
      const double y = double(number_of(x));
      fwrite(&y, sizeof y, 1, out);
    });
  }
  View view() {
    View v;
    v.data = data.data();
    v.dtype = stored_as<S>;
    for (int d = 0; d < 5; ++d) v.stride[d] = stride[d];
    return v;
  }
};

// The threads that the GPU would run: whole blocks, the last of them partly idle.
template <class Body>
void threads(int64_t n, const Body& body) {
  constexpr int64_t each = 256;
  for (int64_t block = 0; block < (n + each - 1) / each; ++block)
    for (int64_t thread = 0; thread < each; ++thread)
      if (block * each + thread < n) body(block * each + thread);
}

template <class S>
void fill_zero(Held<S>& tensor) {
  tensor.each([](S& x) { put_number(&x, 0); });
}

template <class Op>
constexpr int table_count() {
  if constexpr (Tabled<Op>) return Op::tables;
  else return 0;
}

// The gradient of a table, summed over its parts, and over channels where one row is left of them.
template <class T>
void write_sums(Held<T>& grad, int64_t channels) {
  const int64_t entries = grad.size[3] * grad.size[4];
  std::vector<double> sums(channels * entries);
  int64_t number = 0;
  grad.each([&](T x) {
    const int64_t c = number / entries % grad.size[1];
    sums[(channels > 1 ? c * entries : 0) + number++ % entries] += x;
  });
  fwrite(sums.data(), sizeof(double), sums.size(), out);
}

// S: as the inputs are stored; T: of sums; Second and Gradient: as the second input and its gradient are stored.
template <class Op, class S, class T, class Second, class Gradient>
void run(bool last) {
  Problem q;
  int64_t* const fields[] = {q.windows.size,    q.windows.kernel,   q.windows.stride,
                             q.windows.padding, q.windows.dilation, q.windows.output};
  for (int64_t* field : fields)
    for (int a = 0; a < 3; ++a) field[a] = read_one<int64_t>();
  q.batch = read_one<int64_t>();
  q.channels = read_one<int64_t>();
  const bool masked = read_one<int64_t>();
  q.options.draws = read_one<int64_t>();
  q.options.seed = uint64_t(read_one<int64_t>());
  constexpr int tables = table_count<Op>();
  for (int t = 0; t < tables; ++t) {
    q.table[t].filters = read_one<int64_t>();
    q.table[t].width = read_one<int64_t>();
  }
  set_options<Op>(q.options, [] { return read_one<double>(); });
  q.want_parameters = true;
  const int64_t n = q.batch, c = q.channels, *size = q.windows.size, *output = q.windows.output;
  Held<S> x(n, c, size, last, true), grad_x(n, c, size, last, false);
  std::vector<Held<Second>> second;
  std::vector<Held<Gradient>> grad_second;
  std::vector<Held<T>> parameter, grad_parameter;
  if (Op::inputs > 1) {
    second.emplace_back(n, c, size, last, true);
    grad_second.emplace_back(n, c, size, last, false);
    q.input[1] = second[0].view();
    q.grad_input[1] = grad_second[0].view();
  }
  std::vector<Held<uint8_t>> mask;
  if (masked) {
    mask.emplace_back(n, c, size, last, true);
    q.mask = mask[0].view();
  }
  for (int i = 0; i < Op::parameters; ++i) {
    parameter.emplace_back(n, c, output, last, true);
    grad_parameter.emplace_back(n, c, output, last, false);
  }
  for (int i = 0; i < Op::parameters; ++i) {
    q.parameter[i] = parameter[i].view();
    q.grad_parameter[i] = grad_parameter[i].view();
  }
  // Tables, and their gradients part by part.
  const int64_t parts = table_parts(q);
  std::vector<Held<T>> table, grad_table;
  for (int t = 0; t < tables; ++t) {
    const int64_t entries[3] = {1, q.table[t].filters, q.table[t].width};
    table.emplace_back(1, SharesTables<Op> ? 1 : c, entries, false, true);
    grad_table.emplace_back(parts, c, entries, last, false);
  }
  for (int t = 0; t < tables; ++t) {
    q.table[t].view = table[t].view();
    if (SharesTables<Op>) q.table[t].view.stride[1] = 0;
    q.table[t].grad = grad_table[t].view();
  }
  Held<S> y(n, c, output, last, false), grad(n, c, output, last, true);
  q.input[0] = x.view();
  q.output = y.view();
  q.grad = grad.view();
  q.grad_input[0] = grad_x.view();
  std::vector<Left<Op, T>> left(window_count(q));
  const Grid grid(q, last);
  with_shape<T, 2, 3>(q, grid, [&]<int H, int W>() {
    threads(window_count(q), [&](int64_t i) { forward_body<Op, S, T, H, W>(q, grid, i); });
  });
  if (leaves_gaps(q)) {
    fill_zero(grad_x);
    for (auto& g : grad_second) fill_zero(g);
  }
  if (q.windows.non_overlapping()) {
    with_shape<T, 2>(q, grid, [&]<int H, int W>() {
      threads(window_count(q), [&](int64_t i) { non_overlapping_body<Op, S, T, H, W>(q, grid, i); });
    });
  } else {
    with_shape<T, 3>(q, grid, [&]<int H, int W>() {
      threads(window_count(q), [&](int64_t i) { window_body<Op, S, T, H, W>(q, grid, left.data(), i); });
    });
    threads(position_count(q), [&](int64_t i) { gather_body<Op, S, T>(q, grid, left.data(), i); });
  }
  if constexpr (tables > 0) threads(parts * c, [&](int64_t i) { table_body<Op, S, T>(q, grid, parts, i); });
  y.write();
  grad_x.write();
  for (auto& g : grad_second) g.write();
  for (auto& g : grad_parameter) g.write();
  for (auto& g : grad_table) write_sums(g, SharesTables<Op> ? 1 : c);
}

// Beside a half type the second input can be stored as sums are, and its gradient has to be where it will be summed.
template <class Op, class S>
void run_half(bool last, int64_t wide) {
  if constexpr (Op::inputs > 1) {
    if (wide == 2) return run<Op, S, float, float, float>(last);
    if (wide == 1) return run<Op, S, float, S, float>(last);
  }
  run<Op, S, float, S, S>(last);
}

template <class Op>
void run_any() {
  const int64_t dtype = read_one<int64_t>(), wide = read_one<int64_t>();
  const bool last = read_one<int64_t>();
  switch (Dtype(dtype)) {
    case Dtype::float16: return run_half<Op, HalfBits>(last, wide);
    case Dtype::bfloat16: return run_half<Op, BFloatBits>(last, wide);
    case Dtype::float32: return run<Op, float, float, float, float>(last);
    default: return run<Op, double, double, double, double>(last);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !(in = fopen(argv[1], "rb")) || !(out = fopen(argv[2], "wb"))) return 2;
  int64_t op;
  while (fread(&op, sizeof op, 1, in) == 1) {
#define POOLNB_OPERATOR(Op, name, parts) run_any<Op>,
    void (*const runs[])() = {
#include "../../ext/operators.def"
    };
    runs[op]();
  }
  fclose(out);
  return 0;
}
