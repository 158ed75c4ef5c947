// A libjpeg-turbo that decodes nothing, so that the kernel can be linked for a machine whose
// libraries are not here: what the kernel cannot decode itself gets the status of a bad header.
#pragma once

using tjhandle = void*;
enum {
  TJCS_CMYK = 3,
  TJCS_YCCK = 4,
  TJPF_RGB = 0,
  TJFLAG_ACCURATEDCT = 4096,
  TJFLAG_STOPONWARNING = 8192
};

inline tjhandle tjInitDecompress() {
  static char nothing;
  return &nothing;
}
inline int tjDestroy(tjhandle) { return 0; }
inline int tjDecompressHeader3(tjhandle, const unsigned char*, unsigned long, int*, int*, int*,
                               int*) {
  return -1;
}
inline int tjDecompress2(tjhandle, const unsigned char*, unsigned long, unsigned char*, int, int,
                         int, int, int) {
  return -1;
}
