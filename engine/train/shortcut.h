// The stream beside a convolution, forward and backward: pixels averaged where it steps by 2, channels scaled and matched. As
// maps.h.
#pragma once

#include "maps.h"

namespace mpqt {

// (images, h, w, n) -> (images, h/2, w/2, repeat * n): 2x2 average, channels repeated. Rows are output rows of pixels.
template <class D>
void pool_forward(int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const typename D::T* x, typename D::T* y) {
  const int64_t lines = images * (h / 2), row = w * n;
  mpqt::for_blocks(lines, 1, [=](int64_t line, int64_t, int64_t) {
    const auto* top = x + line * 2 * row;
    auto* out = y + line * (w / 2) * n * repeat;
    for (int64_t i = 0; i < w / 2; i++, top += 2 * n, out += repeat * n)
      by_lanes(n, [=](int64_t c, auto width) {
        constexpr int kWidth = decltype(width)::value;
        typename D::T mean[kWidth];
        for (int j = 0; j < kWidth; j++) {
          const auto* at = top + c + j;
          mean[j] = D::put(0.25f * (D::get(at[0]) + D::get(at[n]) + D::get(at[row]) + D::get(at[row + n])));
        }
        for (int64_t k = 0; k < repeat; k++) std::memcpy(out + k * n + c, mean, sizeof mean);
      });
  });
}

template <class D>
void pool_backward(int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const typename D::T* g, typename D::T* dx) {
  const int64_t lines = images * (h / 2), row = w * n;
  mpqt::for_blocks(lines, 1, [=](int64_t line, int64_t, int64_t) {
    const auto* in = g + line * (w / 2) * n * repeat;
    auto* top = dx + line * 2 * row;
    for (int64_t i = 0; i < w / 2; i++, top += 2 * n, in += n * repeat)
      by_lanes(n, [=](int64_t c, auto width) {
        constexpr int kWidth = decltype(width)::value;
        float sum[kWidth] = {};
        typename D::T to[kWidth];
        for (int64_t k = 0; k < repeat; k++)
          for (int j = 0; j < kWidth; j++) sum[j] += D::get(in[k * n + c + j]);
        for (int j = 0; j < kWidth; j++) to[j] = D::put(0.25f * sum[j]);
        for (auto* at : {top + c, top + c + n, top + c + row, top + c + row + n}) std::memcpy(at, to, sizeof to);
      });
  });
}

// x: rows of n channels, y: of m, one number a multiple of the other. y = gain * x, repeated where m > n, summed in n / m groups
// where m < n.
template <class D>
void match_forward(int64_t rows, int64_t n, int64_t m, const typename D::T* x, const float* gain, typename D::T* y) {
  const int64_t least = std::min(n, m);
  for_rows(rows, [=](int64_t, int64_t begin, int64_t end) {
    by_lanes(least, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      for (int64_t row = begin; row < end; row++) {
        float sum[kWidth] = {};
        for (int64_t at = first; at < n; at += least)
          for (int c = 0; c < kWidth; c++) sum[c] += D::get(x[row * n + at + c]) * gain[at + c];
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) to[c] = D::put(sum[c]);
        for (int64_t at = first; at < m; at += least) std::memcpy(y + row * m + at, to, sizeof to);
      }
    });
  });
}

// dx: what g (rows of m) says of x; sums: the gradient of each of the n gains. kRepeat: whether m > n.
template <class D, bool kRepeat>
void match_backward(int64_t rows, int64_t n, int64_t m, const typename D::T* g, const typename D::T* x, const float* gain,
                    typename D::T* dx, float* sums) {
  const int64_t least = std::min(n, m);
  Sums parts(rows, n);
  for_rows(rows, [=, &parts](int64_t block, int64_t begin, int64_t end) {
    float* const sum = parts.of(block);
    for (int64_t group = 0; group < n; group += least)
      by_lanes(least, [=](int64_t first, auto width) {
        constexpr int kWidth = decltype(width)::value;
        const int64_t own = group + first;
        float with[kWidth] = {}, k[kWidth];
        for (int c = 0; c < kWidth; c++) k[c] = gain[own + c];
        for (int64_t row = begin; row < end; row++) {
          float d[kWidth];
          typename D::T to[kWidth];
          for (int c = 0; c < kWidth; c++) d[c] = D::get(g[row * m + first + c]);
          if constexpr (kRepeat)
            for (int64_t at = first + least; at < m; at += least)
              for (int c = 0; c < kWidth; c++) d[c] += D::get(g[row * m + at + c]);
          for (int c = 0; c < kWidth; c++) {
            to[c] = D::put(k[c] * d[c]);
            with[c] += d[c] * D::get(x[row * n + own + c]);
          }
          std::memcpy(dx + row * n + own, to, sizeof to);
        }
        for (int c = 0; c < kWidth; c++) sum[own + c] = with[c];
      });
  });
  parts.total(sums);
}

}  // namespace mpqt
