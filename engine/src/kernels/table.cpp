// The table of kernels: best first, serial last. A new kernel is one file and a declaration and a line here.
#include "kernel.h"

namespace mpq {

extern const ConvKernel conv_serial;
extern const RowKernels rows_serial;
#ifdef MPQ_HAS_AVX2
extern const ConvKernel conv_w1b1_avx2, conv_wxu4_avx2, conv_wxu8_avx2;
#endif

namespace {

const ConvKernel* const kConv[] = {
#ifdef MPQ_HAS_AVX2
    &conv_w1b1_avx2, &conv_wxu4_avx2, &conv_wxu8_avx2,
#endif
    &conv_serial,
};

const RowKernels* const kRows[] = {
    &rows_serial,
};

}  // namespace

const ConvKernel& conv_kernel(const Conv& conv, Isa isa) {
  for (const ConvKernel* kernel : kConv)
    if (kernel->isa <= isa && kernel->supports(conv)) return *kernel;
  return conv_serial;
}

const RowKernels& row_kernels(Isa isa) {
  for (const RowKernels* rows : kRows)
    if (rows->isa <= isa) return *rows;
  return rows_serial;
}

}  // namespace mpq
