// Kernels by vpdpbusd, the products of 4 bytes added to 32 bits, in files *_vnni.cpp: compiled once for AVX-512 VNNI, of which
// they use registers of 256 bits, and once for AVX-VNNI, the same instruction on processors without AVX-512, which have half as
// many registers.
#pragma once

#include "avx2_epilogue.h"

namespace mpq::MPQ_ISA_SPACE {

#if defined(__AVX512VNNI__)
#define MPQ_KERNEL(name) name##_avx512
#define MPQ_KERNEL_NAME(name) #name "_avx512"
constexpr Isa kIsa = Isa::avx512;
constexpr int kSums = 24;  // registers for sums; weights and inputs have the others
inline V dpbusd(V sum, V x, V w) { return _mm256_dpbusd_epi32(sum, x, w); }
#else
#define MPQ_KERNEL(name) name##_avxvnni
#define MPQ_KERNEL_NAME(name) #name "_avxvnni"
constexpr Isa kIsa = Isa::avxvnni;
constexpr int kSums = 12;
inline V dpbusd(V sum, V x, V w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
#endif

}  // namespace mpq::MPQ_ISA_SPACE
