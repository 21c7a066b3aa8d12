// Winograd's F(2x2, 3x3) in exact integers (conv_w4u4_winograd_avx2.cpp derives it), the products by vpdpbusd.
//
// Bound: 6 tiles x 16 channels are 12 vpdpbusd (2 a cycle) for 384 products: 64 products and 144 multiplications a cycle.
// Measured on Zen 4: 75 % with 128 channels.
#include "conv_winograd.h"
#include "vnni.h"

namespace mpq {
namespace MPQ_ISA_SPACE {
namespace winograd {
namespace {

struct Multiply {
  static void run(const uint8_t* x, int row, const uint8_t* w, int steps, int, int32_t* sums) {
    V sum[kBlock][2];
#pragma GCC unroll 6
    for (int i = 0; i < kBlock; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (int s = 0; s < steps; s++, w += kStepBytes) {
      const V w0 = load(w), w1 = load(w + 32);
#pragma GCC unroll 6
      for (int i = 0; i < kBlock; i++) {
        int32_t four;
        std::memcpy(&four, x + static_cast<ptrdiff_t>(i) * row + 4 * s, 4);
        const V d = _mm256_set1_epi32(four);
        sum[i][0] = dpbusd(sum[i][0], d, w0);
        sum[i][1] = dpbusd(sum[i][1], d, w1);
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kBlock; i++) store(sums + i * kChannels, sum[i][0]), store(sums + i * kChannels + 8, sum[i][1]);
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
