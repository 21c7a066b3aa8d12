#include "preprocess.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "fault.h"
#include "layout.h"

namespace mpq {
namespace {

constexpr int kMaxPhoto = 1 << 16;  // pixels a side
constexpr uint8_t kFill = 114;

int64_t weight(int64_t reach, int64_t centre, int64_t m, int64_t j) {
  return std::max<int64_t>(0, reach - std::abs(centre - (2 * j + 1) * m));
}

void store_row(const uint8_t* rgb, int n, uint8_t* out, int pixel, const RowKernels& rows) {
  if (pixel == 3)
    std::memcpy(out, rgb, static_cast<size_t>(n) * 3);
  else
    rows.widen3(rgb, out, n);
}

void fill(uint8_t* out, int n, int pixel) {
  for (int x = 0; x < n; x++, out += pixel) {
    std::memset(out, kFill, 3);
    if (pixel == 4) out[3] = 0;
  }
}

}  // namespace

void Filter::make(int from, int to) {
  if (n == from && m == to) return;
  *this = Filter(from, to);
}

Filter::Filter(int from, int to) : n(from), m(to) {
  const int64_t reach = 2 * int64_t{std::max(n, m)};
  std::vector<int64_t> last;
  for (int64_t i = 0; i < m; i++) {
    // weight = reach - |centre - (2j+1)*m| > 0  <=>  (centre - reach) / m < 2j+1 < (centre + reach) / m
    const int64_t centre = (2 * i + 1) * n;
    int64_t begin = std::max<int64_t>(0, (centre - reach) / (2 * int64_t{m}) - 1);
    int64_t end = std::min<int64_t>(n - 1, (centre + reach) / (2 * int64_t{m}) + 1);
    while (begin < end && weight(reach, centre, m, begin) == 0) begin++;
    while (end > begin && weight(reach, centre, m, end) == 0) end--;
    first.push_back(static_cast<int32_t>(begin));
    last.push_back(end);
    taps = std::max(taps, static_cast<int>(end - begin + 1));
  }
  taps = round_up(taps, 2);
  q.resize(static_cast<size_t>(m) * static_cast<size_t>(taps));
  for (int64_t i = 0; i < m; i++) {
    const int64_t centre = (2 * i + 1) * n, begin = first[static_cast<size_t>(i)], end = last[static_cast<size_t>(i)];
    int64_t sum = 0, best = begin, rest = 16384;
    for (int64_t j = begin; j <= end; j++) {
      sum += weight(reach, centre, m, j);
      if (weight(reach, centre, m, j) > weight(reach, centre, m, best)) best = j;
    }
    int16_t* mine = q.data() + i * taps;
    for (int64_t j = begin; j <= end; j++) {
      mine[j - begin] = static_cast<int16_t>(weight(reach, centre, m, j) * 16384 / sum);
      rest -= mine[j - begin];
    }
    mine[best - begin] = static_cast<int16_t>(mine[best - begin] + rest);
  }
}

Placement place(int w, int h, int width, int height) {
  const int64_t W = width, H = height;
  int64_t nw = W, nh = H;
  if (W * h <= H * w)
    nh = std::max<int64_t>(1, (2 * h * W + w) / (2 * int64_t{w}));
  else
    nw = std::max<int64_t>(1, (2 * w * H + h) / (2 * int64_t{h}));
  return {static_cast<int>((W - nw) / 2), static_cast<int>((H - nh) / 2), static_cast<int>(nw), static_cast<int>(nh), w, h};
}

Placement Letterbox::operator()(const uint8_t* photo, int w, int h, ptrdiff_t row_stride, uint8_t* image, int width, int height,
                                int pixel, ptrdiff_t image_stride, const RowKernels& kernels) {
  need(photo != nullptr && w > 0 && h > 0, "the photo has no pixels");
  need(w <= kMaxPhoto && h <= kMaxPhoto, "the photo is wider or higher than 65536 pixels");
  need(row_stride >= 3 * ptrdiff_t{w}, "the photo's row stride is less than 3 bytes a pixel");
  const Placement at = place(w, h, width, height);
  across_.make(w, at.nw), down_.make(h, at.nh);

  // Source rows, resized across, come by once: a ring holds as many as one output row reads.
  const int row_bytes = 3 * at.nw, pitch = round_up(row_bytes + 32, kAlign), ring = down_.taps + 1;
  store_.resize(static_cast<size_t>(pitch) * static_cast<size_t>(ring + 1));
  uint8_t* const line = store_.data() + static_cast<ptrdiff_t>(pitch) * ring;
  const auto row_at = [&](int y) { return store_.data() + static_cast<ptrdiff_t>(pitch) * (y % ring); };
  taps_.resize(static_cast<size_t>(down_.taps));
  int ready = 0;
  for (int y = 0; y < height; y++) {
    uint8_t* out = image + y * image_stride;
    const int i = y - at.top;
    if (i < 0 || i >= at.nh) {
      fill(out, width, pixel);
      continue;
    }
    const int first = down_.first[static_cast<size_t>(i)], last = std::min(first + down_.taps, h) - 1;
    for (ready = std::max(ready, first); ready <= last; ready++) {
      if (w == at.nw)
        std::memcpy(row_at(ready), photo + ready * row_stride, static_cast<size_t>(row_bytes));
      else
        kernels.resize3(photo + ready * row_stride, w, across_.first.data(), across_.q.data(), across_.taps, row_at(ready),
                        at.nw);
    }
    const uint8_t* result = line;
    if (h == at.nh) {
      result = row_at(i);
    } else {
      for (int j = 0; j < down_.taps; j++) taps_[static_cast<size_t>(j)] = row_at(std::min(first + j, last));  // q is 0 from h on
      kernels.blend(taps_.data(), down_.q.data() + static_cast<ptrdiff_t>(i) * down_.taps, down_.taps, line, row_bytes);
    }
    fill(out, at.left, pixel);
    store_row(result, at.nw, out + ptrdiff_t{at.left} * pixel, pixel, kernels);
    fill(out + ptrdiff_t{at.left + at.nw} * pixel, width - at.left - at.nw, pixel);
  }
  return at;
}

}  // namespace mpq
