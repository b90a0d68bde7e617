"""Training sets: every kind of source, the cache, and the order of showing them."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgegan import noise
from edgegan.errors import ArgumentError, DataError
from edgegan.trainer.data import default_root, entry, open_dataset, pictures, sample_order
from support import RNG, random_picture, save_picture

pytestmark = pytest.mark.usefixtures("root")


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


# Sources ------------------------------------------------------------------------------------------


def test_folder_without_classes_keeps_pixels_in_order_of_names(folder):
    arrays = {f"{i}.png": random_picture() for i in (3, 1, 2)}
    for name, array in arrays.items():
        save_picture(folder / name, array)
    (folder / "notes.txt").write_text("not a picture")
    (folder / "Thumbs.db").write_bytes(b"\0")
    (folder / ".hidden.png").write_bytes(b"\0")
    dataset = open_dataset(str(folder))
    assert (len(dataset), dataset.name, dataset.classes, dataset.labels) == (3, "pets", (), None)
    np.testing.assert_array_equal(dataset.images, [arrays["1.png"], arrays["2.png"], arrays["3.png"]])
    assert dataset.images.dtype == np.uint8
    assert isinstance(dataset.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 0


def test_subfolders_are_classes(folder):
    for name in ("dog/1.png", "cat/b.png", "cat/deep/a.png", "cat/c.jpg"):
        save_picture(folder / name)
    dataset = open_dataset(str(folder))
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.labels, [0, 0, 0, 1])


def test_a_folder_around_everything_is_looked_through(folder):
    for name in ("train/dog/1.png", "train/cat/1.png"):
        save_picture(folder / name)
    assert open_dataset(str(folder)).classes == ("cat", "dog")


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "ppm"])
def test_lossless_formats(folder, suffix):
    arrays = [random_picture(), random_picture()]
    for i, array in enumerate(arrays):
        save_picture(folder / f"{i}.{suffix.upper()}", array, lossless=True)
    np.testing.assert_array_equal(open_dataset(str(folder)).images, arrays)


def test_gif_gives_its_first_frame(folder):
    frames = [Image.new("L", (8, 8), value) for value in (50, 200)]
    for i in range(2):
        frames[0].save(folder / f"{i}.gif", save_all=True, append_images=frames[1:])
    assert (open_dataset(str(folder)).images == 50).all()


def test_zip_gives_what_the_folder_gives(folder, tmp_path):
    for name in ("dog/1.png", "cat/1.png", "cat/2.png"):
        save_picture(folder / name)
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, Path("pets") / file.relative_to(folder))
        archive.writestr("__MACOSX/pets/._1.png", b"resource fork")
        archive.writestr("pets/README.md", b"text")
    a, b = open_dataset(str(folder)), open_dataset(str(path))
    assert (a.digest, a.classes, a.name) == (b.digest, b.classes, b.name)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 8, 6), None), ((5, 8, 6, 1), None), ((5, 8, 6, 3), None), ((5, 3, 8, 6), (0, 2, 3, 1))],
)
def test_npy_layouts(tmp_path, shape, axes):
    array = RNG.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    expected = array[..., None] if array.ndim == 3 else array.transpose(axes) if axes else array
    np.testing.assert_array_equal(open_dataset(str(tmp_path / "a.npy")).images, expected)


@pytest.mark.parametrize("dtype", [np.float32, ">u2", np.int64])
def test_whole_numbers_of_other_types_are_taken(tmp_path, dtype):
    array = RNG.integers(0, 256, (4, 5, 5))
    np.save(tmp_path / "a.npy", array.astype(dtype))
    np.testing.assert_array_equal(open_dataset(str(tmp_path / "a.npy")).images[..., 0], array)


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x_train", "y_train"), ("other", "y")])
def test_npz_with_labels(tmp_path, x, y):
    np.savez(tmp_path / "a.npz", **{x: random_picture(4, 8), y: np.array([[7], [3], [7], [9]])})
    dataset = open_dataset(str(tmp_path / "a.npz"))
    assert dataset.classes == ("3", "7", "9")
    np.testing.assert_array_equal(dataset.labels, [1, 0, 1, 2])


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_folder_and_file(tmp_path, pack):
    images, end = RNG.integers(0, 256, (4, 7, 5)), ".gz" if pack is gzip.compress else ""
    (tmp_path / "idx").mkdir()
    path = tmp_path / "idx" / f"train-images-idx3-ubyte{end}"
    path.write_bytes(pack(idx(images)))
    (tmp_path / "idx" / f"train-labels-idx1-ubyte{end}").write_bytes(pack(idx(np.array([1, 0, 1, 1]))))
    for source in (path.parent, path):
        dataset = open_dataset(str(source))
        np.testing.assert_array_equal(dataset.images[..., 0], images)
        np.testing.assert_array_equal(dataset.labels, [1, 0, 1, 1])
        assert dataset.classes == ("0", "1")


def test_digits_is_the_first_thousand_of_each_mnist_digit():
    dataset = open_dataset("digits")
    assert dataset.images.shape == (10_000, 28, 28, 1)
    assert dataset.classes == tuple("0123456789")
    assert np.bincount(dataset.labels).tolist() == [1000] * 10
    assert dataset.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as MNIST itself begins
    pixels = hashlib.sha256(dataset.images.tobytes()).hexdigest()
    assert pixels == "f83ddfb6346264b52ed4a5c96f7891bb59b5b151c2cb216648d82f22e3c85195"


# The cache ----------------------------------------------------------------------------------------


@pytest.fixture
def decodes(monkeypatch):
    """A list that grows with every picture decoded from a file."""
    seen = []
    real = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda stream: seen.append(1) or real(stream))
    return seen


def test_a_second_open_decodes_nothing(folder, decodes):
    for i in range(3):
        save_picture(folder / f"{i}.png")
    steps = []
    first = open_dataset(str(folder), progress=lambda *step: steps.append(step))
    assert steps[-1] == (3, 3, "decoding pictures")
    assert len(decodes) == 3
    second = open_dataset(str(folder), progress=lambda *step: pytest.fail("decoded again"))
    assert len(decodes) == 3
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.images, second.images)
    open_dataset(str(folder), resolution=4)
    assert len(decodes) == 6, "another resolution is another entry"


def test_a_changed_source_is_decoded_again(folder):
    for i in range(3):
        save_picture(folder / f"{i}.png")
    first = open_dataset(str(folder))
    before = (folder / "1.png").stat()
    changed = random_picture()
    save_picture(folder / "1.png", changed)
    os.utime(folder / "1.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    second = open_dataset(str(folder))
    np.testing.assert_array_equal(second.images[1], changed)
    assert first.digest != second.digest
    (folder / "2.png").unlink()
    assert len(open_dataset(str(folder))) == 2


def test_a_damaged_entry_is_made_again(folder, root, decodes):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        save_picture(folder / name)
    good = open_dataset(str(folder))
    (entry,) = (root / "decoded").iterdir()
    pixels = (entry / "images.npy").read_bytes()

    def damage_meta():
        (entry / "meta.json").write_bytes(b"{")

    def damage_images():
        (entry / "images.npy").write_bytes(pixels[:-1])

    def damage_labels():
        np.save(entry / "labels.npy", np.array([0, 1, 2]))

    def cut_labels():
        np.save(entry / "labels.npy", np.array([0, 1]))

    def lose_labels():
        (entry / "labels.npy").unlink()

    for n, damage in enumerate((damage_meta, damage_images, damage_labels, cut_labels, lose_labels), 2):
        damage()
        assert open_dataset(str(folder)).digest == good.digest
        assert len(decodes) == 3 * n, damage.__name__
        assert list((root / "decoded").iterdir()) == [entry], "nothing is left over"


def test_digest_depends_on_shape_pixels_and_labels(tmp_path):
    array, labels = random_picture(4, 6), np.array([0, 1, 0, 1])
    variants = [
        {"images": array},
        {"images": array.reshape(4, 3, 6)},
        {"images": array, "labels": labels},
        {"images": array, "labels": 1 - labels},
        {"images": 255 - array},
    ]
    digests = []
    for i, arrays in enumerate([*variants, variants[0]]):
        np.savez(tmp_path / f"{i}.npz", **arrays)
        digests.append(open_dataset(str(tmp_path / f"{i}.npz")).digest)
    assert len(set(digests)) == len(variants)
    assert digests[0] == digests[-1]


def test_no_room_is_said_before_the_disk_is_full(folder, root, monkeypatch):
    for i in range(2):
        save_picture(folder / f"{i}.png")
    monkeypatch.setattr(entry.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 8 * 8 * 3 - 1))
    with pytest.raises(DataError, match="--data-root"):
        open_dataset(str(folder))
    assert not list((root / "decoded").iterdir())


def test_what_a_killed_process_left_is_removed_after_a_day(folder, root):
    for i in range(2):
        save_picture(folder / f"{i}.png")
    left = [root / "decoded" / f".building-{name}" for name in ("old", "new")]
    for path in left:
        path.mkdir(parents=True)
        (path / "images.npy").touch()
    os.utime(left[0], (0, 0))
    open_dataset(str(folder))
    assert [path.exists() for path in left] == [False, True]


def test_a_failed_write_leaves_nothing(folder, root, monkeypatch):
    for i in range(2):
        save_picture(folder / f"{i}.png")

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entry.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        open_dataset(str(folder))
    assert not list((root / "decoded").iterdir())


def test_two_processes_at_the_same_time(folder, root):
    for i in range(200):
        save_picture(folder / f"{i}.png", random_picture(32, 32))
    code = "import sys; from edgegan.trainer.data import open_dataset as o; print(o(sys.argv[1]).digest)"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) for _ in range(2)]
    digests = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(digests) == 1
    assert len(list((root / "decoded").iterdir())) == 1


def test_where_the_data_root_is(monkeypatch, tmp_path):
    assert default_root() == tmp_path / "root"
    monkeypatch.delenv("EDGEGAN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "edgegan"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_root() == tmp_path / "home" / ".cache" / "edgegan"


# The order ----------------------------------------------------------------------------------------


def test_every_epoch_is_a_permutation_of_its_own():
    epochs = sample_order(5, 0, 300, 100).reshape(3, 100)
    assert epochs.dtype == np.int64
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(100))
    assert (epochs[0] != epochs[1]).any()
    assert (epochs[1] != epochs[2]).any()
    assert (sample_order(6, 0, 100, 100) != epochs[0]).any()


@pytest.mark.parametrize("batch", [1, 7, 64, 250])
def test_order_does_not_depend_on_batches(batch):
    whole = sample_order(5, 0, 500, 100)
    parts = [sample_order(5, i, min(batch, 500 - i), 100) for i in range(0, 500, batch)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(sample_order(5, 333, 20, 100), whole[333:353])  # in no order of calls
    assert sample_order(5, 10**12, 3, 100).shape == (3,)


def test_order_is_the_argsort_of_the_training_stream():
    words = noise.words(noise.derive_seed(5, 0), 1, 100, start=2, stream=noise.STREAM_TRAINING)[0]
    np.testing.assert_array_equal(sample_order(5, 200, 100, 100), np.argsort(words, kind="stable"))


def test_order_arguments():
    assert sample_order(0, 3, 0, 1).shape == (0,)
    for arguments in ((0, -1, 1, 1), (0, 0, -1, 1), (0, 0, 1, 0)):
        with pytest.raises(ArgumentError, match="valid"):
            sample_order(*arguments)
