"""The health of a training: has G collapsed, does D win or learn by heart, do the gradients vanish or explode?

One look costs a forward pass of D over three small fixed batches. An alarm is raised when its sign was seen at every
look for a while, counted in optimiser steps: a healthy start shows the same signs, and how long it takes is a matter of
steps, not of images. docs/training-health.md has the measurements behind every threshold.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pictures = tuple[Tensor, Tensor | None]  # float32 [m, C, H, W] in [-1, 1]; labels int64 [m] if there are classes

MAX_SIDE = 32  # larger pictures are averaged down to about this: diversity is of layout and tone, not of grain
CHUNK = 64  # pictures that D sees at once
LOOKS = 3  # a sign must be seen at so many looks in a row

LOW_DIVERSITY = 0.3  # collapse: below this share of the real pictures' diversity
NO_DIVERSITY = 0.01  # collapse: below this no healthy start stays
GROWN = 0.5  # above it G has got over its start
SURE_ACCURACY = 0.995  # overpowered: D puts more of the real/fake pairs than this in the right order
MEMORISED = 0.5  # overfitting: the gap between training and held-out pictures above this
TINY_NORM = 1e-6  # vanishing: below this, or below the following share of the usual norm
FADED = 1e-3
HUGE_NORM = 1e4  # exploding: above this
HISTORY = 200  # looks that "usual" is the median of

SOON = 200  # steps that a sign must last; three times as many as the longest of a healthy run where that shows it:
PATIENCE_DIVERSITY = 1500
PATIENCE_ACCURACY = 750


@dataclass(frozen=True)
class Alarm:
    """Something is wrong with the training."""

    kind: str  # "collapse", "overpowered", "overfitting", "vanishing" or "exploding"
    message: str  # one line: what was seen, with numbers, and what to try


@dataclass(frozen=True)
class _Sign:
    """What one look says of one alarm."""

    name: str
    kind: str
    text: str
    seen: bool
    patience: int  # steps


class Monitors:
    """Looks at G and D now and then. The same looks give the same alarms, also with a resume in between."""

    def __init__(
        self,
        logits: Callable[[Tensor, Tensor | None], Tensor] | None,
        real: Pictures,
        held_out: Pictures | None = None,
    ) -> None:
        """logits(images, labels) -> [n], greater for what looks real to D, which must be in eval mode; None: no D.

        real: some 64 fixed training pictures, on the training's device; held_out: pictures that are never trained on.
        """
        self.logits, self.real = logits, real
        self.held_out = held_out if held_out and len(held_out[0]) else None
        self.alarms: list[Alarm] = []  # raised by the last look; they stay while their sign does
        self._sums: dict[str, Tensor] = {}  # of each phase's norms since the last look, on the device
        self._counts: dict[str, int] = {}
        self._steps: dict[str, int] = {}  # of each phase, since the start
        self._history: dict[str, list[float]] = {}  # of each phase's mean norms that were neither tiny nor huge
        self._norms: dict[str, float] = {}  # the last mean norms
        self._since: dict[str, list[int]] = {}  # of each sign that is seen: [looks, step and nimg of the first]
        self._grown = False
        m, n = len(real[0]), len(self.held_out[0]) if self.held_out else 1
        self._chance = math.sqrt((m + n + 1) / (3 * m * n))  # standard deviation of the gap by chance (Mann, Whitney)

    @torch.no_grad()
    def observe(self, phase: str, norm: Tensor) -> None:
        """A phase's gradients have this global L2 norm, a scalar on the device. Does not wait for the device."""
        total = self._sums.get(phase)
        self._sums[phase] = norm.float().clone() if total is None else total + norm
        self._counts[phase] = self._counts.get(phase, 0) + 1
        self._steps[phase] = self._steps.get(phase, 0) + 1

    def check(self, nimg: int, fakes: Tensor, fake_labels: Tensor | None) -> dict[str, float]:
        """Look at G's pictures of a fixed seed, [m, C, H, W] in [-1, 1], after `nimg` images; sets `alarms`.

        Returns what was measured. diversity: the mean distance of a fake to the nearest other fake over that of as many
        real pictures; 1 is as diverse as the data, 0 one picture only. accuracy: the share of all pairs of a real
        picture and a fake that D puts in the right order (the area under its ROC curve); 0.5 is guessing.
        held_out_gap: the same of training and held-out pictures, scaled so that 0 is "no difference" and 1 "D knows
        every training picture". gradient_PHASE: the phase's mean gradient norm since the last look. A number that is
        not finite, or has nothing to be measured on, is left out.
        """
        measured = self._measure(fakes, fake_labels)
        self._sums, self._counts = {}, {}
        self._norms |= {k.removeprefix("gradient_"): v for k, v in measured.items() if k.startswith("gradient_")}
        self._grown |= self._lasts("grown", measured.get("diversity", 0.0) >= GROWN, SOON, nimg)
        self.alarms = self._judge([*self._signs(measured), *self._signs_of_norms()], nimg)
        shown = {name: round(value, 4) for name, value in measured.items() if not name.startswith(("gradient", "_"))}
        norms = {name: float(f"{value:.4g}") for name, value in measured.items() if name.startswith("gradient")}
        return shown | norms

    @torch.no_grad()
    def _measure(self, fakes: Tensor, fake_labels: Tensor | None) -> dict[str, float]:
        """All numbers in one transfer from the device; those with _ are not for the log."""
        images, labels = self.real
        found: dict[str, Tensor] = {f"gradient_{name}": v / self._counts[name] for name, v in self._sums.items()}
        n = min(len(images), len(fakes))
        if n > 1:
            found["diversity"] = _spread(fakes[:n]) / _spread(images[:n])
        if self.logits is not None:
            real, fake = self._ask(images, labels), self._ask(fakes, fake_labels)
            found["accuracy"] = _in_order(real, fake)
            found["_margin"] = real.mean() - fake.mean()
            if self.held_out is not None:
                held = self._ask(*self.held_out)
                found["held_out_gap"] = 2 * _in_order(real, held) - 1
                found["_held_out_margin"] = real.mean() - held.mean()
        if not found:
            return {}
        values = torch.stack([value.float() for value in found.values()]).tolist()
        return {name: value for name, value in zip(found, values, strict=True) if math.isfinite(value)}

    def _ask(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """D's logits [n]."""
        assert self.logits is not None
        parts = [slice(i, i + CHUNK) for i in range(0, len(images), CHUNK)]
        return torch.cat([self.logits(images[p], None if labels is None else labels[p]).float() for p in parts])

    def _signs(self, measured: dict[str, float]) -> list[_Sign]:
        """What the pictures and D's logits say."""
        signs = []
        if "diversity" in measured:
            diversity = measured["diversity"]
            text = (
                f"G draws nearly the same picture again and again: diversity {diversity:.2f} of the real pictures' "
                f"(healthy: above {LOW_DIVERSITY}); start anew with a lower learning rate of G, a larger batch, or "
                "stronger gradient penalties on D"
            )
            signs.append(_Sign("no diversity", "collapse", text, diversity < NO_DIVERSITY, SOON))
            patience = SOON if self._grown else PATIENCE_DIVERSITY
            signs.append(_Sign("low diversity", "collapse", text, diversity < LOW_DIVERSITY, patience))
        if "accuracy" in measured:
            accuracy, margin = measured["accuracy"], measured.get("_margin", 0.0)
            text = (
                f"D tells real from fake in {accuracy:.1%} of all pairs (logits {margin:.3g} apart), so that G learns "
                "little; start anew with a lower learning rate of D, a higher one of G, or stronger gradient penalties"
            )
            signs.append(_Sign("overpowered", "overpowered", text, accuracy > SURE_ACCURACY, PATIENCE_ACCURACY))
        if "held_out_gap" in measured:
            gap, halfway = measured["held_out_gap"], measured.get("_margin", math.inf) / 2
            like_fakes = measured.get("_held_out_margin", 0.0) > halfway  # nearer to the fakes than to the real ones
            needed = max(MEMORISED, 4 * self._chance)
            text = (
                f"D has learnt the training pictures by heart: gap {gap:.2f} to held-out ones (0: none, 1: it knows "
                "every one), which it takes for fakes; stop here, or train on more pictures, mirror them, augment them"
            )
            signs.append(_Sign("overfitting", "overfitting", text, gap > needed and like_fakes, SOON))
        return signs

    def _signs_of_norms(self) -> list[_Sign]:
        """What the gradients say, each phase by itself."""
        signs = []
        for phase, norm in self._norms.items():
            history = self._history.setdefault(phase, [])
            usual = median(history) if history else 0.0
            faded = norm < max(TINY_NORM, FADED * usual)
            if not faded and norm <= HUGE_NORM:
                self._history[phase] = [*history, norm][-HISTORY:]
            before = f", usually {usual:.2g}" if history else ""
            text = (
                f"the gradients of phase {phase} have vanished: norm {norm:.2g}{before}; its nets no longer learn; "
                "start anew with a lower learning rate of its opponent; look for a saturated loss or a weight near 0"
            )
            signs.append(_Sign(f"vanishing {phase}", "vanishing", text, faded, SOON))
            text = (
                f"the gradients of phase {phase} explode: norm {norm:.2g}{before} (healthy: below {HUGE_NORM:g}); "
                "start anew with lower learning rates"
            )
            signs.append(_Sign(f"exploding {phase}", "exploding", text, norm > HUGE_NORM, SOON))
        return signs

    def _lasts(self, name: str, seen: bool, patience: int, nimg: int) -> bool:
        """Whether a sign has been seen at several looks in a row and for so many steps."""
        if not seen:
            self._since.pop(name, None)
            return False
        steps = max(self._steps.values(), default=0)
        since = self._since.setdefault(name, [0, steps, nimg])
        since[0] += 1
        return since[0] >= LOOKS and steps - since[1] >= patience

    def _judge(self, signs: Iterable[_Sign], nimg: int) -> list[Alarm]:
        """The alarms whose sign has lasted, one of a kind."""
        raised: dict[str, Alarm] = {}
        for sign in signs:
            if self._lasts(sign.name, sign.seen, sign.patience, nimg):
                began = f"since {self._since[sign.name][2] / 1000:.1f} kimg "
                raised.setdefault(sign.kind, Alarm(sign.kind, began + sign.text))
        return list(raised.values())

    def state(self) -> dict[str, Any]:
        """Everything that must survive a resume, as plain values. Waits for the device."""
        return {
            "sums": {phase: float(total) for phase, total in self._sums.items()},
            "counts": dict(self._counts),
            "steps": dict(self._steps),
            "history": {phase: list(norms) for phase, norms in self._history.items()},
            "norms": dict(self._norms),
            "since": {name: list(since) for name, since in self._since.items()},
            "grown": self._grown,
            "alarms": [[alarm.kind, alarm.message] for alarm in self.alarms],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        device = self.real[0].device
        self._sums = {phase: torch.tensor(total, device=device) for phase, total in state["sums"].items()}
        self._counts, self._steps, self._norms = (dict(state[name]) for name in ("counts", "steps", "norms"))
        self._history = {phase: list(norms) for phase, norms in state["history"].items()}
        self._since = {name: list(since) for name, since in state["since"].items()}
        self._grown = state["grown"]
        self.alarms = [Alarm(kind, message) for kind, message in state["alarms"]]


def _spread(images: Tensor) -> Tensor:
    """The mean distance of each picture of [n, C, H, W] to the nearest other one."""
    block = max(1, -(-max(images.shape[2:]) // MAX_SIDE))
    small = F.avg_pool2d(images.float(), block, ceil_mode=True) if block > 1 else images.float()
    # Not by matrix products: these do not see how far apart near-duplicates are.
    distances = torch.cdist(small.flatten(1), small.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(torch.inf).min(dim=1).values.mean()


def _in_order(a: Tensor, b: Tensor) -> Tensor:
    """The share of all pairs in which the one of a, [n], is greater than the one of b, [m]; a tie counts half.

    It is the area under the ROC curve, and Mann and Whitney's U (1947) over n m; not a number if an element is not.
    """
    difference = a[:, None] - b[None]
    return ((difference > 0).float() + (difference == 0).float() / 2).mean() + 0 * difference.sum()
