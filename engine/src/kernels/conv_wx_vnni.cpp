// Weights of 1, 4 or 8 bits on 4-bit codes by vpdpbusd: the products of 4 bytes, added to 32 bits.
//
// The same layouts as conv_wxu4_avx2.cpp and the same answers; what takes two instructions there and cares for 16 bits takes one
// here that cannot overflow.
//
// Bound with AVX-512: 12 pixels x 16 channels are 12 vpdpbusd for 768 multiplications, 2 a cycle where there are two such units
// (6 cycles, beside 13 loads: 118 a cycle), 1 a cycle else; with AVX-VNNI 6 pixels are 12 vpdpbusd for 384: 64 a cycle.
// Measured on Zen 4, whose registers of 512 bits take two turns: 78 % of 64 for 1x1 of 128 and more channels, 85 % for 3x3 with
// stride 2.
#include "conv_direct.h"
#include "vnni.h"

namespace mpq {
namespace MPQ_ISA_SPACE {
namespace direct {
namespace {

struct Dot {
  static constexpr int kBlock = Sums::kMost;  // 12 or 6 pixels: a tile of 64 is five or ten blocks and a rest of 4

  template <int P>
  static void run(const uint8_t* in, const int32_t* pixel, const int32_t* row, Runs run, const uint8_t* w, int,
                  const Rounding& round, int16_t* tile) {
    Sums sum[P];
    for (int y = 0; y < run.rows; y++) {
      const uint8_t* at[P];
#pragma GCC unroll 12
      for (int i = 0; i < P; i++) at[i] = in + pixel[i] + row[y];
      for (ptrdiff_t s = 0; s < 4 * run.steps; s += 4, w += kStepBytes) {
        const Sums::Weights weights = Sums::weights(w);
#pragma GCC unroll 12
        for (int i = 0; i < P; i++) {
          int32_t four;
          std::memcpy(&four, at[i] + s, 4);
          sum[i].add(four, weights);
        }
      }
    }
#pragma GCC unroll 12
    for (int i = 0; i < P; i++) store(tile + i * kChannels, narrow(sum[i].low(), sum[i].high(), round));
  }
};

template <int F>
using Kernel = DirectKernel<Dot, F>;
constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }

bool supports(const Conv& conv) { return conv.input == DType::u4 && fits(conv); }

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
