// threshold: s16 to b1, one comparison a channel, or three for an upper and a lower bit.
#include <algorithm>

#include "../numerics.h"
#include "ops.h"

namespace mpq {
namespace {

constexpr int kPart = 2048;  // positions

// The lower bit is 1 from T + step on, and between T - step and T.
void lower_bits(const View& in, const int16_t* threshold, int step, int group, const uint8_t* upper, uint8_t* out,
                const Tools& tools) {
  int16_t low[4], high[4];
  for (int j = 0; j < 4; j++) {
    low[j] = static_cast<int16_t>(sat16(threshold[4 * group + j] - step));
    high[j] = static_cast<int16_t>(sat16(threshold[4 * group + j] + step));
  }
  uint8_t above[kPart];
  for (int begin = 0; begin < in.positions(); begin += kPart) {
    const int n = std::min(kPart, in.positions() - begin);
    const int16_t* x = in.s16(4 * group) + begin;
    tools.rows.threshold(x, in.plane, low, 4, out + begin, n);
    tools.rows.threshold(x, in.plane, high, 4, above, n);
    for (int i = 0; i < n; i++) out[begin + i] = static_cast<uint8_t>((out[begin + i] & ~upper[begin + i]) | above[i]);
  }
}

}  // namespace

void run_threshold(const View& in, const int16_t* threshold, int step, const View& out, const Tools& tools) {
  tools.pool.run((in.channels + 3) / 4, [&](int g, int) {
    const int channels = std::min(4, in.channels - 4 * g);
    tools.rows.threshold(in.s16(4 * g), in.plane, threshold + 4 * g, channels, out.b1(4 * g), in.positions());
    if (step) lower_bits(in, threshold, step, g, out.b1(4 * g), out.b1(in.channels + 4 * g), tools);
  });
  clear_border(out);
}

}  // namespace mpq
