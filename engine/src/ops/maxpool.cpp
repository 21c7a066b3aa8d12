// maxpool: k x k, stride 1. Rows first, into scratch, then columns; what lies outside the map does not take part.
#include <algorithm>
#include <cstring>

#include "ops.h"

namespace mpq {
namespace {

template <class T>
void largest(const T* in, T* out, int n) {
  for (int i = 0; i < n; i++) out[i] = std::max(out[i], in[i]);
}

void any(const uint8_t* in, uint8_t* out, int n) {  // -1 and +1 in bits: the largest is the or
  for (int i = 0; i < n; i++) out[i] |= in[i];
}

// One row of one plane; fold(in, out, n) is the maximum of the type.
template <class T, class Fold>
void planar_row(const T* plane, int pitch, int height, int width, int radius, int y, T* column, T* out, const Fold& fold) {
  const int top = std::max(y - radius, 0), bottom = std::min(y + radius, height - 1);
  std::copy_n(plane + ptrdiff_t{top} * pitch, width, column);
  for (int j = top + 1; j <= bottom; j++) fold(plane + ptrdiff_t{j} * pitch, column, width);
  std::copy_n(column, width, out);
  for (int d = 1; d <= std::min(radius, width - 1); d++) {
    fold(column + d, out, width - d);
    fold(column, out + d, width - d);
  }
}

void interleaved_row(const View& in, const View& out, int radius, int y, uint8_t* column, const RowKernels& rows) {
  const int bytes = round_up(in.channels, 16), width = in.width;
  const int top = std::max(y - radius, 0), bottom = std::min(y + radius, in.height - 1);
  const auto pixel = [](const View& v, int row, int x) { return v.data + (ptrdiff_t{row} * v.pitch + x) * v.pixel; };
  for (int x = 0; x < width; x++) {
    uint8_t* to = column + ptrdiff_t{x} * bytes;
    std::memcpy(to, pixel(in, top, x), static_cast<size_t>(bytes));
    for (int j = top + 1; j <= bottom; j++) rows.max_u8(pixel(in, j, x), to, bytes);
  }
  for (int x = 0; x < width; x++) {
    uint8_t* to = pixel(out, y, x);
    const int left = std::max(x - radius, 0), right = std::min(x + radius, width - 1);
    std::memcpy(to, column + ptrdiff_t{left} * bytes, static_cast<size_t>(bytes));
    for (int j = left + 1; j <= right; j++) rows.max_u8(column + ptrdiff_t{j} * bytes, to, bytes);
  }
}

}  // namespace

size_t maxpool_scratch(const View& in) {
  const int bytes = in.type == DType::u4 ? round_up(in.channels, 16) : in.type == DType::s16 ? 2 : 1;
  return static_cast<size_t>(in.width) * static_cast<size_t>(bytes);
}

void run_maxpool(const View& in, int kernel, const View& out, const Tools& tools) {
  const int radius = kernel / 2;
  tools.pool.run(in.height, [&](int y, int thread) {
    uint8_t* scratch = tools.scratch_of(thread);
    const ptrdiff_t row = ptrdiff_t{y} * in.pitch;
    if (in.type == DType::u4) interleaved_row(in, out, radius, y, scratch, tools.rows);
    for (int c = 0; in.type == DType::s16 && c < in.channels; c++)
      planar_row(in.s16(c), in.pitch, in.height, in.width, radius, y, reinterpret_cast<int16_t*>(scratch), out.s16(c) + row,
                 largest<int16_t>);
    for (int c = 0; in.type == DType::b1 && c < in.channels; c += 4)
      planar_row(in.b1(c), in.pitch, in.height, in.width, radius, y, scratch, out.b1(c) + row, any);
  });
  clear_border(out);
}

}  // namespace mpq
