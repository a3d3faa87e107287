// What a kernel is told about one pooling call: windows, and where tensors lie in memory. No torch header.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define POOLNB_HD __host__ __device__ __forceinline__
#else
#define POOLNB_HD inline __attribute__((always_inline))
#endif

namespace poolnb {

// The operators: their maths is in windows/. Each has a struct of its own options.
#define POOLNB_OPERATOR(Op, name, parts) \
  struct Op;                             \
  struct Op##Options { parts };
#define NUMBER(option) double option;
#define FLAG(option) bool option;
#include "operators.def"

// Everything has three spatial dimensions (D, H, W); fewer dimensions come with leading ones.
struct Windows {
  int64_t size[3], kernel[3], stride[3], padding[3], dilation[3], output[3];

  POOLNB_HD int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  POOLNB_HD int64_t count() const { return output[0] * output[1] * output[2]; }
  // Extent of a window, the gaps of the dilation included.
  POOLNB_HD int64_t span(int axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
  // Input coordinate of the first tap of a window.
  POOLNB_HD int64_t first(int axis, int64_t o) const { return o * stride[axis] - padding[axis]; }
  // Whether no input position belongs to two windows.
  POOLNB_HD bool non_overlapping() const {
    return stride[0] >= span(0) && stride[1] >= span(1) && stride[2] >= span(2);
  }
  // Whether they take up the whole input, without padding.
  POOLNB_HD bool tile_input() const {
    bool all = true;
    for (int a = 0; a < 3; ++a)
      all = all && stride[a] == kernel[a] && dilation[a] == 1 && padding[a] == 0 && output[a] * kernel[a] == size[a];
    return all;
  }
};

enum class Dtype : int32_t { float16, bfloat16, float32, float64, boolean, int64 };

// A strided tensor (N, C, D, H, W); strides count elements, a broadcast dimension has stride 0.
struct View {
  void* data = nullptr;
  int64_t stride[5] = {0, 0, 0, 0, 0};
  Dtype dtype = Dtype::float32;

  POOLNB_HD int64_t offset(int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) const {
    return n * stride[0] + c * stride[1] + d * stride[2] + h * stride[3] + w * stride[4];
  }
};

// The CPU sums the gradient of a parameter that all images share over groups of so many images; their number depends on
// the batch alone, and so do results.
inline int64_t images_of_a_group(int64_t batch) { return batch > 16 ? (batch + 15) / 16 : 1; }
inline int64_t groups_of_images(int64_t batch, int64_t images) { return (batch + images - 1) / images; }
inline bool shared_by_images(const View& parameter) { return parameter.data && parameter.stride[0] == 0; }

constexpr int kMaxInputs = 2, kMaxParameters = 2, kMaxTables = 2;

// A tensor of `filters` rows of `width` numbers that every window of a channel uses: weights of taps or of ranks, or
// one number. The row and the number take the places of the last two axes; what all channels share has stride 0.
// The CPU sums up its gradient; a GPU leaves it in parts, numbered along the first axis.
struct Table {
  View view, grad;
  int64_t filters = 0, width = 0;

  POOLNB_HD int64_t numbers() const { return filters * width; }
};

// The options of the operator that is called, and the seed of those that draw.
struct Options {
  union {
    bool none = false;
#define POOLNB_OPERATOR(Op, name, parts) Op##Options name;
#include "operators.def"
  };
  bool draws = false;
  uint64_t seed = 0;
  const int64_t* seed_at = nullptr;  // where the seed lies on the device; null: it is `seed`
};

// One call of an operator, forward or backward. `input[0]` is what is pooled; a second input has its shape.
// A parameter has the output's shape, with stride 0 where it is broadcast; one that depends on the channel alone is
// `channelwise`, and its gradient is the (C,) sum; the gradient of another one has the output's shape.
// An operator has parameters or tables.
struct Problem {
  Windows windows;
  int64_t batch = 0, channels = 0;
  View input[kMaxInputs], mask, parameter[kMaxParameters], output;
  bool channelwise[kMaxParameters] = {false, false};
  Options options;
  View grad, grad_input[kMaxInputs], grad_parameter[kMaxParameters];
  Table table[kMaxTables];
  bool want_parameters = false;
};

}  // namespace poolnb
