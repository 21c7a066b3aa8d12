// The epilogue of docs/numerics.md, section 4 ("conv"), on one channel and up to kTile positions of a row.
#pragma once

#include <cstring>

#include "../numerics.h"
#include "kernel.h"

namespace mpq {

constexpr int kTile = 32;

// R[o] of the residual at position p + i.
inline void serial_residual(const Conv& conv, const ConvCall& call, int o, int p, int n, int32_t* r) {
  const auto value = [&](int c, int i) {
    const int32_t x = call.residual[c * call.residual_plane + p + i];
    return conv.gain ? mulhrs(x, conv.gain[c]) : x;
  };
  const int channels = conv.residual_channels;
  const int first = channels <= conv.out_channels ? o % channels : o;
  for (int i = 0; i < n; i++) r[i] = value(first, i);
  for (int c = first + conv.out_channels; c < channels; c += conv.out_channels)
    for (int i = 0; i < n; i++) r[i] = sat16(r[i] + value(c, i));
}

inline void serial_epilogue(const Conv& conv, const ConvCall& call, int o, int p, int n, const int32_t* acc) {
  int32_t v[kTile], r[kTile];
  const int32_t m = conv.multiplier[o], b = conv.bias[o];
  if (conv.shift >= 0 && conv.max_sum() + (1 << 15) < INT32_MAX) {  // the exact sum and its rounding half fit 32 bits
    const int32_t half = conv.shift > 0 ? 1 << (conv.shift - 1) : 0;
    for (int i = 0; i < n; i++) v[i] = std::min(std::max((acc[i] + half) >> conv.shift, -32768), 32767);
  } else {
    for (int i = 0; i < n; i++) v[i] = sat16(rshift(acc[i], conv.shift));
  }
  for (int i = 0; i < n; i++)
    v[i] = std::min(std::max(((v[i] * m + (1 << 14)) >> 15) + b, -32768), 32767);  // m > -32768: no sat16 inside
  if (conv.residual_channels > 0) serial_residual(conv, call, o, p, n, r);
  if (conv.residual_channels > 0 && !conv.residual_last)
    for (int i = 0; i < n; i++) v[i] = sat16(v[i] + r[i]);
  if (conv.slope)
    for (int i = 0; i < n; i++) v[i] = v[i] >= 0 ? v[i] : mulhrs(v[i], conv.slope[o]);
  if (conv.post)
    for (int i = 0; i < n; i++) v[i] = sat16(v[i] + conv.post[o]);
  if (conv.residual_channels > 0 && conv.residual_last)
    for (int i = 0; i < n; i++) v[i] = sat16(v[i] + r[i]);

  if (call.s16) {
    int16_t* out = call.s16 + o * call.s16_plane + p;
    for (int i = 0; i < n; i++) out[i] = static_cast<int16_t>(v[i]);
  }
  if (call.b1) {
    const ptrdiff_t place = o / 4 * call.b1_plane + p;
    const int bit = o & 3, keep = bit == 0 ? 0 : 15, t = conv.threshold[o];
    uint8_t* out = call.b1 + place;
    for (int i = 0; i < n; i++) out[i] = static_cast<uint8_t>((out[i] & keep) | (v[i] >= t) << bit);
    if (call.b1_low) {
      const int low = sat16(t - conv.step), high = sat16(t + conv.step);
      out = call.b1_low + place;
      for (int i = 0; i < n; i++) out[i] = static_cast<uint8_t>((out[i] & keep) | (v[i] >= (v[i] >= t ? high : low)) << bit);
    }
  }
  if (call.u4) {
    uint8_t* out = call.u4 + ptrdiff_t{p} * call.u4_pixel + o;
    const int missing = o == conv.out_channels - 1 ? round_up(conv.out_channels, 16) - conv.out_channels : 0;
    for (int i = 0; i < n; i++, out += call.u4_pixel) {
      *out = static_cast<uint8_t>(std::min(std::max(v[i] >> conv.fraction, 0), 15));
      if (missing > 0) std::memset(out + 1, 0, static_cast<size_t>(missing));
    }
  }
}

}  // namespace mpq
