"""edgegan-export: torch equals onnxruntime, one file that tells all, and nothing written otherwise."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgegan import load
from edgegan.errors import ExportError
from edgegan.export import pipeline
from edgegan.export.cli import cli
from edgegan.export.describe import describe
from edgegan.export.trace import OPSET, draw, to_model
from edgegan.export.verify import BATCHES
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec
from edgegan.trainer import checkpoint
from edgegan.trainer.data import open_dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings
from support import GENERATORS, Exits, check_parity, command, train

QUICK = pipeline.How(lower="fixed", measure=False)


def run_of(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 128 images on the embedded digits."""
    folder = tmp_path_factory.mktemp(recipe)
    dataset = open_dataset("digits")
    settings = Settings(recipe, {"kimg": 0.128, "batch": 32}, DataSettings.of(dataset, "digits", None), sample_kimg=1.0)
    made = Run.create(folder / "run", settings)
    train(made, dataset)
    return made


@pytest.fixture(scope="module", params=GENERATORS)
def each_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of every recipe."""
    return run_of(request.param, tmp_path_factory)


@pytest.fixture(
    scope="module",
    params=[name if name == "edge" else pytest.param(name, marks=pytest.mark.slow) for name in GENERATORS],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of one recipe for what depends on none; of the others, too, if there is time."""
    return run_of(request.param, tmp_path_factory)


def test_command_exports_and_sample_draws(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "digits.onnx"
    # What is measured to be faster is another thing on each processor: here all that is equal is written.
    shown = command("edgegan-export", run.folder, "-o", model, "--licence", "CC0", "--lower", "fixed")
    assert shown.returncode == 0, shown.stderr
    if run.settings.recipe != "vanilla":  # whose dense layers have nothing to lower
        assert re.search(
            r"^  float32 as exported +\S+ [kM]B .*\n\* float32 lowered +\S+ [kM]B ", shown.stdout, re.MULTILINE
        )
        assert re.search(
            r"^[a-z0-9 ]+: gain not measured, differs by \S+ of the range; [A-Z]", shown.stdout, re.MULTILINE
        )
    assert [p.name for p in tmp_path.iterdir()] == ["digits.onnx"]
    generator = load(model)
    spec = generator.spec
    assert (spec.recipe, spec.image_size, spec.channels) == (run.settings.recipe, (28, 28), 1)
    assert (spec.kimg, spec.dataset, spec.dataset_digest) == (0.128, "digits", run.settings.data.digest)
    assert spec.licence == "CC0"
    assert generator.check_golden() <= 1  # torch and onnxruntime may round a pixel differently
    found = onnx.load(model)
    assert found.opset_import[0].version == OPSET
    assert not found.functions
    assert str(Path.cwd()) not in str(found)
    sampled = command("edgegan", "sample", model, "-n", "16", "-o", tmp_path / "samples.png")
    assert sampled.returncode == 0, sampled.stderr


def test_any_checkpoint_that_is_there_can_be_exported(run: Run, tmp_path: Path) -> None:
    best = min((record for record in run.read_log() if "swd" in record), key=lambda record: record["swd"])
    oldest = int(checkpoint.found(run.checkpoints)[0].stem)
    for which, nimg in (("best", best["nimg"]), (str(oldest), oldest)):
        assert (
            pipeline.export_run(run.folder, tmp_path / "m.onnx", checkpoint=which, how=QUICK).spec.kimg == nimg / 1000
        )
    for which, status, says in (
        ("31", 1, "has no checkpoint 31; there are: newest, "),
        ("worst", 2, "newest, best, or"),
    ):
        failed = command("edgegan-export", run.folder, "-o", tmp_path / "x.onnx", "--checkpoint", which)
        assert (failed.returncode, failed.stderr.count("\n")) == (status, 1)
        assert says in failed.stderr


@pytest.mark.slow
def test_command_without_lowering_writes_the_same_bytes_each_time(run: Run, tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        shown = command("edgegan-export", run.folder, "-o", tmp_path / name, "--lower", "none", "--no-measure")
        assert shown.returncode == 0, shown.stderr
        assert "ms at 1" not in shown.stdout
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_torch_equals_onnxruntime_on_fresh_latents(each_run: Run, tmp_path: Path) -> None:
    pipeline.export_run(each_run.folder, tmp_path / "a.onnx", how=QUICK)
    generator = load(tmp_path / "a.onnx")
    nets = each_run.recipe.build(each_run.config, each_run.settings.data.shape)
    nets.load_state_dict(each_run.newest_checkpoint()["nets"])
    module = each_run.recipe.export_module(nets).eval()
    for n in (*BATCHES, 40):
        feed = inputs_of(generator.spec, 99, n)
        assert np.abs(generator.run(feed) - draw(module, generator.spec, feed)).max() < 1e-4


def test_last_grid_is_what_the_exported_model_draws(each_run: Run, tmp_path: Path) -> None:
    pipeline.export_run(each_run.folder, tmp_path / "a.onnx", how=QUICK)
    dataset = open_dataset("digits")
    previewed = Trainer(each_run, dataset, "cpu").preview.draw(16).astype(int)
    assert np.abs(previewed - load(tmp_path / "a.onnx").sample(16, seed=0)).max() <= 1


SPEC = ModelSpec(recipe="dcgan", image_size=(28, 28), channels=1, latent_dim=8)


class Square(torch.nn.Module):
    """z [n, 8] -> [n, 1, 28, 28]; `wrong` makes the graph differ from what torch computes elsewhere."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(8, 784)
        self.wrong = wrong

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(z) + self.wrong).view(-1, 1, 28, 28)


def test_parity_refuses_a_graph_that_differs() -> None:
    module = Square()
    data = describe(to_model(module, SPEC), SPEC, module)
    assert check_parity(data, module) < 1e-5
    module.wrong = 0.01
    with pytest.raises(ExportError, match="differ by"):
        check_parity(data, module)


def test_false_golden_samples_and_weights_that_are_not_finite_are_refused() -> None:
    module = Square()
    other = Square()
    data = describe(to_model(module, SPEC), SPEC, other)
    with pytest.raises(ExportError, match="golden"):
        check_parity(data, module)
    torch.nn.init.constant_(module.dense.weight, float("nan"))
    with pytest.raises(ExportError, match="nan"):
        check_parity(describe(to_model(module, SPEC), SPEC, module), module)


def test_a_frozen_batch_is_refused() -> None:
    class Frozen(Square):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return super().forward(z)[:3] + torch.zeros(3, 1, 28, 28)

    with pytest.raises(ExportError, match="shape"):
        check_parity(describe(to_model(Frozen(), SPEC), SPEC, Frozen()), Frozen())


def test_a_failed_proof_writes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.onnx").write_bytes(b"old")
    monkeypatch.setattr(pipeline, "parity", lambda *_, **__: (_ for _ in ()).throw(ExportError("differs")))
    for name in ("old.onnx", "new.onnx"):
        with pytest.raises(ExportError):
            pipeline.export_run(run.folder, tmp_path / name, how=QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_weights_that_are_not_finite_are_refused(run: Run, tmp_path: Path) -> None:
    state = run.newest_checkpoint()
    for value in state["nets"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    checkpoint.write(run.checkpoints, 999_999, state | {"nimg": 999_999})
    try:
        with pytest.raises(ExportError, match="finite"):
            pipeline.export_run(run.folder, tmp_path / "a.onnx", how=QUICK)
    finally:
        (run.checkpoints / "000000999999.pt").unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["missing", "-o", "a.onnx"], "missing"),
        (["empty", "-o", "a.onnx"], "config.json"),
        (["empty", "-o", "nowhere/a.onnx"], "nowhere"),
        (["empty", "-o", "a.png"], ".onnx"),
        (["empty"], "--output"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    failed = Exits(capfd, *args, command=cli)
    assert failed.status in (1, 2), failed.err
    failed.fails(failed.status, says)
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
