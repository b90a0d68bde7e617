"""Image to image: any size, in tiles without seams, whatever the channels are, within bounds of memory."""

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import translators
from onnx import helper
from PIL import Image
from translators import REACH, noisy, smooth

from edgegan import ArgumentError, DataError, ForeignTranslator, ModelError, _backend, _pure, load
from edgegan.tiles import Axis, blend, luminance, take
from edgegan.translate import WORKING_MEMORY, Kind, Tiling, layout_of, memory_of, sharing
from support import needs_c

RANDOM = np.random.default_rng(7)
LINUX = sys.platform == "linux"


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest of each pixel's channels, [H, W]."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b).max(axis=-1)


# The work on tiles


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 5), (2, 3), (5, 4), (40, 33)])
def test_a_tile_is_what_numpy_pads(backend: ModuleType, size: tuple[int, int], channels: int) -> None:
    """Against numpy.pad(mode="reflect"), beyond one reflection too."""
    h, w = size
    pictures = noisy(2, h, w, channels)
    padded = np.pad(pictures, ((0, 0), (30, 30), (30, 30), (0, 0)), mode="reflect")
    assert channels == 1 or padded.std() > 0 or size == (1, 1)
    whole = take(pictures, -30, -30, padded.shape[1:3])
    assert np.array_equal(whole, (padded.astype(np.float32) / np.float32(127.5) - np.float32(1)).transpose(0, 3, 1, 2))
    for y, x, high, wide in [(0, 0, h, w), (-7, 3, 9, 20), (5, -11, 1, 30), (29, 29, 1, 1)]:
        tile = take(pictures, y, x, (high, wide))
        assert np.array_equal(tile, whole[:, :, 30 + y : 30 + y + high, 30 + x : 30 + x + wide])


LAYOUTS = {
    "mirrored": lambda x: x[:, ::-1, ::-1],
    "turned": lambda x: x.swapaxes(1, 2),
    "repeated grey": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "a part": lambda x: np.concatenate([x, x], axis=3)[..., 1:4],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiles_of_any_layout(backend: ModuleType, layout: str) -> None:
    pictures = LAYOUTS[layout](noisy(2, 21, 300, 3))
    assert np.array_equal(take(pictures, -5, -9, (40, 350)), take(pictures.copy(), -5, -9, (40, 350)))


@pytest.mark.parametrize("across", [False, True])
def test_blending_is_a_straight_line(backend: ModuleType, across: bool) -> None:
    a, b = RANDOM.uniform(-1, 1, (2, 2, 3, 8, 300)).astype(np.float32)
    if across:
        a, b = a.swapaxes(2, 3), b.swapaxes(2, 3)
    made = b.copy()
    blend(a, made, across=across)
    w = ((np.arange(8) + 0.5) / 8).reshape((1, 8) if across else (8, 1))
    assert np.abs(made - (a * (1 - w) + b * w)).max() < 2e-7
    same = a.copy()
    blend(a, same, across=across)
    assert np.array_equal(same, a)  # what agrees is not touched


@needs_c
def test_c_and_numpy_give_the_same_bits() -> None:
    for _ in range(300):
        n, c = RANDOM.integers(1, 5, 2)
        h, w, high, wide = RANDOM.integers(1, 40, 4)
        y, x = (int(v) for v in RANDOM.integers(-60, 60, 2))
        pictures = noisy(n, h, w, c)
        tiles = [np.zeros((n, c, high, wide), np.float32) for _ in range(2)]
        _backend.core.tile(pictures, y, x, tiles[0])
        _pure.tile(pictures, y, x, tiles[1])
        assert tiles[0].tobytes() == tiles[1].tobytes()
        before = RANDOM.standard_normal(tiles[0].shape).astype(np.float32)
        weights = RANDOM.uniform(0, 1, high).astype(np.float32)
        _backend.core.blend(before, weights, tiles[0])
        _pure.blend(before, weights, tiles[1])
        assert tiles[0].tobytes() == tiles[1].tobytes()


@needs_c
def test_the_c_functions_refuse_what_does_not_fit() -> None:
    pictures, out = noisy(1, 4, 4, 3), np.zeros((1, 3, 4, 4), np.float32)
    weights = np.zeros(4, np.float32)
    for call, error in [
        (lambda: _backend.core.tile(pictures[..., :2], 0, 0, out), ValueError),
        (lambda: _backend.core.tile(pictures, 2**31, 0, out), ValueError),
        (lambda: _backend.core.tile(pictures[:, :0], 0, 0, out), ValueError),
        (lambda: _backend.core.tile(pictures, 0, 0, np.broadcast_to(np.float32(0), out.shape)), ValueError),
        (lambda: _backend.core.tile(pictures.astype(np.float32), 0, 0, out), ValueError),
        (lambda: _backend.core.blend(out, weights[:3], out.copy()), ValueError),
        (lambda: _backend.core.blend(out, weights[::-1], out.copy()), ValueError),
        (lambda: _backend.core.blend(out[..., :3], weights, out.copy()), ValueError),
        (lambda: _backend.core.blend(out, weights.astype(np.float64), out.copy()), ValueError),
    ]:
        with pytest.raises(error):
            call()
    assert not out.any()


def test_luminance_is_pillow_s() -> None:
    pixels = noisy(300, 200, 3)
    assert np.array_equal(luminance(pixels)[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "multiple"), [(100, 32, 8, 1), (4000, 512, 64, 8), (33, 32, 0, 1)]
)
def test_tiles_cover_the_length_evenly(length: int, tile: int, overlap: int, multiple: int) -> None:
    axis = Axis.cut(length, tile, overlap, multiple)
    starts = np.array(axis.starts)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    assert not (starts % multiple).any()
    assert np.diff(starts).max() <= tile - overlap
    assert np.ptp(np.diff(starts)) <= multiple
    assert len(starts) == 1 + -(-(length - tile) // (tile - overlap))  # no more than it takes
    borders = axis.borders()
    assert borders == sorted(borders)
    for start, begin, end in zip(starts, borders, borders[1:], strict=False):
        assert start <= begin < end <= start + tile
        assert end == length or end + axis.ramp <= start + tile


# Pictures


@pytest.mark.parametrize("size", [(1, 1), (7, 1000), (64, 64), (63, 65), (9, 8)])
def test_any_size_and_a_size_multiple(backend: ModuleType, tmp_path: Path, size: tuple[int, int]) -> None:
    generator = load(translators.blocks_of_8(tmp_path / "m.onnx"))
    picture = noisy(*size, 3)
    assert np.array_equal(generator.translate(picture), picture)
    for tile, overlap in [(16, 0), (16, 8), (64, 32), (64, None)]:
        assert np.array_equal(generator.translate(picture, tile=tile, overlap=overlap), picture)


def test_a_batch_is_its_pictures(tmp_path: Path) -> None:
    generator = load(translators.blurred(tmp_path / "m.onnx"))
    pictures = noisy(3, 50, 40, 3)
    together = generator.translate(pictures, tile=32, overlap=16)
    assert together.std() > 1
    for one, made in zip(pictures, together, strict=True):
        assert difference(generator.translate(one, tile=32, overlap=16), made).max() <= 1


def test_an_array_of_many_pictures_takes_as_many_runs_as_it_needs(tmp_path: Path) -> None:
    """A run of all together would need more memory than any tile leaves."""
    generator = load(translators.heavy(tmp_path / "m.onnx"), threads=1)
    pictures = noisy(40, 64, 96, 3)
    kind, told = Kind(64, 96, 3, False), []
    together = generator.translate(pictures, tell=lambda done, of: told.append((done, of)))
    step = sharing(generator, kind, 40, Tiling())
    assert 1 < step <= 8
    assert told == [(i + 1, -(-40 // step)) for i in range(-(-40 // step))]
    for one, made in zip(pictures, together, strict=True):
        assert difference(generator.translate(one), made).max() <= 1
    few = generator.translate(pictures[:7], batch=3, tell=lambda done, of: told.append((done, of)))
    assert told[-1] == (3, 3)
    assert difference(few, together[:7]).max() <= 1
    with pytest.raises(ArgumentError, match="batch is 0; valid"):
        generator.translate(pictures, batch=0)


def test_as_many_share_a_run_as_are_cut_as_one_alone_is(tmp_path: Path) -> None:
    generator = load(translators.heavy(tmp_path / "m.onnx"), threads=1)
    for h, w in ((300, 200), (600, 600)):
        kind = Kind(h, w, 3, alpha=False)
        step = sharing(generator, kind, 1000, Tiling(batch=1000))
        assert 1 <= step < 1000
        work = memory_of(generator, layout_of(generator, kind, 1, Tiling()))
        assert step * work <= WORKING_MEMORY < (step + 1) * work
        held = 130 * 10**6 + 3 * generator.weight_bytes + 3 * 2 * 3 * h * w  # what three pictures take without the work
        for runs in (1, 2, 3):
            cap = Tiling(max_memory=int(held + (runs + 0.1) * work))
            assert sharing(generator, kind, 3, cap) == runs


def test_an_overlap_of_twice_the_receptive_field_gives_the_whole(backend: ModuleType, tmp_path: Path) -> None:
    generator = load(translators.blurred(tmp_path / "m.onnx"), threads=1)
    picture = noisy(150, 211, 3)
    whole = generator.translate(picture)
    assert whole.std() > 10
    for tile in (32, 48, 64):
        assert difference(generator.translate(picture, tile=tile, overlap=4 * (REACH + 1)), whole).max() <= 1


def test_without_overlap_only_the_seams_differ(tmp_path: Path) -> None:
    generator = load(translators.blurred(tmp_path / "m.onnx"), threads=1)
    picture = noisy(96, 128, 3)
    differs = difference(generator.translate(picture, tile=32, overlap=0), generator.translate(picture)) > 1
    near = [np.abs(np.arange(side)[:, None] + 0.5 - np.arange(32, side, 32)).min(axis=1) < REACH for side in (96, 128)]
    seams = near[0][:, None] | near[1]
    assert differs[seams].mean() > 0.5
    assert not differs[~seams].any()


def test_seams_are_blended(tmp_path: Path) -> None:
    """A network that does another thing in every tile: steps without overlap, slopes with."""
    generator = load(translators.without_mean(tmp_path / "m.onnx"))
    picture = np.broadcast_to((np.arange(256) // 2 + 60).astype(np.uint8)[None, :, None], (64, 256, 3))

    def step(overlap: int) -> int:
        return int(np.abs(np.diff(generator.translate(picture, tile=64, overlap=overlap).astype(int), axis=1)).max())

    assert step(0) > 20
    assert step(32) <= 4


def test_the_scale(tmp_path: Path) -> None:
    generator = load(translators.twice(tmp_path / "m.onnx"))
    picture = noisy(45, 70, 3)
    expected = picture.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(generator.translate(picture), expected)
    assert np.array_equal(generator.translate(picture, tile=32, overlap=10), expected)


def test_progress_is_told(tmp_path: Path) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx"))
    told: list[tuple[int, int]] = []
    generator.translate(noisy(64, 96, 3), tile=32, overlap=0, tell=lambda *how_far: told.append(how_far))
    assert told == [(i, 6) for i in range(1, 7)]


def test_any_number_of_threads(tmp_path: Path) -> None:
    generator = load(translators.blurred(tmp_path / "m.onnx"), threads=1)
    picture = smooth(200, 120)
    alone = generator.translate(picture, tile=64)
    with ThreadPoolExecutor(4) as pool:
        for made in pool.map(lambda _: generator.translate(picture, tile=64), range(8)):
            assert np.array_equal(made, alone)


# Channels and kinds


def test_arrays_keep_their_shape(tmp_path: Path) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx"))
    for shape in [(6, 5), (6, 5, 1), (6, 5, 3), (2, 6, 5, 3), (2, 6, 5, 1)]:
        picture = noisy(*shape)
        assert np.array_equal(generator.translate(picture), 255 - picture)
    for shape in [(6, 5, 2), (6, 5, 4), (3, 6, 5, 4)]:
        picture = noisy(*shape)
        made = generator.translate(picture)
        assert np.array_equal(made[..., :-1], 255 - picture[..., :-1])
        assert np.array_equal(made[..., -1], picture[..., -1])


def test_grey_models_take_the_luminance(tmp_path: Path) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx", channels=1))
    picture = Image.fromarray(noisy(6, 5, 3))
    made = generator.translate(picture)
    assert made.mode == "L"
    assert np.array_equal(np.asarray(made), 255 - np.asarray(picture.convert("L")))
    assert generator.translate(picture.convert("RGBA")).mode == "LA"
    assert generator.translate(np.asarray(picture)).shape == (6, 5, 1)


def test_grey_on_an_rgb_model_that_makes_colours(tmp_path: Path) -> None:
    nodes = [translators.node("Mul", "source factors")]
    factors = np.array([1, 0.5, -1], np.float32).reshape(1, 3, 1, 1)
    generator = load(translators.save(tmp_path / "m.onnx", nodes, {"factors": factors}))
    grey = Image.fromarray(noisy(6, 5))
    made = generator.translate(grey)
    assert made.mode == "L"
    assert np.array_equal(np.asarray(made), np.asarray(generator.translate(grey.convert("RGB")).convert("L")))


def test_models_with_alpha(tmp_path: Path) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx", channels=4))
    rgba = noisy(6, 5, 4)
    assert np.array_equal(generator.translate(rgba), 255 - rgba)
    assert np.array_equal(generator.translate(rgba[..., :3]), 255 - rgba[..., :3])
    assert np.array_equal(generator.translate(rgba[..., 0]), 255 - rgba[..., 0])


def test_alpha_is_enlarged_with_the_picture(tmp_path: Path) -> None:
    generator = load(translators.twice(tmp_path / "m.onnx"))
    rgba = noisy(7, 9, 4)
    made = generator.translate(rgba)
    assert np.array_equal(made[..., :3], rgba[..., :3].repeat(2, axis=0).repeat(2, axis=1))
    resized = Image.fromarray(rgba[..., 3]).resize((18, 14), Image.Resampling.BICUBIC)
    assert np.array_equal(made[..., 3], np.asarray(resized))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "the picture is float32"),
        (np.zeros((4, 4, 5), np.uint8), r"valid: uint8 \[H, W\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros(4, np.uint8), r"\[4\]"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, wrong: np.ndarray, message: str) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx"))
    with pytest.raises(ArgumentError, match=message):
        generator.translate(wrong)


def test_files_become_images(tmp_path: Path) -> None:
    generator = load(translators.negative(tmp_path / "m.onnx"))
    picture = noisy(6, 5, 3)
    Image.fromarray(picture).save(tmp_path / "x.png")
    for path in (tmp_path / "x.png", str(tmp_path / "x.png")):
        assert np.array_equal(np.asarray(generator.translate(path)), 255 - picture)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png: an empty file$"):
        generator.translate(tmp_path / "x.png")
    with pytest.raises(DataError, match="the picture: floating-point pixels"):
        generator.translate(Image.new("F", (4, 4)))


# Models


def test_generators_do_not_translate_and_translators_do_not_draw(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it draws pictures and takes none: use sample"):
        load(threads=1).translate(noisy(4, 4, 3))
    generator = load(translators.negative(tmp_path / "m.onnx"))
    calls: list[Callable[[], Any]] = [
        lambda: generator.sample(1),
        lambda: generator.grid(4),
        lambda: next(generator.stream(1)),
        lambda: generator.decode(np.zeros((1, 8), np.float32)),
        lambda: next(generator.walk([1, 2], 3)),
    ]
    for call in calls:
        with pytest.raises(ModelError, match="turns pictures into others"):
            call()


def test_a_network_too_heavy_for_256_pixels_a_side_is_loaded_for_tiles(tmp_path: Path) -> None:
    path = Path(translators.heavy(tmp_path / "m.onnx", width=512, layers=6))  # 2^23.2 multiply-adds a pixel
    generator = load(path)
    with pytest.raises(ModelError, match=r"of a picture of 256 x 256: .*multiply-adds for one image"):
        generator.cost_of((256, 256))
    assert max(layout_of(generator, Kind(1000, 1000, 3, False), 1, Tiling()).tile) < 256


def test_a_result_that_is_not_what_the_scale_says(tmp_path: Path) -> None:
    generator = load(translators.twice(tmp_path / "m.onnx", scale=1))
    with pytest.raises(ModelError, match=r"its output has shape \[1, 3, 12, 10\], expected \[1, 3, 6, 5\]"):
        generator.translate(noisy(6, 5, 3))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tile": 12}, "tile is 12; valid for .*: multiples of 8"),
        ({"tile": 0}, "tile is 0"),
        ({"tile": 32, "overlap": 24}, "overlap is 24; valid: at most 16, half of a tile"),
        ({"overlap": 2048}, "overlap is 2048; valid: at most 1024"),
        ({"overlap": -8}, "overlap is -8"),
        ({"max_memory": 10**6}, "max_memory is 1 MB; valid: 130 MB or more"),
        ({"max_memory": 140 * 10**6}, r"a picture of 4000 x 4000 needs \d+ MB; max_memory is 140 MB; raise it"),
    ],
)
def test_tilings_that_are_refused(tmp_path: Path, how: dict[str, int], message: str) -> None:
    generator = load(translators.blocks_of_8(tmp_path / "m.onnx"))
    picture = np.broadcast_to(np.uint8(0), (4000, 4000, 3))
    with pytest.raises(ArgumentError, match=message) as caught:
        generator.translate(picture, **how)
    assert "\n" not in str(caught.value)


# Memory


def test_a_smaller_cap_makes_smaller_tiles(tmp_path: Path) -> None:
    generator = load(translators.heavy(tmp_path / "m.onnx"))
    kind = Kind(1400, 1400, 3, False)
    tiles = []
    for cap in (3000, 1000, 400, 250, 200):
        layout = layout_of(generator, kind, 1, Tiling(max_memory=cap * 10**6))
        assert memory_of(generator, layout) < cap * 10**6 - 130 * 10**6
        tiles.append(layout.tile[0])
    assert tiles == sorted(tiles, reverse=True)
    assert tiles[0] == 1400  # the picture whole
    assert tiles[-1] <= 256
    with pytest.raises(ArgumentError, match="needs"):
        layout_of(generator, kind, 1, Tiling(max_memory=150 * 10**6))


def test_what_reading_and_writing_take_is_counted(tmp_path: Path) -> None:
    generator = load(translators.twice(tmp_path / "m.onnx"))
    kind = Kind(1000, 1000, 3, False)
    cap = 200 * 10**6
    assert layout_of(generator, kind, 1, Tiling(max_memory=cap))
    for heavier, encoding in [(kind._replace(reading=80), 0), (kind, 20)]:
        with pytest.raises(ArgumentError, match=r"a picture of 1000 x 1000 needs 2\d\d MB"):
            layout_of(generator, heavier, 1, Tiling(max_memory=cap, encoding=encoding))


CHILD = """
import sys
from edgegan import load
load("m.onnx", threads=1).translate("picture.png", tile=int(sys.argv[1]) or None, max_memory=int(sys.argv[2]) or None)
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_the_cap_is_kept(tmp_path: Path) -> None:
    """The most memory of a process with a picture of 4 megapixels: without tiles, and with a cap."""
    translators.copied(tmp_path / "m.onnx")
    Image.fromarray(np.tile(smooth(200, 200), (10, 10, 1))).save(tmp_path / "picture.png", compress_level=1)

    def peak(tile: int, cap: int) -> float:
        command = [sys.executable, "-c", CHILD, str(tile), str(cap)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return float(re.sub(r"\D", "", done.stdout)) * 1024

    cap = 220 * 10**6
    assert peak(0, cap) < cap
    assert peak(2000, 0) > 2 * cap


# Models of another origin


def test_foreign_pixels_last(tmp_path: Path) -> None:
    """[N, H, W, C] in 0 .. 255, twice as large."""
    nodes = [
        translators.node("Transpose", "source", "first", perm=[0, 3, 1, 2]),
        translators.node("Concat", "first first first first", "four", axis=1),
        translators.node("DepthToSpace", "four", "large", blocksize=2),
        translators.node("Transpose", "large", "last", perm=[0, 2, 3, 1]),
        translators.node("Sub", "white last"),
    ]
    path = translators.save(
        tmp_path / "m.onnx",
        nodes,
        {"white": np.float32(255)},
        shape=("batch", "height", "width", 3),
        made=("batch", "a", "b", 3),
        ours=False,
    )
    with pytest.raises(ModelError, match="it has no edgegan metadata"):
        load(path)
    generator = load(path, foreign=ForeignTranslator(range=(0, 255)))
    assert (generator.spec.scale, generator.spec.channels, generator.spec.task) == (2, 3, "translate")
    picture = noisy(2, 33, 47, 3)
    expected = 255 - picture.repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(generator.translate(picture), expected)
    assert np.array_equal(generator.translate(picture, tile=16, overlap=4), expected)
    with pytest.raises(ModelError, match="its scale is 2, not 4"):
        load(path, foreign=ForeignTranslator(range=(0, 255), scale=4))
    with pytest.raises(ModelError, match=r"valid: \[N, C, H, W\] or \[N, H, W, C\], C = 1, 3 or 4, here nchw"):
        load(path, foreign=ForeignTranslator(layout="nchw"))


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (32, 48), (33, 100), (100, 20), (96, 96)])
def test_foreign_models_of_one_size_get_tiles_of_it(tmp_path: Path, size: tuple[int, int]) -> None:
    path = translators.negative(tmp_path / "m.onnx", shape=(1, 3, 32, 48), made=(1, 3, 32, 48), ours=False)
    generator = load(path, foreign=ForeignTranslator(range=(-1, 1)))
    picture = noisy(2, *size, 3)
    assert np.array_equal(generator.translate(picture), 255 - picture)
    assert np.array_equal(generator.translate(picture, overlap=0), 255 - picture)
    with pytest.raises(ArgumentError, match="takes 48 x 32 pixels alone"):
        generator.translate(picture, tile=32)


def test_foreign_size_multiple_and_range(tmp_path: Path) -> None:
    nodes = [
        translators.node("SpaceToDepth", "source", "blocks", blocksize=4),
        translators.node("DepthToSpace", "blocks", "same", blocksize=4),
        translators.node("Sub", "one same"),
    ]
    path = translators.save(tmp_path / "m.onnx", nodes, {"one": np.float32(1)}, ours=False)
    generator = load(path, foreign=ForeignTranslator(range=(0, 1), size_multiple=4))
    picture = noisy(13, 22, 3)
    assert np.array_equal(generator.translate(picture), 255 - picture)
    without = load(path, foreign=ForeignTranslator(range=(0, 1)))
    with pytest.raises(ModelError, match=r"of a picture of 22 x 13: .*is no multiple of 4"):
        without.translate(picture)


def test_foreign_models_that_round_sides_up_want_a_size_multiple(tmp_path: Path) -> None:
    """As those do that halve the picture and double it again."""
    half = translators.node("MaxPool", "source", "half", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])
    twice = helper.make_node("Resize", ["half", "", "scales"], ["image"], mode="nearest")
    path = translators.save(
        tmp_path / "m.onnx", [half, twice], {"scales": np.array([1, 1, 2, 2], np.float32)}, ours=False
    )
    with pytest.raises(ModelError, match=r"expected \[1, 3, 13, 22\]; if its sides .* say so \(--size-multiple\)"):
        load(path, foreign=ForeignTranslator()).translate(noisy(13, 22, 3))
    generator = load(path, foreign=ForeignTranslator(size_multiple=2))
    assert generator.translate(noisy(13, 22, 3)).shape == (13, 22, 3)


def test_foreign_layouts_that_may_be_either(tmp_path: Path) -> None:
    path = translators.negative(tmp_path / "m.onnx", shape=(1, 3, "H", 3), made=(1, 3, "h", 3), ours=False)
    with pytest.raises(ModelError, match="which may be either: say the layout, nchw or nhwc"):
        load(path, foreign=ForeignTranslator())
    generator = load(path, foreign=ForeignTranslator(layout="nchw"))
    picture = noisy(20, 30, 3)
    assert np.array_equal(generator.translate(picture), 255 - picture)


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([translators.node("Neg", "source")], ("N", 3, 8), r"its input is \['N', 3, 8\]"),
        ([translators.node("Neg", "source")], ("N", 2, "H", "W"), r"valid: \[N, C, H, W\]"),
        ([translators.node("ReduceMean", "source", axes=[2], keepdims=1)], None, "the sides times a whole number"),
        ([translators.node("Slice", "source 40 50 2")], None, "the sides times a whole number"),
    ],
)
def test_foreign_models_that_do_not_fit(tmp_path: Path, nodes: Any, shape: Any, message: str) -> None:
    constants = {"40": np.array([0]), "50": np.array([50]), "2": np.array([2])}
    made = tuple(f"x{i}" for i in range(len(shape or range(4))))
    path = translators.save(tmp_path / "m.onnx", nodes, constants, shape=shape, made=made, ours=False)
    with pytest.raises(ModelError, match=message) as caught:
        load(path, foreign=ForeignTranslator())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"range": (1, 1)}, {"layout": "chw"}, {"scale": 0}, {"size_multiple": 0}])
def test_foreign_descriptions_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(wrong))} is "):
        ForeignTranslator(**wrong)
