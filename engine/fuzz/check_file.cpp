// mpq_check_file FILE...: loads and runs each file. Prints one line a file; exit 0 if all were accepted, 1 if one was refused.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "exercise.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: mpq_check_file FILE...\n");
    return 2;
  }
  bool all = true;
  for (int i = 1; i < argc; i++) {
    char error[512] = "";
    std::ifstream file(argv[i], std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const bool accepted = exercise(bytes.data(), bytes.size(), error, sizeof error);
    mpq_model* mapped = mpq_model_open(argv[i], error, sizeof error);  // the other way in must agree
    if (accepted && mapped == nullptr) std::abort();
    mpq_model_free(mapped);
    std::printf("%s: %s\n", argv[i], accepted ? "accepted" : error);
    all = all && accepted;
  }
  return all ? 0 : 1;
}
