"""The only training loop. It knows phases, data, time and randomness; it knows no GAN."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edgegan.errors import ArgumentError, RunError, one_line
from edgegan.trainer import randomness
from edgegan.trainer.checkpoint import Writer, make_best
from edgegan.trainer.data import Dataset
from edgegan.trainer.devices import peak_memory_mb, tune
from edgegan.trainer.feed import Feed
from edgegan.trainer.figures import draw_curves, make_progress_gif
from edgegan.trainer.monitors import Monitors
from edgegan.trainer.parallel import Group, PeerLostError, part_of
from edgegan.trainer.preview import Preview
from edgegan.trainer.recipe import Batch, Phase, Progress, optimizers_of
from edgegan.trainer.report import make_report
from edgegan.trainer.run import Run
from edgegan.trainer.scorer import Scored, Scorer, StoppedError

CHECKPOINT_SECONDS = 600.0  # a checkpoint at least that often, between those that go with sample grids
MONITORED = 64  # pictures that the monitors look at
MONITOR_IMAGES = 32 * MONITORED  # shown between two looks at least: keeps their cost below 2 % of the time
ON_COLLAPSE = ("continue", "stop")


class Reporter(Protocol):
    """Who is told how a run goes. The loop itself prints nothing."""

    def advance(self, nimg: int) -> None:
        """`nimg` images have been shown by now."""

    def record(self, record: dict[str, Any]) -> None:
        """A line was added to log.jsonl."""

    def sample(self, nimg: int, grid: np.ndarray) -> None:
        """The fixed-seed grid, uint8 [H, W, C], was drawn."""

    def scoring(self, done: int, total: int, what: str) -> None:
        """Scores are being measured, and so many of these are done."""


class Trainer:
    """A run in memory: nets, optimisers and the clock, restored from the newest checkpoint if there is one.

    group: the processes that train it together, each with a part of every batch. workers: threads that prepare batches
    ahead. compiled: whether torch.compile may speed up the nets that allow it. on_collapse: "stop" ends a run whose
    generator draws but one picture, "continue" says so and goes on. scorer: of the run's scores, if it has any; by
    default one is opened. None of these is part of the run: they change its bits by rounding at most (workers,
    on_collapse and scorer not at all).
    """

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        device: str,
        *,
        group: Group | None = None,
        workers: int = 0,
        compiled: bool = False,
        on_collapse: str = "continue",
        scorer: Scorer | None = None,
    ) -> None:
        self.run, self.settings, self.device = run, run.settings, torch.device(device)
        self.group = group or Group()
        self.batch, self.total = run.config.batch, round(run.config.kimg * 1000)
        self.part = part_of(self.batch, self.group.world)
        self.micro = min(self.settings.micro_batch or self.part, self.part)
        self.pieces = -(-self.part // self.micro)  # as equal as can be: none that is too small for batch norm
        if on_collapse not in ON_COLLAPSE:
            raise ArgumentError(f"on_collapse is {on_collapse!r}; valid: {', '.join(ON_COLLAPSE)}")
        self.on_collapse = on_collapse
        if (run.settings.source_set is None) != (dataset.source is None):
            raise ArgumentError(
                f"the data have {'no' if dataset.source is None else 'a'} source set; open them with Run.open_dataset"
            )
        tune(self.device)
        randomness.seed_initial_weights(self.settings.seed)
        nets = run.build()
        self.nets: nn.ModuleDict = nets.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.phases = run.recipe.phases(run.config)
        self.trained = sorted({name for phase in self.phases for name in phase.trains})
        self.optimizers = optimizers_of(self.phases, self.nets)
        self.nimg = 0
        self.done = 0  # phases of the iteration at nimg that are done: not 0 only after the loss of another process
        self.seconds = 0.0  # of training, over all resumes
        self.sums: dict[str, Tensor] = {}  # each term's sum since the last record, kept on the device
        self.counts: dict[str, int] = {}
        self.since = (0, 0.0)  # (nimg, seconds) at the last record
        self.best: tuple[float, int] | None = None  # (distance, nimg) of the best checkpoint
        self.measured: Scored | None = None  # scores for the next record, or those of the last
        self.scored: tuple[int, dict[str, float | str]] | None = None  # (nimg, what a model file says) of the last
        self.culprits: list[tuple[str, str]] = []  # (phase, net) by the number that `failed` may have
        self.failed = torch.full((), -1, device=self.device)  # the first of them whose gradients were not finite
        self.feed = Feed(run, dataset, self.device, self.group, workers)
        self.preview = Preview(run, self.feed, self.nets)
        ask = None if run.recipe.logits is None else self._ask
        self.monitors = Monitors(ask, self.feed.fixed(MONITORED), self.feed.held_out())
        self.monitored = 0  # nimg at their last look
        self.scorer = scorer
        if scorer is None and run.settings.score is not None and self.group.first:
            self.scorer = Scorer(run.settings.score, dataset)
        self.writer = Writer(run.checkpoints)
        self.saved = time.monotonic()
        state = run.newest_checkpoint(self.device)
        if state is not None:
            self._restore(state)
        if compiled:
            for name in run.recipe.compiles:
                self.nets[name].compile()

    def train(self, reporters: Sequence[Reporter], stop_asked: Callable[[], int] = lambda: 0) -> int:
        """Train to the end, or until a process's `stop_asked()` is not 0; checkpoints either way.

        Returns 0 when the run is complete, else the greatest of what the processes' `stop_asked` returned. Raises
        RunError when a gradient is no longer finite (the newest checkpoint is from before that), when G has collapsed
        and that shall stop it, and PeerLostError when another process died; OSError if the disk refuses a checkpoint.
        """
        try:
            status = self._train(reporters, stop_asked)
        except PeerLostError:
            if self.device.type == "cpu":  # a GPU may still wait for the dead one, half-way through its sums
                self._check_finite()
                self._write()
            raise
        finally:
            self.feed.close()
            self.writer.close()
        if self.group.first:
            if not status:
                make_progress_gif(self.run)
                draw_curves(self.run)
            make_report(self.run, str(self.device))
        return status

    def _train(self, reporters: Sequence[Reporter], stop_asked: Callable[[], int]) -> int:
        if self.nimg == self.done == 0:
            self._sample(reporters)
            self._save()
        while True:
            # What is due counts from the last record: a checkpoint from in between resumes with it, too.
            last = self.nimg >= self.total
            end = last and self.since[0] < self.nimg
            sample = self._crossed(self.settings.sample_kimg) or end
            score = self.settings.score is not None and (self._crossed(self.settings.score.score_every) or end)
            # Scores take a while: a stop ends them, and the resumed run begins with this record.
            status = self._score(reporters, stop_asked) if score else 0
            if not status and (sample or score or self._crossed(self.settings.log_kimg)):
                self._tick(reporters, sample, score)
            if last and not status:
                return 0
            status = status or self.group.greatest(stop_asked())
            if status:
                self._settle()
                self._save()
                return status
            start = time.perf_counter()
            try:
                self._iterate(Progress(self.nimg, self.batch, self.total))
            except (RuntimeError, MemoryError) as error:
                if explained := self._explained(error):
                    raise explained from error
                raise
            self.nimg += self.batch
            self.seconds += time.perf_counter() - start
            for reporter in reporters:
                reporter.advance(self.nimg)

    def _crossed(self, every_kimg: float) -> bool:
        """Whether a multiple of `every_kimg` was reached since the last record."""
        every = max(1, round(every_kimg * 1000))
        return self.nimg // every > self.since[0] // every

    @property
    def finished(self) -> bool:
        """Whether the run is complete and its pictures are there."""
        made = (self.run.folder / name for name in ("progress.gif", "curves.png", "report.md"))
        return self.nimg >= self.total and all(path.exists() for path in made)

    # An iteration --------------------------------------------------------------------------------

    def _iterate(self, t: Progress) -> None:
        """Every phase once, from the first that is not done yet."""
        real, label, source = self.feed.take(t.nimg)
        degrade, config = self.run.recipe.degrade, self.run.config
        for index, phase in list(enumerate(self.phases))[self.done :]:
            if (t.nimg // t.batch) % phase.every == 0 and t.fraction >= phase.begins:
                z = self.feed.latents(self.settings.seed, index, t.nimg, self.preview.latent_dim)
                if degrade is not None:
                    with torch.no_grad():
                        source = degrade(config, real, z)
                self._step(phase, index, Batch(real, label, z, source), t)
            self.done = index + 1
        self.done = 0

    def _step(self, phase: Phase, index: int, batch: Batch, t: Progress) -> None:
        for name in self.trained:
            self.nets[name].requires_grad_(name in phase.trains)
        optimizer = self.optimizers[phase.steps_with]
        if phase.learning_rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate(t)
        if phase.reset is not None and phase.reset(self.nets, t):
            optimizer.state.clear()
        with self._whole_or_not_at_all():
            terms = self._backward(phase, index, batch, t)
            gradients = {
                name: [p.grad for p in self.nets[name].parameters() if p.grad is not None] for name in phase.trains
            }
            self.group.average([*(gradient for part in gradients.values() for gradient in part), *terms.values()])
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term
            self.counts[name] = self.counts.get(name, 0) + 1
        self._guard(phase, optimizer, gradients, torch.stack(list(terms.values())).sum())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if phase.after is not None:
            with torch.no_grad():
                phase.after(self.nets, batch, t)

    def _backward(self, phase: Phase, index: int, batch: Batch, t: Progress) -> dict[str, Tensor]:
        """Gradients of this process's part, one micro-batch after another; returns the means of its terms."""
        means: dict[str, Tensor] = {}
        for start, end in pairwise(np.linspace(0, self.part, self.pieces + 1).round().astype(int).tolist()):
            piece = _piece(batch, start, end)
            share = len(piece.z) / self.part
            randomness.seed_torch(self.settings.seed, t.nimg + start, index)
            with self._autocast():
                terms = phase.loss(self.nets, piece, t)
            (torch.stack([term.float() for term in terms.values()]).sum() * share).backward()
            for name, term in terms.items():
                part = term.detach().float() * share
                means[name] = means[name] + part if name in means else part
        return means

    @torch.no_grad()
    def _guard(self, phase: Phase, optimizer: Optimizer, gradients: dict[str, list[Tensor]], loss: Tensor) -> None:
        """No step from a loss or gradients that are not finite, nor any after it; without waiting for a GPU."""
        for name, parts in gradients.items():
            norm = torch.nn.utils.get_total_norm(parts)
            self.monitors.observe(phase.name if len(gradients) == 1 else f"{phase.name}:{name}", norm)
            if (phase.name, name) not in self.culprits:
                self.culprits.append((phase.name, name))
            number = self.culprits.index((phase.name, name))
            self.failed = torch.where((self.failed < 0) & ~(norm + loss).isfinite(), number, self.failed)
        if self.device.type == "cpu" or not getattr(optimizer, "_step_supports_amp_scaling", False):
            self._check_finite()
        else:  # a fused optimiser leaves everything as it is where this is 1
            optimizer.found_inf = (self.failed >= 0).float()  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]

    def _settle(self) -> None:
        """Wait for the device, in the time of training; raises RunError if a gradient was not finite."""
        start = time.perf_counter()
        self._check_finite()
        self.seconds += time.perf_counter() - start

    def _check_finite(self) -> None:
        """Raises RunError if a gradient was not finite."""
        number = int(self.failed)
        if number < 0:
            return
        phase, net = self.culprits[number]
        terms = {name: float(total) for name, total in self.sums.items()}
        bad = [name for name, total in terms.items() if not np.isfinite(total)]
        what = f"loss {bad[0]} is {terms[bad[0]]}" if bad else f"the gradients of {net} are not finite"
        raise RunError(
            f"training diverged in phase {phase}: {what} at {self.nimg / 1000:g} kimg; no step was made from it, and "
            f"the newest checkpoint in {self.run.checkpoints} is from before; start anew with a lower --lr"
        )

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """If another process is lost in between: buffers (batch-norm statistics, say) as they were before."""
        if self.group.world == 1:
            yield
            return
        buffers = list(self.nets.buffers())
        before = [buffer.clone() for buffer in buffers]
        try:
            yield
        except PeerLostError:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            raise

    def _explained(self, error: Exception) -> RunError | None:
        """Memory that was not there, or what a compiler says, in one line; None for any other error."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            pieces = max(1, self.micro // 2)
            return RunError(f"{self.micro} images at a time need more memory than there is; try --micro-batch {pieces}")
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return RunError(f"--compile failed, leave it out: {one_line(error)}")
        return None

    def _autocast(self) -> Any:
        if self.settings.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    # Now and then ---------------------------------------------------------------------------------

    def _score(self, reporters: Sequence[Reporter], stop_asked: Callable[[], int]) -> int:
        """Measure the scores for the next record; returns 0, or what `stop_asked` said before they were done."""
        self._settle()

        def progress(done: int, total: int, what: str) -> None:
            if status := stop_asked():
                raise StoppedError(status)
            for reporter in reporters:
                reporter.scoring(done, total, what)

        status = 0
        if self.scorer is not None:
            try:
                self.measured = self.scorer.score(self.preview, progress)
            except StoppedError as stopped:
                status = stopped.status
        return self.group.greatest(status)

    def _tick(self, reporters: Sequence[Reporter], sample: bool, score: bool = False) -> None:
        """Write a record; look at the health of the nets; with `sample` draw, with either one save, too."""
        self._settle()
        record = self._record()
        if self.group.first and (self.nimg - self.monitored >= MONITOR_IMAGES or self.nimg >= self.total):
            record |= self._look()
        if sample:
            record |= self._sample(reporters)
        distance = record.get("swd") if self.settings.score is None else None
        if score and self.measured is not None:
            record |= self.measured.record
            self.scored, distance = (self.nimg, self.measured.metadata), self.measured.distance
        if self.group.first:
            self.run.append_log(record)
        for reporter in reporters:
            reporter.record(record)
        if distance is not None and (self.best is None or distance < self.best[0]):
            self.best = (distance, self.nimg)
        late = self.group.greatest(int(time.monotonic() - self.saved > CHECKPOINT_SECONDS))
        collapsed = self.on_collapse == "stop" and any(a["kind"] == "collapse" for a in record.get("alarms", ()))
        collapsed = self.group.greatest(int(collapsed)) > 0  # the first alone has looked
        if sample or score or late or collapsed:
            self._save()
        if collapsed:
            seen = next((a["message"] for a in record.get("alarms", ())), "")
            raise RunError(f"G has collapsed at {self.nimg / 1000:g} kimg and --on-collapse is stop: {seen}")

    def _record(self) -> dict[str, Any]:
        """Time, speed, and the mean of each loss term since the last record."""
        nimg, seconds = self.since
        values = torch.stack(list(self.sums.values())).tolist() if self.sums else []  # one transfer for all
        record: dict[str, Any] = {"nimg": self.nimg, "kimg": self.nimg / 1000}
        record["losses"] = {
            name: round(value / self.counts[name], 5) for name, value in zip(self.sums, values, strict=True)
        }
        record["seconds"] = round(self.seconds, 2)
        record["images_per_second"] = round((self.nimg - nimg) / max(self.seconds - seconds, 1e-9), 1)
        memory = peak_memory_mb(self.device)
        if memory is not None:
            record["memory_mb"] = memory
        self.sums, self.counts, self.since = {}, {}, (self.nimg, self.seconds)
        return record

    def _look(self) -> dict[str, Any]:
        """What the monitors see."""
        self.monitored = self.nimg
        health = self.monitors.check(self.nimg, *self.preview.fakes(min(MONITORED, self.preview.affordable)))
        alarms = [{"kind": alarm.kind, "message": alarm.message} for alarm in self.monitors.alarms]
        return {"health": health} | ({"alarms": alarms} if alarms else {})

    def _ask(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits, without dropout and the like."""
        assert self.run.recipe.logits is not None
        self.nets.eval()
        try:
            with self._autocast():
                return self.run.recipe.logits(self.nets, images, labels)
        finally:
            self.nets.train()

    def _sample(self, reporters: Sequence[Reporter]) -> dict[str, float]:
        if not self.group.first:
            return {}
        grid, measured = self.preview.sample(self.nimg)
        for reporter in reporters:
            reporter.sample(self.nimg, grid)
        return measured

    def _save(self) -> None:
        self.group.check_same(self.nets)
        self._write()

    def _write(self) -> None:
        self.saved = time.monotonic()
        if not self.group.first:
            return
        self.run.flush_log()
        state = {
            "nets": self.nets.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "done": self.done,
            "seconds": self.seconds,
            "sums": self.sums,
            "counts": self.counts,
            "since": self.since,
            "best": self.best,
            "scored": self.scored,
            "monitors": self.monitors.state(),
            "monitored": self.monitored,
        }
        self.writer.save(self.nimg, state, best=self.best is not None and self.best[1] == self.nimg)

    def _restore(self, state: dict[str, Any]) -> None:
        self.run.load_nets(self.nets, state)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.nimg, self.done, self.seconds = state["nimg"], state["done"], state["seconds"]
        self.sums, self.counts, self.since = state["sums"], state["counts"], state["since"]
        self.best, self.monitored = state["best"], state["monitored"]
        self.scored = state.get("scored")  # none in a checkpoint from before there were scores
        self.monitors.restore(state["monitors"])
        if self.group.greatest(self.nimg) != self.nimg:
            raise RunError(
                f"another process found a newer checkpoint in {self.run.checkpoints}; do all see one folder?"
            )
        if self.group.first:
            self.run.rewind_log(self.nimg)
            if self.best is not None and self.best[1] == self.nimg:  # the one before may have died just before this
                make_best(self.run.checkpoints / f"{self.nimg:012d}.pt")


def _piece(batch: Batch, start: int, end: int) -> Batch:
    """Elements start .. end - 1."""
    part = slice(start, end)
    label, source = (None if x is None else x[part] for x in (batch.label, batch.source))
    return Batch(batch.real[part], label, batch.z[part], source)
