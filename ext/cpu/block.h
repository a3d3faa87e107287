// A block: the part of a tensor that one unit of work looks at, laid out so that the lanes of a vector are neighbours.
//
// Lanes run along windows or along channels.
// Along windows (NCHW), a position goes to the plane of its remainder modulo the window stride, axis by axis. Then one
// tap of all windows is one contiguous stretch, whatever the stride: window (o) has its tap k at `place(o) + tap(k)`,
// and neighbouring windows are neighbours. Rows join, so that vectors run on over the ends of rows; the few windows
// that this adds at the ends are not `active`.
// Along channels (channels_last), a block keeps the order of positions, each a run of channels. It may then be the
// tensor itself.
#pragma once

#include "lines.h"

namespace poolnb {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// How positions of a block (d, h, w, counted from its first padded one) are laid out.
struct Layout {
  static constexpr int64_t kMany = 1024;

  bool channels = false;
  int64_t stride[3] = {1, 1, 1};  // remainders kept apart; 1 along channels
  int64_t step[3] = {0, 0, 0};    // between neighbours of one plane
  int64_t plane = 0;              // numbers of one remainder's plane
  bool gapless = false;           // planes follow each other at once
  int64_t size = 0;

  // `extent`: positions per axis. `lanes` numbers stay free at the end of every plane, or, where planes are many and
  // hold less than that, at the end of the last one: lanes without a window then read the next planes.
  static Layout along_windows(const int64_t extent[3], const int64_t stride[3], int64_t lanes) {
    Layout l;
    int64_t kept[3], planes = 1;
    for (int a = 0; a < 3; ++a) {
      l.stride[a] = stride[a];
      kept[a] = (extent[a] + stride[a] - 1) / stride[a];
      planes *= stride[a];
    }
    l.step[2] = 1;
    l.step[1] = kept[2];
    l.step[0] = kept[1] * kept[2];
    const int64_t windows = kept[0] * l.step[0];
    l.gapless = planes > kMany && windows < lanes;
    l.plane = l.gapless ? windows : round_up(windows + lanes, lanes);
    l.size = planes * l.plane + (l.gapless ? lanes : 0);
    return l;
  }
  static Layout along_channels(const int64_t extent[3], int64_t channels, int64_t lanes) {
    Layout l;
    l.channels = true;
    l.step[2] = round_up(channels, lanes);
    l.step[1] = extent[2] * l.step[2];
    l.step[0] = extent[1] * l.step[1];
    l.size = l.plane = extent[0] * l.step[0];
    return l;
  }
  // The tensor as it lies.
  static Layout of(const View& v) {
    Layout l;
    l.channels = true;
    for (int a = 0; a < 3; ++a) l.step[a] = v.stride[2 + a];
    return l;
  }

  // Of a row from its slice: rows are many, and divisions slow.
  int64_t row(int64_t h) const {
    if (stride[1] == 1) return h * step[1];
    return h % stride[1] * stride[2] * plane + h / stride[1] * step[1];
  }
  // Where a position lies; also where a tap lies, from its window's place.
  int64_t at(int64_t d, int64_t h, int64_t w) const {
    const int64_t remainder = (d % stride[0] * stride[1] + h % stride[1]) * stride[2] + w % stride[2];
    return remainder * plane + d / stride[0] * step[0] + h / stride[1] * step[1] + w / stride[2] * step[2];
  }
};

// Where the taps of a window lie, in row-major order, from the window's place: in a table, or as multiples of a step
// where they are many and evenly apart. A window as long as its input needs no table of its length then.
class Offsets {
 public:
  explicit Offsets(int64_t taps = 0) { if (taps <= Layout::kMany) table_.assign(taps, 0); }  // all in one place
  Offsets(const Layout& l, const Windows& w) {
    if (w.taps() > Layout::kMany && even(l, w)) return;
    table_.reserve(w.taps());
    for (int64_t i = 0; i < w.taps(); ++i) table_.push_back(place(l, w, i));
  }

  // The table; null where there is none.
  const int64_t* table() const { return table_.empty() ? nullptr : table_.data(); }
  int64_t step() const { return step_; }
  template <bool many>
  int64_t at(int64_t i) const { return many && table_.empty() ? i * step_ : table_[i]; }

 private:
  static int64_t place(const Layout& l, const Windows& w, int64_t i) {
    const int64_t row = i / w.kernel[2];
    return l.at(row / w.kernel[1] * w.dilation[0], row % w.kernel[1] * w.dilation[1], i % w.kernel[2] * w.dilation[2]);
  }
  // Along each axis the taps stay in one plane or go through the planes, and each axis goes on where the next ends.
  bool even(const Layout& l, const Windows& w) {
    int64_t inner = 1;
    for (int a = 2; a >= 0; inner *= w.kernel[a--]) {
      if (w.kernel[a] == 1) continue;
      if (l.stride[a] > 1 && w.dilation[a] * (w.kernel[a] - 1) >= l.stride[a]) return false;
      const int64_t first = place(l, w, inner);
      if (step_ == 0) step_ = first;
      if (first != inner * step_) return false;
    }
    return true;
  }

  std::vector<int64_t> table_;
  int64_t step_ = 0;
};

// A box of positions of a tensor: `first` may lie in the padding; positions outside the tensor are left out.
struct Box {
  int64_t first[3], extent[3], size[3];
};

// `lines` lines of n numbers in a tensor, which are columns of a block.
template <class Move>
inline void move_across(Move& move, int64_t at, int64_t step, int64_t there, int64_t tensor_step, int64_t lines,
                        int64_t n) {
  int64_t k = 0;
  if constexpr (by_tiles<typename Move::InBlock, typename Move::InTensor>)
    k = each_tile<typename Move::InBlock>(lines, n, [&](int64_t k, int64_t i) {
      move.tile(at + i * step + k, step, there + k * tensor_step + i, tensor_step);
    });
  for (; k < lines; ++k) move.line(at + k, step, there + k * tensor_step, 1, n);
}

// Between a block and a tensor, row by row. `Move` moves lines: see Reader and Writer.
template <class Move>
inline void move_block(const Layout& l, const Box& box, const View& v, int64_t n, int64_t c, int64_t count,
                       Move& move) {
  int64_t low[3], high[3];  // positions of the block inside the tensor
  for (int a = 0; a < 3; ++a) {
    low[a] = std::max<int64_t>(0, -box.first[a]);
    high[a] = std::min(box.extent[a], box.size[a] - box.first[a]);
  }
  int64_t width = high[2] - low[2];
  if (width <= 0 || high[1] <= low[1]) return;
  const int64_t column = v.stride[4], channel = v.stride[1], s = l.stride[2];
  const bool across = l.channels && column == 1 && channel != 1;  // lines of positions there, of channels here
  if (across && v.stride[3] == width && l.step[1] == width * l.step[2]) {  // rows follow each other: they are one
    width *= high[1] - low[1];
    high[1] = low[1] + 1;
  }
  for (int64_t d = low[0]; d < high[0]; ++d) {
    const int64_t slice = l.at(d, 0, 0);
    for (int64_t h = low[1]; h < high[1]; ++h) {
      const int64_t there = v.offset(n, c, box.first[0] + d, box.first[1] + h, box.first[2] + low[2]);
      const int64_t here = slice + l.row(h);
      if (l.channels) {
        const int64_t at = here + low[2] * l.step[2];
        if (across) move_across(move, at, l.step[2], there, channel, count, width);
        else
          for (int64_t w = 0; w < width; ++w) move.line(at + w * l.step[2], 1, there + w * column, channel, count);
      } else if (s == 1) {
        move.line(here + low[2], 1, there, column, width);
      } else if (s == 2 && column == 1) {
        // The first column is of remainder low % 2; the last one may be alone.
        const int64_t r = low[2] % 2, half = low[2] / 2, pairs = width / 2;
        const int64_t first = here + r * l.plane + half, second = here + (1 - r) * l.plane + half + r;
        move.pairs(first, second, there, pairs);
        if (width % 2) move.line(first + pairs, 1, there + width - 1, 1, 1);
      } else {
        for (int64_t w = 0; w < std::min(width, s); ++w)
          move.line(here + l.at(0, 0, low[2] + w), 1, there + w * column, s * column, (width - w + s - 1) / s);
      }
    }
  }
}

template <class T, class S>
struct Reader {
  using InBlock = T;
  using InTensor = S;
  T* block;
  const S* tensor;
  void line(int64_t at, int64_t step, int64_t there, int64_t tensor_step, int64_t n) {
    read_line(block + at, step, tensor + there, tensor_step, n);
  }
  void pairs(int64_t first, int64_t second, int64_t there, int64_t n) {
    read_pairs(block + first, block + second, tensor + there, n);
  }
  void tile(int64_t at, int64_t step, int64_t there, int64_t tensor_step) {
    turn_tile<T>(block + at, step, tensor + there, tensor_step);
  }
};

template <class T, class S>
struct Writer {
  using InBlock = T;
  using InTensor = S;
  const T* block;
  S* tensor;
  void line(int64_t at, int64_t step, int64_t there, int64_t tensor_step, int64_t n) {
    write_line(tensor + there, tensor_step, block + at, step, n);
  }
  void pairs(int64_t first, int64_t second, int64_t there, int64_t n) {
    write_pairs(tensor + there, block + first, block + second, n);
  }
  void tile(int64_t at, int64_t step, int64_t there, int64_t tensor_step) {
    turn_tile<T>(tensor + there, tensor_step, block + at, step);
  }
};

template <class T>
__attribute__((noinline)) void read_block(T* block, const Layout& l, const Box& box, const View& v, int64_t n,
                                          int64_t c, int64_t count) {
  with_type(v.dtype, v.data, [&](auto* tensor) {
    Reader<T, std::remove_pointer_t<decltype(tensor)>> reader{block, tensor};
    move_block(l, box, v, n, c, count, reader);
  });
}

template <class T>
__attribute__((noinline)) void write_block(const T* block, const Layout& l, const Box& box, const View& v, int64_t n,
                                           int64_t c, int64_t count) {
  with_type(v.dtype, v.data, [&](auto* tensor) {
    using S = std::remove_pointer_t<decltype(tensor)>;
    if constexpr (!std::is_same_v<S, bool>) {
      Writer<T, S> writer{block, tensor};
      move_block(l, box, v, n, c, count, writer);
    }
  });
}

}  // namespace poolnb
