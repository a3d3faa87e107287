// Windows of 2 x 2, or of 2 x 2 x 2, that cover contiguous rows: their taps are taken apart in registers.
//
// `short_rows`, of 2 x 2 alone: rows shorter than a vector follow each other without a gap, and a vector takes several.
// Its taps are 4 * lanes numbers in a row, as they are without `short_rows` in two rows.
#pragma once

#include "registers.h"

namespace poolnb {

template <class Op, class T, int K, bool halves, bool short_rows>
class Rows2 : public Registers<Op, T, K, Rows2<Op, T, K, halves, short_rows>> {
  using Base = Registers<Op, T, K, Rows2<Op, T, K, halves, short_rows>>;
  friend Base;
  using typename Base::V;
  using Base::lanes, Base::p_, Base::q_, Base::w_;
  using Mask = typename Traits<V>::Mask;

 public:
  explicit Rows2(const Plan<T>& plan) : Base(plan) {
    const int64_t width = short_rows ? w_.output[2] : lanes;  // windows of a row in a vector
    for (int64_t k = 0; k < 2 * lanes; ++k) {
      const int64_t window = k % lanes, row = k / (2 * width), in_row = k % (2 * width);
      split_[k / lanes][window] = window / width * 2 * width + window % width + k / lanes * width;
      join_[k / lanes][window] = row * width + in_row % width + in_row / width * lanes;
    }
  }

 private:
  // Row and column of a vector in the unit. Where a row is shorter than a vector, the lanes behind it read and write
  // the next rows, which this unit works on after it. Where too few are left, the windows of the row are `held` alone,
  // which is slower.
  struct At {
    int64_t d, h, column;
    Mask fresh;
    int64_t held = lanes;

    POOLNB_HD bool whole() const { return short_rows || held == lanes; }
  };

  // Vectors of windows along rows; the last one of a row overlaps its neighbour. Short rows count as one.
  template <class Each>
  POOLNB_HD void each_vector(const Each& each) const {
    const int64_t* windows = this->windows_;
    const int64_t depth = short_rows ? 1 : windows[0], height = short_rows ? 1 : windows[1];
    const int64_t row = short_rows ? windows[0] * windows[1] * windows[2] : windows[2];
    const Mask all = splat<V>(0) == splat<V>(0);
    T number[lanes];
    for (int64_t k = 0; k < lanes; ++k) number[k] = T(k);
    const Mask last = load<V>(number) >= splat<V>(T((lanes - row % lanes) % lanes));
    const Mask there = load<V>(number) < splat<V>(T(std::min(row, lanes)));
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t h = 0; h < height; ++h) {
        for (int64_t at = 0; at + lanes <= row; at += lanes) each(At{d, h, at, all});
        if (row > lanes && row % lanes) each(At{d, h, row - lanes, last});
        const int64_t left = p_.slices_join ? (depth - d) * height - h : p_.rows_join ? height - h : 1;  // rows
        if (row < lanes) each(At{d, h, 0, there, left * row < lanes ? row : lanes});
      }
  }

  // Where each two taps begin. Of short rows: the first half of the numbers, the second.
  POOLNB_HD void find_taps(const View& v, const At& at, int64_t rows[K / 2]) const {
    const int64_t d = (this->first_[0] + at.d) * w_.kernel[0], h = (this->first_[1] + at.h) * w_.kernel[1];
    rows[0] = v.offset(this->n_, this->c_, d, h, 2 * this->first_[2]) + (short_rows ? 4 : 2) * at.column;
    rows[1] = short_rows ? rows[0] + 2 * lanes : rows[0] + (w_.kernel[1] > 1 ? v.stride[3] : v.stride[2]);
    if constexpr (K == 8)
      for (int r = 0; r < 2; ++r) rows[2 + r] = rows[r] + v.stride[2];
  }

  // Even numbers are taps 0, 2, ..., odd ones 1, 3, ....
  POOLNB_HD void read_taps(const At& at, int i, V* taps) const {
    const View& v = q_.input[i];
    int64_t rows[K / 2];
    find_taps(v, at, rows);
    V part[K];
    with_float_type<halves>(v.dtype, v.data, [&](auto* x) POOLNB_INLINE {
      for (int r = 0; r < K / 2; ++r)
        if (at.whole()) load_pairs(x + rows[r], part[2 * r], part[2 * r + 1]);
        else load_pairs(x + rows[r], part[2 * r], part[2 * r + 1], at.held);
    });
    for (int k = 0; k < K; ++k)
      taps[k] = short_rows ? __builtin_shuffle(part[k % 2], part[k % 2 + 2], split_[k / 2]) : part[k];
  }
  POOLNB_HD void write_taps(const At& at, int i, const V* taps) const {
    const View& v = q_.grad_input[i];
    int64_t rows[K / 2];
    find_taps(v, at, rows);
    V part[K];
    for (int k = 0; k < K; ++k)
      part[k] = short_rows ? __builtin_shuffle(taps[k % 2], taps[k % 2 + 2], join_[k / 2]) : taps[k];
    with_float_type<halves>(v.dtype, v.data, [&](auto* dx) POOLNB_INLINE {
      for (int r = 0; r < K / 2; ++r)
        if (at.whole()) store_pairs(dx + rows[r], part[2 * r], part[2 * r + 1]);
        else store_pairs(dx + rows[r], part[2 * r], part[2 * r + 1], at.held);
    });
  }

  POOLNB_HD V read_output(const At& at) const {
    const View& v = q_.grad;
    V g;
    with_float_type<halves>(v.dtype, v.data, [&](auto* y) POOLNB_INLINE {
      g = at.whole() ? load_as<V>(y + output(v, at)) : load_as<V>(y + output(v, at), at.held);
    });
    return g;
  }
  POOLNB_HD void write_output(const At& at, V value) const {
    const View& v = q_.output;
    with_float_type<halves>(v.dtype, v.data, [&](auto* y) POOLNB_INLINE {
      at.whole() ? store_as(y + output(v, at), value) : store_as(y + output(v, at), value, at.held);
    });
  }
  POOLNB_HD int64_t output(const View& v, const At& at) const {
    return v.offset(this->n_, this->c_, this->first_[0] + at.d, this->first_[1] + at.h,
                    this->first_[2] + at.column);
  }
  POOLNB_HD int64_t out(const At& at) const { return p_.out.at(at.d, at.h, at.column); }
  POOLNB_HD int64_t lane(const At&) const { return 0; }
  POOLNB_HD int64_t held(const At& at) const { return at.held; }
  POOLNB_HD Mask fresh(const At& at) const { return at.fresh; }

  // Of even (or odd) numbers of short rows to two taps, and back.
  Mask split_[2], join_[2];
};

}  // namespace poolnb
