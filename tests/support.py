"""What several test files need to run commands and training."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image

from edgegan import _backend, _pure, load
from edgegan._cli import run
from edgegan.cli import cli
from edgegan.trainer import recipes
from edgegan.trainer.data import Dataset
from edgegan.trainer.data.pairs import with_source
from edgegan.trainer.recipe import DataShape
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings

BIN = Path(sys.executable).parent
TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STOPPED = 130
TINY = {"kimg": 0.064, "batch": 16}  # hyper-parameters of a run of four iterations
SMALL: dict[str, dict[str, Any]] = {  # nets of recipes that are slow as they are
    "progressive": {"width": 0.03},
    "stylegan": {"width": 0.25},
    "cyclegan": {"width": 4, "blocks": 1},
    "superres": {"width": 8, "blocks": 1, "d_width": 8},
    "restore": {"width": 0.25, "style_dim": 8, "d_width": 8},
}
RNG = np.random.default_rng(0)
BACKENDS = [_pure] if _backend.NAME == "python" else [_backend.core, _pure]
needs_c = pytest.mark.skipif(_backend.NAME == "python", reason="compares the C core with NumPy")


def command(*args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a console script as a user would."""
    return subprocess.run([BIN / str(args[0]), *map(str, args[1:])], capture_output=True, text=True, **how)


class Silent:
    """A Reporter that shows nothing; called, it asks for a stop after some images."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.nimg, self.stop_at = 0, stop_at

    def advance(self, nimg: int) -> None:
        self.nimg = nimg

    def record(self, record: dict[str, Any]) -> None:
        pass

    def sample(self, nimg: int, grid: np.ndarray) -> None:
        pass

    def scoring(self, done: int, total: int, what: str) -> None:
        pass

    def __call__(self) -> int:
        return STOPPED if self.nimg >= self.stop_at else 0


def train(run: Run, dataset: Dataset, stop_at: int = 10**9, **how: Any) -> bool:
    """Train on the CPU to the end, or until `stop_at` images are shown. Returns whether the run is complete."""
    from edgegan.trainer.loop import Trainer

    reporter = Silent(stop_at)
    status = Trainer(run, sets_of(run, dataset), "cpu", **how).train([reporter], reporter)
    assert status in (0, STOPPED)
    return status == 0


def random_picture(h: int = 8, w: int = 8, c: int = 3) -> np.ndarray:
    """uint8 [h, w, c], or [h, w] if c is 1."""
    return RNG.integers(0, 256, (h, w, c) if c > 1 else (h, w), np.uint8)


def save_picture(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    """Write a picture, random unless given, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_picture() if array is None else array).save(path, **options)
    return path


def make_run(folder: Path, dataset: Dataset, recipe: str, source: str = "set.npz", **settings: Any) -> Run:
    """A new run of four iterations with two samples. What takes a source set gets the data themselves as one."""
    given = {"config": TINY, "log_kimg": 0.016, "sample_kimg": 0.032, **settings}
    given["config"] = SMALL.get(recipe, {}) | given["config"]
    data = DataSettings.of(dataset, source)
    if recipes.describe(recipe).takes_source:
        given["source_set"] = data
    return Run.create(folder, Settings(recipe, data=data, **given))


def config_of(recipe: str, shape: DataShape) -> Any:
    """The config of a run on such pictures, with small nets where others would be slow."""
    loaded = recipes.load(recipe)
    config = loaded.Config(**SMALL.get(recipe, {}))
    return config if loaded.complete is None else loaded.complete(config, shape)


def translates(recipe: str) -> bool:
    """Whether it makes pictures of others."""
    loaded = recipes.load(recipe)
    return loaded.takes_source or loaded.degrade is not None


GENERATORS = [name for name in recipes.names() if not translates(name)]
TRANSLATORS = [name for name in recipes.names() if translates(name)]


def always(*some: str, also: tuple[Any, ...] = ()) -> list[Any]:
    """All recipes, to parametrise a test: it runs with these every time, with the others among the slow tests.

    `also` are the values of the parameters behind the recipe.
    """
    slow = pytest.mark.slow
    return [pytest.param(name, *also, marks=() if name in some else slow) for name in recipes.names()]


def options_of(recipe: str, source: object) -> list[str]:
    """What a command needs beside --data for a quick training: smaller nets, and a source set."""
    words = ["--source", str(source)] if recipes.describe(recipe).takes_source else []
    return words + [
        word for name, value in SMALL.get(recipe, {}).items() for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def sets_of(run: Run, dataset: Dataset) -> Dataset:
    """The data as such a run takes them."""
    return dataset if run.settings.source_set is None else with_source(dataset, dataset, run.paired)


def result_of(run: Run) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The last checkpoint and the log, without what a clock wrote."""
    state = run.newest_checkpoint()
    assert state is not None
    clocked = ("seconds", "images_per_second", "memory_mb")
    log = [{k: v for k, v in record.items() if k not in clocked} for record in run.read_log()]
    return {k: v for k, v in state.items() if k not in ("seconds", "since")}, log


def equal(a: object, b: object) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def check_parity(data: bytes, module: torch.nn.Module) -> float:
    """The largest difference between a model file's pictures and its network's; raises ExportError as `parity`."""
    from edgegan.export.trace import draw
    from edgegan.export.verify import parity

    return max(parity(data, partial(draw, module, load(data).spec)).values())


class Exits:
    """What a run printed and its exit status."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *args: str, command: click.Command = cli) -> None:
        with pytest.raises(SystemExit) as caught:
            run(command, "edgegan", args)
        self.status = caught.value.code
        self.out, self.err = capfd.readouterr()

    def fails(self, status: int, *parts: str) -> None:
        """It exited with `status` and exactly one line, which holds each of `parts`."""
        assert self.status == status, self.err
        assert self.out == ""
        assert self.err.count("\n") == 1
        assert self.err.endswith("\n")
        for part in parts:
            assert part in self.err


def process(*args: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "edgegan", *args], capture_output=True, text=True, **how)
