"""What the trainer costs: its speed against the plain loop of public examples, and what it does beside the nets.

    python benchmarks/training.py [--rounds N] [--steps N] [--folder DIR]      # needs the extra `train`; 10 minutes

On the CPU with 2 threads, on the recipe `dcgan`. Contenders take turns of a few steps in one process; the table has the
medians over the turns, and the median of the ratios within a turn, so that a machine whose speed drifts does not tilt
them.

- Speed: images a second of `Trainer.train` on a run of its own, against benchmarks/plain_gan.py. The trainer's time has
  everything in it but the sample grid and the checkpoint at the very start.
- Losses: those of the trainer's first steps in float32, against those of the plain loop, which is fed the same weights,
  pictures, noise and dropout masks. The yardstick is the plain loop against itself with one thread, which adds up in
  another order: two programs that do the same cannot be nearer to each other than that.
- Loader: images a second of `Loader.take`, against those of the trainer.
- First pass: `open_dataset` on a folder of 60,000 PNG files, against Pillow in a Pool of all processors.
- Overhead: an iteration of the trainer (its feed, randomness, guard, sums) and its share of a log record with a look of
  the monitors, against the same phases by hand on batches in memory. Sample grids and checkpoints are apart.
- Checkpoint: of nets with 50 million parameters and Adam's two moments for each: how long the training halts for the
  first one of a process, and the longest of all rounds counts.

For a quick look: --quick.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import plain_gan
import torch
from common import IDLE, Others, Row, say, show
from engine import (
    CASES,
    LATENT_DIM,
    THREADS,
    Bench,
    Case,
    Silent,
    checkpoint_row,
    first_pass_row,
    loader_row,
    overhead_row,
)
from torch import Tensor, nn

from edgegan.devices import processor
from edgegan.trainer import randomness
from edgegan.trainer.data.loader import Loader
from edgegan.trainer.layers import Dropout
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, Phase, Progress

EARLY = 20  # steps in which differences have not grown yet


class Turns(Silent):
    """Lets the plain loop have its turn after each of the trainer's, from within the trainer's training."""

    def __init__(self, plain: Iterator[object], steps: int) -> None:
        self.plain, self.steps = plain, steps
        self.times: list[tuple[float, float]] = []  # seconds of the trainer and of the plain loop, for each turn
        self._done, self._began = 0, 0.0

    def advance(self, nimg: int) -> None:
        self._done += 1
        if self._done % self.steps:
            return
        trained = time.perf_counter() - self._began
        began = time.perf_counter()
        for _ in range(self.steps):
            next(self.plain)
        if self._done > self.steps:  # the first turn only warms up
            self.times.append((trained, time.perf_counter() - began))
        self._began = time.perf_counter()


def in_memory(images: np.ndarray) -> Tensor:
    """uint8 [n, H, W, C] -> float32 [n, C, H, W] in [-1, 1], as torchvision's transforms would have it."""
    return (torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


# Speed ------------------------------------------------------------------------------------------------


def speed_row(bench: Bench, case: Case, precision: str, rounds: int) -> tuple[Row, float]:
    """The row, and the trainer's images a second."""
    say(f"speed, {case.name}, {precision}")
    images = in_memory(bench.dataset(case).images)
    G, D = case.plain_nets()
    turns = Turns(plain_gan.train(G, D, plain_gan.shuffled(images, case.batch), **case.published), case.turn)
    trainer = bench.trainer(case, case.batch, (1 + rounds) * case.turn, precision)
    trainer.train([turns])
    shown = case.batch * case.turn
    ours, theirs = (median(shown / seconds[k] for seconds in turns.times) for k in range(2))
    ratios = [plain / trained for trained, plain in turns.times]
    say(f"  {ours:,.0f} against {theirs:,.0f} images/s; ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    least = 1.6 if precision == "bf16" else 1.1
    ratio = median(ratios)
    row = Row(
        f"dcgan {case.name}, batch {case.batch}, {precision}",
        f"{ours:,.0f} images/s",
        "the plain loop, float32",
        f"{theirs:,.0f} images/s",
        f"{ratio:.2f}",
        f"at least {least}",
        ratio >= least,
    )
    return row, ours


# Losses -----------------------------------------------------------------------------------------------


def losses_of_trainer(trainer: Trainer) -> list[float]:
    """Those of D and of G in turn, a pair for each step."""
    seen: list[float] = []

    def recorded(phase: Phase) -> Phase:
        def loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
            terms = phase.loss(nets, batch, t)
            seen.extend(term.item() for term in terms.values())
            return terms

        return replace(phase, loss=loss)

    trainer.phases = tuple(map(recorded, trainer.phases))
    trainer.train([Silent()])
    return seen


def losses_of_plain(case: Case, trainer: Trainer, weights: dict[str, dict[str, Tensor]], steps: int) -> list[float]:
    """The same of the plain loop, fed with what the trainer begins with and draws."""
    settings, batch = trainer.settings, trainer.batch
    nets = case.plain_nets(Dropout)
    for net, name in zip(nets, "GD", strict=True):
        values = [_channels_first(key, value) for key, value in weights[name].items()]
        net.load_state_dict(dict(zip(net.state_dict(), values, strict=True)))

    def noise(step: int, phase: int, n: int) -> Tensor:
        randomness.seed_torch(settings.seed, step * batch, phase)  # for dropout
        return torch.from_numpy(randomness.latents(settings.seed, phase, step * batch, n, LATENT_DIM))

    def batches() -> Iterator[Tensor]:
        with Loader(trainer.feed.data.dataset, settings.seed, batch) as loader:
            for step in range(steps):
                yield in_memory(loader.take(step * batch)[0])

    return [loss for pair in plain_gan.train(*nets, batches(), **case.published, noise=noise) for loss in pair]


def _channels_first(key: str, weight: Tensor) -> Tensor:
    """The recipe's dense layers have the channels of a feature map last, as the tutorial's; torch's habit is first."""
    if key != "dense.weight":
        return weight
    if weight.shape[0] == 1:
        return weight.view(7, 7, -1).permute(2, 0, 1).reshape(1, -1)
    return weight.view(7, 7, 256, LATENT_DIM).permute(2, 0, 1, 3).reshape(-1, LATENT_DIM)


def losses_rows(bench: Bench, case: Case, steps: int) -> list[Row]:
    say(f"losses, {case.name}, {steps} steps")
    trainer = bench.trainer(case, case.check_batch, steps)
    weights = {name: {k: v.clone() for k, v in trainer.nets[name].state_dict().items()} for name in ("G", "D")}
    ours = np.array(losses_of_trainer(trainer))
    plain = np.array(losses_of_plain(case, trainer, weights, steps))
    torch.set_num_threads(1)
    yardstick = np.array(losses_of_plain(case, trainer, weights, steps))
    torch.set_num_threads(THREADS)
    rows = []
    for first in sorted({1, min(EARLY, steps), steps}):
        # Relative to the mean loss of that step: a loss near 0 would turn rounding into large ratios.
        scale = plain.reshape(-1, 2).mean(axis=1).repeat(2)[: 2 * first]
        mine, its = (float((np.abs(x - plain)[: 2 * first] / scale).max()) for x in (ours, yardstick))
        say(f"  the first {first}: {mine:.1e}, the plain loop on one thread {its:.1e}")
        row = Row(
            f"losses of dcgan {case.name}, batch {case.check_batch}, the first {first} steps",
            f"{mine:.1e} apart",
            "the plain loop with one thread instead of two",
            f"{its:.1e} apart",
            f"{mine / its:.1f}" if its else "",
        )
        if first == 1:  # before the differences grow
            row.work = row.work.replace("the first 1 steps", "the first step")
            row.target, row.met = "at most 1e-4 apart", mine <= 1e-4
        else:
            row.target, row.met = "at most 3", mine <= 3 * its
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of which the median counts (default: 5)")
    parser.add_argument("--steps", type=int, default=200, help="steps whose losses are compared (default: 200)")
    parser.add_argument("--folder", type=Path, help="where the runs are made (default: the system's temporary folder)")
    parser.add_argument("--quick", action="store_true", help="two turns, 20 steps, 6,000 files: a minute")
    arguments = parser.parse_args()
    rounds, steps, files, millions = arguments.rounds, arguments.steps, 60_000, 50
    if min(rounds, steps) < 1:
        parser.error("--rounds and --steps are 1 or more")
    if arguments.quick:
        rounds, steps, files, millions = 2, 20, 6_000, 10

    torch.set_num_threads(THREADS)
    others, rows, trained = Others(), [], {}
    with tempfile.TemporaryDirectory(prefix="edgegan-training-", dir=arguments.folder) as name:
        bench = Bench(Path(name))
        first_pass = first_pass_row(bench, files, min(rounds, 3))  # while this process has few threads to fork
        for case in CASES:
            for precision in ("fp32", "bf16"):
                row, trained[case.name] = speed_row(bench, case, precision, rounds)
                rows.append(row)
        for case in CASES:
            rows += losses_rows(bench, case, steps if case is CASES[0] else min(steps, EARLY))
        rows += [loader_row(bench, case, trained[case.name]) for case in CASES]
        rows.append(first_pass)
        rows += [overhead_row(bench, CASES[0], precision, rounds) for precision in ("fp32", "bf16")]
        rows.append(checkpoint_row(bench, millions, min(rounds, 3)))
        busy = others.busy()

    print(f"{processor()}, {os.cpu_count()} processors, {THREADS} threads; torch {torch.__version__}, ", end="")
    print(f"numpy {np.__version__}; medians of {rounds} turns; ", end="")
    print(f"other processes kept {busy:.2f} of the processors busy\n")
    show(rows)
    if not busy < IDLE:
        print("\n**The machine was not idle. Run it again.**")


if __name__ == "__main__":
    main()
