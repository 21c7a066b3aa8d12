// A pool of threads that lives as long as its session. Work is given out by number, so results never depend on who does what.
// Each thread begins with its own share of the numbers, the same part of every map, so that what it reads is mostly what it wrote
// and still lies in its own caches; who has done his share takes from the others'.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace mpq {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // throws std::system_error if threads cannot be started
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // work(job, thread) for every job in 0..jobs-1, thread in 0..threads()-1; returns when all are done. `work` must not throw.
  template <class Work>
  void run(int jobs, const Work& work) {
    if (jobs <= 1 || workers_.empty()) {
      for (int job = 0; job < jobs; job++) work(job, 0);
      return;
    }
    dispatch(jobs, [](const void* w, int job, int thread) { (*static_cast<const Work*>(w))(job, thread); }, &work);
  }

 private:
  using Call = void (*)(const void*, int, int);
  struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
  };
  void dispatch(int jobs, Call call, const void* work);
  void drain(int thread);
  void loop(int thread);
  void stop();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<Share> shares_;  // one a thread
  std::atomic<unsigned> round_{0};
  std::atomic<int> busy_{0};
  Call call_ = nullptr;
  const void* work_ = nullptr;
  bool stop_ = false;
};

}  // namespace mpq
