"""The C core: edgegan.h and noise.c are plain C for any program; _core is their Python module."""
