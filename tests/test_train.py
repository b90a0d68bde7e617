"""edgegan-train: the real command on tiny budgets; interrupted against uninterrupted; what a run folder holds."""

import dataclasses
import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgegan import noise
from edgegan.trainer import checkpoint, recipes
from edgegan.trainer.cli import cli
from edgegan.trainer.config import make_config
from edgegan.trainer.data import Dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, Progress
from edgegan.trainer.run import Run
from support import BIN, Exits, always, command, equal, make_run, result_of, sets_of, train


@pytest.mark.parametrize(
    ("recipe", "workers"),
    [
        *always("cyclegan", "dcgan", "edge", also=(0,)),  # test_run.py resumes every recipe
        ("edge", 2),
        pytest.param("cyclegan", 2, marks=pytest.mark.slow),
    ],
)
def test_interrupted_at_any_step_equals_uninterrupted_bit_for_bit(
    recipe: str, workers: int, dataset: Dataset, tmp_path: Path
) -> None:
    """40 pictures in batches of 16: the second and third stop are in mid-epoch."""
    whole = make_run(tmp_path / "whole", dataset, recipe)
    assert train(whole, dataset)
    for stop_at in (16, 32, 48):
        parts = make_run(tmp_path / f"parts-{stop_at}", dataset, recipe)
        assert not train(parts, dataset, stop_at, workers=workers)
        assert train(Run.open(parts.folder), dataset, workers=workers)
        for one, other in zip(result_of(whole), result_of(parts), strict=True):
            assert equal(one, other)
        assert [p.name for p in sorted(whole.samples.iterdir())] == [p.name for p in sorted(parts.samples.iterdir())]


def test_every_epoch_shows_each_picture_once_with_as_much_noise(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(make_run(tmp_path / "run", dataset, "dcgan"), dataset, "cpu")
    seen, phase = [], trainer.phases[1]

    def watch(nets: torch.nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, torch.Tensor]:
        assert len(batch.real) == len(batch.label) == len(batch.z) == t.batch == 16
        assert batch.real.min() >= -1
        assert batch.real.max() <= 1
        seen.extend(batch.real.mul(127.5).add(127.5).round().to(torch.uint8).reshape(16, -1).numpy())
        return {"none": sum(p.sum() for p in nets["G"].parameters()) * 0}

    trainer.phases = (dataclasses.replace(phase, loss=watch, after=None),)
    for start in range(0, 80, 16):  # two epochs of 40: the third batch straddles them
        trainer._iterate(Progress(start, 16, 80))
    pictures = sorted(map(bytes, dataset.images.reshape(40, -1)))
    first, second = [list(map(bytes, seen[i : i + 40])) for i in (0, 40)]
    assert sorted(first) == sorted(second) == pictures
    assert first != second
    assert first != list(map(bytes, dataset.images.reshape(40, -1)))


@pytest.mark.parametrize(
    "recipe", ["edge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("stylegan", "superres"))]
)
def test_the_seed_decides_the_run(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run = make_run(tmp_path / name, dataset, recipe, seed=seed)
        train(run, dataset)
        results.append(result_of(run)[0]["nets"])
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])


@pytest.mark.parametrize("recipe", recipes.names())
def test_every_phase_moves_its_nets_and_no_other(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, recipe)
    trainer = Trainer(run, sets_of(run, dataset), "cpu")
    parameters = {name: dict(net.named_parameters()) for name, net in trainer.nets.items()}
    for phase in run.recipe.phases(run.config):
        before = {n: {k: v.detach().clone() for k, v in p.items()} for n, p in parameters.items()}
        trainer.phases = (dataclasses.replace(phase, begins=0.0),)
        trainer._iterate(Progress(0, 16, 64))
        moved = {n for n, p in parameters.items() if any(not torch.equal(v, before[n][k]) for k, v in p.items())}
        averages = {f"{name}_ema" for name in phase.trains} & set(parameters) if phase.after else set()
        assert moved == set(phase.trains) | averages


def test_a_phase_runs_every_so_many_iterations_also_after_a_resume(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(make_run(tmp_path / "run", dataset, "dcgan"), dataset, "cpu")
    ran, phase = [], trainer.phases[1]

    def watch(nets: torch.nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, torch.Tensor]:
        ran.append(t.nimg // t.batch)
        return phase.loss(nets, batch, t)

    trainer.phases = (dataclasses.replace(phase, loss=watch, every=3),)
    for iteration in range(2, 9):
        trainer._iterate(Progress(iteration * 16, 16, 1000))
    assert ran == [3, 6]
    assert trainer.counts == {"G": 2}
    trainer.phases = (dataclasses.replace(phase, loss=watch, begins=0.5),)
    for nimg in (480, 496, 512, 528):
        trainer._iterate(Progress(nimg, 16, 1008))
    assert ran == [3, 6, 32, 33]


def test_the_command_makes_what_it_says(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = [
        "--data",
        pictures,
        "--out",
        run,
        "--kimg",
        0.064,
        "--batch",
        16,
    ]
    shown = command("edgegan-train", "dcgan", *args, "--sample-kimg", 0.016)
    assert shown.returncode == 0, shown.stderr
    assert "edgegan-export" in shown.stdout.splitlines()[-1]
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"] == "dcgan"
    assert config["config"]["batch"] == 16
    assert config["data"]["count"] == 40
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["nimg"] == 64
    assert all(set(r["losses"]) == {"D", "G"} and np.isfinite(list(r["losses"].values())).all() for r in log)
    assert log[-1]["swd"] > log[-1]["swd_real"] > 0
    grids = sorted((run / "samples").iterdir())
    assert [int(g.stem) for g in grids] == [0, 16, 32, 48, 64]
    with (
        Image.open(grids[0]) as grid,
        Image.open(run / "progress.gif") as gif,
        Image.open(run / "curves.png") as curves,
    ):
        assert grid.size == (234, 234)  # 4 x 4 pictures of 28 pixels, doubled, 2 pixels apart
        assert gif.n_frames == 5
        assert curves.size[0] > 500
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["000000000048.pt", "000000000064.pt", "best.pt"]
    best = min((record for record in log if "swd" in record), key=lambda record: record["swd"])
    assert checkpoint.load(run / "checkpoints" / "best.pt")["nimg"] == best["nimg"]
    assert (run / "report.md").read_text().startswith("# run: dcgan on set")
    assert list(run.glob("**/events.out.tfevents*"))
    again = command("edgegan-train", "dcgan", *args)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "resume" in again.stderr
    before = (run / "log.jsonl").read_bytes()
    assert command("edgegan-train", "resume", run).returncode == 0
    assert (run / "log.jsonl").read_bytes() == before


def test_ctrl_c_stops_cleanly_and_resume_goes_on(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = [
        "dcgan",
        "--data",
        pictures,
        "--out",
        run,
        "--kimg",
        "2",
        "--batch",
        "16",
    ]
    process = subprocess.Popen(
        [BIN / "edgegan-train", *map(str, args), "--log-kimg", "0.016"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (run / "log.jsonl").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "edgegan-train resume" in stderr
    opened = Run.open(run)
    state = opened.newest_checkpoint()
    assert state is not None
    assert 0 < state["nimg"] < 2000
    assert opened.read_log()[-1]["nimg"] <= state["nimg"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["resume", "missing"], "missing"),
        (["resume", "empty"], "config.json"),
        (["dcgan", "--data", "missing", "--out", "run"], "missing"),
        (["dcgan", "--data", "empty", "--out", "run"], "empty"),
        (["dcgan", "--data", "broken", "--out", "run"], "bad.png"),
        (["dcgan", "--data", "set.npz", "--out", "nowhere/run"], "nowhere"),
        (["dcgan", "--data", "set.npz", "--out", "full"], "full"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--resolution", "48"], "28x28"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--device", "cuda:9"], "cuda:9"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--device", "tpu"], "tpu"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--batch", "1"], "batch"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--kimg", "-1"], "kimg"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--kimg", "nan"], "kimg"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--log-kimg", "nan"], "log-kimg"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--sample-kimg", "0"], "sample-kimg"),
        (["dcgan", "--data", "set.npz", "--out", "run", "--beta1", "1"], "beta1"),
        (["edge", "--data", "set.npz", "--out", "run", "--resolution", "30"], "multiples of 4"),
        (["edge", "--data", "set.npz", "--out", "run", "--resolution", "512"], "8 to 448"),
        (["edge", "--data", "set.npz", "--out", "run", "--latent-dim", "70000"], "latent_dim"),
        (["dcgan", "--out", "run"], "--data"),
        (["nosuch", "--data", "set.npz", "--out", "run"], "nosuch"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    args: list[str],
    says: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "broken").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "broken" / "good.png")
    data = (tmp_path / "broken" / "good.png").read_bytes()
    (tmp_path / "broken" / "bad.png").write_bytes(data[: len(data) // 2])
    monkeypatch.chdir(tmp_path)
    failed = Exits(capfd, *args, command=cli)
    assert failed.status in (1, 2), failed.err
    failed.fails(failed.status, says)
    assert not (tmp_path / "run").exists()
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_preview_draws_the_latents_of_the_runtime(dataset: Dataset, tmp_path: Path) -> None:
    trainer = Trainer(make_run(tmp_path / "run", dataset, "dcgan"), dataset, "cpu")
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            seen.append(z)
            return torch.zeros(len(z), 1, 28, 28)

    trainer.nets["G_ema"].net = Spy()
    trainer.preview.draw(20, batch=8)
    assert np.array_equal(torch.cat(seen).numpy(), noise.normal(0, 20, 100))


@pytest.mark.parametrize("recipe", recipes.names())
def test_config_without_torch_is_the_recipes_own(recipe: str) -> None:
    about = recipes.describe(recipe)
    assert len(about.summary) > 10
    assert "\n" not in about.summary
    real = recipes.load(recipe).Config
    assert make_config(about.Config, {}).__dict__ == make_config(real, {}).__dict__
    shown = command("edgegan-train", recipe, "--help")
    for name in real.__dataclass_fields__:
        assert name.replace("_", "-") in shown.stdout


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", recipes.names())
def test_trains_on_cuda(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, recipe, precision="bf16")
    assert Trainer(run, sets_of(run, dataset), "cuda").train([]) == 0
    assert run.read_log()[-1]["nimg"] == 64
