// The plan of one call. The work is cut into units: (band of windows, image, some channels). The cut depends on the
// shapes alone, never on the number of threads, and every unit writes what nobody else writes; so results repeat, bit
// for bit.
#pragma once

#include "block.h"

namespace poolnb {

template <class T>
struct Plan {
  static constexpr int64_t lanes = Traits<Pack<T>>::lanes;
  static constexpr bool fixed = sizeof(T) == 4;  // numbers of taps are compiled apart, for speed, in float32 alone

  const Problem& q;
  const Windows& w;
  bool backward, channels;     // lanes along channels
  int axis;                    // the spatial axis that is cut into bands
  int64_t chunk, chunks;       // channels of a unit
  int64_t band, bands, halo;   // windows of a unit along `axis`
  Layout in, out;              // blocks of the input, of the output
  bool inside;                 // every tap of every window is inside the input
  bool covered;                // windows of 4 taps, every input position belongs to exactly one: sums are only written
  bool pairs;                  // windows of 2 x 2 that cover contiguous rows: everything happens in registers
  bool direct_in, direct_out, direct_sum;  // tensors are used where they lie, not as blocks
  Layout read, write, sum;                 // input, output (or its gradient), input's gradient, as they are used

  Plan(const Problem& q, int inputs, bool backward)
      : q(q), w(q.windows), backward(backward), channels(along_channels()), axis(w.size[0] > 1 ? 0 : 1) {
    chunk = channels ? std::min(round_up(q.channels, lanes), 4 * lanes) : 1;
    chunks = (q.channels + chunk - 1) / chunk;
    inside = covered = true;
    for (int a = 0; a < 3; ++a) {
      inside = inside && w.padding[a] == 0 && reach(a) <= w.size[a];
      covered = covered && w.stride[a] == w.span(a) && w.dilation[a] == 1;
    }
    for (int a = 0; a < 3; ++a) covered = covered && inside && reach(a) == w.size[a];
    covered = covered && fixed && w.taps() == 4;  // the one case that is compiled apart
    pairs = covered && !channels && w.kernel[2] == 2 && w.output[2] >= lanes && !q.mask.data;
    for (int i = 0; i < inputs; ++i) {
      pairs = pairs && in_rows(q.input[i]);
      if (backward && q.grad_input[i].data) pairs = pairs && in_rows(q.grad_input[i]);
    }
    pairs = pairs && in_rows(backward ? q.grad : q.output);
    cut();
    lay_out();
    direct_in = channels && inside;
    for (int i = 0; i < inputs; ++i) direct_in = direct_in && direct(q.input[i]) && same_steps(q.input[i], q.input[0]);
    direct_out = channels && direct(backward ? q.grad : q.output);
    direct_sum = backward && channels && covered;
    for (int i = 0; backward && i < inputs; ++i)
      direct_sum = direct_sum && q.grad_input[i].data && direct(q.grad_input[i]) &&
                   same_steps(q.grad_input[i], q.grad_input[0]);
    read = direct_in ? Layout::of(q.input[0]) : in;
    write = direct_out ? Layout::of(backward ? q.grad : q.output) : out;
    sum = direct_sum ? Layout::of(q.grad_input[0]) : in;
  }

  int64_t units() const { return q.batch * chunks * bands; }

  // Threads are worth waking for some ten thousand numbers each.
  int64_t grain() const {
    const int64_t all = q.batch * q.channels * w.size[0] * w.size[1] * w.size[2];
    return std::max<int64_t>(1, units() * 32768 / std::max<int64_t>(all, 1));
  }

 private:
  int64_t reach(int a) const { return w.stride[a] * (w.output[a] - 1) + w.span(a); }

  bool along_channels() const {
    if (q.channels == 1) return false;
    const int64_t plane = w.output[0] * w.output[1] * w.output[2];
    const bool last = q.input[0].stride[1] == 1 && q.input[0].stride[4] != 1;
    return last ? q.channels >= lanes / 2 || plane < lanes : plane < lanes / 2 && q.channels > plane;
  }
  bool direct(const View& v) const {
    return v.stride[1] == 1 && v.dtype == dtype_of<T> && q.channels % lanes == 0 && !q.mask.data;
  }
  static bool in_rows(const View& v) { return v.stride[4] == 1 && v.dtype == dtype_of<T>; }
  static bool same_steps(const View& a, const View& b) {
    return a.stride[2] == b.stride[2] && a.stride[3] == b.stride[3] && a.stride[4] == b.stride[4];
  }

  // Bands keep a block in the cache; where windows overlap they are long, because the halo is evaluated twice. Few
  // units are cut further, so that two threads have work.
  void cut() {
    int64_t row = sizeof(T) * (channels ? std::min(chunk, round_up(q.channels, lanes)) : 1);
    for (int a = 0; a < 3; ++a) row *= a == axis ? w.stride[a] : std::max(w.size[a], reach(a));
    halo = backward ? (w.span(axis) - 1) / w.stride[axis] : 0;
    const int64_t cached = std::max<int64_t>(1, (halo ? int64_t(3) << 17 : int64_t(1) << 16) / row);
    const int64_t others = q.batch * chunks, wanted = (16 + others - 1) / std::max<int64_t>(others, 1);
    const int64_t parts = (w.output[axis] + wanted - 1) / wanted;
    band = std::min(w.output[axis], std::max(4 * halo, std::min(cached, std::max<int64_t>(parts, 1))));
    band = std::max<int64_t>(band, 1);
    bands = (w.output[axis] + band - 1) / band;
    if (bands == 1) halo = 0;
  }

  void lay_out() {
    int64_t extent[3], windows[3];
    for (int a = 0; a < 3; ++a) {
      windows[a] = a == axis ? std::min(band + halo, w.output[a]) : w.output[a];
      extent[a] = w.stride[a] * (windows[a] - 1) + w.span(a);
      if (!backward) continue;
      // The last band owns what lies behind the last window, the others all positions up to the next band.
      const int64_t begin = a == axis ? std::max<int64_t>(0, (bands - 1) * band - halo) : 0;
      extent[a] = std::max({extent[a], w.stride[a] * windows[a], w.size[a] - w.first(a, begin)});
    }
    if (channels) {
      in = Layout::along_channels(extent, std::min(chunk, q.channels), lanes);
      out = Layout::along_channels(windows, std::min(chunk, q.channels), lanes);
    } else {
      in = Layout::along_windows(extent, w.stride, lanes);
      out = in;
      for (int a = 0; a < 3; ++a) out.stride[a] = 1;
      out.size = in.plane;
    }
  }
};

}  // namespace poolnb
