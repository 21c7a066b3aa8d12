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
#include "avx2_epilogue.h"

namespace mpq {
namespace avx2 {
namespace {

constexpr int kPixel = 4;  // bytes of a pixel: 3 channels and a zero

// Two taps give three pairs: (r, g), (b, r') and (g', b'); a last single tap two: (r, g) and (b, 0).
int row_pairs(const Conv& conv) { return conv.kernel / 2 * 3 + conv.kernel % 2 * 2; }
int pairs(const Conv& conv) { return conv.kernel * row_pairs(conv); }

// 8 pixels, every `stride`-th from `from` on.
inline V pixels(const uint8_t* from, int stride) {
  if (stride == 1) return load(from);
  const __m256 a = _mm256_castsi256_ps(load(from)), b = _mm256_castsi256_ps(load(from + 32));
  return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xD8);
}

// Bytes i and j (4: none) of every pixel as two 16-bit values.
inline V choose(int i, int j) {
  alignas(32) int8_t at[32];
  for (int n = 0; n < 32; n++) {
    const int byte = n % 4 == 0 ? i : n % 4 == 2 ? j : 4;
    at[n] = static_cast<int8_t>(byte == 4 ? -1 : n / 4 * 4 % 16 + byte);
  }
  return load(at);
}

// The pairs of up to 64 positions for one row of taps: to[pair][64].
inline void lay_out(const Conv& conv, const uint8_t* row, int wide, V* to) {
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

// Sums of 4 channels and 16 positions, rounded and saturated, -> tile[4][64].
inline void dot(const V* x, const int32_t* w, int pairs, V half, __m128i right, int left, int16_t* tile) {
  V acc[4][2];
#pragma GCC unroll 4
  for (int o = 0; o < 4; o++) acc[o][0] = acc[o][1] = _mm256_setzero_si256();
  for (int i = 0; i < pairs; i++, x += kTile / 8, w += 4) {
    const V x0 = x[0], x1 = x[1];
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
      const V both = _mm256_set1_epi32(w[o]);
      acc[o][0] = _mm256_add_epi32(acc[o][0], _mm256_madd_epi16(x0, both));
      acc[o][1] = _mm256_add_epi32(acc[o][1], _mm256_madd_epi16(x1, both));
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < 4; o++) {
    const V a = _mm256_sra_epi32(_mm256_add_epi32(acc[o][0], half), right);
    const V b = _mm256_sra_epi32(_mm256_add_epi32(acc[o][1], half), right);
    V v = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    for (int i = 0; i < left; i++) v = _mm256_adds_epi16(v, v);
    store(tile + o * kTile, v);
  }
}

// A tile that reaches beyond its row writes into the next ones. Those come later, unless they are another call's: then the
// outputs go aside first, and what belongs to the row is copied.
struct Aside {
  alignas(32) int16_t s16[4 * kTile];
  alignas(32) uint8_t b1[kTile];

  Place place(const Place& to) { return {to.s16 ? s16 : nullptr, kTile, to.b1 ? b1 : nullptr}; }
  void copy(const Place& to, int count, int n) const {
    for (int j = 0; to.s16 && j < count; j++)
      std::memcpy(to.s16 + j * to.s16_plane, s16 + j * kTile, static_cast<size_t>(n) * sizeof(int16_t));
    if (to.b1 && count > 0) std::memcpy(to.b1, b1, static_cast<size_t>(n));
  }
};

size_t tile_bytes(const Conv& conv) { return static_cast<size_t>(pairs(conv)) * kTile * sizeof(int32_t); }

// Tiles of a strip: laid out together in half of L1, so that a channel's outputs go by in long pieces.
int strip_tiles(const Conv& conv) { return std::clamp(static_cast<int>(16384 / tile_bytes(conv)), 1, 4); }

template <int F>
struct Kernel {
  static void run(const Conv& conv, const ConvCall& call) {
    const int n = pairs(conv), shift = conv.shift, strip = strip_tiles(conv) * kTile;
    const V half = _mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
    const __m128i right = _mm_cvtsi32_si128(std::max(shift, 0));
    V* const laid = reinterpret_cast<V*>(call.scratch);
    const int32_t* weights = reinterpret_cast<const int32_t*>(call.weights);
    alignas(32) int16_t tile[4 * kTile] = {};
    Aside aside;
    for (int y = call.begin / conv.out_pitch; y * conv.out_pitch < call.end; y++) {
      for (int begin = 0; begin < conv.width; begin += strip) {
        const int end = std::min(conv.width, begin + strip);
        for (int x = begin; x < end; x += kTile) {
          V* const to = laid + (x - begin) / 8 * n;
          for (int dy = 0; dy < conv.kernel; dy++) {
            const ptrdiff_t from =
                static_cast<ptrdiff_t>(y * conv.stride + dy - conv.pad) * conv.in_pitch + x * conv.stride - conv.pad;
            lay_out(conv, call.in + from * kPixel, std::min(kTile, end - x), to + dy * row_pairs(conv) * (kTile / 8));
          }
        }
        for (int q = call.channel_begin; q < last_quad(call); q += 4) {
          const int32_t* w = weights + static_cast<ptrdiff_t>(q) * n;
          for (int x = begin; x < end; x += kTile) {
            const int p = y * conv.out_pitch + x, wide = std::min(kTile, conv.width - x);
            const V* from = laid + (x - begin) / 8 * n;
            for (int i = 0; q < conv.out_channels && i < wide; i += 16)
              dot(from + i / 8, w, n, half, right, std::max(-shift, 0), tile + i);
            const Place to = place(call, q, p);
            const bool beyond = p + kTile > call.end;
            store_planar<F>(conv, call, beyond ? aside.place(to) : to, {}, tile, q, p, wide);
            if (beyond) aside.copy(to, std::min(4, conv.out_channels - q), wide);
          }
        }
      }
    }
  }
};

constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) { kRun[static_cast<size_t>(epilogue_flags(conv))](conv, call); }

bool supports(const Conv& conv) {
  return conv.input == DType::u8 && conv.in_channels <= 3 && conv.in_pixel == kPixel && conv.max_sum() <= INT32_MAX - 32768;
}

size_t prepared_bytes(const Conv& conv) {
  return static_cast<size_t>(round_up(conv.out_channels, 4)) * pairs(conv) * sizeof(int32_t);
}

// [4 outputs][pair][output] pairs of 16 bits.
void prepare(const Conv& conv, const uint8_t* weights, uint8_t* prepared) {
  const int k = conv.kernel, row = row_pairs(conv);
  int16_t* to = reinterpret_cast<int16_t*>(prepared);
  for (int q = 0; q < conv.out_channels; q += 4) {
    for (int i = 0; i < pairs(conv); i++) {
      for (int lane = 0; lane < 8; lane++) {
        const int o = q + lane / 2, value = i % row * 2 + lane % 2, x = value / 3, c = value % 3;  // r g b r g b ...
        const bool real = o < conv.out_channels && x < k && c < conv.in_channels;
        const size_t index = ((static_cast<size_t>(o) * k + i / row) * k + x) * conv.in_channels + c;
        *to++ = static_cast<int16_t>(real ? weight_at(conv.weight, weights, index) : 0);
      }
    }
  }
}

size_t scratch_bytes(const Conv& conv) { return tile_bytes(conv) * strip_tiles(conv); }
int granule(const Conv& conv) { return conv.out_pitch; }

}  // namespace
}  // namespace avx2

extern const ConvKernel conv_wxu8_avx2;
const ConvKernel conv_wxu8_avx2 = {"conv_wxu8_avx2", Isa::avx2,           avx2::supports, avx2::prepared_bytes,
                                   avx2::prepare,    avx2::scratch_bytes, avx2::granule,  16,
                                   avx2::run};

}  // namespace mpq
