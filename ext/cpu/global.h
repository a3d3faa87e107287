// One window over all of the input, of an operator that goes by sums (sums.h): a line of numbers per channel, used where
// it lies. `along_taps`: a vector holds taps that follow each other, and short lines are summed side by side, so that
// what follows is done for a vector of channels. Else, where channels lie together, it holds channels, and several such
// vectors are read one after the other, tap by tap, as they lie in memory. Nothing is copied, and a mask is read as it
// is. A unit with values out of reach goes window by window.
#pragma once

#include <array>
#include <optional>

#include "sums.h"
#include "windows.h"

namespace poolnb {

constexpr int64_t kShortLine = 32;  // vectors of taps of a line that is summed side by side with others

template <class Op, class T, bool halves, bool along_taps, int together>
class Global {
  using V = Vec<T>;
  using Sums = typename Op::template Sums<V>;
  static constexpr int side = along_taps ? 1 : together;  // vectors that one tap has
  static constexpr bool short_lines = along_taps && together > 1;  // of no more than kShortLine steps
  static constexpr int64_t lanes = Traits<V>::lanes;
  static constexpr int64_t kKept = 4096;  // vectors of taps of which backward keeps a feature between its two passes

 public:
  explicit Global(const Plan<T>& plan)
      : p_(plan), q_(plan.q), taps_(plan.w.taps()), steps_(along_taps ? (taps_ + lanes - 1) / lanes : taps_),
        kept_(plan.backward && Sums::keeps && steps_ <= kKept ? together * steps_ * lanes : 0) {
    for (int i = 0; i < Op::inputs; ++i) step_[i] = Plan<T>::one_step(q_.input[i], plan.w);
    for (int i = 0; i < Op::inputs; ++i) grad_step_[i] = Plan<T>::one_step(q_.grad_input[i], plan.w);
    mask_step_ = Plan<T>::one_step(q_.mask, plan.w);
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    number_ = load<V>(number);
  }

  void forward(int64_t unit) {
    const bool done = each_vector(unit, [&](const Lines& lines) {
      return q_.mask.data ? forward_lines<true>(lines) : forward_lines<false>(lines);
    });
    if (!done) window_by_window().forward(unit);
  }

  // `partial`: see windows.h.
  void backward(int64_t unit, T* partial) {
    constexpr bool can_learn = Op::parameters && Sums::learned;
    const bool learns = can_learn && q_.want_parameters;
    const bool done = each_vector(unit, [&](const Lines& lines) {
      if (learns)
        return q_.mask.data ? backward_lines<true, can_learn>(lines, partial)
                            : backward_lines<false, can_learn>(lines, partial);
      return q_.mask.data ? backward_lines<true, false>(lines, partial) : backward_lines<false, false>(lines, partial);
    });
    if (!done) window_by_window().backward(unit, partial);
  }

 private:
  // The windows of so many channels from c on, or of `side` vectors of channels.
  struct Lines {
    int64_t n, c, count;
  };

  // False, as soon as call(lines) is.
  template <class Call>
  bool each_vector(int64_t unit, const Call& call) const {
    constexpr int64_t step = along_taps ? together : side * lanes;
    const int64_t n = unit / p_.chunks, begin = unit % p_.chunks * p_.chunk;
    const int64_t end = std::min(begin + p_.chunk, q_.channels);
    if (!along_taps && end - begin < step) return false;
    for (int64_t c = begin; c < end; c += step) {
      const bool done = along_taps ? call(Lines{n, c, std::min<int64_t>(together, end - c)})
                                   : call(Lines{n, std::min(c, end - step), 1});  // the last overlaps its neighbour
      if (!done) return false;
    }
    return true;
  }

  Generic<Op, T>& window_by_window() {
    if (!generic_) generic_.emplace(p_);
    return *generic_;
  }

  // ---- lines ------------------------------------------------------------------------------------------------------

  // Their sums, one lane per channel; lanes without a channel repeat the last one.
  template <bool masked, int count>
  POOLNB_HD bool add(const Lines& lines, const V* parameter, V (*totals)[count + 1], float reach, T* kept) const {
    Reach<V> seen;
    if constexpr (!along_taps) {
      add_line<masked, count>(lines, parameter, totals, seen, kept);
    } else {
      V sums[count + 1][together];
      for (int64_t k = 0; k < lines.count; ++k) {
        const V own = splat<V>(parameter[0][k]);
        V line[1][count + 1];
        add_line<masked, count>(line_of(lines, k), &own, line, seen, kept ? kept + k * steps_ * lanes : nullptr);
        for (int f = 0; f <= count; ++f) sums[f][k] = line[0][f];
      }
      for (int64_t k = lines.count; k < together; ++k)
        for (int f = 0; f <= count; ++f) sums[f][k] = sums[f][k - 1];
      for (int f = 0; f <= count; ++f) totals[0][f] = total(sums[f]);
    }
    if (!masked)
      for (int s = 0; s < side; ++s) totals[s][count] = splat<V>(T(taps_));
    return seen.within(reach);
  }

  // `totals` of each vector: its sums, and how many taps are valid.
  template <bool masked, int count>
  POOLNB_HD void add_line(const Lines& line, const V* parameter, V (*totals)[count + 1], Reach<V>& seen, T* kept) const {
    Sum<V> sums[side][count], number[side];
    const Place first = input_of(line, 0), other = input_of(line, Op::inputs - 1);
    const auto ops = operators(parameter, std::make_index_sequence<side>());
    each_tap<masked>(line, [&](int64_t i, int64_t at, int s, auto valid, auto fresh) POOLNB_INLINE {
      const Sums& op = ops[s];
      const V x = read<true>(first, at, s, valid);
      const V second = Op::inputs > 1 ? read<true>(other, at, s, valid) : x;
      look_at(seen, op, x, second, valid);
      V f[count];
      op.template tap<count>(x, second, f);
      for (int k = 0; k < count; ++k) sums[s][k] += select(valid & fresh, f[k], splat<V>(0));
      if constexpr (masked) number[s] += one_where<V>(valid & fresh);
      if constexpr (Sums::keeps)
        if (kept) store<V>(kept + i * lanes, f[0]);
    }, [&] {
      for (int s = 0; s < side; ++s) {
        for (auto& sum : sums[s]) sum.carry();
        number[s].carry();
      }
    });
    for (int s = 0; s < side; ++s) {
      for (int k = 0; k < count; ++k) totals[s][k] = sums[s][k].value();
      totals[s][count] = number[s].value();
    }
  }

  static POOLNB_HD V total(const V* sums) {
    return together > 1 ? sums_of_lanes<together>(sums) : sum_of_lanes(sums[0]);
  }
  static POOLNB_HD Lines line_of(const Lines& lines, int64_t k) { return {lines.n, lines.c + k, 1}; }
  // put(k, channel) for the lanes of a vector that hold a channel.
  template <class Put>
  static POOLNB_HD void each_channel(const Lines& lines, int s, const Put& put) {
    for (int64_t k = 0; k < (along_taps ? lines.count : lanes); ++k) put(k, lines.c + s * lanes + k);
  }

  template <bool masked>
  __attribute__((noinline)) bool forward_lines(const Lines& lines) const {
    constexpr int count = Sums::features;
    V parameter[side], sums[side][count + 1];
    parameters(lines, parameter);
    if (along_taps) look_up_pages(lines);
    if (!add<masked, count>(lines, parameter, sums, Sums::reach, nullptr)) return false;
    const View& v = q_.output;
    for (int s = 0; s < side; ++s) {
      const V y = Sums(parameter[s], q_.options).template value<count>(sums[s], sums[s][count]);
      if (any(infinite_or_nan(y))) return false;
      with_float_type<halves>(v.dtype, v.data, [&](auto* to) {
        each_channel(lines, s, [&](int64_t k, int64_t c) { put(to + v.offset(lines.n, c, 0, 0, 0), y[k]); });
      });
    }
    return true;
  }

  template <bool masked, bool learns>
  __attribute__((noinline)) bool backward_lines(const Lines& lines, T* partial) {
    constexpr int count = learns ? Sums::learned : Sums::features;
    T* kept = kept_.size() ? kept_.data() : nullptr;
    V parameter[side], sums[side][count + 1], back[side][Sums::back];
    parameters(lines, parameter);
    if (!add<masked, count>(lines, parameter, sums, Sums::reach_back, kept)) return false;
    for (int s = 0; s < side; ++s) {
      const Sums op(parameter[s], q_.options);
      const V n = sums[s][count], y = op.template value<count>(sums[s], n), g = gathered(q_.grad, lines, s);
      op.hand_back(sums[s], n, y, g, back[s]);
      if (any(infinite_or_nan(y + g))) return false;
      if constexpr (learns) {
        V rough;
        const V d = op.param_grad(sums[s], n, y, rough);
        if (any(rough > splat<V>(kRough) * vabs(d))) return false;
        const V part = g * d;
        each_channel(lines, s, [&](int64_t k, int64_t c) { partial[lines.n * q_.channels + c] = part[k]; });
      }
    }
    if constexpr (!along_taps) {
      return write_grads<masked>(lines, parameter, back, kept);
    } else {
      for (int64_t k = 0; k < lines.count; ++k) {
        const V own = splat<V>(parameter[0][k]);
        V handed[1][Sums::back];
        for (int b = 0; b < Sums::back; ++b) handed[0][b] = splat<V>(back[0][b][k]);
        T* const line_kept = kept ? kept + k * steps_ * lanes : nullptr;
        if (!write_grads<masked>(line_of(lines, k), &own, handed, line_kept)) return false;
      }
      return true;
    }
  }

  template <bool masked>
  POOLNB_HD bool write_grads(const Lines& line, const V* parameter, const V (*back)[Sums::back], const T* kept) const {
    Reach<V> seen;
    const Place first = input_of(line, 0), other = input_of(line, Op::inputs - 1);
    const Place to = gradient_of(line, 0), to_other = gradient_of(line, Op::inputs - 1);
    const auto ops = operators(parameter, std::make_index_sequence<side>());
    each_tap<masked>(line, [&](int64_t i, int64_t at, int s, auto valid, auto) POOLNB_INLINE {
      const Sums& op = ops[s];
      const V x = read(first, at, s, valid), second = Op::inputs > 1 ? read(other, at, s, valid) : x;
      V f[Sums::features], d_second = splat<V>(0);
      if (Sums::keeps && kept) f[0] = load<V>(kept + i * lanes);
      else op.template tap<Sums::features>(x, second, f);
      const V d = select(valid, op.tap_grad(x, second, f[0], back[s], d_second), splat<V>(0));
      seen.result(d);
      write(to, at, s, d);
      if constexpr (Op::inputs > 1) {
        d_second = select(valid, d_second, splat<V>(0));
        seen.result(d_second);
        if (to_other.data) write(to_other, at, s, d_second);
      }
    }, [] {});
    return seen.finite();
  }

  // ---- its taps ---------------------------------------------------------------------------------------------------

  // Where a line of a tensor lies: known before the loop, which writes to memory that the plan might lie in.
  struct Place {
    Dtype dtype;
    void* data;
    int64_t step;  // from tap to tap
  };
  template <int64_t bytes = halves ? 2 : sizeof(float)>
  POOLNB_HD static Place place_of(const View& v, const Lines& line, int64_t step) {
    auto* const first = static_cast<char*>(v.data);
    const int64_t offset = line.n * v.stride[0] + line.c * v.stride[1];
    return {v.dtype, first ? first + offset * bytes : nullptr, along_taps ? 1 : step};
  }
  POOLNB_HD Place input_of(const Lines& line, int i) const { return place_of(q_.input[i], line, step_[i]); }
  POOLNB_HD Place gradient_of(const Lines& line, int i) const {
    return place_of(q_.grad_input[i], line, grad_step_[i]);
  }

  // each(step, tap, s, valid, fresh) for the vectors s, and pause() between blocks of steps. Along taps, the last vector
  // overlaps its neighbour: `fresh` are its lanes that were not there.
  template <bool masked, class Each, class Pause>
  POOLNB_HD void each_tap(const Lines& line, const Each& each, const Pause& pause) const {
    const int64_t taps = taps_, steps = steps_, whole = along_taps ? taps / lanes : taps;
    const Place mask = place_of<1>(q_.mask, line, mask_step_);
    const bool shared = !along_taps && q_.mask.stride[1] == 0;  // by the channels
    const auto block = [&](int64_t begin, int64_t end) POOLNB_INLINE {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = along_taps ? i * lanes : i;
        for (int s = 0; s < side; ++s) each(i, at, s, valid<masked>(mask, shared, at, s), Always{});
      }
    };
    if (short_lines || whole <= kTerms) {
      block(0, whole);
    } else {
      for (int64_t begin = 0; begin < whole; begin += kTerms) {
        block(begin, std::min(begin + kTerms, whole));
        pause();
      }
    }
    if (whole == steps) return;
    const int64_t at = taps - lanes;
    each(whole, at, 0, valid<masked>(mask, shared, at, 0), number_ >= splat<V>(T(whole * lanes - at)));
  }

  // A processor reads ahead to the end of a page of memory, and looks up where the next one lies when it gets there:
  // one number of each page that comes soon.
  POOLNB_HD void look_up_pages(const Lines& lines) const {
    constexpr int64_t page = 4096;
    const auto* from = static_cast<const char*>(input_of(lines, 0).data) + 2 * page;
    const int64_t bytes = lines.count * taps_ * (halves ? 2 : sizeof(float));
    for (int64_t at = 0; at < bytes; at += page) __builtin_prefetch(from + at, 0, 2);
  }

  template <bool masked>
  static POOLNB_HD auto valid(const Place& mask, bool shared, int64_t tap, int s) {
    if constexpr (!masked) return Always{};
    else {
      const auto* from = static_cast<const uint8_t*>(mask.data) + tap * mask.step;
      return shared ? splat<V>(*from) != splat<V>(0) : load_mask<V>(from + s * lanes);
    }
  }

  // `first`: of the first look, which asks the memory for what comes soon.
  template <bool first = false, class Valid>
  static POOLNB_HD V read(const Place& place, int64_t tap, int s, Valid valid) {
    V x;
    with_float_type<halves>(place.dtype, place.data, [&](auto* from) POOLNB_INLINE {
      from += tap * place.step + s * lanes;
      if (first && !along_taps) __builtin_prefetch(from + 4 * lanes, 0, 2);
      x = load_as<V>(from);
    });
    return select(valid, x, splat<V>(0));
  }
  static POOLNB_HD void write(const Place& place, int64_t tap, int s, V d) {
    with_float_type<halves>(place.dtype, place.data, [&](auto* to) POOLNB_INLINE {
      store_as(to + tap * place.step + s * lanes, d);
    });
  }

  // ---- what a window has ------------------------------------------------------------------------------------------

  // One lane per channel; those without one repeat the last.
  V gathered(const View& v, const Lines& lines, int s) const {
    V x = splat<V>(0);
    with_type(v.dtype, v.data, [&](auto* from) {
      for (int64_t k = 0; k < lanes; ++k) {
        const int64_t channel = along_taps ? std::min(k, lines.count - 1) : s * lanes + k;
        x[k] = T(number(from[v.offset(lines.n, lines.c + channel, 0, 0, 0)]));
      }
    });
    return x;
  }
  template <size_t... s>
  POOLNB_HD std::array<Sums, side> operators(const V* parameter, std::index_sequence<s...>) const {
    return {Sums(parameter[s], q_.options)...};
  }
  void parameters(const Lines& lines, V* parameter) const {
    for (int s = 0; s < side; ++s)
      parameter[s] = Op::parameters ? gathered(q_.parameter[0], lines, s) : splat<V>(0);
  }

  const Plan<T>& p_;
  const Problem& q_;
  const int64_t taps_, steps_;
  int64_t step_[kMaxInputs], grad_step_[kMaxInputs], mask_step_;
  Buffer<T> kept_;
  V number_;
  std::optional<Generic<Op, T>> generic_;
};

}  // namespace poolnb
