"""Pictures of every kind become upright pixels of 8 bits, and what is none is named on one line."""

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from translators import noisy

from edgegan import DataError
from edgegan.decode import MAX_PIXELS, Opened, from_pillow


def saved(image: Image.Image, format: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_turned_as_the_camera_says(orientation: int, channels: int) -> None:
    image = Image.fromarray(noisy(5, 7, channels).squeeze())
    exif = image.getexif()
    exif[0x0112] = orientation
    file = saved(image, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))))
    opened = Opened(file)
    kind, pixels = opened.kind, opened.read()
    assert kind[:4] == (*expected.shape[:2], min(channels, 3), channels == 4)
    assert pixels.colours.shape == kind[:3]
    assert np.array_equal(pixels.colours.squeeze(), expected[..., :3] if channels == 4 else expected)
    if channels == 4:
        assert pixels.alpha is not None
        assert np.array_equal(pixels.alpha, expected[..., 3])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_is_turned_once(orientation: int, compression: str | None) -> None:
    """Pillow turns these, and only these, itself."""
    image = Image.fromarray(noisy(5, 7, 3))
    turned = image.copy()
    turned.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(turned))
    opened = Opened(saved(image, "TIFF", tiffinfo={0x0112: orientation}, compression=compression))
    kind, pixels = opened.kind, opened.read()
    assert kind[:2] == expected.shape[:2]
    assert np.array_equal(pixels.colours, expected)


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def test_a_png_may_say_how_to_turn_it_after_its_pixels() -> None:
    picture = noisy(5, 7, 3)
    png = saved(Image.fromarray(picture)).getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    late = png[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + png[-12:]
    opened = Opened(io.BytesIO(late))
    assert opened.kind[:2] == (7, 5)
    assert np.array_equal(opened.read().colours, np.rot90(picture, -1))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "GIF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_what_a_picture_is_is_known_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, format: str, mode: str
) -> None:
    image = Image.fromarray(noisy(40, 50, 3)).convert(mode)
    file = saved(image.convert("RGB") if (format, mode) == ("JPEG", "P") else image, format)

    decoded: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image))
        opened = Opened(file)
    assert not decoded
    assert opened.kind[:3] == opened.read().colours.shape


def test_a_large_picture_is_taken_over_in_strips() -> None:
    """Of every kind, as Pillow converts it whole."""
    image = Image.fromarray(noisy(700, 900, 4))
    for mode, wanted in [("CMYK", "RGB"), ("P", "RGB"), ("LA", "LA"), ("RGBA", "RGBA")]:
        converted = image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode)
        pixels = from_pillow(converted)
        whole = pixels.colours if pixels.alpha is None else np.concatenate([pixels.colours, pixels.alpha[..., None]], 2)
        assert np.array_equal(whole, np.asarray(converted.convert(wanted)))
    deep = noisy(700, 900).astype(np.uint16) * 257
    assert np.array_equal(from_pillow(Image.fromarray(deep)).colours[..., 0], deep // 257)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pillow_s_modes(mode: str) -> None:
    rgba = Image.fromarray(noisy(5, 7, 4))
    way = {"La": "LA", "P": "RGB"}.get(mode, mode)
    image = rgba.convert(way).convert(mode)
    pixels = from_pillow(image)
    grey, alpha = mode in ("1", "L", "LA", "La"), mode in ("LA", "La", "RGBA", "RGBa")
    assert pixels.colours.shape == (5, 7, 1 if grey else 3)
    assert (pixels.alpha is not None) == alpha
    wanted = np.asarray(image.convert(("LA" if grey else "RGBA") if alpha else "L" if grey else "RGB"))
    assert np.array_equal(pixels.colours.squeeze(), wanted[..., :-1].squeeze() if alpha else wanted)


def test_sixteen_bits_are_rounded_to_eight() -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32768, 65407, 65535]], np.uint16)
    opened = Opened(saved(Image.fromarray(values)))
    assert opened.kind[:4] == (1, 8, 1, False)
    assert opened.read().colours.ravel().tolist() == [round(int(v) / 257) for v in values[0]]
    with pytest.raises(ValueError, match="32-bit pixels"):
        from_pillow(Image.fromarray(np.array([[70000]], np.int32)))


def test_palettes() -> None:
    grey = Image.fromarray(noisy(6, 6) // 64)
    grey.putpalette([v for v in (0, 80, 160, 240) for _ in range(3)])
    assert Opened(saved(grey)).kind[:4] == (6, 6, 1, False)
    coloured = Image.fromarray(noisy(6, 6, 3)).quantize(8)
    see_through = saved(coloured, transparency=2)
    pixels = Opened(see_through).read()
    assert pixels.alpha is not None
    assert np.array_equal(pixels.alpha == 0, np.asarray(coloured) == 2)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((4, 5), v, np.uint8)) for v in (40, 200)]
    file = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (Opened(file).read().colours == 40).all()


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    picture = saved(Image.fromarray(noisy(64, 64, 3))).getvalue()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("a text")
    (tmp_path / "half.png").write_bytes(picture[: len(picture) // 2])
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in [
        ("empty.png", "an empty file"),
        ("text.png", "not a picture, or not one of PNG, JPEG"),
        ("half.png", "truncated"),
        ("folder.png", "a folder, not a picture"),
        ("pipe.png", "not a regular file"),
        ("none.png", "No such file or directory"),
        ("null\0.png", "null byte"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            Opened(str(tmp_path / name)).read()
        assert name.partition("\0")[0] in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [14000, 60000])
def test_a_bomb_is_not_decoded(tmp_path: Path, side: int) -> None:
    """A header that claims what Pillow warns of, and what it refuses."""
    bomb = bytearray(saved(Image.new("L", (1, 1))).getvalue())
    bomb[16:24] = side.to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(DataError, match=f"{MAX_PIXELS}"):
        Opened(io.BytesIO(bytes(bomb)))
