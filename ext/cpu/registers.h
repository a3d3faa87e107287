// Windows of few taps, K, that are read into registers, nothing else: no block is filled, no mask is looked at. This is
// what most networks pool with. Which tensors allow it, plan.h decides; how their taps come and go is for a class of
// its own, `Self`, in rows2.h (lanes along windows) and channels_last4.h (lanes along channels). It gives
//   each_vector(each)          each(at) for every vector of windows of one image of the unit, `at` as it likes
//   read_taps(at, i, taps)   the taps of input i
//   write_taps(at, i, taps)  the taps of its gradient
//   read_output(at), write_output(at, y)      the vector in the gradient of the output, in the output
//   out(at)                  where the vector lies in blocks, window by window
//   lane(at)                 its first channel, for lanes along channels
//   held(at)                 how many of its lanes are looked at, from the first on
//   fresh(at)                its lanes that belong to no other vector
#pragma once

#include "unit.h"

namespace poolnb {

template <class Op, class T, int K, class Self>
class Registers : protected Unit<Op, T> {
 protected:
  using Base = Unit<Op, T>;
  using typename Base::V, typename Base::Window;
  using Base::lanes, Base::p_, Base::q_;

  static constexpr bool learns = Op::parameters != 0 || Tabled<Op>;

  explicit Registers(const Plan<T>& plan) : Base(plan) {}

 public:
  void forward(int64_t unit) {
    this->each_image(unit, [&] { forward_image(); });
  }
  void backward(int64_t unit, T* partial) {
    const bool wanted = learns && q_.want_parameters;
    this->each_image(unit, [&] { wanted ? backward_image<learns>() : backward_image<false>(); });
    if (wanted) this->write_parameters(partial);
  }

 private:
  // A vector takes the fast path; a result that is not finite has seen an infinity, a NaN or an overflow, and the
  // vector takes the safe path then, out of line: what the fast one holds in registers must not have an address.
  __attribute__((noinline)) void forward_image() {
    self().each_vector([&](const auto& at) __attribute__((always_inline)) {
      if (!forward_vector<false>(at)) forward_safe(at);
    });
  }
  // `wanted`: the gradients of parameters. Where they are not, the compiler leaves out what leads to them.
  template <bool wanted>
  __attribute__((noinline)) void backward_image() {
    self().each_vector([&](const auto& at) __attribute__((always_inline)) {
      if (!backward_vector<false, wanted>(at)) backward_safe(at);
    });
  }
  template <class At>
  __attribute__((noinline, cold)) void forward_safe(const At at) { forward_vector<true>(at); }
  template <class At>
  __attribute__((noinline, cold)) void backward_safe(const At at) { backward_vector<true, learns>(at); }

  // False, and nothing written, if it needs the safe path.
  template <bool safe, class At>
  POOLNB_HD bool forward_vector(const At& at) {
    NothingSaved none;
    Window w;
    const HeldTaps<V, K> taps = read(at, w);
    Op::template forward<safe>(w, taps, q_.options, none);
    const V y = Op::value(w);
    if (!safe && any(infinite_or_nan(y))) return false;
    self().write_output(at, y);
    return true;
  }

  template <bool safe, bool wanted, class At>
  POOLNB_HD bool backward_vector(const At& at) {
    Saved<V, K> saved;
    Window w;
    const HeldTaps<V, K> taps = read(at, w);
    Op::template forward<safe>(w, taps, q_.options, saved);
    if (!safe && any(infinite_or_nan(Op::value(w)))) return false;
    const V g = self().read_output(at);
    Sum<V> d_params[Op::parameters + 1];
    V part[K], part_second[K];
    POOLNB_UNROLL for (int i = 0; i < K; ++i) {
      const V second = Op::inputs > 1 ? taps.second(i) : splat<V>(0);
      V d_second = splat<V>(0);
      part[i] = g * Op::template tap_grad<safe>(w, taps.x(i), second, saved.get(i), i, q_.options, d_params, d_second);
      part_second[i] = g * d_second;
    }
    self().write_taps(at, 0, part);
    if (Op::inputs > 1 && q_.grad_input[Op::inputs - 1].data) self().write_taps(at, Op::inputs - 1, part_second);
    if (!wanted || !q_.want_parameters) return true;
    if constexpr (PerRank<Op>) this->add_to_ranks(saved, K, self().out(at), self().lane(at), self().fresh(at), g);
    else if constexpr (Tabled<Op>) this->add_to_tables(w, taps, self().out(at), self().lane(at), self().fresh(at), g);
    else add_to_parameters<safe>(at, w, g, d_params);
    return true;
  }

  template <class At>
  POOLNB_HD HeldTaps<V, K> read(const At& at, Window& w) {
    HeldTaps<V, K> taps;
    self().read_taps(at, 0, taps.value);
    if (Op::inputs > 1) self().read_taps(at, Op::inputs - 1, taps.value_second);
    taps.from_noise = Op::noise ? this->noise_block_.data() + self().out(at) : nullptr;
    taps.noise_step = p_.noise_step;
    taps.weights = this->weights_.data();
    if constexpr (Ordered<Op> || Tabled<Op>) {
      taps.order = this->order(self().out(at), self().lane(at), nullptr);
      taps.order.end = std::min(taps.order.end, self().held(at));
    }
    for (int i = 0; i < Op::parameters; ++i) {
      const T* from = this->parameter_[i].data();
      if (this->by_window(i)) w.parameter[i] = load<V>(from + self().out(at));
      else w.parameter[i] = p_.channels ? load<V>(from + self().lane(at)) : splat<V>(from[0]);
    }
    return taps;
  }

  template <bool safe, class At>
  POOLNB_HD void add_to_parameters(const At& at, const Window& w, V g, const Sum<V>* sums) {
    V d_params[Op::parameters + 1];
    for (int i = 0; i < Op::parameters; ++i) d_params[i] = sums[i].value();
    Op::template finalize_param_grad<safe>(w, d_params);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = this->parameter_sum_[i].data();
      sum += this->by_window(i) ? self().out(at) : p_.channels ? self().lane(at) : 0;
      store<V>(sum, load<V>(sum) + select(self().fresh(at), g * d_params[i], splat<V>(0)));
    }
  }

  Self& self() { return static_cast<Self&>(*this); }
  const Self& self() const { return static_cast<const Self&>(*this); }
};

}  // namespace poolnb
