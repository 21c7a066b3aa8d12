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

constexpr const char* kNames[] = {"serial", "avx2"};

#ifdef MPQ_HAS_AVX2
bool has_avx2() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
  const bool osxsave = c & 1u << 27, avx = c & 1u << 28;
  if (!osxsave || !avx) return false;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & 6) != 6) return false;  // the system does not save xmm and ymm
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 5);
}
#else
bool has_avx2() { return false; }
#endif

}  // namespace

Isa best_isa() { return has_avx2() ? Isa::avx2 : Isa::serial; }

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa choose_isa(const char* wanted) {
  const char* name = wanted != nullptr && *wanted != '\0' ? wanted : std::getenv("MPQ_ISA");
  const Isa best = best_isa();
  if (name == nullptr || *name == '\0') return best;
  for (const Isa isa : {Isa::serial, Isa::avx2}) {
    if (std::strcmp(name, isa_name(isa)) != 0) continue;
    need(isa <= best, std::string("isa '") + name + "'", "this CPU does not have it");
    return isa;
  }
  throw Fault("isa '" + std::string(name) + "' is unknown; known: serial, avx2");
}

}  // namespace mpq
