"""From a model file to an onnxruntime session, and the file's description checked against the session."""

import os
import stat
from typing import TYPE_CHECKING, Any

from edgegan.errors import MissingExtraError, ModelError
from edgegan.spec import METADATA_KEY, ModelSpec, Shape

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def one_line(error: Exception) -> str:
    """The text of another library's error, on one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def read_file(path: str) -> bytes:
    """The bytes of a regular file. Raises ModelError for anything else."""
    # Opened without blocking and then asked what it is, in this order: a pipe must not hang us, and what was
    # checked must be what is read.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} is not a regular file; give an .onnx file that edgegan-export wrote")
            if status.st_size > MAX_MODEL_BYTES:
                raise ModelError(f"{path} has {status.st_size} bytes; valid: at most {MAX_MODEL_BYTES}")
            return file.read(MAX_MODEL_BYTES)
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give an .onnx file that edgegan-export wrote") from None
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; give an .onnx file that edgegan-export wrote") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read: {reason}") from error


def open_session(data: bytes, source: str, threads: int) -> "InferenceSession":
    """A session on the CPU from the bytes of the file called `source`.

    Raises ModelError if they are no model, MissingExtraError without onnxruntime.
    """
    # An ONNX file is a protobuf whose first field is ir_version, a number: byte 8. A picture or a text is
    # not.
    if data[:1] != b"\x08":
        what = "is empty" if not data else "is not an ONNX model"
        raise ModelError(f"{source} {what}; give an .onnx file that edgegan-export wrote")
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingExtraError.of("sampling", "onnxruntime", "cpu") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a library prints nothing; what fails raises
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One file tells all: a model that wants its weights from other files would read any file it names. There are none
    # below this path.
    nowhere = os.path.join(os.devnull, "nowhere")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{source} is not an ONNX model that onnxruntime can load: {one_line(error)}") from error


def spec_of(session: "InferenceSession", source: str) -> ModelSpec:
    """The session's metadata, checked against its inputs and outputs. Raises ModelError."""
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError:
        raise ModelError(f"{source}: its metadata is not valid UTF-8") from None
    if text is None:
        raise ModelError(f"{source}: it has no edgegan metadata, so edgegan-export did not write it")
    spec = ModelSpec.from_json(text, source)
    if spec.task != "generate":
        raise ModelError(f"{source}: its task is '{spec.task}'; this edgegan runs models that generate")
    try:
        inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
        outputs = {node.name: (node.type, node.shape) for node in session.get_outputs()}
    except UnicodeDecodeError:
        raise ModelError(f"{source}: the name of an input or output is not valid UTF-8") from None
    _compare("input", inputs, spec.inputs(), source)
    _compare("output", outputs, spec.outputs(), source)
    return spec


def _compare(kind: str, found: dict[str, tuple[str, Any]], expected: dict[str, tuple[str, Shape]], source: str) -> None:
    if found.keys() != expected.keys():
        raise ModelError(f"{source}: its {kind}s are {sorted(found)}, but its metadata calls for {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        type_, actual = found[name]
        if _DTYPES.get(type_) != dtype or not _fits(actual, shape, strict=kind == "input"):
            raise ModelError(
                f"{source}: its {kind} '{name}' is {type_} {actual}, but its metadata calls for {dtype} {list(shape)}"
            )


def _fits(actual: Any, expected: Shape, strict: bool) -> bool:
    """Free dimensions must be free; fixed ones equal or (in an output, checked at each run) undeclared."""
    if not isinstance(actual, list) or len(actual) != len(expected):
        return False
    return all(
        not isinstance(a, int) if isinstance(e, str) else a == e or (not strict and not isinstance(a, int))
        for a, e in zip(actual, expected, strict=True)
    )
