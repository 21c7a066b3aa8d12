// 1-bit weights on a 1-bit map, by tables of pairs.
//
// A byte of the map is 4 channels of a position, so it is an index 0..15.  For 2 output channels and 4 input channels, a
// table of 16 bytes holds both counts of matching signs, one in each nibble; vpshufb looks 32 positions up at once:
// 32 * 2 * 4 = 256 multiplications.  A table depends on 8 weight bits only, so all of them are one constant of 4 KB, and
// a weight byte becomes an address.  A nibble holds 3 counts of at most 4; then the byte goes into a sum of bytes, and its
// upper nibble into another (widen_pair parts them), and after 63 look-ups (252 <= 255) bytes are widened to 16 bits.
// With m matches among n channels and taps, the sum of products is 2m - n.  A map of two planes is counted plane by plane with
// the same tables, the upper one twice: with m = 2h + l the sum is 2m - 3n.  Missing channels are 0 on both sides: they always
// match, and n counts them twice.
//
// Bound: 2 registers of positions x 2 pairs, 3 look-ups each, are 12 vpshufb, 16 additions and 4 shifts: 3072 multiplications
// in 32 operations.  At 4 operations a cycle that is 8 cycles, 384 a cycle; vpshufb and shifts share 2 of the 4 ports, 8
// cycles too.  Measured on Zen 4: 10 cycles in this loop for 3x3, whatever the order of its operations, loads or none: one in
// five additions takes a turn on a port that vpshufb needs.  (Shifts by vpmulhuw on the other ports, four registers of positions
// by one pair, and tables laid out before were all slower or no faster.)  A whole 3x3 reaches 56 % with 64 channels, 62 % with
// 128 where only bits come out, and 51 to 57 % with stream, residual and slope.  Intel's cores have 3 such ports, all 32
// operations fit them, so the bound is 10.7 cycles, 288 a cycle; measured on Sapphire Rapids: 73 to 78 %, and 60 to 74 % with
// stream, residual and slope.
#include "avx2_epilogue.h"

namespace mpq {
namespace avx2 {
namespace {

constexpr int kWiden = 21;  // units of 3 look-ups until a byte may overflow
constexpr int kZero = 256;  // the table of zeros, for look-ups that fill up the last unit

struct Tables {
  alignas(64) uint8_t of[257][16] = {};
  constexpr Tables() {
    for (int w = 0; w < 256; w++) {
      for (int x = 0; x < 16; x++) {
        for (int j = 0; j < 8; j++)
          of[w][x] = static_cast<uint8_t>(of[w][x] + (((w >> j ^ x >> j % 4) & 1) ? 0 : j < 4 ? 1 : 16));
      }
    }
  }
};
constexpr Tables kTables;

inline V table(uint16_t offset) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(&kTables.of[0][0] + offset)));
}

int groups(const Conv& conv) { return (conv.in_channels + 3) / 4; }
int lookups(const Conv& conv) { return groups(conv) * conv.kernel * conv.kernel; }
int units(const Conv& conv) { return (lookups(conv) + 2) / 3; }

// The three look-ups of a unit lie at the same distances in every unit: a row of a 3x3, or three groups of a 1x1.
bool has_steps(const Conv& conv) { return conv.kernel == 1 || conv.kernel == 3; }

// Look-up i, in order of units.  Those that fill up the last unit repeat a place that exists and count nothing; a 1x1 moves
// its last unit back so that the distances stay.
struct Lookup {
  int group, tap;
  bool counts;
};

Lookup lookup(const Conv& conv, int i) {
  const int taps = conv.kernel * conv.kernel, all = groups(conv);
  if (taps == 1) {
    const int unit = i - i % 3, group = std::min(std::min(unit, std::max(all - 3, 0)) + i % 3, all - 1);
    return {group, 0, group >= unit && (i % 3 == 0 || all >= 3 || i < all)};
  }
  return i < lookups(conv) ? Lookup{i / taps, i % taps, true} : Lookup{0, 0, false};
}

ptrdiff_t place_of(const ConvCall& call, const Lookup& at) { return at.group * call.in_plane + call.taps[at.tap]; }

// Counts that lie in 32 bytes go to 32 words.
inline void widen(V bytes, int16_t* to, bool first) {
  V a = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
  V b = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1));
  if (!first) a = _mm256_add_epi16(a, load(to)), b = _mm256_add_epi16(b, load(to + 16));
  store(to, a), store(to + 16, b);
}

inline V times16(V bytes) { return _mm256_and_si256(_mm256_slli_epi16(bytes, 4), _mm256_set1_epi8(-16)); }  // modulo 256

// Parts the sums of pairs L + 16 H into bytes L and H, both at most 252, from two sums of bytes modulo 256:
//     sum   = L + 16 H          at every position
//     high  = H                 at odd positions; at even ones H + 16 (L of the next position), which vpsrlw let in
// So H is known where it is odd, and by it L = sum - 16 H; then H at the even positions, and L there.
inline void widen_pair(V sum, V high, int16_t* to, bool first) {
  const V odd_low = _mm256_srli_epi16(_mm256_sub_epi8(sum, times16(high)), 8);
  high = _mm256_sub_epi8(high, _mm256_and_si256(_mm256_slli_epi16(odd_low, 4), _mm256_set1_epi16(255)));
  widen(_mm256_sub_epi8(sum, times16(high)), to, first);
  widen(high, to + kTile, first);
}

// Where a tile's look-ups lie: unit u at offset[u], its three look-ups at the distances `step`.
struct Places {
  const int32_t* offset;
  const ptrdiff_t* step;
  ptrdiff_t plane;
  int units;
};

enum class Way {
  any,    // three offsets a unit
  steps,  // one offset a unit: the steps between its look-ups are always the same
  rows    // 3x3: three units, the rows of a group of channels, then the next group
};

// Matches of 4 channels at 64 positions -> tile[4][64], or added to it.
template <Way W>
inline void count(const uint8_t* in, const Places& at, const uint16_t* w, int16_t* tile, bool first) {
  const V zero = _mm256_setzero_si256();
  const ptrdiff_t step1 = at.step[1], step2 = at.step[2], row1 = at.offset[1] - at.offset[0], row2 = at.offset[2] - at.offset[0];
  if (W == Way::rows) in += at.offset[0];
  for (int begin = 0, end; begin < at.units; begin = end) {
    end = std::min(at.units, begin + kWiden);
    V sum00 = zero, sum01 = zero, sum10 = zero, sum11 = zero, high00 = zero, high01 = zero, high10 = zero, high11 = zero;
    // Three look-ups of two pairs: at each place from0, from1, from2, by the tables at v[0], v[1] and so on.
    const auto unit = [&](const uint8_t* from0, const uint8_t* from1, const uint8_t* from2,
                          const uint16_t* v) __attribute__((always_inline)) {
      V i0 = load(from0), i1 = load(from0 + 32), t = table(v[0]);
      V x00 = _mm256_shuffle_epi8(t, i0), x01 = _mm256_shuffle_epi8(t, i1);
      t = table(v[1]);
      V x10 = _mm256_shuffle_epi8(t, i0), x11 = _mm256_shuffle_epi8(t, i1);
      i0 = load(from1), i1 = load(from1 + 32), t = table(v[2]);
      x00 = _mm256_add_epi8(x00, _mm256_shuffle_epi8(t, i0)), x01 = _mm256_add_epi8(x01, _mm256_shuffle_epi8(t, i1));
      t = table(v[3]);
      x10 = _mm256_add_epi8(x10, _mm256_shuffle_epi8(t, i0)), x11 = _mm256_add_epi8(x11, _mm256_shuffle_epi8(t, i1));
      // Without this, compilers hoist the loads of all three look-ups, and sums of the loop spill: 5 to 10 % slower.
      asm("" : "+x"(x00), "+x"(x01), "+x"(x10), "+x"(x11));
      i0 = load(from2), i1 = load(from2 + 32), t = table(v[4]);
      x00 = _mm256_add_epi8(x00, _mm256_shuffle_epi8(t, i0)), x01 = _mm256_add_epi8(x01, _mm256_shuffle_epi8(t, i1));
      t = table(v[5]);
      x10 = _mm256_add_epi8(x10, _mm256_shuffle_epi8(t, i0)), x11 = _mm256_add_epi8(x11, _mm256_shuffle_epi8(t, i1));
      asm("" : "+x"(x00), "+x"(x01), "+x"(x10), "+x"(x11));
      sum00 = _mm256_add_epi8(sum00, x00), high00 = _mm256_add_epi8(high00, _mm256_srli_epi16(x00, 4));
      sum01 = _mm256_add_epi8(sum01, x01), high01 = _mm256_add_epi8(high01, _mm256_srli_epi16(x01, 4));
      sum10 = _mm256_add_epi8(sum10, x10), high10 = _mm256_add_epi8(high10, _mm256_srli_epi16(x10, 4));
      sum11 = _mm256_add_epi8(sum11, x11), high11 = _mm256_add_epi8(high11, _mm256_srli_epi16(x11, 4));
      asm("" : "+x"(sum00), "+x"(sum01), "+x"(sum10), "+x"(sum11), "+x"(high00), "+x"(high01), "+x"(high10), "+x"(high11));
    };
    if (W == Way::rows) {
      for (int u = begin; u < end; u += 3, in += at.plane, w += 18) {
        unit(in, in + step1, in + step2, w);
        unit(in + row1, in + row1 + step1, in + row1 + step2, w + 6);
        unit(in + row2, in + row2 + step1, in + row2 + step2, w + 12);
      }
    }
    for (int u = begin; W != Way::rows && u < end; u++, w += 6) {
      if (W == Way::steps) {
        const uint8_t* from = in + at.offset[u];
        unit(from, from + step1, from + step2, w);
      } else {
        const int32_t* three = at.offset + 3 * u;
        unit(in + three[0], in + three[1], in + three[2], w);
      }
    }
    widen_pair(sum00, high00, tile, first);
    widen_pair(sum01, high01, tile + 32, first);
    widen_pair(sum10, high10, tile + 2 * kTile, first);
    widen_pair(sum11, high11, tile + 2 * kTile + 32, first);
    first = false;
  }
}

// Asks for the lines of 4 channels and 64 positions that an epilogue will read or write: they come while look-ups are counted.
inline void fetch(const int16_t* rows, ptrdiff_t plane) {
  for (int j = 0; rows && j < 4; j++)
    for (int i = 0; i <= kTile; i += 32) __builtin_prefetch(rows + j * plane + std::min(i, kTile - 1), 1);
}

int twice_missing(const Conv& conv) { return 2 * (round_up(conv.in_channels, 4) - conv.in_channels) * conv.kernel * conv.kernel; }

inline void twice(int16_t* tile) {
  for (int16_t* t = tile; t < tile + 4 * kTile; t += 16) store(t, _mm256_slli_epi16(load(t), 1));
}

// Whether (2m - n) << -shift is exact in 16 bits for every m: then it is one shift and one subtraction.
bool plain(const Conv& conv) { return conv.shift <= 0 && conv.max_sum() << -conv.shift <= 32767; }

// sat16(rshift(x, shift)) in 16 bits.  To the right, mulhrs(x, 2^(15 - s)) = (x + 2^(s-1)) >> s; for s = 16 it is 0 for
// every |x| <= 32767.  To the left by t, clamping to 2^(15 - t) first keeps the shift by t - 1 within 2^14, and the
// last doubling saturates.
inline V narrow(V x, int shift) {
  if (shift > 0) return _mm256_mulhrs_epi16(x, _mm256_set1_epi16(static_cast<int16_t>(shift > 15 ? 0 : 1 << (15 - shift))));
  if (shift == 0) return x;
  const V most = _mm256_set1_epi16(static_cast<int16_t>(1 << (15 + shift)));
  x = _mm256_max_epi16(_mm256_min_epi16(x, most), _mm256_sub_epi16(_mm256_setzero_si256(), most));
  x = _mm256_sll_epi16(x, _mm_cvtsi32_si128(-shift - 1));
  return _mm256_adds_epi16(x, x);
}

template <int F>
struct Kernel {
  static void run(const Conv& conv, const ConvCall& call) {
    const int n = units(conv), stride = has_steps(conv) ? 3 : 1;
    int32_t* offset = reinterpret_cast<int32_t*>(call.scratch);
    for (int i = 0; i < 3 * n; i += stride) offset[i / stride] = static_cast<int32_t>(place_of(call, lookup(conv, i)));
    ptrdiff_t step[3] = {};
    for (int j = 1; j < 3 && has_steps(conv); j++) step[j] = place_of(call, lookup(conv, j)) - place_of(call, lookup(conv, 0));
    const auto count_tile = conv.kernel == 3 ? count<Way::rows> : has_steps(conv) ? count<Way::steps> : count<Way::any>;
    const Places at = {offset, step, call.in_plane, n};
    const int sum = static_cast<int>(conv.max_sum()) + twice_missing(conv);
    Scale scale;
    if (F & kCounts) scale = {1 - conv.shift, static_cast<int16_t>(static_cast<unsigned>(sum) << -conv.shift)};
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(call.weights);
    const ptrdiff_t lower = groups(conv) * call.in_plane;  // from the upper to the lower bits of a map of two planes
    alignas(32) int16_t tile[4 * kTile] = {};
    // A strip's maps stay in L1 while all channels pass, and the streams go by in pieces that a prefetcher sees.
    const int strip = kTile * std::clamp(16384 / (groups(conv) * kTile), 1, 4), channels = last_quad(call);
    for (int begin = call.begin; begin < call.end; begin += strip) {
      const int end = std::min(call.end, begin + strip);
      for (int q = call.channel_begin; q < channels; q += 4) {
        for (int p = begin; p < end; p += kTile) {
          if (conv.residual_channels > 0)
            fetch(call.residual + (q % conv.residual_channels) * call.residual_plane + p, call.residual_plane);
          if (call.s16) fetch(call.s16 + q * call.s16_plane + p, call.s16_plane);
          if (q < conv.out_channels) {
            const uint16_t* w = weights + static_cast<size_t>(q) / 4 * n * 6;
            count_tile(call.in + p, at, w, tile, true);
            if (conv.planes == 2) twice(tile), count_tile(call.in + lower + p, at, w, tile, false);
          }
          if (!(F & kCounts)) {
            const V all = _mm256_set1_epi16(static_cast<int16_t>(sum));
            for (int16_t* t = tile; t < tile + 4 * kTile; t += 16) {
              store(t, narrow(_mm256_sub_epi16(_mm256_slli_epi16(load(t), 1), all), conv.shift));
            }
          }
          store_within<F>(conv, call, within(conv, call, p), scale, tile, q, p, codes_of_tile(call, p));
        }
      }
    }
  }
};

constexpr auto kRun = specialisations<Kernel>(std::make_integer_sequence<int, kFlags>());

void run(const Conv& conv, const ConvCall& call) {
  kRun[static_cast<size_t>(epilogue_flags(conv) | (plain(conv) ? kCounts : 0))](conv, call);
}

// Sums and counts have 16 bits.
bool supports(const Conv& conv) {
  return conv.input == DType::b1 && conv.weight == WType::w1 && conv.in_pitch == conv.out_pitch &&
         conv.max_sum() + twice_missing(conv) <= 32767;
}

size_t prepared_bytes(const Conv& conv) {
  return static_cast<size_t>((conv.out_channels + 3) / 4) * units(conv) * 6 * sizeof(uint16_t);
}

// The signs of output o at 4 input channels and a tap, a bit each; what does not exist is 0.
int four_signs(const Conv& conv, const uint8_t* weights, int o, int tap, int c) {
  if (o >= conv.out_channels) return 0;
  const size_t index = (static_cast<size_t>(o) * conv.kernel * conv.kernel + tap) * conv.in_channels + c;
  if (conv.in_channels % 4 == 0) return weights[index >> 3] >> (index & 4) & 15;
  int signs = 0;
  for (int j = 0; j < std::min(4, conv.in_channels - c); j++) signs |= (weight_at(WType::w1, weights, index + j) > 0) << j;
  return signs;
}

// [quad of outputs][unit][3 look-ups][2 pairs] addresses of tables.
void prepare(const Conv& conv, const uint8_t* weights, uint8_t* prepared) {
  const int all = 3 * units(conv);
  uint16_t* to = reinterpret_cast<uint16_t*>(prepared);
  for (int q = 0; q < conv.out_channels; q += 4) {
    for (int i = 0; i < all; i++) {
      const Lookup at = lookup(conv, i);
      for (int o = q; o < q + 4; o += 2) {
        const int low = four_signs(conv, weights, o, at.tap, 4 * at.group);
        const int high = four_signs(conv, weights, o + 1, at.tap, 4 * at.group);
        *to++ = static_cast<uint16_t>(16 * (at.counts ? low | high << 4 : kZero));
      }
    }
  }
}

size_t scratch_bytes(const Conv& conv) { return static_cast<size_t>(units(conv)) * 3 * sizeof(int32_t); }
int granule(const Conv&) { return kTile; }

}  // namespace
}  // namespace avx2

extern const ConvKernel conv_w1b1_avx2;
const ConvKernel conv_w1b1_avx2 = {"conv_w1b1_avx2", Isa::avx2,           avx2::supports, avx2::prepared_bytes,
                                   avx2::prepare,    avx2::scratch_bytes, avx2::granule,  16,
                                   avx2::run};

}  // namespace mpq
