#include "preprocess.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "fault.h"

namespace mpq {
namespace {

constexpr int kMaxPhoto = 1 << 16;  // pixels a side
constexpr uint8_t kFill = 114;

// The weights of a length n resized to m: output i is the sum of count[i] sources from first[i] on.
struct Filter {
  std::vector<int> first, start, count;
  std::vector<int32_t> q;
  int longest = 0;

  Filter(int n, int m) {
    const int64_t reach = 2 * int64_t{std::max(n, m)};
    for (int64_t i = 0; i < m; i++) {
      const int64_t centre = (2 * i + 1) * n;
      // weight = reach - |centre - (2j+1)*m| > 0  <=>  (centre - reach) / m < 2j+1 < (centre + reach) / m
      const int64_t low = std::max<int64_t>(0, (centre - reach) / (2 * int64_t{m}) - 1);
      const int64_t high = std::min<int64_t>(n - 1, (centre + reach) / (2 * int64_t{m}) + 1);
      const auto weight = [&](int64_t j) { return std::max<int64_t>(0, reach - std::abs(centre - (2 * j + 1) * m)); };
      int64_t begin = low, end = high, sum = 0, best = low;
      while (begin < end && weight(begin) == 0) begin++;
      while (end > begin && weight(end) == 0) end--;
      best = begin;
      for (int64_t j = begin; j <= end; j++) {
        sum += weight(j);
        if (weight(j) > weight(best)) best = j;
      }
      first.push_back(static_cast<int>(begin));
      start.push_back(static_cast<int>(q.size()));
      count.push_back(static_cast<int>(end - begin + 1));
      longest = std::max(longest, count.back());
      int32_t rest = 16384;
      for (int64_t j = begin; j <= end; j++) {
        q.push_back(static_cast<int32_t>(weight(j) * 16384 / sum));
        rest -= q.back();
      }
      q[static_cast<size_t>(start.back() + best - begin)] += rest;
    }
  }
};

void resize_row(const uint8_t* in, const Filter& filter, uint8_t* out) {
  const int m = static_cast<int>(filter.first.size());
  for (int i = 0; i < m; i++) {
    const uint8_t* p = in + 3 * ptrdiff_t{filter.first[i]};
    const int32_t* q = filter.q.data() + filter.start[i];
    int32_t r = 8192, g = 8192, b = 8192;
    for (int j = 0; j < filter.count[i]; j++) {
      r += q[j] * p[3 * j];
      g += q[j] * p[3 * j + 1];
      b += q[j] * p[3 * j + 2];
    }
    out[3 * i] = static_cast<uint8_t>(r >> 14);
    out[3 * i + 1] = static_cast<uint8_t>(g >> 14);
    out[3 * i + 2] = static_cast<uint8_t>(b >> 14);
  }
}

void store_row(const uint8_t* rgb, int n, uint8_t* out, int pixel) {
  if (pixel == 3) {
    std::memcpy(out, rgb, static_cast<size_t>(n) * 3);
    return;
  }
  for (int x = 0; x < n; x++) {
    for (int c = 0; c < 3; c++) out[4 * x + c] = rgb[3 * x + c];
    out[4 * x + 3] = 0;
  }
}

void fill(uint8_t* out, int n, int pixel) {
  for (int x = 0; x < n; x++, out += pixel) {
    std::memset(out, kFill, 3);
    if (pixel == 4) out[3] = 0;
  }
}

}  // namespace

Placement place(int w, int h, int width, int height) {
  const int64_t W = width, H = height;
  int64_t nw = W, nh = H;
  if (W * h <= H * w)
    nh = std::max<int64_t>(1, (2 * h * W + w) / (2 * int64_t{w}));
  else
    nw = std::max<int64_t>(1, (2 * w * H + h) / (2 * int64_t{h}));
  return {static_cast<int>((W - nw) / 2), static_cast<int>((H - nh) / 2), static_cast<int>(nw), static_cast<int>(nh), w, h};
}

Placement letterbox(const uint8_t* photo, int w, int h, ptrdiff_t row_stride, uint8_t* image, int width, int height, int pixel,
                    ptrdiff_t image_stride) {
  need(photo != nullptr && w > 0 && h > 0, "the photo has no pixels");
  need(w <= kMaxPhoto && h <= kMaxPhoto, "the photo is wider or higher than 65536 pixels");
  need(row_stride >= 3 * ptrdiff_t{w}, "the photo's row stride is less than 3 bytes a pixel");
  const Placement at = place(w, h, width, height);
  const Filter across(w, at.nw), down(h, at.nh);
  const size_t row_bytes = static_cast<size_t>(at.nw) * 3;

  // Source rows, resized across, come by once: a ring holds as many as one output row reads.
  const int ring = down.longest + 1;
  std::vector<uint8_t> rows(row_bytes * static_cast<size_t>(ring)), line(row_bytes);
  std::vector<int32_t> sums(row_bytes);
  int ready = 0;
  for (int y = 0; y < height; y++) {
    uint8_t* out = image + y * image_stride;
    const int i = y - at.top;
    if (i < 0 || i >= at.nh) {
      fill(out, width, pixel);
      continue;
    }
    const int first = down.first[i], last = first + down.count[i] - 1;
    for (ready = std::max(ready, first); ready <= last; ready++) {
      uint8_t* row = rows.data() + row_bytes * static_cast<size_t>(ready % ring);
      if (w == at.nw)
        std::memcpy(row, photo + ready * row_stride, row_bytes);
      else
        resize_row(photo + ready * row_stride, across, row);
    }
    if (h == at.nh) {
      std::memcpy(line.data(), rows.data() + row_bytes * static_cast<size_t>(i % ring), row_bytes);
    } else {
      std::fill(sums.begin(), sums.end(), 8192);
      for (int j = 0; j < down.count[i]; j++) {
        const uint8_t* row = rows.data() + row_bytes * static_cast<size_t>((first + j) % ring);
        const int32_t q = down.q[static_cast<size_t>(down.start[i] + j)];
        for (size_t x = 0; x < row_bytes; x++) sums[x] += q * row[x];
      }
      for (size_t x = 0; x < row_bytes; x++) line[x] = static_cast<uint8_t>(sums[x] >> 14);
    }
    fill(out, at.left, pixel);
    store_row(line.data(), at.nw, out + ptrdiff_t{at.left} * pixel, pixel);
    fill(out + ptrdiff_t{at.left + at.nw} * pixel, width - at.left - at.nw, pixel);
  }
  return at;
}

}  // namespace mpq
