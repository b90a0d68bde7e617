"""The loop's own powers: pieces of a batch, guards, monitors that stop a run, compiling, looking before training."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgegan.errors import RunError
from edgegan.trainer import checkpoint, recipes
from edgegan.trainer.data import Dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, Progress
from edgegan.trainer.run import Run
from support import BIN, TINY, always, command, equal, make_run, result_of, sets_of, train


def test_pieces_of_a_batch_add_up_to_it(dataset: Dataset, tmp_path: Path) -> None:
    """Without batch norm and dropout the gradients of pieces are those of the whole, to rounding."""
    runs = [make_run(tmp_path / f"{size}", dataset, "edge", micro_batch=size) for size in (0, 16, 5)]
    for run in runs:
        train(run, dataset)
    (state, log), (same, same_log), (pieces, pieces_log) = map(result_of, runs)
    assert equal((state["nets"], log), (same["nets"], same_log))
    for record, other in zip(log, pieces_log, strict=True):
        assert record["losses"] == pytest.approx(other["losses"], rel=1e-3)
    assert not equal(state["nets"], pieces["nets"])  # it did take another way


@pytest.mark.parametrize("recipe", always("dcgan", "edge"))
def test_pieces_of_a_batch_resume_exactly(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    whole, parts = (make_run(tmp_path / name, dataset, recipe, micro_batch=6, mirror=True) for name in ("a", "b"))
    train(whole, dataset)
    assert not train(parts, dataset, 32)
    assert train(Run.open(parts.folder), dataset)
    assert equal(result_of(whole), result_of(parts))


@pytest.mark.parametrize(("phase", "net"), [(0, "D"), (1, "G")])
def test_no_step_is_made_from_gradients_that_are_not_finite(
    phase: int, net: str, dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(make_run(tmp_path / "run", dataset, "edge"), dataset, "cpu")
    honest = trainer.phases[phase]

    def poisoned(nets: torch.nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, torch.Tensor]:
        terms = honest.loss(nets, batch, t)
        return {name: term * (float("nan") if t.nimg == 32 else 1) for name, term in terms.items()}

    phases = list(trainer.phases)
    phases[phase] = type(honest)(**{**vars(honest), "loss": poisoned})
    trainer.phases = tuple(phases)
    with pytest.raises(RunError) as caught:
        trainer.train([])
    assert f"diverged in phase {honest.name}: loss {net} is nan at 0.032 kimg" in str(caught.value)
    assert all(value.isfinite().all() for value in trainer.nets.state_dict().values())
    state = trainer.run.newest_checkpoint()
    assert state is not None
    assert state["nimg"] == 32
    assert all(value.isfinite().all() for value in state["nets"].values())


@pytest.mark.slow
def test_a_collapsed_generator_stops_the_run_if_you_say_so(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", dataset, "edge", config=TINY | {"kimg": 40.0, "width": 0.1, "batch": 16}, log_kimg=2.1
    )
    trainer = Trainer(run, dataset, "cpu", on_collapse="stop")
    real_fakes = trainer.preview.fakes

    def one_picture(n: int, start: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
        images, labels = real_fakes(n, start)
        return images[:1].expand_as(images), labels

    trainer.preview.fakes = one_picture  # type: ignore[method-assign]
    with pytest.raises(RunError, match=r"G has collapsed at .* kimg and --on-collapse is stop: "):
        trainer.train([])
    record = run.read_log()[-1]
    assert [alarm["kind"] for alarm in record["alarms"]] == ["collapse"]
    assert record["health"]["diversity"] < 0.01
    state = run.newest_checkpoint()
    assert state is not None
    assert state["nimg"] == record["nimg"] < 40_000
    going_on = Trainer(Run.open(run.folder), dataset, "cpu", on_collapse="continue")
    assert going_on.monitors.alarms == [] or going_on.monitors.alarms[0].kind == "collapse"
    assert equal(going_on.monitors.state(), state["monitors"])


def test_held_out_pictures_are_watched_and_never_shown(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", holdout=8)
    trainer = Trainer(run, dataset, "cpu")
    shown = np.concatenate([trainer.feed.data.loader.plan(nimg)[0] for nimg in range(0, 160, 16)])
    assert len(set(shown.tolist())) == 32
    trainer.train([])
    assert "held_out_gap" in run.read_log()[-1]["health"]


def test_more_held_out_than_there_are_is_refused(pictures: Path, tmp_path: Path) -> None:
    failed = command("edgegan-train", "dcgan", "--data", pictures, "--out", tmp_path / "run", "--holdout", 39)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "holdout is 39; valid: 0 to 38" in failed.stderr


def test_a_dry_run_shows_and_writes_nothing(pictures: Path, tmp_path: Path) -> None:
    shown = command("edgegan-train", "dcgan", "--data", pictures, "--dry-run", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    # The tutorial's nets: 2,305,472 and 212,865 parameters, as Keras counts those that are trained.
    assert "2,305,472" in shown.stdout
    assert "212,865" in shown.stdout
    assert "To draw one picture with the exported model: 51.74 MMACs" in shown.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.npz"]


@pytest.mark.parametrize("recipe", recipes.names())
def test_activations_of_a_dry_run_are_those_that_training_keeps(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    """Against a count on the real device, with the tensors' own storages."""
    from edgegan.trainer.dryrun import META, cost_of

    run = make_run(tmp_path / "run", dataset, recipe)
    with torch.device(META):
        nets = run.build()
    trainer = Trainer(run, sets_of(run, dataset), "cpu")
    real, label, source = trainer.feed.take(0)
    z = torch.randn(16, trainer.preview.latent_dim)
    if run.recipe.degrade is not None:
        source = run.recipe.degrade(run.config, real, z)
    for phase in trainer.phases:
        kept: dict[int, int] = {}
        parameters = {p.data_ptr() for p in trainer.nets.parameters()}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept, parameters: set[int] = parameters) -> torch.Tensor:
            if tensor.data_ptr() not in parameters:
                kept[tensor.data_ptr()] = max(kept.get(tensor.data_ptr(), 0), tensor.nbytes)
            return tensor

        for name in trainer.trained:
            trainer.nets[name].requires_grad_(name in phase.trains)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = phase.loss(trainer.nets, Batch(real, label, z, source), Progress(48, 16, 64))
        expected = sum(kept.values())
        assert cost_of(run, nets, phase, 16).activations == pytest.approx(expected, rel=0.25), phase.name
        del terms


def test_the_list_describes_every_recipe() -> None:
    shown = command("edgegan-train", "--list")
    assert shown.returncode == 0
    for name in recipes.names():
        assert f"{name}: {recipes.describe(name).summary}." in shown.stdout
        assert "Paper" in recipes.describe(name).paper


def test_a_compiled_net_draws_and_learns_the_same(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    """With torch's backend that compiles without a C++ compiler; the real one is the same call."""
    compiled: list[str] = []
    real = torch.nn.Module.compile

    def compile_eagerly(self: torch.nn.Module, **_: Any) -> None:
        compiled.append(type(self).__name__)
        real(self, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    runs = [make_run(tmp_path / name, dataset, "edge") for name in ("plain", "compiled")]
    train(runs[0], dataset)
    train(runs[1], dataset, compiled=True)
    assert compiled == ["Generator"]
    (state, log), (other, other_log) = map(result_of, runs)
    assert state["nets"].keys() == other["nets"].keys()
    for record, same in zip(log, other_log, strict=True):
        assert record["losses"] == pytest.approx(same["losses"], rel=1e-3)


def test_sigterm_stops_in_order_and_says_how_to_go_on(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ["dcgan", "--data", pictures, "--out", run, "--kimg", 40, "--batch", 16, "--log-kimg", 0.016]
    with subprocess.Popen(
        [str(BIN / "edgegan-train"), *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while not (run / "log.jsonl").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        stderr = process.stderr.read()
    assert process.returncode == 143
    assert f"go on with  edgegan-train resume {run}" in stderr
    assert "Not finished" in (run / "report.md").read_text()


@pytest.mark.slow
def test_training_needs_no_shared_memory(pictures: Path, tmp_path: Path) -> None:
    """Its workers are threads: a full /dev/shm, in a mount namespace of its own here, is nothing to them."""
    script = (
        "mount -t tmpfs -o size=4k none /dev/shm && { head -c 9999 /dev/zero > /dev/shm/full; "
        f"exec {BIN}/edgegan-train edge --data {pictures} --out {tmp_path}/run --kimg 0.064 --batch 16 --workers 2; }}"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    if "unshare failed" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip("needs the right to mount")
    assert done.returncode == 0, done.stderr
    assert "done: 0.064 kimg" in done.stdout


@pytest.mark.slow
def test_a_full_disk_stops_training_in_one_line_and_it_goes_on_later(
    pictures: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """A limit on the size of files, which a checkpoint is the first to reach, stands for the disk."""
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    assert not train(run, dataset, 16)
    limited = ["sh", "-c", f"ulimit -f 2000; exec {BIN}/edgegan-train resume {run.folder}"]
    failed = subprocess.run(limited, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"edgegan-train: error: {run.checkpoints}")
    assert "Traceback" not in failed.stderr
    assert [path.name for path in checkpoint.found(run.checkpoints)] == ["000000000000.pt", "000000000016.pt"]
    assert command("edgegan-train", "resume", run.folder).returncode == 0
    whole = make_run(tmp_path / "whole", dataset, "dcgan", str(pictures))
    train(whole, dataset)
    assert equal(result_of(Run.open(run.folder)), result_of(whole))


def test_config_json_of_another_format_is_named(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "edge")
    values = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(values | {"format": 1}))
    with pytest.raises(RunError, match=r"edgegan before 0\.1"):
        Run.open(run.folder)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", recipes.names())
def test_cuda_never_waits_in_an_iteration_and_stops_on_nan(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, recipe, mirror=True, precision="bf16")
    trainer = Trainer(run, sets_of(run, dataset), "cuda")
    assert trainer.feed.data._kept is not None
    trainer._iterate(Progress(0, 16, 64))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._iterate(Progress(16, 16, 64))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    before = {name: value.clone() for name, value in trainer.nets["G"].state_dict().items()}
    trainer.failed.fill_(0)
    trainer._iterate(Progress(32, 16, 64))
    assert all(torch.equal(p, before[n]) for n, p in trainer.nets["G"].named_parameters())
    with pytest.raises(RunError, match="diverged"):
        trainer._check_finite()
    assert checkpoint.found(run.checkpoints) == []
