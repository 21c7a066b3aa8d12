// conv: splits a strided 1-bit map into phases, then gives ranges of positions and channels to the kernel.
#include <algorithm>
#include <cstring>

#include "../plan.h"
#include "ops.h"

namespace mpq {
namespace {

// Rows y and columns x of plane g go to phase (y & 1, x & 1), position (y / 2, x / 2); everything round them is zero.
void split_plane(const ConvPlan& plan, const RowKernels& rows, const View& in, int g, uint8_t* phases) {
  const int pitch = plan.conv.in_pitch, border = plan.phase_border;
  const ptrdiff_t size = plan.phase_plane / 4;
  uint8_t* to = phases + g * plan.phase_plane;
  std::memset(to, 0, static_cast<size_t>(plan.phase_plane));  // in L1 or L2 when the rows follow
  to += ptrdiff_t{border} * pitch + border;
  for (int y = 0; y < in.height; y++) {
    const uint8_t* from = in.data + g * in.plane + ptrdiff_t{y} * in.pitch;
    uint8_t* even = to + (y & 1) * 2 * size + ptrdiff_t{y >> 1} * pitch;
    rows.split2(from, even, even + size, in.width / 2);
    if (in.width & 1) even[in.width / 2] = from[in.width - 1];
  }
}

// A band of rows at a time into scratch, and from there, while it lies in a cache, the average of its 2x2 pixels.
void run_pooled(const ConvPlan& plan, const ConvCall& call, const View& pooled, const Tools& tools) {
  const Conv& conv = plan.conv;
  const int bands = (conv.height + plan.band_rows - 1) / plan.band_rows;
  tools.pool.run(bands, [&](int band, int thread) {
    ConvCall mine = call;
    const int first = band * plan.band_rows, last = std::min(first + plan.band_rows, conv.height);
    mine.scratch = tools.scratch_of(thread);
    auto* const rows = reinterpret_cast<int16_t*>(mine.scratch + plan.band_offset);
    mine.begin = first * conv.out_pitch, mine.end = last * conv.out_pitch;
    mine.channel_begin = 0, mine.channel_end = conv.out_channels;
    mine.s16 = rows - mine.begin, mine.s16_plane = plan.band_plane;
    plan.kernel->run(conv, mine);
    for (int c = 0; c < conv.out_channels; c++) {
      for (int y = first; y < last; y += 2) {
        const int16_t* top = mine.s16 + c * plan.band_plane + ptrdiff_t{y} * conv.out_pitch;
        tools.rows.avgpool2(top, top + conv.out_pitch, pooled.s16(c) + ptrdiff_t{y / 2} * pooled.pitch, pooled.width);
      }
    }
  });
}

}  // namespace

void run_conv(const ConvPlan& plan, const uint8_t* prepared, uint8_t* phases, const View& in, const View* residual,
              const View* outputs, int output_count, const View* pooled, const Tools& tools) {
  const Conv& conv = plan.conv;
  const ConvKernel& kernel = *plan.kernel;
  ConvCall call;
  call.in = in.data;
  call.in_plane = in.plane;
  call.taps = plan.taps.data();
  call.weights = prepared;
  if (plan.split) {
    tools.pool.run((in.channels + 3) / 4, [&](int g, int) { split_plane(plan, tools.rows, in, g, phases); });
    call.in = phases + ptrdiff_t{plan.phase_border} * conv.in_pitch + plan.phase_border;
    call.in_plane = plan.phase_plane;
  }
  if (residual) call.residual = residual->s16(), call.residual_plane = residual->plane;
  for (int i = 0; i < output_count; i++) {
    const View& out = outputs[i];
    if (out.type == DType::s16 && !pooled) call.s16 = out.s16(), call.s16_plane = out.plane;
    if (out.type == DType::b1) {
      call.b1 = out.data, call.b1_plane = out.plane;
      if (conv.step) call.b1_low = out.b1(conv.out_channels);
    }
    if (out.type == DType::u4) call.u4 = out.data, call.u4_pixel = out.pixel;
  }

  if (pooled) {
    run_pooled(plan, call, *pooled, tools);
    for (int i = 0; i < output_count; i++) clear_border(outputs[i]);
    return;
  }

  // Ranges of positions first, because weights are then read once a thread; channels too where a map is small.
  const int granule = kernel.granule(conv), units = (conv.positions() + granule - 1) / granule;
  const int groups = (conv.out_channels + kernel.channel_granule - 1) / kernel.channel_granule;
  const int threads = tools.pool.threads(), wanted = threads == 1 ? 1 : 4 * threads;
  const int slabs = std::min(units, wanted), blocks = std::min(groups, (wanted + slabs - 1) / slabs);
  tools.pool.run(slabs * blocks, [&](int job, int thread) {
    ConvCall mine = call;
    const int slab = job / blocks, block = job % blocks;
    mine.scratch = tools.scratch_of(thread);
    mine.begin = static_cast<int>(int64_t{units} * slab / slabs) * granule;
    mine.end = std::min(static_cast<int>(int64_t{units} * (slab + 1) / slabs) * granule, conv.positions());
    mine.channel_begin = groups * block / blocks * kernel.channel_granule;
    mine.channel_end = std::min(groups * (block + 1) / blocks * kernel.channel_granule, conv.out_channels);
    kernel.run(conv, mine);
  });
  for (int i = 0; i < output_count; i++) clear_border(outputs[i]);
}

}  // namespace mpq
