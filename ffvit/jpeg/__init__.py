"""From encoded images to crops: C++ kernel, crop geometry, FFCV operations. No torch."""
