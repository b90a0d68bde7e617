"""What becomes of pictures of every kind on their way into a training set."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from edgegan.errors import ArgumentError, DataError
from edgegan.trainer.data import FITS, open_dataset
from support import random_picture, save_picture

pytestmark = pytest.mark.usefixtures("root")


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


@pytest.mark.parametrize(("fit", "columns"), [("crop", [50, 50, 50, 50]), ("stretch", [200, 50, 50, 200])])
def test_fits_without_bars(folder, fit, columns):
    """A picture of 16 x 32 whose outer quarters are light."""
    wide = np.full((16, 32), 200, np.uint8)
    wide[:, 8:24] = 50
    save_picture(folder / "wide.png", wide)
    save_picture(folder / "tall.png", wide.T)
    wide, tall = open_dataset(str(folder), resolution=16, fit=fit).images[..., 0][::-1]
    np.testing.assert_array_equal(wide, tall.T)
    np.testing.assert_allclose(wide[:, 2::4], [columns] * 16, atol=2)  # Lanczos rings


def test_pad_shows_the_whole_picture_between_white_bars(folder):
    for name, shape in (("a", (8, 16)), ("b", (16, 8)), ("c", (16, 16)), ("d", (3, 300))):
        save_picture(folder / f"{name}.png", np.full((*shape, 3), (10, 20, 30), np.uint8))
    wide, tall, square, thread = open_dataset(str(folder), resolution=16, fit="pad").images
    white = (wide == 255).all(2)
    assert white.all(1).tolist() == [True] * 4 + [False] * 8 + [True] * 4
    assert not white[4:12].any()
    np.testing.assert_array_equal(tall, wide.transpose(1, 0, 2))
    assert (square == (10, 20, 30)).all()
    assert ((thread != 255).any(2).sum(0) == 1).all(), "one row is left of it"


def test_fit_is_part_of_the_key_and_needs_a_resolution(folder):
    save_picture(folder / "a.png", random_picture(8, 16))
    save_picture(folder / "b.png", random_picture(8, 16))
    digests = {open_dataset(str(folder), resolution=8, fit=fit).digest for fit in FITS for _ in range(2)}
    assert len(digests) == len(FITS) == 4
    with pytest.raises(ArgumentError, match="valid: crop, pad, stretch, tiles"):
        open_dataset(str(folder), resolution=8, fit="fill")
    with pytest.raises(ArgumentError, match="--resolution"):
        open_dataset(str(folder), fit="pad")


@pytest.mark.parametrize("kind", ["folder", "classes", "npy"])
def test_tiles_are_the_picture_itself_with_its_label(folder, kind):
    pictures = [
        random_picture(21, 34),
        random_picture(21, 34),
        random_picture(16, 9) if kind != "npy" else random_picture(21, 34),
    ]
    for i, picture in enumerate(pictures):
        save_picture(folder / ("ab"[i % 2] if kind == "classes" else "") / f"{i}.png", picture)
    source = folder
    if kind == "npy":
        source = folder.parent / "set.npy"
        np.save(source, np.stack(pictures))
    dataset = open_dataset(str(source), resolution=8, fit="tiles")
    order = [0, 2, 1] if kind == "classes" else [0, 1, 2]
    expected = []
    for i in order:
        h, w = (side % 8 // 2 for side in pictures[i].shape[:2])
        for y in range(h, pictures[i].shape[0] - 7, 8):
            expected += [pictures[i][y : y + 8, x : x + 8] for x in range(w, pictures[i].shape[1] - 7, 8)]
    np.testing.assert_array_equal(dataset.images, np.stack(expected))
    if kind == "classes":
        assert dataset.labels.tolist() == [0] * (8 + 2) + [1] * 8
    again = open_dataset(str(source), resolution=8, fit="tiles")
    assert again.digest == dataset.digest


def test_of_a_large_picture_tiles_are_spread_evenly_and_a_small_one_is_named(folder):
    rows = np.repeat(np.arange(250, dtype=np.uint8), 4)[:, None].repeat(64, 1)
    save_picture(folder / "large.png", rows)
    save_picture(folder / "other.png", rows)
    images = open_dataset(str(folder), resolution=4, fit="tiles").images
    assert images.shape == (1024, 4, 4, 1)
    shown = np.bincount(images[:512, 0, 0, 0], minlength=250)
    assert shown.min() >= 1
    assert shown.max() <= 3
    save_picture(folder / "small.png", random_picture(4, 3, 1))
    with pytest.raises(DataError, match=r"small.png \(3 x 4 pixels: smaller than a tile of 4 x 4\)"):
        open_dataset(str(folder), resolution=4, fit="tiles")
    np.save(folder.parent / "set.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"picture 0 \(8 x 8 pixels: smaller than a tile of 9 x 9\)"):
        open_dataset(str(folder.parent / "set.npy"), resolution=9, fit="tiles")


def png_of_16_bits(colour_type, values):
    """One row of a PNG by the specification, since Pillow writes no colour in 16 bits."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    header = struct.pack(">IIBBBBB", len(values) // channels, 1, 16, colour_type, 0, 0, 0)
    data = zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (png_of_16_bits(0, [0, 129, 65535]), [[0], [1], [255]]),  # grey is rounded
        (png_of_16_bits(2, [0, 255, 65535, 257, 25700, 65407]), [[0, 0, 255], [1, 100, 255]]),  # colour is cut
        (png_of_16_bits(4, [0, 65535, 0, 0]), [[0, 0, 0], [255, 255, 255]]),  # grey with transparency: read as colour
        (png_of_16_bits(6, [65535, 0, 0, 65535, 0, 0, 0, 0]), [[255, 0, 0], [255, 255, 255]]),
        (b"P6 1 1 65535\n" + b"\xff\xff\0\0\x64\x64", [[255, 0, 100]]),
        (b"P4 8 1\n\xa0", [[0], [255], [0], [255], [255], [255], [255], [255]]),
    ],
)
def test_pixels_of_other_depths(folder, data, pixels):
    for i in range(2):
        (folder / f"{i}.{'png' if data[1:4] == b'PNG' else 'pnm'}").write_bytes(data)
    assert open_dataset(str(folder)).images[0, 0].tolist() == pixels


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "options", "expected"),
    [
        ("CMYK", (0, 255, 255, 0), "tif", {}, (255, 0, 0)),
        ("CMYK", (0, 0, 0, 155), "jpg", {}, (100, 100, 100)),
        ("YCbCr", (128, 128, 128), "tif", {}, (128, 128, 128)),
        ("LA", (90, 128), "png", {}, (172,)),
        ("LA", (90, 128), "tif", {}, (172,)),
        ("L", 7, "png", {"transparency": 7}, (255,)),
        ("RGB", (1, 2, 3), "png", {"transparency": (1, 2, 3)}, (255, 255, 255)),
        ("RGBA", (200, 10, 30, 128), "webp", {"lossless": True}, (227, 132, 142)),
        ("P", 1, "png", {"transparency": b"\xff\x80"}, (227, 132, 142)),
        ("P", 1, "gif", {"transparency": 1}, (255, 255, 255)),
        ("P", 2, "png", {}, (60,)),
    ],
)
def test_modes(folder, mode, colour, suffix, options, expected):
    """A half-transparent (200, 10, 30) on white is (227, 132, 142); a palette of greys alone is grey."""
    image = Image.new(mode, (8, 8), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, *((200, 10, 30) if colour == 1 else (9, 9, 9)), 60, 60, 60])
    for i in range(2):
        image.save(folder / f"{i}.{suffix}", **options)
    images = open_dataset(str(folder)).images
    assert (np.abs(images.astype(int) - expected) <= 1).all()
    assert images.shape[3] == len(expected)


@pytest.mark.parametrize(
    ("pixels", "said"), [(np.float32([[0.5]]), "floating-point pixels"), (np.int32([[70000]]), "32-bit pixels")]
)
def test_pixels_without_a_range_are_refused(folder, pixels, said):
    for i in range(2):
        save_picture(folder / f"{i}.tif", pixels)
    with pytest.raises(DataError, match=said):
        open_dataset(str(folder))
