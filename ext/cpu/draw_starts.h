// The windows that S3 pooling keeps, as poolnb/ops/s3.py says: of every strip of starts those with the smallest noise.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "../philox.h"

namespace poolnb {

// The kept starts of one axis, ascending. `draw`: which of the axes, counted from the outermost that there is.
inline void draw_starts(int64_t* kept, uint64_t seed, uint32_t draw, int64_t count, int64_t outputs, int64_t stride,
                        int64_t grid) {
  const int64_t share = grid / stride;
  std::vector<float> noise(std::min(grid, count));
  std::vector<int64_t> order(noise.size());
  for (int64_t strip = 0, o = 0; o < outputs; ++strip, o += share) {
    const int64_t first = strip * grid, n = std::min(grid, count - first), keep = std::min(share, outputs - o);
    for (int64_t i = 0; i < n; ++i)
      noise[i] = one_number<float>(seed, (first + i) / 4, draw, Stream::s3, int((first + i) % 4));
    std::iota(order.begin(), order.begin() + n, 0);
    std::stable_sort(order.begin(), order.begin() + n, [&](int64_t a, int64_t b) { return noise[a] < noise[b]; });
    std::sort(order.begin(), order.begin() + keep);
    for (int64_t i = 0; i < keep; ++i) kept[o + i] = first + order[i];
  }
}

}  // namespace poolnb
