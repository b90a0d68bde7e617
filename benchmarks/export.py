"""What lowering and int8 bring, against the file as torch writes it, onnxruntime's quantiser and OpenVINO.

    python benchmarks/export.py [--run28 RUN] [--run64 RUN] [--openvino VENV/bin/python] [--rounds N]

Nets: the tutorial's of recipe dcgan for 28x28, and the paper's for 64x64, as two runs have them; without a run, one is
trained on the built-in digits first. Files:

- plain: torch.onnx.export, and nothing else. lowered: `edgegan-export` as it is by default. int8: `--precision int8`.
- quantised: what a user of onnxruntime does to the plain file, quant_pre_process and quantize_static as they are by
  default, calibrated on 128 latents.
- OpenVINO: the plain file in float32, and by nncf.quantize in int8 from 300 latents. It wants an environment of its
  own: python -m venv VENV && VENV/bin/pip install openvino nncf

All sessions have default options but for the number of threads. In every round each contender runs in turn, after a
rest, in which the threads of the last one stop spinning, and a run that only warms up. Times are medians over the
rounds, ratios the medians of those within a round. With 1 thread the time is that of the processor, so that other
processes hardly matter; with 2 it is that of the clock, and the machine should be idle. PSNR and the Frechet distance
(features of the built-in LeNet, to the built-in digits) are of the same 1,000 latents.

For a quick look: --rounds 3.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import IDLE, Others, Row, say, show
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgegan.devices import processor
from edgegan.export.bake import baked
from edgegan.export.pipeline import How, export_run
from edgegan.export.report import rewrite_lines
from edgegan.export.trace import to_model
from edgegan.image import to_uint8
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec
from edgegan.trainer.data.sources import DIGITS
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.run import Run

CELLS = [(threads, batch) for threads in (1, 2) for batch in (1, 64)]
PICTURES = 1000  # that the quality is measured with
REST = 0.05  # seconds between two contenders
SHORTEST = 0.02  # seconds of a measurement: it runs a model as often as that takes
CHILD = Path(__file__).with_name("openvino_child.py")
# What is faster than what, as (ours, theirs, at least so many times; 0 if there is no target).
PAIRS = [
    ("lowered", "plain", {28: 1.2, 64: 0.0}),
    ("lowered", "OpenVINO", {28: 1.0, 64: 1.0}),
    ("int8", "plain", {28: 3.5, 64: 1.9}),
    ("int8", "quantised", {28: 0.0, 64: 1.8}),
    ("int8", "OpenVINO", {28: 1.0, 64: 1.0}),
    ("int8", "OpenVINO int8", {28: 1.0, 64: 1.0}),
]
SMALLER = {28: 3.4, 64: 0.0}  # int8's file than the plain one, at least so many times
# How a run that is not given is trained: until digits are digits, some ten minutes each on two cores.
TRAINING = {
    28: ("--kimg", "48", "--batch", "32", "--lr", "2e-4", "--beta1", "0.5", "--ema-kimg", "1"),
    64: ("--kimg", "10", "--batch", "32", "--ema-kimg", "0.5"),
}
Timer = Callable[[], float]  # runs a model and returns the seconds of one run


@dataclass
class Net:
    """A generator, its files by name, and what is known of them."""

    side: int
    spec: ModelSpec
    files: dict[str, Path]


def latents(spec: ModelSpec, seed: int, count: int) -> np.ndarray:
    return inputs_of(spec, seed, count)["z"]


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Latents(CalibrationDataReader):
    """128 latents, 16 at a time."""

    def __init__(self, spec: ModelSpec) -> None:
        self._batches = iter(np.split(latents(spec, 10, 128), 8))

    def get_next(self) -> dict[str, np.ndarray] | None:
        z = next(self._batches, None)
        return None if z is None else {"z": z}


class OpenVINO:
    """The child that runs OpenVINO."""

    def __init__(self, python: str, folder: Path) -> None:
        self._folder = folder
        self._child = subprocess.Popen(
            [python, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, **request: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps(request), file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(map(str, self._child.args))} failed; pip install openvino nncf")
        return json.loads(line)

    def saved(self, z: np.ndarray) -> str:
        """A file with these latents."""
        path = self._folder / f"latents{len(z)}.npy"
        np.save(path, z)
        return str(path)

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def trained(side: int, folder: Path) -> Path:
    """A run on the built-in digits."""
    run = folder / f"run{side}"
    command = [sys.executable, "-m", "edgegan.trainer", "dcgan", "--data", "digits", "--resolution", f"{side}"]
    say(f"training {side}x{side}")
    subprocess.run([*command, "--out", run, *TRAINING[side]], check=True, stdout=subprocess.DEVNULL)
    return run


def files_of(side: int, folder: Path, into: Path, openvino: OpenVINO | None) -> Net:
    """All variants of the generator of a run."""
    run = Run.open(folder)
    nets = run.build()
    run.load_nets(nets, run.load_checkpoint("newest"))
    spec = run.recipe.spec(run.config, run.settings.data.shape)
    if run.settings.recipe != "dcgan" or spec.image_size != (side, side):
        sys.exit(
            f"{folder} is a run of recipe {run.settings.recipe} at {spec.image_size}; valid: dcgan at {side}x{side}"
        )
    plain = to_model(baked(run.recipe.export_module(nets)), spec)
    net = Net(side, spec, {})

    net.files["plain"] = into / f"{side} plain.onnx"
    onnx.save(plain, net.files["plain"])
    for name, precision in (("lowered", "fp32"), ("int8", "int8")):
        say(f"{side}x{side}: {name}")
        net.files[name] = into / f"{side} {name}.onnx"
        report = export_run(folder, net.files[name], how=How(precision, measure=False))
        say("\n".join([*rewrite_lines(report), *report.notes]))
    say(f"{side}x{side}: onnxruntime's quantiser")
    ready, net.files["quantised"] = into / f"{side} ready.onnx", into / f"{side} quantised.onnx"
    quant_pre_process(net.files["plain"], ready)
    quantize_static(ready, net.files["quantised"], Latents(spec))
    if openvino is not None:
        say(f"{side}x{side}: nncf")
        net.files["OpenVINO"], net.files["OpenVINO int8"] = net.files["plain"], into / f"{side} nncf.xml"
        z = openvino.saved(latents(spec, 10, 300))
        openvino.ask(quantize=[str(net.files["plain"]), z, str(net.files["OpenVINO int8"])])
    return net


def timers_of(net: Net, threads: int, batch: int, openvino: OpenVINO | None) -> dict[str, Timer]:
    """A timer for each file. One thread is timed by the processor, more by the clock."""
    z = latents(net.spec, 0, batch)

    def here(path: Path) -> Timer:
        opened = session(path, threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        runs = repeats(lambda: opened.run(None, {"z": z}))

        def timed() -> float:
            opened.run(None, {"z": z})
            start = clock()
            for _ in range(runs):
                opened.run(None, {"z": z})
            return (clock() - start) / runs

        return timed

    def there(path: Path) -> Timer:
        assert openvino is not None
        saved, number = openvino.saved(z), openvino.ask(open=[str(path), threads])
        runs = repeats(lambda: openvino.ask(time=[number, saved, 1]))
        return lambda: openvino.ask(time=[number, saved, runs])[threads == 1] / runs

    return {name: there(path) if name.startswith("OpenVINO") else here(path) for name, path in net.files.items()}


def rested(timer: Timer) -> float:
    """Its seconds, once the threads of the last contender have stopped to spin in wait for more work."""
    time.sleep(REST)
    return timer()


def repeats(once: Callable[[], Any]) -> int:
    once()
    start = time.perf_counter()
    once()
    return max(1, round(SHORTEST / (time.perf_counter() - start)))


def speed_rows(net: Net, rounds: int, openvino: OpenVINO | None) -> list[Row]:
    """Each pair in each cell."""
    rows = []
    for threads, batch in CELLS:
        timers = timers_of(net, threads, batch, openvino)
        table = [{name: rested(timer) for name, timer in timers.items()} for _ in range(rounds)]
        ms = {name: median(times[name] for times in table) / batch * 1e3 for name in timers}
        cell = f"{net.side}x{net.side}, {threads} thread{'s' * (threads > 1)}, batch {batch}"
        say(f"  {cell}: {', '.join(f'{name} {value:.3f}' for name, value in ms.items())} ms a picture")
        for ours, theirs, targets in PAIRS:
            if theirs not in ms:
                continue
            ratio, target = median(times[theirs] / times[ours] for times in table), targets[net.side]
            rows.append(
                Row(
                    f"{cell}: {ours}",
                    f"{ms[ours]:.3f} ms",
                    theirs,
                    f"{ms[theirs]:.3f} ms",
                    f"{ratio:.2f}",
                    f"at least {target:g}" if target else "none",
                    ratio >= target,
                )
            )
    return rows


def pictures_of(net: Net, name: str, openvino: OpenVINO | None) -> np.ndarray:
    """uint8 [PICTURES, H, W, C]."""
    z = latents(net.spec, 20, PICTURES)
    if not name.startswith("OpenVINO"):
        opened = session(net.files[name], 1)
        return to_uint8(np.concatenate([opened.run(None, {"z": part})[0] for part in np.split(z, 20)]))
    assert openvino is not None
    drawn = net.files["plain"].with_suffix(".npy")
    openvino.ask(draw=[openvino.ask(open=[str(net.files[name]), 1]), openvino.saved(z), str(drawn)])
    return to_uint8(np.load(drawn))


def file_lines(nets: list[Net], openvino: OpenVINO | None) -> list[str]:
    """Sizes and quality."""
    network = open_features("lenet", threads=1)
    with np.load(DIGITS) as data:
        real = Statistics.of(network(data["images"][..., None]))
    lines = [
        "| file | MB | PSNR against plain | Fréchet distance to the digits | change |",
        "|---|---:|---:|---:|---:|",
    ]
    notes = []
    for net in nets:
        expected = pictures_of(net, "plain", openvino)
        before = distance(network, real, expected)
        for name, path in net.files.items():
            drawn = pictures_of(net, name, openvino)
            error = float(np.mean((drawn.astype(float) - expected) ** 2))
            decibels = f"{10 * np.log10(255**2 / error):.1f} dB" if error else "equal"
            after = distance(network, real, drawn)
            size = sum(item.stat().st_size for item in (path, path.with_suffix(".bin")) if item.is_file())
            change = f"{after / before - 1:+.1%}"
            if name == "int8":
                change += f" (at most +5 %: {'met' if after <= 1.05 * before else '**missed**'})"
            if name == "int8" and (target := SMALLER[net.side]):
                ratio = net.files["plain"].stat().st_size / size
                notes.append(
                    f"{net.side}x{net.side}: the int8 file is {ratio:.2f} times smaller than the plain one (at least "
                    f"{target:g}: {'met' if ratio >= target else '**missed**'})"
                )
            lines.append(f"| {net.side}x{net.side}, {name} | {size / 1e6:.2f} | {decibels} | {after:.4g} | {change} |")
    return [*lines, "", *notes]


def distance(network: FeatureNetwork, real: Statistics, drawn: np.ndarray) -> float:
    return frechet_distance(real, Statistics.of(network(drawn)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for side in (28, 64):
        parser.add_argument(f"--run{side}", type=Path, metavar="RUN", help=f"of dcgan at {side}x{side} on digits")
    parser.add_argument("--openvino", metavar="PYTHON", help="of an environment with openvino and nncf")
    parser.add_argument("--rounds", type=int, default=31, help="of which the median counts (default: 31)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is 1 or more")

    with tempfile.TemporaryDirectory(prefix="edgegan-export-") as name:
        folder = Path(name)
        openvino = OpenVINO(arguments.openvino, folder) if arguments.openvino else None
        runs = {28: arguments.run28, 64: arguments.run64}
        nets = [files_of(side, run or trained(side, folder), folder, openvino) for side, run in runs.items()]
        others = Others()
        rows = [row for net in nets for row in speed_rows(net, arguments.rounds, openvino)]
        files = file_lines(nets, openvino)
        if openvino is not None:
            openvino.close()  # its time is ours only then
        busy = others.busy()
        print(f"{processor()}, {os.cpu_count()} processors; ", end="")
        print(", ".join(f"{package} {version(package)}" for package in ("onnxruntime", "torch", "numpy")), end="; ")
        print(f"medians of {arguments.rounds} rounds; other processes kept {busy:.2f} of the processors busy\n")
        show(rows)
        print("", *files, sep="\n")
        if openvino is None:
            print("\nOpenVINO was not measured: python -m venv VENV && VENV/bin/pip install openvino nncf, --openvino")
        if not busy < IDLE:
            print(
                "\n**The machine was not idle: the times with 2 threads, and their ratios, say little. Run it again.**"
            )


if __name__ == "__main__":
    main()
