"""What is said of sources and pictures that cannot be used."""

import copy
import gzip
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from edgegan.errors import ArgumentError, DataError
from edgegan.trainer.data import default_root, open_dataset
from support import random_picture, save_picture

pytestmark = pytest.mark.usefixtures("root")


def error_of(source, **options):
    """The message of the DataError that opening raises: one line, and nothing half-built is left."""
    with pytest.raises(DataError) as caught:
        open_dataset(str(source), **options)
    message = str(caught.value)
    assert message.isprintable(), "one line, no control characters"
    decoded = default_root() / "decoded"
    assert not decoded.exists() or not list(decoded.iterdir())
    return message


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def test_missing_source_names_the_sets(tmp_path):
    assert "no such data" in error_of("")
    message = error_of(tmp_path / "nothing")
    assert "nothing" in message
    assert "digits, mnist, fashion-mnist" in message


def test_empty_and_pictureless_folders(folder):
    assert "no pictures" in error_of(folder)
    (folder / "a.txt").write_text("x")
    assert ".png" in error_of(folder)


def test_one_picture_is_too_few(folder):
    save_picture(folder / "a.png")
    assert "at least 2" in error_of(folder)


def test_broken_pictures_are_counted_and_the_first_named(folder):
    save_picture(folder / "good.png")
    (folder / "a-empty.png").touch()
    (folder / "b-text.jpg").write_text("hello")
    (folder / "c-cut.png").write_bytes(save_picture(folder / "c-cut.png", random_picture(64, 64)).read_bytes()[:5000])
    (folder / "d-cut.jpg").write_bytes(save_picture(folder / "d-cut.jpg", random_picture(64, 64)).read_bytes()[:2000])
    (folder / "e-\x1b[31m.png").write_text("escape")
    message = error_of(folder)
    assert message.startswith("5 of 6 pictures")
    for part in ("a-empty.png (an empty file)", "b-text.jpg (not a picture", "c-cut.png (", "and 2 more"):
        assert part in message


def test_names_are_printed_escaped(folder):
    save_picture(folder / "good.png")
    (folder / "\x1b[31m.png").write_text("escape")
    assert r"\x1b[31m.png" in error_of(folder)


def test_an_eps_named_png_is_not_run(folder):
    save_picture(folder / "good.png")
    (folder / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    assert "a.png (not a picture" in error_of(folder)


@pytest.mark.parametrize("side", [9_500, 14_000])  # above Pillow's warning, above its error
def test_decompression_bombs(folder, side):
    save_picture(folder / "good.png")
    Image.new("1", (side, side)).save(folder / "bomb.png")
    assert "bomb.png" in error_of(folder, resolution=8)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("a.png", "b.png", "cats/c.png"), "both pictures and folders (cats)"),
        (("a.png", "b.png", "c.heic"), "c.heic, and .heic is not read"),
        (("cat/a.png", "dog/b.png", "emu/note.txt"), "emu in"),
    ],
)
def test_folders_that_would_lose_pictures(folder, files, said):
    for name in files:
        path = folder / name
        if path.suffix == ".png":
            save_picture(path)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text("x")
    assert said in error_of(folder)
    archive = folder.parent / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(folder.rglob("*")):
            out.write(file, file.relative_to(folder))
    assert said in error_of(archive)


def test_links_to_nothing_pipes_and_loops(folder):
    save_picture(folder / "cat/a.png")
    save_picture(folder / "dog/a.png")
    bad = folder / "cat" / "b.png"
    bad.symlink_to(folder / "gone.png")
    assert "b.png is a link to nothing" in error_of(folder)
    bad.unlink()
    bad.symlink_to(bad)
    assert "b.png is a link to nothing" in error_of(folder)
    bad.unlink()
    os.mkfifo(bad)
    assert "b.png is not a regular file" in error_of(folder)
    bad.unlink()
    (folder / "cat" / "loop").symlink_to(folder)
    assert "loop leads to a folder that was read before" in error_of(folder)


def test_different_sizes_ask_for_a_resolution(folder):
    save_picture(folder / "a.png", random_picture(8, 8))
    save_picture(folder / "b.png", random_picture(8, 9))
    message = error_of(folder)
    assert "a.png is 8 x 8" in message
    assert "b.png is 9 x 8" in message
    assert "--resolution" in message
    assert open_dataset(str(folder), resolution=8).images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.linspace(-1, 1, 200, dtype=np.float32).reshape(2, 10, 10), "float32 values from -1 to 1"),
        (np.full((2, 4, 4), np.nan), "whole numbers 0..255"),
        (np.full((2, 4, 4), 300), "int64 values from 300 to 300"),
        (np.full((2, 4, 4), "x"), "<U1"),
        (np.array([{}, {}]), "readable"),
        (np.zeros((2, 4, 4, 2), np.uint8), "[2, 4, 4, 2]"),
        (np.zeros((2, 3, 4, 3), np.uint8), "C = 1 or 3"),
        (np.zeros((0, 4, 4), np.uint8), "[0, 4, 4]"),
        (np.zeros((1, 4, 4), np.uint8), "at least 2"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, array, said):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert said in error_of(tmp_path / "a.npy")


def test_npz_that_is_ambiguous_or_does_not_fit(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=random_picture(4), b=random_picture(4))
    assert "a, b" in error_of(path)
    np.savez(path, images=random_picture(4), labels=np.arange(3))
    assert "labels of shape [3]" in error_of(path)
    path.write_bytes(path.read_bytes()[:100])
    assert "not a readable" in error_of(path)


def test_files_that_are_empty_unknown_or_cut(tmp_path):
    for name in ("a.npy", "a.npz", "a.zip", "train-images-idx3-ubyte"):
        (tmp_path / name).touch()
        assert "empty file" in error_of(tmp_path / name)
    (tmp_path / "a.npy").write_bytes(b"hello, this is no array")
    assert "a.npy is not a readable" in error_of(tmp_path / "a.npy")
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    assert "not a kind of file" in error_of(tmp_path / "a.rar")
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((4, 5, 5)))[:-1])
    assert "cut short" in error_of(path)
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)  # promises 2^96 bytes
    assert "cut short" in error_of(path)
    path.write_bytes(gzip.compress(idx(random_picture(4)))[:-9])
    assert "damaged" in error_of(path)


def test_zips_that_are_not_to_be_trusted(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\3\4 and no more")
    assert "not a readable zip" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.png", b"x")
    assert "outside" in error_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"x" * 1000)
    assert "deflate" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
        archive.writestr("./a.png", b"y")
    assert "a.png twice" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(save_picture(tmp_path / "p.png", random_picture(64, 64)), "0.png")
        for i in range(1, 10):  # ten names for the same bytes
            twin = copy.copy(archive.filelist[0])
            twin.filename = f"{i}.png"
            archive.filelist.append(twin)
    assert "overlap" in error_of(path)


@pytest.mark.parametrize("option", [{"resolution": 0}, {"resolution": 9000}, {"channels": 2}])
def test_arguments_out_of_range(option):
    with pytest.raises(ArgumentError, match="valid: 1"):
        open_dataset("digits", **option)
