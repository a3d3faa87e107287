// One unit of work, as one thread sees it: its blocks of the input and the output, its parameters, its random numbers.
// Who works on it derives from it: see windows.h and rows2.h.
#pragma once

#include "../binomial.h"
#include "noise.h"
#include "vec_taps.h"
#include "plan.h"

namespace poolnb {

template <class Op, class T>
class Unit {
 protected:
  using V = Vec<T>;
  using Window = typename Op::template Window<V>;
  static constexpr int64_t lanes = Plan<T>::lanes;

  explicit Unit(const Plan<T>& plan) : p_(plan), q_(plan.q), w_(plan.w), masked_(!plan.inside || plan.q.mask.data) {
    const int64_t taps = w_.taps();
    read_ = Offsets(p_.read, w_);
    valid_ = masked_ ? Offsets(p_.in, w_) : Offsets(taps);
    if (p_.backward) sum_ = Offsets(p_.sum, w_);
    if constexpr (Binomial<Op>) weigh();
    for (int i = 0; i < Op::inputs; ++i) {
      x_block_[i] = Buffer<T>(p_.direct_in ? 0 : p_.in.size);
      sum_block_[i] = Buffer<T>(!p_.backward || p_.direct_sum ? 0 : p_.in.size);
      carried_[i] = Buffer<double>(p_.shares ? p_.in.size : 0);
    }
    y_block_ = Buffer<T>(p_.direct_out ? 0 : p_.out.size);
    valid_block_ = Buffer<T>(masked_ ? p_.in.size : lanes);
    valid_block_.fill(1);
    if (!p_.channels) active_ = Buffer<T>(p_.out.size);
    for (int i = 0; i < Op::parameters; ++i) {
      parameter_[i] = Buffer<T>(by_window(i) ? p_.out.size : round_up(p_.chunk, lanes));
      parameter_sum_[i] = Buffer<T>(!p_.backward ? 0 : by_window(i) ? p_.out.size : round_up(p_.chunk, lanes));
    }
    counted_ = Buffer<T>(p_.has_halo() && q_.want_parameters ? p_.out.size : 0);
    saved_ = Buffer<T>(p_.backward && !p_.forgets ? (SavesTwo<Op> ? 2 : 1) * taps * lanes : 0);
    if constexpr (Ordered<Op>) {
      scratch_ = Buffer<T>(p_.forgets ? 0 : 2 * taps * lanes);
      long_rows_.resize(2 * lanes);
    }
    if constexpr (Tabled<Op>) {
      // Of many taps: no vectors, and one sum per entry and channel.
      if (p_.forgets) table_step_ = p_.folded ? p_.band[0] : p_.channels ? p_.chunk : 1;
      else table_step_ = by_slice() ? p_.out.size : p_.channels ? round_up(p_.chunk, lanes) : lanes;
      table_ = Buffer<T>(p_.forgets ? 0 : entries() * table_step_);
      table_sums_ = Buffer<T>(p_.backward && q_.want_parameters ? entries() * table_step_ : 0);
    }
    noise_block_ = Buffer<T>(Op::noise == 2 ? taps * p_.noise_step + lanes : Op::noise * p_.out.size);
  }

  // The binomial weights of the taps, each with its two parts.
  void weigh() {
    std::vector<Scaled> axis[3];
    for (int a = 0; a < 3; ++a)
      for (int64_t k = 0; k < w_.kernel[a]; ++k) axis[a].push_back(binomial(w_.kernel[a] - 1, k));
    const int64_t taps = w_.taps();
    weights_.resize(3 * taps);
    T* to = weights_.data();
    for (const Scaled& d : axis[0])
      for (const Scaled& h : axis[1])
        for (const Scaled& w : axis[2]) {
          const Scaled b = d * h * w;
          to[0] = T(b.value()), to[taps] = T(b.part), to[2 * taps] = T(b.whole);
          ++to;
        }
  }

  // work() for every image of a unit, its blocks read.
  template <class Work>
  void each_image(int64_t unit, const Work& work) {
    start(unit);
    const int64_t end = std::min((group_ + 1) * p_.images, q_.batch);
    for (n_ = group_ * p_.images; n_ < end; ++n_) {
      read();
      work();
    }
  }

  void start(int64_t unit) {
    // With channels last, memory in its order: all bands of an image. Else one band in all images, then the next.
    const int64_t part = unit / p_.chunks;
    const int64_t band = p_.across ? part % p_.bands : part / p_.groups;
    group_ = p_.across ? part / p_.bands : part % p_.groups;
    c_ = unit % p_.chunks * p_.chunk;
    count_ = std::min(p_.chunk, q_.channels - c_);
    // What no tap is must not differ between threads, where it is looked at.
    if (p_.overlapping && (band != band_ || count_ < p_.chunk))
      for (int i = 0; i < Op::inputs; ++i) x_block_[i].zero();
    if (band != band_) start_band(band);
    for (int i = 0; i < Op::parameters; ++i) parameter_sum_[i].zero();
    table_sums_.zero();
    // Rows of windows, and the vectors of each; along windows everything is one row.
    vectors_ = p_.channels ? (count_ + lanes - 1) / lanes
                         : (p_.out.at(windows_[0] - 1, windows_[1] - 1, windows_[2] - 1) + lanes) / lanes;
  }

  void read() {
    const Box box = input_box();
    for (int i = 0; i < Op::inputs && !p_.direct_in && !p_.pairs; ++i)
      read_block(x_block_[i].data(), p_.in, box, q_.input[i], n_, c_, count_);
    if (q_.mask.data) read_block(valid_block_.data(), p_.in, box, q_.mask, n_, c_, count_);
    const int64_t place = band_ * p_.chunks + c_ / p_.chunk;
    for (int i = 0; i < Op::parameters; ++i)
      if (place != parameters_of_ || !shared_by_images(q_.parameter[i])) read_parameter(i);
    if (Tabled<Op> && !p_.forgets && place != parameters_of_) read_tables();
    parameters_of_ = place;
    if (Op::noise && q_.options.draws) draw();
  }

  // Whether a parameter and its sums stand in the block window by window, not channel by channel.
  bool by_window(int i) const { return p_.folded || !q_.channelwise[i]; }

  void read_parameter(int i) {
    const View& v = q_.parameter[i];
    T* to = parameter_[i].data();
    if (!q_.channelwise[i]) return read_block(to, p_.out, window_box(), v, n_, c_, count_);
    with_type(v.dtype, v.data, [&](auto* from) {
      if (!p_.folded) {  // lanes behind the last channel hold what it holds, not a number that needs the safe path
        read_line(to, 1, from + v.offset(n_, c_, 0, 0, 0), v.stride[1], count_);
        return std::fill(to + count_, to + round_up(count_, lanes), to[count_ - 1]);
      }
      for (int64_t d = 0; d < windows_[0]; ++d)  // and what follows the last channel
        std::fill_n(to + p_.out.at(d, 0, 0), p_.out.step[0] + lanes,
                    T(number(from[v.offset(n_, 0, first_[0] + d, 0, 0)])));
    });
  }

  int64_t entries() const { return q_.table[0].numbers() + q_.table[1].numbers(); }
  // Whether entries of tables differ from slice to slice of a block.
  bool by_slice() const { return p_.folded && !SharesTables<Op>; }

  // each(number, view, f, i) for every entry of the tables.
  template <class Each>
  void each_entry(const Each& each) const {
    int64_t number = 0;
    for (const Table& t : q_.table)
      for (int64_t f = 0; f < t.filters; ++f)
        for (int64_t i = 0; i < t.width; ++i) each(number++, t.view, f, i);
  }

  // Entry by entry as parameters stand: one number for all lanes, or channel by channel, or window by window.
  void read_tables() {
    each_entry([&](int64_t number, const View& v, int64_t f, int64_t i) {
      const T* from = static_cast<const T*>(v.data);
      T* to = table_.data() + number * table_step_;
      if (by_slice()) {
        for (int64_t d = 0; d < windows_[0]; ++d)
          std::fill_n(to + p_.out.at(d, 0, 0), p_.out.step[0] + lanes, from[v.offset(0, 0, first_[0] + d, f, i)]);
      } else if (p_.channels) {
        read_line(to, 1, from + v.offset(0, c_, 0, f, i), v.stride[1], count_);
        std::fill(to + count_, to + round_up(count_, lanes), to[count_ - 1]);
      } else {
        std::fill_n(to, lanes, from[v.offset(0, c_, 0, f, i)]);
      }
    });
  }

  // The random numbers of the unit's windows: made in the order of their positions, then laid out. Positions follow
  // each other in runs: of a row's part, of whole rows, of whole slices.
  void draw() {
    const int64_t plane = w_.output[0] * w_.output[1] * w_.output[2], row = windows_[2];
    const int64_t n = windows_[0] * windows_[1] * row, draws = Op::noise == 2 ? w_.taps() : 1;
    const PhiloxKeys keys(q_.options.seed);
    if (p_.channels && (Op::noise == 2 || plane % 4 == 0)) return draw_across(keys);
    // The block itself, where rows of windows follow each other in it without a gap.
    const bool direct = !p_.channels && (windows_[0] * windows_[1] == 1 || p_.out.step[1] == row) &&
                        (windows_[0] == 1 || p_.out.step[0] == windows_[1] * row);
    if (!direct && drawn_.size() < draws * count_ * n) drawn_ = Buffer<T>(draws * count_ * n);
    const int64_t together = n == plane ? count_ : 1;  // channels whose windows follow each other
    for (int64_t k = 0; k < count_; k += together)
      each_run([&](int64_t at, int64_t begin, int64_t length) {
        const uint64_t position = (n_ * q_.channels + c_ + k) * plane + begin;
        T* to = (direct ? noise_block_.data() : drawn_.data() + k * n) + at;
        const int64_t step = direct ? p_.noise_step : count_ * n;  // between taps
        if constexpr (Op::noise == 1) draw_windows(to, position, together * length, keys, Op::stream);
        if constexpr (Op::noise == 2) draw_taps(to, step, draws, position, together * length, keys, Op::stream);
      });
    if (direct) return;
    View v;
    v.dtype = dtype_of<T>;
    const int64_t stride[5] = {0, n, windows_[1] * row, row, 1};
    std::copy_n(stride, 5, v.stride);
    Box box;
    for (int a = 0; a < 3; ++a) box.first[a] = 0, box.extent[a] = box.size[a] = windows_[a];
    for (int64_t i = 0; i < draws; ++i) {
      v.data = drawn_.data() + i * count_ * n;
      read_block(noise_block_.data() + i * p_.noise_step, p_.out, box, v, 0, 0, count_);
    }
  }

  // each(at, begin, length): windows of the unit from number `at` on are windows of the image from `begin` on.
  template <class Each>
  void each_run(const Each& each) const {
    int64_t length = windows_[2];
    if (windows_[2] == w_.output[2]) {
      length *= windows_[1];
      if (windows_[1] == w_.output[1]) length *= windows_[0];
    }
    for (int64_t at = 0; at < windows_[0] * windows_[1] * windows_[2]; at += length) {
      const int64_t d = at / windows_[2] / windows_[1], h = at / windows_[2] % windows_[1];
      each(at, ((first_[0] + d) * w_.output[1] + first_[1] + h) * w_.output[2] + first_[2], length);
    }
  }

  // One lane per channel: noise is made where it is used.
  void draw_across(const PhiloxKeys& keys) {
    const int64_t plane = w_.output[0] * w_.output[1] * w_.output[2], width = p_.out.step[2];
    for (int64_t l = 0; l < count_; l += lanes)
      each_run([&](int64_t at, int64_t begin, int64_t length) {
        const uint64_t first = (n_ * q_.channels + c_ + l) * plane + begin;
        T* to = noise_block_.data() + at * width + l;
        if constexpr (Op::noise == 1) draw_windows_across(to, width, first, length, plane, keys, Op::stream);
        if constexpr (Op::noise == 2)
          draw_taps_across(to, width, p_.noise_step, w_.taps(), first, length, plane, keys, Op::stream);
      });
  }

  // Which windows; which taps are valid, in every image and channel.
  void start_band(int64_t band) {
    band_ = band;
    for (int a = 2; a >= 0; band /= p_.parts[a--]) {
      const int64_t part = band % p_.parts[a];
      own_[a] = part * p_.band[a];
      is_last_[a] = part + 1 == p_.parts[a];
      first_[a] = std::max<int64_t>(0, own_[a] - p_.halo[a]);
      windows_[a] = (is_last_[a] ? w_.output[a] : own_[a] + p_.band[a]) - first_[a];
    }
    y_block_.zero();
    counted_.zero();
    if (p_.in_registers()) return;
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

  // Vectors without a tap that is not valid; along channels, one entry per window.
  void find_plain() {
    plain_.clear();
    const T* valid = valid_block_.data();
    const auto all = [&](int64_t at, int64_t n) {
      for (int64_t tap = 0; tap < w_.taps(); ++tap)
        for (int64_t i = 0; i < n; ++i)
          if (valid[at + valid_.template at<true>(tap) + i] == 0) return false;
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

  // The block's windows; those that count here, without the halo.
  Box window_box() const {
    Box box;
    for (int a = 0; a < 3; ++a) box.first[a] = first_[a], box.extent[a] = windows_[a], box.size[a] = w_.output[a];
    return box;
  }
  Box own_box() const {
    Box box = window_box();
    for (int a = 0; a < 3; ++a) box.first[a] = own_[a], box.extent[a] -= skip(a);
    return box;
  }
  // Windows of the halo along an axis; where the first window behind it lies in a block of windows.
  int64_t skip(int a) const { return own_[a] - first_[a]; }
  int64_t own_place() const { return p_.out.at(skip(0), skip(1), skip(2)); }

  // A tensor's memory at the block's first position, which may lie in the padding, before the tensor; at its first
  // window. The caller knows which of the two a tensor has: not its address, which the output's gradient may share with
  // the input.
  void* at_positions(const View& v) const {
    return memory_at(v, v.offset(n_, c_, w_.first(0, first_[0]), w_.first(1, first_[1]), w_.first(2, first_[2])));
  }
  void* at_windows(const View& v) const { return memory_at(v, v.offset(n_, c_, first_[0], first_[1], first_[2])); }
  static T* numbers(void* memory) { return static_cast<T*>(memory); }

  // ---- a vector of windows ------------------------------------------------------------------------------------------

  // Where one vector of windows lies in the blocks, and its number in `plain_` and `active_`.
  struct Place {
    int64_t number, x, valid, sum, y, lane;
  };

  POOLNB_HD void read_parameters(Window& w, const Place& at) const {
    for (int i = 0; i < Op::parameters; ++i) {
      const T* from = parameter_[i].data();
      if (by_window(i)) w.parameter[i] = load<V>(from + out_place(at));
      else w.parameter[i] = p_.channels ? load<V>(from + at.lane) : splat<V>(from[0]);
    }
  }

  const T* noise(const Place& at) const { return Op::noise ? noise_block_.data() + out_place(at) : nullptr; }

  // Lanes that hold a window, not the end of a row.
  POOLNB_HD typename Traits<V>::Mask is_active(int64_t number) const {
    if (p_.channels) return splat<V>(0) == splat<V>(0);
    return load<V>(active_.data() + number * lanes) != splat<V>(0);
  }

  int64_t out_place(const Place& at) const { return p_.channels ? at.number * p_.out.step[2] + at.lane : at.x; }

  // Where entries of tables and their sums stand for a vector that lies there in blocks and begins with that channel.
  int64_t table_place(int64_t out, int64_t lane) const { return by_slice() ? out : p_.channels ? lane : 0; }
  Order<T> order(int64_t out, int64_t lane, const T* active) {
    Order<T> o;
    if constexpr (!Ordered<Op> && !Tabled<Op>) return o;
    o.place = p_.folded ? out : p_.channels ? lane : 0;
    o.lanes_of_channel = p_.folded ? p_.out.step[0] : p_.channels ? 1 : lanes;
    o.end = p_.channels ? count_ - lane : lanes;
    o.active = active;
    o.scratch = scratch_.data();
    o.long_rows = long_rows_.data();
    if constexpr (!Tabled<Op>) return o;
    o.vectors = p_.forgets ? nullptr : table_.data() + table_place(out, lane);
    o.vector_step = table_step_;
    o.tables = q_.table;
    o.first_channel = p_.folded ? first_[0] : c_;
    o.channel_axis = p_.folded ? 2 : 1;
    return o;
  }
  // What the windows of a vector add to the gradients of tables.
  template <class Taps>
  POOLNB_HD void add_to_tables(const Window& w, const Taps& taps, int64_t out, int64_t lane, auto counted, V g) {
    T* sums = table_sums_.data() + table_place(out, lane);
    Op::each_table_grad(w, taps, g, counted, [&](int t, int64_t f, int64_t i, V a, V b) POOLNB_INLINE {
      T* sum = sums + taps.order.number(t, f, i) * table_step_;
      store<V>(sum, vfma(a, b, load<V>(sum)));
    });
  }
  // Of many taps, lane by lane.
  template <class Taps>
  void add_to_long_tables(const Window& w, const Taps& taps, V g) {
    const Order<T>& order = taps.order;
    Op::each_table_grad(w, taps, g, Always{}, [&](int t, int64_t f, int64_t i, V a, V b) {
      T* sum = table_sums_.data() + order.number(t, f, i) * table_step_;
      for (int64_t lane = 0; lane < lanes; ++lane)
        if (order.holds_window(lane)) sum[order.channel(lane)] += a[lane] * b[lane];
    });
  }
  // What the windows of a vector of many taps add, lane by lane.
  void add_long_ranks(const Order<T>& order, V g) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (!order.holds_window(lane)) continue;
      const std::vector<T>& by_rank = order.long_rows[2 * lane + 1];
      T* sum = table_sums_.data() + order.channel(lane);
      for (int64_t r = 0; r < w_.taps(); ++r) sum[r * table_step_] += g[lane] * by_rank[r];
    }
  }
  // What the windows of a vector, of n taps, add to the gradients of the weights of ranks.
  template <class Saved>
  POOLNB_HD void add_to_ranks(const Saved& saved, int64_t n, int64_t out, int64_t lane, auto counted, V g) {
    T* sum = table_sums_.data() + table_place(out, lane);
    POOLNB_UNROLL for (int64_t r = 0; r < n; ++r, sum += table_step_)
      store<V>(sum, load<V>(sum) + select(counted, g * saved.more[r], splat<V>(0)));
  }

  // ---- what goes back ---------------------------------------------------------------------------------------------

  // Where a vector adds to the sum of a parameter's gradient.
  T* parameter_sum(int i, const Place& at) {
    return parameter_sum_[i].data() + (by_window(i) ? out_place(at) : p_.channels ? at.lane : 0);
  }

  void write_parameters(T* partial) {
    if constexpr (Tabled<Op>) return write_tables(partial);
    for (int i = 0; i < Op::parameters; ++i) {
      const T* sums = parameter_sum_[i].data();
      const int64_t row = i * p_.partial_rows() + p_.partial_row(band_, group_);
      T* to = partial + row * (p_.folded ? w_.output[0] : q_.channels);
      if (!q_.channelwise[i]) {
        write_block(sums + own_place(), p_.out, own_box(), q_.grad_parameter[i], group_, c_, count_);
      } else if (p_.folded) {
        for (int64_t d = 0; d < windows_[0]; ++d) to[first_[0] + d] = sum(sums + p_.out.at(d, 0, 0), p_.out.step[0]);
      } else if (p_.channels) {
        std::copy(sums, sums + count_, to + c_);
      } else {
        to[c_] = sum(sums, lanes);
      }
    }
  }
  // Of what all channels share, one number per entry and unit.
  void write_tables(T* partial) {
    const int64_t n = p_.forgets && p_.folded ? windows_[0] : p_.channels ? count_ : p_.forgets ? 1 : lanes;
    for (int64_t r = 0; r < entries(); ++r) {
      const T* sums = table_sums_.data() + r * table_step_;
      if (SharesTables<Op>) {
        partial[r * p_.units() + (band_ * p_.groups + group_) * p_.chunks + c_ / p_.chunk] = sum(sums, n);
        continue;
      }
      const int64_t row = r * p_.partial_rows() + p_.partial_row(band_, group_);
      T* to = partial + row * (p_.folded ? w_.output[0] : q_.channels);
      if (p_.channels) std::copy(sums, sums + count_, to + c_);
      else if (p_.forgets) std::copy(sums, sums + (p_.folded ? windows_[0] : 1), to + (p_.folded ? first_[0] : c_));
      else if (!p_.folded) to[c_] = sum(sums, lanes);
      else for (int64_t d = 0; d < windows_[0]; ++d) to[first_[0] + d] = sum(sums + p_.out.at(d, 0, 0), p_.out.step[0]);
    }
  }
  static T sum(const T* from, int64_t n) {
    T total = 0;
    for (int64_t k = 0; k < n; ++k) total += from[k];
    return total;
  }

  const Plan<T>& p_;
  const Problem& q_;
  const Windows& w_;
  const bool masked_;                        // some tap may not be valid
  Offsets read_, valid_, sum_;               // taps, from a window's place in the input, in `valid_block_`, in sums
  Buffer<T> x_block_[kMaxInputs], sum_block_[kMaxInputs], y_block_, valid_block_, active_, counted_, saved_;
  Buffer<double> carried_[kMaxInputs];  // what many windows have added to a position, so far
  Buffer<T> noise_block_, drawn_;
  std::vector<T> weights_;  // of an operator whose taps have some: see vec_taps.h
  Buffer<T> parameter_[kMaxParameters], parameter_sum_[kMaxParameters];
  Buffer<T> scratch_, table_, table_sums_;  // of an operator that is ordered; that has tables
  int64_t table_step_ = 0;
  std::vector<std::vector<T>> long_rows_;  // of its windows of many taps: see vec_taps.h
  std::vector<char> plain_;
  int64_t band_ = -1, first_[3] = {0, 0, 0}, windows_[3] = {1, 1, 1}, own_[3] = {0, 0, 0};  // own_: the first that count
  bool is_last_[3] = {true, true, true};
  int64_t group_ = 0, n_ = 0, c_ = 0, count_ = 0, vectors_ = 0;
  int64_t parameters_of_ = -1;  // band and channels whose parameters are in the blocks
};

}  // namespace poolnb
