// Convolutions of a training step, float32, channels-last: results, and the gradients of inputs and weights.
//
// In channels-last memory a filter's row of k pixels is one run of k * c floats, so no map is ever unfolded; only borders are
// copied. Filters of 3x3 that step by 1 go by Winograd's way (winograd.h) where that costs less.
#include "conv.h"

#include "winograd.h"

namespace {

using namespace mpqt;

constexpr int64_t kPixels = 96;  // pixels of a block: their inputs stay in L2 while the channels of the result go by

// x in a border of `pad` zeros, until the next call; x itself where pad is 0.
const float* bordered(const float* x, const Map& map, int64_t pad) {
  if (pad == 0) return x;
  const int64_t row = (map.w + 2 * pad) * map.c, line = map.w * map.c;
  float* copy = room(kBordered, map.images * (map.h + 2 * pad) * row);
  for_jobs(map.images, [&](int64_t image) {
    float* to = copy + image * (map.h + 2 * pad) * row;
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(pad * row));
    to += pad * row;
    for (int64_t y = 0; y < map.h; y++, to += row) {
      std::memset(to, 0, sizeof(float) * static_cast<size_t>(pad * map.c));
      std::memcpy(to + pad * map.c, x + (image * map.h + y) * line, sizeof(float) * static_cast<size_t>(line));
      std::memset(to + pad * map.c + line, 0, sizeof(float) * static_cast<size_t>(pad * map.c));
    }
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(pad * row));
  });
  return copy;
}

// y(pixel)[0..n) = sum over the runs of x(pixel) with the weights [n / 16][steps][16], for images * h * w pixels.
void product(int64_t images, int64_t h, int64_t w, const float* x, const Grid& from, float* y, const Grid& to,
             const std::vector<Run>& runs, const float* weights, int64_t n) {
  std::vector<Run> pieces;  // none longer than a pass
  int64_t steps = 0;
  for (const Run& run : runs) {
    const int64_t count = blocks(run.length, kSpan);
    for (int64_t i = 0; i < count; i++)
      pieces.push_back({run.offset + run.length * i / count, run.length * (i + 1) / count - run.length * i / count});
    steps += run.length;
  }
  for_blocks(images * h * w, kPixels, [&](int64_t, int64_t begin, int64_t end) {
    const float* in[kPixels];
    float* out[kPixels];
    for (int64_t i = begin; i < end; i++) {
      const int64_t image = i / (h * w), row = i / w % h, pixel = i % w;
      in[i - begin] = x + image * from.image + row * from.row + pixel * from.pixel;
      out[i - begin] = y + image * to.image + row * to.row + pixel * to.pixel;
    }
    for (int64_t first = 0; first < n; first += kLanes) {
      const float* panel = weights + first * steps;
      const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - first));
      if (first)
        for (int64_t i = 0; i < end - begin; i++) out[i] += kLanes;
      for (size_t at = 0; at < pieces.size();) {
        size_t next = at;
        int64_t span = 0;
        while (next < pieces.size() && (next == at || span + pieces[next].length <= kSpan)) span += pieces[next++].length;
        for (int64_t i = 0; i < end - begin; i += kTileRows) {
          const int count = static_cast<int>(std::min<int64_t>(kTileRows, end - begin - i));
          (lanes > 8 ? tile<2> : tile<1>)(count, in + i, out + i, &pieces[at], static_cast<int64_t>(next - at), panel, at == 0,
                                          lanes);
        }
        panel += span * kLanes;
        at = next;
      }
    }
  });
}

}  // namespace

// x: (images, h, w, c); weight: (o, k, k, c), the memory of torch's channels-last filters; y, g: (images, h', w', o), h' = (h + 2
// * pad - k) / stride + 1.

MPQT mpqt_conv_forward(int64_t images, int64_t h, int64_t w, int64_t c, int64_t o, int64_t k, int64_t stride, int64_t pad,
                       const float* x, const float* weight, float* y) {
  const Map result{images, (h + 2 * pad - k) / stride + 1, (w + 2 * pad - k) / stride + 1, o};
  const winograd::Windows windows{{images, h, w, c}, pad, result.h, result.w};
  if (k == 3 && stride == 1 && winograd::pays(windows, o))
    return winograd::correlate(x, windows, weight, false, o, y, grid(result));
  std::vector<float> panels(static_cast<size_t>(blocks(o, kLanes) * kLanes * k * k * c));
  const int64_t steps = k * k * c;
  for_jobs(blocks(o, kLanes), [&](int64_t block) {
    float* to = panels.data() + block * steps * kLanes;
    const int64_t lanes = std::min<int64_t>(kLanes, o - block * kLanes);
    for (int64_t lane = 0; lane < lanes; lane++) {
      const float* from = weight + (block * kLanes + lane) * steps;
      for (int64_t i = 0; i < steps; i++) to[i * kLanes + lane] = from[i];
    }
  });
  const float* in = bordered(x, {images, h, w, c}, pad);
  const Map wide{images, h + 2 * pad, w + 2 * pad, c};
  std::vector<Run> runs;
  for (int64_t ky = 0; ky < k; ky++) runs.push_back({ky * wide.w * c, k * c});
  Grid from = grid(wide, stride);
  product(images, result.h, result.w, in, from, y, grid(result), runs, panels.data(), o);
}

// dx within a border of `border` pixels that have no gradient: the caller's x was made with it, and its content is constant.
// Row y of x meets row (y + pad - ky) / stride of g: for each remainder of y + pad, a convolution of its own with the ky of that
// remainder.
MPQT mpqt_conv_data(int64_t images, int64_t h, int64_t w, int64_t c, int64_t o, int64_t k, int64_t stride, int64_t pad,
                    int64_t border, const float* g, const float* weight, float* dx) {
  const Map whole{images, h, w, c}, grad{images, (h + 2 * pad - k) / stride + 1, (w + 2 * pad - k) / stride + 1, o};
  const int64_t inner_h = h - 2 * border, inner_w = w - 2 * border, reach = pad + border,
                around = std::max<int64_t>(0, k - 1 - reach);
  if (border) clear_border(dx, whole, border);
  const winograd::Windows windows{grad, 2 - reach, inner_h, inner_w};
  if (k == 3 && stride == 1 && winograd::pays(windows, c))
    return winograd::correlate(g, windows, weight, true, c, dx + (border * w + border) * c, grid(whole));
  std::vector<float> panels;
  const float* in = bordered(g, grad, around);
  const Map wide{images, grad.h + 2 * around, grad.w + 2 * around, o};
  if (k < stride) std::memset(dx, 0, sizeof(float) * static_cast<size_t>(whole.size()));  // places that no tap reaches
  const auto phase = [&](int64_t remainder) {  // first place with it, and the row of g that its first tap meets
    const int64_t place = ((remainder - reach) % stride + stride) % stride;
    return std::pair<int64_t, int64_t>(place, (place + reach - remainder) / stride);
  };
  for (int64_t ry = 0; ry < stride; ry++)
    for (int64_t rx = 0; rx < stride; rx++) {
      const auto [y0, row] = phase(ry);
      const auto [x0, column] = phase(rx);
      if (y0 >= inner_h || x0 >= inner_w || ry >= k || rx >= k) continue;
      const int64_t my = blocks(k - ry, stride), mx = blocks(k - rx, stride), steps = my * mx * o;
      panels.assign(static_cast<size_t>(blocks(c, kLanes) * kLanes * steps), 0.0f);
      for_jobs(blocks(c, kLanes), [&](int64_t block) {
        float* to = panels.data() + block * steps * kLanes;
        const auto lanes = static_cast<size_t>(std::min<int64_t>(kLanes, c - block * kLanes));
        for (int64_t ay = my - 1; ay >= 0; ay--)  // rows of g ascend, taps descend
          for (int64_t ax = mx - 1; ax >= 0; ax--)
            for (int64_t channel = 0; channel < o; channel++, to += kLanes)
              std::memcpy(to, weight + ((channel * k + ry + ay * stride) * k + rx + ax * stride) * c + block * kLanes,
                          sizeof(float) * lanes);
      });
      std::vector<Run> runs;
      for (int64_t i = 0; i < my; i++)
        runs.push_back({((row - (my - 1) + i + around) * wide.w + column - (mx - 1) + around) * o, mx * o});
      Grid to = grid(whole, stride);
      product(images, (inner_h - y0 + stride - 1) / stride, (inner_w - x0 + stride - 1) / stride, in, grid(wide),
              dx + ((border + y0) * w + border + x0) * c, to, runs, panels.data(), c);
    }
}

MPQT mpqt_conv_weights(int64_t images, int64_t h, int64_t w, int64_t c, int64_t o, int64_t k, int64_t stride, int64_t pad,
                       const float* x, const float* g, float* dw) {
  const Map wide{images, h + 2 * pad, w + 2 * pad, c};
  const Map grad{images, (wide.h - k) / stride + 1, (wide.w - k) / stride + 1, o};
  const winograd::Windows windows{{images, h, w, c}, pad, grad.h, grad.w};
  if (k == 3 && stride == 1 && winograd::pays(windows, o)) return winograd::weights(x, windows, g, o, dw);
  const float* in = bordered(x, {images, h, w, c}, pad);
  const Grid from = grid(wide, stride), along{grad.h * grad.w * kLanes, grad.w * kLanes, kLanes};
  // Pixels that are far apart in memory share few places of L1: 32 of 256 channels.
  const int64_t pixels = std::min(kPixels, std::max<int64_t>(kTileRows, 8192 / c));
  const int64_t run = k * c, lines = std::max<int64_t>(1, pixels / grad.w), all = images * grad.h;
  for_jobs(blocks(o, kLanes), [&](int64_t block) {
    const int64_t first = block * kLanes, lanes = std::min<int64_t>(kLanes, o - first);
    std::vector<float> sum(static_cast<size_t>(k * run * kLanes));
    float* dense = room(kSums, images * grad.h * grad.w * kLanes);
    for (int64_t i = 0; i < images * grad.h * grad.w; i++)
      std::memcpy(dense + i * kLanes, g + i * o + first, sizeof(float) * static_cast<size_t>(lanes));
    for (int64_t begin = 0; begin < all; begin += lines)
      for (int64_t ky = 0; ky < k; ky++)
        for (int64_t i = 0; i < run; i += kTileRows)
          (lanes > 8 ? outer<2> : outer<1>)(std::min<int64_t>(kTileRows, run - i), in + ky * wide.w * c + i, from, dense, along,
                                            grad.h, begin, std::min(all, begin + lines), grad.w,
                                            sum.data() + (ky * run + i) * kLanes);
    for (int64_t lane = 0; lane < lanes; lane++)
      for (int64_t i = 0; i < k * run; i++) dw[(first + lane) * k * run + i] = sum[static_cast<size_t>(i * kLanes + lane)];
  });
}
