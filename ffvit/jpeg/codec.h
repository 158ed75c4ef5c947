// libjpeg as the writer's functions use it: errors are statuses, output goes to a given buffer.
//
// libjpeg reports errors by longjmp. No function between setjmp and libjpeg may hold an object with
// a destructor.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>  // jpeglib.h needs it

// After cstdio.
#include <jpeglib.h>

#include "kernel.h"

namespace ffvit {

// The buffer for the result is too small.
constexpr int64_t kNoRoom = -100;

// One decompressor and one compressor. Zero it before use, and call `close` at the end.
struct Codec {
  jpeg_decompress_struct reader;
  jpeg_compress_struct writer;
  jpeg_error_mgr errors;
  jpeg_destination_mgr destination;
  uint8_t* out;
  int64_t capacity;
  int64_t status;     // of the last error
  std::jmp_buf jump;  // where errors go; set it before each group of calls

  // Prepare one half. setjmp(jump) must have been called.
  void open_reader(const uint8_t* data, int64_t size);
  void open_writer(uint8_t* out_buffer, int64_t out_capacity);
  // Read the header. Leaves by `jump` unless the image is height x width.
  void read_header(int64_t height, int64_t width);
  // Leave by `jump` with a status.
  [[noreturn]] void fail(int64_t reason);
  // Bytes in `out` after jpeg_finish_compress.
  int64_t num_written() const {
    return capacity - static_cast<int64_t>(destination.free_in_buffer);
  }
  void close();

 private:
  jpeg_error_mgr* error_handlers();
};

}  // namespace ffvit
