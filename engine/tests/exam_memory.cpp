// mpq_exam_memory MODEL: a run allocates nothing, at any thread count.  Exit 1 if one does.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "mpqyolo.h"

namespace {
std::atomic<long> allocations{0};

void* counted(size_t size, size_t align) {
  allocations++;
  void* p = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(size_t size) { return counted(size, 16); }
void* operator new(size_t size, std::align_val_t align) { return counted(size, static_cast<size_t>(align)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }

int main(int argc, char** argv) {
  char error[256] = "usage: mpq_exam_memory MODEL";
  mpq_model* model = argc == 2 ? mpq_model_open(argv[1], error, sizeof error) : nullptr;
  for (int threads = 1; model != nullptr && threads <= 3; threads++) {
    mpq_options options = {};
    options.threads = threads;
    mpq_session* session = mpq_session_new(model, &options, error, sizeof error);
    if (session == nullptr) break;
    const mpq_session_info info = mpq_session_describe(session);
    const std::vector<uint8_t> image(static_cast<size_t>(info.height) * static_cast<size_t>(info.width) * 3, 77);
    const long before = allocations;
    for (int i = 0; i < 20; i++) mpq_session_run(session, image.data());
    const long made = allocations - before;
    mpq_session_free(session);
    std::printf("%d threads: %ld allocations in 20 runs\n", threads, made);
    if (made != 0) return 1;
    error[0] = '\0';
  }
  mpq_model_free(model);
  if (error[0] != '\0') std::fprintf(stderr, "%s\n", error);
  return error[0] != '\0';
}
