// Convolutions for every type, size and CPU. Two ways, both with the inputs of one output pixel gathered first:
//   w1 x b1   bits: acc = inputs - 2 * popcount(x xor w), counted in 64-bit words with plain arithmetic, kLanes output
//             channels side by side so that a compiler makes vectors of it;
//   the rest  16-bit products, which every baseline instruction set multiplies and adds in pairs.
#include <algorithm>
#include <cstring>

#include "serial_epilogue.h"

namespace mpq {
namespace {

constexpr int kLanes = 8;  // output channels side by side

bool is_binary(const Conv& c) { return c.input == DType::b1 && c.planes == 1 && c.weight == WType::w1; }
int taps(const Conv& c) { return c.kernel * c.kernel; }
int inputs(const Conv& c) { return c.in_channels * taps(c); }

// Bits: tap-major, then channel groups, 4 bits a group; missing channels are 0 in x and w and so count as nothing.
int words(const Conv& c) { return (taps(c) * ((c.in_channels + 3) / 4) + 15) / 16; }
int padded_inputs(const Conv& c) { return round_up(inputs(c), 8); }

bool supports(const Conv&) { return true; }

size_t prepared_bytes(const Conv& c) {
  const auto outputs = static_cast<size_t>(round_up(c.out_channels, kLanes));
  return outputs * (is_binary(c) ? static_cast<size_t>(words(c)) * 8 : static_cast<size_t>(padded_inputs(c)) * 2);
}

void prepare(const Conv& c, const uint8_t* weights, uint8_t* prepared) {
  std::memset(prepared, 0, prepared_bytes(c));
  const int n = inputs(c), groups = (c.in_channels + 3) / 4;
  for (int o = 0; o < c.out_channels; o++)
    for (int i = 0; i < n; i++) {
      const int value = weight_at(c.weight, weights, static_cast<size_t>(o) * n + i);
      if (!is_binary(c)) {
        reinterpret_cast<int16_t*>(prepared)[static_cast<size_t>(o) * padded_inputs(c) + i] = static_cast<int16_t>(value);
        continue;
      }
      const int channel = i % c.in_channels, bit = (i / c.in_channels * groups + channel / 4) * 4 + channel % 4;
      const size_t word = (static_cast<size_t>(o / kLanes) * words(c) + bit / 64) * kLanes + o % kLanes;
      if (value > 0) reinterpret_cast<uint64_t*>(prepared)[word] |= uint64_t{1} << (bit % 64);
    }
}

size_t patch_bytes(const Conv& c) { return round_up<size_t>(is_binary(c) ? words(c) * 8 : padded_inputs(c) * 2, kAlign); }

size_t scratch_bytes(const Conv& c) {
  return patch_bytes(c) + static_cast<size_t>(round_up(c.out_channels, kLanes)) * kTile * sizeof(int32_t);
}

int granule(const Conv& c) { return c.out_pitch; }

void gather_bits(const Conv& c, const ConvCall& call, int y, int x, uint64_t* patch) {
  std::memset(patch, 0, static_cast<size_t>(words(c)) * 8);
  const int groups = (c.in_channels + 3) / 4;
  const uint8_t* at = call.in + ptrdiff_t{y} * c.in_pitch + x;
  int nibble = 0;
  for (int t = 0; t < taps(c); t++)
    for (int g = 0; g < groups; g++, nibble++)
      patch[nibble / 16] |= uint64_t{at[g * call.in_plane + call.taps[t]]} << (nibble % 16 * 4);
}

void gather_values(const Conv& c, const ConvCall& call, int y, int x, int16_t* patch) {
  int i = 0;
  for (int t = 0; t < taps(c); t++) {
    if (c.input == DType::b1) {
      const uint8_t* at = call.in + ptrdiff_t{y} * c.in_pitch + x + call.taps[t];
      const auto sign = [&](int ch) { return (at[ch / 4 * call.in_plane] >> (ch & 3) & 1) * 2 - 1; };
      for (int ch = 0; ch < c.in_channels; ch++)
        patch[i++] = static_cast<int16_t>(c.planes == 2 ? 2 * sign(ch) + sign(c.in_channels + ch) : sign(ch));
      continue;
    }
    const ptrdiff_t row = ptrdiff_t{y} * c.stride + t / c.kernel - c.pad, column = ptrdiff_t{x} * c.stride + t % c.kernel - c.pad;
    const uint8_t* at = call.in + (row * c.in_pitch + column) * c.in_pixel;
    for (int ch = 0; ch < c.in_channels; ch++) patch[i++] = at[ch];
  }
  for (; i < padded_inputs(c); i++) patch[i] = 0;
}

// counts[lane] = popcount(x xor w[lane]) over n words. Three words are added in fields of 4 bits, whose sum stays below 16
// (3 * 4), then bytes, whose sums of 10 rounds of at most 24 stay below 256 and are folded then.
void count_bits(const uint64_t* x, const uint64_t* w, int n, int32_t* counts) {
  constexpr uint64_t k5 = 0x5555555555555555, k3 = 0x3333333333333333, kf = 0x0f0f0f0f0f0f0f0f, kff = 0x00ff00ff00ff00ff;
  std::memset(counts, 0, kLanes * sizeof(int32_t));
  for (int i = 0; i < n;) {
    uint64_t bytes[kLanes] = {};
    for (const int stop = std::min(n, i + 30); i < stop;) {
      uint64_t fields[kLanes] = {};
      for (const int end = std::min(stop, i + 3); i < end; i++)
        for (int lane = 0; lane < kLanes; lane++) {
          uint64_t v = x[i] ^ w[i * kLanes + lane];
          v -= v >> 1 & k5;
          fields[lane] += (v & k3) + (v >> 2 & k3);
        }
      for (int lane = 0; lane < kLanes; lane++) bytes[lane] += (fields[lane] & kf) + (fields[lane] >> 4 & kf);
    }
    for (int lane = 0; lane < kLanes; lane++) {
      uint64_t sums = (bytes[lane] & kff) + (bytes[lane] >> 8 & kff);
      sums += sums >> 32;
      counts[lane] += static_cast<int32_t>((sums + (sums >> 16)) & 0xffff);
    }
  }
}

void multiply(const int16_t* x, const int16_t* w, int n, int32_t* sums) {  // four output channels
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const int16_t *w1 = w + n, *w2 = w1 + n, *w3 = w2 + n;
  for (int i = 0; i < n; i++) {
    s0 += x[i] * w[i];
    s1 += x[i] * w1[i];
    s2 += x[i] * w2[i];
    s3 += x[i] * w3[i];
  }
  sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

void run(const Conv& c, const ConvCall& call) {
  auto* sums = reinterpret_cast<int32_t*>(call.scratch + patch_bytes(c));  // [outputs][kTile]
  const auto store = [sums](int o, int i, int32_t value) { sums[o * kTile + i] = value; };
  for (int y = call.begin / c.out_pitch; y * c.out_pitch < call.end; y++)
    for (int x0 = 0; x0 < c.width; x0 += kTile) {
      const int n = std::min(kTile, c.width - x0);
      for (int i = 0; i < n; i++) {
        int32_t lanes[kLanes];
        if (is_binary(c)) {
          auto* patch = reinterpret_cast<uint64_t*>(call.scratch);
          gather_bits(c, call, y, x0 + i, patch);
          for (int o = call.channel_begin; o < call.channel_end; o += kLanes) {
            count_bits(patch, reinterpret_cast<const uint64_t*>(call.weights) + ptrdiff_t{o} * words(c), words(c), lanes);
            for (int lane = 0; lane < kLanes; lane++) store(o + lane, i, inputs(c) - 2 * lanes[lane]);
          }
        } else {
          auto* patch = reinterpret_cast<int16_t*>(call.scratch);
          gather_values(c, call, y, x0 + i, patch);
          for (int o = call.channel_begin; o < call.channel_end; o += 4) {
            multiply(patch, reinterpret_cast<const int16_t*>(call.weights) + ptrdiff_t{o} * padded_inputs(c), padded_inputs(c),
                     lanes);
            for (int lane = 0; lane < 4; lane++) store(o + lane, i, lanes[lane]);
          }
        }
      }
      for (int o = call.channel_begin; o < call.channel_end; o++)
        serial_epilogue(c, call, o, y * c.out_pitch + x0, n, sums + o * kTile);
    }
}

}  // namespace

extern const ConvKernel conv_serial = {"conv_serial", Isa::serial, supports, prepared_bytes, prepare, scratch_bytes,
                                       granule,       16,          run};

}  // namespace mpq
