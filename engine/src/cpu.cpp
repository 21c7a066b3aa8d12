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

constexpr const char* kNames[] = {"serial", "avx2", "avxvnni", "avx512"};

#ifdef MPQ_HAS_AVX2
// What the system saves of a thread's registers.
unsigned saved_registers() {
  unsigned a, b, c, d, low = 0, high = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const bool osxsave = c & 1u << 27, avx = c & 1u << 28;
  if (osxsave && avx) asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool has(Isa isa) {
  constexpr unsigned kYmm = 6, kZmm = 0xe6, kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  unsigned a, b, c, d, e, f, g, h;
  const unsigned saved = saved_registers();
  if ((saved & kYmm) != kYmm || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 5)) return false;
  switch (isa) {
    case Isa::avx2: return true;
#ifdef MPQ_HAS_AVXVNNI
    case Isa::avxvnni: return a >= 1 && __get_cpuid_count(7, 1, &e, &f, &g, &h) && e & 1u << 4;
#endif
#ifdef MPQ_HAS_AVX512
    case Isa::avx512: return (saved & kZmm) == kZmm && (b & kAvx512) == kAvx512 && c & 1u << 11;  // and VNNI
#endif
    default: return static_cast<void>(e), static_cast<void>(f), static_cast<void>(g), static_cast<void>(h), false;
  }
}
#else
bool has(Isa) { return false; }
#endif

constexpr Isa kAll[] = {Isa::serial, Isa::avx2, Isa::avxvnni, Isa::avx512};

}  // namespace

bool has_sha() {
#ifdef MPQ_HAS_AVX2
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && c & 1u << 19 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1u << 29;
#else
  return false;
#endif
}

bool has_isa(Isa isa) { return isa == Isa::serial || has(isa); }

Isa best_isa() {
  Isa best = Isa::serial;
  for (const Isa isa : kAll)
    if (has_isa(isa)) best = isa;
  return best;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa choose_isa(const char* wanted) {
  const char* name = wanted != nullptr && *wanted != '\0' ? wanted : std::getenv("MPQ_ISA");
  if (name == nullptr || *name == '\0') return best_isa();
  for (const Isa isa : kAll) {
    if (std::strcmp(name, isa_name(isa)) != 0) continue;
    need(has_isa(isa), std::string("isa '") + name + "'", "this CPU does not have it");
    return isa;
  }
  throw Fault("isa '" + std::string(name) + "' is unknown; known: serial, avx2, avxvnni, avx512");
}

}  // namespace mpq
