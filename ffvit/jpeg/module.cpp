// The Python module `_kernel`: empty, so that importing it tells where this library lies.
#include <Python.h>

namespace {
PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_kernel",
                          "Holds the C functions of kernel.h.",
                          0,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};
}  // namespace

PyMODINIT_FUNC PyInit__kernel() { return PyModule_Create(&definition); }
