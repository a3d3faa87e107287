// Forward and backward of any operator on the CPU: window maths from ../windows, units of work from plan.h.
#pragma once

#include "channels_last4.h"
#include "global.h"
#include "operators.h"
#include "overlapping.h"
#include "overlapping_rows.h"
#include "rows2.h"
#include "windows.h"

namespace poolnb {

// each(worker, number) for every unit.
template <class Op, class T, class Each>
void each_unit(const Plan<T>& plan, const Parallel& parallel, const Each& each) {
  parallel(plan.units(), plan.grain(), [&](int64_t begin, int64_t end) {
    const auto work = [&](auto worker) {
      for (int64_t u = begin; u < end; ++u) each(worker, u);
      if (plan.streams) finish_streams();
    };
    const auto in_registers = [&](auto halves) {
      if (plan.across) return work(ChannelsLast4<Op, T, halves.value>(plan));
      if (plan.short_rows) return work(Rows2<Op, T, 4, halves.value, true>(plan));
      if (plan.w.taps() == 8) return work(Rows2<Op, T, 8, halves.value, false>(plan));
      work(Rows2<Op, T, 4, halves.value, false>(plan));
    };
    if constexpr (Plan<T>::fixed)
      if (plan.in_registers())
        return plan.halves ? in_registers(std::true_type()) : in_registers(std::false_type());
    if constexpr (Summed<Op> && Plan<T>::fixed) {
      const auto rows = [&](auto halves) {
        if (plan.w.stride[2] == 1) work(OverlappingRows<Op, T, halves.value, 1>(plan));
        else work(OverlappingRows<Op, T, halves.value, 2>(plan));
      };
      if (plan.by_rows) return plan.halves ? rows(std::true_type()) : rows(std::false_type());
      if (plan.overlapping) return work(Overlapping<Op, T>(plan));
      const auto whole = [&](auto halves) {
        constexpr int lanes = Plan<T>::lanes;
        constexpr int side = Op::template Sums<VecF>::keeps ? 1 : 4;  // a tap that costs much gains nothing by more
        if (!plan.along_taps() && plan.q.channels % (side * lanes)) work(Global<Op, T, halves.value, false, 1>(plan));
        else if (!plan.along_taps()) work(Global<Op, T, halves.value, false, side>(plan));
        else if (plan.w.taps() > kShortLine * lanes) work(Global<Op, T, halves.value, true, 1>(plan));
        else work(Global<Op, T, halves.value, true, lanes>(plan));
      };
      if (plan.whole_lines) return plan.halves ? whole(std::true_type()) : whole(std::false_type());
    }
    work(Generic<Op, T>(plan));
  });
}

template <class Op, class T>
void run_forward(const Problem& q, const Parallel& parallel) {
  const Plan<T> plan(q, operator_of<Op, T>(q, false), false);
  each_unit<Op>(plan, parallel, [](auto& worker, int64_t unit) { worker.forward(unit); });
}

// The gradients of tables, from their parts: entry by entry, row by row.
template <class T>
void sum_tables(const Problem& q, const std::vector<T>& partial, int64_t rows, int64_t channels) {
  std::vector<double> total(channels);
  const T* from = partial.data();
  for (const Table& table : q.table)
    for (int64_t f = 0; f < table.filters; ++f)
      for (int64_t i = 0; i < table.width; ++i) {
        std::fill(total.begin(), total.end(), 0);
        for (int64_t row = 0; row < rows; ++row, from += channels)
          for (int64_t c = 0; c < channels; ++c) total[c] += from[c];
        const View& to = table.grad;
        for (int64_t c = 0; c < channels; ++c) static_cast<T*>(to.data)[to.offset(0, c, 0, f, i)] = T(total[c]);
      }
}

template <class Op, class T>
void run_backward(const Problem& q, const Parallel& parallel) {
  const Plan<T> plan(q, operator_of<Op, T>(q, true), true);
  // One number per unit of what all channels share, else one per channel.
  const int64_t rows = SharesTables<Op> ? plan.units() : plan.partial_rows();
  const int64_t channels = SharesTables<Op> ? 1 : q.channels;
  const int64_t parts = Tabled<Op> ? q.table[0].numbers() + q.table[1].numbers() : Op::parameters;
  std::vector<T> partial(q.want_parameters ? parts * rows * channels : 0);
  each_unit<Op>(plan, parallel, [&](auto& worker, int64_t unit) { worker.backward(unit, partial.data()); });
  if (!q.want_parameters) return;
  if constexpr (Tabled<Op>) sum_tables(q, partial, rows, channels);
  for (int i = 0; i < Op::parameters; ++i) {
    if (!q.channelwise[i]) continue;
    const View& to = q.grad_parameter[i];
    double total = 0;
    for (int64_t c = 0; c < q.channels; ++c) {
      if (to.stride[1]) total = 0;  // else all channels share one number
      for (int64_t r = 0; r < rows; ++r) total += partial[(i * rows + r) * q.channels + c];
      with_type(to.dtype, to.data, [&](auto* at) {
        if constexpr (!std::is_same_v<decltype(at), bool*>) put(at + c * to.stride[1], T(total));
      });
    }
  }
}

// An operator that is compiled once more for the parameter that most give it, as `Usual`: it is simpler then.
template <class Op>
concept HasUsual = requires { typename Op::Usual; };
template <class Op>
bool is_usual(const Problem& q) {
  const View& p = q.parameter[0];
  bool all = q.channelwise[0];
  with_type(p.dtype, p.data, [&](auto* from) {
    for (int64_t c = 0; all && c < (p.stride[1] ? q.channels : 1); ++c)
      all = number(from[c * p.stride[1]]) == Op::usual;
  });
  return all;
}

// The number type that sums are kept in follows the input: float32 for the half types.
template <class Op>
void forward(const Problem& q, const Parallel& parallel) {
  if constexpr (HasUsual<Op>)
    if (is_usual<Op>(q)) return forward<typename Op::Usual>(q, parallel);
  if (q.input[0].dtype == Dtype::float64) run_forward<Op, double>(q, parallel);
  else run_forward<Op, float>(q, parallel);
}
template <class Op>
void backward(const Problem& q, const Parallel& parallel) {
  if constexpr (HasUsual<Op>)
    if (is_usual<Op>(q)) return backward<typename Op::Usual>(q, parallel);
  if (q.input[0].dtype == Dtype::float64) run_backward<Op, double>(q, parallel);
  else run_backward<Op, float>(q, parallel);
}

}  // namespace poolnb

// The unit of one operator: poolnb/_build.py writes one for each, so that they are compiled side by side.
#define POOLNB_UNIT(Op)                                        \
  namespace poolnb {                                           \
  template void forward<Op>(const Problem&, const Parallel&);  \
  template void backward<Op>(const Problem&, const Parallel&); \
  }
