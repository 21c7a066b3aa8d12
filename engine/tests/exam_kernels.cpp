// mpq_exam_kernels COUNT SEED: every kernel of the table against the serial one on COUNT random convolutions, whole and in
// the parts that threads would take; the row kernels on as many rows; and whether one writes where it may not.  Exit 1 at
// the first difference.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "../bench/problem.h"
#include "../src/kernels/kernel.h"

namespace mpq::bench {
namespace {

template <size_t N>
int pick(std::mt19937& random, const int (&from)[N]) {
  return from[random() % N];
}

constexpr int kChannels[] = {1, 2, 3, 4, 5, 15, 16, 17, 32, 33, 48, 63, 64, 65, 96, 130};
constexpr int kWidths[] = {1, 2, 3, 7, 8, 15, 16, 20, 31, 33, 63, 64, 65, 70};
constexpr int kHeights[] = {1, 2, 3, 5, 9};
constexpr int kKernels[] = {1, 1, 2, 3, 3, 3, 5, 6, 7};
constexpr int kShifts[] = {-15, -3, -1, 0, 0, 1, 2, 3, 5, 7, 9, 15, 16};

Shape random_shape(std::mt19937& random) {
  Shape s;
  s.input = static_cast<DType>(random() % 3);
  s.weight = static_cast<WType>(random() % 3);
  s.in_channels = s.input == DType::u8 ? 3 : pick(random, kChannels), s.out_channels = pick(random, kChannels);
  s.height = pick(random, kHeights), s.width = pick(random, kWidths);
  s.kernel = pick(random, kKernels), s.stride = 1 + static_cast<int>(random() % 2);
  const auto outputs = 1 + random() % 7;
  s.s16 = outputs & 1, s.u4 = outputs & 2, s.b1 = outputs & 4;
  const int kinds[] = {0, 0, 1, s.out_channels, 2 * s.out_channels};
  s.residual_channels = pick(random, kinds);
  s.residual_last = random() % 2, s.gain = s.residual_channels > 0 && random() % 2;
  s.slope = random() % 2, s.post = random() % 2;
  s.shift = pick(random, kShifts);
  s.concat = random() % 4 == 0 ? 16 : 0;
  if (s.input == DType::b1 && s.in_channels % 4 == 0) s.planes = 1 + static_cast<int>(random() % 2);
  if (s.b1 && s.out_channels % 4 == 0 && random() % 2) s.step = random() % 8 ? 1 + static_cast<int>(random() % 4000) : 32767;
  if (random() % 4 == 0) {  // what kernels with narrow rights are for
    s.input = DType::u4, s.weight = static_cast<WType>(random() % 2), s.in_channels += 31;
    s.kernel = 3, s.stride = 1;
    s.s16 = s.b1 = s.gain = false, s.u4 = true, s.residual_channels = s.step = 0, s.planes = 1;
  }
  return s;
}

std::string text(const Shape& s) {
  char line[300];
  std::snprintf(line, sizeof line,
                "input %d weight %d channels %d->%d map %dx%d kernel %d stride %d outputs s16:%d u4:%d b1:%d residual %d last %d "
                "gain %d slope %d post %d shift %d concat %d planes %d step %d",
                static_cast<int>(s.input), static_cast<int>(s.weight), s.in_channels, s.out_channels, s.height, s.width, s.kernel,
                s.stride, s.s16, s.u4, s.b1, s.residual_channels, s.residual_last, s.gain, s.slope, s.post, s.shift, s.concat,
                s.planes, s.step);
  return line;
}

bool same(Problem& problem, const ConvKernel& kernel, std::mt19937& random) {
  const ConvKernel* serial = nullptr;
  for (int i = 0; conv_kernel_at(i); i++) serial = conv_kernel_at(i);
  problem.clear();
  problem.prepare(*serial);
  problem.run(*serial);
  const std::vector<int> right = problem.pixels();
  problem.prepare(kernel);
  for (const int way : {0, 1, 2}) {
    problem.clear();
    if (way == 2 && !problem.conv().out_u4)
      problem.run_in_rows(kernel);
    else if (way == 1)
      problem.run_in_parts(kernel, 1 + static_cast<int>(random() % 3), 1 + static_cast<int>(random() % 2));
    else
      problem.run(kernel);
    if (!problem.slacks_whole() || problem.pixels() != right) return false;
  }
  return true;
}

int exam(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int> met;
  for (int i = 0; conv_kernel_at(i); i++) met.push_back(0);
  for (int n = 0; n < count; n++) {
    const Shape shape = random_shape(random);
    if (shape.height + shape.kernel / 2 * 2 < shape.kernel || shape.width + shape.kernel / 2 * 2 < shape.kernel) continue;
    Problem problem(shape, random());
    for (int i = 0; conv_kernel_at(i); i++) {
      const ConvKernel& kernel = *conv_kernel_at(i);
      if (!has_isa(kernel.isa) || !kernel.supports(problem.conv())) continue;
      met[static_cast<size_t>(i)]++;
      if (same(problem, kernel, random)) continue;
      std::printf("%s differs from serial, or writes where it may not: %s\n", kernel.name, text(shape).c_str());
      return 1;
    }
  }
  for (int i = 0; conv_kernel_at(i); i++) std::printf("%s %d\n", conv_kernel_at(i)->name, met[static_cast<size_t>(i)]);
  return 0;
}

// What all row kernels make of n positions of the same noise, and the bytes behind, which must stay 0xAB.
std::vector<uint8_t> rows_of(const RowKernels& rows, int n, int channels, int fraction, uint32_t seed) {
  std::mt19937 random(seed);
  const ptrdiff_t plane = round_up(2 * n + 1, kPlanarRoom);
  Buffer in(static_cast<size_t>(plane) * 16 * sizeof(int16_t)), out(static_cast<size_t>(n) * 32 + 256);
  for (size_t i = 0; i < in.size(); i++) in.data()[i] = static_cast<uint8_t>(random());
  int16_t multiplier[16], bias[16];
  for (int c = 0; c < 16; c++) multiplier[c] = static_cast<int16_t>(random() | 1), bias[c] = static_cast<int16_t>(random());
  const auto* x = reinterpret_cast<const int16_t*>(in.data());
  std::vector<uint8_t> all;
  const auto keep = [&](int bytes) {
    all.insert(all.end(), out.data(), out.data() + bytes + 64);
    std::memset(out.data(), 0xAB, out.size());
  };
  std::memset(out.data(), 0xAB, out.size());
  rows.avgpool2(x, x + plane, reinterpret_cast<int16_t*>(out.data()), n), keep(2 * n);
  rows.threshold(x, plane, bias, 1 + channels % 4, out.data(), n), keep(n);
  rows.requantise(x, plane, multiplier, bias, fraction, channels, out.data(), 32, n), keep(32 * n);
  rows.recode4(in.data(), multiplier, bias, fraction, out.data(), n), keep(4 * n);
  rows.split2(in.data(), out.data(), out.data() + n + 64, n), keep(2 * n + 64);
  rows.max_u8(in.data(), out.data(), n), keep(n);
  rows.widen3(in.data(), out.data(), n), keep(4 * n);
  if (n == 0) return all;
  int16_t q[150 * 6] = {};
  int32_t first[150];
  const uint8_t* taps[6];
  for (int j = 0; j < 6; j++) taps[j] = in.data() + 640 * j;
  for (int i = 0; i < n; i++) {  // n outputs of 2n pixels, weights that add up to 2^14
    first[i] = 2 * i;
    for (int j = 0, rest = 16384; j < 6 && first[i] + j < 2 * n; j++) {
      const int mine = j == 5 || first[i] + j + 1 == 2 * n ? rest : static_cast<int>(random() % static_cast<uint32_t>(rest + 1));
      q[6 * i + j] = static_cast<int16_t>(mine), rest -= mine;
    }
  }
  Buffer resized(static_cast<size_t>(3 * n + 16));
  std::vector<uint8_t> photo(in.data(), in.data() + 6 * n);  // on the heap and not a byte longer
  rows.resize3(photo.data(), 2 * n, first, q, 6, resized.data(), n);
  all.insert(all.end(), resized.data(), resized.data() + 3 * n);
  rows.blend(taps, q, 6, out.data(), n), keep(n);
  return all;
}

int exam_rows(int count, uint32_t seed) {
  std::mt19937 random(seed);
  for (int i = 0; i < count; i++) {
    const int n = static_cast<int>(random() % 150), channels = 1 + static_cast<int>(random() % 16),
              fraction = static_cast<int>(random() % 15);
    const uint32_t noise = random();
    if (rows_of(row_kernels(best_isa()), n, channels, fraction, noise) ==
        rows_of(row_kernels(Isa::serial), n, channels, fraction, noise))
      continue;
    std::printf("%s differs from serial, or writes where it may not: n %d channels %d fraction %d\n",
                row_kernels(best_isa()).name, n, channels, fraction);
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace mpq::bench

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 300;
  const auto seed = static_cast<uint32_t>(argc > 2 ? std::atoi(argv[2]) : 1);
  return mpq::bench::exam(count, seed) || mpq::bench::exam_rows(count, seed) ? 1 : 0;
}
