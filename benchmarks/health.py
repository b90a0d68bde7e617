"""Trainings that are healthy and trainings made to fail: what the monitors measure, and when they raise an alarm.

    python benchmarks/health.py

Prints the tables of docs/training-health.md. Each training is the real Trainer on the built-in digits, on the CPU, in
float32, with seed 0 and 256 pictures held out; the monitors look every 1,024 images. It ends at its first alarm, or
after so many steps as the table says. The second table is what a look costs. Some ten minutes on one thread.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Others, say

from edgegan.devices import processor
from edgegan.trainer import loop
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.recipe import Batch, Phase, Progress
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings

LOOK_IMAGES = 1024
EVERY = loop.MONITOR_IMAGES  # as trainings have it; the ones here look more often
HELD_OUT = 256


@dataclass(frozen=True)
class Training:
    """One that is healthy, or fails in one way."""

    name: str
    recipe: str
    steps: int  # at most
    config: dict[str, Any]
    expected: str = "none"
    rates: dict[str, float] | None = None  # a factor on the learning rate of a phase
    weight: float = 1.0  # on every loss
    no_z: bool = False  # G gets z = 0
    pictures: int = 10_000
    look_images: int = LOOK_IMAGES


B32 = {"batch": 32}
TRAININGS = (
    Training("`edge`, as it is", "edge", 1250, {}),
    Training("`dcgan`, batch 32, as it is", "dcgan", 900, B32),
    Training("`edge`, D's rate times 10", "edge", 500, {}, rates={"D": 10}),
    Training("`edge`, z = 0", "edge", 700, {}, "collapse", no_z=True),
    Training("`dcgan`, batch 32, z = 0", "dcgan", 500, B32, "collapse", no_z=True),
    Training("`edge`, 50 pictures", "edge", 700, {}, "overfitting", pictures=50 + HELD_OUT),
    Training("`edge`, losses times 1e-12", "edge", 500, {}, "vanishing", weight=1e-12),
    Training("`dcgan`, batch 32, losses times 1e-12", "dcgan", 400, B32, "vanishing", weight=1e-12),
    Training("`edge`, D's rate times 100", "edge", 500, {}, "exploding", rates={"D": 100}),
    Training("`edge`, G's rate times 100", "edge", 500, {}, "exploding", rates={"G": 100}),
    Training("`dcgan`, batch 32, D's rate times 100", "dcgan", 1000, B32, rates={"D": 100}),
    Training(
        "`edge`, G's rate times 0.01, a look every 2,048",
        "edge",
        1200,
        {},
        "overpowered",
        {"G": 0.01},
        look_images=2048,
    ),
)


def sabotaged(phase: Phase, training: Training, run: Run) -> Phase:
    """The phase with what the training does to it."""

    def loss(nets: torch.nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, torch.Tensor]:
        if training.no_z:
            batch = replace(batch, z=torch.zeros_like(batch.z))
        return {name: term * training.weight for name, term in phase.loss(nets, batch, t).items()}

    factor = (training.rates or {}).get(phase.name, 1.0)
    rate: Callable[[Progress], float] = phase.learning_rate or (lambda t: run.config.lr)
    return replace(phase, loss=loss, learning_rate=lambda t: factor * rate(t))


def trainer_of(training: Training, folder: Path, full: Dataset) -> loop.Trainer:
    part = slice(0, training.pictures)
    assert full.labels is not None
    dataset = replace(full, images=full.images[part], labels=full.labels[part])
    kimg = training.steps * training.config.get("batch", 16) / 1000
    settings = Settings(
        training.recipe,
        config={"kimg": kimg, **training.config},
        data=DataSettings.of(dataset, "digits"),
        log_kimg=training.look_images / 1000,
        sample_kimg=1e6,
        holdout=HELD_OUT,
    )
    trainer = loop.Trainer(Run.create(folder, settings), dataset, "cpu")
    trainer.phases = tuple(sabotaged(phase, training, trainer.run) for phase in trainer.phases)
    if training.no_z:
        drawn = trainer.preview.fakes
        module = trainer.run.recipe.export_module(trainer.nets)

        def fakes(n: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
            _, labels = drawn(n, start)
            z = torch.zeros(n, trainer.preview.latent_dim)
            with torch.no_grad():
                return module.eval()(*([z] if labels is None else [z, labels])).float(), labels

        trainer.preview.fakes = fakes  # type: ignore[method-assign]
    return trainer


def watch(training: Training, folder: Path, full: Dataset) -> str:
    """Train until the first alarm; a row of the table."""
    loop.MONITOR_IMAGES = training.look_images
    trainer = trainer_of(training, folder, full)
    seen: list[tuple[int, str]] = []

    class Watcher:
        def advance(self, nimg: int) -> None: ...

        def sample(self, nimg: int, grid: np.ndarray) -> None: ...

        def record(self, record: dict[str, Any]) -> None:
            if not seen:
                seen.extend((record["nimg"] // trainer.batch, alarm["kind"]) for alarm in record.get("alarms", ()))

    trainer.train([Watcher()], lambda: int(bool(seen)))
    health = [record["health"] for record in trainer.run.read_log() if "health" in record]
    alarms = ", ".join(f"`{kind}`, step {step}" for step, kind in seen) or "none"
    columns = [span(health, key) for key in ("diversity", "accuracy", "held_out_gap", "gradient_D", "gradient_G")]
    missed = "" if training.expected in alarms else f" (**expected {training.expected}**)"
    return f"| {training.name} | {trainer.nimg // trainer.batch} | {' | '.join(columns)} | {alarms}{missed} |"


def span(health: list[dict[str, float]], key: str) -> str:
    values = [record[key] for record in health if key in record]
    if not values:
        return ""
    low, high = (f"{value:.2g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def cost(name: str, recipe: str, folder: Path, dataset: Dataset, config: dict[str, Any]) -> str:
    """What a look takes, against the training between two looks: best of five each."""
    settings = Settings(recipe, config=config, data=DataSettings.of(dataset, "digits"), holdout=HELD_OUT)
    trainer = loop.Trainer(Run.create(folder, settings), dataset, "cpu")
    progress = Progress(0, trainer.batch, 10**6)
    image = best(lambda: trainer._iterate(progress)) / trainer.batch
    draw = best(lambda: trainer.preview.fakes(loop.MONITORED))
    look = best(trainer._look) - draw
    share = (look + draw) / (EVERY * image)
    return f"| {name} | {image * 1e3:.1f} ms | {look * 1e3:.0f} ms | {draw * 1e3:.0f} ms | {share:.2%} |"


def best(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(5):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="trainings whose name holds this text")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    others, full = Others(), open_dataset("digits")
    colour = open_dataset("digits", resolution=64, channels=3)
    rows, costs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for k, training in enumerate(TRAININGS):
            if only in training.name:
                say(training.name)
                rows.append(watch(training, Path(folder) / f"{k}", full))
                say(rows[-1])
        if not only:
            for k, (name, recipe, dataset) in enumerate(
                (
                    ("`edge`, 28x28 grey", "edge", full),
                    ("`edge`, 64x64 colour", "edge", colour),
                    ("`dcgan`, 28x28 grey", "dcgan", full),
                )
            ):
                say(name)
                costs.append(cost(name, recipe, Path(folder) / f"cost-{k}", dataset, {}))
    busy = f"other processes kept {others.busy():.2f} processors busy"
    print(f"{processor()}, one thread; torch {torch.__version__}; {busy}\n")
    print("| training | steps | diversity | accuracy | gap | norm of D | norm of G | first alarm |")
    print("|---|---:|---|---|---|---|---|---|")
    print("\n".join(rows))
    if costs:
        print(f"\n| | training, an image | a look | drawing its fakes | share, a look every {EVERY:,} images |")
        print("|---|---|---|---|---|")
        print("\n".join(costs))


if __name__ == "__main__":
    main()
