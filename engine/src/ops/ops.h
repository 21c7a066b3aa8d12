// The operators: each takes views in and views out, splits its work over the pool and calls kernels. None chooses a kernel.
#pragma once

#include "../kernels/kernel.h"
#include "../layout.h"
#include "../threads.h"

namespace mpq {

struct ConvPlan;

struct Tools {
  ThreadPool& pool;
  const RowKernels& rows;
  uint8_t* scratch;      // of thread 0
  size_t scratch_bytes;  // of each thread
  uint8_t* scratch_of(int thread) const { return scratch + scratch_bytes * static_cast<size_t>(thread); }
};

// pooled: if the plan says so, the map that takes the 2x2 averages of the s16 output, which itself is never stored.
void run_conv(const ConvPlan& plan, const uint8_t* prepared, uint8_t* phases, const View& in, const View* residual,
              const View* outputs, int output_count, const View* pooled, const Tools& tools);
void run_threshold(const View& in, const int16_t* threshold, int step, const View& out, const Tools& tools);
void run_requantise(const View& in, const int16_t* multiplier, const int16_t* bias, int fraction, const View& out,
                    const Tools& tools);
void run_avgpool2(const View& in, const View& out, const Tools& tools);
void run_maxpool(const View& in, int kernel, const View& out, const Tools& tools);
size_t maxpool_scratch(const View& in);
void run_upsample2(const View& in, const View& out, const Tools& tools);
// Copies one input to its channels; does nothing where it already lies there.
void run_concat(const View& in, int first_channel, const View& out, const Tools& tools);

// Zeroes the border of a map (u8, u4, b1; s16 has none).
void clear_border(const View& view);

// A map from a dense image, [height][width][channels] bytes, and to a dense (C, H, W) array of its own values
// (u8 and u4: uint8, b1: int8 -1 or +1, s16: int16).
void load_image(const uint8_t* image, const View& out, const Tools& tools);
void read_dense(const View& view, void* out);

}  // namespace mpq
