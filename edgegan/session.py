"""From a model file to an onnxruntime session, and the file's description checked against the session."""

import os
import stat
from typing import TYPE_CHECKING, Any

from edgegan import _backend
from edgegan.devices import AUTO, AUTO_ORDER, CPU, PROVIDERS, candidates, onnxruntime, remedy
from edgegan.errors import DeviceError, ModelError, one_line
from edgegan.gate import check
from edgegan.spec import METADATA_KEY, ModelSpec, Shape

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MAX_MODEL_BYTES = 2**31 - 1  # protobuf's own limit
MAX_FOLDED_BYTES = 2**26  # of one constant that onnxruntime computes while it loads a model
# Bytes of activations of one picture up to which a model is light enough for each thread to have a batch of its own.
LIGHT = 2**23
# TensorFloat-32 would round to 10 bits, and golden samples would no longer match.
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {
    "cuda": {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"},
}
BATCH = 8  # as fast as more, in less memory; fixed, so that pictures do not change with how many are asked for
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def read_file(path: str, advice: str = "give an .onnx file that edgegan-export wrote") -> bytes:
    """The bytes of a regular file. Raises ModelError for anything else, with the advice."""
    # Opened without blocking and then asked what it is, in this order: a pipe must not hang us, and what was
    # checked must be what is read.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{path} is not a regular file; {advice}")
            if status.st_size > MAX_MODEL_BYTES:
                raise ModelError(f"{path} has {status.st_size} bytes; valid: at most {MAX_MODEL_BYTES}")
            return file.read(MAX_MODEL_BYTES)
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; {advice}") from None
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; {advice}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path} cannot be read: {reason}") from error


def open_session(
    data: bytes, source: str, threads: int, provider: str = CPU, *, bulk: bool = False, small: bool = False
) -> tuple["InferenceSession", str, int]:
    """A session from the bytes of the file called `source`, the name of the provider that runs it, and its callers.

    Callers are how many threads may run batches at once: one, and onnxruntime's own `threads` share a batch on the CPU;
    or for `bulk`, `threads` where the CPU runs a LIGHT model, since to wake a thread for every short operator costs
    more than it brings. The pictures are the same either way. small: as `gate.check` takes it.

    Raises ModelError if the bytes are no model, DeviceError if the provider is not there or does not load,
    MissingExtraError without onnxruntime.
    """
    # An ONNX file is a protobuf whose first field is ir_version, a number: byte 8. A picture or a text is
    # not.
    if data[:1] != b"\x08":
        what = "is empty" if not data else "is not an ONNX model"
        raise ModelError(f"{source} {what}; give an .onnx file that edgegan-export wrote")
    light = check(data, source, small=small).cost.activation_bytes <= LIGHT
    for name in candidates(provider):
        callers = threads if bulk and light and name == CPU else 1
        try:
            session = _session(data, 1 if callers > 1 else threads, name)
        except Exception as error:  # onnxruntime's exceptions share no base class
            # A device may fail on a good model, a processor does not.
            if name == CPU:
                raise ModelError(
                    f"{source} is not an ONNX model that onnxruntime can load: {one_line(error)}"
                ) from error
            reason = one_line(error)
        else:
            # onnxruntime falls back to the CPU without a word when a provider's libraries do not load.
            if session.get_providers()[:1] == [PROVIDERS[name]]:
                return session, name, callers
            reason = "onnxruntime could not load its libraries"
        if provider != AUTO:
            raise DeviceError(f"the provider '{name}' does not run {source}: {reason}; {remedy(name)}")
    raise DeviceError(f"the installed onnxruntime has none of {', '.join(AUTO_ORDER)}; reinstall it")


def _session(data: bytes, threads: int, provider: str) -> "InferenceSession":
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a plan for each batch size: no faster, and megabytes more in the arena
    options.log_severity_level = 4  # a library prints nothing; what fails raises
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not _backend.core.has_vnni():
        # x86 without it adds products of 8 bits in 16, which overflow: pictures became others. This makes it exact,
        # and takes nearly twice as long, also on processors that need it not. Others than x86 do not heed it.
        options.add_session_config_entry("session.x64quantprecision", "1")
    # One file tells all: a model that wants its weights from other files would read any file it names. There are none
    # below this path.
    nowhere = os.path.join(os.devnull, "nowhere")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
    # A second wall behind the gate, should it let through what it should not.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.function_expansion_node_limit", "65536")
    options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(MAX_FOLDED_BYTES))
    chosen: list[Any] = [(PROVIDERS[provider], PROVIDER_OPTIONS.get(provider, {}))]
    if provider != CPU:
        chosen.append(PROVIDERS[CPU])  # for operators that the device lacks
    return ort.InferenceSession(data, options, providers=chosen)


def spec_of(session: "InferenceSession", source: str) -> ModelSpec:
    """The session's metadata, checked against its inputs and outputs. Raises ModelError."""
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    except UnicodeDecodeError:
        raise ModelError(f"{source}: its metadata is not valid UTF-8") from None
    if text is None:
        raise ModelError(
            f"{source}: it has no edgegan metadata, so edgegan-export did not write it; one of another "
            "origin works once you say what it draws: edgegan sample FILE --range LOW,HIGH (edgegan translate if it "
            "takes pictures), or load(FILE, foreign=...)"
        )
    spec = ModelSpec.from_json(text, source)
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
