"""Pixels, grids and picture files."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from edgegan import ArgumentError, SizeError
from edgegan._files import atomic_write, check_output
from edgegan.image import blank_sheet, columns_of, encode_png, grid, save_animation, save_image, save_pngs

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("n", "columns"),
    [(1, 1), (2, 2), (3, 3), (4, 2), (7, 3), (8, 4), (10, 5), (12, 4), (16, 4), (17, 5), (100, 10)],
)
def test_columns(n: int, columns: int) -> None:
    assert columns_of(n) == columns


def test_grid_lays_out_row_by_row() -> None:
    images = np.stack([np.full((2, 3, 1), i, np.uint8) for i in range(5)])
    sheet = grid(images, columns=3, gap=1)
    w = 255
    assert sheet[:, :, 0].tolist() == [
        [w, w, w, w, w, w, w, w, w, w, w, w, w],
        [w, 0, 0, 0, w, 1, 1, 1, w, 2, 2, 2, w],
        [w, 0, 0, 0, w, 1, 1, 1, w, 2, 2, 2, w],
        [w, w, w, w, w, w, w, w, w, w, w, w, w],
        [w, 3, 3, 3, w, 4, 4, 4, w, w, w, w, w],
        [w, 3, 3, 3, w, 4, 4, 4, w, w, w, w, w],
        [w, w, w, w, w, w, w, w, w, w, w, w, w],
    ]


def test_grid_zooms_by_whole_pixels() -> None:
    images = RANDOM.integers(0, 255, (1, 2, 2, 3), np.uint8)
    sheet = grid(images, zoom=3, gap=0)
    assert sheet.shape == (6, 6, 3)
    np.testing.assert_array_equal(sheet, np.kron(images[0], np.ones((3, 3, 1), np.uint8)))


def test_tiles_are_places_on_the_sheet() -> None:
    sheet, tiles = blank_sheet(5, (2, 3), 1, columns=3, zoom=2, gap=1)
    assert sheet.shape == (1 + 2 * 5, 1 + 3 * 7, 1)
    assert tiles.shape == (2, 3, 4, 6, 1)
    tiles[1, 2] = 9
    assert np.array_equal(np.argwhere(sheet[..., 0] == 9), np.argwhere(np.pad(np.ones((4, 6)), ((6, 1), (15, 1)))))


def test_a_sheet_beyond_the_limit_is_refused_before_memory_is_touched() -> None:
    with pytest.raises(SizeError, match="at most 2147483647"):
        blank_sheet(2**20, (64, 64), 3)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"zoom": 0}, {"gap": -1}])
def test_grid_refuses(wrong: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(wrong))} is "):
        grid(np.zeros((1, 2, 2, 1), np.uint8), **wrong)
    with pytest.raises(ArgumentError, match="N at least 1"):
        grid(np.zeros((0, 2, 2, 1), np.uint8))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".PNG"])
def test_lossless_pictures_come_back(tmp_path: Path, channels: int, suffix: str) -> None:
    array = RANDOM.integers(0, 256, (9, 7, channels), np.uint8)
    array[..., 3:] = 255  # WebP may drop the colour of what is transparent
    save_image(tmp_path / f"x{suffix}", array)
    with Image.open(tmp_path / f"x{suffix}") as picture:
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        back = np.asarray(picture.convert(mode)).reshape(array.shape)
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_close(tmp_path: Path, suffix: str) -> None:
    array = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    save_image(tmp_path / f"x{suffix}", array)
    with Image.open(tmp_path / f"x{suffix}") as picture:
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - array).max() < 12


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x.bmp", np.zeros((2, 2, 3), np.uint8), r"'\.bmp'; valid: \.png, \.jpg, \.jpeg, \.webp"),
        ("x", np.zeros((2, 2, 3), np.uint8), r"''; valid: \.png"),
        ("no/x.png", np.zeros((2, 2, 3), np.uint8), "folder .*no does not exist"),
        (".", np.zeros((2, 2, 3), np.uint8), "suffix"),
        ("folder.png", np.zeros((2, 2, 3), np.uint8), "it is a folder"),
        ("pipe.png", np.zeros((2, 2, 3), np.uint8), "not a regular file"),
        ("x.jpg", np.zeros((2, 2, 4), np.uint8), "JPEG has no transparency"),
        ("x.webp", np.zeros((16384, 1, 1), np.uint8), "16383"),
        ("x.png", np.zeros((2, 2, 2), np.uint8), "C = 1, 3 or 4"),
        ("x.png", np.zeros((2, 2), np.uint8), "C = 1, 3 or 4"),
        ("x.png", np.zeros((0, 2, 1), np.uint8), "C = 1, 3 or 4"),
        ("x.png", np.zeros((2, 2, 3), np.float32), "float32"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match=message):
        save_image(tmp_path / name, array)
    assert sorted(tmp_path.iterdir()) == before


def test_gif_frames_and_times(tmp_path: Path) -> None:
    levels = (0, 90, 255)
    frames = [np.full((4, 5, 1), level, np.uint8) for level in levels]
    save_animation(tmp_path / "x.gif", frames, [100, 50, 700])
    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.n_frames == 3  # type: ignore[attr-defined]
        assert gif.info["loop"] == 0
        for i, (level, duration) in enumerate(zip(levels, (100, 50, 700), strict=True)):
            gif.seek(i)
            assert gif.size == (5, 4)
            assert gif.info["duration"] == duration
            assert np.asarray(gif.convert("L")).tolist() == [[level] * 5] * 4


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_of_each_format(tmp_path: Path, suffix: str) -> None:
    frames = [np.full((8, 9, 3), (level, 255 - level, 0), np.uint8) for level in (0, 90, 255)]
    save_animation(tmp_path / f"x{suffix}", iter(frames), 50)
    with Image.open(tmp_path / f"x{suffix}") as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
        assert animation.info["loop"] == 0
        for i, frame in enumerate(frames):
            animation.seek(i)
            animation.load()
            assert animation.info["duration"] == 50
            assert np.abs(np.asarray(animation.convert("RGB")).astype(int) - frame).max() < 12


def test_gif_in_colour(tmp_path: Path) -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[0, ..., 0] = frames[1, ..., 2] = 255
    save_animation(tmp_path / "x.gif", frames)
    with Image.open(tmp_path / "x.gif") as gif:
        gif.seek(1)
        assert np.asarray(gif.convert("RGB"))[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("frames", "duration", "message"),
    [
        ([], 100, "at least one"),
        ([np.zeros((2, 2, 1), np.uint8)], 5, "10 or more"),
        ([np.zeros((2, 2, 1), np.uint8)], [100, 100], "1 of them"),
        ([np.zeros((2, 2, 1), np.uint8), np.zeros((2, 3, 1), np.uint8)], 100, "one size"),
    ],
)
def test_gif_refuses(tmp_path: Path, frames: list[np.ndarray], duration: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        save_animation(tmp_path / "x.gif", frames, duration)
    with pytest.raises(ArgumentError, match=r"valid: \.gif, \.webp, \.png"):
        save_animation(tmp_path / "x.mp4", [np.zeros((2, 2, 1), np.uint8)])
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_midway_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, file: object, **_: object) -> None:
        file.write(b"half a picture")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.webp"
    path.write_bytes(b"precious")
    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        save_image(path, np.zeros((2, 2, 1), np.uint8))
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["x.webp"]


def test_nothing_is_visible_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_write(path, durable=True) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with suppress(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"newer")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    plain, written, replaced = tmp_path / "plain", tmp_path / "written", tmp_path / "replaced"
    plain.write_bytes(b"")
    replaced.write_bytes(b"")
    replaced.chmod(0o640)
    for path in (written, replaced):
        with atomic_write(path) as file:
            file.write(b"x")
    assert written.stat().st_mode == plain.stat().st_mode
    assert replaced.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "x")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "x").read_bytes() == b"x"


def test_a_name_of_the_greatest_length(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def test_devices_are_never_replaced() -> None:
    with pytest.raises(ArgumentError, match="not a regular file"):
        check_output("/dev/full")


def test_a_folder_without_permission() -> None:
    code = """
import os, sys
from edgegan._files import check_output
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    check_output(sys.argv[1])
except ValueError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are out of another user's reach
        os.chmod(folder, 0o555)
        command = [sys.executable, "-c", code, f"{folder}/x.png"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"cannot write {folder}/x.png: no permission to write in the folder {folder}\n"


@pytest.mark.parametrize("channels", [1, 3])
def test_many_png_files_are_those_written_one_by_one(channels: int, backend: ModuleType, tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (5, 9, 7, channels), np.uint8)
    odd = os.fsdecode(b"n\xffme.png")
    texts = [{"number": "ä"}, {"number": "1", "seed": "7"}, {}, {}, {}]
    names = ["0.png", odd, None, "3.png", "4.png"]
    (tmp_path / "3.png").write_bytes(b"there before")
    files = [None if n is None else (str(tmp_path / n), t) for n, t in zip(names, texts, strict=True)]
    save_pngs(images, files, str(tmp_path / ".temporary"))
    assert sorted(os.listdir(tmp_path)) == sorted(n for n in names if n)
    for image, name, text in zip(images, names, texts, strict=True):
        if name:
            assert (tmp_path / name).read_bytes() == encode_png(image, text)
    save_pngs(images[:, ::-1, :, :], files, str(tmp_path / ".temporary"))  # rows from below
    assert (tmp_path / "4.png").read_bytes() == encode_png(images[4, ::-1])


def test_what_stops_many_png_files_leaves_the_ones_before(backend: ModuleType, tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 1), np.uint8)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "file").touch()
    files = [(str(tmp_path / name), {}) for name in ("a.png", "folder.png", "c.png")]
    with pytest.raises(OSError, match=r"(not empty|Is a directory)"):
        save_pngs(images, files, str(tmp_path / ".temporary"))
    assert sorted(os.listdir(tmp_path)) == ["a.png", "folder.png"]
    with pytest.raises(FileNotFoundError):
        save_pngs(images, [(str(tmp_path / "no" / "a.png"), {}), None, None], str(tmp_path / "no" / ".temporary"))
    (tmp_path / ".temporary").symlink_to("/dev/null")
    with pytest.raises(FileExistsError):  # never over what somebody put there, a link for one
        save_pngs(images, [(str(tmp_path / "a.png"), {}), None, None], str(tmp_path / ".temporary"))
    with pytest.raises(ArgumentError, match="keyword"):
        save_pngs(images, [(str(tmp_path / "b.png"), {"": "x"}), None, None], str(tmp_path / ".t"))
    with pytest.raises(ArgumentError, match="3 pictures for 1 files"):
        save_pngs(images, [(str(tmp_path / "b.png"), {})], str(tmp_path / ".t"))
    assert sorted(os.listdir(tmp_path)) == [".temporary", "a.png", "folder.png"]
