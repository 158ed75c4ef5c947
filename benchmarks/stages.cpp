// Where the time of the crop decoder goes: runs it with one stage after the other left out.
//
//   stages JOBS ROUNDS     JOBS is written by stages.py, which also says what the output means.
//
// Prints one line for each round: microseconds per image of each variant, in the order of
// kVariants.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "baseline.h"
#include "resizer.h"
#include "segments.h"
#include "target.h"

namespace {

using namespace ffvit;

void no_samples(const int16_t*, const int16_t*, const int16_t*, int16_t*, int16_t*) {}
int64_t no_clipping(int16_t*, int, int, int16_t*) { return 0; }
void no_stripe(const int16_t*, int64_t, int64_t, const Taps&, bool, int64_t, int16_t* const*) {}
void no_row(const WeightedRows*, bool, int64_t, uint8_t*) {}

// What is left of the work; each variant lacks one more stage than the one before.
enum Variant { kEverything, kNoFinishing, kNoResizing, kNoSamples, kHeadersAndMarkers, kHeaders };
constexpr int kVariants = 6;

struct Input {
  std::vector<Job> jobs;
  std::vector<uint8_t> bytes;
  int64_t resolution = 0;
};

bool read_input(const char* path, Input* input) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  int64_t numbers[3] = {};  // jobs, bytes of all images, resolution
  bool is_good = std::fread(numbers, sizeof numbers, 1, file) == 1;
  input->jobs.resize(static_cast<size_t>(numbers[0]));
  input->bytes.resize(static_cast<size_t>(numbers[1]));
  input->resolution = numbers[2];
  is_good = is_good && std::fread(input->jobs.data(), sizeof(Job), input->jobs.size(), file) ==
                           input->jobs.size();
  is_good = is_good &&
            std::fread(input->bytes.data(), 1, input->bytes.size(), file) == input->bytes.size();
  std::fclose(file);
  // In the file, addresses count from the first byte.
  for (Job& job : input->jobs) job.data += reinterpret_cast<int64_t>(input->bytes.data());
  return is_good;
}

double cpu_microseconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

class Bench {
 public:
  explicit Bench(Input input) : input_(std::move(input)) {
    const Target& best = *available_targets().targets[0];
    for (Target& target : targets_) target = best;
    for (int v = kNoFinishing; v <= kNoSamples; ++v) targets_[v].finish_row = no_row;
    for (int v = kNoResizing; v <= kNoSamples; ++v) targets_[v].resize_stripe = no_stripe;
    targets_[kNoSamples].blocks_to_samples = no_samples;
    targets_[kNoSamples].clip_colours = no_clipping;
    pixels_.resize(static_cast<size_t>(input_.resolution * input_.resolution * 3) *
                   input_.jobs.size());
    leave_out_others();
  }

  // Microseconds of CPU time per image.
  double run(int variant) {
    const double begin = cpu_microseconds();
    for (size_t i = 0; i < input_.jobs.size(); ++i) {
      if (run_one(variant, i)) continue;
      std::fprintf(stderr, "error: image %zu is not for the kernel's own decoder\n", i);
      std::exit(1);
    }
    return (cpu_microseconds() - begin) / static_cast<double>(input_.jobs.size());
  }

 private:
  // Some images are libjpeg-turbo's for their colours, which stages that are left out would hide.
  void leave_out_others() {
    std::vector<Job> own;
    for (size_t i = 0; i < input_.jobs.size(); ++i) {
      if (run_one(kEverything, i)) own.push_back(input_.jobs[i]);
    }
    const size_t num_others = input_.jobs.size() - own.size();
    if (num_others > 0) std::fprintf(stderr, "%zu images left out\n", num_others);
    input_.jobs = own;
  }

  // Returns whether the kernel's own decoder decodes the image.
  bool run_one(int variant, size_t index) {
    const Job& job = input_.jobs[index];
    const Target& target = targets_[variant];
    const auto* data = reinterpret_cast<const uint8_t*>(job.data);
    bool is_good = decoder_.open(target, data, static_cast<size_t>(job.size));
    if (variant == kHeadersAndMarkers) {
      is_good = is_good && segments_.open(target, decoder_.frame());
    } else if (variant != kHeaders) {
      Output output;
      output.flip = job.flip != 0;
      output.height = output.width = input_.resolution;
      output.pixels =
          pixels_.data() + index * static_cast<size_t>(3 * output.height * output.width);
      is_good =
          is_good && decoder_.decode(job, output, false, &resizer_) == BaselineDecoder::kDecoded;
    }
    return is_good;
  }

  Input input_;
  Target targets_[kVariants];
  BaselineDecoder decoder_;
  SegmentReader segments_;
  Resizer resizer_;
  std::vector<uint8_t> pixels_;
};

}  // namespace

int main(int argc, char** argv) {
  Input input;
  if (argc != 3 || !read_input(argv[1], &input)) {
    std::fprintf(stderr, "usage: stages JOBS ROUNDS\n");
    return 2;
  }
  Bench bench(std::move(input));
  const int num_rounds = std::atoi(argv[2]);
  for (int round = -1; round < num_rounds; ++round) {  // the first one warms up
    for (int variant = 0; variant < kVariants; ++variant) {
      const double microseconds = bench.run(variant);
      if (round >= 0) std::printf("%.3f%c", microseconds, variant + 1 < kVariants ? ' ' : '\n');
    }
  }
}
