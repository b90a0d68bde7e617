"""--score-every: the numbers of edgegan-score while a run trains, which goes on as if they had not been taken."""

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_parallel import ENV, torchrun

from edgegan import load
from edgegan.errors import EdgeGANWarning, RunError
from edgegan.export.pipeline import How, export_run, scores_of
from edgegan.model import BUILT_IN
from edgegan.trainer import checkpoint
from edgegan.trainer.cli import cli
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.metrics.features import NETWORKS
from edgegan.trainer.preview import evaluating
from edgegan.trainer.run import Run
from edgegan.trainer.scorer import METRICS, ScoreOptions, Scorer
from support import STOPPED, Exits, Silent, command, equal, make_run, result_of, train

EVERY, N = 0.032, 20  # kimg, pictures
RECIPES = (pytest.param("dcgan", marks=pytest.mark.slow), "edge")  # without and with classes


@pytest.fixture(autouse=True)
def few_pictures() -> Iterator[None]:
    """So few as here are warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeGANWarning)
        yield


def scored_run(folder: Path, dataset: Dataset, recipe: str = "dcgan", features: str = "lenet", **more: Any) -> Run:
    """A run of four iterations with scores after the second and the last."""
    return make_run(folder, dataset, recipe, score=ScoreOptions(EVERY, N, features).settings(dataset), **more)


def scores(run: Run) -> dict[int, dict[str, float]]:
    """By the images that were shown."""
    return {record["nimg"]: record["score"] for record in run.read_log() if "score" in record}


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_goes_on_as_if_without(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    plain, run = make_run(tmp_path / "plain", dataset, recipe), scored_run(tmp_path / "run", dataset, recipe)
    assert train(plain, dataset)
    assert train(run, dataset)
    (state, log), (state_plain, log_plain) = result_of(run), result_of(plain)
    for key in ("nets", "optimizers", "monitors", "sums"):
        assert equal(state[key], state_plain[key])
    assert [{k: v for k, v in r.items() if k not in ("score", "features")} for r in log] == log_plain
    assert not any("score" in record for record in log_plain)
    assert sorted(scores(run)) == [32, 64]
    assert {tuple(found) for found in scores(run).values()} == {METRICS}
    assert {record.get("features") for record in log} == {None, "lenet"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_scoring_changes_no_random_state_and_no_mode(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(scored_run(tmp_path / "run", dataset, recipe), dataset, "cpu")
    assert trainer.scorer is not None
    modes = {name: part.training for name, part in trainer.nets.named_modules()}
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (trainer.scorer.score(trainer.preview) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)
    assert {name: part.training for name, part in trainer.nets.named_modules()} == modes


def test_a_net_that_is_drawn_with_trains_on() -> None:
    """That of a recipe without a moving average, say."""
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Dropout().eval())
    with evaluating(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == [True, True, False]


@pytest.mark.parametrize("recipe", RECIPES)
def test_interrupted_equals_uninterrupted(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    whole = scored_run(tmp_path / "whole", dataset, recipe)
    assert train(whole, dataset)
    for stop_at in (16, 32):
        parts = scored_run(tmp_path / f"parts-{stop_at}", dataset, recipe)
        assert not train(parts, dataset, stop_at)
        assert train(Run.open(parts.folder), dataset)
        for one, other in zip(result_of(whole), result_of(parts), strict=True):
            assert equal(one, other)


@pytest.mark.parametrize("at", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_ctrl_c_ends_a_scoring_and_the_resumed_run_begins_with_it(at: int, dataset: Dataset, tmp_path: Path) -> None:
    class StopsThere(Silent):
        asked = 0

        def scoring(self, done: int, total: int, what: str) -> None:
            if self.nimg == at and what == "drawn pictures":
                self.asked = STOPPED

        def __call__(self) -> int:
            return self.asked

    whole, run = scored_run(tmp_path / "whole", dataset), scored_run(tmp_path / "run", dataset)
    assert train(whole, dataset)
    reporter = StopsThere()
    assert Trainer(run, dataset, "cpu").train([reporter], reporter) == STOPPED
    assert run.read_log()[-1]["nimg"] == at - 16
    state = run.newest_checkpoint()
    assert state is not None
    assert state["nimg"] == at
    assert not scores_of(state)
    assert not (run.folder / "progress.gif").exists()
    assert train(Run.open(run.folder), dataset)
    for one, other in zip(result_of(whole), result_of(run), strict=True):
        assert equal(one, other)


def test_what_makes_them_less_telling_is_said_once(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(scored_run(tmp_path / "run", dataset), dataset, "cpu")
    with pytest.warns(EdgeGANWarning) as caught:
        trainer.train([])
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == len(set(messages)) == 2
    assert any("1000 or more" in message for message in messages)


# The command ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 128 digits, 32 at a time, sampled each time and scored every second time."""
    folder = tmp_path_factory.mktemp("trained")
    budget = ["--kimg", 0.128, "--batch", 32, "--sample-kimg", 0.032, "--log-kimg", 0.032, "--precision", "fp32"]
    how = ["--score-every", 0.064, "--score-images", 300, "--features", "lenet"]
    shown = command("edgegan-train", "edge", "--data", "digits", "--out", "run", *budget, *how, cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "0.1 of 0.128 kimg, scoring: " not in shown.stdout.splitlines()[0]
    found = list(scores(Run.open(folder / "run")).values())
    assert f"frechet {found[-1]['frechet']:.3g} (lenet)" in shown.stdout.splitlines()[-2]
    return folder / "run"


def test_they_are_what_the_command_says_of_the_exported_model(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    export_run(trained, model, how=How(measure=False))
    shown = command("edgegan-score", model, "digits", "-n", 300, "--features", "lenet", "--no-floor", "--json", "-")
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    last, spec = scores(Run.open(trained))[128], load(model).spec
    for name in METRICS:
        expected = report["scores"][name]["value"]
        assert last[name] == pytest.approx(expected, rel=1e-3, abs=1e-3 if name == "frechet" else 4 / 300)
        assert spec.scores[name] == pytest.approx(last[name], rel=1e-5)
    assert last["frechet"] == pytest.approx(report["scores"]["frechet"]["value"], rel=1e-3)
    # The very text that edgegan-score --write would put there, too.
    network, data = report["features"]["sha256"][:12], report["data"]["sha256"][:12]
    expected = f"lenet {network}: 300 drawn of seed 0, 10000 real of digits {data}, k 5"
    assert spec.scores == {**{name: spec.scores[name] for name in METRICS}, "measured by": expected}
    info = command("edgegan", "info", model).stdout
    assert f"score frechet {spec.scores['frechet']:g}\n" in info
    assert expected in info


def test_a_model_has_only_the_scores_of_its_own_checkpoint_and_precision(trained: Path, tmp_path: Path) -> None:
    kept = [int(path.stem) for path in checkpoint.found(trained / "checkpoints")]
    assert kept == [96, 128]
    quick = How(lower="fixed", measure=False)
    export_run(trained, tmp_path / "96.onnx", checkpoint="96", how=quick)
    assert load(tmp_path / "96.onnx").spec.scores == {}
    how = How(precision="fp16", lower="fixed", measure=False)
    export_run(trained, tmp_path / "half.onnx", how=how)
    assert load(tmp_path / "half.onnx").spec.scores == {}
    state = Run.open(trained).newest_checkpoint()
    assert state is not None
    assert set(scores_of(state)) == {*METRICS, "measured by"}
    assert scores_of(state | {"done": 1}) == {}  # saved half-way through an iteration, when another process was lost
    del state["scored"]
    assert scores_of(state) == {}  # of a run that began before there were scores


def test_the_best_checkpoint_is_that_of_the_least_frechet_distance(dataset: Dataset, tmp_path: Path) -> None:
    for order in (1, -1):
        run = scored_run(tmp_path / f"run{order}", dataset)
        trainer = Trainer(run, dataset, "cpu")
        assert trainer.scorer is not None
        real, found = trainer.scorer.score, iter([5.0, 6.0][::order])

        def known(*args: Any, real: Any = real, found: Any = found) -> Any:
            scored, value = real(*args), next(found)
            return type(scored)(value, scored.record | {"score": {"frechet": value}}, scored.metadata)

        trainer.scorer.score = known  # type: ignore[method-assign]
        trainer.train([])
        assert checkpoint.load(run.checkpoints / "best.pt")["nimg"] == (32 if order == 1 else 64)


def test_the_folder_shows_them(trained: Path) -> None:
    last = scores(Run.open(trained))[128]
    page = (trained / "report.md").read_text()
    assert f"| recall (lenet), last | {last['recall']:g} at 0.128 kimg |" in page
    assert "which is checkpoint best |" in page
    assert "--score-every 0.064 --score-images 300 --features lenet" in page
    with Image.open(trained / "curves.png") as curves:
        assert curves.size[1] > 1200  # losses, distance, health, norms; two distances and the shares
    assert list((trained / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--score-every", "1", "--features", "missing.onnx"], "missing.onnx"),
        (["--score-every", "1", "--features", "nosuch"], "give one of lenet, "),
        (["--score-every", "1", "--features", "set.npz"], "set.npz"),
        (["--score-every", "1", "--features", str(BUILT_IN)], "does not say how it wants its pictures"),
        (["--score-every", "1", "--features", "lenet", "--preparation", "{"], "not JSON"),
        (["--score-every", "1", "--features", "lenet", "--preparation", '{"range": [0, 1]}'], "do not give range"),
        (["--score-every", "1", "--preparation", '{"range": [0, 1]}'], "--features"),
        (["--score-every", "1", "--resolution", "64"], "draws 64 x 64 grey pictures, and no network"),
        (["--score-every", "1", "--channels", "3"], "draws 28 x 28 RGB pictures, and no network"),
        (["--score-every", "0"], "score-every is 0"),
        (["--score-every", "nan"], "score-every is nan"),
        (["--score-every", "1", "--score-images", "9"], "10 to"),
        (["--features", "lenet"], "--features is for scores: give --score-every"),
        (["--score-images", "100"], "--score-images is for scores: give --score-every"),
        (["--score-every", "1", "--data", "few.npz"], "10 real pictures or more, and there are 5"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(
    options: list[str], says: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", images=np.zeros((5, 28, 28), np.uint8))
    status = 1 if options[-1] in ("missing.onnx", "nosuch", "set.npz") else 2
    Exits(capfd, "dcgan", "--data", "set.npz", "--out", "run", *options, command=cli).fails(status, says)
    assert not (tmp_path / "run").exists()


def test_the_network_must_stay_the_same_and_may_move(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    network = shutil.copy(NETWORKS / "lenet.onnx", tmp_path / "mine.onnx")
    run = scored_run(tmp_path / "run", dataset, features=str(network), source=str(pictures))
    assert run.settings.score is not None
    assert run.settings.score.network == "mine"
    shutil.copy(NETWORKS / "lenet-fashion.onnx", network)
    with pytest.raises(RunError, match=r"mine\.onnx is not the feature network that the run began with"):
        Trainer(Run.open(run.folder), dataset, "cpu")
    network.unlink()
    failed = CliRunner().invoke(cli, ["resume", str(run.folder)])
    assert "mine.onnx" in str(failed.exception)
    moved = shutil.copy(NETWORKS / "lenet.onnx", tmp_path / "moved.onnx")
    assert Scorer(run.settings.score, dataset, str(moved)).network.name == "moved"
    done = CliRunner().invoke(cli, ["resume", str(run.folder), "--features", str(moved)])
    assert done.exit_code == 0, done.output
    assert sorted(scores(Run.open(run.folder))) == [32, 64]


def test_config_json_holds_them_and_may_be_from_before_there_were_any(dataset: Dataset, tmp_path: Path) -> None:
    run = scored_run(tmp_path / "run", dataset)
    path = run.folder / "config.json"
    assert Run.open(run.folder).settings == run.settings
    values = json.loads(path.read_text())
    for score, says in ((5, "'score'"), ({}, "score_every"), (values["score"] | {"score_every": -1}, "score-every")):
        path.write_text(json.dumps(values | {"score": score}))
        with pytest.raises(RunError, match=says):
            Run.open(run.folder)
    del values["score"]
    path.write_text(json.dumps(values))
    assert Run.open(run.folder).settings.score is None


@pytest.mark.slow
def test_of_several_processes_the_first_one_scores(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    budget = ("--kimg", "0.064", "--batch", "16", "--log-kimg", "0.016", "--sample-kimg", "0.064")
    how = ("--score-every", EVERY, "--score-images", N, "--precision", "fp32")
    done = subprocess.run(
        torchrun(2, "edge", "--data", pictures, "--out", tmp_path / "together", *budget, *how),
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert done.returncode == 0, done.stderr
    together = Run.open(tmp_path / "together")
    alone = Run.create(tmp_path / "alone", together.settings)
    assert train(alone, dataset)
    assert sorted(scores(together)) == sorted(scores(alone)) == [32, 64]
    for nimg, found in scores(alone).items():
        assert scores(together)[nimg]["frechet"] == pytest.approx(found["frechet"], rel=1e-2)
    assert checkpoint.load(together.checkpoints / "best.pt")["scored"] is not None


def test_a_data_set_of_its_own_needs_no_name(tmp_path: Path) -> None:
    """The default network is that of edgegan-score: lenet for small grey pictures."""
    options = ScoreOptions(1.0)
    found = options.settings(open_dataset("digits"))
    assert found is not None
    assert (found.features, found.network, found.score_images) == ("lenet", "lenet", 10_000)
    assert ScoreOptions(None).settings(open_dataset("digits")) is None
