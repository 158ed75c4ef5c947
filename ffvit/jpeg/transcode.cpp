#include "transcode.h"

#include "codec.h"

namespace ffvit {
namespace {

int64_t add_restart_markers(Codec* codec, const uint8_t* data, int64_t size, int64_t height,
                            int64_t width, int64_t restart_interval, uint8_t* out,
                            int64_t capacity) {
  if (setjmp(codec->jump) != 0) return codec->status;
  codec->open_writer(out, capacity);
  codec->open_reader(data, size);
  codec->read_header(height, width);
  jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&codec->reader);
  // With libjpeg's defaults: sequential, the standard Huffman tables, JFIF or Adobe's marker as the
  // colour space needs it.
  jpeg_copy_critical_parameters(&codec->reader, &codec->writer);
  codec->writer.restart_interval = static_cast<unsigned int>(restart_interval);
  jpeg_write_coefficients(&codec->writer, coefficients);
  jpeg_finish_compress(&codec->writer);
  jpeg_finish_decompress(&codec->reader);
  return codec->num_written();
}

}  // namespace
}  // namespace ffvit

// The macro holds numbers and dots, not a text.
#define FFVIT_TEXT_OF(x) #x
#define FFVIT_TEXT(x) FFVIT_TEXT_OF(x)
const char* ffvit_libjpeg_version() { return FFVIT_TEXT(LIBJPEG_TURBO_VERSION); }

int64_t ffvit_add_restart_markers(const void* data, int64_t size, int64_t height, int64_t width,
                                  int64_t restart_interval, void* out, int64_t capacity) {
  ffvit::Codec codec = {};
  const int64_t result =
      ffvit::add_restart_markers(&codec, static_cast<const uint8_t*>(data), size, height, width,
                                 restart_interval, static_cast<uint8_t*>(out), capacity);
  codec.close();
  return result;
}
