// Kernels by vpdpbusd, the products of 4 bytes added to 32 bits, in files *_vnni.cpp: compiled once for AVX-512 VNNI, where a
// step's 16 output channels are one register, and once for AVX-VNNI, the same instruction on processors without AVX-512, where
// they are two and there are half as many.
#pragma once

#include "avx2_epilogue.h"

namespace mpq::MPQ_ISA_SPACE {

#if defined(__AVX512VNNI__)
#define MPQ_KERNEL(name) name##_avx512
#define MPQ_KERNEL_NAME(name) #name "_avx512"
constexpr Isa kIsa = Isa::avx512;
inline V dpbusd(V sum, V x, V w) { return _mm256_dpbusd_epi32(sum, x, w); }

// Sums of 16 channels; four inputs times a step of weights (`kOrder`) are added.
struct Sums {
  static constexpr int kMost = 12;  // that registers hold beside weights and inputs: 5 cycles of latency, 2 a cycle
  using Weights = __m512i;
  __m512i all = _mm512_setzero_si512();
  static Weights weights(const uint8_t* w) { return _mm512_loadu_si512(w); }
  void add(int32_t four, const Weights& w) { all = _mm512_dpbusd_epi32(all, _mm512_set1_epi32(four), w); }
  V low() const { return _mm512_castsi512_si256(all); }
  V high() const { return _mm512_extracti64x4_epi64(all, 1); }
};
#else
#define MPQ_KERNEL(name) name##_avxvnni
#define MPQ_KERNEL_NAME(name) #name "_avxvnni"
constexpr Isa kIsa = Isa::avxvnni;
inline V dpbusd(V sum, V x, V w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }

struct Sums {
  static constexpr int kMost = 6;
  struct Weights {
    V low, high;
  };
  V first = _mm256_setzero_si256(), second = _mm256_setzero_si256();
  static Weights weights(const uint8_t* w) { return {load(w), load(w + 32)}; }
  void add(int32_t four, const Weights& w) {
    const V x = _mm256_set1_epi32(four);
    first = dpbusd(first, x, w.low);
    second = dpbusd(second, x, w.high);
  }
  V low() const { return first; }
  V high() const { return second; }
};
#endif

}  // namespace mpq::MPQ_ISA_SPACE
