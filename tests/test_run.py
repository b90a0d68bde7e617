"""The run folder when things go wrong: crashes, damage, edits, moved data, two trainers."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgegan.errors import RunError
from edgegan.trainer import checkpoint, recipes
from edgegan.trainer.data import Dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.run import Run
from support import TINY, command, equal, make_run, result_of, train


@pytest.mark.parametrize("keep", [pytest.param(0, marks=pytest.mark.slow), 1000])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    keep: int, pictures: Path, dataset: Dataset, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    train(run, dataset)
    expected = result_of(run)
    before, newest = checkpoint.found(run.checkpoints)
    newest.write_bytes(newest.read_bytes()[:keep])
    resumed = command("edgegan-train", "resume", run.folder)
    assert resumed.returncode == 0
    warning = f"edgegan-train: warning: checkpoint {newest} is damaged or cut short; going on from {before.name}"
    assert warning in resumed.stderr.splitlines()
    assert equal(result_of(run), expected)


@pytest.mark.slow
def test_without_a_whole_checkpoint_nothing_is_begun_anew(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    train(run, dataset)
    log = run.log.read_bytes()
    for path in checkpoint.found(run.checkpoints):
        path.write_bytes(path.read_bytes()[:-100])
    failed = command("edgegan-train", "resume", run.folder)
    assert failed.returncode == 1
    assert "is damaged" in failed.stderr.splitlines()[-1]
    for path in checkpoint.found(run.checkpoints):
        path.unlink()
    failed = command("edgegan-train", "resume", run.folder)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "holds no checkpoint" in failed.stderr
    assert run.log.read_bytes() == log


@pytest.mark.parametrize("recipe", recipes.names())
def test_a_crash_between_checkpoints_loses_nothing(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    """As after kill -9: the log is ahead of the newest checkpoint, and its last line is cut short."""
    run = make_run(tmp_path / "run", dataset, recipe, sample_kimg=0.016)
    train(run, dataset)
    expected = result_of(run)
    checkpoint.found(run.checkpoints)[-1].unlink()
    run.log.write_bytes(run.log.read_bytes()[:-9])
    assert [r["nimg"] for r in run.read_log()] == [16, 32, 48]
    with run.log.open("a") as file:
        file.write('\n{"nimg": 64, ')
    with pytest.raises(RunError, match="line 4"):
        run.read_log()
    lines = run.log.read_text().splitlines()
    run.log.write_text("\n".join([*lines[:3], lines[4]]))
    assert train(Run.open(run.folder), dataset)
    assert equal(result_of(run), expected)


@pytest.mark.slow
def test_two_trainers_on_one_run(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    with run.locked():
        failed = command("edgegan-train", "resume", run.folder)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "another edgegan-train" in failed.stderr
    assert command("edgegan-train", "resume", run.folder).returncode == 0


def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "edge", config=TINY | {"lr": 10.0, "final_lr": 10.0})
    with pytest.raises(
        RunError, match=r"diverged in phase [DG]: (loss \w+ is|the gradients of [DG] are) (nan|inf|not finite)"
    ):
        train(run, dataset)
    state = run.newest_checkpoint()
    assert state is not None
    assert all(value.isfinite().all() for value in state["nets"].values())


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    train(run, dataset)

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file() and path.suffix}

    before = times()
    assert command("edgegan-train", "resume", run.folder).returncode == 0
    assert times() == before


def test_data_that_moved(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    moved = pictures.rename(tmp_path / "moved.npz")
    failed = command("edgegan-train", "resume", run.folder)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert command("edgegan-train", "resume", run.folder, "--data", moved).returncode == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "newer"),
        ({"format": None}, "format"),
        ({"seed": 1.5}, "'seed'"),
        ({"seed": -1}, "seed"),
        ({"recipe": "nosuch"}, "nosuch"),
        ({"precision": "fp8"}, "fp8"),
        ({"config": {"nosuch": 1}}, "nosuch"),
        ({"config": {"latent_dim": 7}}, "does not fit"),
        ({"data": None}, "'data'"),
        ({"data.source": 5}, "'data.source'"),
        ({"data.resolution": "big"}, "'data.resolution'"),
        ({"data.classes": "abc"}, "'data.classes'"),
        ({"data.height": "28"}, "'data.height'"),
    ],
)
def test_an_edited_config_is_refused(
    change: dict[str, object], says: str, pictures: Path, dataset: Dataset, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    trainer = Trainer(run, dataset, "cpu")
    trainer._save()
    trainer.writer.close()
    values = json.loads((run.folder / "config.json").read_text())
    for key, value in change.items():
        place, _, name = key.rpartition(".")
        (values[place] if place else values)[name] = value
    (run.folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=says) as caught:
        Trainer(Run.open(run.folder), dataset, "cpu")
    assert str(caught.value).isprintable()


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    for text in (b"", b"{", b"[]", b"[" * 100_000, b"\xff"):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(RunError, match=r"config\.json"):
            Run.open(tmp_path)


def test_changed_data_is_refused(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, "dcgan", str(pictures))
    np.savez(pictures, images=np.zeros((40, 28, 28), np.uint8), labels=np.arange(40) % 3)
    failed = command("edgegan-train", "resume", run.folder)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "its content differs" in failed.stderr
