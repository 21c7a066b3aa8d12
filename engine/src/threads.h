// A pool of threads that lives as long as its session. Work is given out by number, so results never depend on who does what.
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
  void dispatch(int jobs, Call call, const void* work);
  void drain(int thread);
  void loop(int thread);
  void stop();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<unsigned> round_{0};
  std::atomic<int> next_{0}, busy_{0};
  int jobs_ = 0;
  Call call_ = nullptr;
  const void* work_ = nullptr;
  bool stop_ = false;
};

}  // namespace mpq
