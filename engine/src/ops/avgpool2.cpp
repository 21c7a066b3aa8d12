// avgpool2: 2x2, stride 2, on the stream.
#include "ops.h"

namespace mpq {

void run_avgpool2(const View& in, const View& out, const Tools& tools) {
  tools.pool.run(out.channels, [&](int c, int) {
    for (int y = 0; y < out.height; y++) {
      const int16_t* top = in.s16(c) + ptrdiff_t{2 * y} * in.pitch;
      tools.rows.avgpool2(top, top + in.pitch, out.s16(c) + ptrdiff_t{y} * out.pitch, out.width);
    }
  });
}

}  // namespace mpq
