// The operators without weights on AVX2.  All of them are bound by memory or by stores, not by arithmetic:
//   avgpool2    16 outputs: 4 loads, 4 vpmaddwd with ones (the exact sums of two columns, in 32 bits), 8 more operations
//   threshold   32 bytes of 4 channels: 8 loads, 8 comparisons, 4 packs, 8 logical operations, 1 store
//   requantise  16 positions of 16 channels: 64 operations of arithmetic, 16 packs and minima, and a transposition of
//               bytes by 32 unpacks, for 16 stores of 16 bytes: about 45 cycles for 256 values
//   recode4     8 pixels of 4 bytes: 14 operations
//   split2      64 bytes in, 2 stores out of 8 operations
//   resize3     a pixel and 2 taps: 2 loads, a shuffle, vpmaddwd, an addition
//   blend       32 bytes and 2 taps: 2 loads, 6 unpacks, 4 vpmaddwd, 4 additions
// A rest that fills no register is computed whole, since what lies behind a map may be read, and copied as far as it goes.
#include "avx2_epilogue.h"

namespace mpq {

extern const RowKernels rows_serial;

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

void recode4(const uint8_t* in, const int16_t* multiplier, const int16_t* bias, int fraction, uint8_t* out, int n) {
  int64_t m, b;
  std::memcpy(&m, multiplier, sizeof m);
  std::memcpy(&b, bias, sizeof b);
  const V times = _mm256_set1_epi64x(m), plus = _mm256_set1_epi64x(b), zero = _mm256_setzero_si256();
  const __m128i right = _mm_cvtsi32_si128(fraction);
  const auto value = [&](V x) {
    x = _mm256_mulhrs_epi16(_mm256_slli_epi16(x, 7), times);
    return _mm256_sra_epi16(_mm256_adds_epi16(x, plus), right);
  };
  by_blocks<32>(out, 4 * n, [&](int i, uint8_t* to) {
    const V x = load(in + i), low = value(_mm256_unpacklo_epi8(x, zero)), high = value(_mm256_unpackhi_epi8(x, zero));
    store(to, _mm256_min_epu8(_mm256_packus_epi16(low, high), _mm256_set1_epi8(15)));
  });
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

// One output: pairs of pixels, r r g g b b as 16 bits, against pairs of weights.
inline __m128i resized(const uint8_t* p, const int16_t* q, int taps) {
  const __m128i pairs = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
  __m128i sum = _mm_set1_epi32(8192);
  for (int j = 0; j < taps; j += 2, p += 6) {
    int32_t both;
    std::memcpy(&both, q + j, sizeof both);
    const __m128i x = _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), pairs);
    sum = _mm_add_epi32(sum, _mm_madd_epi16(x, _mm_set1_epi32(both)));
  }
  return _mm_srai_epi32(sum, 14);
}

void resize3(const uint8_t* in, int width, const int32_t* first, const int16_t* q, int taps, uint8_t* out, int n) {
  const __m128i three = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  int i = 0;
  // 8 bytes are read for 6, so the last pixels of the row are left to the plain way; first[] ascends.
  for (; i + 4 <= n && 3 * (first[i + 3] + taps) + 2 <= 3 * width; i += 4, q += 4 * taps, out += 12) {
    __m128i x[4];
    for (int j = 0; j < 4; j++) x[j] = resized(in + 3 * ptrdiff_t{first[i + j]}, q + j * taps, taps);
    const __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(x[0], x[1]), _mm_packs_epi32(x[2], x[3]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(bytes, three));
  }
  rows_serial.resize3(in, width, first + i, q, taps, out, n - i);
}

void blend(const uint8_t* const* rows, const int16_t* q, int taps, uint8_t* out, int n) {
  const V zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(8192);
  by_blocks<32>(out, n, [&](int i, uint8_t* to) {
    V sum[4] = {half, half, half, half};
    for (int j = 0; j < taps; j += 2) {
      int32_t both;
      std::memcpy(&both, q + j, sizeof both);
      const V w = _mm256_set1_epi32(both), a = load(rows[j] + i), b = load(rows[j + 1] + i);
      const V low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
      sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), w));
      sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), w));
      sum[2] = _mm256_add_epi32(sum[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), w));
      sum[3] = _mm256_add_epi32(sum[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), w));
    }
    for (V& s : sum) s = _mm256_srai_epi32(s, 14);
    store(to, _mm256_packus_epi16(_mm256_packs_epi32(sum[0], sum[1]), _mm256_packs_epi32(sum[2], sum[3])));
  });
}

void widen3(const uint8_t* in, uint8_t* out, int n) {
  const V four = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
  int i = 0;
  for (; 3 * i + 28 <= 3 * n; i += 8) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 3 * i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 3 * i + 12));
    store(out + 4 * i, _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1), four));
  }
  rows_serial.widen3(in + 3 * i, out + 4 * i, n - i);
}

}  // namespace
}  // namespace avx2

extern const RowKernels rows_avx2;
const RowKernels rows_avx2 = {"rows_avx2",  Isa::avx2,    avx2::avgpool2, avx2::threshold, avx2::requantise, avx2::recode4,
                              avx2::split2, avx2::max_u8, avx2::resize3,  avx2::blend,     avx2::widen3};

}  // namespace mpq
