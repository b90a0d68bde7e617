"""The C core: edgegan.h and its .c files are plain C for any program; _core is their Python module."""
