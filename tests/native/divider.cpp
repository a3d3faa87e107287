// Division by a product and a shift, against the processor's: near multiples, where a rounding would show.
#define POOLNB_SCALAR_ONLY 1

#include <cstdio>
#include <random>

#include "../../ext/cuda/grid.h"

using poolnb::Divider;

static bool wrong(int64_t by, int64_t x) {
  const Divider divider(by);
  int64_t left = x;
  bool all = divider.take(left) != x % by || left != x / by || divider.quotient(x) != x / by;
  if (x < Divider::kShort && by < Divider::kShort) {
    int32_t narrow = int32_t(x);
    all = all || divider.take(narrow) != x % by || narrow != x / by;
  }
  return all;
}

int main() {
  std::mt19937_64 random(0);
  for (int k = 0; k < 400000; ++k) {
    const int bits = 1 + int(random() % 40), more = int(random() % 45);
    const int64_t by = 1 + int64_t(random() >> (64 - bits)), times = int64_t(random() >> (63 - more));
    const int64_t limit = k % 2 ? Divider::kShort - 1 : int64_t(1) << 55;
    const int64_t multiple = (limit / by < times ? limit / by : times) * by;
    for (int64_t x : {multiple - 1, multiple, multiple + 1})
      if (x >= 0 && wrong(by, x)) return std::printf("%lld / %lld\n", (long long)x, (long long)by), 1;
  }
}
