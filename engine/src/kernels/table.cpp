// The table of kernels: best first, serial last. A new kernel is one file and a declaration and a line here.
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "kernel.h"

namespace mpq {

extern const ConvKernel conv_serial;
extern const RowKernels rows_serial;
#ifdef MPQ_HAS_AVX2
extern const ConvKernel conv_w1b1_avx2, conv_w4u4_winograd_avx2, conv_wxu4_avx2, conv_wxu8_avx2;
extern const RowKernels rows_avx2;
#endif
#ifdef MPQ_HAS_AVXVNNI
extern const ConvKernel conv_w4u4_winograd_avxvnni, conv_wxu8_avxvnni, conv_wx_avxvnni;
#endif
#ifdef MPQ_HAS_AVX512
extern const ConvKernel conv_w4u4_winograd_avx512, conv_wxu8_avx512, conv_wx_avx512;
#endif

namespace {

const ConvKernel* const kConv[] = {
#ifdef MPQ_HAS_AVX512
    &conv_w4u4_winograd_avx512,
    &conv_wxu8_avx512,
    &conv_wx_avx512,
#endif
#ifdef MPQ_HAS_AVXVNNI
    &conv_w4u4_winograd_avxvnni,
    &conv_wxu8_avxvnni,
    &conv_wx_avxvnni,
#endif
#ifdef MPQ_HAS_AVX2
    &conv_w1b1_avx2,
    &conv_w4u4_winograd_avx2,
    &conv_wxu4_avx2,
    &conv_wxu8_avx2,
#endif
    &conv_serial,
};

const RowKernels* const kRows[] = {
#ifdef MPQ_HAS_AVX2
    &rows_avx2,
#endif
    &rows_serial,
};

}  // namespace

const ConvKernel& conv_kernel(const Conv& conv, Isa isa) {
  const char* wanted = std::getenv("MPQ_KERNEL");
  for (const bool any : {false, true})
    for (const ConvKernel* kernel : kConv) {
      const bool named = wanted != nullptr && std::strcmp(wanted, kernel->name) == 0;
      if ((any || named) && allows(isa, kernel->isa) && kernel->supports(conv)) return *kernel;
    }
  return conv_serial;
}

const ConvKernel* conv_kernel_at(int i) { return i >= 0 && i < static_cast<int>(std::size(kConv)) ? kConv[i] : nullptr; }

const RowKernels& row_kernels(Isa isa) {
  for (const RowKernels* rows : kRows)
    if (allows(isa, rows->isa)) return *rows;
  return rows_serial;
}

}  // namespace mpq
