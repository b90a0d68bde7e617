/* edgegan.core._core: the C core for Python. Private: edgegan/noise.py and edgegan/image.py check the arguments,
 * make the arrays and call this; edgegan/_pure.py has the same functions, in NumPy. A thin layer: it takes buffers
 * apart, lets other threads run during long work, and turns a status into an exception. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgegan.h"

/* Elements below which the work is shorter than giving up the interpreter's lock and waiting for it again. */
enum { LONG = 16384 };

static PyThreadState *begin(Py_ssize_t elements)
{
    return elements < LONG ? NULL : PyEval_SaveThread();
}

static void end(PyThreadState *state)
{
    if (state != NULL)
        PyEval_RestoreThread(state);
}

static PyObject *result(edgegan_status status)
{
    if (status == EDGEGAN_OK)
        Py_RETURN_NONE;
    PyErr_SetString(status == EDGEGAN_ERROR_OVERFLOW ? PyExc_OverflowError : PyExc_ValueError,
                    edgegan_message(status));
    return NULL;
}

/* The number of whole items in a buffer, or a number that fits no request. */
static size_t items_of(const Py_buffer *buffer, size_t item_size)
{
    const size_t size = (size_t)buffer->len;
    return size % item_size == 0 ? size / item_size : SIZE_MAX;
}

/* Noise */

static PyObject *core_words(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n, dim;
    unsigned int stream;
    Py_buffer out;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKKIw*", &seed, &start, &n, &dim, &stream, &out))
        return NULL;
    PyThreadState *state = begin(out.len / 4);
    const edgegan_status status = edgegan_words(seed, start, n, dim, stream, out.buf, items_of(&out, 4));
    end(state);
    PyBuffer_Release(&out);
    return result(status);
}

static PyObject *core_normal(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n, dim;
    unsigned int stream;
    float truncation;
    Py_buffer out;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKKIfw*", &seed, &start, &n, &dim, &stream, &truncation, &out))
        return NULL;
    PyThreadState *state = begin(out.len / 4);
    const edgegan_status status =
        edgegan_normal(seed, start, n, dim, stream, truncation, out.buf, items_of(&out, 4));
    end(state);
    PyBuffer_Release(&out);
    return result(status);
}

static PyObject *core_labels(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n;
    unsigned int classes;
    Py_buffer out;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKIw*", &seed, &start, &n, &classes, &out))
        return NULL;
    PyThreadState *state = begin(out.len / 8);
    const edgegan_status status = edgegan_labels(seed, start, n, classes, out.buf, items_of(&out, 8));
    end(state);
    PyBuffer_Release(&out);
    return result(status);
}

static PyObject *core_derive_seed(PyObject *module, PyObject *args)
{
    unsigned long long seed;
    unsigned int purpose;
    uint64_t derived;
    (void)module;
    if (!PyArg_ParseTuple(args, "KI", &seed, &purpose))
        return NULL;
    const edgegan_status status = edgegan_derive_seed(seed, purpose, &derived);
    return status == EDGEGAN_OK ? PyLong_FromUnsignedLongLong(derived) : result(status);
}

static PyObject *core_normal_from_words(PyObject *module, PyObject *args)
{
    Py_buffer words, out;
    edgegan_status status = EDGEGAN_ERROR_BUFFER;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &words, &out))
        return NULL;
    if (words.len == out.len && items_of(&words, 4) != SIZE_MAX) {
        PyThreadState *state = begin(out.len / 4);
        edgegan_normal_from_words(words.buf, out.buf, items_of(&out, 4));
        end(state);
        status = EDGEGAN_OK;
    }
    PyBuffer_Release(&words);
    PyBuffer_Release(&out);
    return result(status);
}

static PyObject *core_philox(PyObject *module, PyObject *args)
{
    unsigned int counter[4], key[2];
    uint32_t out[4];
    (void)module;
    if (!PyArg_ParseTuple(args, "(IIII)(II)", counter, counter + 1, counter + 2, counter + 3, key, key + 1))
        return NULL;
    edgegan_philox(counter, key, out);
    return Py_BuildValue("(IIII)", out[0], out[1], out[2], out[3]);
}

typedef edgegan_status interpolation(const float *a, const float *b, size_t dim, const double *t, size_t count,
                                     float *out, size_t items);

static PyObject *interpolate(PyObject *args, interpolation *between)
{
    Py_buffer a, b, t, out;
    edgegan_status status = EDGEGAN_ERROR_BUFFER;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &a, &b, &t, &out))
        return NULL;
    const size_t dim = items_of(&a, 4), count = items_of(&t, 8);
    if (a.len == b.len && dim != SIZE_MAX && count != SIZE_MAX) {
        PyThreadState *state = begin(out.len / 4);
        status = between(a.buf, b.buf, dim, t.buf, count, out.buf, items_of(&out, 4));
        end(state);
    }
    PyBuffer_Release(&a);
    PyBuffer_Release(&b);
    PyBuffer_Release(&t);
    PyBuffer_Release(&out);
    return result(status);
}

static PyObject *core_lerp(PyObject *module, PyObject *args)
{
    (void)module;
    return interpolate(args, edgegan_lerp);
}

static PyObject *core_slerp(PyObject *module, PyObject *args)
{
    (void)module;
    return interpolate(args, edgegan_slerp);
}

/* Pixels */

static int is_little_endian(void)
{
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

/* A buffer of `ndim` dimensions whose items are of the C type `code` in this processor's order of bytes. */
static int get_buffer(PyObject *object, Py_buffer *view, int writable, int ndim, char code)
{
    if (PyObject_GetBuffer(object, view, PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return 0;
    const char *format = view->format == NULL ? "B" : view->format;
    if (*format == '@' || *format == '=' || *format == (is_little_endian() ? '<' : '>'))
        format++;
    if (view->ndim == ndim && format[0] == code && format[1] == '\0')
        return 1;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_ValueError, "a buffer is not of %d dimensions of native %s", ndim,
                 code == 'f' ? "float32" : "uint8");
    return 0;
}

/* Two buffers of four dimensions, NCHW floats and NHWC bytes, one of them written; 0 with an exception set. */
static int get_pair(PyObject *floats_object, PyObject *bytes_object, int floats_written, size_t zoom,
                    Py_buffer *floats, Py_buffer *bytes, edgegan_shape *shape, edgegan_strides strides[2])
{
    if (!get_buffer(floats_object, floats, floats_written, 4, 'f'))
        return 0;
    if (!get_buffer(bytes_object, bytes, !floats_written, 4, 'B')) {
        PyBuffer_Release(floats);
        return 0;
    }
    const Py_ssize_t *f = floats->shape, *b = bytes->shape;
    const edgegan_shape found = {(size_t)f[0], (size_t)f[1], (size_t)f[2], (size_t)f[3]};
    const size_t high = (size_t)b[1], wide = (size_t)b[2];
    *shape = found;
    const edgegan_strides of_floats = {floats->strides[0], floats->strides[1], floats->strides[2],
                                       floats->strides[3]};
    const edgegan_strides of_bytes = {bytes->strides[0], bytes->strides[3], bytes->strides[1], bytes->strides[2]};
    strides[0] = of_floats;
    strides[1] = of_bytes;
    /* Not h * zoom == high: a product of numbers from outside may wrap. */
    if (zoom > 0 && b[0] == f[0] && b[3] == f[1] && high % zoom == 0 && high / zoom == found.h && wide % zoom == 0
        && wide / zoom == found.w)
        return 1;
    PyBuffer_Release(floats);
    PyBuffer_Release(bytes);
    PyErr_SetString(PyExc_ValueError, "the buffers' shapes do not agree");
    return 0;
}

static Py_ssize_t elements(const Py_buffer *view)
{
    return view->itemsize > 0 ? view->len / view->itemsize : view->len;
}

/* Called for each batch, for one small picture too: hence without a tuple of arguments to take apart. */
static PyObject *core_to_uint8(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer floats, bytes;
    edgegan_shape shape;
    edgegan_strides strides[2];
    (void)module;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "to_uint8 takes 3 arguments, not %zd", count);
    const Py_ssize_t zoom = PyLong_AsSsize_t(args[2]);
    if (zoom == -1 && PyErr_Occurred())
        return NULL;
    if (!get_pair(args[0], args[1], 0, zoom < 0 ? 0 : (size_t)zoom, &floats, &bytes, &shape, strides))
        return NULL;
    PyThreadState *state = begin(elements(&bytes));
    const edgegan_status status =
        edgegan_to_uint8(shape, floats.buf, strides[0], bytes.buf, strides[1], (size_t)zoom);
    end(state);
    PyBuffer_Release(&floats);
    PyBuffer_Release(&bytes);
    return result(status);
}

static PyObject *core_to_float(PyObject *module, PyObject *args)
{
    PyObject *images, *pixels;
    Py_buffer floats, bytes;
    edgegan_shape shape;
    edgegan_strides strides[2];
    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &pixels, &images))
        return NULL;
    if (!get_pair(images, pixels, 1, 1, &floats, &bytes, &shape, strides))
        return NULL;
    PyThreadState *state = begin(elements(&bytes));
    const edgegan_status status = edgegan_to_float(shape, bytes.buf, strides[1], floats.buf, strides[0]);
    end(state);
    PyBuffer_Release(&floats);
    PyBuffer_Release(&bytes);
    return result(status);
}

/* Tiles */

static edgegan_strides strides_of(const Py_buffer *view)
{
    const edgegan_strides found = {view->strides[0], view->strides[1], view->strides[2], view->strides[3]};
    return found;
}

static edgegan_shape shape_of(const Py_buffer *view)
{
    const edgegan_shape found = {(size_t)view->shape[0], (size_t)view->shape[1], (size_t)view->shape[2],
                                 (size_t)view->shape[3]};
    return found;
}

static PyObject *core_tile(PyObject *module, PyObject *args)
{
    PyObject *pixels, *images;
    Py_ssize_t y, x;
    Py_buffer bytes, floats;
    edgegan_status status = EDGEGAN_ERROR_BUFFER;
    (void)module;
    if (!PyArg_ParseTuple(args, "OnnO", &pixels, &y, &x, &images) || !get_buffer(pixels, &bytes, 0, 4, 'B'))
        return NULL;
    if (!get_buffer(images, &floats, 1, 4, 'f')) {
        PyBuffer_Release(&bytes);
        return NULL;
    }
    if (bytes.shape[0] == floats.shape[0] && bytes.shape[3] == floats.shape[1]) {
        const edgegan_strides from = {bytes.strides[0], bytes.strides[3], bytes.strides[1], bytes.strides[2]};
        PyThreadState *state = begin(elements(&floats));
        status = edgegan_tile((size_t)bytes.shape[1], (size_t)bytes.shape[2], bytes.buf, from, y, x, shape_of(&floats),
                              floats.buf, strides_of(&floats));
        end(state);
    }
    PyBuffer_Release(&bytes);
    PyBuffer_Release(&floats);
    return result(status);
}

static PyObject *core_blend(PyObject *module, PyObject *args)
{
    PyObject *before_object, *weights_object, *images_object;
    Py_buffer before, weights, images;
    edgegan_status status = EDGEGAN_ERROR_BUFFER;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOO", &before_object, &weights_object, &images_object) ||
        !get_buffer(before_object, &before, 0, 4, 'f'))
        return NULL;
    if (!get_buffer(weights_object, &weights, 0, 1, 'f')) {
        PyBuffer_Release(&before);
        return NULL;
    }
    if (!get_buffer(images_object, &images, 1, 4, 'f')) {
        PyBuffer_Release(&before);
        PyBuffer_Release(&weights);
        return NULL;
    }
    if (memcmp(before.shape, images.shape, 4 * sizeof *before.shape) == 0 && weights.shape[0] == images.shape[2]
        && weights.strides[0] == 4) {
        PyThreadState *state = begin(elements(&images));
        status = edgegan_blend(shape_of(&images), before.buf, strides_of(&before), weights.buf, images.buf,
                               strides_of(&images));
        end(state);
    }
    PyBuffer_Release(&before);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&images);
    return result(status);
}

/* PNG */

/* (keyword, text, keyword, text, ...), each bytes of UTF-8, as an array of pairs to be freed; NULL with an exception. */
static edgegan_text *get_texts(PyObject *tuple, size_t *count)
{
    const Py_ssize_t size = PyTuple_Size(tuple);
    if (size < 0)
        return NULL;
    if (size % 2 != 0) {
        PyErr_SetString(PyExc_ValueError, "texts are pairs of keyword and text");
        return NULL;
    }
    *count = (size_t)size / 2;
    edgegan_text *texts = PyMem_Malloc((*count + 1) * sizeof *texts);
    if (texts == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        char *text; /* without a size asked for, a NUL within is an error */
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(tuple, i), &text, NULL) < 0) {
            PyMem_Free(texts);
            return NULL;
        }
        if (i % 2 == 0)
            texts[i / 2].keyword = text;
        else
            texts[i / 2].text = text;
    }
    return texts;
}

static PyObject *core_png(PyObject *module, PyObject *args)
{
    PyObject *object, *tuple, *answer = NULL;
    Py_buffer pixels;
    size_t text_count, workspace_size, file_size, written = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO!", &object, &PyTuple_Type, &tuple))
        return NULL;
    edgegan_text *texts = get_texts(tuple, &text_count);
    if (texts == NULL)
        return NULL;
    if (!get_buffer(object, &pixels, 0, 3, 'B')) {
        PyMem_Free(texts);
        return NULL;
    }
    const size_t height = (size_t)pixels.shape[0], width = (size_t)pixels.shape[1];
    const size_t channels = (size_t)pixels.shape[2];
    edgegan_status status = EDGEGAN_ERROR_BUFFER;
    if (pixels.strides[2] == 1 && pixels.strides[1] == pixels.shape[2])
        status = edgegan_png_sizes(width, height, channels, texts, text_count, &workspace_size, &file_size);
    if (status == EDGEGAN_OK) {
        void *workspace = PyMem_Malloc(workspace_size), *file = PyMem_Malloc(file_size);
        if (workspace == NULL || file == NULL)
            PyErr_NoMemory();
        else {
            PyThreadState *state = begin(pixels.len);
            status = edgegan_png(pixels.buf, pixels.strides[0], width, height, channels, texts, text_count,
                                 workspace, workspace_size, file, file_size, &written);
            end(state);
            if (status == EDGEGAN_OK)
                answer = PyBytes_FromStringAndSize(file, (Py_ssize_t)written);
        }
        PyMem_Free(workspace);
        PyMem_Free(file);
    }
    PyBuffer_Release(&pixels);
    PyMem_Free(texts);
    return answer != NULL || PyErr_Occurred() ? answer : result(status);
}

/* One of the files of save_pngs. */
typedef struct {
    const char *path;
    edgegan_text *texts;
    size_t text_count;
} png_file;

/* Writes data to a new file and gives it its name when it is whole. Returns errno, and leaves nothing, if that fails. */
static int save_whole(const char *temporary, const char *path, const void *data, size_t size)
{
    errno = 0;
    FILE *file = fopen(temporary, "wbx");
    if (file == NULL)
        return errno;
    setvbuf(file, NULL, _IONBF, 0);
    int whole = fwrite(data, 1, size, file) == size;
    int error = errno;
    if (fclose(file) != 0 && whole) {
        whole = 0;
        error = errno;
    }
    if (whole && rename(temporary, path) == 0)
        return 0;
    if (whole)
        error = errno;
    remove(temporary);
    return error != 0 ? error : EIO;
}

/* The items of `list`, (path, texts) or None, as an array to be freed with free_files; NULL with an exception. */
static png_file *get_files(PyObject *list, Py_ssize_t n)
{
    png_file *files = PyMem_Calloc((size_t)n + 1, sizeof *files);
    if (files == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; files != NULL && i < n; i++) {
        PyObject *item = PyList_GetItem(list, i), *texts;
        char *path;
        if (item == Py_None)
            continue;
        if (!PyArg_ParseTuple(item, "yO!", &path, &PyTuple_Type, &texts) ||
            (files[i].texts = get_texts(texts, &files[i].text_count)) == NULL) {
            while (i-- > 0)
                PyMem_Free(files[i].texts);
            PyMem_Free(files);
            return NULL;
        }
        files[i].path = path;
    }
    return files;
}

/* Many pictures in one go, during which other threads run: for each of them alone, taking turns would cost more than
 * the work. */
static PyObject *core_save_pngs(PyObject *module, PyObject *args)
{
    PyObject *object, *list;
    const char *temporary;
    Py_buffer pixels;
    edgegan_status status = EDGEGAN_OK;
    int error = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO!y", &object, &PyList_Type, &list, &temporary) ||
        !get_buffer(object, &pixels, 0, 4, 'B'))
        return NULL;
    const Py_ssize_t n = pixels.shape[0];
    const size_t height = (size_t)pixels.shape[1], width = (size_t)pixels.shape[2];
    const size_t channels = (size_t)pixels.shape[3];
    if (PyList_Size(list) != n || pixels.strides[3] != 1 || pixels.strides[2] != pixels.shape[3])
        status = EDGEGAN_ERROR_BUFFER;
    png_file *files = status == EDGEGAN_OK ? get_files(list, n) : NULL;
    if (files != NULL) {
        PyThreadState *state = PyEval_SaveThread();
        for (Py_ssize_t i = 0; i < n && status == EDGEGAN_OK && error == 0; i++) {
            size_t workspace_size, file_size, written;
            if (files[i].path == NULL)
                continue;
            status = edgegan_png_sizes(width, height, channels, files[i].texts, files[i].text_count,
                                       &workspace_size, &file_size);
            if (status != EDGEGAN_OK)
                break;
            void *workspace = malloc(workspace_size), *file = malloc(file_size);
            if (workspace == NULL || file == NULL)
                error = ENOMEM;
            else
                status = edgegan_png((const char *)pixels.buf + i * pixels.strides[0], pixels.strides[1], width,
                                     height, channels, files[i].texts, files[i].text_count, workspace,
                                     workspace_size, file, file_size, &written);
            if (status == EDGEGAN_OK && error == 0)
                error = save_whole(temporary, files[i].path, file, written);
            free(workspace);
            free(file);
        }
        PyEval_RestoreThread(state);
        for (Py_ssize_t i = 0; i < n; i++)
            PyMem_Free(files[i].texts);
        PyMem_Free(files);
    }
    PyBuffer_Release(&pixels);
    if (PyErr_Occurred())
        return NULL;
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return result(status);
}

/* The build */

static PyObject *core_instruction_set(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyUnicode_FromString(edgegan_instruction_set());
}

static PyObject *core_has_vnni(PyObject *module, PyObject *args)
{
    (void)module;
    (void)args;
    return PyBool_FromLong(edgegan_has_vnni());
}

static PyMethodDef methods[] = {
    {"words", core_words, METH_VARARGS, "words(seed, start, n, dim, stream, out: uint32 [n, dim])"},
    {"normal", core_normal, METH_VARARGS,
     "normal(seed, start, n, dim, stream, truncation, out: float32 [n, dim])"},
    {"labels", core_labels, METH_VARARGS, "labels(seed, start, n, classes, out: int64 [n])"},
    {"derive_seed", core_derive_seed, METH_VARARGS, "derive_seed(seed, purpose) -> int"},
    {"normal_from_words", core_normal_from_words, METH_VARARGS,
     "normal_from_words(words: uint32 [n], out: float32 [n])"},
    {"philox", core_philox, METH_VARARGS, "philox((c0, c1, c2, c3), (k0, k1)) -> (w0, w1, w2, w3)"},
    {"lerp", core_lerp, METH_VARARGS,
     "lerp(a: float32 [dim], b: float32 [dim], t: float64 [k], out: float32 [k, dim])"},
    {"slerp", core_slerp, METH_VARARGS,
     "slerp(a: float32 [dim], b: float32 [dim], t: float64 [k], out: float32 [k, dim])"},
    {"to_uint8", (PyCFunction)(void (*)(void))core_to_uint8, METH_FASTCALL,
     "to_uint8(images: float32 [n, c, h, w], out: uint8 [n, h * zoom, w * zoom, c], zoom)"},
    {"to_float", core_to_float, METH_VARARGS, "to_float(pixels: uint8 [n, h, w, c], out: float32 [n, c, h, w])"},
    {"tile", core_tile, METH_VARARGS,
     "tile(pixels: uint8 [n, height, width, c], y, x, out: float32 [n, c, h, w]), mirrored outside the pixels"},
    {"blend", core_blend, METH_VARARGS,
     "blend(before: float32 [n, c, h, w], weights: float32 [h], images: float32 [n, c, h, w]), in place"},
    {"png", core_png, METH_VARARGS,
     "png(pixels: uint8 [h, w, c], (keyword, text, ...): tuple of bytes) -> bytes, the file"},
    {"save_pngs", core_save_pngs, METH_VARARGS,
     "save_pngs(pixels: uint8 [n, h, w, c], [(path, (keyword, text, ...)) or None, ...], temporary): all are bytes"},
    {"instruction_set", core_instruction_set, METH_NOARGS, "instruction_set() -> str"},
    {"has_vnni", core_has_vnni, METH_NOARGS, "has_vnni() -> bool, whether this is an x86-64 that is known to have it"},
    {NULL, NULL, 0, NULL},
};

static int core_exec(PyObject *module)
{
    (void)module;
    if (edgegan_check() == EDGEGAN_OK)
        return 0;
    PyErr_SetString(PyExc_ImportError, edgegan_message(EDGEGAN_ERROR_ARITHMETIC));
    return -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)core_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_core", "edgegan's noise, pixels, tiles and PNG files in C.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
