// Any windows: vectors of them from the blocks of a unit, or from the tensor where it lies ready.
//
// Backward gathers: a unit owns the rows of the input's gradient where its windows start, and evaluates every window
// that reaches them, those of the band before (the halo) included. Gradients of parameters are one partial per unit.
#pragma once

#include <array>

#include "unit.h"

namespace poolnb {

template <class Op, class T>
class Generic : protected Unit<Op, T> {
 protected:
  using Base = Unit<Op, T>;
  using typename Base::V, typename Base::Window, typename Base::Place;
  using Base::lanes, Base::p_, Base::q_, Base::w_, Base::masked_, Base::read_, Base::valid_, Base::sum_,
      Base::x_block_, Base::sum_block_, Base::y_block_, Base::valid_block_, Base::counted_, Base::carried_,
      Base::saved_, Base::weights_, Base::parameter_sum, Base::plain_, Base::band_, Base::own_, Base::first_,
      Base::windows_, Base::n_, Base::c_, Base::count_, Base::vectors_, Base::each_image, Base::at_windows,
      Base::at_positions, Base::numbers, Base::place, Base::window_box, Base::own_box, Base::own_place,
      Base::skip, Base::is_last_, Base::read_parameters, Base::noise, Base::is_active, Base::out_place,
      Base::write_parameters;

 public:
  explicit Generic(const Plan<T>& plan) : Base(plan) {
    if (!p_.direct_in || !masked_) return;
    for (int i = 0; i < Op::inputs; ++i) gathered_[i] = Buffer<T>(w_.taps() * lanes);
    for (int64_t i = 0; i < w_.taps(); ++i) gathered_place_.push_back(i * lanes);
  }

  void forward(int64_t unit) {
    each_image(unit, [&] { forward_image(); });
  }

  // `partial` has one number per parameter, (band, images) and channel.
  void backward(int64_t unit, T* partial) {
    each_image(unit, [&] { backward_image(); });
    if (q_.want_parameters) write_parameters(partial);
  }

 protected:
  // call(number of taps), as a constant where that is compiled apart, else 0; -1 where they are many.
  template <class Call>
  void fixed_taps(const Call& call) const {
    if constexpr (Plan<T>::fixed) {
      if (w_.taps() == 4) return call(std::integral_constant<int, 4>{});
      if (w_.taps() == 9) return call(std::integral_constant<int, 9>{});
    }
    if (p_.forgets) return call(std::integral_constant<int, -1>{});
    call(std::integral_constant<int, 0>{});
  }

  // ---- a vector of windows ------------------------------------------------------------------------------------------

  template <class Each>
  POOLNB_HD void each_vector(const Each& each) const {
    if (!p_.channels) {
      for (int64_t b = 0; b < vectors_; ++b) each(Place{b, b * lanes, b * lanes, b * lanes, b * lanes, 0});
      return;
    }
    int64_t number = 0;
    for (int64_t d = 0; d < windows_[0]; ++d)
      for (int64_t h = 0; h < windows_[1]; ++h) {
        int64_t x = place(p_.read, d, h, 0), valid = place(p_.in, d, h, 0), sum = place(p_.sum, d, h, 0);
        int64_t y = p_.write.at(d, h, 0);
        for (int64_t w = 0; w < windows_[2]; ++w, ++number) {
          for (int64_t l = 0; l < vectors_ * lanes; l += lanes)
            each(Place{number, x + l, valid + l, sum + l, y + l, l});
          x += p_.read.step[2] * w_.stride[2];
          valid += p_.in.step[2] * w_.stride[2];
          sum += p_.sum.step[2] * w_.stride[2];
          y += p_.write.step[2];
        }
      }
  }

  // Look at a vector of windows in the cheapest way that is right, then `then(taps, active)`. A result that is not
  // finite has seen an infinity, a NaN, an overflow or an empty window: false, to take the safe path.
  template <int K, class M, class Then>
  POOLNB_HD bool forward_fast(Window& w, const T* const* x, const Place& at, M& saved, const Then& then) {
    const T* second = Op::inputs > 1 ? x[Op::inputs - 1] + at.x : nullptr;
    if (!p_.in.gapless && (!masked_ || (!q_.mask.data && plain_[at.number]))) {
      const T* from = x[0] + at.x;
      const VecTaps<V, K, false> taps{read_.table(), nullptr,   from,          second,       nullptr,
                                       noise(at),     w_.taps(), p_.noise_step, read_.step(), 0,
                                       weights_.data(), order_of(at)};
      Op::template forward<false>(w, taps, q_.options, saved);
      if (any(infinite_or_nan(Op::value(w)))) return false;
      then(taps, Always{});
    } else {
      const auto taps = masked_taps<K>(x, at);
      Op::template forward<false>(w, taps, q_.options, saved);
      const auto active = is_active(at.number);
      if (any(infinite_or_nan(Op::value(w)) & active)) return false;
      then(taps, active);
    }
    return true;
  }

  template <int K>
  VecTaps<V, K, true> masked_taps(const T* const* x, const Place& at) {
    const T* second = Op::inputs > 1 ? x[Op::inputs - 1] + at.x : nullptr;
    const T* valid = valid_block_.data() + (masked_ ? at.valid : 0);
    if (p_.direct_in && masked_) {
      gather(x, at, valid);
      return {gathered_place_.data(), valid_.table(), gathered_[0].data(), gathered_[Op::inputs - 1].data(), valid,
              noise(at), w_.taps(), p_.noise_step, 0, valid_.step(), weights_.data(), order_of(at)};
    }
    return {read_.table(), valid_.table(), x[0] + at.x,   second,       valid,
            noise(at),     w_.taps(),      p_.noise_step, read_.step(), valid_.step(),
            weights_.data(), order_of(at)};
  }
  // The taps of a window in the padding of an input that is used where it lies.
  void gather(const T* const* x, const Place& at, const T* valid) {
    for (int64_t i = 0; i < w_.taps(); ++i)
      for (int k = 0; k < Op::inputs; ++k) {
        const bool inside = valid[valid_.template at<true>(i)] != 0;
        store<V>(gathered_[k].data() + i * lanes,
                 inside ? load<V>(x[k] + at.x + read_.template at<true>(i)) : splat<V>(0));
      }
  }
  Order<T> order_of(const Place& at) {
    return this->order(out_place(at), at.lane, p_.channels ? nullptr : this->active_.data() + at.number * lanes);
  }

  // ---- forward ----------------------------------------------------------------------------------------------------

  void forward_image() {
    T* y = p_.direct_out ? numbers(at_windows(q_.output)) : y_block_.data();
    fixed_taps([&](auto taps) { forward_windows<taps.value>(y); });
    if (!p_.direct_out) write_block(y, p_.out, window_box(), q_.output, n_, c_, count_);
  }

  template <int K>
  __attribute__((noinline)) void forward_windows(T* y) {
    NothingSaved none;
    const auto x = inputs();
    each_vector([&](const Place& at) {
      Window w;
      read_parameters(w, at);
      if (!forward_fast<K>(w, x.data(), at, none, [](const auto&, auto) {})) forward_safe(w, x.data(), at, none);
      store<V>(y + at.y, Op::value(w));
    });
  }

  template <class M>
  __attribute__((noinline)) void forward_safe(Window& w, const T* const* x, const Place& at, M& saved) {
    Op::template forward<true>(w, masked_taps<-1>(x, at), q_.options, saved);
  }

  std::array<const T*, kMaxInputs> inputs() const {
    std::array<const T*, kMaxInputs> x{};
    for (int i = 0; i < Op::inputs; ++i) x[i] = p_.direct_in ? numbers(at_positions(q_.input[i])) : x_block_[i].data();
    return x;
  }

  // ---- backward ---------------------------------------------------------------------------------------------------

  // The incoming gradient of windows that count for parameters: not the halo's.
  const T* counted(const T* g) {
    if (!(skip(0) || skip(1) || skip(2)) || !q_.want_parameters) return g;
    read_block(counted_.data() + own_place(), p_.out, own_box(), q_.grad, n_, c_, count_);
    return counted_.data();
  }

  void backward_image() {
    if (!p_.direct_sum && !p_.tiles_input)
      for (int i = 0; i < Op::inputs; ++i) sum_block_[i].zero(), carried_[i].zero();
    if (!p_.direct_out) read_block(y_block_.data(), p_.out, window_box(), q_.grad, n_, c_, count_);
    const T* g = p_.direct_out ? numbers(at_windows(q_.grad)) : y_block_.data();
    const bool tiles_input = p_.tiles_input;
    fixed_taps([&](auto taps) {
      if constexpr (taps.value == 4) tiles_input ? backward_windows<4, true>(g) : backward_windows<4, false>(g);
      else backward_windows<taps.value, false>(g);
    });
    if (p_.shares) carry(true);
    for (int i = 0; i < Op::inputs && !p_.direct_sum; ++i)
      if (q_.grad_input[i].data) write_sum(i);
  }

  // The sums of a float32 block, to float64; at the end back again.
  __attribute__((noinline)) void carry(bool back) {
    for (int k = 0; k < Op::inputs; ++k) {
      T* sum = sum_block_[k].data();
      double* carried = carried_[k].data();
      for (int64_t i = 0; i < p_.in.size; ++i) {
        carried[i] += sum[i];
        sum[i] = back ? T(carried[i]) : T(0);
      }
    }
  }

  Saved<V, 0> kept() {
    V* all = reinterpret_cast<V*>(saved_.data());
    return {all, all + w_.taps()};
  }

  template <int K, bool tiles_input>
  void backward_windows(const T* g) {
    if constexpr (K < 0) backward_windows<K, tiles_input>(g, Recompute());
    else if constexpr (K == 0) backward_windows<K, tiles_input>(g, kept());
    else backward_windows<K, tiles_input>(g, Saved<V, K>());
  }

  template <int K, bool tiles_input, class M>
  __attribute__((noinline)) void backward_windows(const T* g, M saved) {
    int64_t vectors = 0;
    const auto x = inputs();
    T* to[kMaxInputs];
    for (int i = 0; i < Op::inputs; ++i)
      to[i] = p_.direct_sum ? numbers(at_positions(q_.grad_input[i])) : sum_block_[i].data();
    const T* g_counted = counted(g);
    each_vector([&](const Place& at) {
      Window w;
      read_parameters(w, at);
      const V gy = load<V>(g + at.y), gp = g_counted == g ? gy : load<V>(g_counted + out_place(at));
      const bool done = forward_fast<K>(w, x.data(), at, saved, [&](const auto& taps, auto active) {
        add_tap_grads<false, tiles_input>(w, taps, saved, at, active, gy, gp, to);
      });
      if (!done && p_.forgets) backward_safe(w, x.data(), at, gy, gp, to, Recompute());
      else if (!done) backward_safe(w, x.data(), at, gy, gp, to, kept());
      // A vector adds to a position more than once.
      if (K <= 0 && p_.shares && ++vectors % (kTerms / 4) == 0) carry(false);
    });
  }

  template <class M>
  __attribute__((noinline)) void backward_safe(Window& w, const T* const* x, const Place& at, V gy, V gp,
                                                    T* const* to, M saved) {
    forward_safe(w, x, at, saved);
    if (p_.tiles_input)
      add_tap_grads<true, true>(w, masked_taps<-1>(x, at), saved, at, is_active(at.number), gy, gp, to);
    else add_tap_grads<true, false>(w, masked_taps<-1>(x, at), saved, at, is_active(at.number), gy, gp, to);
  }

  template <bool safe, bool tiles_input, class Taps, class M, class Active>
  POOLNB_HD void add_tap_grads(const Window& w, const Taps& taps, const M& saved, const Place& at, Active active, V gy,
                            V gp, T* const* to) {
    Sum<V> sums[Op::parameters + 1];
    each_tap(taps, [&](int64_t i) POOLNB_INLINE {
      const V second = Op::inputs > 1 ? taps.second(i) : splat<V>(0);
      V d_second = splat<V>(0);
      V kept;
      if constexpr (M::keeps) kept = saved.get(i);
      else kept = Op::template recompute<safe>(w, taps, i, q_.options);
      const V dx = Op::template tap_grad<safe>(w, taps.x(i), second, kept, i, q_.options, sums, d_second);
      const int64_t sum = at.sum + sum_.template at<Taps::many>(i);
      add_to<tiles_input>(to[0] + sum, select(taps.valid(i) & active, gy * dx, splat<V>(0)));
      if (Op::inputs > 1)
        add_to<tiles_input>(to[1] + sum, select(taps.valid(i) & active, gy * d_second, splat<V>(0)));
    }, sums[0]);  // no operator has two parameters that are sums
    if (!q_.want_parameters) return;
    if constexpr (PerRank<Op>) {
      if constexpr (M::keeps) this->add_to_ranks(saved, taps.count(), out_place(at), at.lane, active, gp);
      else this->add_long_ranks(taps.order, gp);
      return;
    } else if constexpr (Tabled<Op>) {
      if constexpr (M::keeps) this->add_to_tables(w, taps, out_place(at), at.lane, active, gp);
      else this->add_to_long_tables(w, taps, gp);
      return;
    }
    V d_params[Op::parameters + 1];
    for (int i = 0; i < Op::parameters; ++i) d_params[i] = sums[i].value();
    Op::template finalize_param_grad<safe>(w, d_params);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = parameter_sum(i, at);
      store<V>(sum, load<V>(sum) + select(active, gp * d_params[i], splat<V>(0)));
    }
  }

  template <bool only>
  static POOLNB_HD void add_to(T* sum, V part) { store<V>(sum, only ? part : load<V>(sum) + part); }

  // The positions that this unit owns: from its first window to the next band's, and what no window covers.
  void write_sum(int i) {
    Box box;
    int64_t at[3];
    for (int a = 0; a < 3; ++a) {
      box.first[a] = w_.first(a, own_[a]);
      box.extent[a] = is_last_[a] ? w_.size[a] - box.first[a] : p_.band[a] * w_.stride[a];
      box.size[a] = w_.size[a];
      at[a] = skip(a) * w_.stride[a];
    }
    write_block(sum_block_[i].data() + p_.in.at(at[0], at[1], at[2]), p_.in, box, q_.grad_input[i], n_, c_, count_);
  }

 private:
  Buffer<T> gathered_[kMaxInputs];
  std::vector<int64_t> gathered_place_;
};

}  // namespace poolnb
