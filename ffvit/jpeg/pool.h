// A pool of threads that take the jobs of a batch one by one, so that a slow core delays one image,
// not a share of them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ffvit {

class Pool {
 public:
  // num_threads counts the thread that calls `run`; at least 1. Throws std::system_error if the
  // system refuses that many, and leaves none of them. The threads are this process's: a forked
  // child must neither use nor destroy its copy.
  explicit Pool(int64_t num_threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Call work(index, thread) once for each index below `count`, thread being 0 .. num_threads-1,
  // and return when all are done. `work` must not throw. Callers in several threads wait for each
  // other.
  void run(int64_t count, const std::function<void(int64_t, int64_t)>& work);

  int64_t num_threads() const { return num_threads_; }

 private:
  void stop();
  void serve(int64_t thread);
  void take_jobs(int64_t thread);

  const int64_t num_threads_;
  std::mutex caller_;
  std::mutex mutex_;  // of all below
  std::condition_variable work_ready_;
  std::condition_variable work_done_;
  std::vector<std::thread> threads_;
  const std::function<void(int64_t, int64_t)>* work_ = nullptr;
  int64_t next_ = 0;
  int64_t count_ = 0;
  int64_t num_busy_ = 0;
  int64_t batch_ = 0;
  bool stopping_ = false;
};

}  // namespace ffvit
