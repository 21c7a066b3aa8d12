// threshold: s16 to b1, one comparison a channel.
#include <algorithm>

#include "ops.h"

namespace mpq {

void run_threshold(const View& in, const int16_t* threshold, const View& out, const Tools& tools) {
  tools.pool.run((in.channels + 3) / 4, [&](int g, int) {
    const int channels = std::min(4, in.channels - 4 * g);
    tools.rows.threshold(in.s16(4 * g), in.plane, threshold + 4 * g, channels, out.b1(4 * g), in.positions());
  });
  clear_border(out);
}

}  // namespace mpq
