// libFuzzer's entry: mpq_fuzz CORPUS_FOLDER.
#include "exercise.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  char error[256];
  exercise(data, size, error, sizeof error);
  return 0;
}
