"""What the command `edgegan sample` costs: its start, its throughput, its memory, and the size of the wheel.

    python benchmarks/runtime.py [--rounds N] [--pictures N] [--folder DIR]      # needs the extra `test`

All on the built-in model, 28x28 grey. Every contender is a process of its own, as a user would start it, and its time
is that of the whole process. In every round each contender runs in turn; the table has the medians over the rounds, and
the median of the ratios (or differences) within a round, so that a machine whose speed drifts does not tilt them.

- The start: `edgegan sample -n 1` against `python -c "import onnxruntime, numpy"`.
- Throughput: `edgegan sample -n 10000 -o FOLDER/`, a PNG each, against benchmarks/idiomatic.py, both with 2 threads.
- Stages: the pieces of that command one after another in one process, and each one's share of the loop's time. The
  command itself encodes and writes in a thread, beside the model.
- Memory: the most that a process ever had (ru_maxrss) of `edgegan sample -n 16`, and of opening the same session bare.
- The wheel: built from a copy of the files that git knows or does not ignore; needs the network for setuptools.

Each run writes into a new folder, and all are deleted at the very end: after a deletion of thousands of files ext4
creates new ones up to 15 times slower for seconds. By default they are in the system's temporary folder; the defaults
write 200,000 files, some 0.8 GB. --folder chooses another place, say one in memory: --folder /dev/shm.

The machine should be idle otherwise. Where it is not, throughput leans to us: onnxruntime's threads spin by default and
lose when something else wants the processor; ours do not. The header says how busy other processes kept it.

For a quick look: --rounds 1 --pictures 1000.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from statistics import median

from common import IDLE, Others, Row, say, show

import edgegan
from edgegan.devices import processor

# Nothing large is imported here: a child's ru_maxrss begins with what its parent has when it starts the child.

ROOT = Path(__file__).parents[1]
MODEL = Path(edgegan.__file__).parent / "models" / "digits.onnx"
COMMAND = [str(Path(sysconfig.get_path("scripts")) / "edgegan"), "sample"]
IDIOMATIC = [sys.executable, str(Path(__file__).with_name("idiomatic.py")), str(MODEL)]
IMPORTS = "import onnxruntime, numpy"
BARE = f"""
import sys, onnxruntime, numpy
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {(THREADS := 2)}
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
SHORT = 5  # rounds of what takes a fraction of a second, for one of what takes seconds
STAGES = ("noise", "model", "pixels", "encoding", "writing")


class Scratch:
    """New folders in one, which is deleted at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()

    def new(self) -> Path:
        path = self.folder / f"{next(self._numbers)}"
        path.mkdir()
        return path


@dataclass
class Usage:
    seconds: float
    peak_mb: float


def usage_of(command: list[str], cwd: Path) -> Usage:
    """Run a process to its end: its time, and the most memory that it ever had."""
    # As for one who installed a package: with bytecode.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}\nfailed: {errors.read().decode(errors='replace')}")
    return Usage(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def in_turn(commands: list[list[str]], rounds: int, scratch: Scratch) -> list[list[Usage]]:
    """The usage of each command in each round, after one round that only warms up."""
    table = []
    for k in range(rounds + 1):
        usages = [usage_of(command, scratch.new()) for command in commands]
        if k:
            table.append(usages)
            shown = ", ".join(f"{usage.seconds:.3f} s {usage.peak_mb:.1f} MB" for usage in usages)
            say(f"  {k} of {rounds}: {shown}")
    return table


def start_row(rounds: int, scratch: Scratch) -> Row:
    say("the start")
    table = in_turn([[*COMMAND, "-n", "1"], [sys.executable, "-c", IMPORTS]], rounds, scratch)
    ours, theirs = (median(usages[k].seconds for usages in table) for k in range(2))
    ratio = median(a.seconds / b.seconds for a, b in table)
    return Row(
        "`edgegan sample -n 1`, the whole command",
        f"{ours * 1e3:.0f} ms",
        f'`python -c "{IMPORTS}"`',
        f"{theirs * 1e3:.0f} ms",
        f"{ratio:.2f}",
        "at most 1.35",
        ratio <= 1.35,
    )


def memory_row(rounds: int, scratch: Scratch) -> Row:
    say("peak memory")
    ours = [*COMMAND, "-n", "16", "--threads", f"{THREADS}"]
    table = in_turn([ours, [sys.executable, "-c", BARE, str(MODEL)]], rounds, scratch)
    ours_mb, theirs_mb = (median(usages[k].peak_mb for usages in table) for k in range(2))
    more = median(a.peak_mb - b.peak_mb for a, b in table)
    return Row(
        "`edgegan sample -n 16`, peak memory",
        f"{ours_mb:.1f} MB",
        "the two imports and the session, bare",
        f"{theirs_mb:.1f} MB",
        f"{more:+.1f} MB",
        "at most +15 MB",
        more <= 15,
    )


def throughput_rows(n: int, rounds: int, scratch: Scratch) -> list[Row]:
    say(f"{n:,} pictures, a PNG each")
    names = ("ours", "the script, one picture after another", "the script, in batches of 16")
    table = []
    for k in range(rounds):
        rates = []
        for name in names:
            folder = scratch.new()
            if name == "ours":
                command = [*COMMAND, "-n", f"{n}", "--threads", f"{THREADS}", "-o", f"{folder}/"]
            else:
                command = [*IDIOMATIC, f"{n}", str(folder), "16" if name.endswith("16") else "1"]
            os.sync()  # what the run before wrote is not to be written in this one's time
            seconds = usage_of(command, scratch.folder).seconds
            written = sum(path.endswith(".png") for path in os.listdir(folder))
            assert written == n, f"{name}: {written} files for {n} pictures"
            rates.append(n / seconds)
        table.append(rates)
        say(f"  {k + 1} of {rounds}: {', '.join(f'{rate:,.0f}' for rate in rates)} images/s")
    ours = median(rates[0] for rates in table)
    rows = []
    for k in (1, 2):
        ratio = median(rates[0] / rates[k] for rates in table)
        row = Row(
            f"`edgegan sample -n {n} -o FOLDER/`" if k == 1 else "the same",
            f"{ours:,.0f} images/s",
            names[k],
            f"{median(rates[k] for rates in table):,.0f} images/s",
            f"{ratio:.2f}",
        )
        if k == 1:
            row.target, row.met = "at least 3", ratio >= 3
        rows.append(row)
    return rows


@dataclass
class Loop:
    """Seconds of each stage, and of the whole loop with what is between them."""

    total: float = 0
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))


def staged(n: int, folder: Path) -> Loop:
    """What `edgegan sample -n N -o FOLDER/` does, piece by piece, one after another."""
    # Here and not above: see there.
    from edgegan._files import write_whole
    from edgegan.image import encode_image, to_uint8
    from edgegan.model import inputs_of, load
    from edgegan.output import Request

    generator = load(MODEL, "cpu", THREADS)  # one after another: all threads for each batch
    request = Request(generator, n)
    generator.run(inputs_of(generator.spec, 0, request.batch))  # warms up
    loop, clock = Loop(), time.perf_counter
    spent, temporary = loop.spent, str(folder / ".temporary")
    begin = clock()
    for first, size in request.batches():
        times = [clock()]
        feed = inputs_of(generator.spec, request.seed, size, first)
        times.append(clock())
        floats = generator.run(feed)
        times.append(clock())
        pixels = to_uint8(floats)
        times.append(clock())
        labels = request.labels_of(first, size)
        assert labels is not None
        files = [
            encode_image(pixels[k], ".png", texts=request.origin(first + k, (labels[k],)).texts()) for k in range(size)
        ]
        times.append(clock())
        for k, data in enumerate(files):
            write_whole(temporary, str(folder / f"{first + k:08d}.png"), data)
        times.append(clock())
        for stage, before, after in zip(STAGES, times, times[1:], strict=False):
            spent[stage] += after - before
    loop.total = clock() - begin
    return loop


def stage_loops(n: int, rounds: int, scratch: Scratch) -> list[Loop]:
    say("stages")
    loops = []
    for k in range(rounds):
        folder = scratch.new()
        os.sync()
        loops.append(loop := staged(n, folder))
        shares = ", ".join(f"{stage} {seconds / loop.total:.1%}" for stage, seconds in loop.spent.items())
        say(f"  {k + 1} of {rounds}: {loop.total:.2f} s; {shares}")
    return loops


def share(loops: list[Loop], *stages: str) -> float:
    return median(sum(loop.spent[stage] for stage in stages) / loop.total for loop in loops)


def encoding_row(loops: list[Loop]) -> Row:
    both = share(loops, "encoding", "pixels")
    return Row("encoding and pixels of those files", f"{both:.1%} of the time", "", "", "", "under 10 %", both < 0.1)


def show_stages(n: int, loops: list[Loop]) -> None:
    print("\n| stage | µs a picture | share of the loop |")
    print("|---|---:|---:|")
    for stage in STAGES:
        print(f"| {stage} | {median(loop.spent[stage] for loop in loops) / n * 1e6:.1f} | {share(loops, stage):.1%} |")
    print(f"| the whole loop | {median(loop.total for loop in loops) / n * 1e6:.1f} | 100% |")


def wheel_row(scratch: Scratch) -> Row:
    say("the wheel")
    tree, out = scratch.new(), scratch.new()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--wheel", "--outdir", out, tree], check=True, cwd=out)
    (wheel,) = out.glob("*.whl")
    mb = wheel.stat().st_size / 1e6
    packed = {info.filename: info.compress_size / 1e6 for info in zipfile.ZipFile(wheel).infolist()}
    for name in sorted(packed, key=lambda name: -packed[name])[:5]:
        say(f"  {packed[name]:.2f} MB {name}")
    large = sum(size for name, size in packed.items() if "/models/" in name or "/datasets/" in name)
    return Row(
        "the wheel, digits and built-in models included",
        f"{mb:.2f} MB",
        "",
        "",
        f"{large:.2f} MB are data and models",
        "under 4 MB",
        mb < 4,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help=f"rounds of which the median counts, and {SHORT} times as many of what is short (default: 5)",
    )
    parser.add_argument("--pictures", type=int, default=10_000, help="of a round of throughput (default: 10000)")
    parser.add_argument("--folder", type=Path, help="where the folders are made (default: the system's temporary one)")
    arguments = parser.parse_args()
    rounds, n = arguments.rounds, arguments.pictures
    if min(rounds, n) < 1:
        parser.error("--rounds and --pictures are 1 or more")
    if not Path(COMMAND[0]).is_file():
        parser.error(f"{COMMAND[0]} is not there; pip install -e '.[test]'")

    others = Others()
    with tempfile.TemporaryDirectory(prefix="edgegan-runtime-", dir=arguments.folder) as folder:
        scratch = Scratch(Path(folder))
        # Memory before this process grows, and few files before many.
        start, memory = start_row(SHORT * rounds, scratch), memory_row(SHORT * rounds, scratch)
        rows = [start, *throughput_rows(n, rounds, scratch)]
        loops = stage_loops(n, rounds, scratch)
        rows += [encoding_row(loops), memory, wheel_row(scratch)]
        busy = others.busy()
        say("deleting")

    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "Pillow"))
    print(f"{processor()}, {os.cpu_count()} processors, {THREADS} threads; {versions}; ", end="")
    print(f"medians of {rounds} rounds, of {SHORT * rounds} for start and memory; ", end="")
    print(f"other processes kept {busy:.2f} of the processors busy\n")
    show(rows)
    show_stages(n, loops)
    if not busy < IDLE:
        print("\n**The machine was not idle, so the ratios of throughput lean to edgegan. Run it again.**")


if __name__ == "__main__":
    main()
