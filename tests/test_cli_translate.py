"""`edgegan translate`: files and folders, one line for each problem, nothing by half, and on where it stopped."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import translators
from PIL import Image
from test_readme import blocks
from translators import noisy, smooth

from edgegan import Generator
from support import BIN, Exits, process

ROOT = Path(__file__).parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the model m.onnx, which makes 255 - p of p."""
    translators.negative(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: str, array: np.ndarray | None = None, **options: object) -> np.ndarray:
    """Write a picture and return its pixels."""
    array = noisy(9, 7, 3) if array is None else array
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def read(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def tree(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def translate(capfd: pytest.CaptureFixture[str], *args: str) -> Exits:
    return Exits(capfd, "translate", *args)


def test_a_file(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture = put("a.png")
    done = translate(capfd, "m.onnx", "a.png", "-o", "b.png")
    assert (done.status, done.err) == (0, "")
    assert done.out == "b.png: a picture of 7x9 by m.onnx on cpu\n"
    assert np.array_equal(read("b.png"), 255 - picture)
    translate(capfd, "m.onnx", "a.png", "-o", "b.png").fails(2, "b.png is there already; --overwrite replaces it")
    picture = put("a.png")
    assert translate(capfd, "m.onnx", "a.png", "-o", "b.png", "--overwrite").status == 0
    assert np.array_equal(read("b.png"), 255 - picture)
    assert translate(capfd, "m.onnx", "a.png", "-o", "c.webp", "--tile", "4", "--overlap", "2").status == 0
    assert np.array_equal(read("c.webp"), 255 - picture)
    assert translate(capfd, "m.onnx", "a.png", "-o", "c.jpg").status == 0
    assert read("c.jpg").shape == (9, 7, 3)
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_a_pipe(here: Path) -> None:
    picture = put("a.png")
    command = [sys.executable, "-m", "edgegan", "translate", "m.onnx", "-", "-o", "-"]
    done = subprocess.run(command, input=Path("a.png").read_bytes(), capture_output=True, check=True)
    Path("b.png").write_bytes(done.stdout)
    assert np.array_equal(read("b.png"), 255 - picture)
    assert done.stderr == b"stdout: a picture of 7x9 by m.onnx on cpu\n"
    failed = subprocess.run(command, input=b"text", capture_output=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(b"edgegan: error: stdin: not a picture")
    closed = subprocess.run(f"{shlex.join(command)} <&-", shell=True, capture_output=True, check=False)
    assert closed.returncode == 1
    assert closed.stderr == b"edgegan: error: stdin is closed; send a picture, or give a file\n"


def test_folders_keep_their_tree(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pictures = {name: put(f"in/{name}") for name in ("a.png", "b/c.png", "b/d.webp", "b/e/f.tif")}
    pictures["b/d.webp"] = read("in/b/d.webp")
    put("in/.hidden.png")
    put("in/.hidden/x.png")
    Path("in/notes.txt").write_text("not a picture")
    done = translate(capfd, "m.onnx", "in", "-o", "out/")
    assert (done.status, done.err) == (0, "")
    assert done.out == "out/: 4 pictures by m.onnx on cpu\n"
    assert tree("out") == ["a.png", "b/c.png", "b/d.png", "b/e/f.png", "translated.json"]
    for name, picture in pictures.items():
        assert np.array_equal(read(Path("out", name).with_suffix(".png")), 255 - picture)


def test_files_and_folders_into_a_folder(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put("in/a.png")
    put("x.png")
    assert translate(capfd, "m.onnx", "x.png", "in", "-o", "in/out", "--format", "webp").status == 0
    assert tree("in/out") == ["a.webp", "translated.json", "x.webp"]
    # What was made is not taken for what is to be made.
    done = translate(capfd, "m.onnx", "x.png", "in", "-o", "in/out", "--format", "webp")
    assert done.out == "in/out: 0 pictures by m.onnx on cpu; 2 were there\n"


def test_names_that_would_be_one(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("in/a.png", "in/a.jpg", "in/b.png", "other/b.png"):
        put(name)
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    assert tree("out") == ["a.jpg.png", "a.png.png", "b.png", "translated.json"]
    refused = translate(capfd, "m.onnx", "in", "other", "-o", "new")
    refused.fails(2, "in/b.png and other/b.png would both be new/b.png")
    assert not Path("new").exists()
    put("in/a.png.webp")  # whose new name is that of a.png
    translate(capfd, "m.onnx", "in", "-o", "new").fails(2, "in/a.png and in/a.png.webp would both be new/a.png.png")
    assert not Path("new").exists()


def test_what_cannot_be_read_is_named_and_the_others_go_on(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "z"):
        put(f"in/{name}.png")
    Path("in/empty.png").write_bytes(b"")
    Path("in/text.png").write_text("a text")
    Path("in/half.png").write_bytes(Path("in/a.png").read_bytes()[:100])
    Image.new("F", (3, 3)).save("in/float.tif")
    (here / "in/locked").mkdir()
    scandir = os.scandir

    def locked(path: str) -> object:  # root may read everything, so permissions would not do
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    done = translate(capfd, "m.onnx", "in", "missing.png", "-o", "out")
    assert done.status == 1
    assert done.out == "out: 2 pictures by m.onnx on cpu; 6 failed\n"
    lines = done.err.splitlines()
    assert len(lines) == 6
    for start in (
        "edgegan: error: in/locked: Permission denied",
        "edgegan: error: in/empty.png: an empty file",
        "edgegan: error: in/text.png: not a picture",
        "edgegan: error: in/half.png: ",
        "edgegan: error: in/float.tif: floating-point pixels",
        "edgegan: error: missing.png: No such file",
    ):
        assert any(line.startswith(start) for line in lines), lines
    assert tree("out") == ["a.png", "translated.json", "z.png"]


@pytest.mark.parametrize("size", [(1, 1), (7, 1000), (1, 300)])
def test_odd_sizes(here: Path, capfd: pytest.CaptureFixture[str], size: tuple[int, int]) -> None:
    translators.blocks_of_8(here / "m.onnx")
    picture = put("a.png", noisy(*size, 3))
    assert translate(capfd, "m.onnx", "a.png", "-o", "b.png", "--tile", "64").status == 0
    assert np.array_equal(read("b.png"), picture)


def test_kinds_of_pictures(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    translators.twice(here / "m.onnx")
    for name, array in {
        "grey": noisy(6, 5),
        "rgba": noisy(6, 5, 4),
        "deep": noisy(6, 5).astype(np.uint16) * 257,
    }.items():
        put(f"in/{name}.png", array)
    Image.fromarray(noisy(6, 5, 4)).convert("LA").save("in/la.png")
    Image.fromarray(noisy(6, 5, 3)).convert("CMYK").save("in/cmyk.tif")
    Image.fromarray(noisy(6, 5, 3)).save("in/animation.gif")
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    modes = {}
    for path in Path("out").glob("*.png"):
        with Image.open(path) as image:
            modes[path.stem] = image.mode
            assert image.size == (10, 12)
    assert modes == {"grey": "L", "rgba": "RGBA", "deep": "L", "la": "LA", "cmyk": "RGB", "animation": "RGB"}
    assert np.array_equal(read("out/deep.png"), (read("in/deep.png") // 257).repeat(2, axis=0).repeat(2, axis=1))
    done = translate(capfd, "m.onnx", "in", "-o", "jpg", "--format", "jpg")
    assert done.status == 1
    assert done.err.count("JPEG has no transparency; valid: .png, .webp\n") == 2
    monkeypatch.setattr(Generator, "run", lambda *_: pytest.fail("the network ran"))
    translate(capfd, "m.onnx", "in/rgba.png", "-o", "x.jpg").fails(2, "JPEG has no transparency")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert translate(capfd, "m.onnx", "in", "-o", "webp", "--format", "webp").status == 0
    assert read("webp/la.webp").shape == (12, 10, 4)


def test_small_pictures_share_batches(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Batches of one size, of others and of broken ones between: each file is its own picture's."""
    pictures = {f"{i:02}": put(f"in/{i:02}.png", noisy(9 if i % 5 else 8, 7, 3)) for i in range(24)}
    Path("in/03.png").write_bytes(b"")
    done = translate(capfd, "m.onnx", "in", "-o", "out", "--batch", "3")
    assert done.status == 1
    assert done.err == "edgegan: error: in/03.png: an empty file\n"
    del pictures["03"]
    assert tree("out") == sorted([*(f"{name}.png" for name in pictures), "translated.json"])
    for name, picture in pictures.items():
        assert np.array_equal(read(f"out/{name}.png"), 255 - picture)


def test_what_is_there_stays(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pictures = [put(f"in/{name}.png") for name in "abc"]
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    put("out/b.png", pictures[0])  # so that a change would show
    os.unlink("out/c.png")
    done = translate(capfd, "m.onnx", "in", "-o", "out")
    assert done.out == "out: 1 picture by m.onnx on cpu; 2 were there\n"
    assert np.array_equal(read("out/b.png"), pictures[0])
    assert np.array_equal(read("out/c.png"), 255 - pictures[2])
    assert translate(capfd, "m.onnx", "in", "-o", "out", "--overwrite").out == "out: 3 pictures by m.onnx on cpu\n"
    assert np.array_equal(read("out/b.png"), 255 - pictures[1])


def test_what_killed_ones_left_is_swept(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put("in/more/a.png")
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    for place in ("out", "out/more"):
        Path(place, ".edgegan-0123.tmp").write_bytes(b"half")
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    assert tree("out") == ["more/a.png", "translated.json"]


def test_no_others_mix_in(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put("in/a.png")
    translate(capfd, "m.onnx", "in", "-o", "in").fails(2, "cannot write into in: it holds other files (a.png)")
    assert translate(capfd, "m.onnx", "in", "-o", "out").status == 0
    assert json.loads(Path("out/translated.json").read_text())["format"] == "png"
    translators.twice(here / "n.onnx")
    translate(capfd, "n.onnx", "in", "-o", "out").fails(2, "its translated.json says model ")
    translate(capfd, "m.onnx", "in", "-o", "out", "--tile", "64").fails(2, "says tile none, not 64")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.png", "-o", "b.gif"], "its suffix is '.gif'; valid: .png, .jpg, .jpeg, .webp, or a / at the end"),
        (["a.png", "-o", "no/b.png"], "the folder"),
        (["a.png", "-o", "b.png", "--format", "png"], "--format is for a folder"),
        (["a.png", "in", "-o", "b.png"], "b.png is one file, for one picture"),
        (["in", "-o", "b.png"], "b.png is one file, for one picture"),
        (["in", "-o", "-"], "stdout (-) takes one picture"),
        (["-", "a.png", "-o", "out"], "stdin (-) is one picture"),
        (["-", "-o", "out/"], "a picture from stdin has no name"),
        (["a.png", "-o", "m.onnx/"], "it is a file, not a folder"),
        (["a.png", "-o", "b.png", "--max-memory", "3"], "'3' is not a size with its unit, such as 800MB or 2GB"),
        (["a.png", "-o", "b.png", "--max-memory", "5MB"], "max_memory is 5 MB; valid: 130 MB or more"),
        (["a.png", "-o", "b.png", "--tile", "x"], "'x' is not a whole number"),
        (["a.png", "-o", "b.png", "--tile", "8", "--overlap", "5"], "overlap is 5; valid: at most 4"),
        (["a.png"], "Missing option '-o'"),
    ],
)
def test_wrong_usage(here: Path, capfd: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    put("a.png")
    put("in/a.png")
    before = tree(".")
    translate(capfd, "m.onnx", *args).fails(2, message)
    assert tree(".") == before


def test_other_errors(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put("a.png", noisy(900, 900, 3))
    translate(capfd, "none.onnx", "a.png", "-o", "b.png").fails(1, "none.onnx does not exist")
    translate(capfd, str(ROOT / "edgegan/models/digits.onnx"), "a.png", "-o", "b.png").fails(1, "use sample")
    translate(capfd, "m.onnx", "none.png", "-o", "b.png").fails(1, "none.png: No such file or directory")
    Path("empty").mkdir()
    translate(capfd, "m.onnx", "empty", "-o", "out").fails(1, "empty: no pictures; read are .apng, ")
    translators.heavy(here / "m.onnx", width=16)
    capped = translate(capfd, "m.onnx", "a.png", "-o", "b.png", "--max-memory", "132MB")
    capped.fails(2, "a picture of 900 x 900 needs ", "max_memory is 132 MB; raise it")
    assert not Path("b.png").exists()
    Exits(capfd, "sample", "m.onnx").fails(1, "turns pictures into others and draws none: use translate")
    Exits(capfd, "bench", "m.onnx").fails(1, "turns pictures into others")
    Exits(capfd, "verify", "m.onnx").fails(1, "no golden samples")
    assert "pictures of any size, and makes them 1 times as large" in Exits(capfd, "info", "m.onnx").out


def test_models_of_another_origin(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shape = ("n", "h", "w", 3)
    translators.save(
        here / "m.onnx",
        [translators.node("Sub", "white source")],
        {"white": np.float32(255)},
        shape=shape,
        made=("n", "a", "b", 3),
        ours=False,
    )
    picture = put("a.png")
    translate(capfd, "m.onnx", "a.png", "-o", "b.png").fails(1, "it has no edgegan metadata", "--range LOW,HIGH")
    options = ("--range", "0,255", "--layout", "nhwc", "--size-multiple", "4", "--scale", "1")
    assert translate(capfd, "m.onnx", "a.png", "-o", "b.png", *options, "--output-name", "image").status == 0
    assert np.array_equal(read("b.png"), 255 - picture)
    assert translate(capfd, "m.onnx", "a.png", "-o", "out/", *options).status == 0
    translate(capfd, "m.onnx", "a.png", "-o", "out/", "--range", "0,1").fails(2, "says foreign")
    translate(capfd, "m.onnx", "a.png", "-o", "c.png", "--range", "0,255", "--scale", "2").fails(
        1, "its scale is 1, not 2"
    )
    translate(capfd, "m.onnx", "a.png", "-o", "c.png", "--output-name", "x").fails(1, "'x' is no float32 output")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_on_where_it_was_stopped(here: Path, number: signal.Signals) -> None:
    translators.heavy(here / "m.onnx", width=24)
    for i in range(8):
        put(f"in/{i:02}.png", smooth(200 + i, 300), compress_level=1)
    args = ["translate", "m.onnx", "in", "-o", "out", "--tile", "64", "--threads", "1"]
    command = [sys.executable, "-m", "edgegan", *args]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(list(Path("out").glob("*.png"))) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(number)
    _, err = running.communicate()
    assert running.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    if number != signal.SIGKILL:
        assert err.startswith("edgegan: interrupted: out: ")
        assert "of 8 pictures are there, and the same command goes on with the others\n" in err
    kept = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert 2 <= len(kept) < 8
    for path in kept:
        assert read(path).shape[1] == 300  # whole
    done = process(*args)
    assert done.returncode == 0, done.stderr
    made = "1 picture" if len(kept) == 7 else f"{8 - len(kept)} pictures"
    assert done.stdout == f"out: {made} by m.onnx on cpu; {len(kept)} were there\n"
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert tree("out") == sorted([*(f"{i:02}.png" for i in range(8)), "translated.json"])
    assert not [name for name in os.listdir("out") if name.startswith(".")]
    shutil.move("out", "interrupted")
    assert process(*args).returncode == 0
    for i in range(8):
        assert Path(f"out/{i:02}.png").read_bytes() == Path(f"interrupted/{i:02}.png").read_bytes()


def test_a_full_disk_is_named(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import edgegan.translate_files as files

    for name in "abc":
        put(f"in/{name}.png", noisy(8 + ord(name), 7, 3))  # of three sizes, so that each is a batch
    save = files.Work.save

    def full(work: files.Work, path: str, array: np.ndarray) -> None:
        if path.endswith("c.png"):
            raise OSError(28, "No space left on device", path)
        save(work, path, array)

    monkeypatch.setattr(files.Work, "save", full)
    failed = translate(capfd, "m.onnx", "in", "-o", "out")
    failed.fails(1, "out/c.png: No space left on device; 2 of 3 pictures are there, and the same command goes on")
    assert tree("out") == ["a.png", "b.png", "translated.json"]


def test_help_and_the_page(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command of docs/translate.md, and its code."""
    assert "edgegan translate sharper.onnx photo.jpg -o sharper.png" in Exits(capfd, "translate", "--help").out
    page = (ROOT / "docs" / "translate.md").read_text(encoding="utf-8")
    translators.twice(here / "sharper.onnx")
    nhwc = {"shape": (1, "h", "w", 3), "made": (1, "a", "b", 3), "ours": False}
    translators.save(here / "style.onnx", [translators.node("Sub", "white source")], {"white": np.float32(255)}, **nhwc)
    for name in ("photo.jpg", "poster.tif", "photos/1.jpg", "photos/more/2.png"):
        put(name, smooth(90, 120))
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    lines = "".join(blocks("sh", page)).splitlines()
    assert len(lines) >= 5
    for line in lines:
        done = subprocess.run(line, shell=True, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert read("sharper.png").shape == (180, 240, 3)
    for code in blocks("python", page):
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
