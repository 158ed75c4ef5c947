// Prints what a target makes of the jobs that make_jobs.py wrote: name, status, hash of the pixels.
//
//   driver                 compare the vector operations, then name this machine's targets
//   driver TARGET FILE     run every job of FILE
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "kernel.h"
#include "lanes_check.h"

namespace {

constexpr uint8_t kUntouched = 0xA5;
constexpr size_t kGuardSize = 64;  // bytes behind the pixels, where nothing may be written

// In the file, all int64 and little-endian; the name and the data follow.
struct Header {
  int64_t name_size;
  ffvit::Job job;  // data: 0
  int64_t filter;
  int64_t out_height;
  int64_t out_width;
};

// FNV-1a, 64 bits.
uint64_t hash_of(const uint8_t* bytes, size_t size) {
  uint64_t hash = 0xCBF29CE484222325;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001B3;
  return hash;
}

int64_t create_pool(const char* target) {
  for (int64_t i = 0; const char* name = ffvit_target_name(i); ++i) {
    if (std::strcmp(name, target) == 0) return ffvit_pool_create(1, i);
  }
  return 0;
}

bool run(int64_t pool, Header header, std::FILE* file) {
  std::string name(static_cast<size_t>(header.name_size), ' ');
  std::vector<uint8_t> data(static_cast<size_t>(header.job.size));
  if (std::fread(name.data(), 1, name.size(), file) != name.size()) return false;
  if (std::fread(data.data(), 1, data.size(), file) != data.size()) return false;
  header.job.data = reinterpret_cast<int64_t>(data.data());

  const auto size = static_cast<size_t>(header.out_height * header.out_width * 3);
  std::vector<uint8_t> out(size + kGuardSize, kUntouched);
  int32_t status = 0;
  ffvit_decode_batch(pool, 1, &header.job, header.filter, header.out_height, header.out_width,
                     out.data(), &status);
  for (size_t i = size; i < out.size(); ++i) {
    if (out[i] == kUntouched) continue;
    std::fprintf(stderr,
                 "error: %s: expected nothing behind the pixels to be written, but byte %zu was\n",
                 name.c_str(), i - size);
    return false;
  }
  std::printf("%s %" PRId32 " %016" PRIx64 "\n", name.c_str(), status, hash_of(out.data(), size));
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {
    // With no target but plain, the machine lacks the instructions that this would use.
    const char* wrong = ffvit_target_name(1) != nullptr ? wrong_lane_operation() : nullptr;
    if (wrong != nullptr) {
      std::fprintf(stderr, "error: %s: expected the lanes that lanes_plain.h computes\n", wrong);
      return 1;
    }
    for (int64_t i = 0; const char* name = ffvit_target_name(i); ++i) std::puts(name);
    return 0;
  }
  const int64_t pool = argc == 3 ? create_pool(argv[1]) : 0;
  std::FILE* file = argc == 3 ? std::fopen(argv[2], "rb") : nullptr;
  if (pool == 0 || file == nullptr) {
    std::fputs("error: expected a target of this machine and a file of jobs\n", stderr);
    return 2;
  }
  Header header;
  bool is_good = true;
  while (is_good && std::fread(&header, sizeof header, 1, file) == 1) {
    is_good = run(pool, header, file);
  }
  std::fclose(file);
  ffvit_pool_destroy(pool);
  return is_good ? 0 : 1;
}
