#include "kernel.h"

#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <vector>

#include "decode.h"
#include "pool.h"
#include "resize.h"

namespace ffvit {
namespace {

// A pool and what each of its threads needs to turn a job into pixels.
struct Engine {
  explicit Engine(int64_t num_threads)
      : pool(num_threads),
        decoders(static_cast<size_t>(pool.num_threads())),
        resizers(static_cast<size_t>(pool.num_threads())) {}

  Pool pool;
  std::vector<Decoder> decoders;
  std::vector<Resizer> resizers;
};

bool crop_is_inside(const Job& job) {
  return job.top >= 0 && job.left >= 0 && job.crop_height >= 1 && job.crop_width >= 1 &&
         job.crop_height <= job.height - job.top && job.crop_width <= job.width - job.left;
}

Status decode_one(Engine* engine, size_t thread, const Job& job, Filter filter, int64_t resolution,
                  uint8_t* out) {
  if (!crop_is_inside(job)) return kBadCrop;
  try {
    const uint8_t* pixels = nullptr;
    const Status status = engine->decoders[thread].decode(job, &pixels);
    if (status == kOk) engine->resizers[thread].resize(pixels, job, filter, resolution, out);
    return status;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

}  // namespace
}  // namespace ffvit

int64_t ffvit_pool_create(int64_t num_threads) {
  try {
    return reinterpret_cast<int64_t>(new ffvit::Engine(num_threads));
  } catch (const std::exception&) {  // no memory, or no more threads
    return 0;
  }
}

void ffvit_pool_destroy(int64_t pool) { delete reinterpret_cast<ffvit::Engine*>(pool); }

int64_t ffvit_decode_batch(int64_t pool, int64_t num_jobs, const void* jobs, int64_t filter,
                           int64_t resolution, void* out, void* statuses) {
  auto* engine = reinterpret_cast<ffvit::Engine*>(pool);
  const auto* rows = static_cast<const ffvit::Job*>(jobs);
  auto* pixels = static_cast<uint8_t*>(out);
  auto* results = static_cast<int32_t*>(statuses);
  const int64_t image_size = resolution * resolution * 3;
  std::atomic<int64_t> num_failed{0};

  engine->pool.run(num_jobs, [&](int64_t index, int64_t thread) {
    uint8_t* image = pixels + index * image_size;
    const ffvit::Status status =
        ffvit::decode_one(engine, static_cast<size_t>(thread), rows[index],
                          static_cast<ffvit::Filter>(filter), resolution, image);
    results[index] = status;
    if (status != ffvit::kOk) {
      // Never leave what an earlier batch put there: it is another sample's image.
      std::memset(image, 0, static_cast<size_t>(image_size));
      ++num_failed;
    }
  });
  return num_failed.load();
}
