// Mutations that keep the headers' lengths, so that the fuzzer gets past them: bytes of the entropy
// data, restart markers, Huffman tables, the restart interval, the frame.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "input.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using ffvit::Markers;
using Random = std::minstd_rand;

size_t below(Random* random, size_t limit) { return limit == 0 ? 0 : (*random)() % limit; }

// A run of the file's bytes, mutated in place: its size stays.
void mutate_bytes(uint8_t* data, size_t begin, size_t end, size_t max_run, Random* random) {
  if (begin >= end) return;
  const size_t first = begin + below(random, end - begin);
  const size_t run = std::min(end - first, 1 + below(random, max_run));
  std::vector<uint8_t> copy(data + first, data + first + run);
  const size_t size = LLVMFuzzerMutate(copy.data(), run, run);
  std::memcpy(data + first, copy.data(), size);
}

struct Segments {
  std::vector<size_t> begins, ends;

  void add(size_t begin, size_t end) {
    begins.push_back(begin);
    ends.push_back(end);
  }
  void mutate(uint8_t* file, size_t max_run, Random* random) const {
    if (begins.empty()) return;
    const size_t number = below(random, begins.size());
    mutate_bytes(file, begins[number], ends[number], max_run, random);
  }
};

// One code more of some length and one less of another, or two symbols swapped.
void mutate_huffman(uint8_t* file, const Segments& tables, Random* random) {
  if (tables.begins.empty()) return;
  const size_t number = below(random, tables.begins.size());
  uint8_t* content = file + tables.begins[number];
  const size_t size = tables.ends[number] - tables.begins[number];
  if (size < 19) return;
  if (below(random, 2) == 0) {
    ++content[1 + below(random, 16)];
    --content[1 + below(random, 16)];
  } else {
    std::swap(content[17 + below(random, size - 17)], content[17 + below(random, size - 17)]);
  }
}

// Renumber, swap, remove or insert a restart marker. Returns the new size of the file.
size_t mutate_restarts(uint8_t* file, size_t scan, size_t size, size_t max_size, Random* random) {
  std::vector<size_t> places;
  for (size_t i = scan; i + 1 < size; ++i) {
    if (file[i] == 0xFF && file[i + 1] >= 0xD0 && file[i + 1] <= 0xD9) places.push_back(i);
  }
  const size_t choice = below(random, 4);
  if (choice == 0 || places.empty()) {
    if (size + 2 > max_size) return size;
    const size_t place = scan + below(random, size - scan + 1);
    std::memmove(file + place + 2, file + place, size - place);
    file[place] = 0xFF;
    file[place + 1] = static_cast<uint8_t>(0xD0 + below(random, 8));
    return size + 2;
  }
  const size_t place = places[below(random, places.size())];
  if (choice == 1) {
    file[place + 1] = static_cast<uint8_t>(0xD0 + below(random, 10));
  } else if (choice == 2) {
    std::swap(file[place + 1], file[places[below(random, places.size())] + 1]);
  } else {
    // The marker, and perhaps some of what lies before it.
    const size_t extra = below(random, 2) * below(random, place - scan + 1);
    std::memmove(file + place - extra, file + place + 2, size - place - 2);
    return size - extra - 2;
  }
  return size;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  Random random(seed);
  const size_t choice = below(&random, 10);
  if (size < ffvit::kNumOptions + 2 || choice < 2) return LLVMFuzzerMutate(data, size, max_size);
  if (choice == 2) {
    mutate_bytes(data, 0, ffvit::kNumOptions, ffvit::kNumOptions, &random);
    return size;
  }
  uint8_t* file = data + ffvit::kNumOptions;
  const size_t file_size = size - ffvit::kNumOptions;
  Segments frames, huffman, restarts, scans, quantizations;
  for (Markers markers(file, file_size); markers.next();) {
    if (ffvit::is_frame(markers.marker)) frames.add(markers.begin, markers.end);
    if (markers.marker == 0xC4) huffman.add(markers.begin, markers.end);
    if (markers.marker == 0xDD) restarts.add(markers.begin, markers.end);
    if (markers.marker == 0xDB) quantizations.add(markers.begin, markers.end);
    if (markers.marker == 0xDA) scans.add(markers.end, file_size);
  }
  if (scans.begins.empty()) return LLVMFuzzerMutate(data, size, max_size);
  const size_t scan = scans.begins[0];
  if (choice <= 5) {
    scans.mutate(file, choice == 5 ? file_size : 4, &random);
  } else if (choice == 6) {
    const size_t limit = max_size - ffvit::kNumOptions;
    return ffvit::kNumOptions + mutate_restarts(file, scan, file_size, limit, &random);
  } else if (choice == 7) {
    mutate_huffman(file, huffman, &random);
  } else if (choice == 8) {
    (below(&random, 2) == 0 && !restarts.begins.empty() ? restarts : frames)
        .mutate(file, 2, &random);
  } else {
    // The sizes of entropy data, anywhere in the scan.
    std::vector<uint8_t> copy(file + scan, file + file_size);
    const size_t room = max_size - ffvit::kNumOptions - scan;
    copy.resize(std::max(room, copy.size()));
    const size_t new_size = LLVMFuzzerMutate(copy.data(), file_size - scan, room);
    std::memcpy(file + scan, copy.data(), new_size);
    return ffvit::kNumOptions + scan + new_size;
  }
  return size;
}
