// The element-wise work of a quantised training step, forward and backward, one pass over memory each. Not part of the
// engine: a library of its own, which mpqyolo.quantize.fused calls on torch's tensors and without which training is the
// same, only slower.
//
// A map is a matrix of rows (batch * height * width) by channels (channels-last memory), float32 or bfloat16; all
// arithmetic is float32. Sums over rows are taken in blocks of kRows rows, each in float, and the blocks are added in
// order in double: the result does not depend on how many threads there are.
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "../src/threads.h"

namespace {

constexpr int64_t kRows = 256;
std::unique_ptr<mpq::ThreadPool> pool;

template <class Block>
void for_blocks(int64_t rows, const Block& block) {
  const int64_t blocks = (rows + kRows - 1) / kRows;
  const int jobs = static_cast<int>(std::min<int64_t>(blocks, 64));
  const auto work = [&](int job, int) {
    for (int64_t b = blocks * job / jobs; b < blocks * (job + 1) / jobs; b++) block(b, b * kRows, std::min(rows, (b + 1) * kRows));
  };
  if (pool) pool->run(jobs, work);
  else for (int job = 0; job < jobs; job++) work(job, 0);
}

struct F32 {
  using T = float;
  static float get(float v) { return v; }
  static float put(float v) { return v; }
};

struct BF16 {
  using T = uint16_t;
  static float get(uint16_t v) {
    const uint32_t bits = uint32_t{v} << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  }
  static uint16_t put(float f) {  // to nearest, ties to even; training never stores NaN here that must survive
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
};

// Sums of `width` numbers a block, added up in order.
class Sums {
 public:
  Sums(int64_t rows, int64_t width) : width_(width), blocks_((rows + kRows - 1) / kRows), parts_(static_cast<size_t>(blocks_ * width)) {}
  float* of(int64_t block) { return parts_.data() + block * width_; }
  void total(float* to) const {
    std::vector<double> sum(static_cast<size_t>(width_));
    for (int64_t b = 0; b < blocks_; b++)
      for (int64_t c = 0; c < width_; c++) sum[static_cast<size_t>(c)] += parts_[static_cast<size_t>(b * width_ + c)];
    for (int64_t c = 0; c < width_; c++) to[c] = static_cast<float>(sum[static_cast<size_t>(c)]);
  }

 private:
  int64_t width_, blocks_;
  std::vector<float> parts_;
};

// y = f(z + r - before) + after, f(v) = v below zero slope * v. r may be null.
template <class D, bool kResidual>
void tail_forward(int64_t rows, int64_t n, const typename D::T* z, const typename D::T* r, const float* before, const float* slope,
                  const float* after, typename D::T* y) {
  for_blocks(rows, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const auto* zi = z + i * n;
      const auto* ri = kResidual ? r + i * n : zi;
      auto* yi = y + i * n;
      for (int64_t c = 0; c < n; c++) {
        const float v = D::get(zi[c]) + (kResidual ? D::get(ri[c]) : 0.0f) - before[c];
        yi[c] = D::put((v < 0 ? slope[c] * v : v) + after[c]);
      }
    }
  });
}

// Calls lanes(first, width) for channels in groups of kLanes, so that a group's sums and parameters stay in registers
// while the rows of a block pass; the last groups, of one channel, are the tail.
constexpr int64_t kLanes = 16;

template <class Lanes>
inline void by_lanes(int64_t n, const Lanes& lanes) {
  int64_t c = 0;
  for (; c + kLanes <= n; c += kLanes) lanes(c, std::integral_constant<int, kLanes>());
  for (; c < n; c++) lanes(c, std::integral_constant<int, 1>());
}

// dv = g * f'(v); sums: [sum dv, sum g * v where v < 0, sum g] a channel.
template <class D, bool kResidual>
void tail_backward(int64_t rows, int64_t n, const typename D::T* g, const typename D::T* z, const typename D::T* r,
                   const float* before, const float* slope, typename D::T* dv, float* sums) {
  Sums parts(rows, 3 * n);
  for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
    float* const sum = parts.of(block);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float through[kWidth] = {}, below[kWidth] = {}, all[kWidth] = {}, b[kWidth], s[kWidth];
      for (int c = 0; c < kWidth; c++) b[c] = before[first + c], s[c] = slope[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float v = D::get(z[i + c]) + (kResidual ? D::get(r[i + c]) : 0.0f) - b[c], gc = D::get(g[i + c]);
          const float low = v < 0 ? gc : 0.0f, d = gc - low + low * s[c];
          to[c] = D::put(d);
          through[c] += d;
          below[c] += low * v;
          all[c] += gc;
        }
        std::memcpy(dv + i, to, sizeof to);
      }
      for (int c = 0; c < kWidth; c++) sum[first + c] = through[c], sum[n + first + c] = below[c], sum[2 * n + first + c] = all[c];
    });
  });
  parts.total(sums);
}

// y = t * sign(x - shift) + (1 - t) * (x - shift)
template <class D>
void sign_forward(int64_t rows, int64_t n, const typename D::T* x, const float* shift, float t, typename D::T* y) {
  const float rest = 1 - t;
  for_blocks(rows, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t c = 0; c < n; c++) {
        const float u = D::get(x[i * n + c]) - shift[c];
        y[i * n + c] = D::put((u >= 0 ? t : -t) + rest * u);
      }
  });
}

enum Ste { kClip, kPolynomial, kIdentity };

template <class D, int kSte>
void sign_backward(int64_t rows, int64_t n, const typename D::T* g, const typename D::T* x, const float* shift, float t,
                   typename D::T* dx, float* sums) {
  Sums parts(rows, n);
  const float rest = 1 - t;
  for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
    float* const all = parts.of(block);
    by_lanes(n, [=](int64_t first, auto width) {
      constexpr int kWidth = decltype(width)::value;
      float sum[kWidth] = {}, at[kWidth];
      for (int c = 0; c < kWidth; c++) at[c] = shift[first + c];
      for (int64_t i = begin * n + first; i < end * n; i += n) {
        typename D::T to[kWidth];
        for (int c = 0; c < kWidth; c++) {
          const float a = std::fabs(D::get(x[i + c]) - at[c]);
          const float d = kSte == kClip ? (a <= 1 ? 1.0f : 0.0f) : kSte == kPolynomial ? std::max(2 - 2 * a, 0.0f) : 1.0f;
          const float value = D::get(g[i + c]) * (t * d + rest);
          to[c] = D::put(value);
          sum[c] += value;
        }
        std::memcpy(dx + i, to, sizeof to);
      }
      for (int c = 0; c < kWidth; c++) all[first + c] = sum[c];
    });
  });
  parts.total(sums);
}

inline float code_of(float v, float low, float high) { return std::min(std::max(std::floor(v + 0.5f), low), high); }

// y = t * s * clamp(floor(x / s + 1/2), low, high) + (1 - t) * f(x), f = ReLU if low is 0.
template <class D>
void lsq_forward(int64_t rows, int64_t n, const typename D::T* x, float scale, float low, float high, float t, typename D::T* y) {
  const float inverse = 1 / scale, rest = 1 - t, floor_at = low == 0 ? 0.0f : -INFINITY;
  for_blocks(rows, [=](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin * n; i < end * n; i++) {
      const float u = D::get(x[i]);
      y[i] = D::put(t * scale * code_of(u * inverse, low, high) + (rest != 0 ? rest * std::max(u, floor_at) : 0.0f));
    }
  });
}

// dx: g inside the range. sums[0]: sum of g * (code - v inside, code outside).
template <class D>
void lsq_backward(int64_t rows, int64_t n, const typename D::T* g, const typename D::T* x, float scale, float low, float high,
                  float t, typename D::T* dx, float* sums) {
  Sums parts(rows, 1);
  const float inverse = 1 / scale, rest = 1 - t, floor_at = low == 0 ? 0.0f : -INFINITY;
  for_blocks(rows, [&](int64_t block, int64_t begin, int64_t end) {
    float lanes[kLanes] = {};  // independent sums, so that the loop is vectors
    const auto group = [&](int64_t i, auto width) {
      constexpr int kWidth = decltype(width)::value;
      typename D::T to[kWidth];
      for (int lane = 0; lane < kWidth; lane++) {
        const float u = D::get(x[i + lane]), v = u * inverse, gi = D::get(g[i + lane]);
        const float held = std::min(std::max(v, low), high);
        const float inside = held == v ? 1.0f : 0.0f, passes = u > floor_at ? rest : 0.0f;
        to[lane] = D::put(gi * (inside * t + passes));
        lanes[lane] += gi * (code_of(v, low, high) - inside * v);
      }
      std::memcpy(dx + i, to, sizeof to);
    };
    int64_t i = begin * n;
    for (; i + kLanes <= end * n; i += kLanes) group(i, std::integral_constant<int, kLanes>());
    for (; i < end * n; i++) group(i, std::integral_constant<int, 1>());
    for (const float lane : lanes) *parts.of(block) += lane;
  });
  parts.total(sums);
}

// (images, h, w, n) -> (images, h/2, w/2, repeat * n): 2x2 average, channels repeated. Rows are output rows of pixels.
template <class D>
void pool_forward(int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const typename D::T* x, typename D::T* y) {
  const int64_t lines = images * (h / 2), row = w * n;
  for_blocks(lines * kRows, [=](int64_t line, int64_t, int64_t) {
    const auto* top = x + line * 2 * row;
    auto* out = y + line * (w / 2) * n * repeat;
    for (int64_t i = 0; i < w / 2; i++, top += 2 * n)
      for (int64_t k = 0; k < repeat; k++, out += n)
        for (int64_t c = 0; c < n; c++)
          out[c] = D::put(0.25f * (D::get(top[c]) + D::get(top[c + n]) + D::get(top[c + row]) + D::get(top[c + row + n])));
  });
}

template <class D>
void pool_backward(int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const typename D::T* g, typename D::T* dx) {
  const int64_t lines = images * (h / 2), row = w * n;
  for_blocks(lines * kRows, [=](int64_t line, int64_t, int64_t) {
    const auto* in = g + line * (w / 2) * n * repeat;
    auto* top = dx + line * 2 * row;
    for (int64_t i = 0; i < w / 2; i++, top += 2 * n, in += n * repeat)
      by_lanes(n, [=](int64_t c, auto width) {
        constexpr int kWidth = decltype(width)::value;
        float sum[kWidth] = {};
        typename D::T to[kWidth];
        for (int64_t k = 0; k < repeat; k++)
          for (int j = 0; j < kWidth; j++) sum[j] += D::get(in[k * n + c + j]);
        for (int j = 0; j < kWidth; j++) to[j] = D::put(0.25f * sum[j]);
        for (auto* at : {top + c, top + c + n, top + c + row, top + c + row + n}) std::memcpy(at, to, sizeof to);
      });
  });
}

template <class F>
void by_type(int bf16, const F& f) {
  bf16 ? f(BF16{}) : f(F32{});
}

template <class T>
const T* in(const void* p) { return static_cast<const T*>(p); }
template <class T>
T* out(void* p) { return static_cast<T*>(p); }

}  // namespace

// bf16: 0 for float32 maps, 1 for bfloat16.
#define MPQT extern "C" __attribute__((visibility("default"))) void

MPQT mpqt_threads(int threads) {
  // A forked child has none of its parent's threads, and must not wait for them: it forgets the pool and works alone.
  static const int once = pthread_atfork(nullptr, nullptr, [] { static_cast<void>(pool.release()); });
  static_cast<void>(once);
  pool = threads > 1 ? std::make_unique<mpq::ThreadPool>(threads) : nullptr;
}

MPQT mpqt_tail_forward(int bf16, int64_t rows, int64_t n, const void* z, const void* r, const float* before, const float* slope,
                       const float* after, void* y) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (r ? tail_forward<D, true> : tail_forward<D, false>)(rows, n, in<T>(z), in<T>(r), before, slope, after, out<T>(y));
  });
}

MPQT mpqt_tail_backward(int bf16, int64_t rows, int64_t n, const void* g, const void* z, const void* r, const float* before,
                        const float* slope, void* dv, float* sums) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (r ? tail_backward<D, true> : tail_backward<D, false>)(rows, n, in<T>(g), in<T>(z), in<T>(r), before, slope, out<T>(dv), sums);
  });
}

MPQT mpqt_sign_forward(int bf16, int64_t rows, int64_t n, const void* x, const float* shift, float t, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    sign_forward<decltype(d)>(rows, n, in<T>(x), shift, t, out<T>(y));
  });
}

MPQT mpqt_sign_backward(int bf16, int64_t rows, int64_t n, const void* g, const void* x, const float* shift, float t, int ste,
                        void* dx, float* sums) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (ste == kClip ? sign_backward<D, kClip> : ste == kPolynomial ? sign_backward<D, kPolynomial> : sign_backward<D, kIdentity>)(
        rows, n, in<T>(g), in<T>(x), shift, t, out<T>(dx), sums);
  });
}

MPQT mpqt_lsq_forward(int bf16, int64_t rows, int64_t n, const void* x, float scale, float low, float high, float t, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_forward<decltype(d)>(rows, n, in<T>(x), scale, low, high, t, out<T>(y));
  });
}

MPQT mpqt_lsq_backward(int bf16, int64_t rows, int64_t n, const void* g, const void* x, float scale, float low, float high, float t,
                       void* dx, float* sums) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_backward<decltype(d)>(rows, n, in<T>(g), in<T>(x), scale, low, high, t, out<T>(dx), sums);
  });
}

MPQT mpqt_pool_forward(int bf16, int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const void* x, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    pool_forward<decltype(d)>(images, h, w, n, repeat, in<T>(x), out<T>(y));
  });
}

MPQT mpqt_pool_backward(int bf16, int64_t images, int64_t h, int64_t w, int64_t n, int64_t repeat, const void* g, void* dx) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    pool_backward<decltype(d)>(images, h, w, n, repeat, in<T>(g), out<T>(dx));
  });
}
