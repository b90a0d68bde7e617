"""The health of a training: known numbers, alarms with patience, resumes, and real trainings that fail on purpose."""

import io
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edgegan.trainer import recipes
from edgegan.trainer.monitors import LOOKS, PATIENCE_ACCURACY, PATIENCE_DIVERSITY, SOON, Monitors
from edgegan.trainer.recipe import Batch, DataShape, Progress

STEPS = 100  # between two looks of these tests


def noise(n: int, seed: int = 0, shape: tuple[int, ...] = (1, 8, 8)) -> Tensor:
    """[n, C, H, W], uniform in [-1, 1]."""
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def brightness(images: Tensor, labels: Tensor | None) -> Tensor:
    """A D that finds bright pictures real."""
    return images.mean(dim=(1, 2, 3))


REAL, HELD, FAKE = noise(64, 1), noise(64, 2), noise(64, 3)


class Watched:
    """Monitors that see `STEPS` steps of two phases between two looks."""

    def __init__(self, held_out: Tensor | None = None, real: Tensor = REAL, logits: Any = brightness) -> None:
        self.monitors = Monitors(logits, (real, None), None if held_out is None else (held_out, None))
        self.steps = 0

    def look(self, fakes: Tensor = FAKE, times: int = 1, d: float = 1.0, g: float = 1.0) -> list[str]:
        """The kinds of alarms after so many looks."""
        for _ in range(times):
            for _ in range(STEPS):
                self.monitors.observe("D", torch.tensor(d))
                self.monitors.observe("G", torch.tensor(g))
            self.steps += STEPS
            self.numbers = self.monitors.check(self.steps * 16, fakes, None)
        return [alarm.kind for alarm in self.monitors.alarms]

    def looks_until(self, kind: str, limit: int = 40, **how: Any) -> int:
        """How many looks it takes to raise `kind`, and nothing else."""
        for count in range(1, limit):
            kinds = self.look(**how)
            if kinds:
                assert kinds == [kind]
                assert len(self.monitors.alarms[0].message.splitlines()) == 1
                return count
        raise AssertionError(f"no alarm {kind} in {limit} looks")


# Numbers -----------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_scipy() -> None:
    watched = Watched(held_out=HELD * 0.5 - 0.1)
    fakes = FAKE * 0.7 + 0.02
    watched.look(fakes, d=3.0, g=0.25)
    logits = [brightness(x, None).numpy() for x in (REAL, fakes, HELD * 0.5 - 0.1)]
    area = mannwhitneyu(logits[0], logits[1]).statistic / 64**2
    gap = 2 * mannwhitneyu(logits[0], logits[2]).statistic / 64**2 - 1

    def nearest(x: Tensor) -> float:
        distances = cdist(x.flatten(1).numpy(), x.flatten(1).numpy())
        return float((distances + np.diag([np.inf] * 64)).min(axis=1).mean())

    expected = {"diversity": nearest(fakes) / nearest(REAL), "accuracy": area, "held_out_gap": gap}
    expected |= {"gradient_D": 3.0, "gradient_G": 0.25}
    assert watched.numbers == pytest.approx(expected, abs=1e-4)


def test_ties_count_half() -> None:
    watched = Watched(held_out=HELD, logits=lambda images, labels: torch.zeros(len(images)))
    watched.look()
    assert (watched.numbers["accuracy"], watched.numbers["held_out_gap"]) == (0.5, 0.0)


def test_the_gradient_is_the_mean_since_the_last_look() -> None:
    watched = Watched()
    for norm in (1.0, 2.0, 6.0):
        watched.monitors.observe("D", torch.tensor(norm))
    assert watched.monitors.check(48, FAKE, None)["gradient_D"] == 3.0
    watched.monitors.observe("D", torch.tensor(5.0))
    assert watched.monitors.check(64, FAKE, None)["gradient_D"] == 5.0
    assert "gradient_D" not in watched.monitors.check(80, FAKE, None)


@pytest.mark.parametrize(("n_real", "n_fake"), [(64, 64), (50, 64), (64, 20)])
def test_diversity_compares_as_many_pictures(n_real: int, n_fake: int) -> None:
    watched = Watched(real=noise(n_real, 1, (3, 16, 16)))
    watched.look(noise(n_fake, 4, (3, 16, 16)))
    assert watched.numbers["diversity"] == pytest.approx(1, abs=0.05)


def test_diversity_of_large_pictures_is_not_of_grain() -> None:
    layout = torch.nn.functional.interpolate(noise(8, 1, (1, 4, 4)), size=128)
    same = layout[:1].repeat(8, 1, 1, 1) + 0.3 * noise(8, 2, (1, 128, 128))
    watched = Watched(real=layout)
    watched.look(same)
    assert watched.numbers["diversity"] < 0.15


def test_labels_go_to_the_discriminator_in_pieces_and_in_order() -> None:
    labels = torch.arange(150) % 7
    seen: list[Tensor] = []

    def logits(images: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        assert not torch.is_grad_enabled()
        assert len(images) == len(labels) <= 64
        seen.append(labels)
        return labels.float()

    watched = Monitors(logits, (REAL, labels[:64]), (noise(150), labels))
    numbers = watched.check(0, FAKE, labels[:64])
    assert numbers["accuracy"] == 0.5
    assert torch.equal(torch.cat(seen[2:]), labels)


@pytest.mark.parametrize("break_it", ["no D", "one picture", "real all alike", "logits not finite", "norm not finite"])
def test_what_cannot_be_measured_is_left_out(break_it: str) -> None:
    logits = {"no D": None, "logits not finite": lambda x, labels: brightness(x, None) * torch.nan}
    real = {"one picture": REAL[:1], "real all alike": torch.zeros(64, 1, 8, 8)}.get(break_it, REAL)
    watched = Watched(HELD, real, logits.get(break_it, brightness))
    watched.look(times=30, g=float("inf") if break_it == "norm not finite" else 1.0)
    missing = {
        "no D": {"accuracy", "held_out_gap"},
        "logits not finite": {"accuracy", "held_out_gap"},
        "norm not finite": {"gradient_G"},
    }.get(break_it, {"diversity"})
    every = {"diversity", "accuracy", "held_out_gap", "gradient_D", "gradient_G"}
    assert set(watched.numbers) == every - missing
    json.dumps(watched.numbers, allow_nan=False)
    assert watched.monitors.alarms == []


# Alarms ------------------------------------------------------------------------------------------

ALIKE = FAKE[:1].repeat(64, 1, 1, 1)
SIMILAR = FAKE[:1] + 0.2 * (FAKE - FAKE[:1])  # a fifth of the diversity
DARK = FAKE * 0.9 - 0.9  # worse than every real picture in the eyes of `brightness`


def test_a_healthy_training_is_silent() -> None:
    watched = Watched(HELD)
    for seed in range(60):
        assert watched.look(noise(64, 10 + seed), d=1 + seed % 7, g=3 / (1 + seed % 5)) == []


def test_one_picture_is_a_collapse_soon() -> None:
    assert Watched().looks_until("collapse", fakes=ALIKE) == 1 + SOON // STEPS == LOOKS


def test_low_diversity_is_a_collapse_late_at_the_start_and_soon_after_it() -> None:
    watched = Watched()
    assert watched.looks_until("collapse", fakes=SIMILAR) == 1 + PATIENCE_DIVERSITY // STEPS
    assert watched.monitors.alarms[0].message.startswith("since 1.6 kimg G ")  # the first look, 100 steps of 16 images
    assert watched.look(FAKE) == []  # over, but one look is not enough to believe that G can draw
    assert watched.looks_until("collapse", fakes=SIMILAR) == 1 + PATIENCE_DIVERSITY // STEPS
    assert watched.look(FAKE, times=LOOKS) == []
    assert watched.looks_until("collapse", fakes=SIMILAR) == 1 + SOON // STEPS
    assert watched.look(SIMILAR, times=5) == ["collapse"]  # stays while it lasts


def test_a_sign_must_be_seen_in_a_row() -> None:
    watched = Watched()
    for _ in range(20):
        assert watched.look(ALIKE, times=LOOKS - 1) == []
        assert watched.look(FAKE) == []


def test_a_discriminator_that_is_never_fooled_is_overpowered_late() -> None:
    assert Watched().looks_until("overpowered", fakes=DARK) == 1 + math.ceil(PATIENCE_ACCURACY / STEPS)


@pytest.mark.parametrize("phase", ["d", "g"])
def test_norms_that_vanish(phase: str) -> None:
    assert Watched().looks_until("vanishing", **{phase: 1e-12}) == 1 + SOON // STEPS
    watched = Watched()
    watched.look(times=5, **{phase: 200.0})
    assert watched.looks_until("vanishing", **{phase: 0.1}) == 1 + SOON // STEPS
    assert f"phase {phase.upper()}" in watched.monitors.alarms[0].message
    assert watched.look(times=20, **{phase: 0.1}) == ["vanishing"]  # does not become the usual norm
    assert watched.look(**{phase: 1.0}) == []


def test_norms_that_explode_and_calm_down() -> None:
    watched = Watched()
    assert watched.looks_until("exploding", g=1e7) == 1 + SOON // STEPS
    assert watched.look(times=10) == []  # 1 is not little because 1e7 was there


def test_alarms_of_two_kinds_at_once_and_one_of_a_kind() -> None:
    assert Watched().look(ALIKE, times=LOOKS, d=1e-12, g=1e-12) == ["collapse", "vanishing"]


def test_a_discriminator_that_knows_the_training_pictures() -> None:
    def by_heart(images: Tensor, labels: Tensor | None) -> Tensor:
        known = (images.flatten(1)[:, None] == REAL.flatten(1)[None]).all(2).any(1)
        return known.float() * 9 + brightness(images, None)

    watched = Watched(HELD, logits=by_heart)
    kinds = [watched.look() for _ in range(LOOKS)]
    assert kinds == [[]] * (LOOKS - 1) + [["overfitting"]]
    assert watched.numbers["held_out_gap"] == 1
    few = Watched(HELD[:3], logits=by_heart)  # chance would make as large a gap now and then
    assert few.look(times=5) == []


def test_held_out_pictures_that_still_look_real_are_no_overfitting() -> None:
    def judge(images: Tensor, labels: Tensor | None) -> Tensor:
        return images[:, 0, 0, 0]

    real, held, fakes = REAL.clone(), HELD.clone(), FAKE.clone()
    for images, value in ((real, 1.0), (held, 0.8), (fakes, -1.0)):
        images[:, 0, 0, 0] = value + torch.linspace(-0.05, 0.05, 64)
    watched = Watched(held, real, judge)
    assert "overfitting" not in watched.look(fakes, times=30)
    assert watched.numbers["held_out_gap"] == 1


# Resumes and cost --------------------------------------------------------------------------------


def test_a_resume_at_any_step_changes_nothing() -> None:
    def make() -> Monitors:
        return Monitors(brightness, (REAL, None), (HELD, None))

    whole, parts = make(), make()
    rng = np.random.default_rng(0)
    kinds: set[str] = set()
    for step in range(6000):
        norm = torch.tensor(float(rng.lognormal()) * (1e-9 if step > 5500 else 1))
        for watched in (whole, parts):
            watched.observe("D", norm)
        if step % 40 == 0:
            fakes = [FAKE, ALIKE, SIMILAR, DARK, DARK, DARK][step // 1000]
            assert whole.check(step * 16, fakes, None) == parts.check(step * 16, fakes, None)
            assert whole.alarms == parts.alarms
            kinds |= {alarm.kind for alarm in whole.alarms}
        if rng.random() < 0.02:
            file = io.BytesIO()
            torch.save(parts.state(), file)
            file.seek(0)
            parts = make()
            parts.restore(torch.load(file, weights_only=True))
            assert parts.alarms == whole.alarms
    assert kinds == {"collapse", "overpowered", "vanishing"}


def test_a_state_is_plain_values_and_a_copy() -> None:
    watched = Watched()
    watched.look(ALIKE, times=4)
    before = watched.monitors.state()
    text = json.dumps(before)
    watched.look(times=4)
    assert json.dumps(before) == text
    assert before["alarms"][0][0] == "collapse"


def test_observe_does_not_wait_for_the_device() -> None:
    class NoTransfer(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert "_local_scalar_dense" not in str(func)
            return func(*args, **(kwargs or {}))

    watched, norm = Monitors(None, (REAL, None)), torch.tensor(2.0)
    with NoTransfer():
        for _ in range(3):
            watched.observe("D", norm)
    norm.zero_()  # what was observed is a number, not the tensor
    assert watched.check(0, FAKE, None)["gradient_D"] == 2.0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_observe_does_not_wait_and_check_agrees_with_the_cpu() -> None:
    numbers = []
    for device in ("cpu", "cuda"):
        watched = Monitors(brightness, (REAL.to(device), None), (HELD.to(device), None))
        norm, fakes = torch.tensor(2.0, device=device), FAKE.to(device)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            watched.observe("D", norm)
            watched.observe("D", norm)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        numbers.append(watched.check(0, fakes, None))
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


# Real trainings ----------------------------------------------------------------------------------


def spots(n: int, seed: int) -> Tensor:
    """[n, 1, 8, 8]: a bright spot each, anywhere and of any size."""
    random = torch.Generator().manual_seed(seed)
    centre, width = (
        torch.rand((n, 2, 1, 1), generator=random) * 6 + 0.5,
        torch.rand((n, 1, 1), generator=random) * 2 + 1,
    )
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    distance = (y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2
    return 2 * torch.exp(-distance / width**2)[:, None] - 1


def alarms_of(
    steps: int,
    *,
    pictures: int = 4000,
    rates: dict[str, float] | None = None,
    weight: float = 1.0,
    use_z: bool = True,
    **hyper: Any,
) -> set[str]:
    """The kinds of alarms of a training of recipe `edge`, learning rates times `rates` and losses times `weight`."""
    recipe = recipes.load("edge")
    shape = DataShape(8, 8, 1)
    config = recipe.complete(recipe.Config(width=0.1, **hyper), shape)
    real, held_out, n = spots(pictures, 1), spots(256, 2), config.batch
    torch.manual_seed(0)
    nets, phases = recipe.build(config, shape), recipe.phases(config)
    optimizers = {
        phase.name: phase.optimizer([p for name in phase.trains for p in nets[name].parameters()]) for phase in phases
    }
    watched = Monitors(lambda images, labels: nets["D"](images), (real[:64], None), (held_out, None))
    preview = torch.randn(64, config.latent_dim) * use_z
    kinds: set[str] = set()
    for step in range(1, steps + 1):
        t = Progress(step * n, n, 10**6)
        for phase in phases:
            for name, net in nets.items():
                net.requires_grad_(name in phase.trains)
            optimizer = optimizers[phase.name]
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate(t) * (rates or {}).get(phase.name, 1.0)
            batch = Batch(real[torch.randint(pictures, (n,))], None, torch.randn(n, config.latent_dim) * use_z)
            (sum(phase.loss(nets, batch, t).values()) * weight).backward()
            gradients = [p.grad for name in phase.trains for p in nets[name].parameters()]
            watched.observe(phase.name, torch.nn.utils.get_total_norm(gradients))
            optimizer.step()
            optimizer.zero_grad()
            if phase.after is not None:
                with torch.no_grad():
                    phase.after(nets, batch, t)
        if step % 50 == 0:
            with torch.no_grad():
                fakes = recipe.export_module(nets)(preview)
            watched.check(t.nimg, fakes, None)
            kinds |= {alarm.kind for alarm in watched.alarms}
    return kinds


def test_a_real_training_that_is_healthy_is_silent() -> None:
    assert alarms_of(400) == set()


def test_a_real_generator_that_ignores_z_collapses() -> None:
    assert alarms_of(300, use_z=False) == {"collapse"}


@pytest.mark.slow
def test_a_real_loss_that_weighs_nothing_vanishes() -> None:
    assert alarms_of(300, weight=1e-12) == {"vanishing"}


@pytest.mark.slow
def test_a_real_learning_rate_that_is_far_too_high_explodes() -> None:
    assert alarms_of(300, rates={"D": 1000.0, "G": 1000.0}) == {"exploding"}


@pytest.mark.slow
def test_a_real_discriminator_learns_16_pictures_by_heart() -> None:
    assert alarms_of(1000, pictures=16, gamma=0.2) == {"overfitting"}


@pytest.mark.slow
def test_a_real_generator_that_hardly_moves_is_overpowered() -> None:
    assert alarms_of(PATIENCE_ACCURACY + 100, rates={"G": 0.001}) == {"overpowered"}
