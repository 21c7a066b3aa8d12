// The plan of a session: sizes, layouts and addresses of every map, known before anything runs.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/kernel.h"
#include "layout.h"
#include "model.h"

namespace mpq {

struct ConvPlan {
  Conv conv;
  const ConvKernel* kernel = nullptr;
  std::vector<ptrdiff_t> taps;  // b1 only
  // b1 with stride 2: four phase planes for every plane of the input, [planes][2][2][phase_rows * in_pitch] bytes.
  bool split = false;
  int phase_border = 0;
  ptrdiff_t phase_plane = 0;
  size_t phase_offset = 0;  // in the arena
  size_t prepared_offset = 0;
  // A convolution whose s16 output an average pool alone reads: bands of rows go through scratch, [channels][band_plane].
  int pool = -1;  // step of that pool, which then has nothing to do
  int band_rows = 0;
  ptrdiff_t band_plane = 0;
  size_t band_offset = 0;  // in a thread's scratch, behind the kernel's
};

struct StepPlan {
  const Node* node = nullptr;
  int conv = -1;             // index into Plan::convs
  bool done = false;         // a convolution before it does its work
  size_t scratch_bytes = 0;  // of each thread
};

struct Plan {
  std::vector<View> views;      // by tensor; `data` is null here, see offsets
  std::vector<size_t> offsets;  // by tensor: of pixel (0, 0) of channel 0, in the arena
  std::vector<StepPlan> steps;  // by node
  std::vector<ConvPlan> convs;
  size_t arena_bytes = 0;                        // maps, phase planes and scratch
  size_t prepared_bytes = 0;                     // weights as the kernels want them
  size_t scratch_offset = 0, scratch_bytes = 0;  // of thread 0, of each thread
};

// Throws Fault if the graph cannot take this size, or maps with scratch, or weights, need more than 4 GiB. Without `reuse` every
// map keeps its own memory, so that all of them can be read after a run.
Plan make_plan(const Model& model, int height, int width, Isa isa, int threads, bool reuse);

}  // namespace mpq
