// requantise: s16 or u8 to u4 codes.
#include <algorithm>
#include <cstring>

#include "../numerics.h"
#include "ops.h"

namespace mpq {

void run_requantise(const View& in, const int16_t* multiplier, const int16_t* bias, int fraction, const View& out,
                    const Tools& tools) {
  int16_t times[4] = {}, plus[4] = {};
  std::copy_n(multiplier, std::min(in.channels, 4), times);
  std::copy_n(bias, std::min(in.channels, 4), plus);
  tools.pool.run(in.height, [&](int y, int) {
    const ptrdiff_t row = ptrdiff_t{y} * in.pitch;
    uint8_t* to = out.data + row * out.pixel;
    if (in.type == DType::s16) {
      for (int c = 0; c < in.channels; c += 16)
        tools.rows.requantise(in.s16(c) + row, in.plane, multiplier + c, bias + c, fraction, std::min(16, in.channels - c),
                              to + c, out.pixel, in.width);
      return;
    }
    const uint8_t* from = in.data + row * in.pixel;
    if (in.pixel == 4 && out.pixel == 4) {
      tools.rows.recode4(from, times, plus, fraction, to, in.width);
      return;
    }
    for (int x = 0; x < in.width; x++, from += in.pixel, to += out.pixel) {
      for (int c = 0; c < in.channels; c++) {
        const int v = sat16(mulhrs(from[c] << 7, multiplier[c]) + bias[c]);
        to[c] = static_cast<uint8_t>(std::min(std::max(v >> fraction, 0), 15));
      }
      std::memset(to + in.channels, 0, static_cast<size_t>(round_up(in.channels, 16) - in.channels));
    }
  });
  clear_border(out);
}

}  // namespace mpq
