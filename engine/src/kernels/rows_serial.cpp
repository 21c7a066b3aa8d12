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

void split2(const uint8_t* in, uint8_t* a, uint8_t* b, int n) {
  for (int i = 0; i < n; i++) a[i] = in[2 * i], b[i] = in[2 * i + 1];
}

void max_u8(const uint8_t* in, uint8_t* out, int n) {
  for (int i = 0; i < n; i++) out[i] = std::max(out[i], in[i]);
}

}  // namespace

extern const RowKernels rows_serial = {"rows_serial", Isa::serial, avgpool2, threshold, requantise, split2, max_u8};

}  // namespace mpq
