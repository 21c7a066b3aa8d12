// The threads that all training operators share, and how work is cut for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "../src/threads.h"

#define MPQT extern "C" __attribute__((visibility("default"))) void

namespace mpqt {

extern std::unique_ptr<mpq::ThreadPool> pool;  // null: the caller works alone

// work(job) for every job in 0..jobs-1.
template <class Work>
void for_jobs(int64_t jobs, const Work& work) {
  const auto one = [&](int job, int) { work(static_cast<int64_t>(job)); };
  if (pool)
    pool->run(static_cast<int>(jobs), one);
  else
    for (int64_t job = 0; job < jobs; job++) work(job);
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
