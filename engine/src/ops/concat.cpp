// concat: nothing to do for an input that the plan placed inside the output; a copy for the others.
#include <cstring>

#include "ops.h"

namespace mpq {
namespace {

void copy_bits(const View& in, int first, const View& out) {
  for (int c = 0; c < in.channels; c++) {
    const int channel = first + c, from_bit = c & 3, to_bit = channel & 3;
    for (int y = 0; y < in.height; y++) {
      const uint8_t* from = in.b1(c) + ptrdiff_t{y} * in.pitch;
      uint8_t* to = out.b1(channel) + ptrdiff_t{y} * out.pitch;
      for (int x = 0; x < in.width; x++)
        to[x] = static_cast<uint8_t>((to_bit == 0 ? 0 : to[x]) | (from[x] >> from_bit & 1) << to_bit);
    }
  }
}

}  // namespace

void run_concat(const View& in, int first, const View& out, const Tools& tools) {
  if (in.type == DType::s16) {
    if (in.data == reinterpret_cast<uint8_t*>(out.s16(first))) return;
    tools.pool.run(in.channels, [&](int c, int) {
      for (int y = 0; y < in.height; y++)
        std::memcpy(out.s16(first + c) + ptrdiff_t{y} * out.pitch, in.s16(c) + ptrdiff_t{y} * in.pitch,
                    static_cast<size_t>(in.width) * sizeof(int16_t));
    });
    return;
  }
  if (in.type == DType::b1) {
    if (first % 4 != 0 || in.data != out.b1(first)) copy_bits(in, first, out);
  } else if (in.data != out.data + first) {
    const bool last = first + in.channels == out.channels;
    const int padding = last ? round_up(out.channels, in.type == DType::u8 ? 4 : 16) - out.channels : 0;
    tools.pool.run(in.height, [&](int y, int) {
      const uint8_t* from = in.data + ptrdiff_t{y} * in.pitch * in.pixel;
      uint8_t* to = out.data + ptrdiff_t{y} * out.pitch * out.pixel + first;
      for (int x = 0; x < in.width; x++, from += in.pixel, to += out.pixel) {
        std::memcpy(to, from, static_cast<size_t>(in.channels));
        std::memset(to + in.channels, 0, static_cast<size_t>(padding));
      }
    });
  }
  // Of channels that were copied, the border still holds what lay there before; the last input is in place perhaps, others not.
  if (first + in.channels == out.channels) clear_border(out);
}

}  // namespace mpq
