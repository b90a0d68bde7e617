"""A perceptual loss: how far two pictures are apart in the eyes of a network that tells pictures apart.

    loss = Perceptual.open("vgg.onnx")    # or .pt, or "lenet"; a file, never a download
    loss(fake, real).mean()               # [n, C, h, w] in [-1, 1] -> [n]; gradients pass to the pictures

Papers: Johnson, Alahi, Fei-Fei 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", have the
features of a classifier for a loss; Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", the form here: eq. 1 with all weights 1, and a mean over the layers instead of a sum. No weights are learnt, so
distances are not those of their LPIPS; they are 0 for equal pictures, and at most 4.

How pictures become the network's input is a `Preparation`, as for scores: an .onnx file has it in its metadata,
`model.metadata_props.add(key="edgegan-features", value=Preparation(...).to_json())`, a TorchScript file in an extra
file of that name, `torch.jit.save(network, path, _extra_files={"edgegan-features": Preparation(...).to_json()})`, or
the caller gives it. TorchScript is a program that torch runs: open only files of people whom you trust.
"""

import hashlib
import io
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.errors import ArgumentError, MissingExtraError, ModelError, RunError, one_line, printable
from edgegan.gate import check
from edgegan.session import read_file
from edgegan.trainer.config import check_number
from edgegan.trainer.metrics.features import METADATA_KEY, NAMES, NETWORKS, Preparation

if TYPE_CHECKING:
    from edgegan.trainer.onnx_to_torch import OnnxModule

SCRIPT = ".pt"  # what a TorchScript file ends in
MARK = "#sha256="  # between a source and the digest that it must have, as in pip's URLs
MAX_LAYERS = 16
SIDE = 128  # pixels of the picture with which the layers of a network of free size are found
LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R 601, as Pillow's
EPSILON = 1e-10  # added to a squared length: where all features are 0 the slope of their direction would be infinite
# What moves a picture's axes: a value that such a node makes is no feature map until a convolution has read it.
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Gather", "MatMul", "Gemm", "Flatten")


class _Opened(NamedTuple):
    network: nn.Module  # prepared pictures -> a list of feature maps [n, C, h, w]
    layers: list[str]  # their names
    preparation: Preparation  # with channels; size only where pictures must have it


class Perceptual(nn.Module):
    """Distances of pictures. Frozen: it has no parameters to train, and nothing of it is in a state_dict."""

    digest: str  # SHA-256 of the network's file
    layers: list[str]  # whose features are compared, by their names in the file, the finest first
    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, opened: _Opened, source: str, digest: str) -> None:
        super().__init__()
        self.network, self.layers, self.preparation = opened
        self.source, self.digest = source, digest
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.preparation, name), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def open(cls, source: str, layers: int = 4, preparation: Preparation | None = None) -> "Perceptual":
        """Open `lenet`, `lenet-fashion`, an .onnx or a TorchScript .pt file, or what `pinned` made of one of these.

        layers: at most so many. Of an ONNX graph these are the last feature map at each resolution, from the finest
        on, where the graph is but one value wide (the end of a block, not what its branches hold); of a TorchScript
        file what it returns, a tensor or a list of them. preparation: for a file that does not describe itself; one of
        TorchScript needs channels, and size if the network takes no other.

        Raises ModelError for a file that is no such network or has an operator that `onnx_to_torch` lacks, RunError for
        another file than the pinned one, ArgumentError for arguments that are not valid or a preparation that is
        missing or needless, MissingExtraError without onnx.
        """
        check_number("layers", layers, 1, MAX_LAYERS)
        source, digest, data = _read(source)
        opened = (_open_script if source.endswith(SCRIPT) else _open_onnx)(data, source, layers, preparation)
        return cls(opened, source, digest).eval()

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """[n] distances of pictures [n, C, h, w] in [-1, 1], C = 1 or 3; float32, or float64 where the network is.

        The network moves to where the pictures are. It takes any size, unless its file fixes one: then pictures become
        that size. Raises ArgumentError for pictures of different shapes, of other channels, or too small for it.
        """
        if fake.shape != real.shape or fake.dim() != 4 or fake.shape[1] not in (1, 3):
            raise ArgumentError(
                f"pictures are {list(fake.shape)} and {list(real.shape)}; valid: the same shape, [n, C, h, w] with "
                "C = 1 (grey) or 3 (RGB)"
            )
        if self.luma.device != fake.device:
            self.to(fake.device)
        pairs = zip(self._features(fake), self._features(real), strict=True)
        return torch.stack([_distance(a, b) for a, b in pairs]).mean(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        try:
            found: list[Tensor] = self.network(self.prepare(images))
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # not for the pictures' size
        except RuntimeError as error:
            h, w = images.shape[2:]
            raise ArgumentError(
                f"{self.source} cannot compare pictures of {w} x {h} pixels: {one_line(error)}; give larger ones, or "
                "fewer layers"
            ) from error
        return found

    def prepare(self, images: Tensor) -> Tensor:
        """The network's input for [n, C, h, w] in [-1, 1], as `Preparation` makes it of uint8, but not rounded."""
        how = self.preparation
        x = images.to(self.luma.dtype)
        if x.shape[1] != how.channels:
            x = (x * self.luma).sum(1, keepdim=True) if how.channels == 1 else x.expand(-1, 3, -1, -1)
        if how.size is not None and x.shape[2:] != how.size:
            x = F.interpolate(x, how.size, mode="bicubic", antialias=True)  # the same kernel as Pillow's
        x = x.flip(1) if how.order == "BGR" else x
        low, high = how.range
        x = (((x + 1) * ((high - low) / 2) + low) - self.mean) / self.std
        return x if how.layout == "NCHW" else x.permute(0, 2, 3, 1)


def pinned(source: str) -> str:
    """`source` with the digest that its file has now, to be found and proved again: an absolute path, or a name.

    What is pinned already stays so. Raises ModelError if there is no such file, RunError for another than that.
    """
    source, digest, _ = _read(source)
    return f"{source if source in NAMES else Path(source).resolve()}{MARK}{digest}"


def _read(source: str) -> tuple[str, str, bytes]:
    """Name or path, digest and content of a source, pinned or not."""
    source, _, wanted = source.partition(MARK)
    path = str(NETWORKS / f"{source}.onnx") if source in NAMES else source
    data = read_file(path, f"give one of {', '.join(NAMES)}, an .onnx or a TorchScript {SCRIPT} file")
    digest = hashlib.sha256(data).hexdigest()
    if wanted and wanted != digest:
        raise RunError(
            f"{source} is not the network of the perceptual loss that the run began with (SHA-256 {digest[:12]}, "
            f"was {wanted[:12]}): put that file there again"
        )
    return source, digest, data


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """[n]: the squared distance of the features' directions, a mean over places (Zhang et al. 2018, eq. 1, w = 1)."""
    return (_unit(a) - _unit(b)).square().sum(1).reshape(len(a), -1).mean(1)


def _unit(features: Tensor) -> Tensor:
    """[n, C, ...], each place's features of length 1."""
    x = features.to(torch.promote_types(features.dtype, torch.float32))  # more than autocast's bfloat16
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + EPSILON)


def _open_onnx(data: bytes, source: str, layers: int, preparation: Preparation | None) -> _Opened:
    graph = check(data, source, small=True)
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtraError.of("a perceptual loss", "onnx", "train") from None
    from edgegan.trainer.onnx_to_torch import OnnxModule

    model = onnx.load_model_from_string(data)
    told = _told({item.key: item.value for item in model.metadata_props}.get(METADATA_KEY), preparation, source)
    kind, shape = next(iter(graph.inputs.values()), ("", ()))
    if len(graph.inputs) != 1 or kind != "float32" or len(shape) != 4:
        raise ModelError(
            f"{source}: it has {len(graph.inputs)} inputs, the first {kind} {printable(list(shape))}; "
            "valid: one, float32 with 4 dimensions"
        )
    axes = (1, 2, 3) if told.layout == "NCHW" else (3, 1, 2)
    channels, h, w = (own if isinstance(own := shape[axis], int) else None for axis in axes)
    how = _fitted(told, channels, None if h is None or w is None else (h, w), source)
    try:
        network = OnnxModule(model, source)
        found = _resolutions(network, _blank(how))[:layers]
        if not found:
            raise ModelError(f"{source}: no convolution in it makes feature maps [N, C, H, W] that all the rest reads")
        network.restrict(found)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # what torch raises
        raise ModelError(f"{source}: torch cannot run it: {one_line(error)}") from error
    return _Opened(network, found, how)


def _resolutions(network: "OnnxModule", blank: Tensor) -> list[str]:
    """The last feature map at each resolution in which a convolution lies, from the finest to the coarsest.

    A resolution ends where a map has half of the elements or fewer: a convolution without padding only trims.
    """
    found: list[str] = []
    maps: set[str] = set()
    area, convolved = math.inf, False
    with torch.no_grad():
        for step, value, alone in network.steps(blank):
            convolves = step.op == "Conv"
            convolved |= convolves
            if value.dim() == 4 and (convolves or (step.op not in MOVES and maps.intersection(step.inputs))):
                maps.add(step.output)
            if not alone or step.output not in maps:
                continue
            own = value.shape[2] * value.shape[3]
            if 2 * own > area:
                found[-1] = step.output
            elif convolved:
                found.append(step.output)
            else:  # pooled, and nothing more yet
                continue
            area, convolved = own, False
    return found


class _Script(nn.Module):
    """A TorchScript network, whose weights are no parameters or buffers of ours: a state_dict would have them."""

    _script: Any

    def __init__(self, script: Any, layers: int) -> None:
        super().__init__()
        for weight in script.parameters():
            weight.requires_grad_(False)
        self.__dict__["_script"] = script.eval()  # not as a submodule
        self._layers = layers

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._script._apply(fn)  # moves and casts it with us
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = self._script(x)
        return [found] if isinstance(found, Tensor) else list(found)[: self._layers]


def _open_script(data: bytes, source: str, layers: int, preparation: Preparation | None) -> _Opened:
    described = {METADATA_KEY: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that of TorchScript as a whole
            # Not torch.load, which runs what a pickle says.
            script = torch.jit.load(io.BytesIO(data), map_location="cpu", _extra_files=described)
    except RuntimeError as error:
        raise ModelError(
            f"{source} is not a TorchScript file: {one_line(error)}; write it with torch.jit.save"
        ) from error
    told = _told(described[METADATA_KEY] or None, preparation, source)
    how = _fitted(told, None, told.size, source)
    network = _Script(script, layers)
    try:
        with torch.no_grad():
            found = network(_blank(how))
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{source}: torch cannot run it: {one_line(error)}") from error
    if not found or not all(isinstance(y, Tensor) and y.is_floating_point() and y.dim() >= 2 for y in found):
        raise ModelError(
            f"{source}: it returns something else than features; valid: a tensor [n, C, h, w] or a list of such"
        )
    return _Opened(network, [f"output {i}" for i in range(len(found))], how)


def _told(text: str | bytes | None, given: Preparation | None, source: str) -> Preparation:
    """What the file or the caller says, of which just one must. Raises ModelError, ArgumentError."""
    if text is None and given is None:
        raise ArgumentError(
            f"{source} does not say how it wants its pictures: write a Preparation into its metadata '{METADATA_KEY}'"
        )
    if text is None:
        assert given is not None
        return given
    if given is not None:
        raise ArgumentError(f"{source} says itself how it wants its pictures: do not give a preparation")
    return Preparation.from_json(text if isinstance(text, str) else text.decode(errors="replace"), source)


def _fitted(told: Preparation, channels: int | None, size: tuple[int, int] | None, source: str) -> Preparation:
    """`told` with what the network's own input says, None where that is free. Raises ModelError if they do not fit."""
    own = channels or told.channels
    if own not in (1, 3) or told.channels not in (None, own) or (size and told.size not in (None, size)):
        raise ModelError(
            f"{source}: its input has {channels or 'free'} channels and a size of {size or 'any'}, and its preparation "
            f"says channels {told.channels}, size {told.size}; valid: the same, 1 or 3 channels"
        )
    if own == 1 and (len(told.mean) == 3 or len(told.std) == 3 or told.order == "BGR"):
        raise ModelError(f"{source}: its input is grey, so mean and std are one number each, and order is RGB")
    return replace(told, channels=own, size=size)


def _blank(how: Preparation) -> Tensor:
    """A picture as the network's input, of the size that it must have or of SIDE."""
    assert how.channels is not None
    h, w = how.size or (SIDE, SIDE)
    return torch.zeros((1, how.channels, h, w) if how.layout == "NCHW" else (1, h, w, how.channels))
