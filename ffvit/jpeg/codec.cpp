#include "codec.h"

// After jpeglib.h.
#include <jerror.h>

namespace ffvit {
namespace {

Codec* codec_of(j_common_ptr half) { return static_cast<Codec*>(half->client_data); }

void on_error(j_common_ptr half) {
  Codec* codec = codec_of(half);
  if (half->err->msg_code == JERR_OUT_OF_MEMORY) codec->fail(kOutOfMemory);
  codec->fail(codec->status);
}

// libjpeg warns where data are missing and goes on with grey: such an image is damaged.
void on_message(j_common_ptr half, int level) {
  if (level < 0) codec_of(half)->fail(codec_of(half)->status);
}

void ignore_message(j_common_ptr) {}

void begin_output(j_compress_ptr writer) {
  Codec* codec = static_cast<Codec*>(writer->client_data);
  codec->destination.next_output_byte = codec->out;
  codec->destination.free_in_buffer = static_cast<size_t>(codec->capacity);
}

boolean on_full_buffer(j_compress_ptr writer) {
  static_cast<Codec*>(writer->client_data)->fail(kNoRoom);
}

void end_output(j_compress_ptr) {}

}  // namespace

void Codec::open_reader(const uint8_t* data, int64_t size) {
  status = kBadHeader;
  reader.err = error_handlers();
  reader.client_data = this;
  jpeg_create_decompress(&reader);  // zeroes all but these two
  jpeg_mem_src(&reader, data, static_cast<unsigned long>(size));
}

void Codec::open_writer(uint8_t* out_buffer, int64_t out_capacity) {
  status = kDamaged;
  out = out_buffer;
  capacity = out_capacity;
  writer.err = error_handlers();
  writer.client_data = this;
  jpeg_create_compress(&writer);
  destination.init_destination = begin_output;
  destination.empty_output_buffer = on_full_buffer;
  destination.term_destination = end_output;
  writer.dest = &destination;
}

jpeg_error_mgr* Codec::error_handlers() {
  jpeg_std_error(&errors);
  errors.error_exit = on_error;
  errors.emit_message = on_message;
  errors.output_message = ignore_message;
  return &errors;
}

void Codec::read_header(int64_t height, int64_t width) {
  jpeg_read_header(&reader, TRUE);
  if (reader.image_height != static_cast<JDIMENSION>(height) ||
      reader.image_width != static_cast<JDIMENSION>(width)) {
    fail(kWrongSize);
  }
  status = kDamaged;
}

void Codec::fail(int64_t reason) {
  status = reason;
  std::longjmp(jump, 1);
}

void Codec::close() {
  jpeg_destroy_compress(&writer);
  jpeg_destroy_decompress(&reader);
}

}  // namespace ffvit
