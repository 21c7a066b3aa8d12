// The letterbox of docs/numerics.md, section 6, in integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernel.h"

namespace mpq {

struct Placement {
  int left, top, nw, nh, w, h;
};

Placement place(int w, int h, int width, int height);

// The weights of a length n resized to m, as row kernels want them: output i is the sum of `taps` sources from first[i] on.
struct Filter {
  std::vector<int32_t> first;
  std::vector<int16_t> q;      // [m][taps]
  int n = 0, m = 0, taps = 0;  // taps: even

  Filter() = default;
  Filter(int from, int to);
  void make(int from, int to);  // nothing to do if it is this one already
};

// Photos of one size come in rows (a camera's, a folder's), so weights and rows are kept from one photo to the next.
class Letterbox {
 public:
  // photo: w x h RGB pixels of 3 bytes. image: width x height pixels of `pixel` bytes (3, or 4 of which the last is
  // written 0), row_stride and image_stride bytes a row. Throws Fault if the photo has no pixels or too many.
  Placement operator()(const uint8_t* photo, int w, int h, ptrdiff_t row_stride, uint8_t* image, int width, int height, int pixel,
                       ptrdiff_t image_stride, const RowKernels& kernels);

 private:
  Filter across_, down_;
  std::vector<uint8_t> store_;
  std::vector<const uint8_t*> taps_;
};

}  // namespace mpq
