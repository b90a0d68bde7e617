"""What the variants of a model take on this machine: `measure(datas, spec)`."""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgegan.devices import default_threads, onnxruntime, processor
from edgegan.errors import ArgumentError, ModelError, one_line
from edgegan.gate import Cost, check
from edgegan.model import inputs_of
from edgegan.session import open_session
from edgegan.spec import ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCHES = (1, 16)  # pictures at a time that times are taken of
SEED = 0
SECONDS = 0.4  # to measure one variant at one batch
MAX_SECONDS = 20.0  # after which no more rounds are begun
MIN_ROUNDS, MAX_ROUNDS = 3, 500
LONG = 0.05  # seconds of a run to which it makes no difference what the caches held
MEMORY_TIMEOUT = 60.0  # seconds

# Prints the most memory in MB that the process ever had, before a model and after 16 pictures. Linux hands ru_maxrss
# down from the process that started this one, which has torch in it, so it is asked for the peak of this program alone.
MEMORY = """
import sys
import edgegan, edgegan.model
from edgegan.devices import onnxruntime

def peak():
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")) / 1e6
    except (OSError, StopIteration):
        import resource
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

onnxruntime()
before = peak()
edgegan.load(sys.argv[1], "cpu", int(sys.argv[2])).test_pictures(16)
print(before, peak())
"""


@dataclass(frozen=True)
class Variant:
    """One form of the exported network. None is what was not measured."""

    name: str  # "float32 as exported", "float32 lowered", "float16", "int8"
    file_bytes: int
    multiply_adds: int  # of a picture, here and below of the size of training
    milliseconds: dict[int, float]  # a picture, by batch; a batch may be missing
    peak_mb: float | None = None  # memory of a process that draws with it, in 1e6 bytes
    model_mb: float | None = None  # what of that the model brought; see Memory
    # Against the first variant's pictures of the same latents, which has None itself:
    psnr: float | None = None  # dB, infinite if all pixels of 0..255 are equal
    ssim: float | None = None  # 1 if they are equal
    difference: float | None = None  # the largest of a pixel, in [-1, 1]
    compared: int = 0  # of how many pictures these three are
    distance: float | None = None  # Fréchet distance to real pictures, see report.Distance


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    processor: str
    threads: int
    onnxruntime: str  # its version


@dataclass(frozen=True)
class Memory:
    """The most memory that a process had which loads a model and draws 16 pictures, 8 at a time."""

    peak_mb: float  # of the whole process, in 1e6 bytes: Python, NumPy and onnxruntime too
    model_mb: float  # how much of it came once those were there: the model, its pictures, and what it takes to run any


def this_machine(threads: int | None = None) -> Machine:
    """Where `measure` measures. threads: as given to it."""
    return Machine(processor(), threads or default_threads(), onnxruntime().__version__)


def measure(
    datas: dict[str, bytes], spec: ModelSpec, threads: int | None = None, *, timed: bool = True
) -> list[Variant]:
    """What each of some model files of one network takes on this machine's CPU, in their order.

    datas: by the name of the variant, as written by edgegan-export. threads: default as many as this process may use.
    timed: also the time and the memory. How near the pictures are is left to `quality.Judge`. Raises ModelError for a
    file that is no model of edgegan, ArgumentError without any.
    """
    if not datas:
        raise ArgumentError("there are no models to measure; valid: one or more")
    times = timings(datas, spec, threads) if timed else {}
    variants = []
    for name, data in datas.items():
        memory = peak_memory(data, threads) if timed else None
        variants.append(
            Variant(
                name=name,
                file_bytes=len(data),
                multiply_adds=cost_of(data, spec, _source(name)).multiply_adds,
                milliseconds=times.get(name, {}),
                peak_mb=memory.peak_mb if memory else None,
                model_mb=memory.model_mb if memory else None,
            )
        )
    return variants


def cost_of(data: bytes, spec: ModelSpec, name: str) -> Cost:
    """What one picture takes, of a model that translates one of the size of training. name: the model's, for messages.

    Raises ModelError for a file that does not pass the gate.
    """
    graph = check(data, name, small=True)
    if spec.task == "generate":
        return graph.cost
    return graph.cost_of({"source": (1, spec.channels, *spec.image_size)})


def timings(datas: dict[str, bytes], spec: ModelSpec, threads: int | None = None) -> dict[str, dict[int, float]]:
    """Milliseconds a picture of each model, at batch 1 and 16, of the network alone: {name: {1: ms, 16: ms}}.

    The models take turns, so that whatever else the machine does or how warm it is meets them all. Of all rounds the
    shortest time counts: other work only ever adds to it. It takes 0.8 seconds for each model; of huge ones 20, or one
    round at batch 1, and then batch 16 may be missing from all of them. Raises ModelError for a file that onnxruntime
    does not load or run.
    """
    threads = threads or default_threads()
    sessions = {name: open_session(data, _source(name), threads, small=True)[0] for name, data in datas.items()}
    best: dict[str, dict[int, float]] = {name: {} for name in datas}
    end = time.perf_counter() + MAX_SECONDS
    for batch in BATCHES:
        a_round = sum(batch * found[BATCHES[0]] / 1000 for found in best.values() if found)
        if a_round and time.perf_counter() + a_round > end:
            break
        feed = inputs_of(spec, SEED, batch)
        enough = time.perf_counter() + SECONDS * len(sessions)
        for done in range(1, MAX_ROUNDS + 1):
            start = time.perf_counter()
            for name, session in sessions.items():
                ms = 1000 / batch * _seconds(session, feed, name)
                best[name][batch] = min(ms, best[name].get(batch, ms))
            now = time.perf_counter()
            if 2 * now - start > end or (now > enough and done >= MIN_ROUNDS):  # another round would end too late
                break
    return best


def peak_memory(data: bytes, threads: int | None = None) -> Memory | None:
    """The memory of a fresh process that loads the model file `data` and draws 16 pictures on the CPU.

    None where the system does not tell (Windows), where there is no room for the file, or if the process failed or took
    over a minute.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="edgegan-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(data)
            command = [sys.executable, "-P", "-c", MEMORY, str(path), str(threads or default_threads())]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MEMORY_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    before, peak = map(float, done.stdout.split())
    return Memory(peak, peak - before)


def _source(name: str) -> str:
    """What error messages call a model."""
    return f"the model {name}"


def _seconds(session: "InferenceSession", feed: dict[str, NDArray[Any]], name: str) -> float:
    """The time of a run. Its weights and the code may have left the caches since the model's last turn: run twice."""
    shortest = float("inf")
    for _ in range(2):
        start = time.perf_counter()  # not this thread's own time: onnxruntime's other threads work too
        try:
            session.run(["image"], feed)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(f"{_source(name)}: onnxruntime failed to run it: {one_line(error)}") from error
        shortest = min(shortest, time.perf_counter() - start)
        if shortest > LONG:
            break
    return shortest
