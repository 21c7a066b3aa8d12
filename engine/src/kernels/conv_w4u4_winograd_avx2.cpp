// 3x3 with stride 1, weights of 1 or 4 bits on 4-bit codes, codes out: Winograd's F(2x2, 3x3) in exact integers.
//
// A tile of 2x2 outputs needs 4x4 inputs d and 16 products a channel instead of 36.  In one dimension, for taps g,
//     x = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)     u = (g0, g0 + g1 + g2, g0 - g1 + g2, g2)     m = x * u
//     2 y0 = 2 m0 + m1 + m2                        2 y1 = m1 - m2 - 2 m3
// (u is twice the textbook's in the middle: no halves).  In two dimensions 4 y comes out, an exact multiple of 4.
// Everything fits bytes: with d in 0..15, x lies in -30..30 where a difference takes part, and there 30 is added, else in
// 0..60; with |g| <= 7, |u| is at most 7 at the corners, 21 on the edges and 63 in the middle.  The added 30s are a
// constant of the output channel: prepare() sends them through the same sums, and they are taken off with the rounding.
// vpmaddubsw adds pairs in 16 bits, and sums stay there as long as the weights at hand allow (safe_stretch).
//
// Bound: as in conv_wxu4_avx2.cpp, 6 tiles x 16 channels are 24 operations for 384 products, 6 cycles, and a product stands
// for 36/16 multiplications: 144 a cycle, less what the transformations take: about 60 operations for each 32 inputs of a tile,
// shared by all output channels, and 110 for each 16 outputs of 2x2, beside 4 * C cycles of products.  Measured on Zen 4: 53 %
// with 64 channels, 65 % with 256, 1.7 to 2.2 times as fast as the direct kernel; a u4 map only, since tiles are not rows.
#include "conv_winograd.h"

namespace mpq {
namespace avx2 {
namespace winograd {
namespace {

// Sums of 6 tiles and 16 channels at one place -> sums[tile][16], in the order of kOrder.
struct Multiply {
  static constexpr int kBlock = 6;  // tiles side by side in registers

  static void run(const uint8_t* x, int row, const uint8_t* w, int steps, int stretch, int32_t* sums) {
    const V ones = _mm256_set1_epi16(1);
    V acc[kBlock][2], sum[kBlock][2];
#pragma GCC unroll 6
    for (int i = 0; i < kBlock; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (int begin = 0; begin < steps; begin += stretch) {
      const int end = std::min(steps, begin + stretch);
#pragma GCC unroll 6
      for (int i = 0; i < kBlock; i++) acc[i][0] = acc[i][1] = _mm256_setzero_si256();
      for (int s = begin; s < end; s++, w += kStepBytes) {
        const V w0 = load(w), w1 = load(w + 32);
#pragma GCC unroll 6
        for (int i = 0; i < kBlock; i++) {
          int32_t four;
          std::memcpy(&four, x + i * row + 4 * s, 4);
          const V both = _mm256_set1_epi32(four);
          acc[i][0] = _mm256_add_epi16(acc[i][0], _mm256_maddubs_epi16(both, w0));
          acc[i][1] = _mm256_add_epi16(acc[i][1], _mm256_maddubs_epi16(both, w1));
        }
      }
#pragma GCC unroll 6
      for (int i = 0; i < kBlock; i++) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) sum[i][h] = _mm256_add_epi32(sum[i][h], _mm256_madd_epi16(acc[i][h], ones));
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < kBlock; i++) store(sums + i * kChannels, sum[i][0]), store(sums + i * kChannels + 8, sum[i][1]);
  }
};

}  // namespace
}  // namespace winograd
}  // namespace avx2

extern const ConvKernel conv_w4u4_winograd_avx2;
const ConvKernel conv_w4u4_winograd_avx2 = {"conv_w4u4_winograd_avx2",
                                            Isa::avx2,
                                            avx2::winograd::supports,
                                            avx2::winograd::prepared_bytes,
                                            avx2::winograd::prepare,
                                            avx2::winograd::scratch_bytes,
                                            avx2::winograd::granule,
                                            16,
                                            avx2::winograd::run_by_tiles<avx2::winograd::Multiply>};

}  // namespace mpq
