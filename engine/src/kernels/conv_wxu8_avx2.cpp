// The stem: weights of any type on u8 pixels of up to 3 channels, by 16-bit products summed in pairs in 32 bits.
//
// Full bytes times full bytes overflow vpmaddubsw, so pixels and weights become 16 bits wide and vpmaddwd multiplies and
// adds two at a time, 8 positions a register.  The values that a row of taps reads, r g b r g b ..., are cut into pairs;
// a strip of the row's pairs is laid out once, [pair][64 positions], and then serves all output channels.
//
// Bound: 4 channels x 16 positions are 8 vpmaddwd (2 a cycle) and 8 vpaddd for 128 multiplications: 16 operations,
// 4 cycles, 32 multiplications a cycle, less what an odd number of values wastes (27 of 30 for 3x3).  Measured on Zen 4:
// 42 to 45 % for 3x3: the loop takes 5.6 cycles, since additions take turns on the two ports that multiply, and with 15
// steps only, layout and epilogue are 40 % of the time.
#include "conv_strips.h"

namespace mpq {
namespace avx2 {
namespace strips {
namespace {

// Bytes i and j (4: none) of every pixel as two 16-bit values.
inline V choose(int i, int j) {
  alignas(32) int8_t at[32];
  for (int n = 0; n < 32; n++) {
    const int byte = n % 4 == 0 ? i : n % 4 == 2 ? j : 4;
    at[n] = static_cast<int8_t>(byte == 4 ? -1 : n / 4 * 4 % 16 + byte);
  }
  return load(at);
}

struct Way {
  // Two taps give three pairs: (r, g), (b, r') and (g', b'); a last single tap two: (r, g) and (b, 0).
  static int row_units(const Conv& conv) { return conv.kernel / 2 * 3 + conv.kernel % 2 * 2; }

  // The pairs of up to 64 positions for one row of taps: to[pair][64].
  static void lay_out(const Conv& conv, const uint8_t* row, int wide, V* to) {
    const V rg = choose(0, 1), gb = choose(1, 2), b0 = choose(2, 4), r1 = choose(4, 0);
    const int step = kPixel * conv.stride, k = conv.kernel;
    for (int p = 0; p < round_up(wide, 16); p += 8, row += 8 * step, to++) {
      V* pair = to;
      for (int x = 0; x < k; x += 2) {
        const V left = pixels(row + x * kPixel, conv.stride);
        pair[0] = _mm256_shuffle_epi8(left, rg);
        pair[8] = _mm256_shuffle_epi8(left, b0);
        if (x + 1 < k) {
          const V right = pixels(row + (x + 1) * kPixel, conv.stride);
          pair[8] = _mm256_or_si256(pair[8], _mm256_shuffle_epi8(right, r1));
          pair[16] = _mm256_shuffle_epi8(right, gb);
        }
        pair += 24;
      }
    }
  }

  static V multiply_add(V sum, V x, V w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)); }

  static int32_t weight(const Conv& conv, const uint8_t* weights, int o, int y, int unit) {
    int16_t both[2];
    for (int i = 0; i < 2; i++) {
      const int value = 2 * unit + i;  // r g b r g b ...
      both[i] = static_cast<int16_t>(tap(conv, weights, o, y, value / 3, value % 3));
    }
    int32_t bits;
    std::memcpy(&bits, both, sizeof bits);
    return bits;
  }
};

template <int F>
using Kernel = StripKernel<Way, F>;
constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }

constexpr ConvKernel kKernel = {"conv_wxu8_avx2", Isa::avx2, supports, prepared_bytes<Way>, prepare<Way>, scratch_bytes<Way>,
                                granule,          16,        run};

}  // namespace
}  // namespace strips
}  // namespace avx2

extern const ConvKernel conv_wxu8_avx2;
const ConvKernel conv_wxu8_avx2 = avx2::strips::kKernel;

}  // namespace mpq
