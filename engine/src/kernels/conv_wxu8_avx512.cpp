// The stem by vpdpbusd: a pixel of 4 bytes times 4 weights, added to 32 bits.  Strips as in conv_wxu8_avx2.cpp.
//
// Bound: 4 channels x 16 positions are 8 vpdpbusd a tap (2 a cycle) for 192 multiplications of 3 channels: 4 cycles, 48 a cycle.
#define MPQ_ISA_SPACE avx512
#include "conv_strips.h"

namespace mpq {
namespace avx512 {
namespace strips {
namespace {

struct Way {
  static int row_units(const Conv& conv) { return conv.kernel; }

  static void lay_out(const Conv& conv, const uint8_t* row, int wide, V* to) {
    for (int p = 0; p < round_up(wide, 16); p += 8, row += 8 * kPixel * conv.stride, to++)
      for (int x = 0; x < conv.kernel; x++) to[x * (kTile / 8)] = pixels(row + x * kPixel, conv.stride);
  }

  static V multiply_add(V sum, V x, V w) { return _mm256_dpbusd_epi32(sum, x, w); }

  static int32_t weight(const Conv& conv, const uint8_t* weights, int o, int y, int x) {
    int8_t four[4];
    for (int c = 0; c < 4; c++) four[c] = static_cast<int8_t>(tap(conv, weights, o, y, x, c));
    int32_t bits;
    std::memcpy(&bits, four, sizeof bits);
    return bits;
  }
};

template <int F>
using Kernel = StripKernel<Way, F>;
constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }

constexpr ConvKernel kKernel = {
    "conv_wxu8_avx512", Isa::avx512, supports, prepared_bytes<Way>, prepare<Way>, scratch_bytes<Way>, granule, 16, run};

}  // namespace
}  // namespace strips
}  // namespace avx512

extern const ConvKernel conv_wxu8_avx512;
const ConvKernel conv_wxu8_avx512 = avx512::strips::kKernel;

}  // namespace mpq
