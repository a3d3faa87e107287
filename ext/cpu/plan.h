// The plan of one call. The work is cut into units: (band of windows, image or some images, some channels). The cut
// depends on the shapes alone, never on the number of threads, and every unit writes what nobody else writes; so
// results repeat, bit for bit. Bands are cut along the outermost axis, and along the others where a line or a slice is
// long by itself: what a unit keeps is bounded then, and one long signal is work for many threads.
//
// Small images are folded: their channels become the axis of depth, which two-dimensional windows leave free, and a
// unit is a band of channels. What a unit costs by itself is then shared by many windows. Parameters and their sums
// stand in memory then, window by window; that costs larger images more than it saves.
#pragma once

#include "block.h"

#ifndef POOLNB_BLOCK
#define POOLNB_BLOCK (1 << 16)
#endif

namespace poolnb {

// What a plan has to know of the operator.
struct Operator {
  int inputs;
  bool tabled;  // it has tables
  int sums;     // of windows that are functions of sums (sums.h): from how many taps per position on these pay where
                // lanes lie along channels; 0: not
};

template <class T>
struct Plan {
  static constexpr int64_t lanes = Traits<Vec<T>>::lanes;
  static constexpr int64_t kBlock = POOLNB_BLOCK;  // bytes of the input that a unit should look at
  static constexpr int64_t kLong = 8 * kBlock;     // bytes of a line or a slice that is cut
  static constexpr int64_t kSummed = 1 << 21;      // numbers of a block whose features are kept: a dozen of them
  static constexpr double kOften = 4;              // taps per position from which on a block pays
  static constexpr int64_t kSmall = 128;           // windows of an image that is folded
  static constexpr int64_t kStreamed = 1 << 24;    // bytes of a gradient that no cache keeps beside its input
  static constexpr bool fixed = sizeof(T) == 4;    // numbers of taps are compiled apart, for speed, in float32 alone

  const Operator op;
  const bool whole_lines;      // one window, which is all of the input, by its sums: see global.h
  const bool folded;           // depth is channels
  const Problem q;
  const Windows& w;
  bool backward, channels;     // lanes along channels
  int axis;                    // the outermost spatial axis that is cut into bands
  int64_t chunk, chunks;       // channels of a unit
  int64_t band[3], parts[3], halo[3];  // windows of a unit along each axis; how many units; windows evaluated twice
  int64_t bands;               // of all axes
  int64_t images, groups;      // images of a unit: more than one where they share a parameter of many numbers
  Layout in, out;              // blocks of the input, of the output
  bool inside;                 // every tap of every window is inside the input
  bool forgets;                // backward keeps no number per tap: taps are many
  bool shares;                 // many windows add to one input position
  int64_t noise_step;          // between the random numbers of two taps
  bool tiles_input;            // of windows of 4 taps: every input position belongs to one alone, sums are only written
  bool pairs;                  // windows of 2 x 2 or 2 x 2 x 2 that cover contiguous rows: everything is in registers
  bool across;                 // windows of 4 taps along channels, every tensor used where it lies: the same
  bool streams;                // of these: the input's gradient is written past the caches
  bool rows_join, slices_join; // of pairs: whether what lies behind the last number of a row, of a slice, is the next row
                               // or slice of every tensor, and the same unit works on it later
  bool short_rows;             // those, of rows that are shorter than a vector and follow each other without a gap
  bool halves;                 // tensors hold a half type
  bool overlapping;            // windows that share taps, by their sums: see overlapping.h
  bool by_rows;                // those, row by row: see overlapping_rows.h
  bool direct_in, direct_out, direct_sum;  // tensors are used where they lie, not as blocks
  Layout read, write, sum;                 // input, output (or its gradient), input's gradient, as they are used

  Plan(const Problem& given, const Operator& op, bool backward)
      : op(op), whole_lines(op.sums && is_whole(given, op.inputs)), folded(!whole_lines && can_fold(given)),
        q(clip(folded ? fold(given) : given)), w(q.windows), backward(backward),
        channels(along_channels(q)), axis(w.size[0] > 1 ? 0 : 1) {
    overlapping = op.sums && can_overlap();
    tiles_input = fixed && w.taps() == 4 && w.tile_input();  // the one case that is compiled apart
    // Where a unit keeps little, memory is best read in its order; but few images are cut for many threads.
    const bool wide = tiles_input || (whole_lines && q.batch >= 16);
    chunk = channels ? std::min(round_up(q.channels, lanes), (overlapping ? 1 : wide ? 16 : 4) * lanes) : 1;
    chunks = (q.channels + chunk - 1) / chunk;
    const bool many_numbers = op.tabled || (shared_by_images(q.parameter[0]) && !q.channelwise[0]);
    const bool share = backward && q.want_parameters && many_numbers;
    images = share ? images_of_a_group(q.batch) : 1;
    groups = groups_of_images(q.batch, images);
    inside = true;
    for (int a = 0; a < 3; ++a) {
      inside = inside && w.padding[a] == 0 && reach(a) <= w.size[a];
    }
    cut();
    lay_out();
    overlapping = overlapping && !in.gapless && in.size <= kSummed;
    noise_step = in.gapless ? in.plane : out.size;
    forgets = w.taps() > Layout::kMany;
    int64_t shared = 1;
    for (int a = 0; a < 3; ++a) shared *= std::min(w.output[a], (w.span(a) - 1) / w.stride[a] + 1);
    shares = backward && shared > kTerms;
    halves = q.input[0].dtype != dtype_of<T>;
    choose_pairs();
    by_rows = overlapping && can_go_by_rows();
    across = fixed && inside && w.taps() == 4;
    across = across && use_directly([&](const View& v) { return v.dtype == q.input[0].dtype; });
    if (!across) use_directly([](const View& v) { return v.dtype == dtype_of<T>; });
    streams = backward && across && writes_past_caches();
    read = direct_in ? Layout::of(q.input[0]) : in;
    write = direct_out ? Layout::of(backward ? q.grad : q.output) : out;
    sum = direct_sum ? Layout::of(q.grad_input[0]) : in;
  }

  Plan(const Plan&) = delete;

  int64_t units() const { return groups * chunks * bands; }
  bool in_registers() const { return pairs || across; }
  bool has_halo() const { return halo[0] || halo[1] || halo[2]; }

  // Sums for parameters of one number per channel: rows of partial sums, and which one a unit adds to. Units of a
  // folded problem have channels of their own, and share their images' row.
  int64_t partial_rows() const { return folded ? groups : groups * bands; }
  int64_t partial_row(int64_t band, int64_t group) const { return folded ? group : band * groups + group; }

  // Threads are worth waking for some ten thousand numbers each.
  int64_t grain() const {
    const int64_t all = q.batch * q.channels * w.size[0] * w.size[1] * w.size[2];
    return std::max<int64_t>(1, units() * 32768 / std::max<int64_t>(all, 1));
  }

 private:
  // A single window along an axis has no stride: none that needs memory.
  static Problem clip(Problem q) {
    Windows& w = q.windows;
    for (int a = 0; a < 3; ++a)
      if (w.output[a] == 1) w.stride[a] = std::min(w.stride[a], std::max(w.span(a), w.size[a] + w.padding[a]));
    return q;
  }
  int64_t reach(int a) const { return w.stride[a] * (w.output[a] - 1) + w.span(a); }

  static bool can_fold(const Problem& q) {
    const Windows& w = q.windows;
    const bool free = w.size[0] == 1 && w.kernel[0] == 1 && w.padding[0] == 0 && w.stride[0] == 1;
    return free && q.channels > 1 && !along_channels(q) && w.output[1] * w.output[2] <= kSmall;
  }
  static Problem fold(Problem q) {
    for (View* v : {&q.input[0], &q.input[1], &q.mask, &q.parameter[0], &q.parameter[1], &q.output, &q.grad,
                    &q.grad_input[0], &q.grad_input[1], &q.grad_parameter[0], &q.grad_parameter[1],
                    &q.table[0].view, &q.table[1].view})
      v->stride[2] = std::exchange(v->stride[1], 0);
    q.windows.size[0] = q.windows.output[0] = q.channels;
    q.channels = 1;
    return q;
  }

  // Windows that share taps: so many that sums pay, a tap per window being cheaper along channels, where blocks need not
  // be filled; but few along an axis, as sums of few terms keep their digits.
  bool can_overlap() const {
    bool shared = false, short_sums = true;
    for (int a = 0; a < 3; ++a) {
      shared = shared || (w.output[a] > 1 && w.stride[a] < w.kernel[a]);
      short_sums = short_sums && w.kernel[a] <= kTerms;
    }
    return shared && short_sums && taps_per_position() >= (channels ? op.sums : 2);
  }
  double taps_per_position() const {
    double taps = 1, positions = 1;
    for (int a = 0; a < 3; ++a) taps *= double(w.kernel[a]) * w.output[a], positions *= w.size[a];
    return taps / positions;
  }

  // One window over all of tensors whose positions follow each other with one step: with none between them, or, where
  // channels lie together, as many as a vector takes.
  static bool is_whole(const Problem& q, int inputs) {
    const Windows& w = q.windows;
    int64_t positions = 1;
    for (int a = 0; a < 3; ++a) {
      if (w.output[a] != 1 || w.padding[a] != 0 || w.kernel[a] != w.size[a] || w.dilation[a] != 1) return false;
      positions *= w.size[a];
    }
    const bool taps = positions >= lanes, lines = taps && one_step(q.input[0], w) == 1;
    if (!lines && (q.channels < lanes || q.input[0].stride[1] != 1)) return false;
    const auto fits = [&](const View& v) {
      const bool typed = v.dtype == q.input[0].dtype || v.dtype == Dtype::boolean;
      if (!v.data) return true;
      if (lines) return typed && one_step(v, w) == 1;
      return typed && one_step(v, w) >= 0 && (v.stride[1] == 1 || (v.dtype == Dtype::boolean && v.stride[1] == 0));
    };
    bool fit = fits(q.mask);
    for (int i = 0; i < inputs; ++i) fit = fit && fits(q.input[i]) && fits(q.grad_input[i]);
    return fit;
  }

 public:
  // Of whole lines: whether a vector holds taps, not channels.
  bool along_taps() const { return w.taps() >= lanes && one_step(q.input[0], w) == 1; }
  // Between a tensor's positions in their order; -1 if that is no one step.
  static int64_t one_step(const View& v, const Windows& w) {
    int64_t step = 0, inner = 1;
    for (int a = 2; a >= 0; inner *= w.size[a--]) {
      if (w.size[a] == 1) continue;
      if (inner == 1) step = v.stride[2 + a];
      else if (v.stride[2 + a] != inner * step) return -1;
    }
    return inner == 1 ? 1 : step;
  }

 private:
  static bool along_channels(const Problem& q) {
    const Windows& w = q.windows;
    if (q.channels == 1) return false;
    const int64_t positions = w.size[0] * w.size[1] * w.size[2], plane = w.output[0] * w.output[1] * w.output[2];
    if (q.channels < lanes / 2 && positions > kLong / POOLNB_BYTES) return false;  // most of a large block were empty
    const bool last = q.input[0].stride[1] == 1 && q.input[0].stride[4] != 1;
    return last ? q.channels >= lanes / 2 || plane < lanes : plane < lanes / 2 && q.channels > plane;
  }
  // Which tensors are used where they lie, if `fits` says that their numbers can be: whether all are.
  template <class Fits>
  bool use_directly(const Fits& fits) {
    const auto direct = [&](const View& v) {
      return v.stride[1] == 1 && fits(v) && q.channels % lanes == 0 && !q.mask.data;
    };
    // What is read often lies better in a block: its channels are those of the unit alone, and stay in the cache.
    // Windows that reach into the padding are gathered, if their taps have tables: see windows.h.
    const bool read_often = taps_per_position() > kOften;
    direct_in = channels && (inside || !forgets) && !overlapping && !read_often;
    for (int i = 0; i < op.inputs; ++i) direct_in = direct_in && direct(q.input[i]) && same_steps(q.input[i], q.input[0]);
    direct_out = channels && !overlapping && direct(backward ? q.grad : q.output);
    direct_sum = backward && channels && tiles_input;
    for (int i = 0; direct_sum && i < op.inputs; ++i) {
      const View& v = q.grad_input[i];  // one that nobody wants is left out `across`
      direct_sum = v.data ? direct(v) && same_steps(v, q.grad_input[0]) : direct_in && direct_out;
    }
    return direct_in && direct_out && (!backward || direct_sum);
  }

  // A line that is written to the caches is read from memory first. That pays if it stays there, for who reads it next;
  // a gradient of that many bytes does not.
  bool writes_past_caches() const {
    const int64_t numbers = q.batch * q.channels * w.size[0] * w.size[1] * w.size[2];
    bool can = numbers * int64_t(halves ? 2 : sizeof(T)) >= kStreamed;
    for (int i = 0; i < op.inputs; ++i) {
      const View& v = q.grad_input[i];
      can = can && reinterpret_cast<uintptr_t>(v.data) % POOLNB_BYTES == 0;
      for (int a : {0, 2, 3, 4}) can = can && v.stride[a] % lanes == 0;
    }
    return can;
  }

  // One plane of whole rows, each at least as long as a vector, apart by 1 or 2 columns; by 2, forward gains nothing.
  bool can_go_by_rows() const {
    if (!backward && w.stride[2] == 2) return false;
    const bool flat = w.size[0] == 1 && w.output[0] == 1 && w.kernel[0] == 1 && w.padding[0] == 0 && parts[2] == 1;
    if (!flat || channels || folded || images > 1 || q.mask.data || w.stride[2] > 2) return false;
    if (w.size[2] < w.stride[2] * lanes || w.output[2] < lanes) return false;
    if (2 * (w.span(1) + 8 * w.stride[1]) * w.size[2] > kSummed) return false;  // rows that are kept
    const auto fits = [&](const View& v) { return !v.data || (v.stride[4] == 1 && v.dtype == q.input[0].dtype); };
    bool fit = fits(backward ? q.grad : q.output);
    for (int i = 0; i < op.inputs; ++i) fit = fit && fits(q.input[i]) && fits(q.grad_input[i]);
    return fit;
  }

  void choose_pairs() {
    const bool cubes = w.kernel[0] == 2 && w.kernel[1] == 2 && w.taps() == 8;
    pairs = (tiles_input || (fixed && cubes && w.tile_input())) && !channels && w.kernel[2] == 2 && !q.mask.data;
    rows_join = true;
    slices_join = w.kernel[0] == 1 && parts[1] == 1;
    short_rows = tiles_input && w.kernel[1] == 2 && lanes % w.output[2] == 0;
    short_rows = short_rows && last_band() >= lanes && bands == parts[axis];
    const auto look = [&](const View& v, const int64_t size[3]) {
      pairs = pairs && v.stride[4] == 1 && v.dtype == q.input[0].dtype;
      rows_join = rows_join && v.stride[3] == size[2];
      slices_join = slices_join && rows_join && (size[0] == 1 || v.stride[2] == size[1] * size[2]);
      short_rows = short_rows && rows_join && (size[0] == 1 || v.stride[2] == size[1] * size[2]);
    };
    for (int i = 0; i < op.inputs; ++i) {
      look(q.input[i], w.size);
      if (backward && q.grad_input[i].data) look(q.grad_input[i], w.size);
    }
    look(backward ? q.grad : q.output, w.output);
    short_rows = short_rows && pairs && w.output[2] < lanes;
    pairs = pairs && (short_rows || w.output[2] >= lanes || (rows_join && 3 * w.output[2] >= lanes));
  }
  int64_t last_band() const {  // its windows
    return w.output[0] * w.output[1] * w.output[2] / w.output[axis] *
           (w.output[axis] - (parts[axis] - 1) * band[axis]);
  }
  static bool same_steps(const View& a, const View& b) {
    return a.stride[2] == b.stride[2] && a.stride[3] == b.stride[3] && a.stride[4] == b.stride[4];
  }

  // Bands keep a block in the cache; where windows overlap they are long, because the halo is evaluated twice. Few
  // units are cut further, so that two threads have work.
  void cut() {
    int64_t row = sizeof(T) * (channels ? std::min(chunk, round_up(q.channels, lanes)) : 1), others = groups * chunks;
    for (int a = 0; a < 3; ++a) {
      halo[a] = backward ? (w.span(a) - 1) / w.stride[a] : 0;
      band[a] = w.output[a];
      parts[a] = 1;
    }
    for (int a = 2; a > axis; --a) {
      if (!folded && row * extent(a) > kLong) cut_long(a, row);
      row *= parts[a] > 1 ? w.stride[a] * (band[a] + halo[a]) : extent(a);
      others *= parts[a];
    }
    for (int a = 0; a <= axis; ++a) row *= a == axis ? w.stride[a] : extent(a);
    const int64_t wanted = (16 + others - 1) / std::max<int64_t>(others, 1), most = (w.output[axis] + wanted - 1) / wanted;
    const int64_t least = std::max<int64_t>(1, 4 * halo[axis]);
    band[axis] = std::min(w.output[axis], std::max(least, std::min(cached(axis, row), std::max<int64_t>(most, 1))));
    band[axis] = std::max<int64_t>(band[axis], 1);
    parts[axis] = (w.output[axis] + band[axis] - 1) / band[axis];
    for (int a = 0; a < 3; ++a)
      if (parts[a] == 1) halo[a] = 0;
    bands = parts[0] * parts[1] * parts[2];
  }
  // Vectors stay full; the last band takes the rest.
  void cut_long(int a, int64_t row) {
    const int64_t least = std::max(4 * halo[a], a == 2 ? lanes : 1);
    band[a] = std::max(least, round_up(cached(a, row * w.stride[a]), lanes));
    parts[a] = std::max<int64_t>(1, w.output[a] / band[a]);
    if (parts[a] == 1) band[a] = w.output[a];
  }
  // Windows along an axis whose positions stay in the cache, where one takes so many bytes.
  int64_t cached(int a, int64_t bytes) const {
    return std::max<int64_t>(1, (halo[a] ? 6 * kBlock : overlapping ? 4 * kBlock : kBlock) / bytes);
  }
  int64_t extent(int a) const { return std::max(w.size[a], reach(a)); }

  void lay_out() {
    int64_t extent[3], windows[3];
    for (int a = 0; a < 3; ++a) {
      const int64_t last = (parts[a] - 1) * band[a];
      windows[a] = std::min(std::max(band[a], w.output[a] - last) + halo[a], w.output[a]);
      extent[a] = w.stride[a] * (windows[a] - 1) + w.span(a);
      if (!backward) continue;
      // The last band owns what lies behind the last window, the others all positions up to the next band.
      const int64_t begin = std::max<int64_t>(0, last - halo[a]);
      extent[a] = std::max({extent[a], w.stride[a] * windows[a], w.size[a] - w.first(a, begin)});
    }
    if (channels) {
      in = Layout::along_channels(extent, std::min(chunk, q.channels), lanes);
      out = Layout::along_channels(windows, std::min(chunk, q.channels), lanes);
    } else {
      in = Layout::along_windows(extent, w.stride, lanes);
      out = in;
      for (int a = 0; a < 3; ++a) out.stride[a] = 1;
      out.gapless = false;
      out.size = in.gapless ? 2 * lanes : in.plane;
    }
  }
};

}  // namespace poolnb
