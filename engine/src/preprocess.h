// The letterbox of docs/numerics.md, section 6, in integers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel.h"

namespace mpq {

struct Placement {
  int left, top, nw, nh, w, h;
};

Placement place(int w, int h, int width, int height);

// photo: w x h RGB pixels of 3 bytes. image: width x height pixels of `pixel` bytes (3, or 4 of which the last is
// written 0), row_stride and image_stride bytes a row. Throws Fault if the photo has no pixels or too many.
Placement letterbox(const uint8_t* photo, int w, int h, ptrdiff_t row_stride, uint8_t* image, int width, int height, int pixel,
                    ptrdiff_t image_stride, const RowKernels& kernels);

}  // namespace mpq
