// Feeds one damaged or odd JPEG file to the kernel's C interface and stops at the first promise of
// kernel.h that is broken. Built and run by scripts/fuzz.sh.
//
// The first kNumOptions bytes of an input choose crop, output size, filter and flip; the rest is
// the file. It ends where its heap block ends, and so does the output, so that AddressSanitizer
// sees the first byte read or written outside.
#include <turbojpeg.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "coefficients.h"
#include "input.h"
#include "kernel.h"
#include "shrink.h"

namespace {

using ffvit::Job;

constexpr int64_t kMaxPixels = 1 << 20;          // of an image; more would only be slower
constexpr int64_t kMaxComparedPixels = 1 << 15;  // of an image that is decoded at its own size

// What one decode gave.
struct Result {
  int32_t status = 1;
  bool is_own = false;  // decoded without libjpeg-turbo
  std::unique_ptr<uint8_t[]> pixels;
  size_t size = 0;

  bool operator==(const Result& other) const {
    return status == other.status && is_own == other.is_own && size == other.size &&
           std::memcmp(pixels.get(), other.pixels.get(), size) == 0;
  }
};

void require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", promise);
  std::abort();
}

Result decode(int64_t pool, const Job& job, int64_t filter, int64_t height, int64_t width) {
  Result result;
  result.size = static_cast<size_t>(height * width * 3);
  result.pixels.reset(new uint8_t[result.size]);
  std::memset(result.pixels.get(), 0xAB, result.size);
  const int64_t before = ffvit_pool_fallbacks(pool);
  const int64_t num_failed =
      ffvit_decode_batch(pool, 1, &job, filter, height, width, result.pixels.get(), &result.status);
  result.is_own = result.status == 0 && ffvit_pool_fallbacks(pool) == before;
  require(num_failed == (result.status != 0), "the number of failures is that of the statuses");
  if (result.status != 0) {
    bool is_black = true;
    for (size_t i = 0; i < result.size; ++i) is_black = is_black && result.pixels[i] == 0;
    require(is_black, "a failed sample is black");
  }
  return result;
}

// One of each target, with what earlier inputs left in its memory.
std::vector<int64_t> create_pools() {
  std::vector<int64_t> pools;
  for (int64_t target = 0; ffvit_target_name(target) != nullptr; ++target) {
    pools.push_back(ffvit_pool_create(1, target));
  }
  return pools;
}

// The crop at its own size is a part of the whole image, to the bit: what lies around a crop takes
// part in upsampling its chroma.
void check_crop(int64_t pool, const Job& job, const Result& whole) {
  const Result crop = decode(pool, job, ffvit::kArea, job.crop_height, job.crop_width);
  require(crop.status == 0, "a part of a sound image is sound");
  require(crop.is_own, "a part of a sound image needs no other decoder");
  for (int64_t y = 0; y < job.crop_height; ++y) {
    for (int64_t x = 0; x < job.crop_width; ++x) {
      const int64_t column = job.flip != 0 ? job.crop_width - 1 - x : x;
      const uint8_t* expected =
          &whole.pixels[static_cast<size_t>(((job.top + y) * job.width + job.left + column) * 3)];
      const uint8_t* got = &crop.pixels[static_cast<size_t>((y * job.crop_width + x) * 3)];
      require(std::memcmp(got, expected, 3) == 0, "a crop equals that part of the whole image");
    }
  }
}

// Pixels that differ by no more than roundings from libjpeg-turbo's, if no sum of the inverse DCT
// can leave int16: Y and Cb differ by one each, and libjpeg-turbo rounds chroma once more.
void check_pixels(const Job& job, const Result& whole) {
  static tjhandle turbo = tjInitDecompress();
  std::vector<uint8_t> expected(whole.size);
  if (tjDecompress2(turbo, reinterpret_cast<const uint8_t*>(job.data),
                    static_cast<unsigned long>(job.size), expected.data(),
                    static_cast<int>(job.width), 0, static_cast<int>(job.height), TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0) {
    return;
  }
  for (size_t i = 0; i < whole.size; ++i) {
    require(std::abs(expected[i] - whole.pixels[i]) <= 5, "pixels are libjpeg-turbo's");
  }
}

// The writer encodes anew what the kernel's own decoder takes, and nothing else, to the same file
// by each target.
void check_shrinking(size_t num_targets, const Job& job, bool is_own) {
  const int64_t height = (job.height + 1) / 2, width = (2 * job.width + 2) / 3;
  const auto capacity = static_cast<size_t>(4096 + 8 * height * width);
  const std::unique_ptr<uint8_t[]> first(new uint8_t[capacity]), other(new uint8_t[capacity]);
  int64_t expected = 0;
  for (size_t target = 0; target < num_targets; ++target) {
    uint8_t* out = target == 0 ? first.get() : other.get();
    const int64_t size = ffvit_shrink_jpeg(
        static_cast<int64_t>(target), reinterpret_cast<const void*>(job.data), job.size, job.height,
        job.width, height, width, 90, 4, out, static_cast<int64_t>(capacity));
    if (target == 0) {
      expected = size;
      require((size > 0) == is_own, "shrinking takes what the kernel's own decoder takes");
    } else {
      require(size == expected, "targets agree on the size of the shrunken file");
      require(size < 0 || std::memcmp(first.get(), out, static_cast<size_t>(size)) == 0,
              "targets agree on the shrunken file");
    }
  }
}

void check_whole(const std::vector<int64_t>& pools, const Job& job, const Job& all) {
  const bool is_small = job.height * job.width <= kMaxComparedPixels;
  const int64_t height = is_small ? job.height : 1, width = is_small ? job.width : 1;
  const Result whole = decode(pools[0], all, ffvit::kArea, height, width);
  for (const int64_t pool : pools) {
    require(decode(pool, all, ffvit::kArea, height, width) == whole, "targets agree on the image");
    const int64_t checked = ffvit_check_jpeg(pool, reinterpret_cast<const void*>(job.data),
                                             job.size, job.height, job.width);
    require(checked == whole.status, "checking gives the status of decoding");
  }
  if (is_small && whole.is_own) check_crop(pools.back(), job, whole);
  if (is_small) check_shrinking(pools.size(), all, whole.is_own);
  const auto* data = reinterpret_cast<const uint8_t*>(job.data);
  const ffvit::Coefficients compared = ffvit::compare_coefficients(data, job.size);
  require(compared.are_equal, "coefficients are libjpeg-turbo's");
  if (is_small && whole.is_own && compared.are_moderate) check_pixels(all, whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t input_size) {
  if (input_size < ffvit::kNumOptions) return -1;
  const size_t size = input_size - ffvit::kNumOptions;
  // new char[] aligns its begin; the end is what must be exact.
  const std::unique_ptr<uint8_t[]> file(new uint8_t[size]);
  if (size > 0) std::memcpy(file.get(), input + ffvit::kNumOptions, size);

  const ffvit::Options options(input, file.get(), size);
  Job job = options.job;
  if (job.height * job.width > kMaxPixels) return -1;
  job.data = reinterpret_cast<int64_t>(file.get());
  job.size = static_cast<int64_t>(size);

  static const auto& pools = *new std::vector<int64_t>(create_pools());
  const int64_t fresh = ffvit_pool_create(1, static_cast<int64_t>(pools.size()) - 1);
  const Result result = decode(fresh, job, options.filter, options.out_height, options.out_width);
  ffvit_pool_destroy(fresh);
  for (const int64_t pool : pools) {
    require(decode(pool, job, options.filter, options.out_height, options.out_width) == result,
            "targets agree, whatever was decoded before");
  }
  Job all = job;
  all.top = all.left = all.flip = 0;
  all.crop_height = all.height;
  all.crop_width = all.width;
  check_whole(pools, job, all);
  return 0;
}
