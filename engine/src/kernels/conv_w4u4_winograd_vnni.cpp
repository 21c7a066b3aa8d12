// Winograd's F(2x2, 3x3) in exact integers (conv_w4u4_winograd_avx2.cpp derives it), the products by vpdpbusd.
//
// Bound: with AVX-512 12 tiles x 16 channels are 12 vpdpbusd for 768 products, 6 cycles where there are two such units, 12 else;
// with AVX-VNNI 6 tiles are 12 for 384 in 6 cycles: 64 products and 144 multiplications a cycle. Measured on Zen 4: 75 % of that
// with 128 channels.
#include "conv_winograd.h"
#include "vnni.h"

namespace mpq {
namespace MPQ_ISA_SPACE {
namespace winograd {
namespace {

struct Multiply {
  static constexpr int kBlock = Sums::kMost;

  static void run(const uint8_t* x, int row, const uint8_t* w, int steps, int, int32_t* sums) {
    Sums sum[kBlock];
    for (int s = 0; s < steps; s++, w += kStepBytes) {
      const Sums::Weights weights = Sums::weights(w);
#pragma GCC unroll 12
      for (int i = 0; i < kBlock; i++) {
        int32_t four;
        std::memcpy(&four, x + static_cast<ptrdiff_t>(i) * row + 4 * s, 4);
        sum[i].add(four, weights);
      }
    }
#pragma GCC unroll 12
    for (int i = 0; i < kBlock; i++) store(sums + i * kChannels, sum[i].low()), store(sums + i * kChannels + 8, sum[i].high());
  }
};

}  // namespace
}  // namespace winograd
}  // namespace MPQ_ISA_SPACE

namespace kernel = MPQ_ISA_SPACE::winograd;
extern const ConvKernel MPQ_KERNEL(conv_w4u4_winograd);
const ConvKernel MPQ_KERNEL(conv_w4u4_winograd) = {MPQ_KERNEL_NAME(conv_w4u4_winograd),
                                                   MPQ_ISA_SPACE::kIsa,
                                                   kernel::supports,
                                                   kernel::prepared_bytes,
                                                   kernel::prepare,
                                                   kernel::scratch_bytes,
                                                   kernel::granule,
                                                   16,
                                                   kernel::run_by_tiles<kernel::Multiply>};

}  // namespace mpq
