// What this CPU, and the operating system on it, can run.
#include "cpu.h"

#include <cstdlib>
#include <cstring>

#include "fault.h"

#ifdef MPQ_HAS_AVX2
#include <cpuid.h>
#endif

namespace mpq {
namespace {

constexpr const char* kNames[] = {"serial", "avx2", "avx512"};

#ifdef MPQ_HAS_AVX2
// What the system saves of a thread's registers.
unsigned saved_registers() {
  unsigned a, b, c, d, low = 0, high = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool osxsave = c & 1u << 27, avx = c & 1u << 28;
  if (osxsave && avx) asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Isa detect() {
  constexpr unsigned kYmm = 6, kZmm = 0xe6, kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  unsigned a, b, c, d;
  const unsigned saved = saved_registers();
  if ((saved & kYmm) != kYmm || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 5)) return Isa::serial;
  const bool vnni = c & 1u << 11;
#ifdef MPQ_HAS_AVX512
  if ((saved & kZmm) == kZmm && (b & kAvx512) == kAvx512 && vnni) return Isa::avx512;
#endif
  return static_cast<void>(vnni), Isa::avx2;
}
#else
Isa detect() { return Isa::serial; }
#endif

}  // namespace

Isa best_isa() { return detect(); }

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa choose_isa(const char* wanted) {
  const char* name = wanted != nullptr && *wanted != '\0' ? wanted : std::getenv("MPQ_ISA");
  const Isa best = best_isa();
  if (name == nullptr || *name == '\0') return best;
  for (const Isa isa : {Isa::serial, Isa::avx2, Isa::avx512}) {
    if (std::strcmp(name, isa_name(isa)) != 0) continue;
    need(isa <= best, std::string("isa '") + name + "'", "this CPU does not have it");
    return isa;
  }
  throw Fault("isa '" + std::string(name) + "' is unknown; known: serial, avx2, avx512");
}

}  // namespace mpq
