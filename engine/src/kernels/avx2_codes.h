// What the kernels on 4-bit codes share: how weights lie in steps, and the epilogue that leaves codes as pixels.
#pragma once

#include "avx2_epilogue.h"

namespace mpq::MPQ_ISA_SPACE {

constexpr int kChannels = 16;   // output channels of a pass
constexpr int kMostParts = 64;  // stretches that are tried: a file must not make us look at its weights thousands of times
constexpr int kStepBytes = 64;  // weights of a step: 4 input channels of 16 output channels

// A step's 16 channels in two registers of 8, so that _mm256_packs_epi32 puts them in order: 0-3, 8-11 and 4-7, 12-15.
constexpr int kOrder[kChannels] = {0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15};

// Steps until a lane of 16 bits may overflow, where inputs are 0..most: the longest stretch, a fraction of the whole, that is
// safe in all blocks of weights.  A lane adds the products of 2 inputs a step.
inline int32_t safe_stretch(const int8_t* w, int blocks, int steps, int most) {
  for (int parts = 1;; parts++) {
    if (parts > kMostParts) return 32767 / (2 * most * 127);  // safe whatever the weights are
    const int stretch = (steps + parts - 1) / parts;
    bool safe = true;
    for (int block = 0; block < blocks && safe; block++) {
      for (int lane = 0; lane < kStepBytes && safe; lane += 2) {
        int high = 0, low = 0;
        for (int s = 0; s < steps && safe; s++) {
          if (s % stretch == 0) high = low = 0;
          for (int i = 0; i < 2; i++) {
            const int product = most * w[(static_cast<size_t>(block) * steps + s) * kStepBytes + lane + i];
            (product > 0 ? high : low) += product;
          }
          safe = high <= 32767 && low >= -32768;
        }
      }
    }
    if (safe) return stretch;
  }
}

// The epilogue of a layer that has a u4 output only: 16 channels of a pixel a register, two pixels at a time.
struct PixelEpilogue {
  V multiplier, bias, slope, post, keep;
  bool has_slope;
  __m128i fraction;

  PixelEpilogue(const Conv& conv, int first) {
    const int count = std::min(kChannels, conv.out_channels - first);
    auto constant = [&](const int16_t* from) {
      int16_t some[kChannels] = {};
      if (from) std::memcpy(some, from + first, count * sizeof(int16_t));
      return load(some);
    };
    multiplier = constant(conv.multiplier), bias = constant(conv.bias), post = constant(conv.post);
    has_slope = conv.slope != nullptr;
    slope = constant(conv.slope);
    alignas(32) uint8_t most[32];
    for (int i = 0; i < 32; i++) most[i] = i % kChannels < count ? 15 : 0;
    keep = load(most);
    fraction = _mm_cvtsi32_si128(conv.fraction);
  }

  V value(const int16_t* a) const {
    V v = _mm256_adds_epi16(_mm256_mulhrs_epi16(load(a), multiplier), bias);
    if (has_slope) v = rprelu(v, slope);
    return _mm256_sra_epi16(_mm256_adds_epi16(v, post), fraction);
  }

  void run(const int16_t* tile, uint8_t* to, int pixel, int n) const {
    for (int i = 0; i < n; i += 2, tile += 2 * kChannels, to += 2 * static_cast<ptrdiff_t>(pixel)) {
      V code = _mm256_packus_epi16(value(tile), value(tile + kChannels));
      code = _mm256_min_epu8(_mm256_permute4x64_epi64(code, 0xD8), keep);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(code));
      if (i + 1 < n) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + pixel), _mm256_extracti128_si256(code, 1));
    }
  }
};

}  // namespace mpq::MPQ_ISA_SPACE
