// mpq_bench_kernels [FILTER] [ROUNDS]: GMAC/s of every kernel of the table on the shapes of a detector's layers, one thread.
//
// All samples are interleaved, a sample beside its neighbours, so that a busy machine slows all of them and not one.
// Beside each sample a chain of dependent additions, one a cycle, measures the clock that the core really has; "of peak"
// is the median sample in multiplications a cycle against the bound that the kernel's file derives.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "problem.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mpq::bench {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

bool three_ports() {
#if defined(__x86_64__)
  unsigned a, b, c, d;
  return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx;
#else
  return false;
#endif
}

double clock_ghz() {
  constexpr int kSteps = 40000;
  const double before = now();
  uint64_t x = 1;
  for (int i = 0; i < kSteps; i++) asm volatile("add $1, %0" : "+r"(x));
  return kSteps / (now() - before) * 1e-9;
}

// Multiplications a cycle, by the derivation at the head of each kernel's file: 4 vector operations a cycle on AMD's cores since
// Zen, 3 on Intel's (Fog, Instruction tables), of which 2 multiply or look up. What needs a port of the 2 alone is bound alike.
double peak(const char* kernel) {
  const struct {
    const char* name;
    double four, three;
  } peaks[] = {{"conv_w1b1_avx2", 384, 288}, {"conv_w4u4_winograd_avx2", 144, 108},    {"conv_wxu4_avx2", 64, 48},
               {"conv_wxu8_avx2", 32, 24},   {"conv_w4u4_winograd_avx512", 144, 144},  {"conv_wx_avx512", 64, 64},
               {"conv_wxu8_avx512", 48, 48}, {"conv_w4u4_winograd_avxvnni", 144, 144}, {"conv_wx_avxvnni", 64, 64},
               {"conv_wxu8_avxvnni", 48, 48}};
  for (const auto& p : peaks)
    if (std::strcmp(p.name, kernel) == 0) return three_ports() ? p.three : p.four;
  return 0;
}

struct Sample {
  std::string layer;
  const ConvKernel* kernel;
  std::unique_ptr<Problem> problem;
  std::vector<double> seconds;
  std::vector<double> per_cycle;
};

Shape shape(DType input, WType weight, int in, int out, int height, int kernel, int stride, const char* outputs) {
  Shape s;
  s.input = input, s.weight = weight, s.in_channels = in, s.out_channels = out, s.height = s.width = height;
  s.kernel = kernel, s.stride = stride;
  for (const char* c = outputs; *c; c++) (*c == 's' ? s.s16 : *c == 'u' ? s.u4 : s.b1) = true;
  s.shift = input == DType::b1 ? -3 : input == DType::u4 ? 2 : 8;
  if (std::strchr(outputs, 'r')) s.b1 = s.s16, s.residual_channels = out, s.residual_last = true, s.slope = true;
  return s;
}

void add(std::vector<Sample>& samples, const Shape& s, const char* outputs, const char* filter) {
  constexpr const char* kInputs[] = {"u8", "b1", "u4"};
  constexpr const char* kWeights[] = {"w1", "w4", "w8"};
  char text[100];
  std::snprintf(text, sizeof text, "%s%s %dx%d/%d %3d->%3d @%3d %-3s", kWeights[static_cast<int>(s.weight)],
                kInputs[static_cast<int>(s.input)], s.kernel, s.kernel, s.stride, s.in_channels, s.out_channels, s.height,
                outputs);
  for (int i = 0; conv_kernel_at(i); i++) {
    const ConvKernel& kernel = *conv_kernel_at(i);
    auto problem = std::make_unique<Problem>(s, 1);
    const bool slow = kernel.isa == Isa::serial && best_isa() != Isa::serial && std::strcmp(filter, "serial") != 0;
    if (!has_isa(kernel.isa) || slow || !kernel.supports(problem->conv())) continue;
    if (!std::strstr((std::string(text) + kernel.name).c_str(), filter)) continue;
    problem->prepare(kernel);
    problem->run(kernel);
    samples.push_back({text, &kernel, std::move(problem), {}, {}});
  }
}

std::vector<Sample> layers(const char* filter) {
  std::vector<Sample> all;
  const auto conv = [&](DType input, WType weight, int in, int out, int height, int kernel, int stride, const char* outputs) {
    add(all, shape(input, weight, in, out, height, kernel, stride, outputs), outputs, filter);
  };
  constexpr int kSizes[][2] = {{16, 160}, {32, 160}, {64, 80}, {128, 40}, {256, 20}};
  for (const char* outputs : {"b", "sbr"})
    for (const auto& [c, edge] : kSizes) conv(DType::b1, WType::w1, c, c, edge, 3, 1, outputs);
  for (const auto& [c, edge] : kSizes) conv(DType::b1, WType::w1, c, 2 * c, edge, 3, 2, "sbr");
  for (const auto& [c, edge] : kSizes) conv(DType::b1, WType::w1, 2 * c, 2 * c, edge, 1, 1, "sbr");
  for (const auto& [c, edge] : kSizes) conv(DType::u4, WType::w4, c, c, edge, 3, 1, "u");
  for (const auto& [c, edge] : kSizes) conv(DType::u4, WType::w4, 2 * c, 2 * c, edge, 1, 1, "u");
  conv(DType::u4, WType::w4, 64, 64, 80, 3, 2, "u"), conv(DType::u4, WType::w4, 128, 128, 40, 3, 2, "u");
  conv(DType::u4, WType::w4, 64, 20, 80, 1, 1, "s"), conv(DType::u4, WType::w8, 64, 80, 80, 1, 1, "s");
  conv(DType::u4, WType::w1, 64, 64, 80, 1, 1, "u");
  conv(DType::u8, WType::w8, 3, 16, 320, 3, 2, "sb"), conv(DType::u8, WType::w8, 3, 32, 640, 3, 2, "sb");
  conv(DType::u8, WType::w8, 3, 32, 640, 6, 2, "sb"), conv(DType::u8, WType::w8, 3, 32, 640, 6, 2, "u");
  return all;
}

void measure(std::vector<Sample>& all, int rounds) {
  for (int r = 0; r < rounds; r++)
    for (Sample& s : all) {
      s.problem->run(*s.kernel);  // warm
      double ghz = clock_ghz();
      const double before = now();
      s.problem->run(*s.kernel);
      s.seconds.push_back(now() - before);
      ghz = std::max(ghz, clock_ghz());  // a pause in one of them makes the clock look slow
      s.per_cycle.push_back(s.problem->macs() / (s.seconds.back() * ghz * 1e9));
    }
}

}  // namespace
}  // namespace mpq::bench

int main(int argc, char** argv) {
  using namespace mpq::bench;
  std::vector<Sample> all = layers(argc > 1 ? argv[1] : "");
  measure(all, argc > 2 ? std::atoi(argv[2]) : 21);
  std::fprintf(stderr, "peaks for %d vector operations a cycle\n", three_ports() ? 3 : 4);
  std::printf("%-30s %-26s %9s %9s %9s\n", "layer", "kernel", "GMAC/s", "best", "of peak");
  for (Sample& s : all) {
    std::sort(s.seconds.begin(), s.seconds.end());
    std::sort(s.per_cycle.begin(), s.per_cycle.end());
    const double macs = s.problem->macs() * 1e-9, most = peak(s.kernel->name);
    std::printf("%-30s %-26s %9.1f %9.1f ", s.layer.c_str(), s.kernel->name, macs / s.seconds[s.seconds.size() / 2],
                macs / s.seconds[0]);
    most > 0 ? std::printf("%8.0f%%\n", 100 * s.per_cycle[s.per_cycle.size() / 2] / most) : std::printf("%9s\n", "");
  }
  return 0;
}
