// Uses the kernel from several threads at once, for ThreadSanitizer: pools of several sizes, two
// pools at a time, two callers of one pool, pools that are destroyed idle. Built and run by
// scripts/sanitize.sh with JPEG files as arguments; exit status 1 if any image differs.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "kernel.h"

namespace {

constexpr int64_t kSide = 24;
constexpr int kNumRounds = 20;

using Bytes = std::vector<uint8_t>;

struct Batch {
  std::vector<ffvit::Job> jobs;
  Bytes pixels;
  std::vector<int32_t> statuses;

  explicit Batch(const std::vector<Bytes>& files)
      : jobs(files.size()), pixels(files.size() * kSide * kSide * 3), statuses(files.size()) {
    for (size_t i = 0; i < files.size(); ++i) {
      ffvit::Job& job = jobs[i];
      job.data = reinterpret_cast<int64_t>(files[i].data());
      job.size = static_cast<int64_t>(files[i].size());
      job.crop_height = job.height = 50;
      job.crop_width = job.width = 70;
      job.flip = static_cast<int64_t>(i % 2);
    }
  }

  void decode(int64_t pool) {
    ffvit_decode_batch(pool, static_cast<int64_t>(jobs.size()), jobs.data(), ffvit::kArea, kSide,
                       kSide, pixels.data(), statuses.data());
  }

  bool operator==(const Batch& other) const {
    return pixels == other.pixels && statuses == other.statuses;
  }
};

bool decode_often(int64_t pool, const std::vector<Bytes>& files, const Batch& expected) {
  bool are_equal = true;
  Batch batch(files);
  for (int round = 0; round < kNumRounds; ++round) {
    batch.decode(pool);
    are_equal = are_equal && batch == expected && ffvit_pool_fallbacks(pool) >= 0;
    const Bytes& file = files[static_cast<size_t>(round) % files.size()];
    ffvit_check_jpeg(pool, file.data(), static_cast<int64_t>(file.size()), 50, 70);
  }
  return are_equal;
}

// Two callers at once, each with its own pool or both with the same.
bool decode_twice(int64_t first, int64_t second, const std::vector<Bytes>& files,
                  const Batch& expected) {
  bool are_equal[2] = {};
  std::thread other([&] { are_equal[0] = decode_often(first, files, expected); });
  are_equal[1] = decode_often(second, files, expected);
  other.join();
  return are_equal[0] && are_equal[1];
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Bytes> files;
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const int64_t single = ffvit_pool_create(1, 0);
  Batch expected(files);
  expected.decode(single);
  int64_t num_decoded = 0;
  for (const int32_t status : expected.statuses) num_decoded += status == 0 ? 1 : 0;
  bool is_good = num_decoded > 0;
  for (const int64_t num_threads : {1, 2, 5}) {
    const int64_t first = ffvit_pool_create(num_threads, 0);
    const int64_t second = ffvit_pool_create(num_threads, 0);
    is_good = decode_twice(first, second, files, expected) && is_good;
    is_good = decode_twice(first, first, files, expected) && is_good;
    ffvit_pool_destroy(second);
    ffvit_pool_destroy(first);
    ffvit_pool_destroy(ffvit_pool_create(num_threads, 0));
  }
  ffvit_pool_destroy(single);
  std::printf("threads: %zu files, %ld of them decoded, %s\n", files.size(),
              static_cast<long>(num_decoded), is_good ? "same pixels" : "DIFFERENT PIXELS");
  return is_good ? 0 : 1;
}
