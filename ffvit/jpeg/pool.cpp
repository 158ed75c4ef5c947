#include "pool.h"

#include <system_error>

namespace ffvit {

Pool::Pool(int64_t num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
  threads_.reserve(static_cast<size_t>(num_threads_) - 1);
  try {
    for (int64_t thread = 1; thread < num_threads_; ++thread) {
      threads_.emplace_back([this, thread] { serve(thread); });
    }
  } catch (const std::system_error&) {  // no more threads
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::run(int64_t count, const std::function<void(int64_t, int64_t)>& work) {
  std::lock_guard<std::mutex> one_caller(caller_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    work_ = &work;
    next_ = 0;
    count_ = count;
    num_busy_ = static_cast<int64_t>(threads_.size());
    ++batch_;
  }
  work_ready_.notify_all();
  take_jobs(0);
  std::unique_lock<std::mutex> lock(mutex_);
  work_done_.wait(lock, [this] { return num_busy_ == 0; });
}

void Pool::serve(int64_t thread) {
  int64_t seen = 0;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      work_ready_.wait(lock, [&] { return stopping_ || batch_ != seen; });
      if (stopping_) return;
      seen = batch_;
    }
    take_jobs(thread);
    std::lock_guard<std::mutex> lock(mutex_);
    if (--num_busy_ == 0) work_done_.notify_one();
  }
}

void Pool::take_jobs(int64_t thread) {
  for (;;) {
    int64_t index;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (next_ == count_) return;
      index = next_++;
    }
    (*work_)(index, thread);
  }
}

}  // namespace ffvit
