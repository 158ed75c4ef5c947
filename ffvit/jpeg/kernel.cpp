#include "kernel.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "baseline.h"
#include "pool.h"
#include "resizer.h"
#include "rgb_image.h"
#include "target.h"
#include "turbo.h"

namespace ffvit {
namespace {

bool crop_is_inside(const Job& job) {
  return job.top >= 0 && job.left >= 0 && job.crop_height >= 1 && job.crop_width >= 1 &&
         job.crop_height <= job.height - job.top && job.crop_width <= job.width - job.left;
}

// What one thread needs to turn jobs into pixels.
class Worker {
 public:
  Status run(const Target& target, const Job& job, const Output& output) {
    if (!crop_is_inside(job)) return kBadCrop;
    const auto* data = reinterpret_cast<const uint8_t*>(job.data);
    if (job.mode == kRaw) {
      if (job.size / 3 / job.width < job.height) return kShortSample;
      rgb_.resize(target, data, job, output, &resizer_);
      return kOk;
    }
    if (job.mode != kJpeg) return kUnknownMode;
    auto outcome = BaselineDecoder::kIsDamaged;
    if (baseline_.open(target, data, static_cast<size_t>(job.size))) {
      const Frame& frame = baseline_.frame();
      if (frame.width != job.width || frame.height != job.height) return kWrongSize;
      outcome = baseline_.decode(job, output, false, &resizer_);
      if (outcome == BaselineDecoder::kDecoded) return kOk;
    }
    ++num_fallbacks;
    const uint8_t* pixels = nullptr;
    const Status status = turbo_.decode(job, &pixels);
    if (status == kOk) {
      rgb_.resize(target, pixels, job, output, &resizer_);
    } else if (outcome == BaselineDecoder::kIsVivid) {
      // libjpeg-turbo complains about more, and whether an image is sound must not depend on its
      // colours.
      outcome = baseline_.decode(job, output, true, &resizer_);
      if (outcome == BaselineDecoder::kDecoded) return kOk;
    }
    return status;
  }

  Status check(const Target& target, const Job& job) {
    const auto* data = reinterpret_cast<const uint8_t*>(job.data);
    if (baseline_.open(target, data, static_cast<size_t>(job.size))) {
      const Frame& frame = baseline_.frame();
      if (frame.width != job.width || frame.height != job.height) return kWrongSize;
      if (baseline_.check_all()) return kOk;
    }
    const uint8_t* pixels = nullptr;
    return turbo_.decode(job, &pixels);
  }

  std::atomic<int64_t> num_fallbacks{0};

 private:
  BaselineDecoder baseline_;
  TurboDecoder turbo_;
  RgbResizer rgb_;
  Resizer resizer_;
};

// A pool and what each of its threads needs.
struct Engine {
  explicit Engine(int64_t num_threads)
      : pool(num_threads), workers(static_cast<size_t>(pool.num_threads())) {}

  const pid_t pid = getpid();
  Pool pool;
  std::vector<Worker> workers;
};

// What a caller holds: an engine of the process that asks. A forked child inherits no threads,
// locks that may be held for ever, and workers that may be in the middle of an image. So it leaves
// its copy behind, unread, and makes an engine of its own.
class Handle {
 public:
  Handle(int64_t num_threads, const Target* target)
      : target_(target), num_threads_(num_threads), engine_(new Engine(num_threads)) {}
  ~Handle() {
    Engine* engine = engine_.load();
    if (engine->pid == getpid()) delete engine;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  const Target& target() const { return *target_; }

  // Null if there is no memory for a child's own.
  Engine* engine() {
    Engine* engine = engine_.load();
    if (engine->pid == getpid()) return engine;
    std::unique_ptr<Engine> own = make_engine();
    // Another thread of the child may have been faster; then `engine` becomes that one's.
    if (own != nullptr && engine_.compare_exchange_strong(engine, own.get())) return own.release();
    return engine->pid == getpid() ? engine : nullptr;
  }

 private:
  std::unique_ptr<Engine> make_engine() const {
    // With fewer threads, if a child may not have as many.
    for (const int64_t num_threads : {num_threads_, int64_t{1}}) {
      try {
        return std::make_unique<Engine>(num_threads);
      } catch (const std::exception&) {
      }
    }
    return nullptr;
  }

  const Target* const target_;
  const int64_t num_threads_;
  std::atomic<Engine*> engine_;
};

Handle* handle_of(int64_t pool) { return reinterpret_cast<Handle*>(pool); }

// The order in which no thread is left with a long job at the end while the others wait. Empty if
// there is no memory for it.
std::vector<int64_t> costliest_first(const Job* jobs, int64_t num_jobs) {
  try {
    // About what is decoded: the bytes of the rows under the crop.
    std::vector<std::pair<double, int64_t>> costs;
    costs.reserve(static_cast<size_t>(num_jobs));
    for (int64_t i = 0; i < num_jobs; ++i) {
      const double rows = static_cast<double>(jobs[i].crop_height) /
                          static_cast<double>(std::max<int64_t>(jobs[i].height, 1));
      costs.emplace_back(-rows * static_cast<double>(jobs[i].size), i);
    }
    std::sort(costs.begin(), costs.end());
    std::vector<int64_t> order;
    order.reserve(costs.size());
    for (const auto& [cost, index] : costs) order.push_back(index);
    return order;
  } catch (const std::bad_alloc&) {
    return {};
  }
}

}  // namespace
}  // namespace ffvit

const char* ffvit_target_name(int64_t target) {
  const ffvit::TargetList list = ffvit::available_targets();
  return target >= 0 && target < list.count ? list.targets[target]->name : nullptr;
}

int64_t ffvit_pool_create(int64_t num_threads, int64_t target) {
  const ffvit::TargetList list = ffvit::available_targets();
  if (target < 0 || target >= list.count) return 0;
  try {
    return reinterpret_cast<int64_t>(new ffvit::Handle(num_threads, list.targets[target]));
  } catch (const std::exception&) {  // no memory, or no more threads
    return 0;
  }
}

void ffvit_pool_destroy(int64_t pool) { delete ffvit::handle_of(pool); }

int64_t ffvit_pool_fallbacks(int64_t pool) {
  const ffvit::Engine* engine = ffvit::handle_of(pool)->engine();
  int64_t sum = 0;
  if (engine == nullptr) return sum;
  for (const ffvit::Worker& worker : engine->workers) sum += worker.num_fallbacks.load();
  return sum;
}

int64_t ffvit_decode_batch(int64_t pool, int64_t num_jobs, const void* jobs, int64_t filter,
                           int64_t out_height, int64_t out_width, void* out, void* statuses) {
  ffvit::Handle* handle = ffvit::handle_of(pool);
  ffvit::Engine* engine = handle->engine();
  const auto* rows = static_cast<const ffvit::Job*>(jobs);
  auto* results = static_cast<int32_t*>(statuses);
  const int64_t image_size = out_height * out_width * 3;
  if (engine == nullptr) {
    std::fill_n(results, num_jobs, ffvit::kOutOfMemory);
    std::memset(out, 0, static_cast<size_t>(num_jobs * image_size));
    return num_jobs;
  }
  std::atomic<int64_t> num_failed{0};
  // One thread alone has nobody to wait for.
  std::vector<int64_t> order;
  if (engine->workers.size() > 1) order = ffvit::costliest_first(rows, num_jobs);

  engine->pool.run(num_jobs, [&](int64_t turn, int64_t thread) {
    const int64_t index = order.empty() ? turn : order[static_cast<size_t>(turn)];
    const ffvit::Job& job = rows[index];
    ffvit::Output output;
    output.filter = static_cast<ffvit::Filter>(filter);
    output.flip = job.flip != 0;
    output.height = out_height;
    output.width = out_width;
    output.pixels = static_cast<uint8_t*>(out) + index * image_size;
    ffvit::Status status = ffvit::kOutOfMemory;
    try {
      status = engine->workers[static_cast<size_t>(thread)].run(handle->target(), job, output);
    } catch (const std::bad_alloc&) {
    }
    // Pixels may have been streamed past the caches, which other fences do not wait for.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    results[index] = status;
    if (status != ffvit::kOk) {
      // Never leave what an earlier batch put there: it is another sample's image.
      std::memset(output.pixels, 0, static_cast<size_t>(image_size));
      ++num_failed;
    }
  });
  return num_failed.load();
}

int64_t ffvit_check_jpeg(int64_t pool, const void* data, int64_t size, int64_t height,
                         int64_t width) {
  ffvit::Handle* handle = ffvit::handle_of(pool);
  ffvit::Engine* engine = handle->engine();
  ffvit::Job job = {};
  job.data = reinterpret_cast<int64_t>(data);
  job.size = size;
  job.height = height;
  job.width = width;
  ffvit::Status status = ffvit::kOutOfMemory;
  if (engine == nullptr) return status;
  engine->pool.run(1, [&](int64_t, int64_t thread) {
    try {
      status = engine->workers[static_cast<size_t>(thread)].check(handle->target(), job);
    } catch (const std::bad_alloc&) {
    }
  });
  return status;
}
