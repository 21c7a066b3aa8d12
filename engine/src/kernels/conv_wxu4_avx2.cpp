// Weights of 1, 4 or 8 bits on a map of 4-bit codes, by products of bytes summed in 16 bits.
//
// A pixel holds its channels side by side.  vpbroadcastd takes 4 of them, vpmaddubsw multiplies them with the weights of
// 8 output channels and adds pairs: 32 multiplications; the sums stay in 16 bits as long as they can.  A lane holds
// sum of w[i] * x[i] with 0 <= x <= 15, so it lies between -15 * (sum of negative weights) and 15 * (sum of positive ones):
// prepare() knows the weights, finds the longest stretch of steps for which no lane can overflow, and mostly that is the
// whole sum (by |w| <= 7 alone it would be 156 steps of 4 channels).  vpmaddwd with ones then widens to 32 bits.
//
// Bound: 6 pixels x 16 channels are 12 vpmaddubsw (2 a cycle) and 12 vpaddw for 384 multiplications: 24 operations,
// 6 cycles, 64 multiplications a cycle.  The 8 loads and 35 instructions a step fit beside it.  Measured on Zen 4: 65 to 70 %
// of that for 3x3, 50 to 64 % for 1x1 of 64 to 512 channels, where the epilogue and the last 4 pixels of a tile weigh more.
#include "conv_direct.h"

namespace mpq {
namespace avx2 {
namespace direct {
namespace {

// Sums of P pixels and 16 channels -> tile[pixel][16].
// The loops over pixels are unrolled by name: else gcc leaves the sums in memory, at half the speed.
struct Dot {
  static constexpr int kBlock = 6;  // a tile of 64 is ten blocks and a rest of 4

  template <int P>
  static void run(const uint8_t* in, const int32_t* pixel, const int32_t* row, Runs run, const uint8_t* w, int stretch,
                  const Rounding& round, int16_t* tile) {
    const V ones = _mm256_set1_epi16(1);
    V acc[P][2], sum[P][2];
#pragma GCC unroll 6
    for (int i = 0; i < P; i++) acc[i][0] = acc[i][1] = sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    const uint8_t* at[P];
    int left = stretch;
    for (int y = 0; y < run.rows; y++) {
#pragma GCC unroll 6
      for (int i = 0; i < P; i++) at[i] = in + pixel[i] + row[y];
      for (int begin = 0; begin < run.steps;) {
        const int end = std::min(run.steps, begin + left);
        for (ptrdiff_t s = 4 * begin; s < 4 * end; s += 4, w += kStepBytes) {
          const V w0 = load(w), w1 = load(w + 32);
#pragma GCC unroll 6
          for (int i = 0; i < P; i++) {
            int32_t four;
            std::memcpy(&four, at[i] + s, 4);
            const V x = _mm256_set1_epi32(four);
            acc[i][0] = _mm256_add_epi16(acc[i][0], _mm256_maddubs_epi16(x, w0));
            acc[i][1] = _mm256_add_epi16(acc[i][1], _mm256_maddubs_epi16(x, w1));
          }
        }
        left -= end - begin;
        begin = end;
        if (left == 0) {
          left = stretch;
#pragma GCC unroll 6
          for (int i = 0; i < P; i++) {
#pragma GCC unroll 6
            for (int h = 0; h < 2; h++) {
              sum[i][h] = _mm256_add_epi32(sum[i][h], _mm256_madd_epi16(acc[i][h], ones));
              acc[i][h] = _mm256_setzero_si256();
            }
          }
        }
      }
    }
#pragma GCC unroll 6
    for (int i = 0; i < P; i++) {
#pragma GCC unroll 6
      for (int h = 0; h < 2; h++) sum[i][h] = _mm256_add_epi32(sum[i][h], _mm256_madd_epi16(acc[i][h], ones));
      store(tile + i * kChannels, narrow(sum[i][0], sum[i][1], round));
    }
  }
};

template <int F>
using Kernel = DirectKernel<Dot, F>;
constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }
bool supports(const Conv& conv) { return conv.input == DType::u4 && fits(conv); }

}  // namespace
}  // namespace direct
}  // namespace avx2

extern const ConvKernel conv_wxu4_avx2;
const ConvKernel conv_wxu4_avx2 = {"conv_wxu4_avx2",       Isa::avx2,
                                   avx2::direct::supports, avx2::direct::prepared_bytes,
                                   avx2::direct::prepare,  avx2::direct::no_scratch,
                                   avx2::direct::by_tiles, 16,
                                   avx2::direct::run};

}  // namespace mpq
