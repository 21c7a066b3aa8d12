// What a kernel is. The table lists them best first, serial last; a session takes, for each convolution, the first
// entry that its instruction set allows and that supports the convolution (table.cpp). Nothing else chooses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../layout.h"

namespace mpq {

enum class Isa : uint8_t { serial, avx2, avxvnni, avx512 };

// Whether a session with an instruction set may run a kernel: its own and those below, but AVX-512 does not hold AVX-VNNI.
inline bool allows(Isa session, Isa kernel) { return kernel == session || (kernel < session && kernel != Isa::avxvnni); }

// One convolution: everything known when a session is made. Constants are views into the model file.
struct Conv {
  DType input = DType::u8;
  WType weight = WType::w1;
  int in_channels = 0, out_channels = 0;
  int planes = 1;  // b1: 2 if the map has 2 * in_channels channels, h before l, and its values are 2h + l
  int step = 0;    // of a b1 output: 0, or where its lower bits change, beside the threshold
  int kernel = 1, stride = 1, pad = 0;
  int height = 0, width = 0;  // of the output
  int in_pitch = 0;           // pixels. For b1 with stride 2: of one phase, see ConvCall::taps
  int in_pixel = 0;           // u8, u4: bytes
  int out_pitch = 0;          // pixels, of every output and of the residual
  int shift = 0, fraction = 0;
  int residual_channels = 0;  // 0: no residual
  bool residual_last = false;
  bool out_s16 = false, out_u4 = false, out_b1 = false;
  const int16_t* multiplier = nullptr;  // [out_channels]
  const int16_t* bias = nullptr;        // [out_channels]
  const int16_t* slope = nullptr;       // [out_channels] or null
  const int16_t* post = nullptr;        // [out_channels] or null
  const int16_t* gain = nullptr;        // [residual_channels] or null
  const int16_t* threshold = nullptr;   // [out_channels], with out_b1

  int positions() const { return height * out_pitch; }
  int64_t max_sum() const {  // no accumulator leaves -max_sum .. max_sum
    const int w = weight == WType::w1 ? 1 : weight == WType::w4 ? 7 : 127;
    const int x = input == DType::u8 ? 255 : input == DType::u4 ? 15 : planes == 2 ? 3 : 1;
    return int64_t{in_channels} * kernel * kernel * w * x;
  }
};

// One call: a range of output positions times a range of output channels.
struct ConvCall {
  const uint8_t* in = nullptr;  // pixel (0, 0), channel 0
  ptrdiff_t in_plane = 0;       // b1: bytes from 4 channels to the next 4
  // b1 only: kernel * kernel offsets in bytes; the input of output position p (p = y * in_pitch + x) at tap t is
  // in[(c / 4) * in_plane + p + taps[t]]. With stride 2 `in` is four phase planes (row parity, column parity), split
  // by the operator, so that every stride is this one formula.
  // u8 and u4: output (y, x) at tap (dy, dx) reads pixel (y * stride + dy - pad) * in_pitch + x * stride + dx - pad.
  const ptrdiff_t* taps = nullptr;
  const int16_t* residual = nullptr;
  ptrdiff_t residual_plane = 0;
  int16_t* s16 = nullptr;  // outputs: null if not wanted
  ptrdiff_t s16_plane = 0;
  uint8_t* b1 = nullptr;
  uint8_t* b1_low = nullptr;  // the lower bits, with a step: out_channels is a multiple of 4 then
  ptrdiff_t b1_plane = 0;
  uint8_t* u4 = nullptr;
  int u4_pixel = 0;
  const uint8_t* weights = nullptr;  // what prepare() wrote
  uint8_t* scratch = nullptr;        // scratch_bytes(), 64-byte aligned, of this thread
  // Output positions (y * out_pitch + x): begin is a multiple of granule(), end too or positions(). Without a u4 output both may
  // be multiples of out_pitch, too, and then positions from `end` on are not written.
  int begin = 0, end = 0;
  int channel_begin = 0, channel_end = 0;  // begin is a multiple of channel_granule, end too or out_channels
};

// A kernel writes whole b1 bytes (missing channels 0) and, for the last channels of a u4 pixel, zeros up to the next multiple
// of 16.
struct ConvKernel {
  const char* name;  // conv_<weights><activations>_<isa>
  Isa isa;
  bool (*supports)(const Conv&);
  size_t (*prepared_bytes)(const Conv&);
  // `weights` as the file stores them, [O, kh, kw, C] at true width (weight_at); `prepared` is 64-byte aligned.
  void (*prepare)(const Conv&, const uint8_t* weights, uint8_t* prepared);
  size_t (*scratch_bytes)(const Conv&);
  int (*granule)(const Conv&);  // out_pitch, or two of them, for kernels that go by rows, 64 for those that go by flat positions
  int channel_granule;          // a multiple of 16
  void (*run)(const Conv&, const ConvCall&);
};

// The operators without weights: one function each, on rows. n counts positions.
struct RowKernels {
  const char* name;
  Isa isa;
  // 2x2 average; `out` has n positions, top and bottom 2n.
  void (*avgpool2)(const int16_t* top, const int16_t* bottom, int16_t* out, int n);
  // x[c * plane + i] >= threshold[c] -> bit c of out[i]; channels 1..4.
  void (*threshold)(const int16_t* x, ptrdiff_t plane, const int16_t* threshold, int channels, uint8_t* out, int n);
  // s16 planes to u4 pixels; channels 1..16, missing channels are written 0.
  void (*requantise)(const int16_t* x, ptrdiff_t plane, const int16_t* multiplier, const int16_t* bias, int fraction,
                     int channels, uint8_t* out, int pixel, int n);
  // u8 pixels of 4 bytes to u4 pixels of 4 bytes; 4 multipliers and biases.
  void (*recode4)(const uint8_t* in, const int16_t* multiplier, const int16_t* bias, int fraction, uint8_t* out, int n);
  // a[i] = in[2i], b[i] = in[2i + 1]
  void (*split2)(const uint8_t* in, uint8_t* a, uint8_t* b, int n);
  // out[i] = max(out[i], in[i]) on bytes
  void (*max_u8)(const uint8_t* in, uint8_t* out, int n);
  // Letterbox. n RGB pixels: output i = (8192 + sum of q[i * taps + j] * pixel first[i] + j over j < taps) >> 14, on each of
  // the 3 bytes. Pixels from `width` on do not exist; their q is 0. taps is even; 16 bytes behind the outputs may be written.
  void (*resize3)(const uint8_t* in, int width, const int32_t* first, const int16_t* q, int taps, uint8_t* out, int n);
  // out[i] = (8192 + sum of q[j] * rows[j][i] over j < taps) >> 14. taps is even; rows may be read 32 bytes beyond n.
  void (*blend)(const uint8_t* const* rows, const int16_t* q, int taps, uint8_t* out, int n);
  // n pixels of 3 bytes to pixels of 4, the last of which is 0.
  void (*widen3)(const uint8_t* in, uint8_t* out, int n);
};

// table.cpp
bool has_isa(Isa isa);  // whether this CPU and its operating system can run it
Isa best_isa();
const char* isa_name(Isa);
// The first entry that fits; the serial one always does. Environment variable MPQ_KERNEL names an entry that comes before
// all others where it fits: the exams force each kernel so, and a person can take one kernel's part out of a sum.
const ConvKernel& conv_kernel(const Conv&, Isa);
const ConvKernel* conv_kernel_at(int i);  // the table's entries in order, then null
const RowKernels& row_kernels(Isa);

}  // namespace mpq
