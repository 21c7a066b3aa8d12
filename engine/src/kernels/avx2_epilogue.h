// The convolution's epilogue (docs/numerics.md, section 4) on AVX2 registers, shared by the kernels conv_*_avx2.cpp.
//
// A kernel goes by tiles of 64 positions and leaves its sums in a scratch that lies in L1; no map of accumulators ever
// reaches memory.  store_planar takes such a tile as [4 channels][64 positions], 16 positions a register and constants
// broadcast, and writes all outputs.  Per 16 values it costs 5 operations (multiply, add, and a store, a comparison and
// a pack), 1 more each for post and residual, 4 for a slope: 3 to 4 cycles at 4 operations a cycle, beside
// C * k * k / 16 look-ups or C * k * k * 2 multiplications for the same values.
// What is optional is a template flag: branches in here cost as much as the arithmetic.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernel.h"

// Code compiled for another instruction set has another name, else a linker would merge the two.
#ifndef MPQ_ISA_SPACE
#define MPQ_ISA_SPACE avx2
#endif

namespace mpq::MPQ_ISA_SPACE {

using V = __m256i;

inline V load(const void* p) { return _mm256_loadu_si256(static_cast<const V*>(p)); }
inline void store(void* p, V v) { _mm256_storeu_si256(static_cast<V*>(p), v); }

constexpr int kTile = 64;  // positions

enum Flags : int {
  kCounts = 1,  // the tile holds x with a = (x << Scale::up) - Scale::offset; else it holds a = sat16(rshift(acc, shift))
  kBefore = 2,  // the residual comes before the slope
  kAfter = 4,   // the residual comes last
  kSlope = 8,
  kFlags = 16
};

inline int epilogue_flags(const Conv& conv) {
  const int residual = !conv.residual_channels ? 0 : conv.residual_last ? kAfter : kBefore;
  return residual | (conv.slope ? kSlope : 0);
}

struct Scale {
  int up = 0;
  int16_t offset = 0;
};

// v >= 0 ? v : mulhrs(v, s).  One of the two terms is 0, since mulhrs(0, s) is: an addition joins them.
inline V rprelu(V v, V s) {
  const V zero = _mm256_setzero_si256();
  return _mm256_add_epi16(_mm256_max_epi16(v, zero), _mm256_mulhrs_epi16(_mm256_min_epi16(v, zero), s));
}

// The residual's 64 positions for one output channel: in place, or repeated, folded and multiplied in `buffer`.
inline const int16_t* residual_row(const Conv& conv, const ConvCall& call, int channel, int p, int16_t* buffer) {
  const int own = conv.residual_channels, first = channel < own ? channel : channel % own;
  const int16_t* from = call.residual + first * call.residual_plane + p;
  if (!conv.gain && own <= conv.out_channels) return from;
  for (int c = first; c < own; c += conv.out_channels, from += conv.out_channels * call.residual_plane) {
    for (int i = 0; i < kTile; i += 16) {
      V x = load(from + i);
      if (conv.gain) x = _mm256_mulhrs_epi16(x, _mm256_set1_epi16(conv.gain[c]));
      store(buffer + i, c == first ? x : _mm256_adds_epi16(load(buffer + i), x));
    }
  }
  return buffer;
}

// 32 positions of 4 channels, as _mm256_packus_epi16 orders them (0-7, 16-23 | 8-15, 24-31), to u4 pixels.
inline void store_codes(const V code[4], uint8_t* to, int pixel, int n) {
  const V a = _mm256_unpacklo_epi8(code[0], code[1]), b = _mm256_unpacklo_epi8(code[2], code[3]);
  const V c = _mm256_unpackhi_epi8(code[0], code[1]), d = _mm256_unpackhi_epi8(code[2], code[3]);
  const V p0 = _mm256_unpacklo_epi16(a, b), p4 = _mm256_unpackhi_epi16(a, b);    // 0-3 | 8-11 and 4-7 | 12-15
  const V p16 = _mm256_unpacklo_epi16(c, d), p20 = _mm256_unpackhi_epi16(c, d);  // 16-19 | 24-27 and 20-23 | 28-31
  alignas(32) uint32_t quad[32];
  store(quad, _mm256_permute2x128_si256(p0, p4, 0x20));
  store(quad + 8, _mm256_permute2x128_si256(p0, p4, 0x31));
  store(quad + 16, _mm256_permute2x128_si256(p16, p20, 0x20));
  store(quad + 24, _mm256_permute2x128_si256(p16, p20, 0x31));
  for (int i = 0; i < n; i++, to += pixel) std::memcpy(to, quad + i, 4);
}

// Where the planar outputs of 4 channels and 64 positions go; null as in the call.
struct Place {
  int16_t* s16;
  ptrdiff_t s16_plane;
  uint8_t* b1;
  uint8_t* b1_low;
};

inline Place place(const ConvCall& call, int first, int p) {
  return {call.s16 ? call.s16 + first * call.s16_plane + p : nullptr, call.s16_plane,
          call.b1 ? call.b1 + first / 4 * call.b1_plane + p : nullptr,
          call.b1_low ? call.b1_low + first / 4 * call.b1_plane + p : nullptr};
}

// Channels first .. first + 3 as far as they exist, positions p .. p + 63.  Of a u4 output only `codes` positions are
// written (its map has less room than the planar ones), and zeros for the channels that do not exist.
template <int F>
inline void store_planar(const Conv& conv, const ConvCall& call, const Place& to, const Scale& scale, const int16_t* tile,
                         int first, int p, int codes) {
  const int count = std::min(4, conv.out_channels - first);
  const V zero = _mm256_setzero_si256(), offset = _mm256_set1_epi16(scale.offset);
  const __m128i up = _mm_cvtsi32_si128(scale.up), fraction = _mm_cvtsi32_si128(conv.fraction);
  const bool stream = to.s16, bits = to.b1, lower = to.b1_low, u4 = call.u4;
  const V step = _mm256_set1_epi16(static_cast<int16_t>(conv.step));
  V bit[2] = {zero, zero}, low[2] = {zero, zero}, code[2][4] = {{zero, zero, zero, zero}, {zero, zero, zero, zero}};
  for (int j = 0; j < count; j++, tile += kTile) {
    const int c = first + j;
    const V multiplier = _mm256_set1_epi16(conv.multiplier[c]), bias = _mm256_set1_epi16(conv.bias[c]);
    const V slope = F & kSlope ? _mm256_set1_epi16(conv.slope[c]) : zero;
    const V post = conv.post ? _mm256_set1_epi16(conv.post[c]) : zero;
    int16_t buffer[kTile];
    const int16_t* r = F & (kBefore | kAfter) ? residual_row(conv, call, c, p, buffer) : nullptr;
    V v[4];
    for (int i = 0; i < 4; i++) {
      V a = load(tile + 16 * i);
      if (F & kCounts) a = _mm256_sub_epi16(_mm256_sll_epi16(a, up), offset);
      v[i] = _mm256_adds_epi16(_mm256_mulhrs_epi16(a, multiplier), bias);
      if (F & kBefore) v[i] = _mm256_adds_epi16(v[i], load(r + 16 * i));
      if (F & kSlope) v[i] = rprelu(v[i], slope);
      v[i] = _mm256_adds_epi16(v[i], post);
      if (F & kAfter) v[i] = _mm256_adds_epi16(v[i], load(r + 16 * i));
    }
    if (stream) {
      for (int i = 0; i < 4; i++) store(to.s16 + j * to.s16_plane + 16 * i, v[i]);
    }
    if (bits) {
      const V threshold = _mm256_set1_epi16(conv.threshold[c]), one = _mm256_set1_epi8(static_cast<char>(1 << j));
      for (int i = 0; i < 2; i++) {
        const V below = _mm256_packs_epi16(_mm256_cmpgt_epi16(threshold, v[2 * i]), _mm256_cmpgt_epi16(threshold, v[2 * i + 1]));
        bit[i] = _mm256_or_si256(bit[i], _mm256_andnot_si256(below, one));
        if (lower) {  // 0 below the step under the threshold, and from the threshold on below the step above it
          const V under = _mm256_subs_epi16(threshold, step), over = _mm256_adds_epi16(threshold, step);
          const V a = _mm256_packs_epi16(_mm256_cmpgt_epi16(under, v[2 * i]), _mm256_cmpgt_epi16(under, v[2 * i + 1]));
          const V b = _mm256_packs_epi16(_mm256_cmpgt_epi16(over, v[2 * i]), _mm256_cmpgt_epi16(over, v[2 * i + 1]));
          const V none = _mm256_or_si256(a, _mm256_andnot_si256(below, b));
          low[i] = _mm256_or_si256(low[i], _mm256_andnot_si256(none, one));
        }
      }
    }
    if (u4) {
      for (int i = 0; i < 2; i++) {
        const V x = _mm256_packus_epi16(_mm256_sra_epi16(v[2 * i], fraction), _mm256_sra_epi16(v[2 * i + 1], fraction));
        code[i][j] = _mm256_min_epu8(x, _mm256_set1_epi8(15));
      }
    }
  }
  if (bits && count > 0) {
    for (int i = 0; i < 2; i++) store(to.b1 + 32 * i, _mm256_permute4x64_epi64(bit[i], 0xD8));
    for (int i = 0; lower && i < 2; i++) store(to.b1_low + 32 * i, _mm256_permute4x64_epi64(low[i], 0xD8));
  }
  if (u4) {
    for (int i = 0; 32 * i < codes; i++) {
      uint8_t* pixels = call.u4 + static_cast<ptrdiff_t>(p + 32 * i) * call.u4_pixel + first;
      store_codes(code[i], pixels, call.u4_pixel, std::min(32, codes - 32 * i));
    }
  }
}

// A tile that reaches beyond a call's end writes into positions that may be another call's: then the outputs go aside first, and
// what belongs to this call is copied.
struct Aside {
  alignas(32) int16_t s16[4 * kTile];
  alignas(32) uint8_t b1[kTile], b1_low[kTile];

  Place place(const Place& to) { return {to.s16 ? s16 : nullptr, kTile, to.b1 ? b1 : nullptr, to.b1_low ? b1_low : nullptr}; }
  void copy(const Place& to, int count, int n) const {
    for (int j = 0; to.s16 && j < count; j++)
      std::memcpy(to.s16 + j * to.s16_plane, s16 + j * kTile, static_cast<size_t>(n) * sizeof(int16_t));
    if (to.b1 && count > 0) std::memcpy(to.b1, b1, static_cast<size_t>(n));
    if (to.b1_low && count > 0) std::memcpy(to.b1_low, b1_low, static_cast<size_t>(n));
  }
};

// store_planar of which only the first n positions are written to planar outputs.  Seldom called, and never to be inlined.
template <int F>
__attribute__((noinline)) void store_aside(const Conv& conv, const ConvCall& call, int n, const Scale& scale, const int16_t* tile,
                                           int first, int p, int codes) {
  const Place to = place(call, first, p);
  Aside aside;
  store_planar<F>(conv, call, aside.place(to), scale, tile, first, p, codes);
  aside.copy(to, std::min(4, conv.out_channels - first), n);
}

template <int F>
inline void store_within(const Conv& conv, const ConvCall& call, int n, const Scale& scale, const int16_t* tile, int first, int p,
                         int codes) {
  if (n < kTile) return store_aside<F>(conv, call, n, scale, tile, first, p, codes);
  store_planar<F>(conv, call, place(call, first, p), scale, tile, first, p, codes);
}

// How many planar positions from p on a call may write: its own, and where the map ends the room behind it.
inline int within(const Conv& conv, const ConvCall& call, int p) {
  return (call.end < conv.positions() ? call.end : round_up(call.end, kPlanarRoom)) - p;
}

// Where the channels of a call end: a u4 output has its pixels filled up with zeros to a multiple of 16.
inline int last_quad(const ConvCall& call) { return call.u4 ? round_up(call.channel_end, 16) : call.channel_end; }

// How many of a tile's positions a u4 map has.
inline int codes_of_tile(const ConvCall& call, int p) { return std::min(kTile, round_up(call.end, kInterleavedRoom) - p); }

using ConvRun = void (*)(const Conv&, const ConvCall&);

// Table of Kernel<F>::run for every combination of flags, so that a kernel is written once.
template <template <int> class Kernel, int... F>
constexpr std::array<ConvRun, sizeof...(F)> specialisations(std::integer_sequence<int, F...>) {
  return {{&Kernel < (F & kBefore) ? F & ~kAfter : F > ::run...}};
}

}  // namespace mpq::MPQ_ISA_SPACE
