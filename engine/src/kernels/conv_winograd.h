// Winograd's F(2x2, 3x3) in exact integers, as derived in conv_w4u4_winograd_avx2.cpp, but for the products: those are the
// instruction set's.
#pragma once

#include "avx2_codes.h"

namespace mpq::MPQ_ISA_SPACE::winograd {

constexpr int kPlaces = 16;    // of a transformed tile
constexpr uint8_t kLift = 30;  // makes differences positive

inline int steps(const Conv& conv) { return (conv.in_channels + 3) / 4; }
inline int row_bytes(const Conv& conv) { return round_up(conv.in_channels, 32); }
inline int blocks(const Conv& conv) { return (conv.out_channels + kChannels - 1) / kChannels; }

// Tiles at a time: a place's inputs and sums stay in L1, all places in L2.
inline int batch(const Conv& conv) { return conv.in_channels > 128 ? 24 : 48; }

inline bool lifted(int place) { return place != 5; }  // all but (d1 + d2) of (d1 + d2)

// Prepared: for each 16 outputs the 16 stretches and the constants [2x2][16], then weights [16 outputs][place][step] of 64 bytes.
struct Head {
  int32_t stretch[kPlaces];
  int32_t lift[4][kChannels];
};
static_assert(sizeof(Head) % kAlign == 0);

inline size_t weight_bytes(const Conv& conv) { return static_cast<size_t>(kPlaces) * steps(conv) * kStepBytes; }

// Inputs of one tile: four rows and columns, of which the last may lie outside and then repeats the one before.
struct Corner {
  const uint8_t* row[4];
  int column[4];
};

// Transforms 32 channels at a time into to[place * next].
inline void transform(const Corner& d, int bytes, uint8_t* to, size_t next) {
  const V lift = _mm256_set1_epi8(kLift);
  for (int c = 0; c < bytes; c += 32, to += 32) {
    V x[4][4];
    for (int j = 0; j < 4; j++) {
      const V d0 = load(d.row[0] + d.column[j] + c), d1 = load(d.row[1] + d.column[j] + c);
      const V d2 = load(d.row[2] + d.column[j] + c), d3 = load(d.row[3] + d.column[j] + c);
      x[0][j] = _mm256_sub_epi8(d0, d2), x[1][j] = _mm256_add_epi8(d1, d2);
      x[2][j] = _mm256_sub_epi8(d2, d1), x[3][j] = _mm256_sub_epi8(d1, d3);
    }
    for (int i = 0; i < 4; i++) {
      const V sum = _mm256_add_epi8(x[i][1], x[i][2]);
      store(to + (4 * i) * next, _mm256_add_epi8(_mm256_sub_epi8(x[i][0], x[i][2]), lift));
      store(to + (4 * i + 1) * next, i == 1 ? sum : _mm256_add_epi8(sum, lift));
      store(to + (4 * i + 2) * next, _mm256_add_epi8(_mm256_sub_epi8(x[i][2], x[i][1]), lift));
      store(to + (4 * i + 3) * next, _mm256_add_epi8(_mm256_sub_epi8(x[i][1], x[i][3]), lift));
    }
  }
}

// 2 y0 and 2 y1 of four sums.
inline void gather(V m0, V m1, V m2, V m3, V* y0, V* y1) {
  *y0 = _mm256_add_epi32(_mm256_add_epi32(m0, m0), _mm256_add_epi32(m1, m2));
  *y1 = _mm256_sub_epi32(_mm256_sub_epi32(m1, m2), _mm256_add_epi32(m3, m3));
}

// Sums of a tile, m[place * next], to a = sat16(rshift(acc, shift)) of its 2x2 outputs, [4][16] in order of channels.
inline void outputs(const int32_t* m, size_t next, const V lift[4][2], __m128i right, int left, int16_t* to) {
  V y[2][4];
  for (int h = 0; h < 2; h++, m += 8) {
    V t[2][4];
    for (int j = 0; j < 4; j++)
      gather(load(m + j * next), load(m + (4 + j) * next), load(m + (8 + j) * next), load(m + (12 + j) * next), &t[0][j],
             &t[1][j]);
    for (int i = 0; i < 2; i++) {
      gather(t[i][0], t[i][1], t[i][2], t[i][3], &y[h][2 * i], &y[h][2 * i + 1]);
      for (int k = 2 * i; k < 2 * i + 2; k++) y[h][k] = _mm256_sra_epi32(_mm256_add_epi32(y[h][k], lift[k][h]), right);
    }
  }
  for (int k = 0; k < 4; k++) {
    V v = _mm256_packs_epi32(y[0][k], y[1][k]);
    for (int i = 0; i < left; i++) v = _mm256_adds_epi16(v, v);
    store(to + k * kChannels, v);
  }
}

// Multiply::run(x, row, w, steps, stretch, sums) leaves the sums of kBlock tiles (a divisor of 24) and 16 channels at one place
// in sums[tile][16].
template <class Multiply>
void run_by_tiles(const Conv& conv, const ConvCall& call) {
  static_assert(24 % Multiply::kBlock == 0);
  const int row = row_bytes(conv), most = batch(conv), across = (conv.width + 1) / 2, n = steps(conv);
  const int first = call.begin / conv.out_pitch / 2 * across, rows = (call.end + conv.out_pitch - 1) / conv.out_pitch;
  const int last = (rows + 1) / 2 * across, bottom = conv.height + 1 - conv.pad, end = conv.width + 1 - conv.pad;
  const size_t next_input = static_cast<size_t>(most) * row, next_sum = static_cast<size_t>(most) * kChannels;
  uint8_t* const inputs = call.scratch;
  int32_t* const sums = reinterpret_cast<int32_t*>(call.scratch + kPlaces * next_input);
  // 4 y is rounded at bit shift + 1, so that the shift by shift + 2 takes the 4 off as well.
  const int32_t half = conv.shift > 0 ? 2 << conv.shift : 0;
  const __m128i right = _mm_cvtsi32_si128(2 + std::max(conv.shift, 0));
  for (int begin = first; begin < last; begin += most) {
    const int tiles = std::min(most, last - begin);
    for (int t = 0; t < tiles; t++) {
      const int y = (begin + t) / across * 2 - conv.pad, x = (begin + t) % across * 2 - conv.pad;
      Corner d;
      for (int i = 0; i < 4; i++) {
        d.row[i] = call.in + static_cast<ptrdiff_t>(std::min(y + i, bottom)) * conv.in_pitch * conv.in_pixel;
        d.column[i] = std::min(x + i, end) * conv.in_pixel;
      }
      transform(d, row, inputs + static_cast<size_t>(t) * row, next_input);
    }
    for (int o = call.channel_begin; o < call.channel_end; o += kChannels) {
      const uint8_t* prepared = call.weights + static_cast<size_t>(o / kChannels) * (sizeof(Head) + weight_bytes(conv));
      const Head& head = *reinterpret_cast<const Head*>(prepared);
      for (int place = 0; place < kPlaces; place++) {
        const uint8_t* w = prepared + sizeof(Head) + static_cast<size_t>(place) * n * kStepBytes;
        for (int t = 0; t < tiles; t += Multiply::kBlock) {
          Multiply::run(inputs + place * next_input + static_cast<size_t>(t) * row, row, w, n, head.stretch[place],
                        sums + place * next_sum + static_cast<size_t>(t) * kChannels);
        }
      }
      V lift[4][2];
      for (int k = 0; k < 4; k++)
        for (int h = 0; h < 2; h++) lift[k][h] = _mm256_sub_epi32(_mm256_set1_epi32(half), load(head.lift[k] + 8 * h));
      const PixelEpilogue epilogue(conv, o);
      for (int t = 0; t < tiles; t++) {
        const int y = (begin + t) / across * 2, x = (begin + t) % across * 2;
        alignas(32) int16_t tile[4 * kChannels];
        outputs(sums + static_cast<size_t>(t) * kChannels, next_sum, lift, right, std::max(-conv.shift, 0), tile);
        uint8_t* to = call.u4 + (static_cast<ptrdiff_t>(y) * conv.out_pitch + x) * call.u4_pixel + o;
        for (int i = 0; i < std::min(2, conv.height - y); i++, to += static_cast<ptrdiff_t>(conv.out_pitch) * call.u4_pixel) {
          epilogue.run(tile + 2 * i * kChannels, to, call.u4_pixel, std::min(2, conv.width - x));
        }
      }
    }
  }
}

// Of other outputs and residuals the planar epilogue takes 64 positions of a row, which no tile has.
inline bool supports(const Conv& conv) {
  return conv.input == DType::u4 && conv.weight != WType::w8 && conv.kernel == 3 && conv.stride == 1 && conv.in_channels >= 32 &&
         conv.out_u4 && !conv.out_s16 && !conv.out_b1 && conv.residual_channels == 0 && conv.shift <= 15;
}

inline size_t prepared_bytes(const Conv& conv) { return blocks(conv) * (sizeof(Head) + weight_bytes(conv)); }

// The 16 transformed taps of one 3x3.
inline void transform_taps(const int g[3][3], int u[kPlaces]) {
  int t[4][3];
  for (int x = 0; x < 3; x++)
    t[0][x] = g[0][x], t[1][x] = g[0][x] + g[1][x] + g[2][x], t[2][x] = g[0][x] - g[1][x] + g[2][x], t[3][x] = g[2][x];
  for (int y = 0; y < 4; y++, u += 4)
    u[0] = t[y][0], u[1] = t[y][0] + t[y][1] + t[y][2], u[2] = t[y][0] - t[y][1] + t[y][2], u[3] = t[y][2];
}

// What the lift alone gives in 4 y of the four outputs: sum[place] is the sum of a channel's transformed weights.
inline void lift_of(const int32_t sum[kPlaces], int32_t lift[4]) {
  int32_t t[2][4];
  for (int j = 0; j < 4; j++) {
    const auto m = [&](int i) { return lifted(4 * i + j) ? kLift * sum[4 * i + j] : 0; };
    t[0][j] = 2 * m(0) + m(1) + m(2), t[1][j] = m(1) - m(2) - 2 * m(3);
  }
  for (int i = 0; i < 2; i++) lift[2 * i] = 2 * t[i][0] + t[i][1] + t[i][2], lift[2 * i + 1] = t[i][1] - t[i][2] - 2 * t[i][3];
}

inline void prepare(const Conv& conv, const uint8_t* weights, uint8_t* prepared) {
  std::memset(prepared, 0, prepared_bytes(conv));
  const int n = steps(conv);
  for (int block = 0; block < blocks(conv); block++, prepared += sizeof(Head) + weight_bytes(conv)) {
    Head& head = *reinterpret_cast<Head*>(prepared);
    int8_t* const to = reinterpret_cast<int8_t*>(prepared + sizeof(Head));
    for (int lane = 0; lane < kChannels; lane++) {
      const int o = block * kChannels + kOrder[lane];
      if (o >= conv.out_channels) continue;
      int32_t sum[kPlaces] = {}, lift[4];
      for (int c = 0; c < conv.in_channels; c++) {
        int g[3][3], u[kPlaces];
        for (int t = 0; t < 9; t++)
          g[t / 3][t % 3] = weight_at(conv.weight, weights, (static_cast<size_t>(o) * 9 + t) * conv.in_channels + c);
        transform_taps(g, u);
        for (int place = 0; place < kPlaces; place++) {
          sum[place] += u[place];
          to[(static_cast<size_t>(place) * n + c / 4) * kStepBytes + lane * 4 + c % 4] = static_cast<int8_t>(u[place]);
        }
      }
      lift_of(sum, lift);
      for (int k = 0; k < 4; k++) head.lift[k][lane] = lift[k];
    }
    for (int place = 0; place < kPlaces; place++) {
      head.stretch[place] = safe_stretch(to + static_cast<size_t>(place) * n * kStepBytes, 1, n, 2 * kLift);
    }
  }
}

inline size_t scratch_bytes(const Conv& conv) {
  return static_cast<size_t>(kPlaces) * batch(conv) * (row_bytes(conv) + kChannels * sizeof(int32_t));
}
inline int granule(const Conv& conv) { return 2 * conv.out_pitch; }

}  // namespace mpq::MPQ_ISA_SPACE::winograd
