// The stem by vpdpbusd: a pixel of 4 bytes times 4 weights, added to 32 bits.  Strips as in conv_wxu8_avx2.cpp.
//
// Bound: 4 channels x 16 positions are 8 vpdpbusd a tap (2 a cycle) for 192 multiplications of 3 channels: 4 cycles, 48 a cycle.
#include "conv_strips.h"
#include "vnni.h"

namespace mpq {
namespace MPQ_ISA_SPACE {
namespace strips {
namespace {

struct Way {
  static int row_units(const Conv& conv) { return conv.kernel; }

  static void lay_out(const Conv& conv, const uint8_t* row, int wide, V* to) {
    for (int p = 0; p < round_up(wide, 16); p += 8, row += 8 * kPixel * conv.stride, to++)
      for (int x = 0; x < conv.kernel; x++) to[x * (kTile / 8)] = pixels(row + x * kPixel, conv.stride);
  }

  static V multiply_add(V sum, V x, V w) { return dpbusd(sum, x, w); }

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
    MPQ_KERNEL_NAME(conv_wxu8), kIsa, supports, prepared_bytes<Way>, prepare<Way>, scratch_bytes<Way>, granule, 16, run};

}  // namespace
}  // namespace strips
}  // namespace MPQ_ISA_SPACE

extern const ConvKernel MPQ_KERNEL(conv_wxu8);
const ConvKernel MPQ_KERNEL(conv_wxu8) = MPQ_ISA_SPACE::strips::kKernel;

}  // namespace mpq
