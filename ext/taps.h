// The taps of one window (or of one window per lane), as the window maths sees them:
//   count()   how many taps
//   x(i)      the tap's value, 0 where it is not valid
//   second(i) the tap of the second input, for operators that have one
//   valid(i)  whether it counts: a mask, or `Always` where all do
//   noise(i)  its random number; noise(0) where the window has one
//   weight(i), weight_part(i), weight_whole(i)   its binomial weight, and that in two parts, for operators that say so:
//             see binomial.h
//   filters(t)       how many rows the operator's table t has, for operators that have some
//   entry(t, f, i)   number i of row f of table t
//   fixed     whether their number is known when this is compiled
// `i` is the tap's row-major number within the window.
#pragma once

#include "vec_math.h"

#if defined(__CUDACC__)
#define POOLNB_UNROLL _Pragma("unroll")
#define POOLNB_ROLLED _Pragma("unroll 1")
#else
#define POOLNB_UNROLL _Pragma("GCC unroll 16")
#define POOLNB_ROLLED _Pragma("GCC unroll 1")
#endif

// For the bodies of loops over taps.
#if defined(__CUDACC__)
#define POOLNB_INLINE
#else
#define POOLNB_INLINE __attribute__((always_inline))
#endif

namespace poolnb {

// The mask that is always true: it costs nothing.
struct Always {};
template <class V>
POOLNB_HD V select(Always, V a, V) { return a; }
template <class M>
POOLNB_HD M operator&(M m, Always) { return m; }
template <class M>
POOLNB_HD M operator&(Always, M m) { return m; }
POOLNB_HD Always operator&(Always, Always) { return {}; }

POOLNB_HD bool any(Always) { return true; }
// 1 where the mask holds, else 0.
template <class V, class M>
POOLNB_HD V one_where(M m) { return select(m, splat<V>(1), splat<V>(0)); }

// A sum over the taps of a window. Up to kTerms terms are added as they come; a longer sum is carried to float64 after
// every block of so many, where 2^24 terms lose no more digits than kTerms of them do.
constexpr int64_t kTerms = 128;

template <class V>
class Sum {
 public:
  POOLNB_HD void operator+=(V x) { part_ = part_ + x; }
  POOLNB_HD void add_product(V a, V b) { part_ = vfma(a, b, part_); }
  POOLNB_HD void carry() {
    carried_ = carried_ + widen(part_);
    part_ = splat<V>(0);
    long_ = true;
  }
  POOLNB_HD V value() const { return long_ ? narrow<V>(carried_ + widen(part_)) : part_; }

 private:
  V part_ = splat<V>(0);
  decltype(widen(V{})) carried_ = widen(splat<V>(0));
  bool long_ = false;
};

// What a window hands back to its taps (cpu/sums.h), the gradient `g` over a `sum` of features: NaN, which goes window
// by window, where it has fewer digits than a normal number, since a tap's feature would not bring them back.
template <class V>
POOLNB_HD V normal_or_nan(V x, V g, V sum) {
  using T = typename Traits<V>::Number;
  const auto lost = (vabs(x) < splat<V>(std::numeric_limits<T>::min())) & (g != splat<V>(0)) & (sum != splat<V>(0));
  return select(lost, splat<V>(std::numeric_limits<T>::quiet_NaN()), x);
}

// A gradient takes differences of taps, and squares of them: a sum that is NaN where those could overflow, else 0. The
// fast path of `backward` adds it to the result, so that such windows take the safe one.
template <class V, bool backward>
class Overflow {
 public:
  POOLNB_HD void operator+=(V x) {
    if constexpr (backward) squares_ = vfma(x, x, squares_);
  }
  POOLNB_HD V added_to(V y) const {
    if constexpr (backward) return vfma(squares_, splat<V>(0), y);
    else return y;
  }

 private:
  V squares_ = splat<V>(0);
};

// each(i) for every tap, in order. It adds to `sums`, which are carried between blocks.
template <class Taps, class Each, class... Sums>
POOLNB_HD void each_tap(const Taps& taps, const Each& each, Sums&... sums) {
  const int64_t count = taps.count();
  if constexpr (Taps::fixed) {
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) each(i);
  } else {
    for (int64_t begin = 0; begin < count; begin += kTerms) {
      const int64_t end = begin + kTerms < count ? begin + kTerms : count;
      POOLNB_UNROLL for (int64_t i = begin; i < end; ++i) each(i);
      if (count > kTerms) (sums.carry(), ...);
    }
  }
}
// each(i) for every tap, of a body that is too long to be repeated where their number is not known.
template <class Taps, class Each>
POOLNB_HD void each_tap_in_turn(const Taps& taps, int64_t begin, int64_t end, const Each& each) {
  if constexpr (Taps::fixed) {
    POOLNB_UNROLL for (int64_t i = begin; i < end; ++i) each(i);
  } else {
    POOLNB_ROLLED for (int64_t i = begin; i < end; ++i) each(i);
  }
}
// Whether they are so many that sums are carried.
template <class Taps>
POOLNB_HD bool are_long(const Taps& taps) {
  if constexpr (Taps::fixed) return false;
  else return taps.count() > kTerms;
}

// The maths of an operator is a struct with
//   inputs, parameters, noise   how many it has; noise: 0 none, 1 a number per window, 2 a number per tap
//   Window<V>                   what one pass over the taps leaves: `parameter` is given, the rest is found
//   forward<safe>(w, taps, options, saved)
//                               on the fast path, taps are taken for finite; the result shows if one was not
//   recompute<safe>(w, taps, i, options)
//                               what forward saved for tap i, for who saves nothing
//   value(w)                    the output
//   tap_grad<safe>(w, x, second, saved, i, options, d_params, d_second)
//                               dy/dx of tap i; adds its part of the derivatives by parameters to `d_params`; sets the
//                               derivative by the second input
//   finalize_param_grad<safe>(w, d_params)
//                               the parts of those derivatives that are no sum over taps, once they are summed
// An operator that is `ordered` looks at its taps in their order: see windows/order.h. One that has `tables` (see
// geometry.h), `shared` where all channels share them, has no parameters, and
//   each_table_grad(w, taps, g, counted, each)
//                               each(t, f, i, a, b) for every entry: g times the derivative by it is a b, and 0 where it
//                               is not `counted`
// One whose table is `per_rank` saves them where it works on vectors: see windows/rank.h.
// A window whose result is NaN has NaN for every derivative that depends on the taps: see poolnb/ops/taps.py.

template <class Op>
concept Ordered = requires { Op::ordered; };
template <class Op>
concept PerRank = requires { Op::per_rank; };
template <class Op>
concept SavesTwo = PerRank<Op> || requires { requires Op::saves_two; };  // numbers per tap, the second by put_more
template <class Op>
concept Tabled = requires { Op::tables; };
template <class Op>
concept SharesTables = requires { Op::shared; };

// Where backward keeps one number per tap between its two passes over a window; forward keeps nothing.
struct NothingSaved {
  static constexpr bool keeps = false, backward = false;
  template <class V>
  POOLNB_HD void put(int64_t, V) {}
};
// Of K taps, in registers.
template <class V, int K>
struct Saved {
  static constexpr bool keeps = true, backward = true;
  V kept[K], more[K];  // more: of an operator that saves two numbers per tap
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD void put_more(int64_t i, V v) { more[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
  POOLNB_HD V get_more(int64_t i) const { return more[i]; }
};
// Backward without saved numbers: `recompute` gives them.
struct Recompute : NothingSaved {
  static constexpr bool backward = true;
};

}  // namespace poolnb
