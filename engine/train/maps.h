// The element-wise work of a quantised training step, forward and backward, one pass over memory each. With conv.cpp a library
// beside the engine, which mpqyolo.quantize.fused calls on torch's tensors and without which training is the same, only slower.
//
// A map is a matrix of rows (batch * height * width) by channels (channels-last memory), float32 or bfloat16; all
// arithmetic is float32. Sums over rows are taken in blocks of kRows rows, each in float, and the blocks are added in
// order in double: the result does not depend on how many threads there are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "pool.h"

namespace mpqt {

constexpr int64_t kRows = 256;

template <class Block>
void for_rows(int64_t rows, const Block& block) {
  mpqt::for_blocks(rows, kRows, block);
}

struct F32 {
  using T = float;
  static float get(float v) { return v; }
  static float put(float v) { return v; }
};

struct BF16 {
  using T = uint16_t;
  static float get(uint16_t v) {
    const uint32_t bits = uint32_t{v} << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  }
  static uint16_t put(float f) {  // to nearest, ties to even; training never stores NaN here that must survive
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

// Sums of `width` numbers a block, added up in order.
class Sums {
 public:
  Sums(int64_t rows, int64_t width)
      : width_(width), blocks_((rows + kRows - 1) / kRows), parts_(static_cast<size_t>(blocks_ * width)) {}
  float* of(int64_t block) { return parts_.data() + block * width_; }
  void total(float* to) const {
    std::vector<double> sum(static_cast<size_t>(width_));
    for (int64_t b = 0; b < blocks_; b++)
      for (int64_t c = 0; c < width_; c++) sum[static_cast<size_t>(c)] += parts_[static_cast<size_t>(b * width_ + c)];
    for (int64_t c = 0; c < width_; c++) to[c] = static_cast<float>(sum[static_cast<size_t>(c)]);
  }

 private:
  int64_t width_, blocks_;
  std::vector<float> parts_;
};

// Calls lanes(first, width) for channels in groups of 16, 8 and 1, so that a group's sums and parameters stay in registers while
// the rows of a block pass. `width` is a compile-time number: the loops over it become vectors.
constexpr int64_t kLanes = 16;

template <class Lanes>
inline void by_lanes(int64_t n, const Lanes& lanes) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) lanes(c, std::integral_constant<int, kLanes>());
  for (; c + 8 <= n; c += 8) lanes(c, std::integral_constant<int, 8>());
  for (; c < n; c++) lanes(c, std::integral_constant<int, 1>());
}

// y = x / 255, of bytes.
template <class D>
void pixels(int64_t count, const uint8_t* x, typename D::T* y) {
  constexpr int64_t kBlock = 1 << 14;
  mpqt::for_blocks(count, kBlock, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = D::put(static_cast<float>(x[i]) / 255.0f);
  });
}

// y = f(gain * z + r - before) + after, f(v) = v below zero slope * v. r may be null.
template <class D, bool kResidual>
void tail_forward(int64_t rows, int64_t n, const typename D::T* z, const typename D::T* r, const float* gain, const float* before,
                  const float* slope, const float* after, typename D::T* y) {
  for_rows(rows, [=](int64_t, int64_t begin, int64_t end) {
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float k[kWidth], b[kWidth], s[kWidth], a[kWidth];
      for (int c = 0; c < kWidth; c++)
        k[c] = gain[first + c], b[c] = before[first + c], s[c] = slope[first + c], a[c] = after[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float v = D::get(z[i + c]) * k[c] + (kResidual ? D::get(r[i + c]) : 0.0f) - b[c];
          to[c] = D::put((v < 0 ? s[c] * v : v) + a[c]);
        }
        std::memcpy(y + i, to, sizeof to);
      }
    });
  });
}

// dv = g * f'(v); sums: [sum dv, sum g * v where v < 0, sum g, sum dv * (z - mean)] a channel.
template <class D, bool kResidual>
void tail_backward(int64_t rows, int64_t n, const typename D::T* g, const typename D::T* z, const typename D::T* r,
                   const float* gain, const float* before, const float* slope, const float* mean, typename D::T* dv,
                   float* sums) {
  Sums parts(rows, 4 * n);
  for_rows(rows, [&](int64_t block, int64_t begin, int64_t end) {
    float* const sum = parts.of(block);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float through[kWidth] = {}, below[kWidth] = {}, all[kWidth] = {}, with[kWidth] = {};
      float k[kWidth], b[kWidth], s[kWidth], m[kWidth];
      for (int c = 0; c < kWidth; c++)
        k[c] = gain[first + c], b[c] = before[first + c], s[c] = slope[first + c], m[c] = mean[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float zc = D::get(z[i + c]), v = zc * k[c] + (kResidual ? D::get(r[i + c]) : 0.0f) - b[c], gc = D::get(g[i + c]);
          const float low = v < 0 ? gc : 0.0f, d = gc - low + low * s[c];
          to[c] = D::put(d);
          through[c] += d;
          below[c] += low * v;
          all[c] += gc;
          with[c] += d * (zc - m[c]);
        }
        std::memcpy(dv + i, to, sizeof to);
      }
      for (int c = 0; c < kWidth; c++) {
        sum[first + c] = through[c], sum[n + first + c] = below[c], sum[2 * n + first + c] = all[c],
                    sum[3 * n + first + c] = with[c];
      }
    });
  });
  parts.total(sums);
}

// sums: [sum (z - near), sum (z - near)^2] a channel; near: C numbers near the means, so that no digits are lost.
template <class D>
void moments(int64_t rows, int64_t n, const typename D::T* z, const float* near, float* sums) {
  Sums parts(rows, 2 * n);
  for_rows(rows, [&](int64_t block, int64_t begin, int64_t end) {
    float* const sum = parts.of(block);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float one[kWidth] = {}, two[kWidth] = {}, at[kWidth];
      for (int c = 0; c < kWidth; c++) at[c] = near[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n)
        for (int c = 0; c < kWidth; c++) {
          const float d = D::get(z[i + c]) - at[c];
          one[c] += d;
          two[c] += d * d;
        }
      for (int c = 0; c < kWidth; c++) sum[first + c] = one[c], sum[n + first + c] = two[c];
    });
  });
  parts.total(sums);
}

// dz = gain * dv - slope * z + offset, C numbers each: what a batch norm makes of the gradient of its output. dz may be dv.
template <class D>
void norm_backward(int64_t rows, int64_t n, const typename D::T* dv, const typename D::T* z, const float* gain,
                   const float* slope, const float* offset, typename D::T* dz) {
  for_rows(rows, [=](int64_t, int64_t begin, int64_t end) {
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float k[kWidth], s[kWidth], o[kWidth];
      for (int c = 0; c < kWidth; c++) k[c] = gain[first + c], s[c] = slope[first + c], o[c] = offset[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) to[c] = D::put(k[c] * D::get(dv[i + c]) - s[c] * D::get(z[i + c]) + o[c]);
        std::memcpy(dz + i, to, sizeof to);
      }
    });
  });
}

// A map of images within a border of `pad` pixels on every side. Lines are those of the inner map.
struct Border {
  int64_t images, h, w, n, pad;
  int64_t row() const { return (w + 2 * pad) * n; }
  int64_t line(int64_t inner) const { return (inner / h * (h + 2 * pad) + inner % h + pad) * row() + pad * n; }
};

// y = t * sign(x - shift) + (1 - t) * (x - shift), and -t in the border.
template <class D>
void sign_forward(const Border& map, const typename D::T* x, const float* shift, float t, typename D::T* y) {
  const float rest = 1 - t;
  const int64_t n = map.n, side = map.pad * n;
  mpqt::for_blocks(map.images * map.h, 1, [=](int64_t line, int64_t, int64_t) {
    const auto* from = x + line * map.w * n;
    auto* to = y + map.line(line);
    const auto none = D::put(-t);
    std::fill(to - side, to, none);
    std::fill(to + map.w * n, to + map.w * n + side, none);
    if (line % map.h == 0) std::fill(to - side - map.pad * map.row(), to - side, none);
    if (line % map.h == map.h - 1) std::fill(to - side + map.row(), to - side + (1 + map.pad) * map.row(), none);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float at[kWidth];
      for (int c = 0; c < kWidth; c++) at[c] = shift[first + c];
      for (int64_t i = first; i < map.w * n; i += n) {
        typename D::T bits[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float u = D::get(from[i + c]) - at[c];
          bits[c] = D::put((u >= 0 ? t : -t) + rest * u);
        }
        std::memcpy(to + i, bits, sizeof bits);
      }
    });
  });
}

enum Ste { kClip, kPolynomial, kIdentity };

// g has the border, dx has not.
template <class D, int kSte>
void sign_backward(const Border& map, const typename D::T* g, const typename D::T* x, const float* shift, float t,
                   typename D::T* dx, float* sums) {
  const int64_t n = map.n, lines = map.images * map.h;
  Sums parts(lines * kRows, n);
  const float rest = 1 - t;
  mpqt::for_blocks(lines, 1, [&](int64_t line, int64_t, int64_t) {
    float* const all = parts.of(line);
    const auto *gl = g + map.line(line), *xl = x + line * map.w * n;
    auto* to = dx + line * map.w * n;
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float sum[kWidth] = {}, at[kWidth];
      for (int c = 0; c < kWidth; c++) at[c] = shift[first + c];
      for (int64_t i = first; i < map.w * n; i += n) {
        typename D::T d[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float a = std::fabs(D::get(xl[i + c]) - at[c]);
          const float slope = kSte == kClip ? (a <= 1 ? 1.0f : 0.0f) : kSte == kPolynomial ? std::max(2 - 2 * a, 0.0f) : 1.0f;
          const float value = D::get(gl[i + c]) * (t * slope + rest);
          d[c] = D::put(value);
          sum[c] += value;
        }
        std::memcpy(to + i, d, sizeof d);
      }
      for (int c = 0; c < kWidth; c++) all[first + c] = sum[c];
    });
  });
  parts.total(sums);
}

inline float code_of(float v, float low, float high) { return std::min(std::max(std::floor(v + 0.5f), low), high); }

// y = t * s * clamp(floor(u / s + 1/2), low, high) + (1 - t) * f(u), u = x - shift, f = ReLU if low is 0.
template <class D>
void lsq_forward(int64_t rows, int64_t n, const typename D::T* x, const float* shift, float scale, float low, float high, float t,
                 typename D::T* y) {
  const float inverse = 1 / scale, rest = 1 - t, floor_at = low == 0 ? 0.0f : -INFINITY;
  for_rows(rows, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      const auto* from = x + row * n;
      auto* __restrict to = y + row * n;
      for (int64_t c = 0; c < n; c++) {
        const float u = D::get(from[c]) - shift[c];
        to[c] = D::put(t * scale * code_of(u * inverse, low, high) + (rest != 0 ? rest * std::max(u, floor_at) : 0.0f));
      }
    }
  });
}

// dx: g inside the range. sums: [sum dx, sum of g * (code - v inside, code outside)] a channel, v = u / s.
template <class D>
void lsq_backward(int64_t rows, int64_t n, const typename D::T* g, const typename D::T* x, const float* shift, float scale,
                  float low, float high, float t, typename D::T* dx, float* sums) {
  Sums parts(rows, 2 * n);
  const float inverse = 1 / scale, rest = 1 - t, floor_at = low == 0 ? 0.0f : -INFINITY;
  for_rows(rows, [=, &parts](int64_t block, int64_t begin, int64_t end) {
    float* const sum = parts.of(block);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float through[kWidth] = {}, off[kWidth] = {}, at[kWidth];
      for (int c = 0; c < kWidth; c++) at[c] = shift[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float u = D::get(x[i + c]) - at[c], v = u * inverse, gc = D::get(g[i + c]);
          const float inside = std::min(std::max(v, low), high) == v ? 1.0f : 0.0f, passes = u > floor_at ? rest : 0.0f;
          const float d = gc * (inside * t + passes);
          to[c] = D::put(d);
          through[c] += d;
          off[c] += gc * (code_of(v, low, high) - inside * v);
        }
        std::memcpy(dx + i, to, sizeof to);
      }
      for (int c = 0; c < kWidth; c++) sum[first + c] = through[c], sum[n + first + c] = off[c];
    });
  });
  parts.total(sums);
}

}  // namespace mpqt
