// The map that S3 and max-blur pooling are made of: the largest tap of every window that begins at given positions, and
// its gradient, which goes to the first largest tap, of two NaN to the first. Windows have no gaps and no mask, and each
// holds at least one position of the input.
//
// The gradient is summed as it arrives, in T; a unit of work owns all positions that its windows reach.
#pragma once

#include "block.h"
#include "operators.h"

namespace poolnb {

struct MaxMap {
  int64_t batch, channels, size[3], kernel[3], output[3];
  const int64_t* start[3];  // per axis and window: its first tap, which may lie before the input
  View input, map, grad_input;  // map: its numbers, or the gradient that arrives at them

  int64_t begin(int axis, int64_t o) const { return std::max<int64_t>(0, start[axis][o]); }
  int64_t end(int axis, int64_t o) const { return std::min(size[axis], start[axis][o] + kernel[axis]); }
};

// Whether `b` takes the place of `a`, which came before it.
template <class V>
POOLNB_HD auto beats(V b, V a) { return (b > a) | ((b != b) & (a == a)); }

// ---- lanes along channels -------------------------------------------------------------------------------------------

// The channels of one image, `first` .. `first + count`.
template <class T, class S>
class MaxMapChannelsLast {
 public:
  MaxMapChannelsLast(const MaxMap& q, int64_t n, int64_t first, int64_t count)
      : q_(q), x_(static_cast<const S*>(q.input.data) + n * q.input.stride[0] + first),
        map_(n * q.map.stride[0] + first), sum_(n * q.grad_input.stride[0] + first), count_(count) {}

  void forward() {
    each_run([&](int64_t at, int64_t count) {
      S* y = static_cast<S*>(q_.map.data) + at;
      each_vector(count, [&]<class V>(V, int64_t c) POOLNB_INLINE { write(y + c, find<V>(c).largest); });
    });
  }

  void backward() {
    const View& v = q_.grad_input;
    T* sum = static_cast<T*>(v.data) + sum_;
    for (int64_t d = 0; d < q_.size[0]; ++d)
      for (int64_t h = 0; h < q_.size[1]; ++h)
        for (int64_t w = 0; w < q_.size[2]; ++w) std::fill_n(sum + v.offset(0, 0, d, h, w), count_, T(0));
    each_run([&](int64_t at, int64_t count) {
      const T* g = static_cast<const T*>(q_.map.data) + at;
      each_vector(count, [&]<class V>(V, int64_t c) POOLNB_INLINE {
        const V gy = load_as<V>(g + c), number = find<V>(c).number;
        for (size_t i = 0; i < taps_.size(); ++i) {
          T* to = sum + taps_[i].sum + c;
          store<V>(to, load<V>(to) + select(number == splat<V>(T(i)), gy, splat<V>(0)));
        }
      });
    });
  }

 private:
  struct Tap { int64_t x, sum; };
  template <class V>
  struct Found { V largest, number; };

  template <class V>
  static POOLNB_HD void write(S* to, V value) {
    if constexpr (kVector<V>) store_as(to, value);
    else put(to, value);
  }
  template <class V>
  POOLNB_HD V read(const S* from) const {
    if constexpr (kVector<V>) return load_as<V>(from);
    else return number(*from);
  }

  // The largest tap of a vector of numbers, and which it is.
  template <class V>
  POOLNB_HD Found<V> find(int64_t c) const {
    Found<V> found{read<V>(x_ + taps_[0].x + c), splat<V>(0)};
    for (size_t i = 1; i < taps_.size(); ++i) {
      const V x = read<V>(x_ + taps_[i].x + c);
      const auto taken = beats(x, found.largest);
      found.largest = select(taken, x, found.largest);
      found.number = select(taken, splat<V>(T(i)), found.number);
    }
    return found;
  }

  // each(place in the map, how many numbers) for every window, its taps found, or for windows that begin one after the
  // other: where all channels are looked at, their numbers lie together.
  template <class Each>
  void each_run(const Each& each) {
    const int64_t x_step = q_.input.stride[4], sum_step = q_.grad_input.stride[4];
    for (int64_t d = 0; d < q_.output[0]; ++d)
      for (int64_t h = 0; h < q_.output[1]; ++h) {
        find_rows(d, h);
        for (int64_t w = 0, run; w < q_.output[2]; w += run) {
          const int64_t begin = q_.begin(2, w), end = q_.end(2, w);
          run = windows_together(w);
          taps_.clear();
          for (const Tap& row : rows_)
            for (int64_t k = begin; k < end; ++k) taps_.push_back({row.x + k * x_step, row.sum + k * sum_step});
          each(map_ + q_.map.offset(0, 0, d, h, w), run * count_);
        }
      }
  }
  int64_t windows_together(int64_t w) const {
    const auto dense = [&](const View& v) { return !v.data || v.stride[4] == count_; };
    const int64_t start = q_.start[2][w];
    if (start < 0 || !dense(q_.input) || !dense(q_.map) || !dense(q_.grad_input)) return 1;
    int64_t run = 1;
    const auto follows = [&](int64_t o) {
      return q_.start[2][w + o] == start + o && q_.end(2, w + o) == start + o + q_.kernel[2];
    };
    if (follows(0))
      while (w + run < q_.output[2] && follows(run)) ++run;
    return run;
  }
  void find_rows(int64_t d, int64_t h) {
    rows_.clear();
    for (int64_t i = q_.begin(0, d); i < q_.end(0, d); ++i)
      for (int64_t j = q_.begin(1, h); j < q_.end(1, h); ++j)
        rows_.push_back({q_.input.offset(0, 0, i, j, 0), q_.grad_input.offset(0, 0, i, j, 0)});
  }

  // each(V, number): vectors, and the numbers that are left over.
  template <class Each>
  POOLNB_HD void each_vector(int64_t count, const Each& each) const {
    int64_t c = 0;
    for (constexpr int lanes = Traits<Vec<T>>::lanes; c + lanes <= count; c += lanes) each(Vec<T>(), c);
    for (; c < count; ++c) each(T(), c);
  }

  const MaxMap& q_;
  const S* x_;
  int64_t map_, sum_, count_;
  std::vector<Tap> rows_, taps_;
};

// ---- lanes along rows -----------------------------------------------------------------------------------------------

// One channel of one image: columns first, for all windows of a row at once, then along the row. Buffers are whole
// vectors long; what they hold behind the last number does not matter.
template <class T, class S>
class MaxMapRows {
  using V = Vec<T>;
  static constexpr int64_t lanes = Traits<V>::lanes;
  static constexpr T kNone = 1 << 20;  // the number of no tap
  static constexpr size_t kFew = 16;   // taps: a look at all windows for each is faster than one addition per window

 public:
  MaxMapRows(const MaxMap& q, bool backward)
      : q_(q), margin_(q.kernel[2]), width_(q.output[2]), read_(round_up(q.size[2], lanes)),
        line_(read_.size() + 2 * margin_ + lanes, -kInf<T>), number_(line_.size(), kNone),
        largest_(round_up(width_, lanes)), which_(largest_.size()), grad_(largest_.size()),
        sum_(backward ? q.size[0] * q.size[1] * line_.size() : 0), start_(largest_.size()) {
    for (int64_t o = 0; o < width_; ++o) start_[o] = q.start[2][o] + margin_;
    consecutive_ = true;
    for (int64_t o = 0; o < width_; ++o) consecutive_ = consecutive_ && start_[o] == start_[0] + o;
  }

  void forward(int64_t n, int64_t c) {
    each_row(n, c, [&](int64_t d, int64_t h) {
      find<false>();
      S* y = static_cast<S*>(q_.map.data) + q_.map.offset(n, c, d, h, 0);
      write_line(y, 1, largest_.data(), 1, width_);
    });
  }

  void backward(int64_t n, int64_t c) {
    std::fill(sum_.begin(), sum_.end(), T(0));
    each_row(n, c, [&](int64_t d, int64_t h) {
      find<true>();
      const T* g = static_cast<const T*>(q_.map.data) + q_.map.offset(n, c, d, h, 0);
      read_line(grad_.data(), 1, g, 1, width_);
      if (consecutive_ && places_.size() <= kFew) return add_by_tap();
      for (int64_t o = 0; o < width_; ++o) sum_[places_[int64_t(which_[o])] + start_[o]] += g[o];
    });
    const View& v = q_.grad_input;
    for (int64_t d = 0; d < q_.size[0]; ++d)
      for (int64_t h = 0; h < q_.size[1]; ++h)
        std::copy_n(sum_.data() + sum_row(d, h) + margin_, q_.size[2],
                    static_cast<T*>(v.data) + v.offset(n, c, d, h, 0));
  }

 private:
  // each(d, h) for every row of windows, with the largest tap of every column, and its number without the column.
  template <class Each>
  void each_row(int64_t n, int64_t c, const Each& each) {
    const S* x = static_cast<const S*>(q_.input.data) + q_.input.offset(n, c, 0, 0, 0);
    for (int64_t d = 0; d < q_.output[0]; ++d)
      for (int64_t h = 0; h < q_.output[1]; ++h) {
        places_.clear();
        for (int64_t i = q_.begin(0, d); i < q_.end(0, d); ++i)
          for (int64_t j = q_.begin(1, h); j < q_.end(1, h); ++j) {
            take(x + q_.input.offset(0, 0, i, j, 0), places_.size());
            for (int64_t k = 0; k < q_.kernel[2]; ++k) places_.push_back(sum_row(i, j) + k);
          }
        each(d, h);
      }
  }

  int64_t sum_row(int64_t d, int64_t h) const { return (d * q_.size[1] + h) * line_.size(); }

  // One more row of taps; `first`: the number of the first one of a window.
  void take(const S* row, T first) {
    const int64_t width = q_.size[2];
    T *line = line_.data() + margin_, *numbers = number_.data() + margin_;
    if (first == 0) {
      std::fill_n(numbers, width, T(0));
      return read_line(line, 1, row, 1, width);
    }
    read_line(read_.data(), 1, row, 1, width);
    for (int64_t w = 0; w < width; w += lanes) {
      const V a = load<V>(line + w), b = load<V>(read_.data() + w);
      const auto taken = beats(b, a) & inside(w);
      store<V>(line + w, select(taken, b, a));
      store<V>(numbers + w, select(taken, splat<V>(first), load<V>(numbers + w)));
    }
  }
  // The lanes of a vector from column w on that are columns of the input.
  auto inside(int64_t w) const {
    V column;
    for (int64_t l = 0; l < lanes; ++l) column[l] = T(l);
    return column < splat<V>(T(q_.size[2] - w));
  }

  // The largest tap of every window of a row, and which it is.
  template <bool which>
  void find() {
    std::fill(largest_.begin(), largest_.end(), -kInf<T>);
    std::fill(which_.begin(), which_.end(), kNone + 1);  // behind what lies beside the input
    for (int64_t k = 0; k < q_.kernel[2]; ++k) consecutive_ ? compare<which, true>(k) : compare<which, false>(k);
  }

  // Column k of all windows beside the columns before it.
  template <bool which, bool consecutive>
  void compare(int64_t k) {
    const T *line = line_.data() + k, *numbers = number_.data() + k;
    const auto read = [&](const T* from, int64_t o) POOLNB_INLINE {
      if constexpr (consecutive) return load<V>(from + start_[0] + o);
      else return load_at<V>(from, start_.data() + o);
    };
    for (int64_t o = 0; o < width_; o += lanes) {
      const V a = load<V>(largest_.data() + o), b = read(line, o);
      auto taken = beats(b, a);
      if constexpr (which) {
        const V number = read(numbers, o) + splat<V>(T(k)), before = load<V>(which_.data() + o);
        taken = taken | (~beats(a, b) & (number < before));
        store<V>(which_.data() + o, select(taken, number, before));
      }
      store<V>(largest_.data() + o, select(taken, b, a));
    }
  }

  // The gradient of windows that begin one after the other: tap by tap.
  void add_by_tap() {
    for (size_t t = 0; t < places_.size(); ++t) {
      T* to = sum_.data() + places_[t] + start_[0];
      for (int64_t o = 0; o < width_; o += lanes) {
        const auto here = load<V>(which_.data() + o) == splat<V>(T(t));
        store<V>(to + o, load<V>(to + o) + select(here, load<V>(grad_.data() + o), splat<V>(0)));
      }
    }
  }

  const MaxMap& q_;
  int64_t margin_, width_;
  std::vector<T> read_, line_, number_, largest_, which_, grad_;
  std::vector<T> sum_;           // the gradient of the channel, rows with margins
  std::vector<int32_t> start_;   // the first tap of every window, as a place in `line_`
  std::vector<int64_t> places_;  // of the taps in `sum_`, by their numbers; what comes to each is `start_`
  bool consecutive_;
};

// ---- units ----------------------------------------------------------------------------------------------------------

// run(worker) for every image and some of its channels. How many depends on the shape alone.
template <class T, class S>
void run_max_map(const MaxMap& q, const Parallel& parallel, bool backward) {
  const int64_t all = q.batch * q.channels * q.size[0] * q.size[1] * q.size[2];
  const auto grain = [&](int64_t units) { return std::max<int64_t>(1, units * 32768 / std::max<int64_t>(all, 1)); };
  if (q.input.stride[1] == 1 && q.channels > 1) {
    constexpr int64_t lanes = Traits<Vec<T>>::lanes;
    const int64_t chunk = q.batch >= 16 ? q.channels : std::min<int64_t>(q.channels, 2 * lanes);
    const int64_t chunks = (q.channels + chunk - 1) / chunk, units = q.batch * chunks;
    return parallel(units, grain(units), [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t first = u % chunks * chunk;
        MaxMapChannelsLast<T, S> worker(q, u / chunks, first, std::min(chunk, q.channels - first));
        backward ? worker.backward() : worker.forward();
      }
    });
  }
  const int64_t units = q.batch * q.channels;
  parallel(units, grain(units), [&](int64_t begin, int64_t end) {
    MaxMapRows<T, S> worker(q, backward);
    for (int64_t u = begin; u < end; ++u)
      backward ? worker.backward(u / q.channels, u % q.channels) : worker.forward(u / q.channels, u % q.channels);
  });
}

inline void max_map(const MaxMap& q, const Parallel& parallel, bool backward) {
  with_type(q.input.dtype, q.input.data, [&](auto* x) {
    using S = std::remove_pointer_t<decltype(x)>;
    if constexpr (!std::is_same_v<S, bool>)
      run_max_map<std::conditional_t<std::is_same_v<S, double>, double, float>, S>(q, parallel, backward);
  });
}

}  // namespace poolnb
