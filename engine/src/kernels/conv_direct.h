// The direct convolution of pixels whose channels lie side by side, but for its inner loop: that is the instruction set's, in
// conv_wxu4_avx2.cpp and conv_wx_vnni.cpp.
#pragma once

#include "avx2_codes.h"

namespace mpq::MPQ_ISA_SPACE::direct {

constexpr int kStrip = 4 * kTile;  // positions whose inputs stay in L2 while all channels pass

// Where the steps of 4 channels lie: `rows` runs of `steps`, one after the other in memory.
struct Runs {
  int rows, steps;
};

inline int channel_steps(const Conv& conv) { return (conv.in_channels + 3) / 4; }

// The taps of a row follow each other without a gap if the pixels do.
inline Runs runs(const Conv& conv) {
  const int k = conv.kernel, steps = channel_steps(conv);
  return conv.in_pixel == 4 * steps ? Runs{k, k * steps} : Runs{k * k, steps};
}

inline int total_steps(const Conv& conv) { return conv.kernel * conv.kernel * channel_steps(conv); }

struct Rounding {
  V half;
  __m128i right;
  int left;
};

inline Rounding rounding(int shift) {
  return {_mm256_set1_epi32(shift > 0 ? 1 << (shift - 1) : 0), _mm_cvtsi32_si128(std::max(shift, 0)), std::max(-shift, 0)};
}

// a = sat16(rshift(acc, shift)) of 16 channels, in order.
inline V narrow(V a, V b, const Rounding& r) {
  a = _mm256_sra_epi32(_mm256_add_epi32(a, r.half), r.right);
  b = _mm256_sra_epi32(_mm256_add_epi32(b, r.half), r.right);
  V v = _mm256_packs_epi32(a, b);
  for (int i = 0; i < r.left; i++) v = _mm256_adds_epi16(v, v);
  return v;
}

// tile[64 pixels][16 channels] -> planes[16 channels][64 pixels], 16 pixels by 8 channels at a time.
inline void transpose(const int16_t* tile, int16_t* planes) {
  for (int p = 0; p < kTile; p += 16) {
    for (int c = 0; c < kChannels; c += 8) {
      V a[8], b[8];
      for (int i = 0; i < 8; i++) {
        const int16_t* from = tile + (p + i) * kChannels + c;
        a[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
                                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 8 * kChannels)), 1);
      }
      for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]), b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
      }
      for (int i = 0; i < 2; i++) {
        const V *x = b + 4 * i, *y = x + 2;
        V* to = a + 4 * i;
        to[0] = _mm256_unpacklo_epi32(x[0], y[0]), to[1] = _mm256_unpackhi_epi32(x[0], y[0]);
        to[2] = _mm256_unpacklo_epi32(x[1], y[1]), to[3] = _mm256_unpackhi_epi32(x[1], y[1]);
      }
      for (int i = 0; i < 4; i++) {
        store(planes + (c + 2 * i) * kTile + p, _mm256_unpacklo_epi64(a[i], a[4 + i]));
        store(planes + (c + 2 * i + 1) * kTile + p, _mm256_unpackhi_epi64(a[i], a[4 + i]));
      }
    }
  }
}

// Byte offsets of the inputs of positions begin .. end - 1.  Columns and rows that are no pixels repeat the last one.
inline void pixel_offsets(const Conv& conv, int begin, int end, int32_t* offset) {
  for (int p = begin; p < end; p++) {
    const int y = std::min(p / conv.out_pitch, conv.height - 1), x = std::min(p % conv.out_pitch, conv.width - 1);
    *offset++ = ((y * conv.stride - conv.pad) * conv.in_pitch + x * conv.stride - conv.pad) * conv.in_pixel;
  }
}

// Dot::kBlock pixels at a time: Dot::run<P>(in, pixel, row, run, w, stretch, round, tile) leaves the sums of P pixels and 16
// channels, rounded, in tile[pixel][16].
template <class Dot, int F>
struct DirectKernel {
  static void run(const Conv& conv, const ConvCall& call) {
    const Runs run = runs(conv);
    const Rounding round = rounding(conv.shift);
    const bool pixels_only = call.u4 && !call.s16 && !call.b1 && !conv.residual_channels;
    int32_t row[49], offset[kStrip];
    for (int i = 0; i < run.rows; i++) {
      const int y = run.rows == conv.kernel ? i : i / conv.kernel, x = run.rows == conv.kernel ? 0 : i % conv.kernel;
      row[i] = (y * conv.in_pitch + x) * conv.in_pixel;
    }
    int32_t stretch;
    std::memcpy(&stretch, call.weights, sizeof stretch);
    const size_t bytes = static_cast<size_t>(total_steps(conv)) * kStepBytes;
    alignas(32) int16_t tile[kTile * kChannels], planes[kTile * kChannels];
    for (int begin = call.begin; begin < call.end; begin += kStrip) {
      const int end = std::min(call.end, begin + kStrip);
      pixel_offsets(conv, begin, begin + round_up(end - begin, kTile), offset);
      for (int o = call.channel_begin; o < call.channel_end; o += kChannels) {
        const uint8_t* w = call.weights + kAlign + o / kChannels * bytes;
        const PixelEpilogue epilogue(conv, o);
        for (int p = begin; p < end; p += kTile) {
          const int32_t* pixel = offset + (p - begin);
          int i = 0;
          for (; i + Dot::kBlock <= kTile; i += Dot::kBlock)
            Dot::template run<Dot::kBlock>(call.in, pixel + i, row, run, w, stretch, round, tile + i * kChannels);
          Dot::template run<kTile % Dot::kBlock>(call.in, pixel + i, row, run, w, stretch, round, tile + i * kChannels);
          const int codes = codes_of_tile(call, p);
          if (pixels_only) {
            epilogue.run(tile, call.u4 + static_cast<ptrdiff_t>(p) * call.u4_pixel + o, call.u4_pixel, codes);
          } else {
            transpose(tile, planes);
            const int last = std::min(o + kChannels, last_quad(call));
            for (int q = o; q < last; q += 4) {
              store_within<F>(conv, call, within(conv, call, p), {}, planes + (q - o) * kTile, q, p, codes);
            }
          }
        }
      }
    }
  }
};

// Sums have 32 bits, with room for the rounding half; so have the offsets of pixels.
inline bool fits(const Conv& conv) {
  const int64_t rows = int64_t{conv.height} * conv.stride + conv.kernel;
  return conv.max_sum() <= INT32_MAX - 32768 && rows * conv.in_pitch * conv.in_pixel <= INT32_MAX;
}

inline size_t prepared_bytes(const Conv& conv) {
  return kAlign + static_cast<size_t>(round_up(conv.out_channels, kChannels) / kChannels) * total_steps(conv) * kStepBytes;
}

// The stretch, then [16 outputs][tap][4 inputs] steps of 64 bytes.
inline void prepare(const Conv& conv, const uint8_t* weights, uint8_t* prepared) {
  const int taps = conv.kernel * conv.kernel, blocks = round_up(conv.out_channels, kChannels) / kChannels;
  int8_t* const to = reinterpret_cast<int8_t*>(prepared + kAlign);
  std::memset(prepared, 0, prepared_bytes(conv));
  size_t at = 0;
  for (int block = 0; block < blocks; block++) {
    for (int t = 0; t < taps; t++) {
      for (int c = 0; c < 4 * channel_steps(conv); c += 4) {
        for (int lane = 0; lane < kStepBytes; lane++, at++) {
          const int o = block * kChannels + kOrder[lane / 4], i = c + lane % 4;
          if (o >= conv.out_channels || i >= conv.in_channels) continue;
          to[at] =
              static_cast<int8_t>(weight_at(conv.weight, weights, (static_cast<size_t>(o) * taps + t) * conv.in_channels + i));
        }
      }
    }
  }
  const int32_t stretch = safe_stretch(to, blocks, total_steps(conv), 15);
  std::memcpy(prepared, &stretch, sizeof stretch);
}

inline size_t no_scratch(const Conv&) { return 0; }
inline int by_tiles(const Conv&) { return kTile; }

}  // namespace mpq::MPQ_ISA_SPACE::direct
