"""The perceptual loss: its form and its layers, that it sees what people see, and which files it takes."""

import io
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_networks import PLAIN, node, saved, weights
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from edgegan.errors import ArgumentError, ModelError, RunError
from edgegan.trainer.data.sources import DIGITS
from edgegan.trainer.metrics.features import METADATA_KEY, Preparation
from edgegan.trainer.perceptual import Perceptual, pinned


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


def test_an_operator_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", [node("Conv", "x", "w", out="a"), node("Erf", "a")], {"w": weights(2, 3, 1, 1)})
    with pytest.raises(ModelError, match=r"net\.onnx: .*operator 'Erf'; valid: Conv, "):
        Perceptual.open(path, preparation=PLAIN)


def test_nothing_is_trained_or_saved() -> None:
    loss = Perceptual.open("lenet")
    assert not loss.training
    assert not list(loss.parameters())
    assert not nn.ModuleList([loss]).state_dict()


def test_layers_are_the_last_before_each_downscaling() -> None:
    assert Perceptual.open("lenet").layers == ["relu", "relu_1"]  # 28 x 28, then 10 x 10; the 5 x 5 are but pooled
    assert Perceptual.open("lenet", layers=1).layers == ["relu"]


def test_layers_are_the_ends_of_blocks(tmp_path: Path) -> None:
    nodes, constants = [], {}

    def conv(source: str, to: str, channels: int, stride: int = 1, kernel: int = 3) -> str:
        constants[f"{to}.w"] = weights(channels, 4 if source != "x" else 3, kernel, kernel)
        pads = [kernel // 2] * 4
        nodes.append(node("Conv", source, f"{to}.w", strides=[stride] * 2, pads=pads, out=f"{to}.conv"))
        nodes.append(node("Relu", f"{to}.conv", out=to))
        return to

    x = conv("x", "stem", 4, stride=2)
    for block, stride in (("one", 1), ("two", 2)):  # the second strides in its second convolution, as ResNet v1.5
        inner = conv(conv(x, f"{block}.a", 4), f"{block}.b", 4, stride)
        shortcut = conv(x, f"{block}.s", 4, stride, kernel=1)
        nodes.append(node("Add", inner, shortcut, out=f"{block}.sum"))
        nodes.append(node("Relu", f"{block}.sum", out=block))
        x = block
    nodes += [node("GlobalAveragePool", x, out="pooled"), node("Flatten", "pooled")]
    loss = Perceptual.open(saved(tmp_path / "net.onnx", nodes, constants, described=PLAIN))
    assert loss.layers == ["one", "two"]
    assert [y.shape[2:] for y in loss.network(torch.zeros(1, 3, 40, 24))] == [(20, 12), (10, 6)]


def test_the_distance_is_that_of_directions(tmp_path: Path, rng: np.random.Generator) -> None:
    """Zhang et al. 2018, eq. 1: with features that are the pixels, by NumPy."""
    identity = np.eye(3, dtype=np.float32)[:, :, None, None]
    loss = Perceptual.open(saved(tmp_path / "net.onnx", [node("Conv", "x", "w")], {"w": identity}, described=PLAIN))
    a, b = rng.uniform(-1, 1, (2, 4, 3, 6, 5))
    directions = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    expected = ((directions[0] - directions[1]) ** 2).sum(1).mean((1, 2))
    found = loss(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    assert loss(torch.from_numpy(a), torch.from_numpy(-a)).numpy() == pytest.approx(4, rel=1e-4)
    assert loss(torch.from_numpy(a), torch.from_numpy(a * 0.5)).numpy() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    "how",
    [
        Preparation((0.0, 1.0), channels=3, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)),
        Preparation((0.0, 255.0), channels=3, mean=(104.0, 117.0, 123.0), order="BGR", layout="NHWC"),
        Preparation((1.0, 0.0), channels=1, mean=(0.1,), std=(0.3,)),
    ],
    ids=["imagenet", "caffe", "grey"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_prepared_as_for_scores(
    how: Preparation, channels: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    assert how.channels is not None
    nodes = [node("Conv", "x", "w")]
    shape: tuple[int | str, ...] = ("N", how.channels, 6, 5)
    if how.layout == "NHWC":
        nodes, shape = [node("Transpose", "x", perm=[0, 3, 1, 2], out="a"), node("Conv", "a", "w")], ("N", 6, 5, 3)
    constants = {"w": weights(2, how.channels, 1, 1)}
    loss = Perceptual.open(saved(tmp_path / "net.onnx", nodes, constants, shape, described=how))
    images = rng.integers(0, 256, (3, 6, 5, channels), np.uint8)
    expected = Preparation(**{**vars(how), "size": (6, 5)})(images)
    found = loss.prepare(torch.from_numpy(images.transpose(0, 3, 1, 2) / 127.5 - 1)).numpy()
    rounding = abs(how.range[1] - how.range[0]) / 255 / min(how.std) if channels > how.channels else 0  # of Pillow's L
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4 + 0.6 * rounding)


@pytest.mark.parametrize("size", [(28, 28), (17, 50), (90, 61)])
def test_pictures_become_the_networks_size_as_pillow_makes_them(
    size: tuple[int, int], rng: np.random.Generator
) -> None:
    picture = rng.uniform(-1, 1, size).astype(np.float32)
    expected = np.asarray(Image.fromarray(picture).resize((28, 28), Image.Resampling.BICUBIC))
    found = Perceptual.open("lenet").prepare(torch.from_numpy(picture)[None, None])
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)


def digits(n: int = 24) -> NDArray[np.float32]:
    """[n, 28, 28] in [-1, 1]."""
    with np.load(DIGITS) as file:
        return file["images"][:n].reshape(n, 28, 28).astype(np.float32) / 127.5 - 1


NOISE = np.random.default_rng(5).normal(size=(24, 28, 28))
CHANGES: dict[str, Callable[[NDArray[np.float32], float], NDArray[Any]]] = {
    "blur": lambda x, s: ndimage.gaussian_filter(x, (0, s, s), mode="nearest"),
    "noise": lambda x, s: (x + 0.2 * s * NOISE).clip(-1, 1),
    "shift": lambda x, s: ndimage.shift(x, (0, 0, s), order=1, mode="nearest"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_grows_with_what_people_see(change: str) -> None:
    real = digits()
    loss = Perceptual.open("lenet")

    def distance(strength: float) -> Tensor:
        found: Tensor = loss(tensor(CHANGES[change](real, strength)), tensor(real))
        return found

    def tensor(x: NDArray[Any]) -> Tensor:
        return torch.from_numpy(x.astype(np.float32))[:, None]

    assert distance(0).shape == (24,)
    assert distance(0).abs().max() == 0
    means = [distance(strength).mean().item() for strength in (0, 0.5, 1, 1.5, 2)]
    assert all(b > a + 1e-4 for a, b in pairwise(means)), means


def test_descent_on_pixels_lowers_it() -> None:
    loss = Perceptual.open("lenet")
    real = torch.from_numpy(digits(2))[:, None]
    pixels = torch.zeros_like(real)
    first = loss(pixels, real).mean()
    for step in range(40):
        pixels.requires_grad_()
        (slope,) = torch.autograd.grad(loss(pixels, real).mean(), pixels)
        pixels = (pixels - (0.1 - step / 400) * slope.sign()).detach().clamp(-1, 1)
    assert loss(pixels, real).mean() < 0.1 * first
    assert (pixels - real).square().mean() < 0.5 * real.square().mean()  # it found the digits, not a blind spot


def test_equal_pictures_give_a_gradient_of_0() -> None:
    blank = torch.full((1, 1, 28, 28), -1.0, requires_grad=True)
    Perceptual.open("lenet")(blank, blank.detach()).sum().backward()
    assert blank.grad is not None
    assert blank.grad.abs().max() == 0


@pytest.mark.slow  # torch loads its kernels for the device "meta" for seconds
def test_it_moves_to_where_the_pictures_are() -> None:
    loss = Perceptual.open("lenet")
    images = torch.zeros(2, 3, 20, 20, device="meta")  # a device without data, which mixes with no other
    assert loss(images, images).shape == (2,)
    assert loss.luma.device.type == "meta"


def test_autocast_leaves_the_distance(rng: np.random.Generator) -> None:
    loss = Perceptual.open("lenet")
    real = torch.from_numpy(digits(4))[:, None]
    fake = real.flip(0)
    exact = loss(fake, real)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(fake.bfloat16(), real)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.03, atol=1e-3)


class Features(nn.Module):
    """Two layers, as a TorchScript file may return them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 4, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.one(x))
        return [x, torch.relu(self.two(x))]


def save_script(path: Path, module: nn.Module, described: Preparation | None = PLAIN) -> str:
    extra = {} if described is None else {METADATA_KEY: described.to_json()}
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(module), path, _extra_files=extra)
    return str(path)


def test_a_torchscript_file_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Features()
    fake, real = torch.rand(2, 3, 3, 9, 8) * 2 - 1
    path = save_script(tmp_path / "net.pt", module)
    loss = Perceptual.open(path)
    assert loss.layers == ["output 0", "output 1"]
    with torch.no_grad():
        expected = [
            (nn.functional.normalize(a, dim=1) - nn.functional.normalize(b, dim=1)).square().sum(1).mean((1, 2))
            for a, b in zip(module(fake), module(real), strict=True)
        ]
    torch.testing.assert_close(loss(fake, real), (expected[0] + expected[1]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Perceptual.open(path, layers=1)(fake, real), expected[0], rtol=1e-4, atol=1e-5)
    assert not list(loss.parameters())
    assert not loss.state_dict()
    assert torch.autograd.gradcheck(loss.double(), (fake.double().requires_grad_(), real.double()), fast_mode=True)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    for name, write in (("zip.pt", torch.save), ("raw.pt", lambda bomb, path: path.write_bytes(pickle.dumps(bomb)))):
        write(_Bomb(tmp_path / "ran"), tmp_path / name)
        with pytest.raises(ModelError, match=f"{name} is not a TorchScript file"):
            Perceptual.open(str(tmp_path / name), preparation=PLAIN)
    assert not (tmp_path / "ran").exists()
    torch.load(io.BytesIO((tmp_path / "zip.pt").read_bytes()), weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


def test_a_pinned_source_is_found_and_proved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = {"w": weights(2, 3, 1, 1)}
    path = Path(saved(tmp_path / "net.onnx", [node("Conv", "x", "w")], constants, described=PLAIN))
    monkeypatch.chdir(tmp_path)
    source = pinned("net.onnx")
    assert pinned(source) == source
    monkeypatch.chdir("/")
    assert source.startswith(str(path))
    assert source.endswith(Perceptual.open(source).digest)
    assert Perceptual.open(pinned("lenet")).digest == Perceptual.open("lenet").digest
    saved(path, [node("Conv", "x", "w")], {"w": weights(2, 3, 1, 1, seed=9)}, described=PLAIN)
    with pytest.raises(RunError, match="is not the network of the perceptual loss that the run began with"):
        Perceptual.open(source)
    with pytest.raises(ModelError, match=r"does not exist; give one of lenet, lenet-fashion, an \.onnx"):
        pinned("nothing.onnx")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    conv, constants = [node("Conv", "x", "w")], {"w": weights(2, 3, 5, 5)}
    silent = saved(tmp_path / "silent.onnx", conv, constants)
    with pytest.raises(ArgumentError, match=r"silent\.onnx does not say how it wants its pictures"):
        Perceptual.open(silent)
    with pytest.raises(ArgumentError, match="lenet says itself how it wants its pictures"):
        Perceptual.open("lenet", preparation=PLAIN)
    with pytest.raises(ArgumentError, match="layers is 0; valid: 1 to 16"):
        Perceptual.open("lenet", layers=0)
    with pytest.raises(ModelError, match=r"its input has 3 channels .* says channels 1"):
        Perceptual.open(silent, preparation=Preparation((0.0, 1.0), channels=1))
    with pytest.raises(ModelError, match="no convolution in it makes feature maps"):
        Perceptual.open(saved(tmp_path / "flat.onnx", [node("Flatten", "x")], described=PLAIN))
    loss = Perceptual.open(silent, preparation=PLAIN)
    with pytest.raises(ArgumentError, match=r"cannot compare pictures of 4 x 3 pixels: .*; give larger ones"):
        loss(torch.zeros(1, 3, 3, 4), torch.zeros(1, 3, 3, 4))
    for shapes in (((1, 3, 8, 8), (2, 3, 8, 8)), ((1, 4, 8, 8), (1, 4, 8, 8)), ((3, 8, 8), (3, 8, 8))):
        with pytest.raises(ArgumentError, match=r"pictures are .*; valid: the same shape, \[n, C, h, w\]"):
            loss(*map(torch.zeros, shapes))
