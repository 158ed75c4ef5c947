// A pool of threads that take the jobs of a batch one by one, so that a slow core delays one image,
// not a share of them.
#pragma once

#include <sys/types.h>

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
  // system refuses that many, and leaves none of them.
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
  // Start as many of the threads as the system allows.
  void start();
  void stop();
  int64_t num_started() const { return static_cast<int64_t>(shared_->threads.size()) + 1; }
  void serve(int64_t thread);
  void take_jobs(int64_t thread);

  // What the threads share. A forked child inherits no threads and must not touch locks they may
  // have held, so the child leaves its copy behind and makes a new one.
  struct Shared {
    std::mutex mutex;
    std::condition_variable work_ready;
    std::condition_variable work_done;
    std::vector<std::thread> threads;
    const std::function<void(int64_t, int64_t)>* work = nullptr;
    int64_t next = 0;
    int64_t count = 0;
    int64_t num_busy = 0;
    int64_t batch = 0;
    bool stopping = false;
    std::mutex caller;
  };

  const int64_t num_threads_;
  pid_t pid_ = 0;
  Shared* shared_ = nullptr;
};

}  // namespace ffvit
