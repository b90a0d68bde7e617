"""Models that translate, exported: torch equals onnxruntime at every size, and the runtime takes what comes out."""

import json
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import edgegan.export
from edgegan import leaves, load, noise
from edgegan.errors import ArgumentError, ExportError
from edgegan.export import pipeline
from edgegan.export.cli import _lines
from edgegan.export.comparison import comparison
from edgegan.export.describe import describe
from edgegan.export.graph import sized
from edgegan.export.lower import lower
from edgegan.export.measure import cost_of, peak_memory, timings
from edgegan.export.quantize import layers_of
from edgegan.export.trace import check_module, draw, to_model
from edgegan.export.verify import check_file, size_parity, sizes_of
from edgegan.image import to_float, to_uint8
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec
from support import command


class Enlarging(nn.Module):
    """Residual, pixel shuffle by 2, and the picture itself enlarged: as networks for super-resolution are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.up = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 12, 3, 1, 1)

    def forward(self, source: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(source), 0.2)
        x = self.up(x + 0.2 * F.leaky_relu(self.block(x), 0.2))
        enlarged = F.interpolate(source, scale_factor=2, mode="bilinear")
        return torch.clamp(enlarged + 0.2 * F.pixel_shuffle(x, 2), -1, 1)


class Hourglass(nn.Module):
    """A U-Net: strided convolutions, batch norm, nearest upsampling, what was before joined."""

    def __init__(self) -> None:
        super().__init__()
        self.down0, self.down1 = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 8, 4, 2, 1)
        self.norm, self.down2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 4, 2, 1)
        self.up1, self.up0 = nn.Conv2d(16, 8, 3, 1, 1), nn.Conv2d(16, 1, 3, 1, 1)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, source: Tensor) -> Tensor:
        a = F.relu(self.down0(source))
        b = F.relu(self.norm(self.down1(a)))
        x = F.interpolate(F.relu(self.down2(b)), scale_factor=2)
        x = F.interpolate(F.relu(self.up1(torch.cat([x, b], 1))), size=a.shape[2:])
        return torch.tanh(self.up0(torch.cat([x, a], 1)))


class Restyling(nn.Module):
    """Reflection, instance norm and transposed convolutions: as CycleGAN's generator is (Zhu et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7), nn.InstanceNorm2d(8), nn.ReLU()]
        layers += [nn.Conv2d(8, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.ReLU()]
        layers += [nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), nn.InstanceNorm2d(8), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(8, 3, 7), nn.Tanh())

    def forward(self, source: Tensor) -> Tensor:
        return self.layers(source)


SPECS = {
    "enlarging": ModelSpec("enlarging", (12, 16), 3, None, task="translate", scale=2),
    "hourglass": ModelSpec("hourglass", (24, 24), 1, None, task="translate", size_multiple=4),
    "restyling": ModelSpec("restyling", (24, 16), 3, None, task="translate", size_multiple=2),
}
NETWORKS: dict[str, type[nn.Module]] = {"enlarging": Enlarging, "hourglass": Hourglass, "restyling": Restyling}


@pytest.fixture(scope="module", params=SPECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name]().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(name: str, network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pipeline.Report]:
    """The float32 file, lowered the same way on every machine."""
    path = tmp_path_factory.mktemp(name) / "float.onnx"
    report = edgegan.export.export_generator(network, SPECS[name], path, lower="fixed", measure=False)
    return path, report


# Sources


def test_leaves_are_a_function_of_seed_index_and_size() -> None:
    many = leaves.pictures(7, 5, (20, 31), 3)
    assert (many.shape, many.dtype) == ((5, 20, 31, 3), np.uint8)
    assert np.array_equal(leaves.pictures(7, 2, (20, 31), 3, start=3), many[3:])
    assert not np.array_equal(leaves.pictures(8, 1, (20, 31), 3), many[:1])
    assert leaves.pictures(7, 0, (20, 31), 3).shape == (0, 20, 31, 3)
    for channels, size in ((1, (1, 1)), (4, (3, 90))):
        assert leaves.pictures(0, 1, size, channels).shape == (1, *size, channels)
    with pytest.raises(ArgumentError, match="seed"):
        leaves.pictures(-1, 1, (8, 8), 3)


def test_leaves_have_the_spectrum_of_natural_pictures() -> None:
    """Power falls with about the square of the frequency (Field 1987; Lee, Mumford, Huang 2001); white noise's not."""
    pictures = leaves.pictures(1, 24, (128, 128), 1)[..., 0].astype(float)
    assert 100 < pictures.mean() < 155
    assert pictures.std() > 50  # uniform colours have 74
    power = (np.abs(np.fft.fft2(pictures - pictures.mean((1, 2), keepdims=True))) ** 2).mean(0)[0, 1:32]
    slope = np.polyfit(np.log(np.arange(1, 32)), np.log(power), 1)[0]
    assert -2.6 < slope < -1.7


def test_leaves_are_the_same_bits_everywhere() -> None:
    """A disc by its definition: each pixel within the radius of the front-most leaf, from the same words."""
    size, channels = (24, 40), 3
    words = noise.words(3, 1, 4 * leaves.LEAVES + 1440, stream=noise.STREAM_SOURCE)[0].tolist()
    y, x = np.mgrid[: size[0], : size[1]]
    expected = np.zeros((*size, channels), int)
    for k in range(leaves.LEAVES):
        row, column, radius, colour = words[4 * k : 4 * k + 4]
        cy, cx = ((word * (side + 2 * margin) >> 32) - margin for word, side, margin in ((row, 24, 3), (column, 40, 5)))
        within = (y - cy) ** 2 + (x - cx) ** 2 <= int(1600 / (576 - radius / 2**32 * 572))
        expected[within | (k == 0)] = [colour >> 8 * channel & 255 for channel in range(channels)]
    halves = [half for word in words[4 * leaves.LEAVES :] for half in (word & 65535, word >> 16)]
    grain = np.reshape([((half & 255) * 5 >> 8) + ((half >> 8) * 5 >> 8) - 4 for half in halves], expected.shape)
    assert np.array_equal(leaves.pictures(3, 1, size, channels)[0], np.clip(expected + grain, 0, 255))


def test_inputs_are_leaves_of_the_size_of_training_or_another() -> None:
    spec = SPECS["enlarging"]
    (source,) = inputs_of(spec, 5, 2, 3).values()
    assert np.array_equal(source, to_float(leaves.pictures(5, 2, (12, 16), 3, start=3)))
    assert inputs_of(spec, 5, 1, size=(7, 9))["source"].shape == (1, 3, 7, 9)


# The proof


def test_onnxruntime_draws_what_torch_draws_at_any_batch_and_size(
    name: str, network: nn.Module, exported: tuple[Path, pipeline.Report]
) -> None:
    generator, m = load(exported[0], "cpu"), SPECS[name].size_multiple
    for n, h, w in ((1, 4, 5), (2, 9, 4), (3, 6, 6), (5, 31, 7)):
        feed = inputs_of(generator.spec, 99, n, size=(h * m, w * m))
        drawn = generator.run(feed)
        assert drawn.shape[2:] == (h * m * generator.spec.scale, w * m * generator.spec.scale)
        assert np.abs(drawn - draw(network, generator.spec, feed)).max() < 1e-4


@pytest.mark.parametrize("name", ["enlarging"], indirect=True)
def test_a_file_that_differs_at_one_size_is_refused(network: nn.Module, exported: tuple[Path, pipeline.Report]) -> None:
    def otherwise(feed: dict[str, np.ndarray]) -> np.ndarray:
        h, w = feed["source"].shape[2:]
        return draw(network, SPECS["enlarging"], feed) + (0.001 if h == w else 0)

    with pytest.raises(ExportError, match=r"differ by 0\.001 at sources of 3x3, allowed is 0\.0001 of"):
        size_parity(exported[0].read_bytes(), otherwise)


def test_the_file_says_what_it_takes(name: str, exported: tuple[Path, pipeline.Report]) -> None:
    path, report = exported
    spec, scale = SPECS[name], SPECS[name].scale
    ports = [*(graph := onnx.load(path).graph).input, *graph.output]
    shapes = {p.name: [d.dim_param or d.dim_value for d in p.type.tensor_type.shape.dim] for p in ports}
    sides = ["H", "W"] if scale == 1 else [f"{scale}*H", f"{scale}*W"]
    assert shapes == {"source": ["N", spec.channels, "H", "W"], "image": ["N", spec.channels, *sides]}
    generator = load(path, "cpu")
    assert replace(generator.spec, golden=None, version="") == spec
    assert generator.check_golden() <= 1  # torch and onnxruntime may round a pixel differently
    assert list(report.parity) == [1, 2, 3, 17]
    assert list(report.sizes) == [f"{w}x{h}" for h, w in sizes_of(spec)]
    assert max(*report.parity.values(), *report.sizes.values()) < 1e-4
    (first, *_) = _lines(report, "m.onnx", "torch")
    assert first.endswith("; try  edgegan translate m.onnx picture.jpg -o out.png")
    assert f"at batches 1, 2, 3, 17, and of sources of {', '.join(report.sizes)}; " in first


def test_a_file_is_proved_from_itself_alone(name: str, exported: tuple[Path, pipeline.Report], tmp_path: Path) -> None:
    checked = check_file(exported[0])
    of = "of the same size" if SPECS[name].scale == 1 else "2 times as large"
    shown = ", ".join(exported[1].sizes)
    assert f"sizes: sources of {shown} give pictures {of}" in checked.lines
    assert checked.diversity > 1
    model = onnx.load(exported[0])
    for weight in model.graph.initializer:
        if len(weight.dims) == 4:
            weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 3).tobytes()
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="misses its golden samples"):
        check_file(tmp_path / "other.onnx")


@pytest.mark.parametrize("height", [24, 23])
def test_the_runtime_translates_as_torch_does(
    height: int, name: str, network: nn.Module, exported: tuple[Path, pipeline.Report]
) -> None:
    """Sides that are no multiple go on mirrored, and what came of that is cut off."""
    spec, scale, m = SPECS[name], SPECS[name].scale, SPECS[name].size_multiple
    picture = leaves.pictures(4, 1, (height, 37), spec.channels)
    padded = np.pad(picture, ((0, 0), (0, -height % m), (0, -37 % m), (0, 0)), mode="reflect")
    expected = to_uint8(network(torch.from_numpy(to_float(padded))).numpy())[0, : height * scale, : 37 * scale]
    found = load(exported[0], "cpu").translate(picture[0])
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", ["enlarging", "hourglass"], indirect=True)  # instance norm sees its tile alone
def test_tiles_give_what_the_whole_picture_gives(exported: tuple[Path, pipeline.Report]) -> None:
    generator = load(exported[0], "cpu")
    picture = leaves.pictures(4, 1, (90, 70), generator.spec.channels)[0]
    tiled = generator.translate(picture, tile=48, overlap=24)
    assert np.abs(tiled.astype(int) - generator.translate(picture)).max() <= 1


# Other forms


def smaller(exported: tuple[Path, pipeline.Report], precision: str, tmp_path: Path) -> pipeline.Report:
    how = pipeline.How(precision, "fixed", measure=False)
    report = pipeline.export_model(exported[0], tmp_path / "small.onnx", how=how)
    assert check_file(tmp_path / "small.onnx").spec.precision == precision
    return report


def test_float16(exported: tuple[Path, pipeline.Report], tmp_path: Path) -> None:
    (_, half) = smaller(exported, "fp16", tmp_path).variants
    assert half.file_bytes < exported[0].stat().st_size
    assert half.psnr is not None
    assert half.psnr > 55


def check_int8(exported: tuple[Path, pipeline.Report], network: nn.Module, tmp_path: Path) -> None:
    report = smaller(exported, "int8", tmp_path)
    assert report.written().psnr is not None
    # Our own measure, of another picture of another size than those that were judged.
    spec = load(exported[0], "cpu").spec
    feed = inputs_of(spec, 77, 1, size=(5 * spec.size_multiple + 20, 32))
    difference = load(tmp_path / "small.onnx", "cpu").run(feed) - draw(network, spec, feed)
    assert 10 * np.log10(4 / np.mean(difference**2)) > 28
    operators = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "QuantizeLinear" in operators


@pytest.mark.parametrize("name", ["enlarging"], indirect=True)
def test_int8(exported: tuple[Path, pipeline.Report], network: nn.Module, tmp_path: Path) -> None:
    check_int8(exported, network, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hourglass", "restyling"], indirect=True)
def test_int8_of_the_others(exported: tuple[Path, pipeline.Report], network: nn.Module, tmp_path: Path) -> None:
    check_int8(exported, network, tmp_path)


class Pointwise(nn.Module):
    """What lowering can do where sizes are free: a 1x1 convolution and an activation before the upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.last = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, source: Tensor) -> Tensor:
        x = F.interpolate(self.first(source), scale_factor=2)
        return torch.tanh(self.last(F.leaky_relu(self.mix(x), 0.2)))


def test_lowering_leaves_the_sizes_free() -> None:
    """Rewrites that write down sizes must not match; those that do not still do, and draw the same at every size."""
    spec = replace(SPECS["enlarging"], recipe="pointwise")
    torch.manual_seed(0)
    module = Pointwise().eval().requires_grad_(False)
    given = to_model(module, spec)
    lowered = lower(given, inputs_of(spec, 0, 1), measure=False)
    assert "lift resize" in [applied.name for applied in lowered.applied]
    assert not {"Reshape", "Slice", "DepthToSpace"} & {node.op_type for node in lowered.model.graph.node}
    data = describe(lowered.model, spec, module)
    assert len(size_parity(data, partial(draw, module, spec))) == 4
    assert cost_of(data, spec, "m").multiply_adds < cost_of(given.SerializeToString(), spec, "m").multiply_adds
    # 12 x 16 pixels in, four times as many behind the upsampling: 216, 64 and 216 weights.
    expected = [216 * 192, 64 * 768, 216 * 768]
    assert [layer.multiply_adds for layer in layers_of(sized(given, spec))] == expected


# Reports and the command


@pytest.mark.parametrize("name", ["enlarging"], indirect=True)
def test_the_report_shows_sources_beside_results(exported: tuple[Path, pipeline.Report], tmp_path: Path) -> None:
    pipeline.export_model(
        exported[0],
        tmp_path / "half.onnx",
        how=pipeline.How("fp16", "none", report=tmp_path / "r.md", measure=False),
    )
    page = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "`half.onnx` turns pictures into others, 2 times as large: RGB, of any size." in page
    assert "edgegan translate half.onnx picture.jpg -o out.png" in page
    assert "| 2 of 16x12 |" in page
    assert "latent" not in page.replace("of the same latents or sources", "")
    pipeline.export_model(
        exported[0],
        tmp_path / "half2.onnx",
        how=pipeline.How("fp16", "none", report=tmp_path / "r.json", measure=False),
    )
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert list(found["sizes"]) == ["16x12", "16x13", "19x14", "3x3"]


def test_sources_are_shown_as_large_as_what_was_made_of_them() -> None:
    made, sources = leaves.pictures(0, 3, (40, 40), 3), leaves.pictures(1, 3, (20, 20), 3)
    with_sources, without = comparison({"a": made}, sources), comparison({"a": made})
    assert np.array_equal(with_sources[-len(without) :], without)
    row = with_sources[: len(without)]
    enlarged = sources[0].repeat(6, 0).repeat(6, 1)  # twice as large, and three times as all is shown
    top = len(without) - len(enlarged) - 2
    assert np.array_equal(row[top : top + 120, 2:122], enlarged)


@pytest.mark.parametrize("name", ["enlarging"], indirect=True)
def test_time_and_memory_are_measured_at_the_size_of_training(exported: tuple[Path, pipeline.Report]) -> None:
    data, spec = exported[0].read_bytes(), SPECS["enlarging"]
    (times,) = timings({"a": data}, spec).values()
    assert sorted(times) == [1, 16]
    memory = peak_memory(data)
    assert memory is not None or sys.platform == "win32"
    # The weights of three convolutions at each of 12 x 16 pixels, and what is done element by element.
    assert 1 < cost_of(data, spec, "m").multiply_adds / ((216 + 576 + 864) * 192) < 1.2


# What is refused

SPEC = SPECS["hourglass"]


class Odd(nn.Module):
    """`forward` is given by each test."""

    def __init__(self, forward: object) -> None:
        super().__init__()
        self.act = forward

    def forward(self, source: Tensor) -> Tensor:
        return self.act(source)  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize(
    ("forward", "spec", "says"),
    [
        (lambda x: x, replace(SPEC, image_size=(22, 24)), "image_size is 22 x 24; valid: multiples of size_multiple"),
        (lambda x: x, replace(SPEC, scale=2), r"shape \[3, 1, 24, 24\] for a batch of 3 of 24x24.* calls for"),
        (lambda x: x + torch.zeros(24, 24), SPEC, "it works for 24x24, but the height and width of a source must stay"),
        (lambda x: 2 * x, SPEC, "valid: -1 to 1"),
    ],
)
def test_what_is_no_translator_is_refused(forward: object, spec: ModelSpec, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        to_model(Odd(forward).eval(), spec)


def test_the_line_that_freezes_a_size_is_named() -> None:
    def forward(x: Tensor) -> Tensor:
        if x.shape[2] % 2:  # true of some sizes, and torch sees only one
            return -x
        return x

    spec = replace(SPEC, size_multiple=1)
    assert check_module(Odd(forward), spec)
    with pytest.raises(ExportError, match=r"test_export_translate.py:\d+ \(if x.shape\[2\] % 2"):
        to_model(Odd(forward), spec)


def test_a_distance_to_real_pictures_is_of_generators(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="this model translates: leave features out"):
        edgegan.export.export_generator(
            Odd(lambda x: x).eval(), SPEC, tmp_path / "m.onnx", data=object(), features=object()
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["enlarging"], indirect=True)
def test_the_command_checks_verifies_and_translates(exported: tuple[Path, pipeline.Report], tmp_path: Path) -> None:
    checked = command("edgegan-export", "--check", exported[0])
    assert (checked.returncode, checked.stderr) == (0, "")
    assert re.search(r"^golden samples: at most [01] of 255 apart \(allowed 2\)$", checked.stdout, re.M)
    verified = command("edgegan", "verify", exported[0])
    assert verified.stdout.startswith("pass: ")
    refused = command("edgegan-export", exported[0], "-o", tmp_path / "x.onnx", "--reverse")
    assert (refused.returncode, "leave out --checkpoint, --reverse" in refused.stderr) == (2, True)
