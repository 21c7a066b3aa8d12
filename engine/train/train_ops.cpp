// What the library of maps.h, shortcut.h and weights.h shows of maps: C functions by type, for mpqyolo.quantize.fused.
#include <pthread.h>

#include "shortcut.h"
#include "weights.h"

mpqt::Pool mpqt::pool;

namespace {

using namespace mpqt;

template <class F>
void by_type(int bf16, const F& f) {
  bf16 ? f(BF16{}) : f(F32{});
}

template <class T>
const T* in(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
T* out(void* p) {
  return static_cast<T*>(p);
}

}  // namespace

// Of these functions' arguments; changes with them, and with VERSION in fused.py.
extern "C" __attribute__((visibility("default"))) int mpqt_version() { return 6; }

// bf16: 0 for float32 maps, 1 for bfloat16.
// parallel: GOMP_parallel, or null for one thread.
MPQT mpqt_threads(int threads, mpqt::Parallel parallel) {
  // A forked child has none of its parent's threads, and must not wait for them: it works alone.
  static const int once = pthread_atfork(nullptr, nullptr, [] { mpqt::pool = {}; });
  static_cast<void>(once);
  mpqt::pool = {threads > 1 ? parallel : nullptr, static_cast<unsigned>(threads)};
}

MPQT mpqt_pixels(int bf16, int64_t count, const uint8_t* x, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    pixels<decltype(d)>(count, x, out<T>(y));
  });
}

MPQT mpqt_tail_forward(int bf16, int64_t rows, int64_t n, const void* z, const void* r, const float* gain, const float* before,
                       const float* slope, const float* after, void* y) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (r ? tail_forward<D, true> : tail_forward<D, false>)(rows, n, in<T>(z), in<T>(r), gain, before, slope, after, out<T>(y));
  });
}

MPQT mpqt_tail_backward(int bf16, int64_t rows, int64_t n, const void* g, const void* z, const void* r, const float* gain,
                        const float* before, const float* slope, const float* mean, void* dv, float* sums) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (r ? tail_backward<D, true> : tail_backward<D, false>)(rows, n, in<T>(g), in<T>(z), in<T>(r), gain, before, slope, mean,
                                                           out<T>(dv), sums);
  });
}

MPQT mpqt_moments(int bf16, int64_t rows, int64_t n, const void* z, const float* near, float* sums) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    moments<decltype(d)>(rows, n, in<T>(z), near, sums);
  });
}

MPQT mpqt_norm_backward(int bf16, int64_t rows, int64_t n, const void* dv, const void* z, const float* gain, const float* slope,
                        const float* offset, void* dz) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    norm_backward<decltype(d)>(rows, n, in<T>(dv), in<T>(z), gain, slope, offset, out<T>(dz));
  });
}

MPQT mpqt_sign_forward(int bf16, int64_t images, int64_t h, int64_t w, int64_t n, int64_t pad, const void* x, const float* shift,
                       float t, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    sign_forward<decltype(d)>({images, h, w, n, pad}, in<T>(x), shift, t, out<T>(y));
  });
}

MPQT mpqt_sign_backward(int bf16, int64_t images, int64_t h, int64_t w, int64_t n, int64_t pad, const void* g, const void* x,
                        const float* shift, float t, int ste, void* dx, float* sums) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (ste == kClip         ? sign_backward<D, kClip>
     : ste == kPolynomial ? sign_backward<D, kPolynomial>
                          : sign_backward<D, kIdentity>)({images, h, w, n, pad}, in<T>(g), in<T>(x), shift, t, out<T>(dx), sums);
  });
}

MPQT mpqt_lsq_forward(int bf16, int64_t rows, int64_t n, const void* x, const float* shift, float scale, float low, float high,
                      float t, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_forward<decltype(d)>(rows, n, in<T>(x), shift, scale, low, high, t, out<T>(y));
  });
}

MPQT mpqt_lsq_backward(int bf16, int64_t rows, int64_t n, const void* g, const void* x, const float* shift, float scale,
                       float low, float high, float t, void* dx, float* sums) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_backward<decltype(d)>(rows, n, in<T>(g), in<T>(x), shift, scale, low, high, t, out<T>(dx), sums);
  });
}

MPQT mpqt_binarise_forward(int bf16, int64_t rows, int64_t n, const float* w, float t, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    binarise_forward<decltype(d)>(rows, n, w, t, out<T>(y));
  });
}

MPQT mpqt_binarise_backward(int bf16, int64_t rows, int64_t n, const void* g, const float* w, float* dw) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    binarise_backward<decltype(d)>(rows, n, in<T>(g), w, dw);
  });
}

MPQT mpqt_lsq_rows_forward(int bf16, int64_t rows, int64_t n, const float* w, const float* scale, float low, float high, float t,
                           void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_rows_forward<decltype(d)>(rows, n, w, scale, low, high, t, out<T>(y));
  });
}

MPQT mpqt_lsq_rows_backward(int bf16, int64_t rows, int64_t n, const void* g, const float* w, const float* scale, float low,
                            float high, float t, float* dw, float* sums) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    lsq_rows_backward<decltype(d)>(rows, n, in<T>(g), w, scale, low, high, t, dw, sums);
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

MPQT mpqt_match_forward(int bf16, int64_t rows, int64_t n, int64_t m, const void* x, const float* gain, void* y) {
  by_type(bf16, [&](auto d) {
    using T = typename decltype(d)::T;
    match_forward<decltype(d)>(rows, n, m, in<T>(x), gain, out<T>(y));
  });
}

MPQT mpqt_match_backward(int bf16, int64_t rows, int64_t n, int64_t m, const void* g, const void* x, const float* gain, void* dx,
                         float* sums) {
  by_type(bf16, [&](auto d) {
    using D = decltype(d);
    using T = typename D::T;
    (m > n ? match_backward<D, true> : match_backward<D, false>)(rows, n, m, in<T>(g), in<T>(x), gain, out<T>(dx), sums);
  });
}
