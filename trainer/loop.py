"""The only training loop. It knows phases, data, time and randomness; it knows no GAN."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgegan import image
from edgegan.errors import ArgumentError, RunError
from edgegan.model import inputs_of
from edgegan.trainer import checkpoint, randomness
from edgegan.trainer.data import Dataset, sample_order
from edgegan.trainer.figures import draw_curves, make_progress_gif
from edgegan.trainer.metrics.sliced_wasserstein import sliced_wasserstein
from edgegan.trainer.recipe import Batch, Phase, Progress
from edgegan.trainer.run import Run

GRID_SIDE = 4
PREVIEW_SEED = 0  # `edgegan sample -n 16 --seed 0` of the exported model draws the pictures of the last grid
DISTANCE_IMAGES = 1024


class Reporter(Protocol):
    """Who is told how a run goes. The loop itself prints nothing."""

    def advance(self, nimg: int) -> None:
        """`nimg` images have been shown by now."""

    def record(self, record: dict[str, Any]) -> None:
        """A line was added to log.jsonl."""


class Trainer:
    """A run in memory: nets, optimisers and the clock, restored from the newest checkpoint if there is one."""

    def __init__(self, run: Run, dataset: Dataset, device: str) -> None:
        settings = run.settings
        self.run, self.dataset, self.device, self.seed = run, dataset, torch.device(device), settings.seed
        self.batch, self.total = run.config.batch, round(run.config.kimg * 1000)
        self.spec = run.recipe.spec(run.config, settings.data.shape)
        randomness.seed_initial_weights(self.seed)
        nets = run.build()
        self.nets: nn.ModuleDict = nets.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.phases = run.recipe.phases(run.config)
        self.trained = sorted({name for phase in self.phases for name in phase.trains})
        self.optimizers: dict[str, Optimizer] = {
            phase.name: phase.optimizer([p for name in phase.trains for p in self.nets[name].parameters()])
            for phase in self.phases
        }
        self.nimg = 0
        self.seconds = 0.0  # of training, over all resumes
        self.sums: dict[str, Tensor] = {}  # each term's sum since the last record, kept on the device
        self.counts: dict[str, int] = {}
        self.since = (0, 0.0)  # (nimg, seconds) at the last record
        state = run.newest_checkpoint(self.device)
        if state is not None:
            self._restore(state)

    def train(self, reporter: Reporter, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until `interrupted()`; checkpoints either way. True when the run is complete.

        Raises RunError when a loss is no longer a finite number; the newest checkpoint is from before that.
        """
        if self.nimg == 0:
            self._sample()
            self._save()
        while self.nimg < self.total:
            if interrupted():
                self._means()  # raises rather than save what has diverged
                self._save()
                return False
            before, start = self.nimg, time.perf_counter()
            self._iterate(Progress(self.nimg, self.batch, self.total))
            self.nimg += self.batch
            self.seconds += time.perf_counter() - start
            reporter.advance(self.nimg)
            done = self.nimg >= self.total
            sample = done or self._crossed(before, self.run.settings.sample_kimg)
            if sample or self._crossed(before, self.run.settings.log_kimg):
                record = self._record()
                if sample:
                    record |= self._sample()
                self.run.append_log(record)
                reporter.record(record)
                if sample:
                    self._save()
        make_progress_gif(self.run)
        draw_curves(self.run)
        return True

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its pictures are there."""
        made = (self.run.folder / name for name in ("progress.gif", "curves.png"))
        return self.nimg >= self.total and all(path.exists() for path in made)

    def _iterate(self, t: Progress) -> None:
        order = sample_order(self.seed, t.nimg, t.batch, len(self.dataset))
        real = _to_device(self.dataset.images[order], self.device)
        label = None
        if self.dataset.labels is not None:
            label = torch.from_numpy(self.dataset.labels[order]).to(self.device)
        for index, phase in enumerate(self.phases):
            if (t.nimg // t.batch) % phase.every == 0:
                z = randomness.latents(self.seed, index, t.nimg, t.batch, self.spec.latent_dim or 1).to(self.device)
                randomness.seed_torch(self.seed, t.nimg, index)
                self._step(phase, Batch(real, label, z), t)

    def _step(self, phase: Phase, batch: Batch, t: Progress) -> None:
        for name in self.trained:
            self.nets[name].requires_grad_(name in phase.trains)
        optimizer = self.optimizers[phase.name]
        if phase.learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate(t)
        with self._autocast():
            terms = phase.loss(self.nets, batch, t)
        torch.stack([term.float() for term in terms.values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=self.device)) + term.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1
        if phase.after is not None:
            with torch.no_grad():
                phase.after(self.nets, batch, t)

    def _autocast(self) -> Any:
        if self.run.settings.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _crossed(self, before: int, every_kimg: float) -> bool:
        every = max(1, round(every_kimg * 1000))
        return self.nimg // every > before // every

    def _record(self) -> dict[str, Any]:
        """Time, speed, and the mean of each loss term since the last record."""
        nimg, seconds = self.since
        record: dict[str, Any] = {"nimg": self.nimg, "kimg": self.nimg / 1000}
        record["losses"] = self._means()
        record["seconds"] = round(self.seconds, 2)
        record["images_per_second"] = round((self.nimg - nimg) / max(self.seconds - seconds, 1e-9), 1)
        self.sums, self.counts, self.since = {}, {}, (self.nimg, self.seconds)
        return record

    def _means(self) -> dict[str, float]:
        """Each loss term's mean since the last record. Raises RunError if one is not finite."""
        means = {name: round(total.item() / self.counts[name], 5) for name, total in self.sums.items()}
        bad = [name for name, mean in means.items() if not math.isfinite(mean)]
        if bad:
            raise RunError(
                f"training diverged: loss {bad[0]} is {means[bad[0]]} at {self.nimg / 1000:g} kimg; "
                f"the newest checkpoint in {self.run.checkpoints} is from before; start anew with a lower --lr"
            )
        return means

    def _sample(self) -> dict[str, float]:
        """Save the fixed-seed grid; measure how far fixed-seed fakes, and other real pictures, are from real ones."""
        zoom = image.comfortable_zoom(self.spec.image_size)
        grid = image.grid(self.draw(GRID_SIDE**2), columns=GRID_SIDE, zoom=zoom)
        image.save_image(self.run.samples / f"{self.nimg:012d}.png", grid)
        real, _ = self._real_pictures
        return {"swd": round(sliced_wasserstein(real, self.draw(len(real))), 3), "swd_real": self._real_distance}

    @cached_property
    def _real_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Two fixed sets of real pictures without a common one, each uint8 [n, H, W, C]."""
        n = min(DISTANCE_IMAGES, len(self.dataset) // 2)
        order = sample_order(PREVIEW_SEED, 0, 2 * n, len(self.dataset))
        return self.dataset.images[order[:n]], self.dataset.images[order[n:]]

    @cached_property
    def _real_distance(self) -> float:
        """The distance between them: what a perfect generator would reach."""
        return round(sliced_wasserstein(*self._real_pictures), 3)

    @torch.no_grad()
    def draw(self, n: int, batch: int = 64) -> np.ndarray:
        """Pictures 0 .. n - 1 of the preview seed, as the exported model will draw them: uint8 [n, H, W, C]."""
        module, drawn = self.run.recipe.export_module(self.nets).eval(), []
        for start in range(0, n, batch):
            feed = inputs_of(self.spec, PREVIEW_SEED, min(batch, n - start), start)
            images = module(*(torch.from_numpy(x).to(self.device) for x in feed.values()))
            drawn.append(image.to_uint8(images.float().cpu().numpy()))
        return np.concatenate(drawn)

    def _save(self) -> None:
        state = {
            "nets": self.nets.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "seconds": self.seconds,
            "sums": self.sums,
            "counts": self.counts,
            "since": self.since,
        }
        checkpoint.save(self.run.checkpoints, self.nimg, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.run.load_nets(self.nets, state)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.nimg, self.seconds, self.since = state["nimg"], state["seconds"], state["since"]
        self.sums, self.counts = state["sums"], state["counts"]
        self.run.rewind_log(self.nimg)


def pick_device(name: str) -> str:
    """The device called `name`; auto is cuda if there is a GPU, else cpu.

    Raises ArgumentError for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise ArgumentError(f"device is {name!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ArgumentError(
            f"device {name} is not there: torch sees {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return name


def pick_precision(name: str, device: str) -> str:
    """The precision called `name`; auto is bf16 where `device` multiplies bfloat16 in hardware, else fp32."""
    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device != "cpu" else _cpu_has_bf16()
    return "bf16" if fast else "fp32"


def _cpu_has_bf16() -> bool:
    """Without these instructions bfloat16 is emulated, slower than float32."""
    supported = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in supported)


def _to_device(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [n, H, W, C] -> float32 [n, C, H, W] in [-1, 1], channels last in memory."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
