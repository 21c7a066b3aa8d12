// libFuzzer's entry: mpq_fuzz CORPUS_FOLDER.
#include <algorithm>
#include <vector>

#include "../src/sha256.h"
#include "exercise.h"

// A wrong checksum would end almost every mutant's life at once, so it is made right first.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kDigest = 40, kPrefix = 128;
  std::vector<uint8_t> file(data, data + size);
  if (size >= kPrefix) {
    const auto digest = mpq::sha256(file.data() + kPrefix, size - kPrefix);
    std::copy(digest.begin(), digest.end(), file.begin() + kDigest);
  }
  char error[256];
  exercise(file.data(), size, error, sizeof error);
  return 0;
}
