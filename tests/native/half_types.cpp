// Vectors of half types against single numbers: all 65,536 values read, floats in steps over their whole range written,
// one vector after another and pair by pair. Prints how many differ.
#include <cstdio>

#include "../../ext/cpu/numbers.h"

using namespace poolnb;

namespace {

constexpr int lanes = Traits<VecF>::lanes;

bool same(float a, float b) { return a == b || (a != a && b != b); }
// A NaN may be any: its payload is nobody's business.
template <class S>
bool same(S a, S b) { return a.bits == b.bits || (number(a) != number(a) && number(b) != number(b)); }

template <class S>
int64_t differ_reading() {
  int64_t wrong = 0;
  for (uint32_t first = 0; first < 65536; first += 2 * lanes) {
    S memory[2 * lanes];
    for (int i = 0; i < 2 * lanes; ++i) memory[i].bits = uint16_t(first + i);
    const VecF low = load_as<VecF>(memory), high = load_as<VecF>(memory + lanes);
    VecF even, odd;
    load_pairs(memory, even, odd);
    for (int i = 0; i < lanes; ++i) {
      wrong += !same(low[i], number(memory[i])) + !same(high[i], number(memory[lanes + i]));
      wrong += !same(even[i], number(memory[2 * i])) + !same(odd[i], number(memory[2 * i + 1]));
    }
  }
  return wrong;
}

template <class S>
int64_t differ_writing() {
  int64_t wrong = 0;
  for (uint64_t bits = 0; bits < uint64_t(1) << 32; bits += 251 * 2 * lanes) {
    float x[2 * lanes];
    S one[2 * lanes], vectors[2 * lanes], pairs[2 * lanes];
    VecF even, odd;
    for (int i = 0; i < 2 * lanes; ++i) {
      const uint32_t word = uint32_t(bits + 251 * i);
      std::memcpy(x + i, &word, 4);
      put(one + i, x[i]);
      (i % 2 ? odd : even)[i / 2] = x[i];
    }
    store_as(vectors, load<VecF>(x));
    store_as(vectors + lanes, load<VecF>(x + lanes));
    store_pairs(pairs, even, odd);
    for (int i = 0; i < 2 * lanes; ++i) wrong += !same(one[i], vectors[i]) + !same(one[i], pairs[i]);
  }
  return wrong;
}

}  // namespace

int main() {
  std::printf("float16 read %ld\n", long(differ_reading<Half>()));
  std::printf("float16 written %ld\n", long(differ_writing<Half>()));
  std::printf("bfloat16 read %ld\n", long(differ_reading<BFloat>()));
  std::printf("bfloat16 written %ld\n", long(differ_writing<BFloat>()));
}
