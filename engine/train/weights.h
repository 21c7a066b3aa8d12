// Quantised weights, forward and backward: float32 rows of n, one an output channel. D is the type in which convolutions want
// what comes out, and give its gradient. As maps.h.
#pragma once

#include "maps.h"

namespace mpqt {

// Calls work(i, lane) for every number of a row; lane says which of kLanes sums it belongs to.
template <class Work>
inline void along(int64_t n, const Work& work) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; lane++) work(i + lane, lane);
  for (; i < n; i++) work(i, 0);
}

inline float sum_of(const float (&lanes)[kLanes]) {
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

// y = t * s * sign(w) + (1 - t) * w, s the mean |w| of the row, sign(0) = 1.
template <class D>
void binarise_forward(int64_t rows, int64_t n, const float* w, float t, typename D::T* y) {
  for_jobs(rows, [=](int64_t row) {
    const float* const from = w + row * n;
    auto* const to = y + row * n;
    float lanes[kLanes] = {};
    along(n, [&](int64_t i, int lane) { lanes[lane] += std::fabs(from[i]); });
    const float high = t * (sum_of(lanes) / static_cast<float>(n)), rest = 1 - t;
    for (int64_t i = 0; i < n; i++) to[i] = D::put((from[i] >= 0 ? high : -high) + (rest != 0 ? rest * from[i] : 0.0f));
  });
}

// dw = g where |w| <= 1.
template <class D>
void binarise_backward(int64_t rows, int64_t n, const typename D::T* g, const float* w, float* dw) {
  for_jobs(rows, [=](int64_t row) {
    for (int64_t i = row * n; i < (row + 1) * n; i++) dw[i] = std::fabs(w[i]) <= 1 ? D::get(g[i]) : 0.0f;
  });
}

// y = t * s * clamp(floor(w / s + 1/2), low, high) + (1 - t) * w, a scale for each row; divided as where codes are packed.
template <class D>
void lsq_rows_forward(int64_t rows, int64_t n, const float* w, const float* scale, float low, float high, float t,
                      typename D::T* y) {
  const float rest = 1 - t;
  for_jobs(rows, [=](int64_t row) {
    const float s = scale[row];
    for (int64_t i = row * n; i < (row + 1) * n; i++) y[i] = D::put(t * (code_of(w[i] / s, low, high) * s) + rest * w[i]);
  });
}

// dw: g inside the range. sums: of g * (code - v inside, code outside) a row, v = w / s.
template <class D>
void lsq_rows_backward(int64_t rows, int64_t n, const typename D::T* g, const float* w, const float* scale, float low, float high,
                       float t, float* dw, float* sums) {
  const float rest = 1 - t;
  for_jobs(rows, [=](int64_t row) {
    const float s = scale[row];
    const auto* const in = g + row * n;
    const float* const from = w + row * n;
    float* const to = dw + row * n;
    float lanes[kLanes] = {};
    along(n, [&](int64_t i, int lane) {
      const float v = from[i] / s, inside = std::min(std::max(v, low), high) == v ? 1.0f : 0.0f, gi = D::get(in[i]);
      lanes[lane] += gi * (code_of(v, low, high) - inside * v);
      to[i] = gi * (inside * t + rest);
    });
    sums[row] = sum_of(lanes);
  });
}

}  // namespace mpqt
