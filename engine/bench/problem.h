// One random convolution in the engine's layouts, with everything a kernel's call needs: what the micro-benchmark times
// and what the kernels' exam compares.  Buffers have the rights of layout.h (room and slack) and no more, so a
// sanitizer sees a kernel that takes liberties.
#pragma once

#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "../src/kernels/kernel.h"

namespace mpq::bench {

struct Shape {
  DType input = DType::b1;
  WType weight = WType::w1;
  int in_channels = 0, out_channels = 0, height = 0, width = 0;  // of the input
  int kernel = 1, stride = 1;
  bool s16 = false, u4 = false, b1 = false;
  int residual_channels = 0;
  bool residual_last = false, gain = false, slope = false, post = false;
  int planes = 1, step = 0;   // of a b1 input, of a b1 output
  int shift = 0, concat = 0;  // concat: further channels of a u4 pixel, as in a slice of a concat
};

// 64-byte aligned bytes between two slacks.
class Buffer {
 public:
  explicit Buffer(size_t bytes = 0) : bytes_(bytes), store_(bytes + 2 * kSlack + kAlign, 0xAB) {
    const size_t at = reinterpret_cast<size_t>(store_.data()) % kAlign;
    first_ = kSlack + (at ? kAlign - at : 0);
    std::memset(data(), 0, bytes);
  }
  uint8_t* data() { return store_.data() + first_; }
  const uint8_t* data() const { return store_.data() + first_; }
  size_t size() const { return bytes_; }

 private:
  size_t bytes_, first_ = 0;
  std::vector<uint8_t> store_;
};

class Problem {
 public:
  Problem(const Shape& shape, uint32_t seed) : shape_(shape), random_(seed) {
    const int pad = shape.kernel / 2, border = std::max(1, pad);
    conv_.input = shape.input, conv_.weight = shape.weight;
    conv_.in_channels = shape.in_channels, conv_.out_channels = shape.out_channels;
    conv_.planes = shape.planes, conv_.step = shape.step;
    conv_.kernel = shape.kernel, conv_.stride = shape.stride, conv_.pad = pad;
    conv_.height = (shape.height + 2 * pad - shape.kernel) / shape.stride + 1;
    conv_.width = (shape.width + 2 * pad - shape.kernel) / shape.stride + 1;
    conv_.out_pitch = conv_.width + border;
    conv_.shift = shape.shift, conv_.fraction = 7;
    conv_.residual_channels = shape.residual_channels, conv_.residual_last = shape.residual_last;
    conv_.out_s16 = shape.s16, conv_.out_u4 = shape.u4, conv_.out_b1 = shape.b1;
    constants();
    shape.input == DType::b1 ? planar_input(border) : interleaved_input(border);
    const int planar = round_up(conv_.positions(), kPlanarRoom), codes = round_up(conv_.positions(), kInterleavedRoom);
    call_.residual_plane = call_.s16_plane = call_.b1_plane = planar;
    residual_ = Buffer(static_cast<size_t>(shape.residual_channels) * planar * 2);
    for (size_t i = 0; i < residual_.size(); i++) residual_.data()[i] = static_cast<uint8_t>(random_());
    call_.residual = reinterpret_cast<int16_t*>(residual_.data());
    if (shape.s16)
      s16_ = Buffer(static_cast<size_t>(shape.out_channels) * planar * 2), call_.s16 = reinterpret_cast<int16_t*>(s16_.data());
    const auto bits = static_cast<size_t>((shape.out_channels + 3) / 4) * planar;
    if (shape.b1) b1_ = Buffer(shape.step ? 2 * bits : bits), call_.b1 = b1_.data();
    if (shape.b1 && shape.step) call_.b1_low = b1_.data() + bits;
    call_.u4_pixel = round_up(shape.out_channels, 16) + shape.concat;
    if (shape.u4) u4_ = Buffer(static_cast<size_t>(codes) * call_.u4_pixel), call_.u4 = u4_.data();
    call_.end = conv_.positions(), call_.channel_end = shape.out_channels;
    weights_ = Buffer(static_cast<size_t>(shape.out_channels) * shape.kernel * shape.kernel * shape.in_channels);
    const uint8_t bad = shape.weight == WType::w4 ? 0x08 : 0x80;  // -8 and -128 are not weights
    for (size_t i = 0; i < weights_.size(); i++) {
      uint8_t& w = weights_.data()[i];
      w = static_cast<uint8_t>(random_());
      if (shape.weight == WType::w4) w = static_cast<uint8_t>(((w & 15) == bad ? w ^ 8 : w));
      if (shape.weight == WType::w4 && (w >> 4) == bad) w &= 15;
      if (shape.weight == WType::w8 && w == bad) w = 0;
    }
  }
  Problem(const Problem&) = delete;

  const Conv& conv() const { return conv_; }
  double macs() const {
    return 1.0 * conv_.in_channels * conv_.out_channels * conv_.kernel * conv_.kernel * conv_.height * conv_.width;
  }

  void prepare(const ConvKernel& kernel) {
    prepared_ = Buffer(kernel.prepared_bytes(conv_));
    kernel.prepare(conv_, weights_.data(), prepared_.data());
    scratch_ = Buffer(kernel.scratch_bytes(conv_));
    call_.weights = prepared_.data(), call_.scratch = scratch_.data();
  }
  void run(const ConvKernel& kernel) { kernel.run(conv_, call_); }
  // In ranges, the way that a pool of threads would call it.
  void run_in_parts(const ConvKernel& kernel, int granules, int channel_granules) {
    const int step = granules * kernel.granule(conv_), channels = channel_granules * kernel.channel_granule;
    ConvCall part = call_;
    for (part.begin = 0; part.begin < call_.end; part.begin += step) {
      for (part.channel_begin = 0; part.channel_begin < call_.channel_end; part.channel_begin += channels) {
        part.end = std::min(call_.end, part.begin + step);
        part.channel_end = std::min(call_.channel_end, part.channel_begin + channels);
        kernel.run(conv_, part);
      }
    }
  }
  // Two rows at a time, the way that a pooled convolution is called.
  void run_in_rows(const ConvKernel& kernel) {
    ConvCall part = call_;
    for (part.begin = 0; part.begin < call_.end; part.begin += 2 * conv_.out_pitch) {
      part.end = std::min(call_.end, part.begin + 2 * conv_.out_pitch);
      kernel.run(conv_, part);
    }
  }
  void clear() {
    for (Buffer* b : {&s16_, &b1_, &u4_}) std::memset(b->data(), 0, b->size());
  }
  // All pixels of all outputs, without borders and room; and whether anything was written where nothing may be.
  std::vector<int> pixels() const {
    std::vector<int> all;
    for (int y = 0; y < conv_.height; y++) {
      for (int x = 0; x < conv_.width; x++) {
        const ptrdiff_t p = y * conv_.out_pitch + x;
        if (call_.s16)
          for (int c = 0; c < conv_.out_channels; c++) all.push_back(call_.s16[c * call_.s16_plane + p]);
        if (call_.b1)
          for (int c = 0; c < conv_.out_channels; c += 4) all.push_back(call_.b1[c / 4 * call_.b1_plane + p]);
        if (call_.b1_low)
          for (int c = 0; c < conv_.out_channels; c += 4) all.push_back(call_.b1_low[c / 4 * call_.b1_plane + p]);
        if (call_.u4)
          for (int c = 0; c < call_.u4_pixel; c++) all.push_back(call_.u4[p * call_.u4_pixel + c]);
      }
    }
    return all;
  }
  bool slacks_whole() const { return whole(s16_) && whole(b1_) && whole(u4_); }

 private:
  static bool whole(const Buffer& b) {
    for (int i = 1; i <= kSlack; i++)
      if (b.data()[-i] != 0xAB || b.data()[b.size() + i - 1] != 0xAB) return false;
    return true;
  }
  const int16_t* constant(int count, int low, int high) {
    std::vector<int16_t>& to = constants_[constant_++];
    for (int i = 0; i < count; i++) {
      const int kind = static_cast<int>(random_() % 32);
      to.push_back(static_cast<int16_t>(kind == 0 ? high : kind == 1 ? low : static_cast<int>(random_() % 8001) - 4000));
    }
    return to.data();
  }
  void constants() {
    const int n = conv_.out_channels;
    conv_.multiplier = constant(n, -32767, 32767);
    conv_.bias = constant(n, -32768, 32767);
    conv_.threshold = constant(n, -32768, 32767);
    if (shape_.slope) conv_.slope = constant(n, -32767, 32767);
    if (shape_.post) conv_.post = constant(n, -32768, 32767);
    if (shape_.gain) conv_.gain = constant(shape_.residual_channels, -32767, 32767);
  }
  // As the operator does: with stride 2, four phase planes whose pitch is the output's.
  void planar_input(int border) {
    const int k = conv_.kernel, pad = conv_.pad, s = conv_.stride, phases = s * s;
    conv_.in_pitch = conv_.out_pitch;
    const int rows = conv_.height + 2 * border, pitch = conv_.in_pitch;
    const ptrdiff_t phase = round_up(rows * pitch + border, 64);
    call_.in_plane = phase * phases;
    const int groups = (conv_.planes * conv_.in_channels + 3) / 4, last = conv_.planes * conv_.in_channels - 4 * (groups - 1);
    in_ = Buffer(static_cast<size_t>(groups * call_.in_plane));
    call_.in = in_.data() + border * pitch + border;
    for (int g = 0; g < groups; g++) {
      for (int y = 0; y < shape_.height; y++) {
        for (int x = 0; x < shape_.width; x++) {
          const ptrdiff_t at = (y % s * s + x % s) * phase + (border + y / s) * pitch + border + x / s;
          in_.data()[g * call_.in_plane + at] = static_cast<uint8_t>(random_() & (g + 1 < groups ? 15 : (1 << last) - 1));
        }
      }
    }
    for (int t = 0; t < k * k; t++) {
      const int dy = t / k - pad, dx = t % k - pad, py = dy & (s - 1), px = dx & (s - 1);
      taps_.push_back((py * s + px) * phase + (dy - py) / s * pitch + (dx - px) / s);
    }
    call_.taps = taps_.data();
  }
  void interleaved_input(int border) {
    const bool u8 = shape_.input == DType::u8;
    conv_.in_pitch = shape_.width + border;
    conv_.in_pixel = u8 ? round_up(conv_.in_channels, 4) : round_up(conv_.in_channels, 16) + shape_.concat;
    in_ = Buffer(static_cast<size_t>((shape_.height + 2 * border + 1) * conv_.in_pitch) * conv_.in_pixel);
    uint8_t* first = in_.data() + static_cast<ptrdiff_t>(border * conv_.in_pitch + border) * conv_.in_pixel;
    for (int y = 0; y < shape_.height; y++) {
      for (int x = 0; x < shape_.width; x++) {
        for (int c = 0; c < conv_.in_channels; c++) {
          first[static_cast<ptrdiff_t>(y * conv_.in_pitch + x) * conv_.in_pixel + c] =
              static_cast<uint8_t>(random_() & (u8 ? 255 : 15));
        }
      }
    }
    call_.in = first;
  }

  Shape shape_;
  std::mt19937 random_;
  Conv conv_;
  ConvCall call_;
  Buffer in_, residual_, s16_, b1_, u4_, weights_, prepared_, scratch_;
  std::vector<ptrdiff_t> taps_;
  std::vector<int16_t> constants_[6];
  int constant_ = 0;
};

}  // namespace mpq::bench
