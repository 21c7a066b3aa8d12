// The two inner loops of every convolution of training, and the maps they run over.
//
// All are sums of outer products that live in registers: 6 rows (pixels, or inputs of a filter) by 16 columns (channels of the
// result) are 12 accumulators of 8 floats, fed by 6 broadcasts and 2 loads: 12 multiply-adds for 8 loads, so the multipliers set
// the pace, not the load ports.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <memory>
#include <vector>

#include "pool.h"

namespace mpqt {

constexpr int kTileRows = 6, kLanes = 16;
constexpr int64_t kSpan = 256;  // steps of one pass: 16 KB of weights, which stay in L1 while the pixels of a block go by

inline int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

enum Room { kBordered, kTiles, kSums, kFilters, kRooms };

// Memory for `size` floats that hold anything; kept, since the next convolution wants it again.
inline float* room(Room which, int64_t size) {
  struct Kept {
    std::unique_ptr<float[]> floats;
    int64_t size = 0;
  };
  static thread_local Kept rooms[kRooms];
  Kept& kept = rooms[which];
  if (kept.size < size) kept.floats.reset(new float[static_cast<size_t>(size)]), kept.size = size;
  return kept.floats.get();
}

struct Map {  // a channels-last map
  int64_t images, h, w, c;
  int64_t size() const { return images * h * w * c; }
};

// Zeros in the outermost `border` pixels of a map.
inline void clear_border(float* x, const Map& map, int64_t border) {
  const int64_t row = map.w * map.c, side = border * map.c;
  const auto clear = [](float* from, int64_t count) { std::memset(from, 0, sizeof(float) * static_cast<size_t>(count)); };
  for_jobs(map.images, [&](int64_t image) {
    float* at = x + image * map.h * row;
    clear(at, border * row);
    for (int64_t y = border; y < map.h - border; y++) clear(at + y * row, side), clear(at + (y + 1) * row - side, side);
    clear(at + (map.h - border) * row, border * row);
  });
}

struct Run {  // consecutive inputs of every pixel
  int64_t offset, length;
};

// acc[row][lane] += sum over k of x[row][k] * w[k][lane].
template <int kCount, int kVectors>
inline void multiply(const float* const* x, int64_t offset, int64_t length, const float* w, __m256 (&acc)[kCount][kVectors]) {
  const float* row[kCount];
  for (int i = 0; i < kCount; i++) row[i] = x[i] + offset;
  for (int64_t k = 0; k < length; k++, w += kLanes) {
    __m256 column[kVectors];
    for (int v = 0; v < kVectors; v++) column[v] = _mm256_loadu_ps(w + 8 * v);
    for (int i = 0; i < kCount; i++) {
      const __m256 one = _mm256_broadcast_ss(row[i] + k);
      for (int v = 0; v < kVectors; v++) acc[i][v] = _mm256_fmadd_ps(one, column[v], acc[i][v]);
    }
  }
}

// y[row][0..lanes) = (first ? 0 : y) + sum over the runs of x[row] with the weights w[step][kLanes].
template <int kCount, int kVectors>
void tile(const float* const* x, float* const* y, const Run* run, int64_t runs, const float* w, bool first, int lanes) {
  __m256 acc[kCount][kVectors];
  float part[kVectors * 8] = {};
  const bool whole = lanes == kVectors * 8;
  for (int i = 0; i < kCount; i++) {
    if (!first && !whole) std::memcpy(part, y[i], sizeof(float) * static_cast<size_t>(lanes));
    const float* from = whole ? y[i] : part;
    for (int v = 0; v < kVectors; v++) acc[i][v] = first ? _mm256_setzero_ps() : _mm256_loadu_ps(from + 8 * v);
  }
  for (int64_t r = 0; r < runs; w += run[r].length * kLanes, r++)
    multiply<kCount, kVectors>(x, run[r].offset, run[r].length, w, acc);
  for (int i = 0; i < kCount; i++) {
    float* to = whole ? y[i] : part;
    for (int v = 0; v < kVectors; v++) _mm256_storeu_ps(to + 8 * v, acc[i][v]);
    if (!whole) std::memcpy(y[i], part, sizeof(float) * static_cast<size_t>(lanes));
  }
}

template <int kVectors>
void tile(int count, const float* const* x, float* const* y, const Run* run, int64_t runs, const float* w, bool first,
          int lanes) {
  switch (count) {
    case 1: return tile<1, kVectors>(x, y, run, runs, w, first, lanes);
    case 2: return tile<2, kVectors>(x, y, run, runs, w, first, lanes);
    case 3: return tile<3, kVectors>(x, y, run, runs, w, first, lanes);
    case 4: return tile<4, kVectors>(x, y, run, runs, w, first, lanes);
    case 5: return tile<5, kVectors>(x, y, run, runs, w, first, lanes);
    default: return tile<6, kVectors>(x, y, run, runs, w, first, lanes);
  }
}

// A grid of pixels in memory: floats between images, rows and pixels.
struct Grid {
  int64_t image, row, pixel;
};

inline Grid grid(const Map& map, int64_t step = 1) { return {map.h * map.w * map.c, step * map.w * map.c, step * map.c}; }

// Adds, for pixels of `rows` lines of w each, x(pixel)[i] * g(pixel)[lane] to sum[i][lane], i below kCount.
template <int kCount, int kVectors>
void outer(const float* x, const Grid& from, const float* g, const Grid& along, int64_t h, int64_t begin, int64_t end, int64_t w,
           float* sum) {
  __m256 acc[kCount][kVectors];
  for (int i = 0; i < kCount; i++)
    for (int v = 0; v < kVectors; v++) acc[i][v] = _mm256_loadu_ps(sum + i * kLanes + 8 * v);
  for (int64_t line = begin; line < end; line++) {
    const float* xp = x + line / h * from.image + line % h * from.row;
    const float* gp = g + line / h * along.image + line % h * along.row;
    for (int64_t p = 0; p < w; p++, xp += from.pixel, gp += along.pixel) {
      __m256 column[kVectors];
      for (int v = 0; v < kVectors; v++) column[v] = _mm256_loadu_ps(gp + 8 * v);
      for (int i = 0; i < kCount; i++) {
        const __m256 one = _mm256_broadcast_ss(xp + i);
        for (int v = 0; v < kVectors; v++) acc[i][v] = _mm256_fmadd_ps(one, column[v], acc[i][v]);
      }
    }
  }
  for (int i = 0; i < kCount; i++)
    for (int v = 0; v < kVectors; v++) _mm256_storeu_ps(sum + i * kLanes + 8 * v, acc[i][v]);
}

template <int kVectors>
void outer(int64_t count, const float* x, const Grid& from, const float* g, const Grid& along, int64_t h, int64_t begin,
           int64_t end, int64_t w, float* sum) {
  switch (count) {
    case 1: return outer<1, kVectors>(x, from, g, along, h, begin, end, w, sum);
    case 2: return outer<2, kVectors>(x, from, g, along, h, begin, end, w, sum);
    case 3: return outer<3, kVectors>(x, from, g, along, h, begin, end, w, sum);
    case 4: return outer<4, kVectors>(x, from, g, along, h, begin, end, w, sum);
    case 5: return outer<5, kVectors>(x, from, g, along, h, begin, end, w, sum);
    default: return outer<6, kVectors>(x, from, g, along, h, begin, end, w, sum);
  }
}

}  // namespace mpqt
