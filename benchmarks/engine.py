"""What training costs beside the nets: data, the engine around the phases, checkpoints. training.py has the table."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import plain_gan
import torch
from common import Row, say
from PIL import Image
from torch import nn

from edgegan.image import encode_png
from edgegan.trainer.checkpoint import Writer
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.data.loader import Loader
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, Progress
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings

THREADS = 2
LATENT_DIM = 100
DEFAULT_RECORDS, DEFAULT_KIMG = 200, 3000.0  # log records of a run, and its length, unless the user says otherwise


@dataclass(frozen=True)
class Case:
    name: str
    side: int
    channels: int
    count: int  # pictures of the data set
    batch: int
    check_batch: int  # a smaller one for the comparison of losses, which is long
    turn: int  # steps of a turn
    published: dict[str, float]  # the plain loop's arguments

    def pictures(self) -> np.ndarray:
        """uint8 [N, H, W, C]: coarse noise of full contrast, more of it than a processor's cache holds."""
        n, blocks = self.count, self.side // 4
        coarse = np.random.default_rng(0).integers(0, 256, (n, blocks, blocks, self.channels), np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2)

    def plain_nets(self, dropout: Callable[[float], nn.Module] = nn.Dropout) -> tuple[nn.Module, nn.Module]:
        if self.side == 28:
            return plain_gan.TutorialG(self.channels), plain_gan.TutorialD(self.channels, dropout)
        return plain_gan.RadfordG(self.channels), plain_gan.RadfordD(self.channels)


CASES = (
    Case("28x28 grey", 28, 1, 60_000, 256, 64, 6, {"lr": 1e-4, "beta1": 0.9, "eps": 1e-7}),
    Case("64x64 colour", 64, 3, 5_000, 128, 16, 3, {"lr": 2e-4, "beta1": 0.5, "eps": 1e-7}),
)


class Silent:
    """A Reporter that shows nothing."""

    def advance(self, nimg: int) -> None: ...

    def record(self, record: dict[str, Any]) -> None: ...

    def sample(self, nimg: int, grid: np.ndarray) -> None: ...


class Bench:
    """Runs in a folder that is deleted at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._runs = folder, 0

    def dataset(self, case: Case) -> Dataset:
        path = self.folder / f"{case.side}.npy"
        if not path.exists():
            np.save(path, case.pictures())
        return open_dataset(str(path), data_root=self.folder / "data")

    def trainer(self, case: Case, batch: int, steps: int, precision: str = "fp32") -> Trainer:
        dataset = self.dataset(case)
        self._runs += 1
        every = DEFAULT_KIMG / DEFAULT_RECORDS
        settings = Settings(
            "dcgan",
            {"batch": batch, "kimg": batch * steps / 1000},
            DataSettings.of(dataset, str(self.folder / f"{case.side}.npy")),
            precision=precision,
            log_kimg=every,
            sample_kimg=5 * every,
        )
        return Trainer(Run.create(self.folder / f"run{self._runs}", settings), dataset, "cpu")


# Data -------------------------------------------------------------------------------------------------


def loader_row(bench: Bench, case: Case, trained: float) -> Row:
    """trained: images a second of the trainer."""
    say(f"loader, {case.name}")
    with Loader(bench.dataset(case), 0, case.batch) as loader:
        rates, n = [], 0
        for _ in range(9):
            began = time.perf_counter()
            for _ in range(20):
                loader.take(n)
                n += case.batch
            rates.append(20 * case.batch / (time.perf_counter() - began))
    rate = median(rates)
    return Row(
        f"`Loader.take`, {case.name}, batch {case.batch}",
        f"{rate:,.0f} images/s",
        "the trainer's speed, bf16",
        f"{trained:,.0f} images/s",
        f"{rate / trained:,.0f}",
        "at least 20",
        rate >= 20 * trained,
    )


def with_pillow(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def first_pass_row(bench: Bench, count: int, rounds: int) -> Row:
    say(f"first pass over {count:,} PNG files")
    folder, random = bench.folder / "png", np.random.default_rng(0)
    folder.mkdir()
    for k in range(count):
        picture = random.integers(0, 256, (7, 7, 1), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        (folder / f"{k:05d}.png").write_bytes(encode_png(picture))

    def ours() -> float:
        root = bench.folder / "first-pass"
        began = time.perf_counter()
        images = open_dataset(str(folder), data_root=root).images
        seconds = time.perf_counter() - began
        assert len(images) == count
        shutil.rmtree(root)
        return seconds

    def pool() -> float:
        began = time.perf_counter()
        with multiprocessing.Pool(os.cpu_count()) as workers:
            images = np.stack(workers.map(with_pillow, sorted(map(str, folder.glob("*.png")))))
        assert len(images) == count
        return time.perf_counter() - began

    times = [(ours(), pool()) for _ in range(rounds)]
    say(f"  {', '.join(f'{a:.1f} s against {b:.1f} s' for a, b in times)}")
    ratio = median(b / a for a, b in times)
    return Row(
        f"`open_dataset`, the first time, {count:,} PNG files of 28x28",
        f"{count / median(a for a, _ in times):,.0f} images/s",
        "Pillow in a Pool of all processors",
        f"{count / median(b for _, b in times):,.0f} images/s",
        f"{ratio:.2f}",
        "at least 0.9",
        ratio >= 0.9,
    )


# The engine itself --------------------------------------------------------------------------------------


def by_hand(trainer: Trainer, batches: list[Batch], t: Progress) -> None:
    """An iteration as one would write it for this recipe alone."""
    for phase, batch in zip(trainer.phases, batches, strict=True):
        for name in ("G", "D"):
            trainer.nets[name].requires_grad_(name in phase.trains)
        with torch.autocast("cpu", torch.bfloat16, enabled=trainer.settings.precision == "bf16"):
            loss = sum(phase.loss(trainer.nets, batch, t).values())
        loss.backward()  # type: ignore[union-attr]
        trainer.optimizers[phase.name].step()
        trainer.optimizers[phase.name].zero_grad()
        if phase.after is not None:
            phase.after(trainer.nets, batch, t)


def overhead_row(bench: Bench, case: Case, precision: str, rounds: int) -> Row:
    say(f"overhead, {case.name}, {precision}")
    trainer = bench.trainer(case, case.batch, 10**6, precision)
    real, label, _ = trainer.feed.take(0)
    batches = [Batch(real, label, torch.randn(case.batch, LATENT_DIM)) for _ in trainer.phases]

    def seconds_of(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def t() -> Progress:
        return Progress(trainer.nimg, trainer.batch, trainer.total)

    def iterate() -> None:
        trainer._iterate(t())
        trainer.nimg += trainer.batch

    def tick() -> None:
        trainer._tick([Silent()], sample=False)

    pairs = []
    for k in range(4 * rounds * case.turn + 1):
        # One by one, and each goes first every other time.
        works = [iterate, lambda: by_hand(trainer, batches, t())][:: 1 if k % 2 else -1]
        times = [seconds_of(work) for work in works][:: 1 if k % 2 else -1]
        if k:
            pairs.append(times)
    ticks = []
    for _ in range(5):
        trainer.nimg += 1_000_000  # so that the monitors look
        ticks.append(seconds_of(tick))
    trainer.feed.close()
    trainer.writer.close()
    engine, hand = median(a for a, _ in pairs), median(b for _, b in pairs)
    between = DEFAULT_KIMG / DEFAULT_RECORDS * 1000 / case.batch  # iterations from one record to the next
    # Of sums, because the two of a pair are so short that anything else on the machine hits one of them.
    step = median(a - b for a, b in pairs)
    more = (step + median(ticks) / between) / hand
    say(f"  {step * 1e3:+.2f} ms an iteration of {hand * 1e3:.1f}; a record {median(ticks) * 1e3:.1f} ms")
    return Row(
        f"an iteration of dcgan {case.name}, batch {case.batch}, {precision}, with its share of a record",
        f"{(engine + median(ticks) / between) * 1e3:.1f} ms",
        "the same phases by hand, data in memory",
        f"{hand * 1e3:.1f} ms",
        f"{more:+.1%}",
        "under +3 %",
        more < 0.03,
    )


def first_save(folder: Path, millions: int) -> tuple[float, float, int]:
    """Seconds that training halts, seconds until the file is on the disk, and its bytes; in a process of its own.

    Of the first save of a process: later ones may copy into memory that the system has handed out already, several
    times as fast, which says nothing of checkpoints that are ten minutes apart.
    """
    torch.set_num_threads(THREADS)
    layers = [torch.randn(1_000_000) for _ in range(millions)]
    moments = [{"exp_avg": torch.randn(1_000_000), "exp_avg_sq": torch.rand(1_000_000)} for _ in layers]
    state = {"nets": dict(enumerate(layers)), "optimizers": dict(enumerate(moments))}
    writer = Writer(folder)
    began = time.perf_counter()
    writer.save(0, state)
    halt = time.perf_counter() - began
    writer.close()
    whole = time.perf_counter() - began
    (path,) = folder.glob("*.pt")
    return halt, whole, path.stat().st_size


def checkpoint_row(bench: Bench, millions: int, rounds: int) -> Row:
    say(f"checkpoint of {millions} M parameters")
    found = []
    for k in range(rounds):
        folder = bench.folder / f"checkpoint{k}"
        folder.mkdir()
        with multiprocessing.get_context("spawn").Pool(1) as process:
            found.append(process.apply(first_save, (folder, millions)))
        shutil.rmtree(folder)
    say(f"  halts {', '.join(f'{halt:.2f} s, whole {whole:.1f} s' for halt, whole, _ in found)}")
    halt, whole = max(halt for halt, _, _ in found), median(whole for _, whole, _ in found)
    return Row(
        f"a checkpoint of {millions} M parameters with Adam's moments, {found[0][2] / 1e6:,.0f} MB",
        f"training halts {halt:.2f} s at most",
        "until it is on the disk",
        f"{whole:.1f} s",
        "",
        "under 1 s",
        halt < 1,
    )
