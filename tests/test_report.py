"""What is left of a run to look at: report.md, curves.png, progress.gif, and TensorBoard's event files."""

import io
import json
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from edgegan import image
from edgegan.errors import EdgeGANWarning
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.figures import MAX_POINTS, Episode, alarm_episodes, draw_curves, make_progress_gif, thinned
from edgegan.trainer.loop import Trainer
from edgegan.trainer.report import command_of, make_report
from edgegan.trainer.run import Run
from edgegan.trainer.tensorboard import Events
from support import command, make_run, train

COLLAPSE = {"kind": "collapse", "message": "all pictures look alike; lower --lr"}


def record(nimg: int, **more: Any) -> dict[str, Any]:
    """A record of log.jsonl."""
    losses = {"D": 0.5, "G": 2.0}
    shown = {"nimg": nimg, "kimg": nimg / 1000, "losses": losses, "seconds": nimg / 8, "images_per_second": 8.0}
    return shown | {"memory_mb": 900.0 + nimg} | more


def write_log(run: Run, records: list[dict[str, Any]]) -> None:
    run.log.write_text("".join(json.dumps(r) + "\n" for r in records))


def sampled(run: Run, *at: int) -> None:
    """Sample grids as a run leaves them."""
    for nimg in at:
        image.save_image(run.samples / f"{nimg:012d}.png", np.full((20, 20, 1), nimg, np.uint8))


class Page(HTMLParser):
    """A page of Markdown as another program shows it: its tables, links, code, and text by tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(markdown.markdown(path.read_text(encoding="utf-8"), extensions=["tables", "fenced_code"]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.texts.setdefault(tag, []).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.images.append(str(dict(attrs)["src"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.tags.pop()

    def handle_endtag(self, tag: str) -> None:
        self.tags.remove(tag)

    def handle_data(self, data: str) -> None:
        for tag in set(self.tags):
            self.texts[tag][-1] += data
        if {"td", "th"} & set(self.tags):
            self.rows[-1][-1] += data

    @property
    def table(self) -> dict[str, str]:
        """The second column by the first."""
        return {row[0]: row[1] for row in self.rows}


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", dataset, "dcgan")


def test_the_page_tells_the_run(run: Run) -> None:
    sampled(run, 0, 32, 64)
    swd = [{"swd": x, "swd_real": 3.5} for x in (90.0, 40.0, 55.0)]
    scores = [{"score": {"FID": x, "recall": x / 50}, "features": "inception"} for x in (12.5, 25)]
    log = [record(16, **swd[0]), record(32, **swd[1], **scores[0])]
    log += [record(48, health={"diversity": 0.2}, alarms=[COLLAPSE])]
    write_log(run, [*log, record(64, **swd[2], **scores[1], health={"diversity": 0.9})])
    make_progress_gif(run)
    draw_curves(run)
    make_report(run, "cpu")
    page = Page(run.folder / "report.md")
    assert page.texts["h1"] == ["run: dcgan on set"]
    assert page.images == ["samples/000000000064.png", "progress.gif", "curves.png"]
    expected = {
        "shown": "0.064 of 0.064 kimg",
        "time of training": "0 h 0 min 8 s",
        "speed": "8.0 images/s",
        "peak memory": "964 MB",
        "sliced Wasserstein distance, first": "90 at 0.016 kimg",
        "sliced Wasserstein distance, best": "40 at 0.032 kimg",
        "sliced Wasserstein distance, last": "55 at 0.064 kimg",
        "the same between real pictures": "3.5",
        "loss G, last": "2",
        "health: diversity, last": "0.9",
        "FID (inception), best, which is checkpoint best": "12.5 at 0.032 kimg",
        "FID (inception), last": "25 at 0.064 kimg",
        "recall (inception), last": "0.5 at 0.064 kimg",
        "pictures": "40 of 28x28x1",
        "3 classes": "0, 1, 2",
    }
    assert expected.items() <= page.table.items()
    assert page.table["device"].startswith("cpu, ")
    assert page.texts["li"] == ["collapse, from 0.048 kimg to 0.064 kimg: all pictures look alike; lower --lr"]
    options = {row[0]: row[1:] for row in page.rows if row[0].startswith("--")}
    for name, field in run.recipe.Config.__dataclass_fields__.items():
        value, default, text = options["--" + name.replace("_", "-")]
        assert (value, default) == (str(getattr(run.config, name)), str(field.default))
        assert field.metadata["help"][1:] in text
    assert options["--seed"][0] == "0"
    assert "Not finished" not in (run.folder / "report.md").read_text()
    commands = "".join(page.texts["code"])
    assert "edgegan-export run -o run.onnx\n" in commands
    assert "resume" not in commands


def test_the_page_is_the_same_again_and_elsewhere(run: Run, dataset: Dataset, tmp_path: Path) -> None:
    assert train(run, dataset)
    make_report(run)
    page = (run.folder / "report.md").read_bytes()
    make_report(run)
    assert (run.folder / "report.md").read_bytes() == page
    (tmp_path / "else").mkdir()
    moved = Run.open(run.folder.rename(tmp_path / "else" / "run"))
    images = Page(moved.folder / "report.md").images
    assert images == ["samples/000000000064.png", "progress.gif", "curves.png"]
    assert all((moved.folder / name).is_file() for name in images)
    make_report(moved)
    assert (moved.folder / "report.md").read_bytes() == page


def test_a_stopped_run_has_a_page_that_says_so(run: Run) -> None:
    make_report(run)
    assert Page(run.folder / "report.md").table["shown"] == "0 of 0.064 kimg"
    sampled(run, 0)
    write_log(run, [record(32)])
    make_report(run)
    page = Page(run.folder / "report.md")
    assert page.texts["strong"] == ["Not finished:"]
    assert page.images == ["samples/000000000000.png"]
    assert "edgegan-train resume run\n" in "".join(page.texts["code"])


NASTY = ["a|b", "<b>bold</b>", "`code`", "*star* _under_", "[link](http://x)", "&amp;", "line\nfeed", "![x](y)", "#1"]


def test_names_are_shown_as_they_are_and_never_as_markup(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index, name in enumerate(NASTY):
        folder = tmp_path / "pets" / name.replace("/", "∕")
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)).save(folder / f"{index}{i}.png")
    dataset = open_dataset(str(tmp_path / "pets"))
    run = make_run(tmp_path / "`a|b` *c* <i>", dataset, "dcgan", str(tmp_path / "pets"))
    write_log(run, [record(64, health={}, alarms=[{"kind": "a|b", "message": "<script>*x*"}])])
    make_report(run)
    page = Page(run.folder / "report.md")
    shown = [name.replace("/", "∕").replace("\n", "\\n") for name in dataset.classes]
    assert page.table[f"{len(NASTY)} classes"] == ", ".join(shown)
    assert page.texts["h1"] == ["`a|b` *c* <i>: dcgan on pets"]
    assert page.texts["li"] == ["a|b, from 0.064 kimg to the end: <script>*x*"]
    assert not {"script", "b", "i", "em", "a", "img"} & set(page.texts)
    assert any("'`a|b` *c* <i>.onnx'" in code for code in page.texts["code"])


def test_the_command_says_only_what_was_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    line = command_of(make_run(tmp_path / "asked", dataset, "stylegan", config={"kimg": 0.5, "ema_kimg": 2.0}))
    assert "--kimg 0.5" in line
    assert "--ema-kimg 2.0" in line
    assert "--gamma" not in line  # it follows from the pictures


@pytest.mark.slow
def test_the_command_of_the_page_makes_the_same_run(dataset: Dataset, pictures: Path, tmp_path: Path) -> None:
    config = {"kimg": 0.032, "batch": 8, "width": 0.5}  # a set of pictures has a width, too
    run = make_run(tmp_path / "a run", dataset, "edge", str(pictures), config=config, seed=2**63 + 1)
    assert train(run, dataset)
    again = command(*shlex.split(command_of(run)), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    other = Run.open(tmp_path / "a run-again")
    assert other.config == run.config
    assert other.settings.data == run.settings.data
    assert [r["losses"] for r in other.read_log()] == [r["losses"] for r in run.read_log()]


def test_curves_have_few_points_and_keep_what_stands_out() -> None:
    values = [0.0] * 5000
    values[2500] = 100.0
    kimg, mean, low, high = thinned([float(i) for i in range(5000)], values)
    assert len(kimg) == len(mean) == len(low) == len(high) == MAX_POINTS
    assert kimg[0] == 9.5  # the mean of 0 .. 19
    assert (mean.max(), low.max(), high.max()) == (5.0, 0.0, 100.0)
    for array, column in zip(thinned([1.0, 2.0], [3.0, 4.0]), ([1, 2], [3, 4], [3, 4], [3, 4]), strict=True):
        assert array.tolist() == column


def test_episodes_of_alarms() -> None:
    def health(nimg: int, *kinds: str) -> dict[str, Any]:
        return record(nimg, health={}) | (
            {"alarms": [{"kind": k, "message": f"{k} seen"} for k in kinds]} if kinds else {}
        )

    log = [health(1000, "a"), health(2000, "a", "b"), record(3000), health(4000, "b"), health(5000), health(6000, "a")]
    assert alarm_episodes(log) == [
        Episode("a", "a seen", 1.0, 4.0),
        Episode("b", "b seen", 2.0, 5.0),
        Episode("a", "a seen", 6.0, None),
    ]
    assert alarm_episodes([]) == []


def test_curves_png_has_a_panel_for_all_that_there_is(run: Run) -> None:
    def drawn(records: list[dict[str, Any]]) -> np.ndarray:
        write_log(run, records)
        draw_curves(run)
        with Image.open(run.folder / "curves.png") as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def pink(pixels: np.ndarray) -> int:
        red, green, blue = pixels.transpose(2, 0, 1)
        return int(((red > 240) & (green == blue) & (green > 200) & (green < 240)).sum())

    plain = [record(i, swd=50.0 / i, swd_real=1.0) for i in range(1, 4)]
    two = drawn(plain)
    health = {"diversity": 0.5, "gradient_D": 1e-3}
    four = drawn([r | {"health": health} for r in plain])
    assert four.shape[0] == 2 * two.shape[0]
    assert pink(four) == 0
    alarmed = drawn([r | {"health": health, "alarms": [COLLAPSE] if r["nimg"] >= 2 else []} for r in plain])
    score = {"score": {"frechet": 5.0, "kernel": -0.1, "recall": 0.5}, "features": "my net"}
    assert drawn([r | {"health": health} | score for r in plain]).shape[0] == 4 * two.shape[0]  # seven panels
    panel = pink(alarmed) / 4
    assert 0.2 * two.size / 6 < panel * 1.5 < two.size / 6  # the second half of every panel
    drawn([record(16)])  # no distance yet
    drawn([record(i, health={"gradient_G": 0.0}) for i in range(1, 4000)])  # nothing on a logarithmic axis


# TensorBoard --------------------------------------------------------------------------------------


def read(run: Run) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    accumulator = EventAccumulator(str(run.folder / "tensorboard"), {}, {"scalars": 0, "images": 0, "text": 0})
    accumulator.Reload()
    return accumulator


def points(run: Run, tag: str) -> list[tuple[int, float]]:
    """A curve: (images shown, value)."""
    return [(event.step, round(make_ndarray(event.tensor_proto).item(), 4)) for event in read(run).Tensors(tag)]


def test_tensorboard_shows_all_of_the_log(run: Run) -> None:
    grid = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40, 1)
    with Events(run, 0) as events:
        events.sample(0, grid)
        events.record(record(16))
        events.record(
            record(32, swd=8.5, swd_real=2.0, health={"diversity": 0.1}, alarms=[COLLAPSE])
            | {"score": {"FID": 3.0, "recall": 0.25}, "features": "my net (2)"}
        )
        found = read(run)  # while it is open: every record is on the disk at once
    assert set(found.PluginTagToContent("scalars")) == {
        "losses/D",
        "losses/G",
        "images_per_second",
        "memory_mb",
        "distance/swd",
        "distance/swd_real",
        "health/diversity",
        "score-my_net__2_/FID",
        "score-my_net__2_/recall",
    }
    assert points(run, "score-my_net__2_/recall") == [(32, 0.25)]
    assert points(run, "losses/G") == [(16, 2.0), (32, 2.0)]
    assert points(run, "distance/swd") == [(32, 8.5)]
    (shown,) = found.Tensors("samples")
    with Image.open(io.BytesIO(shown.tensor_proto.string_val[2])) as picture:  # behind width and height
        assert np.array_equal(np.asarray(picture), grid.repeat(3, axis=2))
    (alarm,) = found.Tensors("alarms/collapse/text_summary")
    assert (alarm.step, alarm.tensor_proto.string_val[0].decode()) == (32, COLLAPSE["message"])
    (table,) = found.Tensors("config/text_summary")
    assert "| `--batch` | 16 |" in table.tensor_proto.string_val[0].decode()
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"dcgan" in content
    assert all(name.encode() in content for name in run.recipe.Config.__dataclass_fields__)


def test_a_resumed_run_has_no_point_twice_and_its_config_once(run: Run) -> None:
    for start, end in ((0, 64), (32, 80), (0, 48), (48, 96)):  # killed at `end`, after a checkpoint at the next start
        run.rewind_log(start)
        with Events(run, start) as events:
            for nimg in range(start + 16, end + 1, 16):
                run.append_log(record(nimg, health={}, alarms=[COLLAPSE]))
                events.record(record(nimg, losses={"D": start + nimg}, health={}, alarms=[COLLAPSE]))
    # The third began anew: it was killed before its first checkpoint. The last one goes on at 48, whose point stays.
    assert points(run, "losses/D") == [(16, 16), (32, 32), (48, 48), (64, 112), (80, 128), (96, 144)]
    assert len(read(run).Tensors("config/text_summary")) == 1
    assert [event.step for event in read(run).Tensors("alarms/collapse/text_summary")] == [16]


@pytest.mark.parametrize("recipe", ["dcgan", "edge"])
def test_tensorboard_of_a_real_run_that_was_stopped(recipe: str, dataset: Dataset, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", dataset, recipe)
    for stop_at in (32, 10**9):
        trainer = Trainer(Run.open(run.folder), dataset, "cpu")
        with Events(run, trainer.nimg) as events:
            trainer.train([events], lambda at=stop_at, trainer=trainer: int(trainer.nimg >= at))
    log = run.read_log()
    assert [r["nimg"] for r in log] == [16, 32, 48, 64]
    for name in log[0]["losses"]:
        assert dict(points(run, f"losses/{name}")) == pytest.approx(
            {r["nimg"]: r["losses"][name] for r in log}, abs=1e-4
        )
    assert [step for step, _ in points(run, "distance/swd")] == [32, 64]
    for event in read(run).Tensors("samples"):
        with (
            Image.open(io.BytesIO(event.tensor_proto.string_val[2])) as shown,
            Image.open(run.samples / f"{event.step:012d}.png") as saved,
        ):
            assert np.array_equal(np.asarray(shown), np.asarray(saved.convert("RGB")))


def test_without_the_package_training_does_without(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with Events(run, 0) as events:
        events.record(record(16))
        events.sample(16, np.zeros((4, 4, 1), np.uint8))
    assert not (run.folder / "tensorboard").exists()


def test_a_folder_that_cannot_be_is_told_once(run: Run) -> None:
    (run.folder / "tensorboard").write_text("mine")
    with pytest.warns(EdgeGANWarning, match=r"tensorboard.*; the training goes on\Z"):
        events = Events(run, 0)
    with events:  # further warnings would fail the test
        events.record(record(16))
        events.sample(16, np.zeros((4, 4, 1), np.uint8))
    assert (run.folder / "tensorboard").read_text() == "mine"


FULL = """
import resource, sys, threading
from pathlib import Path
from edgegan.trainer.run import Run
from edgegan.trainer.tensorboard import Events
hook = threading.excepthook
with Events(Run.open(Path(sys.argv[1])), 0) as events:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    for i in range(1000):
        events.record({"nimg": i, "losses": {"D": 1.0}, "kimg": i / 1000})
print("goes on", threading.excepthook is hook)
"""


def test_a_full_disk_is_one_line_and_the_training_goes_on(run: Run) -> None:
    shown = subprocess.run([sys.executable, "-c", FULL, run.folder], capture_output=True, text=True, timeout=60)
    assert shown.stdout == "goes on True\n"
    assert shown.stderr.count("EdgeGANWarning: no more curves") == 1
    assert "File too large" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert len(points(run, "losses/D")) > 10  # what was written before is readable
