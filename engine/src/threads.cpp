#include "threads.h"

#include <cstdint>

namespace mpq {
namespace {

constexpr int kSpins = 2000;  // some ten microseconds: the next layer usually follows at once; after that, sleep

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<size_t>(threads)) {
  try {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { loop(i); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    round_++;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::drain(int thread) {
  const int threads = static_cast<int>(shares_.size());
  for (int i = 0; i < threads; i++) {
    Share& share = shares_[static_cast<size_t>((thread + i) % threads)];
    for (int job; (job = share.next.fetch_add(1)) < share.end;) call_(work_, job, thread);
  }
}

void ThreadPool::dispatch(int jobs, Call call, const void* work) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    call_ = call, work_ = work;
    const int64_t threads = static_cast<int64_t>(shares_.size());
    for (int64_t i = 0; i < threads; i++) {
      shares_[static_cast<size_t>(i)].next = static_cast<int>(jobs * i / threads);
      shares_[static_cast<size_t>(i)].end = static_cast<int>(jobs * (i + 1) / threads);
    }
    busy_ = static_cast<int>(workers_.size());
    round_++;
  }
  wake_.notify_all();
  drain(0);
  for (int i = 0; i < kSpins && busy_ > 0; i++) pause();
  if (busy_ == 0) return;
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void ThreadPool::loop(int thread) {
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && round_ == seen; i++) pause();
    if (round_ == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this, seen] { return round_ != seen; });
    }
    seen = round_;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stop_) return;
    }
    drain(thread);
    if (busy_.fetch_sub(1) == 1) {
      const std::lock_guard<std::mutex> lock(mutex_);  // so that the waiter cannot miss it between its check and its sleep
      done_.notify_one();
    }
  }
}

}  // namespace mpq
