// The operators without weights on AVX2.  All of them are bound by memory or by stores, not by arithmetic:
//   avgpool2    16 outputs: 4 loads, 4 vpmaddwd with ones (the exact sums of two columns, in 32 bits), 8 more operations
//   threshold   32 bytes of 4 channels: 8 loads, 8 comparisons, 4 packs, 8 logical operations, 1 store
//   requantise  16 positions of 16 channels: 64 operations of arithmetic, 16 packs and minima, and a transposition of
//               bytes by 32 unpacks, for 16 stores of 16 bytes: about 45 cycles for 256 values
//   split2      64 bytes in, 2 stores out of 8 operations
// A rest that fills no register is computed whole, since what lies behind a map may be read, and copied as far as it goes.
#include "avx2_epilogue.h"

namespace mpq {
namespace avx2 {
namespace {

inline V in_order(V packed) { return _mm256_permute4x64_epi64(packed, 0xD8); }

// Blocks of `step` values: block(i, to) writes those from i on.
template <int Step, class T, class Block>
inline void by_blocks(T* out, int n, const Block& block) {
  int i = 0;
  for (; i + Step <= n; i += Step) block(i, out + i);
  if (i == n) return;
  T rest[Step];
  block(i, rest);
  std::memcpy(out + i, rest, static_cast<size_t>(n - i) * sizeof(T));
}

void avgpool2(const int16_t* top, const int16_t* bottom, int16_t* out, int n) {
  const V one = _mm256_set1_epi16(1), two = _mm256_set1_epi32(2);
  by_blocks<16>(out, n, [&](int i, int16_t* to) {
    V mean[2];
    for (int h = 0; h < 2; h++) {
      const V a = _mm256_madd_epi16(load(top + 2 * i + 16 * h), one), b = _mm256_madd_epi16(load(bottom + 2 * i + 16 * h), one);
      mean[h] = _mm256_srai_epi32(_mm256_add_epi32(_mm256_add_epi32(a, b), two), 2);
    }
    store(to, in_order(_mm256_packs_epi32(mean[0], mean[1])));
  });
}

template <int Channels>
void threshold_of(const int16_t* x, ptrdiff_t plane, const int16_t* threshold, uint8_t* out, int n) {
  V least[Channels];
  for (int c = 0; c < Channels; c++) least[c] = _mm256_set1_epi16(threshold[c]);
  by_blocks<32>(out, n, [&](int i, uint8_t* to) {
    V bits = _mm256_setzero_si256();
    for (int c = 0; c < Channels; c++) {
      const int16_t* from = x + c * plane + i;
      const V below = _mm256_packs_epi16(_mm256_cmpgt_epi16(least[c], load(from)), _mm256_cmpgt_epi16(least[c], load(from + 16)));
      bits = _mm256_or_si256(bits, _mm256_andnot_si256(below, _mm256_set1_epi8(1 << c)));
    }
    store(to, in_order(bits));
  });
}

void threshold(const int16_t* x, ptrdiff_t plane, const int16_t* threshold, int channels, uint8_t* out, int n) {
  constexpr decltype(&threshold_of<1>) kOf[] = {threshold_of<1>, threshold_of<2>, threshold_of<3>, threshold_of<4>};
  kOf[channels - 1](x, plane, threshold, out, n);
}

void requantise(const int16_t* x, ptrdiff_t plane, const int16_t* multiplier, const int16_t* bias, int fraction, int channels,
                uint8_t* out, int pixel, int n) {
  const V most = _mm256_set1_epi8(15);
  const __m128i right = _mm_cvtsi32_si128(fraction);
  const auto value = [&](int c, int i) {
    if (c >= channels) return _mm256_setzero_si256();
    const V a = _mm256_mulhrs_epi16(load(x + c * plane + i), _mm256_set1_epi16(multiplier[c]));
    return _mm256_sra_epi16(_mm256_adds_epi16(a, _mm256_set1_epi16(bias[c])), right);
  };
  for (int i = 0; i < n; i += 16) {
    // A lane has 8 positions: of channel c in its lower half, of channel c + 8 in its upper one.
    V a[8], b[8];
    for (int c = 0; c < 8; c++) a[c] = _mm256_min_epu8(_mm256_packus_epi16(value(c, i), value(c + 8, i)), most);
    for (int c = 0; c < 4; c++) {  // b[0..3]: pairs of channels 0..7, b[4..7]: of channels 8..15, 8 positions each
      b[c] = _mm256_unpacklo_epi8(a[2 * c], a[2 * c + 1]), b[4 + c] = _mm256_unpackhi_epi8(a[2 * c], a[2 * c + 1]);
    }
    for (int h = 0; h < 8; h += 4) {  // a: of 8 channels (h), positions 0..3 in the first two, 4..7 in the others, by fours
      a[h] = _mm256_unpacklo_epi16(b[h], b[h + 1]), a[h + 1] = _mm256_unpacklo_epi16(b[h + 2], b[h + 3]);
      a[h + 2] = _mm256_unpackhi_epi16(b[h], b[h + 1]), a[h + 3] = _mm256_unpackhi_epi16(b[h + 2], b[h + 3]);
    }
    for (int h = 0; h < 8; h += 4) {  // b: two positions of 8 channels
      b[h] = _mm256_unpacklo_epi32(a[h], a[h + 1]), b[h + 1] = _mm256_unpackhi_epi32(a[h], a[h + 1]);
      b[h + 2] = _mm256_unpacklo_epi32(a[h + 2], a[h + 3]), b[h + 3] = _mm256_unpackhi_epi32(a[h + 2], a[h + 3]);
    }
    for (int p = 0; p < 4; p++) {
      a[2 * p] = _mm256_unpacklo_epi64(b[p], b[4 + p]), a[2 * p + 1] = _mm256_unpackhi_epi64(b[p], b[4 + p]);
    }
    uint8_t* to = out + static_cast<ptrdiff_t>(i) * pixel;
    for (int p = 0; p < 8; p++) {
      if (i + p < n) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + ptrdiff_t{p} * pixel), _mm256_castsi256_si128(a[p]));
      if (i + p + 8 < n)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + ptrdiff_t{p + 8} * pixel), _mm256_extracti128_si256(a[p], 1));
    }
  }
}

void split2(const uint8_t* in, uint8_t* a, uint8_t* b, int n) {
  const V low = _mm256_set1_epi16(255);
  by_blocks<32>(a, n, [&](int i, uint8_t* to) {
    const V x = load(in + 2 * i), y = load(in + 2 * i + 32);
    store(to, in_order(_mm256_packus_epi16(_mm256_and_si256(x, low), _mm256_and_si256(y, low))));
  });
  by_blocks<32>(b, n, [&](int i, uint8_t* to) {
    const V x = load(in + 2 * i), y = load(in + 2 * i + 32);
    store(to, in_order(_mm256_packus_epi16(_mm256_srli_epi16(x, 8), _mm256_srli_epi16(y, 8))));
  });
}

void max_u8(const uint8_t* in, uint8_t* out, int n) {
  by_blocks<32>(out, n, [&](int i, uint8_t* to) { store(to, _mm256_max_epu8(load(in + i), load(out + i))); });
}

}  // namespace
}  // namespace avx2

extern const RowKernels rows_avx2;
const RowKernels rows_avx2 = {"rows_avx2",      Isa::avx2,    avx2::avgpool2, avx2::threshold,
                              avx2::requantise, avx2::split2, avx2::max_u8};

}  // namespace mpq
