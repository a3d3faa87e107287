// Forward and backward of any operator on the CPU: window maths from ../windows, blocks from block.h.
//
// The work is cut into units: (band of windows, image, some channels). The cut depends on the shapes alone, never on
// the number of threads, and every unit writes what nobody else writes; so results repeat, bit for bit.
// Backward gathers: a unit owns the rows of the input's gradient where its windows start, and evaluates every window
// that reaches them, those of the band before (the halo) included. Gradients of parameters are one partial per unit,
// added in order.
#pragma once

#include <array>

#include "../taps.h"
#include "block.h"
#include "noise.h"
#include "operators.h"

namespace poolnb {

// ---- the plan of one call -----------------------------------------------------------------------------------------

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

// ---- taps ---------------------------------------------------------------------------------------------------------

// One pack of windows: K taps (0: `n`); `masked`: some of them may not be valid.
template <class V, int K, bool masked>
struct PackTaps {
  using T = typename Traits<V>::Number;
  const int64_t *offset, *offset_valid;
  const T *from, *from_second, *from_valid, *from_noise;
  int64_t n, noise_step;

  POOLNB_HD int64_t count() const { return K ? K : n; }
  POOLNB_HD auto valid(int64_t i) const {
    if constexpr (masked) return load<V>(from_valid + offset_valid[i]) != splat<V>(0);
    else return Always{};
  }
  POOLNB_HD V x(int64_t i) const { return select(valid(i), load<V>(from + offset[i]), splat<V>(0)); }
  POOLNB_HD V second(int64_t i) const { return select(valid(i), load<V>(from_second + offset[i]), splat<V>(0)); }
  POOLNB_HD V noise(int64_t i) const { return load<V>(from_noise + i * noise_step); }
};

// Four taps that are in registers already.
template <class V>
struct HeldTaps {
  using T = typename Traits<V>::Number;
  V value[4], value_second[4];
  const T* from_noise;
  int64_t noise_step;

  POOLNB_HD int64_t count() const { return 4; }
  POOLNB_HD Always valid(int64_t) const { return {}; }
  POOLNB_HD V x(int64_t i) const { return value[i]; }
  POOLNB_HD V second(int64_t i) const { return value_second[i]; }
  POOLNB_HD V noise(int64_t i) const { return load<V>(from_noise + i * noise_step); }
};

template <class V, int K>
struct Memo {
  static constexpr bool keeps = true, backward = true;
  V kept[K];
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
};
template <class V>
struct Memo<V, 0> {
  static constexpr bool keeps = true, backward = true;
  V* kept;
  POOLNB_HD void put(int64_t i, V v) { kept[i] = v; }
  POOLNB_HD V get(int64_t i) const { return kept[i]; }
};

// ---- one thread's work --------------------------------------------------------------------------------------------

template <class Op, class T>
class Worker {
  using V = Pack<T>;
  using Window = typename Op::template Window<V>;
  static constexpr int64_t lanes = Plan<T>::lanes;

 public:
  explicit Worker(const Plan<T>& plan) : p_(plan), q_(plan.q), w_(plan.w), masked_(!plan.inside || plan.q.mask.data) {
    const int64_t taps = w_.taps();
    for (int64_t d = 0; d < w_.kernel[0]; ++d)
      for (int64_t h = 0; h < w_.kernel[1]; ++h)
        for (int64_t w = 0; w < w_.kernel[2]; ++w) {
          const int64_t at[3] = {d * w_.dilation[0], h * w_.dilation[1], w * w_.dilation[2]};
          read_.push_back(p_.read.at(at[0], at[1], at[2]));
          valid_.push_back(masked_ ? p_.in.at(at[0], at[1], at[2]) : 0);
          sum_.push_back(p_.sum.at(at[0], at[1], at[2]));
        }
    for (int i = 0; i < Op::inputs; ++i) {
      x_block_[i] = Buffer<T>(p_.direct_in ? 0 : p_.in.size);
      sum_block_[i] = Buffer<T>(!p_.backward || p_.direct_sum ? 0 : p_.in.size);
    }
    y_block_ = Buffer<T>(p_.direct_out ? 0 : p_.out.size);
    valid_block_ = Buffer<T>(masked_ ? p_.in.size : lanes);
    valid_block_.fill(1);
    if (!p_.channels) active_ = Buffer<T>(p_.out.size);
    for (int i = 0; i < Op::parameters; ++i) {
      parameter_[i] = Buffer<T>(q_.channelwise[i] ? round_up(p_.chunk, lanes) : p_.out.size);
      parameter_sum_[i] = Buffer<T>(!p_.backward ? 0 : q_.channelwise[i] ? round_up(p_.chunk, lanes) : p_.out.size);
    }
    counted_ = Buffer<T>(p_.backward && p_.halo && q_.want_parameters ? p_.out.size : 0);
    memo_ = Buffer<T>(p_.backward ? taps * lanes : 0);
    noise_block_ = Buffer<T>(Op::noise == 2 ? taps * p_.out.size : Op::noise * p_.out.size);
  }

  void forward(int64_t unit) {
    start(unit);
    if (p_.pairs) return forward_pairs();
    T* y = p_.direct_out ? tensor(q_.output) : y_block_.data();
    fixed_taps([&](auto taps) { forward_windows<taps.value>(y); });
    if (!p_.direct_out) write_block(y, p_.out, window_box(0), q_.output, n_, c_, count_);
  }

  // `partial` has one number per parameter, (band, image) and channel.
  void backward(int64_t unit, T* partial) {
    start(unit);
    for (int i = 0; i < Op::parameters; ++i) parameter_sum_[i].zero();
    if (p_.pairs) {
      backward_pairs();
      if (q_.want_parameters) write_parameters(partial);
      return;
    }
    if (!p_.direct_sum && !p_.covered)
      for (int i = 0; i < Op::inputs; ++i) sum_block_[i].zero();
    if (!p_.direct_out) read_block(y_block_.data(), p_.out, window_box(0), q_.grad, n_, c_, count_);
    const T* g = p_.direct_out ? tensor(q_.grad) : y_block_.data();
    fixed_taps([&](auto taps) {
      if constexpr (taps.value == 4) p_.covered ? backward_windows<4, true>(g) : backward_windows<4, false>(g);
      else backward_windows<taps.value, false>(g);
    });
    for (int i = 0; i < Op::inputs && !p_.direct_sum; ++i)
      if (q_.grad_input[i].data) write_sum(i);
    if (q_.want_parameters) write_parameters(partial);
  }

 private:
  // call(number of taps), as a constant where that is compiled apart, else 0.
  template <class Call>
  void fixed_taps(const Call& call) const {
    if constexpr (Plan<T>::fixed) {
      if (w_.taps() == 4) return call(std::integral_constant<int, 4>{});
      if (w_.taps() == 9) return call(std::integral_constant<int, 9>{});
    }
    call(std::integral_constant<int, 0>{});
  }

  // ---- the unit ---------------------------------------------------------------------------------------------------

  void start(int64_t unit) {
    const int64_t band = unit / (q_.batch * p_.chunks), rest = unit % (q_.batch * p_.chunks);
    n_ = rest / p_.chunks;
    c_ = rest % p_.chunks * p_.chunk;
    count_ = std::min(p_.chunk, q_.channels - c_);
    if (band != band_) start_band(band);
    const Box box = input_box();
    for (int i = 0; i < Op::inputs && !p_.direct_in && !p_.pairs; ++i)
      read_block(x_block_[i].data(), p_.in, box, q_.input[i], n_, c_, count_);
    if (q_.mask.data) read_block(valid_block_.data(), p_.in, box, q_.mask, n_, c_, count_);
    for (int i = 0; i < Op::parameters; ++i) {
      if (q_.channelwise[i]) {
        const View& v = q_.parameter[i];
        with_type(v.dtype, v.data, [&](auto* from) {
          read_line(parameter_[i].data(), 1, from + v.offset(n_, c_, 0, 0, 0), v.stride[1], count_);
        });
      } else {
        read_block(parameter_[i].data(), p_.out, window_box(0), q_.parameter[i], n_, c_, count_);
      }
    }
    if (Op::noise && q_.options.draws) draw();
    // Rows of windows, and the packs of each; along windows everything is one row.
    packs_ = p_.channels ? (count_ + lanes - 1) / lanes
                         : (p_.out.at(windows_[0] - 1, windows_[1] - 1, windows_[2] - 1) + lanes) / lanes;
  }

  // The random numbers of the unit's windows: made in the order of their positions, then laid out.
  void draw() {
    const int64_t plane = w_.output[0] * w_.output[1] * w_.output[2], row = w_.output[2];
    const int64_t begin = (first_[0] * w_.output[1] + first_[1]) * row;
    const int64_t n = windows_[0] * windows_[1] * row, draws = Op::noise == 2 ? w_.taps() : 1;
    if constexpr (Op::noise == 2) {
      if (p_.channels) {
        // One lane per channel: noise is made where it is used.
        for (int64_t o = 0; o < n; ++o)
          for (int64_t l = 0; l < count_; l += lanes) {
            const uint64_t position = (n_ * q_.channels + c_ + l) * plane + begin + o;
            T* to = noise_block_.data() + o * p_.out.step[2] + l;
            draw_taps_across(to, p_.out.size, draws, position, plane, q_.options.seed, Op::stream);
          }
        return;
      }
    }
    // The block itself, where rows of windows follow each other in it without a gap.
    const bool direct = !p_.channels && (windows_[0] * windows_[1] == 1 || p_.out.step[1] == row) &&
                        (windows_[0] == 1 || p_.out.step[0] == windows_[1] * row);
    if (!direct && drawn_.size() < draws * count_ * n) drawn_ = Buffer<T>(draws * count_ * n);
    for (int64_t k = 0; k < count_; ++k) {
      const uint64_t position = (n_ * q_.channels + c_ + k) * plane + begin;
      T* to = direct ? noise_block_.data() : drawn_.data() + k * n;
      const int64_t step = direct ? p_.out.size : count_ * n;  // between taps
      if constexpr (Op::noise == 1) draw_windows(to, position, n, q_.options.seed, Op::stream);
      if constexpr (Op::noise == 2) draw_taps(to, step, draws, position, n, q_.options.seed, Op::stream);
    }
    if (direct) return;
    View v;
    v.dtype = dtype_of<T>;
    const int64_t stride[5] = {0, n, windows_[1] * row, row, 1};
    std::copy_n(stride, 5, v.stride);
    Box box;
    for (int a = 0; a < 3; ++a) box.first[a] = 0, box.extent[a] = box.size[a] = windows_[a];
    for (int64_t i = 0; i < draws; ++i) {
      v.data = drawn_.data() + i * count_ * n;
      read_block(noise_block_.data() + i * p_.out.size, p_.out, box, v, 0, 0, count_);
    }
  }

  // Which windows; which taps are valid, in every image and channel.
  void start_band(int64_t band) {
    band_ = band;
    for (int a = 0; a < 3; ++a) first_[a] = 0, windows_[a] = w_.output[a];
    own_ = band * p_.band;
    first_[p_.axis] = std::max<int64_t>(0, own_ - p_.halo);
    windows_[p_.axis] = std::min(own_ + p_.band, w_.output[p_.axis]) - first_[p_.axis];
    y_block_.zero();
    counted_.zero();
    if (!p_.channels) {
      active_.zero();
      each_window([&](int64_t d, int64_t h, int64_t w) { active_.data()[p_.out.at(d, h, w)] = 1; });
    }
    if (!masked_) return;
    const Box box = input_box();
    valid_block_.fill(1);
    const int64_t width = p_.channels ? p_.in.step[2] : 1;
    for (int64_t d = 0; d < box.extent[0]; ++d)
      for (int64_t h = 0; h < box.extent[1]; ++h)
        for (int64_t w = 0; w < box.extent[2]; ++w) {
          if (in_input(box, 0, d) && in_input(box, 1, h) && in_input(box, 2, w)) continue;
          std::fill_n(valid_block_.data() + p_.in.at(d, h, w), width, T(0));
        }
    find_plain();
  }

  static bool in_input(const Box& box, int a, int64_t at) {
    return box.first[a] + at >= 0 && box.first[a] + at < box.size[a];
  }

  // Packs without a tap that is not valid; along channels, one entry per window.
  void find_plain() {
    plain_.clear();
    const T* valid = valid_block_.data();
    const auto all = [&](int64_t at, int64_t n) {
      for (const int64_t tap : valid_)
        for (int64_t i = 0; i < n; ++i)
          if (valid[at + tap + i] == 0) return false;
      return true;
    };
    if (p_.channels) {
      each_window([&](int64_t d, int64_t h, int64_t w) { plain_.push_back(all(place(p_.in, d, h, w), 1)); });
    } else {
      const int64_t end = p_.out.at(windows_[0] - 1, windows_[1] - 1, windows_[2] - 1);
      for (int64_t at = 0; at <= end; at += lanes) plain_.push_back(all(at, lanes));
    }
  }

  template <class Each>
  void each_window(const Each& each) const {
    for (int64_t d = 0; d < windows_[0]; ++d)
      for (int64_t h = 0; h < windows_[1]; ++h)
        for (int64_t w = 0; w < windows_[2]; ++w) each(d, h, w);
  }

  // Where a window of the block starts.
  int64_t place(const Layout& l, int64_t d, int64_t h, int64_t w) const {
    return l.at(d * w_.stride[0], h * w_.stride[1], w * w_.stride[2]);
  }

  Box input_box() const {
    Box box;
    for (int a = 0; a < 3; ++a) {
      box.first[a] = w_.first(a, first_[a]);
      box.extent[a] = w_.stride[a] * (windows_[a] - 1) + w_.span(a);
      box.size[a] = w_.size[a];
    }
    return box;
  }

  // The block's windows from number `skip` of the bands' axis on.
  Box window_box(int64_t skip) const {
    Box box;
    for (int a = 0; a < 3; ++a) {
      box.first[a] = first_[a] + (a == p_.axis ? skip : 0);
      box.extent[a] = windows_[a] - (a == p_.axis ? skip : 0);
      box.size[a] = w_.output[a];
    }
    return box;
  }

  // The tensor's memory at the block's first position or window.
  T* tensor(const View& v) const {
    const bool input = v.data != q_.output.data && v.data != q_.grad.data;
    const int64_t s[3] = {input ? w_.stride[0] : 1, input ? w_.stride[1] : 1, input ? w_.stride[2] : 1};
    return static_cast<T*>(v.data) + v.offset(n_, c_, first_[0] * s[0], first_[1] * s[1], first_[2] * s[2]);
  }

  // ---- a pack of windows ------------------------------------------------------------------------------------------

  // Where one pack of windows lies in the blocks, and its number in `plain_` and `active_`.
  struct Place {
    int64_t number, x, valid, sum, y, lane;
  };

  template <class Each>
  POOLNB_HD void each_pack(const Each& each) const {
    if (!p_.channels) {
      for (int64_t b = 0; b < packs_; ++b) each(Place{b, b * lanes, b * lanes, b * lanes, b * lanes, 0});
      return;
    }
    int64_t number = 0;
    for (int64_t d = 0; d < windows_[0]; ++d)
      for (int64_t h = 0; h < windows_[1]; ++h) {
        int64_t x = place(p_.read, d, h, 0), valid = place(p_.in, d, h, 0), sum = place(p_.sum, d, h, 0);
        int64_t y = p_.write.at(d, h, 0);
        for (int64_t w = 0; w < windows_[2]; ++w, ++number) {
          for (int64_t l = 0; l < packs_ * lanes; l += lanes) each(Place{number, x + l, valid + l, sum + l, y + l, l});
          x += p_.read.step[2] * w_.stride[2];
          valid += p_.in.step[2] * w_.stride[2];
          sum += p_.sum.step[2] * w_.stride[2];
          y += p_.write.step[2];
        }
      }
  }

  POOLNB_HD void read_parameters(Window& w, const Place& at) const {
    for (int i = 0; i < Op::parameters; ++i) {
      const T* from = parameter_[i].data();
      if (!q_.channelwise[i]) w.parameter[i] = load<V>(from + out_place(at));
      else w.parameter[i] = p_.channels ? load<V>(from + at.lane) : splat<V>(from[0]);
    }
  }

  // Look at a pack of windows in the cheapest way that is right, then `then(taps, active)`. A result that is not finite
  // has seen an infinity, a NaN, an overflow or an empty window: false, to look again with care.
  template <int K, class M, class Then>
  POOLNB_HD bool look(Window& w, const T* const* x, const Place& at, M& memo, const Then& then) {
    const T* second = Op::inputs > 1 ? x[Op::inputs - 1] + at.x : nullptr;
    if (!masked_ || (!q_.mask.data && plain_[at.number])) {
      const T* from = x[0] + at.x;
      const PackTaps<V, K, false> taps{read_.data(), nullptr, from, second, nullptr, noise(at), w_.taps(), p_.out.size};
      Op::template look<false>(w, taps, q_.options, memo);
      if (any(infinite_or_nan(Op::value(w)))) return false;
      then(taps, Always{});
    } else {
      const auto taps = masked_taps<K>(x, at);
      Op::template look<false>(w, taps, q_.options, memo);
      const auto active = is_active(at.number);
      if (any(infinite_or_nan(Op::value(w)) & active)) return false;
      then(taps, active);
    }
    return true;
  }

  const T* noise(const Place& at) const { return Op::noise ? noise_block_.data() + out_place(at) : nullptr; }

  template <int K>
  PackTaps<V, K, true> masked_taps(const T* const* x, const Place& at) const {
    const T* second = Op::inputs > 1 ? x[Op::inputs - 1] + at.x : nullptr;
    const T* valid = valid_block_.data() + (masked_ ? at.valid : 0);
    return {read_.data(), valid_.data(), x[0] + at.x, second, valid, noise(at), w_.taps(), p_.out.size};
  }

  // Lanes that hold a window, not the end of a row.
  POOLNB_HD typename Traits<V>::Mask is_active(int64_t number) const {
    if (p_.channels) return splat<V>(0) == splat<V>(0);
    return load<V>(active_.data() + number * lanes) != splat<V>(0);
  }

  // ---- forward ----------------------------------------------------------------------------------------------------

  template <int K>
  __attribute__((noinline)) void forward_windows(T* y) {
    NoMemo none;
    const auto x = inputs();
    each_pack([&](const Place& at) {
      Window w;
      read_parameters(w, at);
      if (!look<K>(w, x.data(), at, none, [](const auto&, auto) {})) look_with_care(w, x.data(), at, none);
      store<V>(y + at.y, Op::value(w));
    });
  }

  template <class M>
  __attribute__((noinline)) void look_with_care(Window& w, const T* const* x, const Place& at, M& memo) const {
    Op::template look<true>(w, masked_taps<0>(x, at), q_.options, memo);
  }

  std::array<const T*, kMaxInputs> inputs() const {
    std::array<const T*, kMaxInputs> x{};
    for (int i = 0; i < Op::inputs; ++i) x[i] = p_.direct_in ? tensor(q_.input[i]) : x_block_[i].data();
    return x;
  }

  // ---- backward ---------------------------------------------------------------------------------------------------

  // The incoming gradient of windows that count for parameters: not the halo's.
  const T* counted(const T* g) {
    const int64_t skip = own_ - first_[p_.axis];
    if (!skip || !q_.want_parameters) return g;
    const int64_t at = skip * p_.out.step[p_.axis];
    read_block(counted_.data() + at, p_.out, window_box(skip), q_.grad, n_, c_, count_);
    return counted_.data();
  }

  template <int K, bool covered>
  __attribute__((noinline)) void backward_windows(const T* g) {
    Memo<V, K> memo;
    if constexpr (K == 0) memo.kept = reinterpret_cast<V*>(memo_.data());
    const auto x = inputs();
    T* to[kMaxInputs];
    for (int i = 0; i < Op::inputs; ++i) to[i] = p_.direct_sum ? tensor(q_.grad_input[i]) : sum_block_[i].data();
    const T* g_counted = counted(g);
    each_pack([&](const Place& at) {
      Window w;
      read_parameters(w, at);
      const V gy = load<V>(g + at.y), gp = g_counted == g ? gy : load<V>(g_counted + out_place(at));
      const bool done = look<K>(w, x.data(), at, memo, [&](const auto& taps, auto active) {
        add_slopes<false, covered>(w, taps, memo, at, active, gy, gp, to);
      });
      if (!done) backward_with_care(w, x.data(), at, gy, gp, to);
    });
  }

  __attribute__((noinline)) void backward_with_care(Window& w, const T* const* x, const Place& at, V gy, V gp,
                                                    T* const* to) {
    Memo<V, 0> memo{reinterpret_cast<V*>(memo_.data())};
    look_with_care(w, x, at, memo);
    if (p_.covered) add_slopes<true, true>(w, masked_taps<0>(x, at), memo, at, is_active(at.number), gy, gp, to);
    else add_slopes<true, false>(w, masked_taps<0>(x, at), memo, at, is_active(at.number), gy, gp, to);
  }

  template <bool careful, bool covered, class Taps, class M, class Active>
  POOLNB_HD void add_slopes(const Window& w, const Taps& taps, const M& memo, const Place& at, Active active, V gy,
                            V gp, T* const* to) {
    V own[Op::parameters + 1];
    for (int i = 0; i <= Op::parameters; ++i) own[i] = splat<V>(0);
    const int64_t n = taps.count();
    POOLNB_UNROLL for (int64_t i = 0; i < n; ++i) {
      const V second = Op::inputs > 1 ? taps.second(i) : splat<V>(0);
      V d_second = splat<V>(0);
      const V dx = Op::template slope<careful>(w, taps.x(i), second, memo.get(i), i, q_.options, own, d_second);
      add_to<covered>(to[0] + at.sum + sum_[i], select(taps.valid(i) & active, gy * dx, splat<V>(0)));
      if (Op::inputs > 1)
        add_to<covered>(to[1] + at.sum + sum_[i], select(taps.valid(i) & active, gy * d_second, splat<V>(0)));
    }
    if (!q_.want_parameters) return;
    Op::template finish<careful>(w, own);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = parameter_sum_[i].data() + (!q_.channelwise[i] ? out_place(at) : p_.channels ? at.lane : 0);
      store<V>(sum, load<V>(sum) + select(active, gp * own[i], splat<V>(0)));
    }
  }

  template <bool only>
  static POOLNB_HD void add_to(T* sum, V part) { store<V>(sum, only ? part : load<V>(sum) + part); }

  int64_t out_place(const Place& at) const { return p_.channels ? at.number * p_.out.step[2] + at.lane : at.x; }

  // ---- windows of 2 x 2 in registers -------------------------------------------------------------------------------

  // each(d, h, column, fresh) for packs of windows along rows; the last one of a row overlaps its neighbour, and only
  // its `fresh` lanes are new.
  template <class Each>
  POOLNB_HD void each_pair_pack(const Each& each) const {
    const int64_t row = w_.output[2];
    const auto all = splat<V>(0) == splat<V>(0);
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    const auto last = load<V>(number) >= splat<V>(T((lanes - row % lanes) % lanes));
    for (int64_t d = 0; d < windows_[0]; ++d)
      for (int64_t h = 0; h < windows_[1]; ++h) {
        for (int64_t at = 0; at + lanes <= row; at += lanes) each(d, h, at, all);
        if (row % lanes) each(d, h, row - lanes, last);
      }
  }

  // The two rows of the windows of row (d, h); taps 0 and 1 are in the first one.
  void pair_rows(const View& v, int64_t d, int64_t h, T* rows[2]) const {
    d = (first_[0] + d) * w_.kernel[0];
    h = (first_[1] + h) * w_.kernel[1];
    T* data = static_cast<T*>(v.data);
    rows[0] = data + v.offset(n_, c_, d, h, 0);
    rows[1] = data + v.offset(n_, c_, d + (w_.kernel[0] - 1), h + (w_.kernel[1] - 1), 0);
  }

  static POOLNB_HD void read_pairs(T* const rows[2], int64_t at, V* taps) {
    for (int r = 0; r < 2; ++r) {
      const T* from = rows[r] + 2 * at;
      unweave(load<V>(from), load<V>(from + lanes), taps[2 * r], taps[2 * r + 1], std::make_index_sequence<lanes>());
    }
  }
  static POOLNB_HD void write_pairs(T* const rows[2], int64_t at, const V* taps) {
    for (int r = 0; r < 2; ++r) {
      T* to = rows[r] + 2 * at;
      V a, b;
      weave(taps[2 * r], taps[2 * r + 1], a, b, std::make_index_sequence<lanes>());
      store<V>(to, a);
      store<V>(to + lanes, b);
    }
  }

  template <class M>
  POOLNB_HD bool look_at_pairs(Window& w, HeldTaps<V>& taps, int64_t d, int64_t h, int64_t at, M& memo) const {
    const Place place{0, p_.out.at(d, h, at), 0, 0, 0, 0};
    T* rows[2];
    pair_rows(q_.input[0], d, h, rows);
    read_pairs(rows, at, taps.value);
    if constexpr (Op::inputs > 1) {
      pair_rows(q_.input[1], d, h, rows);
      read_pairs(rows, at, taps.value_second);
    }
    taps.from_noise = noise(place);
    taps.noise_step = p_.out.size;
    read_parameters(w, place);
    Op::template look<false>(w, taps, q_.options, memo);
    return !any(infinite_or_nan(Op::value(w)));
  }

  template <class M>
  __attribute__((noinline)) void look_at_pairs_with_care(Window& w, const HeldTaps<V>& taps, M& memo) const {
    Op::template look<true>(w, taps, q_.options, memo);
  }

  __attribute__((noinline)) void forward_pairs() const {
    each_pair_pack([&](int64_t d, int64_t h, int64_t at, auto) {
      Window w;
      HeldTaps<V> taps;
      NoMemo none;
      if (!look_at_pairs(w, taps, d, h, at, none)) look_at_pairs_with_care(w, taps, none);
      T* y = static_cast<T*>(q_.output.data) + q_.output.offset(n_, c_, first_[0] + d, first_[1] + h, at);
      store<V>(y, Op::value(w));
    });
  }

  __attribute__((noinline)) void backward_pairs() {
    each_pair_pack([&](int64_t d, int64_t h, int64_t at, auto fresh) {
      Window w;
      HeldTaps<V> taps;
      Memo<V, 4> memo;
      const T* g = static_cast<const T*>(q_.grad.data) + q_.grad.offset(n_, c_, first_[0] + d, first_[1] + h, at);
      if (look_at_pairs(w, taps, d, h, at, memo)) {
        write_slopes<false>(w, taps, memo, d, h, at, load<V>(g), fresh);
      } else {
        look_at_pairs_with_care(w, taps, memo);
        write_slopes<true>(w, taps, memo, d, h, at, load<V>(g), fresh);
      }
    });
  }

  template <bool careful, class Fresh>
  POOLNB_HD void write_slopes(const Window& w, const HeldTaps<V>& taps, const Memo<V, 4>& memo, int64_t d, int64_t h,
                              int64_t at, V g, Fresh fresh) {
    V own[Op::parameters + 1], part[4], part_second[4];
    for (int i = 0; i <= Op::parameters; ++i) own[i] = splat<V>(0);
    POOLNB_UNROLL for (int i = 0; i < 4; ++i) {
      const V second = Op::inputs > 1 ? taps.second(i) : splat<V>(0);
      V d_second = splat<V>(0);
      part[i] = g * Op::template slope<careful>(w, taps.x(i), second, memo.get(i), i, q_.options, own, d_second);
      part_second[i] = g * d_second;
    }
    T* rows[2];
    pair_rows(q_.grad_input[0], d, h, rows);
    write_pairs(rows, at, part);
    if (Op::inputs > 1 && q_.grad_input[Op::inputs - 1].data) {
      pair_rows(q_.grad_input[Op::inputs - 1], d, h, rows);
      write_pairs(rows, at, part_second);
    }
    if (!q_.want_parameters) return;
    Op::template finish<careful>(w, own);
    for (int i = 0; i < Op::parameters; ++i) {
      T* sum = parameter_sum_[i].data() + (q_.channelwise[i] ? 0 : p_.out.at(d, h, at));
      store<V>(sum, load<V>(sum) + select(fresh, g * own[i], splat<V>(0)));
    }
  }

  // The rows that this unit owns: from its first window to the next band's, and what no window covers.
  void write_sum(int i) {
    const int a = p_.axis;
    Box box;
    for (int b = 0; b < 3; ++b) {
      box.first[b] = w_.first(b, b == a ? own_ : 0);
      box.extent[b] = w_.size[b] - box.first[b];
      box.size[b] = w_.size[b];
    }
    if (band_ + 1 < p_.bands) box.extent[a] = p_.band * w_.stride[a];
    const int64_t skip = (own_ - first_[a]) * w_.stride[a];
    const int64_t at[3] = {a == 0 ? skip : 0, a == 1 ? skip : 0, 0};
    write_block(sum_block_[i].data() + p_.in.at(at[0], at[1], at[2]), p_.in, box, q_.grad_input[i], n_, c_, count_);
  }

  void write_parameters(T* partial) {
    const int64_t rows = q_.batch * p_.bands, row = band_ * q_.batch + n_;
    const int64_t skip = own_ - first_[p_.axis];
    for (int i = 0; i < Op::parameters; ++i) {
      const T* sums = parameter_sum_[i].data();
      if (!q_.channelwise[i]) {
        const Box box = window_box(skip);
        write_block(sums + skip * p_.out.step[p_.axis], p_.out, box, q_.grad_parameter[i], n_, c_, count_);
        continue;
      }
      T* to = partial + (i * rows + row) * q_.channels + c_;
      if (p_.channels) {
        std::copy(sums, sums + count_, to);
      } else {
        *to = 0;
        for (int64_t k = 0; k < lanes; ++k) *to += sums[k];
      }
    }
  }

  const Plan<T>& p_;
  const Problem& q_;
  const Windows& w_;
  const bool masked_;                        // some tap may not be valid
  std::vector<int64_t> read_, valid_, sum_;  // taps, from a window's place in the input, in `valid_block_`, in sums
  Buffer<T> x_block_[kMaxInputs], sum_block_[kMaxInputs], y_block_, valid_block_, active_, counted_, memo_;
  Buffer<T> noise_block_, drawn_;
  Buffer<T> parameter_[kMaxParameters], parameter_sum_[kMaxParameters];
  std::vector<char> plain_;
  int64_t band_ = -1, own_ = 0, first_[3] = {0, 0, 0}, windows_[3] = {1, 1, 1};  // own_: first window that counts here
  int64_t n_ = 0, c_ = 0, count_ = 0, packs_ = 0;
};

// ---- one call -----------------------------------------------------------------------------------------------------

template <class Op, class T>
void run_forward(const Problem& q, const Parallel& parallel) {
  const Plan<T> plan(q, Op::inputs, false);
  parallel(plan.units(), plan.grain(), [&](int64_t begin, int64_t end) {
    Worker<Op, T> worker(plan);
    for (int64_t u = begin; u < end; ++u) worker.forward(u);
  });
}

template <class Op, class T>
void run_backward(const Problem& q, const Parallel& parallel) {
  const Plan<T> plan(q, Op::inputs, true);
  const int64_t rows = q.batch * plan.bands;
  std::vector<T> partial(q.want_parameters ? Op::parameters * rows * q.channels : 0);
  parallel(plan.units(), plan.grain(), [&](int64_t begin, int64_t end) {
    Worker<Op, T> worker(plan);
    for (int64_t u = begin; u < end; ++u) worker.backward(u, partial.data());
  });
  if (!q.want_parameters) return;
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

// The number type that sums are kept in follows the input: float32 for the half types.
template <class Op>
void forward(const Problem& q, const Parallel& parallel) {
  if (q.input[0].dtype == Dtype::float64) run_forward<Op, double>(q, parallel);
  else run_forward<Op, float>(q, parallel);
}
template <class Op>
void backward(const Problem& q, const Parallel& parallel) {
  if (q.input[0].dtype == Dtype::float64) run_backward<Op, double>(q, parallel);
  else run_backward<Op, float>(q, parallel);
}

}  // namespace poolnb
