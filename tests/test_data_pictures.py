"""How pictures are treated on their way into a training set, and what is said of bad ones."""

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


# Pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize(("orientation", "turned"), [(3, (2, 2)), (6, (2, 0)), (8, (0, 2))])
def test_exif_rotation(folder, suffix, orientation, turned):
    """A white corner block at the top left of the stored pixels comes where a viewer shows it."""
    stored = np.zeros((32, 32), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(2):
        save_picture(folder / f"{i}.{suffix}", stored, exif=exif.tobytes())
    blocks = open_dataset(str(folder), channels=1).images[0, ..., 0].reshape(4, 8, 4, 8).mean((1, 3)) > 128
    row, column = 3 * (turned[1] == 2), 3 * (turned[0] == 2)
    assert np.argwhere(blocks).tolist() == [[row, column]]


def test_transparency_is_laid_on_white(folder):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (200, 10, 30, 255)
    save_picture(folder / "a.png", rgba)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([200, 10, 30, 0, 0, 0])
    palette.paste(1, (0, 2, 4, 4))
    palette.save(folder / "b.png", transparency=1)
    for image in open_dataset(str(folder)).images:
        assert (image[:2] == (200, 10, 30)).all()
        assert (image[2:] == 255).all()


def test_grey_with_transparency_stays_grey(folder):
    la = np.zeros((4, 4, 2), np.uint8)
    la[:2] = (90, 255)
    for i in range(2):
        save_picture(folder / f"{i}.png", la)
    images = open_dataset(str(folder)).images
    assert images.shape == (2, 4, 4, 1)
    assert images[0, :, 0, 0].tolist() == [90, 90, 255, 255]


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_grey_of_16_bits_is_scaled(folder, suffix):
    values = np.array([[0, 128, 129, 257, 257 * 77, 65535]], np.uint16)
    for i in range(2):
        if suffix == "pgm":
            (folder / f"{i}.pgm").write_bytes(b"P5 6 1 65535\n" + values.astype(">u2").tobytes())
        else:
            save_picture(folder / f"{i}.{suffix}", values)
    assert open_dataset(str(folder)).images[0].ravel().tolist() == [0, 0, 1, 1, 77, 255]


def test_cmyk_and_mixed_channels(folder):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(folder / "red.jpg")
    save_picture(folder / "white.png", np.full((8, 8), 255, np.uint8))
    images = open_dataset(str(folder)).images
    assert images.shape == (2, 8, 8, 3)
    assert images[0, 0, 0, 0] > 220
    assert images[0, 0, 0, 1:].max() < 40
    assert (images[1] == 255).all()
    grey = open_dataset(str(folder), channels=1).images
    assert grey.shape == (2, 8, 8, 1)
    assert 60 < grey[0, 0, 0, 0] < 95  # ITU-R 601: 0.299 of 255 for red


def test_resolution_crops_the_centre_and_averages(folder):
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = 100
    save_picture(folder / "wide.png", wide)
    save_picture(folder / "tall.png", wide.T)
    dataset = open_dataset(str(folder), resolution=4, channels=3)
    assert dataset.images.shape == (2, 4, 4, 3)
    assert (dataset.images == 100).all(), "the dark sides lie outside the central square"
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(200)
    np.save(folder.parent / "checks.npy", np.stack([checks] * 2))
    small = open_dataset(str(folder.parent / "checks.npy"), resolution=8).images
    assert abs(small[0, 2:6, 2:6].astype(int) - 100).max() <= 2, "a resize without averaging shows 0 or 200"


# Bad input ----------------------------------------------------------------------------------------


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
