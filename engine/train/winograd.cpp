// With the matrices of Lavin & Gray: y = A' [(G w G') * (B' d B)] A for a tile d of 6x6 pixels, summed over channels in the
// middle, so that each of the 36 places is a product of matrices of its own. From that follow the gradients: of d by the same
// sum with turned filters, of w as G' [sum over tiles of (A g A') * (B' d B)] G.
#include "winograd.h"

namespace mpqt::winograd {
namespace {

constexpr int kTile = 4, kSide = 6, kPlaces = kSide * kSide, kLane = 8;
constexpr int64_t kPad = 16;            // floats between places, so that they do not share the same few lines of L1
constexpr int64_t kGradient = 1 << 22;  // bytes of tiles at a time for the gradient of the filters

using V = __m256;

V times(float factor, V v) { return _mm256_mul_ps(_mm256_set1_ps(factor), v); }
V plus(V sum, float factor, V v) { return _mm256_fmadd_ps(_mm256_set1_ps(factor), v, sum); }

struct Pixels {  // B'
  static constexpr int from = kSide, to = kSide;
  static void apply(const V* d, V* out) {
    const V even = plus(d[4], -4, d[2]), odd = plus(d[3], -4, d[1]), near = d[4] - d[2], far = times(2, d[3] - d[1]);
    out[0] = plus(plus(d[4], -5, d[2]), 4, d[0]);
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = near + far;
    out[4] = near - far;
    out[5] = plus(plus(d[5], -5, d[3]), 4, d[1]);
  }
};

struct Filter {  // G
  static constexpr int from = 3, to = kSide;
  static void apply(const V* w, V* out) {
    const V even = times(-1.0f / 6, w[0] + w[2]), odd = times(1.0f / 6, w[1]), far = plus(times(1.0f / 24, w[0]), 1.0f / 6, w[2]),
            half = times(1.0f / 12, w[1]);
    out[0] = times(0.25f, w[0]);
    out[1] = even - odd;
    out[2] = even + odd;
    out[3] = far + half;
    out[4] = far - half;
    out[5] = w[2];
  }
};

struct Result {  // A'
  static constexpr int from = kSide, to = kTile;
  static void apply(const V* m, V* out) {
    const V even = m[1] + m[2], odd = m[1] - m[2], far_even = m[3] + m[4], far_odd = m[3] - m[4];
    out[0] = m[0] + even + far_even;
    out[1] = plus(odd, 2, far_odd);
    out[2] = plus(even, 4, far_even);
    out[3] = plus(odd, 8, far_odd) + m[5];
  }
};

struct ResultGradient {  // A
  static constexpr int from = kTile, to = kSide;
  static void apply(const V* g, V* out) {
    const V even = g[0] + g[2], odd = g[1] + g[3], far_even = plus(g[0], 4, g[2]), far_odd = times(2, plus(g[1], 4, g[3]));
    out[0] = g[0];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = far_even + far_odd;
    out[4] = far_even - far_odd;
    out[5] = g[3];
  }
};

struct FilterGradient {  // G'
  static constexpr int from = kSide, to = 3;
  static void apply(const V* u, V* out) {
    const V even = u[1] + u[2], odd = u[2] - u[1], far_even = u[3] + u[4], far_odd = u[3] - u[4];
    out[0] = plus(plus(times(0.25f, u[0]), -1.0f / 6, even), 1.0f / 24, far_even);
    out[1] = plus(times(1.0f / 6, odd), 1.0f / 12, far_odd);
    out[2] = plus(u[5], 1.0f / 6, far_even - even);
  }
};

// M d M' for the matrix M of `Of`: in[from * from] -> out[to * to].
template <class Of>
inline void transform(const V* in, V* out) {
  V half[Of::to][Of::from];
  for (int j = 0; j < Of::from; j++) {
    V column[Of::from], result[Of::to];
    for (int i = 0; i < Of::from; i++) column[i] = in[i * Of::from + j];
    Of::apply(column, result);
    for (int i = 0; i < Of::to; i++) half[i][j] = result[i];
  }
  for (int i = 0; i < Of::to; i++) Of::apply(half[i], out + i * Of::to);
}

void transpose(const V* in, V* out) {
  V pair[8], four[8];
  for (int i = 0; i < 4; i++) {
    pair[2 * i] = _mm256_unpacklo_ps(in[2 * i], in[2 * i + 1]);
    pair[2 * i + 1] = _mm256_unpackhi_ps(in[2 * i], in[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) {
      four[4 * i + 2 * j] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + 2 + j], 0x44);
      four[4 * i + 2 * j + 1] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + 2 + j], 0xEE);
    }
  for (int i = 0; i < 4; i++) {
    out[i] = _mm256_permute2f128_ps(four[i], four[4 + i], 0x20);
    out[4 + i] = _mm256_permute2f128_ps(four[i], four[4 + i], 0x31);
  }
}

struct Tiles {  // of 4x4 windows, row by row, image by image
  int64_t high, wide, count;
  explicit Tiles(const Windows& of) : high(blocks(of.h, kTile)), wide(blocks(of.w, kTile)), count(of.map.images * high * wide) {}
  int64_t image(int64_t tile) const { return tile / (high * wide); }
  int64_t y(int64_t tile) const { return tile / wide % high * kTile; }
  int64_t x(int64_t tile) const { return tile % wide * kTile; }
};

// Where the side * side pixels from (y, x) on lie; `outside` stands for those that do not exist.
template <int side>
void find(const float* x, const Map& map, int64_t image, int64_t top, int64_t left, const float* outside, const float** at) {
  for (int64_t i = 0; i < side; i++)
    for (int64_t j = 0; j < side; j++) {
      const int64_t row = top + i, column = left + j;
      const bool inside = row >= 0 && row < map.h && column >= 0 && column < map.w;
      at[i * side + j] = inside ? x + ((image * map.h + row) * map.w + column) * map.c : outside;
    }
}

// The transformed pixels (or gradients) of a tile: 8 channels of place p go to to(c) + p * next.
template <class Of, class To>
void spread(const float* const* at, int64_t channels, int64_t next, const To& to) {
  for (int64_t c = 0; c < channels; c += kLane) {
    V in[Of::from * Of::from], out[kPlaces];
    for (int i = 0; i < Of::from * Of::from; i++) in[i] = _mm256_loadu_ps(at[i] + c);
    transform<Of>(in, out);
    float* place = to(c);
    for (int p = 0; p < kPlaces; p++, place += next) _mm256_storeu_ps(place, out[p]);
  }
}

// Filters (o, 3, 3, c) as [36][o / 16][c][16].
void prepare(const float* weight, int64_t o, int64_t c, float* filters) {
  const int64_t next = blocks(o, kLanes) * c * kLanes;
  for_jobs(o / kLane, [&](int64_t job) {
    const int64_t first = job * kLane;
    for (int64_t channel = 0; channel < c; channel += kLane) {
      V found[kLane][kPlaces];
      for (int64_t lane = 0; lane < kLane; lane++) {
        V taps[9];
        for (int64_t tap = 0; tap < 9; tap++) taps[tap] = _mm256_loadu_ps(weight + ((first + lane) * 9 + tap) * c + channel);
        transform<Filter>(taps, found[lane]);
      }
      float* to = filters + (first / kLanes * c + channel) * kLanes + first % kLanes;
      for (int p = 0; p < kPlaces; p++, to += next) {
        V rows[kLane], columns[kLane];
        for (int lane = 0; lane < kLane; lane++) rows[lane] = found[lane][p];
        transpose(rows, columns);
        for (int i = 0; i < kLane; i++) _mm256_storeu_ps(to + i * kLanes, columns[i]);
      }
    }
  });
}

// The same filters turned around, as [36][c / 16][o][16].
void prepare_turned(const float* weight, int64_t o, int64_t c, float* filters) {
  const int64_t next = blocks(c, kLanes) * o * kLanes;
  for_jobs(o, [&](int64_t channel) {
    const float* taps[9];
    for (int tap = 0; tap < 9; tap++) taps[tap] = weight + (channel * 9 + 8 - tap) * c;
    for (int64_t lane = 0; lane < c; lane += kLane) {
      V in[9], out[kPlaces];
      for (int tap = 0; tap < 9; tap++) in[tap] = _mm256_loadu_ps(taps[tap] + lane);
      transform<Filter>(in, out);
      float* to = filters + (lane / kLanes * o + channel) * kLanes + lane % kLanes;
      for (int p = 0; p < kPlaces; p++, to += next) _mm256_storeu_ps(to, out[p]);
    }
  });
}

}  // namespace

bool pays(const Windows& windows, int64_t n) {
  const int64_t c = windows.map.c, tiles = Tiles(windows).count, plain = 9 * windows.map.images * windows.h * windows.w * c * n;
  // Transforms of tiles cost as much as 16 channels more on either side; those of filters as 32 tiles more.
  return c % kLane == 0 && n % kLane == 0 && kPlaces * (tiles + 32) * (c + 16) * (n + 16) < plain;
}

void correlate(const float* x, const Windows& windows, const float* weight, bool turned, int64_t n, float* y, const Grid& to) {
  const Tiles tiles(windows);
  const int64_t c = windows.map.c;
  float* filters = room(kFilters, kPlaces * blocks(n, kLanes) * kLanes * c);
  turned ? prepare_turned(weight, c, n, filters) : prepare(weight, n, c, filters);
  // As many tiles as let the filters' bytes, read once for a block, be no more than the tiles' own.
  const int64_t most = std::max<int64_t>(4 * kTileRows, blocks(c * n, 2 * (c + n) * kTileRows) * kTileRows);
  const int64_t size = blocks(tiles.count, blocks(tiles.count, most * pool.threads) * pool.threads);
  const std::vector<float> outside(static_cast<size_t>(c));
  for_blocks(tiles.count, size, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t count = end - begin, next = count * c + kPad, next_sum = count * n + kPad;
    float* in = room(kTiles, kPlaces * next);
    float* sum = room(kSums, kPlaces * next_sum);
    for (int64_t t = 0; t < count; t++) {
      const float* at[kPlaces];
      const int64_t tile = begin + t;
      find<kSide>(x, windows.map, tiles.image(tile), tiles.y(tile) - windows.pad, tiles.x(tile) - windows.pad, outside.data(),
                  at);
      spread<Pixels>(at, c, next, [&](int64_t channel) { return in + t * c + channel; });
    }
    const float* panel = filters;
    for (int64_t p = 0; p < kPlaces; p++)
      for (int64_t first = 0; first < n; first += kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - first));
        for (int64_t step = 0; step < c; step += kSpan) {
          const Run run{step, std::min(kSpan, c - step)};
          for (int64_t t = 0; t < count; t += kTileRows) {
            const float* row[kTileRows];
            float* result[kTileRows];
            const int rows = static_cast<int>(std::min<int64_t>(kTileRows, count - t));
            for (int i = 0; i < rows; i++) {
              row[i] = in + p * next + (t + i) * c;
              result[i] = sum + p * next_sum + (t + i) * n + first;
            }
            (lanes > kLane ? tile<2> : mpqt::tile<1>)(rows, row, result, &run, 1, panel, step == 0, lanes);
          }
          panel += run.length * kLanes;
        }
      }
    for (int64_t t = 0; t < count; t++) {
      const int64_t tile = begin + t, top = tiles.y(tile), left = tiles.x(tile);
      const int64_t high = std::min<int64_t>(kTile, windows.h - top), wide = std::min<int64_t>(kTile, windows.w - left);
      float* corner = y + tiles.image(tile) * to.image + top * to.row + left * to.pixel;
      for (int64_t channel = 0; channel < n; channel += kLane) {
        V places[kPlaces], out[kTile * kTile];
        for (int p = 0; p < kPlaces; p++) places[p] = _mm256_loadu_ps(sum + p * next_sum + t * n + channel);
        transform<Result>(places, out);
        for (int64_t i = 0; i < high; i++)
          for (int64_t j = 0; j < wide; j++) _mm256_storeu_ps(corner + i * to.row + j * to.pixel + channel, out[i * kTile + j]);
      }
    }
  });
}

void weights(const float* x, const Windows& windows, const float* g, int64_t o, float* dw) {
  const Tiles tiles(windows);
  const int64_t c = windows.map.c, panels = blocks(o, kLanes), next_sum = panels * c * kLanes;
  const int64_t size = std::min(tiles.count, std::max<int64_t>(kTileRows, kGradient / (4 * kPlaces * (c + o))));
  const int64_t next = size * c + kPad, next_g = panels * size * kLanes + kPad;
  const int64_t span = std::max<int64_t>(kTileRows, 8192 / c);  // tiles whose places share little of L1
  const Map grad{windows.map.images, windows.h, windows.w, o};
  const std::vector<float> outside(static_cast<size_t>(std::max(c, o)));
  float* sums = room(kFilters, kPlaces * next_sum);
  std::memset(sums, 0, sizeof(float) * static_cast<size_t>(kPlaces * next_sum));
  float* in = room(kTiles, kPlaces * next);
  float* along = room(kSums, kPlaces * next_g);
  for (int64_t begin = 0; begin < tiles.count; begin += size) {
    const int64_t count = std::min(size, tiles.count - begin);
    for_jobs(count, [&](int64_t t) {
      const float* at[kPlaces];
      const int64_t tile = begin + t, image = tiles.image(tile), top = tiles.y(tile), left = tiles.x(tile);
      find<kSide>(x, windows.map, image, top - windows.pad, left - windows.pad, outside.data(), at);
      spread<Pixels>(at, c, next, [&](int64_t channel) { return in + t * c + channel; });
      find<kTile>(g, grad, image, top, left, outside.data(), at);
      spread<ResultGradient>(at, o, next_g,
                             [&](int64_t lane) { return along + (lane / kLanes * size + t) * kLanes + lane % kLanes; });
    });
    for_jobs(kPlaces * panels, [&](int64_t job) {
      const int64_t p = job / panels, panel = job % panels, lanes = std::min<int64_t>(kLanes, o - panel * kLanes);
      for (int64_t t = 0; t < count; t += span)
        for (int64_t i = 0; i < c; i += kTileRows)
          (lanes > kLane ? outer<2> : outer<1>)(std::min<int64_t>(kTileRows, c - i), in + p * next + t * c + i, {0, 0, c},
                                                along + p * next_g + (panel * size + t) * kLanes, {0, 0, kLanes}, 1, 0, 1,
                                                std::min(span, count - t), sums + p * next_sum + (panel * c + i) * kLanes);
    });
  }
  for_jobs(o / kLane, [&](int64_t job) {
    const int64_t first = job * kLane;
    for (int64_t channel = 0; channel < c; channel += kLane) {
      V taps[kLane][9];  // of a channel, with lanes of the result
      for (int i = 0; i < kLane; i++) {
        V places[kPlaces];
        const float* from = sums + (first / kLanes * c + channel + i) * kLanes + first % kLanes;
        for (int p = 0; p < kPlaces; p++) places[p] = _mm256_loadu_ps(from + p * next_sum);
        transform<FilterGradient>(places, taps[i]);
      }
      for (int tap = 0; tap < 9; tap++) {
        V rows[kLane], columns[kLane];
        for (int i = 0; i < kLane; i++) rows[i] = taps[i][tap];
        transpose(rows, columns);
        for (int lane = 0; lane < kLane; lane++) _mm256_storeu_ps(dw + ((first + lane) * 9 + tap) * c + channel, columns[lane]);
      }
    }
  });
}

}  // namespace mpqt::winograd
