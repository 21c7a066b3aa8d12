// How tensors and weights lie in memory. Kernels and operators share this file and nothing else about memory.
//
// A map of height H and width W has a border of `border` pixels and a pitch (pixels from one row to the next)
//
//     pitch = W + border
//
// The right border of a row is the left border of the next one. All maps of one size (H, W) have the same border and
// pitch, whatever their dtype, so the flat position p = y * pitch + x means the same pixel in each of them. `data`
// always points to pixel (0, 0) of channel 0; the border lies at negative positions and at columns x >= W.
//
//   u8   data[p * pixel + c]              pixel = channels rounded up to 4, zeros above C         border 0
//   u4   data[p * pixel + c]              one byte a code 0..15, pixel = C rounded up to 16
//                                         (more if the map is a slice of a concat), zeros above C  border 0
//                                         Pixels as codes, for the stem alone: 4 bytes
//   b1   data[(c / 4) * plane + p]        bits 0..3 are channels c..c+3, bit 1 is +1; bits 4..7 and
//                                         the bits of missing channels are 0                       border 0, which is -1
//   s16  ((int16*)data)[c * plane + p]    no border is stored; columns x >= W hold garbage
//
// Rights of a kernel:
//   * it may read 1024 bytes before and behind any map;
//   * it may write any value to columns x >= W of the positions it was given: the operator zeroes borders afterwards;
//   * on s16 and b1 maps its last range may run on to the next multiple of 128 positions, on u4 and u8 maps to the next
//     multiple of 16: that room belongs to the map. Other positions and channels it must not write.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mpq {

enum class DType : uint8_t { u8, b1, u4, s16 };
enum class WType : uint8_t { w1, w4, w8, i16 };

constexpr int kAlign = 64;            // bytes, of every map and every prepared weight buffer
constexpr int kSlack = 1024;          // readable bytes before and behind a map
constexpr int kPlanarRoom = 128;      // s16 and b1: positions are rounded up to this
constexpr int kInterleavedRoom = 16;  // u4 and u8: the same

struct View {
  DType type = DType::u8;
  int channels = 0, height = 0, width = 0;
  int border = 0;
  int pitch = 0;        // pixels
  ptrdiff_t plane = 0;  // b1: bytes, s16: int16s, from one plane to the next
  int pixel = 0;        // u8, u4: bytes from one pixel to the next
  uint8_t* data = nullptr;

  int positions() const { return height * pitch; }
  int16_t* s16(int channel = 0) const { return reinterpret_cast<int16_t*>(data) + channel * plane; }
  uint8_t* b1(int channel = 0) const { return data + channel / 4 * plane; }
  bool planar() const { return type == DType::b1 || type == DType::s16; }
};

template <class T>
constexpr T round_up(T value, T step) {
  return (value + step - 1) / step * step;
}

// Value i of a constant as the file stores it: true width, lowest bits first.
inline int weight_at(WType type, const uint8_t* packed, size_t i) {
  switch (type) {
    case WType::w1: return (packed[i >> 3] >> (i & 7) & 1) * 2 - 1;
    case WType::w4: return static_cast<int8_t>(static_cast<uint8_t>(packed[i >> 1] >> (i & 1) * 4 << 4)) >> 4;
    case WType::w8: return static_cast<int8_t>(packed[i]);
    case WType::i16: return reinterpret_cast<const int16_t*>(packed)[i];
  }
  return 0;
}

}  // namespace mpq
