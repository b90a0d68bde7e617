"""The outputs of `edgegan sample`: grids, arrays, a file each, a pipe; parts of them, and going on with them."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegan import Foreign, ModelError, load, noise
from edgegan.model import Generator
from edgegan.output import Request
from edgegan.provenance import Grid, Provenance
from support import TEN, Exits, process

MakeTiny = Callable[..., Any]


@pytest.fixture
def draw(capfd: pytest.CaptureFixture[str]) -> Callable[..., Exits]:
    """A function that runs `edgegan sample` with its arguments."""
    return lambda *args: Exits(capfd, "sample", *map(str, args))


Draw = Callable[..., Exits]


def origin_of(path: str | Path) -> Provenance:
    with Image.open(path) as picture:
        picture.load()
        return Provenance.of_texts(picture.text, str(path))  # type: ignore[attr-defined]


def pixels_of(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_grid_says_where_it_comes_from(model: str, draw: Draw) -> None:
    assert draw(model, "-n", 6, "--seed", 7, "--start", 3, "--labels", "1,2", "--truncation", 1.5).status == 0
    digest = load(model).digest
    assert origin_of("samples.png") == Provenance(digest, 7, 3, (1, 2), 1.5, None, Grid(6, 3, 12, 2))
    done = process("reproduce", "samples.png", model)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("output", ["out", "x.png", "x.npy", "x.npz"])
def test_threads_change_no_byte(model: str, draw: Draw, output: str) -> None:
    for threads in (1, 2, 5):
        os.mkdir(f"{threads}")
        options = ("-n", 400, "--start", 7, "--batch", 3, "--labels", "1,2,3", "--threads", threads)
        assert draw(model, *options, "-o", f"{threads}/{output}").status == 0
    subprocess.run(["diff", "-r", "1", "2"], check=True)
    subprocess.run(["diff", "-r", "1", "5"], check=True)


@pytest.mark.parametrize("output", ["out", "x.png", "x.npy", "x.npz"])
def test_what_fails_in_a_drawing_thread_is_one_line(
    model: str, draw: Draw, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    run = Generator.run

    def fails(self: Generator, feed: dict[str, Any]) -> Any:
        if len(feed["z"]) == 7:
            raise ModelError("m.onnx: the last batch failed")
        return run(self, feed)

    monkeypatch.setattr(Generator, "run", fails)
    draw(model, "-n", 407, "--threads", 4, "-o", output).fails(1, "edgegan: error: m.onnx: the last batch failed\n")
    assert os.path.exists(output) == (output == "out")
    assert output != "out" or len(os.listdir("out")) == 400 + 1


@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_grid_is_that_of_the_library(model: str, draw: Draw, n: int) -> None:
    assert draw(model, "-n", n).status == 0
    np.testing.assert_array_equal(pixels_of("samples.png"), load(model).grid(n, zoom=12)[..., 0])


def test_a_folder(model: str, draw: Draw) -> None:
    done = draw(model, "-n", 20, "--seed", 7, "--start", 99_999_990, "-o", "out")
    assert (done.status, done.err) == (0, "")
    assert done.out == "out: 20 pictures of 5x6 by m.onnx on cpu, seed 7\n"
    generator = load(model)
    expected = generator.sample(20, 7, start=99_999_990)
    names = [f"{i:08d}.png" for i in range(99_999_990, 100_000_010)]
    assert sorted(os.listdir("out")) == sorted([*names, "samples.json"])
    labels = noise.labels(7, 20, 10, start=99_999_990)
    for k, name in enumerate(names):
        np.testing.assert_array_equal(pixels_of(f"out/{name}"), expected[k, ..., 0])
        assert origin_of(f"out/{name}") == Provenance(generator.digest, 7, 99_999_990 + k, (int(labels[k]),))


def test_chosen_labels_and_truncation_in_a_folder(model: str, draw: Draw) -> None:
    assert draw(model, "-n", 5, "--start", 1, "--labels", "3,seven", "--truncation", 0.5, "-o", "v1.2/").status == 0
    expected = load(model).sample(5, start=1, labels=[7, 3, 7, 3, 7], truncation=0.5)
    for i in range(1, 6):
        np.testing.assert_array_equal(pixels_of(f"v1.2/{i:08d}.png"), expected[i - 1, ..., 0])
        found = origin_of(f"v1.2/{i:08d}.png")
        assert (found.labels, found.truncation, found.index) == (((3, 7)[i % 2],), 0.5, i)


@pytest.mark.parametrize(("format", "name"), [("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats_in_a_folder(make_tiny: MakeTiny, draw: Draw, tmp_path: Path, format: str, name: str) -> None:
    tiny = make_tiny(channels=3)
    assert draw(tiny.path, "-n", 3, "-o", tmp_path / "out", "--format", format).status == 0
    for i, pixels in enumerate(load(tiny.path).sample(3)):
        with Image.open(tmp_path / "out" / f"{i:08d}.{format}") as picture:
            assert (picture.format, picture.mode) == (name, "RGB")
            if format != "jpg":
                np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_psi_and_a_model_without_classes(make_tiny: MakeTiny, draw: Draw, tmp_path: Path) -> None:
    tiny = make_tiny(style=True)
    assert draw(tiny.path, "-n", 3, "--psi", 0.25, "-o", tmp_path / "out/").status == 0
    expected = load(tiny.path).sample(3, psi=0.25)
    np.testing.assert_array_equal(pixels_of(tmp_path / "out" / "00000002.png"), expected[2, ..., 0])
    found = origin_of(tmp_path / "out" / "00000002.png")
    assert (found.psi, found.labels) == (0.25, ())
    assert draw(tiny.path, "-n", 3, "--psi", 0.25, "-o", tmp_path / "x.npz").status == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["images", "seed", "start"]
        np.testing.assert_array_equal(arrays["images"], expected)


def test_transparency_is_not_for_jpeg(make_tiny: MakeTiny, draw: Draw, tmp_path: Path) -> None:
    tiny = make_tiny(channels=4)
    for output in (["-o", tmp_path / "x.jpg"], ["-o", tmp_path / "out", "--format", "jpg"]):
        draw(tiny.path, *output).fails(2, "JPEG has no transparency")
    assert os.listdir(tmp_path) == ["tiny.onnx"]
    assert draw(tiny.path, "-o", tmp_path / "x.webp").status == 0


def test_an_archive(model: str, draw: Draw) -> None:
    done = draw(model, "-n", 40, "--seed", 2**64 - 1, "--start", 5, "-o", "x.npz")
    assert (done.status, sorted(os.listdir())) == (0, ["m.onnx", "x.npz"])
    with np.load("x.npz") as arrays:
        assert sorted(arrays) == ["images", "labels", "seed", "start"]
        np.testing.assert_array_equal(arrays["images"], load(model).sample(40, 2**64 - 1, start=5))
        np.testing.assert_array_equal(arrays["labels"], noise.labels(2**64 - 1, 40, 10, start=5))
        assert arrays["labels"].dtype == np.int64
        assert (arrays["seed"][()], arrays["start"][()]) == (2**64 - 1, 5)
    before = Path("x.npz").read_bytes()
    assert draw(model, "-n", 40, "--seed", 2**64 - 1, "--start", 5, "-o", "x.npz").status == 0
    assert Path("x.npz").read_bytes() == before
    assert draw(model, "-n", 3, "--labels", "4", "-o", "x.npz").status == 0
    with np.load("x.npz") as arrays:
        assert arrays["labels"].tolist() == [4, 4, 4]


# Again, more of it, and what is in the way


def test_the_same_again_draws_what_is_missing(model: str, draw: Draw) -> None:
    options = (model, "-n", 40, "-o", "out")
    draw(*options)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    for i in (0, 17, 39):
        Path(f"out/{i:08d}.png").unlink()
    done = draw(*options)
    assert done.out == "out: 40 pictures of 5x6 by m.onnx on cpu, seed 0; 3 drawn, 37 were there\n"
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before
    changed = [path.name for path in Path("out").iterdir() if path.stat().st_mtime_ns != times[path.name]]
    assert sorted(changed) == ["00000000.png", "00000017.png", "00000039.png"]
    assert draw(*options).out.endswith("; 0 drawn, 40 were there\n")


def test_batches_that_exist_are_not_drawn(model: str, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegan.model import Generator

    draw(model, "-n", 32, "-o", "out")
    drawn = []
    run = Generator.run
    monkeypatch.setattr(Generator, "run", lambda self, feed: drawn.append(len(feed["z"])) or run(self, feed))
    done = draw(model, "-n", 48, "-o", "out")
    assert done.out.endswith("; 16 drawn, 32 were there\n")
    assert drawn == [8, 8]


def test_what_only_looks_like_a_picture(model: str, draw: Draw) -> None:
    draw(model, "-n", 1, "-o", "out")
    for name in ("00000003.jpg", "000000003.png", "3.png", "x.png", "00000004.png.bak", "٠٠٠٠٠٠٠٥.png"):
        Path("out", name).write_text("mine")
    assert draw(model, "-n", 6, "-o", "out").out.endswith("; 5 drawn, 1 were there\n")
    assert Path("out/3.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--seed", "2"], "samples.json says seed 1, not 2; name another folder"),
        (["--labels", "3"], "samples.json says labels none, not [3]"),
        (["--truncation", "1"], "samples.json says truncation none, not 1.0"),
        (["--format", "webp", "--seed", "2"], "samples.json says seed 1, not 2; format png, not webp"),
    ],
)
def test_a_folder_of_other_pictures(model: str, draw: Draw, options: list[str], part: str) -> None:
    draw(model, "-n", 3, "--seed", 1, "-o", "out")
    before = sorted(os.listdir("out"))
    draw(model, "-n", 9, "--seed", 1, *options, "-o", "out").fails(2, "cannot write into out: its ", part)
    assert sorted(os.listdir("out")) == before


def test_a_folder_by_another_model(model: str, make_tiny: MakeTiny, draw: Draw) -> None:
    draw(model, "-o", "out")
    make_tiny("other.onnx", classes=TEN, licence="another")
    draw("other.onnx", "-o", "out").fails(2, "samples.json says model ")


@pytest.mark.parametrize("text", ["", "[]", "{", "\0", "[" * 100_000, '{"seed": 0}'])
def test_a_manifest_that_is_none(model: str, draw: Draw, text: str) -> None:
    Path("out").mkdir()
    Path("out/samples.json").write_text(text)
    draw(model, "-o", "out").fails(2, "cannot write into out: its samples.json")
    assert os.listdir("out") == ["samples.json"]


def test_a_folder_with_somebodys_files_is_left_alone(model: str, draw: Draw) -> None:
    Path("photos").mkdir()
    Path("photos/00000001.png").write_text("precious")
    for output in ("photos", "photos/", "."):
        draw(model, "-o", output).fails(2, "it holds other files (", "; name a new folder")
    assert os.listdir("photos") == ["00000001.png"]
    Path("photos/00000001.png").rename("photos/.DS_Store")
    assert draw(model, "-o", "photos").status == 0


def test_other_files_beside_the_pictures(model: str, draw: Draw) -> None:
    draw(model, "-n", 1, "-o", "out")
    manifest = json.loads(Path("out/samples.json").read_text())
    assert list(manifest) == ["edgegan", "model", "seed", "labels", "truncation", "psi", "foreign", "format"]
    Path("out/notes.txt").write_text("mine")
    assert draw(model, "-n", 2, "-o", "out").status == 0


# Shards


@pytest.mark.parametrize(("n", "of", "batch"), [(100, 8, 4), (33, 3, 16), (7, 2, 1)])
def test_shards_fill_one_folder(model: str, draw: Draw, n: int, of: int, batch: int) -> None:
    draw(model, "-n", n, "--start", 5, "--batch", batch, "-o", "whole")
    counts = []
    for k in range(1, of + 1):
        before = len(os.listdir("parts")) - 1 if k > 1 else 0
        options = ("--start", 5, "--batch", batch, "--shard", f"{k}/{of}", "-o", "parts")
        assert draw(model, "-n", n, *options).status == 0
        counts.append(len(os.listdir("parts")) - 1 - before)
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 2 * batch - 1
    for path in Path("whole").iterdir():
        assert Path("parts", path.name).read_bytes() == path.read_bytes()


def test_shards_at_once(model: str) -> None:
    command = [sys.executable, "-m", "edgegan", "sample", model, "-n", "400", "-o"]
    shards = [subprocess.Popen([*command, "parts", "--shard", f"{k}/3"]) for k in (1, 2, 3)]
    assert [shard.wait(60) for shard in shards] == [0, 0, 0]
    subprocess.run([*command, "whole"], check=True)
    assert sorted(os.listdir("parts")) == sorted(os.listdir("whole"))
    for path in Path("whole").iterdir():
        assert Path("parts", path.name).read_bytes() == path.read_bytes()


def test_shards_of_arrays(model: str, draw: Draw) -> None:
    for k in range(1, 5):
        assert draw(model, "-n", 20, "--shard", f"{k}/4", "-o", f"{k}.npy").status == 0
    parts = [np.load(f"{k}.npy") for k in range(1, 5)]
    assert [len(part) for part in parts] == [8, 8, 4, 0]
    np.testing.assert_array_equal(np.concatenate(parts), load(model).sample(20))
    assert draw(model, "-n", 20, "--shard", "2/3").status == 0
    assert origin_of("samples.png").index == 8


# To a pipe


def piped(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "edgegan", "sample", *args, "-o", "-"], capture_output=True)


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_a_grid_to_a_pipe(model: str, draw: Draw, format: str) -> None:
    draw(model, "-o", f"x.{format}")
    done = piped(model, *(["--format", format] if format != "png" else []))
    assert done.stdout == Path(f"x.{format}").read_bytes()
    assert done.stderr == b"stdout: 16 pictures of 5x6 by m.onnx on cpu, seed 0\n"
    assert sorted(os.listdir()) == ["m.onnx", f"x.{format}"]


def test_an_array_to_a_pipe(model: str, draw: Draw) -> None:
    draw(model, "-n", 100, "-o", "x.npy")
    assert piped(model, "-n", "100", "--format", "npy").stdout == Path("x.npy").read_bytes()


# At a terminal


def at_a_terminal(*args: str, seconds: float = 300) -> tuple[int, str]:
    """Exit status and what the command wrote to the terminal that was its stdout and stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "edgegan", *args], stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end was closed
                break
            shown += part
        os.close(ours)
    return running.returncode, shown.decode()


def test_pictures_are_not_for_a_terminal(model: str) -> None:
    status, shown = at_a_terminal("sample", model, "-o", "-")
    assert status == 2
    assert shown.endswith("a terminal shows no pictures; send them on, as in: edgegan sample -o - > digits.png\r\n")


def test_a_bar_when_it_lasts(model: str) -> None:
    status, shown = at_a_terminal("sample", model, "-n", "100", "-o", "quick.npy")
    assert (status, shown) == (0, "quick.npy: 100 pictures of 5x6 by m.onnx on cpu, seed 0\r\n")
    status, shown = at_a_terminal("sample", model, "-n", "60000", "--batch", "1", "-o", "long.npy")
    assert status == 0
    assert " images/s, 0:0" in shown
    assert "60000/60000" in shown
    assert shown.endswith("long.npy: 60000 pictures of 5x6 by m.onnx on cpu, seed 0\r\n")


def test_help_has_an_example_of_each_output() -> None:
    shown = process("sample", "--help").stdout
    for part in (
        "-o digits.png",
        "-o digits/",
        "--shard 1/2",
        "-o digits.npy",
        "-o digits.npz",
        "-o - |",
        "starts over",
    ):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_whatever_decides_an_array_is_in_its_key(model: str) -> None:
    """A part of another request must never be gone on with: each field, and the model, device and description."""
    generator = load(model)
    base = {"seed": 1, "start": 2, "labels": (3,), "truncation": 0.5, "psi": 0.25, "batch": 4}
    others = {"seed": 9, "start": 9, "labels": (3, 4), "truncation": 0.6, "psi": 0.5, "batch": 5}
    keys = [Request(generator, 10, **base).key(), Request(generator, 11, **base).key()]  # type: ignore[arg-type]
    keys += [Request(generator, 10, **{**base, name: other}).key() for name, other in others.items()]  # type: ignore[arg-type]
    for name, other in (("digest", "x"), ("provider", "cuda"), ("foreign", Foreign(range=(0, 1)))):
        changed = load(model)
        setattr(changed, name, other)
        keys.append(Request(changed, 10, **base).key())  # type: ignore[arg-type]
    changed = load(model)
    changed.foreign = Foreign(range=(0, 1), classes=3)
    keys.append(Request(changed, 10, **base).key())  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys) == 12
