// Weights of 1, 4 or 8 bits on 4-bit codes, and on pixels of 3 channels, by vpdpbusd: the products of 4 bytes, added to 32 bits.
//
// The same layouts as conv_wxu4_avx2.cpp and the same answers; what takes two instructions there and cares for 16 bits takes one
// here that cannot overflow.  Pixels are bytes like codes, so this is the stem's kernel, too.
//
// Bound: 12 pixels x 16 channels are 24 vpdpbusd (2 a cycle) for 768 multiplications: 12 cycles, 64 a cycle, beside 14 loads;
// with 6 pixels 6 cycles beside 8 loads. Measured on Zen 4: 78 % for 1x1 of 128 and more channels, 85 % for 3x3 with stride 2.
#include "conv_direct.h"
#include "vnni.h"

namespace mpq {
namespace MPQ_ISA_SPACE {
namespace direct {
namespace {

struct Dot {
  static constexpr int kBlock = kSums / 2;  // 12 or 6 pixels: a tile of 64 is five or ten blocks and a rest of 4

  template <int P>
  static void run(const uint8_t* in, const int32_t* pixel, const int32_t* row, Runs run, const uint8_t* w, int,
                  const Rounding& round, int16_t* tile) {
    V sum[P][2];
#pragma GCC unroll 12
    for (int i = 0; i < P; i++) sum[i][0] = sum[i][1] = _mm256_setzero_si256();
    for (int y = 0; y < run.rows; y++) {
      const uint8_t* at[P];
#pragma GCC unroll 12
      for (int i = 0; i < P; i++) at[i] = in + pixel[i] + row[y];
      for (ptrdiff_t s = 0; s < 4 * run.steps; s += 4, w += kStepBytes) {
        const V w0 = load(w), w1 = load(w + 32);
#pragma GCC unroll 12
        for (int i = 0; i < P; i++) {
          int32_t four;
          std::memcpy(&four, at[i] + s, 4);
          const V x = _mm256_set1_epi32(four);
          sum[i][0] = dpbusd(sum[i][0], x, w0);
          sum[i][1] = dpbusd(sum[i][1], x, w1);
        }
      }
    }
#pragma GCC unroll 12
    for (int i = 0; i < P; i++) store(tile + i * kChannels, narrow(sum[i][0], sum[i][1], round));
  }
};

template <int F>
using Kernel = DirectKernel<Dot, F>;
constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }

bool supports(const Conv& conv) {
  const bool pixels = conv.input == DType::u8 && conv.in_channels <= 4 && conv.in_pixel == 4;
  return (conv.input == DType::u4 || pixels) && fits(conv);
}

}  // namespace
}  // namespace direct
}  // namespace MPQ_ISA_SPACE

namespace kernel = MPQ_ISA_SPACE::direct;
extern const ConvKernel MPQ_KERNEL(conv_wx);
const ConvKernel MPQ_KERNEL(conv_wx) = {MPQ_KERNEL_NAME(conv_wx),
                                        MPQ_ISA_SPACE::kIsa,
                                        kernel::supports,
                                        kernel::prepared_bytes,
                                        kernel::prepare,
                                        kernel::no_scratch,
                                        kernel::by_tiles,
                                        16,
                                        kernel::run};

}  // namespace mpq
