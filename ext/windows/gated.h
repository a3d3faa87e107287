// Gated pooling: mixed pooling, y = alpha max x + (1 - alpha) mean x, with alpha = sigmoid(sum v_i x_i + b) of the window's
// own taps. With s = (max - mean) alpha (1 - alpha): dy/dx_i has s v_i beside what it has there, dy/dv_i = s x_i and
// dy/db = s. A weight of 0 is nothing even of an infinite tap.
#pragma once

#include "mixed.h"

namespace poolnb {

struct Gated {
  static constexpr int inputs = 1, parameters = 0, noise = 0;
  static constexpr int tables = 2;  // v, b

  template <class V>
  struct Window {
    V parameter[1];
    Mixed::Window<V> mixed;
    V slope;  // s
  };

  template <bool safe, class V, class Taps, class Saved>
  static POOLNB_HD void forward(Window<V>& w, const Taps& taps, const Options& options, Saved& saved) {
    Sum<V> response;
    Mixed::find_extremes<safe>(w.mixed, taps, [&](int64_t i, V x) POOLNB_INLINE {
      const V weight = taps.entry(0, 0, i);
      if constexpr (safe) response += select(infinite(x) & (weight == splat<V>(0)), splat<V>(0), weight * x);
      else response.add_product(weight, x);
    }, response);
    const V alpha = w.mixed.parameter[0] = sigmoid<safe>(response.value() + taps.entry(1, 0, 0));
    Mixed::blend<safe>(w.mixed);
    if constexpr (!Saved::backward) return;
    const V half = Mixed::half_difference<safe>(w.mixed.largest, w.mixed.mean);
    w.slope = half * (splat<V>(2) * alpha * (splat<V>(1) - alpha));
    if constexpr (Saved::keeps) {
      const int64_t count = taps.count();
      POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) saved.put(i, recompute<safe>(w, taps, i, options));
    }
  }

  template <bool safe, class V, class Taps>
  static POOLNB_HD V recompute(const Window<V>& w, const Taps& taps, int64_t i, const Options&) {
    return w.slope * taps.entry(0, 0, i);
  }

  template <class V, class Taps, class Each>
  static POOLNB_HD void each_table_grad(const Window<V>& w, const Taps& taps, V g, auto counted, const Each& each) {
    const V zero = splat<V>(0), slope = select(counted, g * w.slope, zero);
    const int64_t count = taps.count();
    POOLNB_UNROLL for (int64_t i = 0; i < count; ++i) {
      const V x = taps.x(i);
      each(0, 0, i, slope, select(counted, select(infinite(x), zero, x), zero));
    }
    each(1, 0, 0, slope, splat<V>(1));
  }

  template <class V>
  static POOLNB_HD V value(const Window<V>& w) { return w.mixed.y; }

  template <bool safe, class V>
  static POOLNB_HD V tap_grad(const Window<V>& w, V x, V second, V through_gate, int64_t i, const Options& options,
                              Sum<V>* d_params, V& d_second) {
    return through_gate + Mixed::tap_grad<safe>(w.mixed, x, second, x, i, options, d_params, d_second);
  }

  template <bool safe, class V>
  static POOLNB_HD void finalize_param_grad(const Window<V>&, V*) {}
};

}  // namespace poolnb
