// Maps in and out of the layouts of layout.h.
#include <algorithm>
#include <cstring>

#include "ops.h"

namespace mpq {

void clear_border(const View& v) {
  if (v.border == 0 || v.type == DType::s16) return;
  const bool bits = v.type == DType::b1;
  const int planes = bits ? (v.channels + 3) / 4 : 1;
  const ptrdiff_t pixel = bits ? 1 : v.pixel;
  const int bytes = bits ? 1 : std::min(round_up(v.channels, v.type == DType::u8 ? 4 : 16), v.pixel);
  // n border pixels from position p on; only this view's channels, which may be a slice of a wider pixel.
  const auto clear = [&](uint8_t* plane, ptrdiff_t p, ptrdiff_t n) {
    if (bytes == pixel)
      std::memset(plane + p * pixel, 0, static_cast<size_t>(n * pixel));
    else
      for (ptrdiff_t i = p; i < p + n; i++) std::memset(plane + i * pixel, 0, static_cast<size_t>(bytes));
  };
  const ptrdiff_t lead = ptrdiff_t{v.border} * v.pitch + v.border;
  for (int g = 0; g < planes; g++) {
    uint8_t* plane = v.data + g * v.plane;
    clear(plane, -lead, lead);
    for (int y = 0; y < v.height; y++) clear(plane, ptrdiff_t{y} * v.pitch + v.width, v.border);
    clear(plane, ptrdiff_t{v.height} * v.pitch, ptrdiff_t{v.border} * v.pitch);
  }
}

void load_image(const uint8_t* image, const View& out, const Tools& tools) {
  const int channels = out.channels, pixel = out.pixel;
  for (int y = 0; y < out.height; y++) {
    uint8_t* row = out.data + ptrdiff_t{y} * out.pitch * pixel;
    if (channels == 3 && pixel == 4) {
      tools.rows.widen3(image, row, out.width);
      image += ptrdiff_t{3} * out.width;
      continue;
    }
    for (int x = 0; x < out.width; x++, image += channels) {
      std::memcpy(row + ptrdiff_t{x} * pixel, image, static_cast<size_t>(channels));
      std::memset(row + ptrdiff_t{x} * pixel + channels, 0, static_cast<size_t>(pixel - channels));
    }
  }
  clear_border(out);
}

void read_dense(const View& v, void* out) {
  auto* bytes = static_cast<uint8_t*>(out);
  auto* words = static_cast<int16_t*>(out);
  size_t i = 0;
  for (int c = 0; c < v.channels; c++)
    for (int y = 0; y < v.height; y++) {
      const ptrdiff_t row = ptrdiff_t{y} * v.pitch;
      for (int x = 0; x < v.width; x++, i++) {
        if (v.type == DType::s16)
          words[i] = v.s16(c)[row + x];
        else if (v.type == DType::b1)
          bytes[i] = static_cast<uint8_t>((v.b1(c)[row + x] >> (c & 3) & 1) * 2 - 1);
        else
          bytes[i] = v.data[(row + x) * v.pixel + c];
      }
    }
}

}  // namespace mpq
