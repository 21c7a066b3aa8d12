// The threads that all training operators share, and how work is cut for them. They are torch's own, of the OpenMP library that
// the process holds: its threads wait busily for torch's next operator, and others would have to share the cores with them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#define MPQT extern "C" __attribute__((visibility("default"))) void

namespace mpqt {

using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);  // GOMP_parallel

struct Pool {
  Parallel parallel = nullptr;  // null: the caller works alone
  unsigned threads = 1;
};
extern Pool pool;

// work(job) for every job in 0..jobs-1; who does which does not matter.
template <class Work>
void for_jobs(int64_t jobs, const Work& work) {
  if (!pool.parallel || jobs <= 1) {
    for (int64_t job = 0; job < jobs; job++) work(job);
    return;
  }
  struct Shared {
    const Work& work;
    int64_t jobs;
    std::atomic<int64_t> next{0};
  } shared{work, jobs};
  const auto take = [](void* data) {
    auto& from = *static_cast<Shared*>(data);
    for (int64_t job; (job = from.next.fetch_add(1)) < from.jobs;) from.work(job);
  };
  pool.parallel(take, &shared, pool.threads, 0);
}

// block(b, begin, end) for every block of `size` of the numbers 0..count-1, in at most 64 jobs.
template <class Block>
void for_blocks(int64_t count, int64_t size, const Block& block) {
  const int64_t blocks = (count + size - 1) / size, jobs = std::min<int64_t>(blocks, 64);
  for_jobs(jobs, [&](int64_t job) {
    for (int64_t b = blocks * job / jobs; b < blocks * (job + 1) / jobs; b++) block(b, b * size, std::min(count, (b + 1) * size));
  });
}

}  // namespace mpqt
