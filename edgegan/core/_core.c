/* edgegan.core._core: the C core for Python. Private: edgegan/noise.py checks the arguments, makes the arrays
 * and calls this; edgegan/_pure.py has the same functions. Each fills a C-contiguous buffer, without holding
 * the interpreter's lock. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "edgegan.h"

/* A buffer of another size than n * dim items would be overrun or left unfilled. */
static int has_items(const Py_buffer *buffer, unsigned long long n, unsigned long long dim, size_t itemsize)
{
    const unsigned long long items = (unsigned long long)buffer->len / itemsize;
    const int fits = (size_t)buffer->len % itemsize == 0 && dim > 0 && items % dim == 0 && items / dim == n;
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "the buffer's size is not that of the numbers asked for");
    return fits;
}

static PyObject *finish(Py_buffer *buffer, int status)
{
    PyBuffer_Release(buffer);
    if (status == EDGEGAN_OK)
        Py_RETURN_NONE;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "an argument is out of range");
    return NULL;
}

static PyObject *core_words(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n, dim;
    unsigned int stream;
    Py_buffer out;
    int status = EDGEGAN_ERROR_ARGUMENT;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKKIw*", &seed, &start, &n, &dim, &stream, &out))
        return NULL;
    if (has_items(&out, n, dim, sizeof(uint32_t))) {
        Py_BEGIN_ALLOW_THREADS
        status = edgegan_words(seed, start, n, dim, stream, out.buf);
        Py_END_ALLOW_THREADS
    }
    return finish(&out, status);
}

static PyObject *core_normal(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n, dim;
    unsigned int stream;
    float truncation;
    Py_buffer out;
    int status = EDGEGAN_ERROR_ARGUMENT;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKKIfw*", &seed, &start, &n, &dim, &stream, &truncation, &out))
        return NULL;
    if (has_items(&out, n, dim, sizeof(float))) {
        Py_BEGIN_ALLOW_THREADS
        status = edgegan_normal(seed, start, n, dim, stream, truncation, out.buf);
        Py_END_ALLOW_THREADS
    }
    return finish(&out, status);
}

static PyObject *core_labels(PyObject *module, PyObject *args)
{
    unsigned long long seed, start, n;
    unsigned int classes;
    Py_buffer out;
    int status = EDGEGAN_ERROR_ARGUMENT;
    (void)module;
    if (!PyArg_ParseTuple(args, "KKKIw*", &seed, &start, &n, &classes, &out))
        return NULL;
    if (has_items(&out, n, 1, sizeof(int64_t))) {
        Py_BEGIN_ALLOW_THREADS
        status = edgegan_labels(seed, start, n, classes, out.buf);
        Py_END_ALLOW_THREADS
    }
    return finish(&out, status);
}

static PyObject *core_derive_seed(PyObject *module, PyObject *args)
{
    unsigned long long seed;
    unsigned int purpose;
    uint64_t derived;
    (void)module;
    if (!PyArg_ParseTuple(args, "KI", &seed, &purpose))
        return NULL;
    if (edgegan_derive_seed(seed, purpose, &derived) != EDGEGAN_OK)
        return PyErr_Format(PyExc_ValueError, "an argument is out of range");
    return PyLong_FromUnsignedLongLong(derived);
}

static PyObject *core_normal_from_words(PyObject *module, PyObject *args)
{
    Py_buffer words, out;
    int status = EDGEGAN_ERROR_ARGUMENT;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &words, &out))
        return NULL;
    if (has_items(&out, (unsigned long long)words.len / sizeof(uint32_t), 1, sizeof(float))) {
        Py_BEGIN_ALLOW_THREADS
        edgegan_normal_from_words(words.buf, (size_t)words.len / sizeof(uint32_t), out.buf);
        Py_END_ALLOW_THREADS
        status = EDGEGAN_OK;
    }
    PyBuffer_Release(&words);
    return finish(&out, status);
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

static PyMethodDef methods[] = {
    {"words", core_words, METH_VARARGS, "words(seed, start, n, dim, stream, out: uint32 [n, dim])"},
    {"normal", core_normal, METH_VARARGS,
     "normal(seed, start, n, dim, stream, truncation, out: float32 [n, dim])"},
    {"labels", core_labels, METH_VARARGS, "labels(seed, start, n, classes, out: int64 [n])"},
    {"derive_seed", core_derive_seed, METH_VARARGS, "derive_seed(seed, purpose) -> int"},
    {"normal_from_words", core_normal_from_words, METH_VARARGS,
     "normal_from_words(words: uint32 [n], out: float32 [n])"},
    {"philox", core_philox, METH_VARARGS, "philox((c0, c1, c2, c3), (k0, k1)) -> (w0, w1, w2, w3)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_core", "The noise contract in C.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
