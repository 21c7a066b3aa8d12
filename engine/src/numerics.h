// The scalar rules of docs/numerics.md, section 3 and 5. Every kernel gives exactly what these give.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace mpq {

inline int32_t sat16(int64_t x) { return static_cast<int32_t>(std::min<int64_t>(std::max<int64_t>(x, -32768), 32767)); }

inline int32_t mulhrs(int32_t a, int32_t m) { return sat16((a * m + (1 << 14)) >> 15); }

// In 64 bits: a sum near 2^31 leaves 32 bits when the rounding half is added, or when s is negative.
inline int64_t rshift(int64_t x, int s) {
  if (s > 0) return (x + (int64_t{1} << (s - 1))) >> s;
  return x * (int64_t{1} << -s);
}

// 2^(t / 1024) in float32; built with -ffp-contract=off, so nothing is fused.
inline float exp2_q10(int32_t t) {
  const float x = static_cast<float>(t & 1023) * 0x1p-10f;
  float p = 1.8775767e-3f;
  p = p * x + 8.9893397e-3f;
  p = p * x + 5.5826318e-2f;
  p = p * x + 2.4015361e-1f;
  p = p * x + 6.9315308e-1f;
  p = p * x + 1.0f;
  return std::ldexp(p, t >> 10);
}

inline float score(int32_t logit) { return 1.0f / (1.0f + exp2_q10(-logit)); }

}  // namespace mpq
