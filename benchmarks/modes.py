"""How many modes do a plain GAN and edgegan's default loss draw, of 25 Gaussians on a grid and of 8 on a ring?

    python benchmarks/modes.py train FOLDER            # many hours; after Ctrl-C the same command goes on
    python benchmarks/modes.py train FOLDER --mixtures grid --losses default --trials 1 --epochs 25
    python benchmarks/modes.py show                    # the table of the trials that are finished; curves.png

The protocol of Lin, Khetan, Fanti, Oh 2018, "PacGAN: The Power of Two Samples in Generative Adversarial Networks",
section 4.1, with the constants of its authors' public configuration: z [n, 2] -> 4 x (linear 400, batch norm, ReLU) ->
point; point -> 3 x maxout 200 of 5 pieces -> logit; weights N(0, 0.02); 100,000 samples in batches of 100, 400 epochs;
Adam(1e-4, beta1 0.8), both nets from one another's state before the step. The trained G then draws 2,500 points.

`plain` is the control: the non-saturating loss. `default` is how the recipe edge trains: the relativistic paired loss
with R1 and R2 at every step, Adam(beta1 0, beta2 0.95), a learning rate that falls from 5e-4 to a twentieth along a
cosine, and the moving average of G draws. Nets, data, batches and epochs are the same for both. Each trial has its own
seed and computes on one thread; --jobs says how many run at a time. FOLDER keeps where each is; --results, by default
docs/modes, gets TRIAL.json and, of each first trial, TRIAL.png: its points on those of the data.
"""

import argparse
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import say
from torch import Tensor, nn

from edgegan import noise
from edgegan._files import atomic_write
from edgegan.trainer.data import sample_order
from edgegan.trainer.ema import EMA
from edgegan.trainer.losses import (
    discriminator_bce,
    discriminator_relativistic,
    generator_nonsaturating,
    generator_relativistic,
    squared_gradient_norm,
)
from edgegan.trainer.metrics.modes import GRID, RING, Mixture, PointModes, point_modes

MIXTURES = {"grid": GRID, "ring": RING}
LOSSES = ("plain", "default")
SAMPLES, BATCH, DRAWN = 100_000, 100, 2500
STEPS = SAMPLES // BATCH  # of an epoch
LR = {"plain": 1e-4, "default": 5e-4}  # plain: the protocol's
BETAS = {"plain": (0.8, 0.999), "default": (0.0, 0.95)}
GAMMA = 0.2  # of R1 and R2: what resolves points that are 0.05 wide
FALL = 0.05  # the last learning rate of `default` over the first
HALFLIFE = 20_000  # samples, of the moving average
PURPOSE = 6  # of a seed: the draws of an epoch
RESULTS = Path(__file__).parents[1] / "docs" / "modes"
TARGET = (25, 0.95)  # modes and share of good points, of the default loss on the grid


class Maxout(nn.Module):
    """[n, i] -> [n, o]: the greatest of `pieces` linear functions (Goodfellow et al. 2013)."""

    def __init__(self, inputs: int, outputs: int, pieces: int = 5) -> None:
        super().__init__()
        self.linear, self.pieces = nn.Linear(inputs, outputs * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (self.pieces, -1)).max(1).values  # amax is a quarter slower to differentiate


def make_nets() -> tuple[nn.Module, nn.Module]:
    """G and D of the protocol."""
    hidden: list[nn.Module] = []
    for inputs in (2, 400, 400, 400):
        hidden += [nn.Linear(inputs, 400, bias=False), nn.BatchNorm1d(400, momentum=0.05), nn.ReLU()]
    G = nn.Sequential(*hidden, nn.Linear(400, 2))
    D = nn.Sequential(Maxout(2, 200), Maxout(200, 200), Maxout(200, 200), nn.Linear(200, 1), nn.Flatten(0))
    for module in (*G.modules(), *D.modules()):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return G, D


@dataclass(frozen=True)
class Trial:
    """One training: which points, which loss, which of its repetitions."""

    mixture: str
    loss: str
    number: int
    epochs: int
    gamma: float  # weight of R1 and R2

    @property
    def name(self) -> str:
        extra = f"-gamma{self.gamma:g}" if self.loss == "default" else ""
        return f"{self.mixture}-{self.loss}{extra}-{self.epochs}-{self.number}"


class Training:
    """A trial in memory; `save` and `restore` at the end of an epoch, where everything random begins anew."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        torch.manual_seed(trial.number)
        self.G, self.D = make_nets()
        self.average = EMA(self.G, HALFLIFE)
        lr, betas = LR[trial.loss], BETAS[trial.loss]
        self.d_adam = torch.optim.Adam(self.D.parameters(), lr, betas, fused=True)
        self.g_adam = torch.optim.Adam(self.G.parameters(), lr, betas, fused=True)
        self.points = torch.from_numpy(MIXTURES[trial.mixture].draw(trial.number, SAMPLES))
        self.epoch, self.seconds = 0, 0.0
        self.curve: list[list[float]] = []  # [epoch, modes found, share of good points]

    def parts(self) -> dict[str, Any]:
        return {"G": self.G, "D": self.D, "average": self.average, "d_adam": self.d_adam, "g_adam": self.g_adam}

    def save(self, path: Path) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        with atomic_write(path) as file:
            torch.save(state | {"epoch": self.epoch, "seconds": self.seconds, "curve": self.curve}, file)

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.epoch, self.seconds, self.curve = state["epoch"], state["seconds"], state["curve"]

    def run_epoch(self) -> None:
        start = time.perf_counter()
        order = torch.from_numpy(sample_order(self.trial.number, self.epoch * SAMPLES, SAMPLES, SAMPLES))
        key = noise.derive_seed(self.trial.number, PURPOSE)
        latents = torch.from_numpy(noise.normal(key, SAMPLES, 2, start=self.epoch * SAMPLES))
        for step in range(STEPS):
            at = slice(step * BATCH, (step + 1) * BATCH)
            if self.trial.loss == "default":
                done = (self.epoch + step / STEPS) / self.trial.epochs
                for adam in (self.d_adam, self.g_adam):
                    adam.param_groups[0]["lr"] = LR["default"] * (
                        FALL + (1 - FALL) * (1 + math.cos(math.pi * done)) / 2
                    )
            self.step(self.points[order[at]], latents[at])
            self.average.update(self.G, (self.epoch * STEPS + step) * BATCH, BATCH)
        self.epoch += 1
        self.seconds += time.perf_counter() - start
        found = self.modes()
        self.curve.append([self.epoch, found.found, found.high_quality])

    def step(self, real: Tensor, z: Tensor) -> None:
        fake = self.G(z)
        if self.trial.loss == "plain":
            d_loss = discriminator_bce(self.D(real), self.D(fake.detach()))
        else:
            points = torch.cat([real, fake.detach()]).requires_grad_()
            logits = self.D(points)
            penalty = 2 * squared_gradient_norm(logits, points).mean()  # the mean over each half, added
            d_loss = discriminator_relativistic(*logits.chunk(2)) + self.trial.gamma / 2 * penalty
        d_gradients = torch.autograd.grad(d_loss, list(self.D.parameters()))
        if self.trial.loss == "plain":
            g_loss = generator_nonsaturating(self.D(fake))
        else:
            g_loss = generator_relativistic(logits.detach()[:BATCH], self.D(fake))
        g_gradients = torch.autograd.grad(g_loss, list(self.G.parameters()))
        for net, adam, gradients in ((self.D, self.d_adam, d_gradients), (self.G, self.g_adam, g_gradients)):
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.grad = gradient
            adam.step()

    @torch.no_grad()
    def draw(self) -> np.ndarray:
        """2,500 points [n, 2] of latents that training has not seen."""
        key = noise.derive_seed(self.trial.number, PURPOSE + 1)
        z = torch.from_numpy(noise.normal(key, DRAWN, 2))
        self.G.eval()
        points = self.average(z) if self.trial.loss == "default" else self.G(z)
        self.G.train()
        return points.numpy()

    def modes(self) -> PointModes:
        return point_modes(self.draw(), MIXTURES[self.trial.mixture])


def run_trial(trial: Trial, folder: Path, results: Path) -> None:
    """Train to the end, from where it was left."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    state, result = folder / f"{trial.name}.pt", results / f"{trial.name}.json"
    if result.exists():
        return
    training = Training(trial)
    if state.exists():
        training.restore(state)
    while training.epoch < trial.epochs:
        training.run_epoch()
        training.save(state)
        _, found, good = training.curve[-1]
        left = training.seconds / training.epoch * (trial.epochs - training.epoch) / 3600
        say(f"{trial.name}: epoch {training.epoch}, {found:g} modes, {good:.1%} good, {left:.1f} h left")
    if trial.number == 0:
        draw_points(training.draw(), MIXTURES[trial.mixture], results / f"{trial.name}.png")
    record = asdict(trial) | training.modes()._asdict() | {"hours": training.seconds / 3600, "curve": training.curve}
    with atomic_write(result) as file:
        file.write(json.dumps(record).encode() + b"\n")


def draw_points(points: np.ndarray, mixture: Mixture, path: Path) -> None:
    """What G draws, on as many points of the data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    ax = figure.subplots()
    for name, (x, y), colour in (("data", mixture.draw(0, DRAWN).T, "C7"), ("drawn", points.T, "C3")):
        ax.scatter(x, y, 2, colour, label=name, linewidths=0)
    ax.set(aspect="equal")
    ax.legend(loc="upper right", fontsize=7, markerscale=3)
    figure.savefig(path, dpi=100)


def finished(results: Path) -> list[dict[str, Any]]:
    """The records of all trials that ran to their end, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]


def draw_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Modes and good points over the epochs, a panel for each of both and each mixture, a line for each trial."""
    from matplotlib.figure import Figure

    mixtures = [name for name in MIXTURES if any(record["mixture"] == name for record in records)]
    figure = Figure(figsize=(4.5 * len(mixtures), 5), layout="constrained")
    axes = figure.subplots(2, len(mixtures), squeeze=False, sharex="col")
    for column, mixture in enumerate(mixtures):
        labelled: set[str] = set()
        for record in records:
            if record["mixture"] == mixture:
                epochs, found, good = zip(*record["curve"], strict=True)
                colour = f"C{LOSSES.index(record['loss'])}"
                label = None if record["loss"] in labelled else record["loss"]
                labelled.add(record["loss"])
                axes[0, column].plot(epochs, found, colour, label=label, linewidth=1)
                axes[1, column].plot(epochs, good, colour, linewidth=1)
        modes = len(MIXTURES[mixture].means)
        axes[0, column].set(title=mixture, ylabel=f"modes of {modes}", ylim=(0, 1.05 * modes))
        axes[0, column].legend(loc="lower right")
        axes[1, column].set(xlabel="epoch", ylabel="share of good points", ylim=(0, 1))
    figure.savefig(path, dpi=100)


def print_table(records: list[dict[str, Any]]) -> bool:
    """A row for each mixture, loss and number of epochs; whether the target was met where it applies."""
    print("| points | loss | epochs | trials | modes: mean (least) | of | good points | KL | hours a trial |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    met = True
    groups = sorted({(r["mixture"], r["loss"], r["epochs"], r["gamma"]) for r in records})
    for mixture, loss, epochs, gamma in groups:
        key = (mixture, loss, epochs, gamma)
        of = [r for r in records if (r["mixture"], r["loss"], r["epochs"], r["gamma"]) == key]
        found, good = ([r[name] for r in of] for name in ("found", "high_quality"))
        spread = f" ± {np.std(good, ddof=1):.1%}" if len(of) > 1 else ""
        print(
            f"| {mixture} | {loss}{f', gamma {gamma:g}' if loss == 'default' else ''} | {epochs} | {len(of)} "
            f"| {np.mean(found):.1f} ({min(found)}) | {of[0]['total']} | {np.mean(good):.1%}{spread} "
            f"| {np.mean([r['divergence'] for r in of]):.3f} | {np.mean([r['hours'] for r in of]):.1f} |"
        )
        if (mixture, loss) == ("grid", "default"):
            met &= np.mean(found) >= TARGET[0] and np.mean(good) >= TARGET[1]
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    train = commands.add_parser("train", help="run the trials that are not finished")
    train.add_argument("folder", type=Path, help="where trials that run are kept")
    train.add_argument("--mixtures", nargs="+", choices=MIXTURES, default=list(MIXTURES))
    train.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    train.add_argument("--trials", type=int, default=3)
    train.add_argument("--epochs", type=int, default=400)
    train.add_argument("--gamma", type=float, default=GAMMA, help="weight of R1 and R2 (default: %(default)s)")
    train.add_argument("--jobs", type=int, default=1, help="trials at a time (default: %(default)s)")
    for command in (train, commands.add_parser("show", help="print the table, draw the curves")):
        command.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    options = parser.parse_args()
    if options.command == "train":
        for folder in (options.folder, options.results):
            folder.mkdir(parents=True, exist_ok=True)
        trials = [
            Trial(mixture, loss, number, options.epochs, options.gamma if loss == "default" else 0.0)
            for number, mixture, loss in product(range(options.trials), options.mixtures, options.losses)
        ]
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            list(pool.map(run_trial, trials, [options.folder] * len(trials), [options.results] * len(trials)))
    records = finished(options.results)
    if not records:
        raise SystemExit(f"{options.results} has no finished trials; see `modes.py train --help`")
    draw_curves(records, options.results / "curves.png")
    return 0 if print_table(records) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
