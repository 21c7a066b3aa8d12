// A convolution of pixels, by strips: what a row of taps reads is laid out once, [unit][64 positions], and then serves all output
// channels.  What a unit is, and how it is multiplied, is the instruction set's (conv_wxu8_avx2.cpp, conv_wxu8_vnni.cpp):
//   Way::row_units(conv)                       units of a row of taps
//   Way::lay_out(conv, row, wide, to)          of up to 64 positions of one row of taps: to[unit][64 positions], 8 a register
//   Way::multiply_add(sum, x, w)               8 positions
//   Way::weight(conv, weights, o, row, unit)   the 32 bits of a unit
#pragma once

#include "avx2_epilogue.h"

namespace mpq::MPQ_ISA_SPACE::strips {

constexpr int kPixel = 4;  // bytes of a pixel: 3 channels and a zero

// 8 pixels, every `stride`-th from `from` on.
inline V pixels(const uint8_t* from, int stride) {
  if (stride == 1) return load(from);
  const __m256 a = _mm256_castsi256_ps(load(from)), b = _mm256_castsi256_ps(load(from + 32));
  return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xD8);
}

// Sums of 4 channels and 16 positions, rounded and saturated, -> tile[4][64].
template <class Way>
inline void dot(const V* x, const int32_t* w, int units, V half, __m128i right, int left, int16_t* tile) {
  V acc[4][2];
#pragma GCC unroll 4
  for (int o = 0; o < 4; o++) acc[o][0] = acc[o][1] = _mm256_setzero_si256();
  for (int i = 0; i < units; i++, x += kTile / 8, w += 4) {
    const V x0 = x[0], x1 = x[1];
#pragma GCC unroll 4
    for (int o = 0; o < 4; o++) {
      const V both = _mm256_set1_epi32(w[o]);
      acc[o][0] = Way::multiply_add(acc[o][0], x0, both);
      acc[o][1] = Way::multiply_add(acc[o][1], x1, both);
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

template <class Way>
int units(const Conv& conv) {
  return conv.kernel * Way::row_units(conv);
}

template <class Way>
size_t tile_bytes(const Conv& conv) {
  return static_cast<size_t>(units<Way>(conv)) * kTile * sizeof(int32_t);
}

// Tiles of a strip: laid out together in half of L1, so that a channel's outputs go by in long pieces.
template <class Way>
int strip_tiles(const Conv& conv) {
  return std::clamp(static_cast<int>(16384 / tile_bytes<Way>(conv)), 1, 4);
}

template <class Way, int F>
struct StripKernel {
  static void run(const Conv& conv, const ConvCall& call) {
    const int n = units<Way>(conv), shift = conv.shift, strip = strip_tiles<Way>(conv) * kTile;
    const V half = _mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0);
    const __m128i right = _mm_cvtsi32_si128(std::max(shift, 0));
    V* const laid = reinterpret_cast<V*>(call.scratch);
    const int32_t* weights = reinterpret_cast<const int32_t*>(call.weights);
    alignas(32) int16_t tile[4 * kTile] = {};
    for (int y = call.begin / conv.out_pitch; y * conv.out_pitch < call.end; y++) {
      for (int begin = 0; begin < conv.width; begin += strip) {
        const int end = std::min(conv.width, begin + strip);
        for (int x = begin; x < end; x += kTile) {
          V* const to = laid + (x - begin) / 8 * n;
          for (int dy = 0; dy < conv.kernel; dy++) {
            const ptrdiff_t from =
                static_cast<ptrdiff_t>(y * conv.stride + dy - conv.pad) * conv.in_pitch + x * conv.stride - conv.pad;
            Way::lay_out(conv, call.in + from * kPixel, std::min(kTile, end - x), to + dy * Way::row_units(conv) * (kTile / 8));
          }
        }
        for (int q = call.channel_begin; q < last_quad(call); q += 4) {
          const int32_t* w = weights + static_cast<ptrdiff_t>(q) * n;
          for (int x = begin; x < end; x += kTile) {
            const int p = y * conv.out_pitch + x, wide = std::min(kTile, conv.width - x);
            const V* from = laid + (x - begin) / 8 * n;
            for (int i = 0; q < conv.out_channels && i < wide; i += 16)
              dot<Way>(from + i / 8, w, n, half, right, std::max(-shift, 0), tile + i);
            store_within<F>(conv, call, p + kTile > call.end ? wide : kTile, {}, tile, q, p, wide);
          }
        }
      }
    }
  }
};

inline bool supports(const Conv& conv) {
  return conv.input == DType::u8 && conv.in_channels <= 3 && conv.in_pixel == kPixel && conv.max_sum() <= INT32_MAX - 32768;
}

template <class Way>
size_t prepared_bytes(const Conv& conv) {
  return static_cast<size_t>(round_up(conv.out_channels, 4)) * units<Way>(conv) * sizeof(int32_t);
}

// [4 outputs][unit][output]
template <class Way>
void prepare(const Conv& conv, const uint8_t* weights, uint8_t* prepared) {
  int32_t* to = reinterpret_cast<int32_t*>(prepared);
  for (int q = 0; q < conv.out_channels; q += 4)
    for (int i = 0; i < units<Way>(conv); i++)
      for (int o = q; o < q + 4; o++)
        *to++ = o < conv.out_channels ? Way::weight(conv, weights, o, i / Way::row_units(conv), i % Way::row_units(conv)) : 0;
}

template <class Way>
size_t scratch_bytes(const Conv& conv) {
  return tile_bytes<Way>(conv) * strip_tiles<Way>(conv);
}
inline int granule(const Conv& conv) { return conv.out_pitch; }

// The weight of one channel of one tap, 0 where there is none.
inline int tap(const Conv& conv, const uint8_t* weights, int o, int y, int x, int c) {
  const int k = conv.kernel;
  if (x >= k || c >= conv.in_channels) return 0;
  return weight_at(conv.weight, weights, ((static_cast<size_t>(o) * k + y) * k + x) * conv.in_channels + c);
}

}  // namespace mpq::MPQ_ISA_SPACE::strips
