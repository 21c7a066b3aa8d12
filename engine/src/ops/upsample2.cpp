// upsample2: every pixel becomes 2x2.
#include <cstring>

#include "ops.h"

namespace mpq {
namespace {

template <class T>
void planar(const T* in, int in_pitch, T* out, int out_pitch, int height, int width) {
  for (int y = 0; y < height; y++, in += in_pitch, out += ptrdiff_t{2} * out_pitch) {
    for (int x = 0; x < width; x++) out[2 * x] = out[2 * x + 1] = in[x];
    std::memcpy(out + out_pitch, out, static_cast<size_t>(2 * width) * sizeof(T));
  }
}

}  // namespace

void run_upsample2(const View& in, const View& out, const Tools& tools) {
  if (in.planar()) {
    const int step = in.type == DType::b1 ? 4 : 1;
    tools.pool.run((in.channels + step - 1) / step, [&](int g, int) {
      if (in.type == DType::b1)
        planar(in.b1(4 * g), in.pitch, out.b1(4 * g), out.pitch, in.height, in.width);
      else
        planar(in.s16(g), in.pitch, out.s16(g), out.pitch, in.height, in.width);
    });
  } else {
    const auto bytes = static_cast<size_t>(round_up(in.channels, in.type == DType::u8 ? 4 : 16));
    tools.pool.run(in.height, [&](int y, int) {
      const uint8_t* from = in.data + ptrdiff_t{y} * in.pitch * in.pixel;
      uint8_t* to = out.data + ptrdiff_t{2 * y} * out.pitch * out.pixel;
      const ptrdiff_t below = ptrdiff_t{out.pitch} * out.pixel;
      for (int x = 0; x < in.width; x++, from += in.pixel, to += 2 * out.pixel)
        for (uint8_t* copy : {to, to + out.pixel, to + below, to + below + out.pixel}) std::memcpy(copy, from, bytes);
    });
  }
  clear_border(out);
}

}  // namespace mpq
