// The operators without weights, plain.
#include "../numerics.h"
#include "kernel.h"

namespace mpq {
namespace {

void avgpool2(const int16_t* top, const int16_t* bottom, int16_t* out, int n) {
  for (int i = 0; i < n; i++)
    out[i] = static_cast<int16_t>((top[2 * i] + top[2 * i + 1] + bottom[2 * i] + bottom[2 * i + 1] + 2) >> 2);
}

void threshold(const int16_t* x, ptrdiff_t plane, const int16_t* threshold, int channels, uint8_t* out, int n) {
  for (int i = 0; i < n; i++) out[i] = x[i] >= threshold[0];
  for (int c = 1; c < channels; c++)
    for (int i = 0; i < n; i++) out[i] = static_cast<uint8_t>(out[i] | (x[c * plane + i] >= threshold[c]) << c);
}

void requantise(const int16_t* x, ptrdiff_t plane, const int16_t* multiplier, const int16_t* bias, int fraction, int channels,
                uint8_t* out, int pixel, int n) {
  for (int i = 0; i < n; i++, out += pixel)
    for (int c = 0; c < 16; c++) {
      const int v = c < channels ? sat16(mulhrs(x[c * plane + i], multiplier[c]) + bias[c]) : 0;
      out[c] = static_cast<uint8_t>(std::min(std::max(v >> fraction, 0), 15));
    }
}

void recode4(const uint8_t* in, const int16_t* multiplier, const int16_t* bias, int fraction, uint8_t* out, int n) {
  for (int i = 0; i < 4 * n; i++) {
    const int v = sat16(mulhrs(in[i] << 7, multiplier[i & 3]) + bias[i & 3]);
    out[i] = static_cast<uint8_t>(std::min(std::max(v >> fraction, 0), 15));
  }
}

void split2(const uint8_t* in, uint8_t* a, uint8_t* b, int n) {
  for (int i = 0; i < n; i++) a[i] = in[2 * i], b[i] = in[2 * i + 1];
}

void max_u8(const uint8_t* in, uint8_t* out, int n) {
  for (int i = 0; i < n; i++) out[i] = std::max(out[i], in[i]);
}

void resize3(const uint8_t* in, int width, const int32_t* first, const int16_t* q, int taps, uint8_t* out, int n) {
  for (int i = 0; i < n; i++, q += taps, out += 3) {
    const uint8_t* p = in + 3 * ptrdiff_t{first[i]};
    int32_t r = 8192, g = 8192, b = 8192;
    for (int j = 0; j < std::min(taps, width - first[i]); j++, p += 3) r += q[j] * p[0], g += q[j] * p[1], b += q[j] * p[2];
    out[0] = static_cast<uint8_t>(r >> 14), out[1] = static_cast<uint8_t>(g >> 14), out[2] = static_cast<uint8_t>(b >> 14);
  }
}

void blend(const uint8_t* const* rows, const int16_t* q, int taps, uint8_t* out, int n) {
  constexpr int kPart = 256;
  int32_t sums[kPart];
  for (int begin = 0; begin < n; begin += kPart) {
    const int count = std::min(kPart, n - begin);
    std::fill(sums, sums + count, 8192);
    for (int j = 0; j < taps; j++)
      for (int i = 0; i < count; i++) sums[i] += q[j] * rows[j][begin + i];
    for (int i = 0; i < count; i++) out[begin + i] = static_cast<uint8_t>(sums[i] >> 14);
  }
}

void widen3(const uint8_t* in, uint8_t* out, int n) {
  for (int i = 0; i < n; i++, in += 3, out += 4) out[0] = in[0], out[1] = in[1], out[2] = in[2], out[3] = 0;
}

}  // namespace

extern const RowKernels rows_serial = {"rows_serial", Isa::serial, avgpool2, threshold, requantise, recode4,
                                       split2,        max_u8,      resize3,  blend,     widen3};

}  // namespace mpq
