#include "pool.h"

#include <unistd.h>

#include <system_error>

namespace ffvit {

Pool::Pool(int64_t num_threads) : num_threads_(num_threads < 1 ? 1 : num_threads) {
  start();
  if (num_started() == num_threads_) return;
  stop();
  throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
}

Pool::~Pool() {
  if (pid_ == getpid()) stop();  // in a forked child the threads are the parent's
}

void Pool::stop() {
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->work_ready.notify_all();
  for (std::thread& thread : shared_->threads) thread.join();
  delete shared_;
}

void Pool::start() {
  pid_ = getpid();
  shared_ = new Shared;
  shared_->threads.reserve(static_cast<size_t>(num_threads_) - 1);
  try {
    for (int64_t thread = 1; thread < num_threads_; ++thread) {
      shared_->threads.emplace_back([this, thread] { serve(thread); });
    }
  } catch (const std::system_error&) {  // no more threads
  }
}

void Pool::run(int64_t count, const std::function<void(int64_t, int64_t)>& work) {
  if (pid_ != getpid()) start();  // with fewer threads, if a child may not have as many
  std::lock_guard<std::mutex> one_caller(shared_->caller);
  {
    std::lock_guard<std::mutex> lock(shared_->mutex);
    shared_->work = &work;
    shared_->next = 0;
    shared_->count = count;
    shared_->num_busy = num_started() - 1;
    ++shared_->batch;
  }
  shared_->work_ready.notify_all();
  take_jobs(0);
  std::unique_lock<std::mutex> lock(shared_->mutex);
  shared_->work_done.wait(lock, [this] { return shared_->num_busy == 0; });
}

void Pool::serve(int64_t thread) {
  Shared& shared = *shared_;
  int64_t seen = 0;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(shared.mutex);
      shared.work_ready.wait(lock, [&] { return shared.stopping || shared.batch != seen; });
      if (shared.stopping) return;
      seen = shared.batch;
    }
    take_jobs(thread);
    std::lock_guard<std::mutex> lock(shared.mutex);
    if (--shared.num_busy == 0) shared.work_done.notify_one();
  }
}

void Pool::take_jobs(int64_t thread) {
  for (;;) {
    int64_t index;
    {
      std::lock_guard<std::mutex> lock(shared_->mutex);
      if (shared_->next == shared_->count) return;
      index = shared_->next++;
    }
    (*shared_->work)(index, thread);
  }
}

}  // namespace ffvit
