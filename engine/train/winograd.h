// Convolutions of 3x3 that step by 1, by Winograd's F(4x4, 3x3) (Lavin & Gray 2016): a tile of 4x4 results costs 36
// multiplications for each pair of channels, where the plain sum takes 144.
#pragma once

#include "conv.h"

namespace mpqt::winograd {

// Filters of 3x3 over a map: window (y, x) of h * w begins at pixel (y - pad, x - pad); what lies outside of the map is 0.
struct Windows {
  Map map;
  int64_t pad, h, w;
};

// Whether it costs less than the plain sum, for n channels of the result.
bool pays(const Windows& windows, int64_t n);

// y(window)[0..n) = sum over the 3x3 pixels of a window and its channels, with filters (n, 3, 3, c); or with (c, 3, 3, n) that
// are turned around, which is the gradient of a map from that of its results.
void correlate(const float* x, const Windows& windows, const float* weight, bool turned, int64_t n, float* y, const Grid& to);

// dw (o, 3, 3, c) = sum over all windows of g(window) times its pixels; g: (images, h, w, o).
void weights(const float* x, const Windows& windows, const float* g, int64_t o, float* dw);

}  // namespace mpqt::winograd
