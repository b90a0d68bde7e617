"""CycleGAN and its paired sister: what they learn, from which folders, and what they refuse."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from edgegan import load
from edgegan.errors import ArgumentError, DataError, RunError
from edgegan.export import pipeline
from edgegan.image import to_uint8
from edgegan.trainer.cli import cli
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.data.pairs import check_names, with_source
from edgegan.trainer.layers import ImagePool
from edgegan.trainer.loop import Trainer
from edgegan.trainer.recipe import Batch, DataShape, Progress
from edgegan.trainer.recipes import cyclegan
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings
from support import command, save_picture, train


def drawings(folder: Path, count: int, invert: bool = False, side: int = 16) -> Path:
    """Squares of random place and size; inverted ones are the same on white."""
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = np.zeros((side, side), np.uint8)
        y, x, size = *rng.integers(1, side // 2, 2), rng.integers(3, side // 2)
        picture[y : y + size, x : x + size] = 255
        save_picture(folder / f"{i:03d}.png", 255 - picture if invert else picture)
    return folder


@pytest.fixture
def domains(tmp_path: Path) -> tuple[Path, Path]:
    """White squares on black, and the same ones black on white."""
    return drawings(tmp_path / "dark", 48), drawings(tmp_path / "light", 48, invert=True)


def run_of(domains: tuple[Path, Path], folder: Path, **config: object) -> tuple[Run, Dataset]:
    """A new run from dark to light, and its data."""
    dark, light = (open_dataset(str(each)) for each in domains)
    given = {"width": 4, "blocks": 1, "batch": 8, **config}
    data, sources = DataSettings.of(light, str(domains[1])), DataSettings.of(dark, str(domains[0]))
    settings = Settings("cyclegan", given, data, log_kimg=0.2, sample_kimg=0.4, source_set=sources)
    run = Run.create(folder, settings)
    return run, with_source(light, dark, run.paired)


def test_pairs_teach_what_is_to_be_made_of_a_source(domains: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = run_of(domains, tmp_path / "run", paired=True, kimg=0.8, lr=4e-3, ema_kimg=0.05)
    assert train(run, data)
    log = run.read_log()
    assert log[-1]["psnr"] > 10  # a source is as far from its result as pixels can be, in all pixels: 0 dB
    assert log[-1]["losses"]["l1"] < log[0]["losses"]["l1"] / 2
    # The grid shows source, result and truth, two in a row of four rows.
    grid = np.asarray(Image.open(sorted(run.samples.glob("*.png"))[-1]))
    assert grid.shape[1] / grid.shape[0] == pytest.approx(6 / 4, abs=0.1)


def test_without_pairs_both_ways_are_learnt(domains: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = run_of(domains, tmp_path / "run", kimg=0.4, lr=1e-3, ema_kimg=0.05)
    assert train(run, data)
    log = run.read_log()
    assert log[-1]["losses"]["cycle"] < log[0]["losses"]["cycle"]
    assert "psnr" not in log[-1]  # of no source the truth is known
    nets = run.build()
    run.load_nets(nets, run.load_checkpoint("newest"))
    there, back = cyclegan.export_module(nets), cyclegan.reverse_module(nets)
    x = torch.rand(2, 1, 16, 20) * 2 - 1
    assert there(x).shape == back(x).shape == x.shape
    assert not torch.equal(there(x), back(x))


@pytest.mark.slow
def test_digits_get_another_style_whose_truth_was_never_shown(tmp_path: Path) -> None:
    """benchmarks/styled_digits.py on a tiny budget: no pair is shown, but the truth of each digit is known."""
    script = Path(__file__).parents[1] / "benchmarks" / "styled_digits.py"
    subprocess.run([sys.executable, script, "digits", "-n", "2000"], cwd=tmp_path, check=True)
    options = ["--width", "6", "--blocks", "1", "--batch", "4", "--lr", "2e-3", "--kimg", "0.8", "--ema-kimg", "0.1"]
    sets = ("digits/test/styled", "--source", "digits/test/plain", "--paired", "--features", "lenet")
    for name, *args in (
        ("edgegan-train", "cyclegan", "--source", "digits/plain", "--data", "digits/styled", "--out", "run", *options),
        ("edgegan-export", "run", "-o", "m.onnx"),
        ("edgegan-score", "m.onnx", *sets, "--metrics", "l1,retrieval,frechet", "--no-floor", "--json", "scores.json"),
    ):
        done = command(name, *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    made = {name: score["value"] for name, score in scores.items()}
    untouched = {name: score["source"]["value"] for name, score in scores.items()}
    assert made["l1"] < untouched["l1"] / 4
    assert made["frechet"] < untouched["frechet"] / 4
    assert made["retrieval"] > max(0.1, 10 * untouched["retrieval"])


def test_the_losses_are_the_papers(tmp_path: Path) -> None:
    """With nets that are functions known by heart."""

    class Times(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(factor))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    nets = torch.nn.ModuleDict({"G": Times(2.0), "F": Times(0.25), "D": Times(1.0), "D_source": Times(3.0)})
    nets.update({"D_pool": ImagePool(0, 1, 1, 1), "D_source_pool": ImagePool(0, 1, 1, 1)})
    batch = Batch(torch.full((1, 1, 1, 1), 0.5), None, torch.zeros(1, 1), torch.full((1, 1, 1, 1), 0.25))
    g, d = cyclegan.phases(cyclegan.Config(cycle=10, identity=0.5))
    t = Progress(0, 1, 100)
    terms = {name: term.item() for name, term in g.loss(nets, batch, t).items()}
    assert terms == pytest.approx(
        {
            "G": (0.5 - 1) ** 2,  # D(G(.25))
            "F": (3 * 0.125 - 1) ** 2,  # D_source(F(.5))
            "cycle": 10 * (abs(0.125 - 0.25) + abs(0.25 - 0.5)),
            "identity": 5 * (abs(1.0 - 0.5) + abs(0.0625 - 0.25)),
        }
    )
    found = {name: term.item() for name, term in d.loss(nets, batch, t).items()}
    assert found == pytest.approx({"D": ((0.5 - 1) ** 2 + 0.5**2) / 2, "D_source": ((0.75 - 1) ** 2 + 0.375**2) / 2})
    assert [g.learning_rate(Progress(n, 1, 100)) for n in (0, 50, 75)] == pytest.approx([2e-4, 2e-4, 1e-4])


def test_the_pool_gives_back_old_fakes_half_of_the_time_and_never_one_twice() -> None:
    pool = ImagePool(10, 1, 1, 1)
    shown = torch.arange(400.0).view(-1, 1, 1, 1)
    torch.manual_seed(0)
    back = torch.cat([pool.exchange(part) for part in shown.split(7)]).flatten()
    assert torch.equal(back[:10], shown[:10].flatten())  # while it fills
    later = back[10:]
    old = later != shown[10:].flatten()
    assert 0.4 < old.float().mean() < 0.6
    assert len(later[old].unique()) == old.sum()  # what comes back leaves the pool
    assert (later <= shown[10:].flatten()).all()
    kept = set(pool.images.flatten().tolist())
    assert kept | set(back.tolist()) >= set(shown.flatten().tolist())
    assert torch.equal(ImagePool(0, 1, 1, 1).exchange(shown), shown)


def test_unpaired_sets_meet_in_every_combination_and_pairs_never_part(
    domains: tuple[Path, Path], tmp_path: Path
) -> None:
    met: dict[bool, set[tuple[int, int]]] = {}
    for paired in (True, False):
        run, data = run_of(domains, tmp_path / str(paired), paired=paired)
        run = Run(run.folder, replace(run.settings, mirror=True))
        feed = Trainer(run, data, "cpu").feed
        assert feed.source is not None
        met[paired] = set()
        for nimg in range(0, 192, 8):
            real, _, source = feed.take(nimg)
            assert source is not None
            if paired:
                assert torch.equal(real, -source)  # the inverted picture, mirrored where its partner is
            places = (each.loader.plan(nimg)[0].tolist() for each in (feed.source, feed.data))
            met[paired] |= set(zip(*places, strict=True))
    assert len(met[True]) == 48
    assert len(met[False]) > 150


def test_what_cannot_be_a_pair_of_sets_is_refused(tmp_path: Path) -> None:
    a, b, c = (drawings(tmp_path / name, n, side=side) for name, n, side in (("a", 4, 16), ("b", 3, 16), ("c", 4, 20)))
    sets = {folder: open_dataset(str(folder)) for folder in (a, b, c)}
    with pytest.raises(DataError, match=r"of a are 16x16x1, those of c 20x20x1; make them alike: pass --resolution N"):
        with_source(sets[a], sets[c])
    with pytest.raises(DataError, match=r"^a has 4 pictures, b 3; valid for pairs: as many$"):
        with_source(sets[a], sets[b], paired=True)
    assert with_source(sets[a], sets[b]).source is sets[b]
    root = tmp_path / "root"
    check_names(str(a), str(c), root)
    with pytest.raises(DataError, match=r"4 pictures and 3; valid for pairs: as many"):
        check_names(str(a), str(b), root)
    (c / "002.png").rename(c / "other.png")
    with pytest.raises(DataError, match=r"are no pairs: 002.png would belong to 003.png; give both the same name"):
        check_names(str(a), str(c), root)
    with pytest.raises(ArgumentError, match=r"multiples of 4, but the data has 30x28: pass --resolution N"):
        cyclegan.complete(cyclegan.Config(), DataShape(28, 30, 3))
    with pytest.raises(ArgumentError, match=r"^d_layers is 3, but the data has 28x28; valid: at most 2$"):
        cyclegan.complete(cyclegan.Config(d_layers=3), DataShape(28, 28, 3))
    pairs = torch.nn.ModuleDict({"G_ema": torch.nn.Identity()})
    with pytest.raises(ArgumentError, match="--paired learns one way only"):
        cyclegan.reverse_module(pairs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--score-every", "1"], "--score-every is for recipes that draw, and cyclegan translates"),
        (["--paired", "--fit", "tiles", "--resolution", "16"], "--fit tiles would part pairs"),
    ],
)
def test_what_translations_do_not_take_is_refused_at_once(options: list[str], says: str) -> None:
    shown = CliRunner().invoke(cli, ["cyclegan", "--source", "none", "--data", "none", "--out", "none", *options])
    assert isinstance(shown.exception, ArgumentError)
    assert str(shown.exception).startswith(says)


def test_the_command_takes_two_folders_and_finds_a_moved_one_again(domains: tuple[Path, Path], tmp_path: Path) -> None:
    dark, light = domains
    nets = ("--width", 4, "--blocks", 1, "--batch", 8, "--kimg", 0.016)
    done = command(*("edgegan-train", "cyclegan", "--source", dark, "--data", light, "--out", tmp_path / "run"), *nets)
    assert done.returncode == 0, done.stderr
    assert "on light (48 pictures of 16x16x1) made of dark (48 pictures)" in done.stdout
    dark.rename(tmp_path / "moved")
    run = Run.open(tmp_path / "run")
    with pytest.raises(DataError, match="no such data"):
        run.open_dataset()
    assert run.open_dataset(source_set=str(tmp_path / "moved")).source is not None
    with pytest.raises(RunError, match=f"{light} is not the data set that {run.folder} began with"):
        run.open_dataset(source_set=str(light))
    found = command("edgegan-train", "resume", tmp_path / "run", "--source", tmp_path / "moved")
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_the_way_back_is_exported_on_request(domains: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = run_of(domains, tmp_path / "run", kimg=0.016)
    assert train(run, data)
    how = pipeline.How(lower="fixed", measure=False)
    files = {reverse: tmp_path / f"{reverse}.onnx" for reverse in (False, True)}
    nets = run.build()
    run.load_nets(nets, run.load_checkpoint("newest"))
    picture = data.images[:1]
    for reverse, file in files.items():
        pipeline.export_run(run.folder, file, reverse=reverse, how=how)
        module = (cyclegan.reverse_module if reverse else cyclegan.export_module)(nets).eval()
        with torch.no_grad():
            drawn = module(torch.from_numpy(picture.transpose(0, 3, 1, 2) / np.float32(127.5) - 1))
        np.testing.assert_array_less(np.abs(to_uint8(drawn.numpy()).astype(int) - load(file).translate(picture)), 2)
    assert not np.array_equal(*(load(file).translate(picture) for file in files.values()))
