"""Load a model file and draw pictures, `load(path).sample(16, seed=7)`, or turn some into others, `.translate(...)`."""

import hashlib
import math
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from edgegan import leaves, noise
from edgegan._order import in_order
from edgegan.devices import AUTO, default_threads, onnxruntime
from edgegan.errors import ArgumentError, ModelError, one_line
from edgegan.gate import Cost, Graph, check
from edgegan.image import blank_sheet, to_float, to_uint8
from edgegan.session import BATCH, open_session, read_file, spec_of
from edgegan.spec import ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from edgegan.foreign import Adapter, Foreign, ForeignTranslator, TranslatorAdapter
    from edgegan.translate import Picture, Tell

BUILT_INS = {name: Path(__file__).parent / "models" / f"{name}.onnx" for name in ("digits", "fashion")}
BUILT_IN = BUILT_INS["digits"]  # without a name
MAX_COUNT = 10**12
ON_CUDA = ("cuda", "tensorrt")

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Label = int | str  # NumPy's integers too
T = TypeVar("T")


def load(
    path: str | os.PathLike[str] | bytes | None = None,
    provider: str = AUTO,
    threads: int | None = None,
    *,
    bulk: bool = False,
    foreign: "Foreign | ForeignTranslator | None" = None,
) -> "Generator":
    """Open a model: a file that edgegan-export wrote, its bytes, or (without `path`) the built-in digits.

    "digits" and "fashion" are the built-in models, whatever files there are; "./fashion" is a file. The file is
    read once and whole; it may be replaced or deleted afterwards. provider: "auto" takes a GPU if there is one that
    works, else the CPU, and `Generator.provider` says which; or "cpu", "cuda", "tensorrt", "openvino", "coreml",
    "directml" or "xnnpack", where the installed onnxruntime has it. threads: of the CPU, default as many as this
    process's affinity and container allow; they share each batch. bulk: for hundreds of pictures in one call; on
    the CPU each thread draws a batch of its own, if the model is light: in less time and more memory. foreign: what
    a file does not say that somebody else exported: `Foreign` for a generator, `ForeignTranslator` for what
    translates.

    Raises ModelError for anything that is not such a model, DeviceError for a provider that is not there or does not
    load, MissingExtraError without onnxruntime, ArgumentError for threads below 1.
    """
    threads = default_threads() if threads is None else _whole("threads", threads, 1, 1024)
    if isinstance(path, bytes):
        data, source = path, "the model"
    else:
        source = os.fspath(BUILT_IN if path is None else path)
        source = os.fspath(BUILT_INS.get(source, source))
        data = read_file(source, f"give an .onnx file that edgegan-export wrote, or one of {', '.join(BUILT_INS)}")
    session, provider, callers = open_session(data, source, threads, provider, bulk=bulk, small=True)
    digest = hashlib.sha256(data).hexdigest()
    adapter: Adapter | TranslatorAdapter | None = None
    graph = None
    if foreign is None:
        spec = spec_of(session, source)
        if spec.task == "translate":
            graph = check(data, source, small=True)
    else:
        from edgegan.foreign import Foreign, adapt, adapt_translator

        if isinstance(foreign, Foreign):
            adapter, spec = adapt(session, foreign, source)
        else:
            graph = check(data, source, small=True)
            adapter, spec = adapt_translator(session, foreign, graph, source)
    return Generator(session, spec, source, provider, digest, callers, adapter, graph)


class Generator:
    """A loaded model. It keeps no state between calls: picture i of a seed is a function of (model, seed, i).

    Latents, noise and default labels are the same bits on every device and at every batch size. Pixels are
    the same on one device at one batch size; elsewhere the arithmetic of onnxruntime may round differently,
    and the golden samples' tolerance (`spec.golden.tolerance`) bounds by how much.

    Any number of threads may use it at once. After a fork the child must load its own; it gets a ModelError that says
    so. As a context manager it lets go of the model, and its memory, at the end of the block.
    """

    def __init__(
        self,
        session: "InferenceSession",
        spec: ModelSpec,
        source: str,
        provider: str,
        digest: str,
        callers: int,
        adapter: "Adapter | TranslatorAdapter | None" = None,
        graph: Graph | None = None,
    ) -> None:
        """Not for direct use: see `load`."""
        self.spec = spec
        self.source = source  # the file's name, for messages
        self.provider = provider  # what runs it: "cpu", "cuda", ...
        self.digest = digest  # SHA-256 of the file, in hexadecimal
        self.callers = callers  # how many threads run batches at once: see bulk in load
        self.foreign = adapter.foreign if adapter else None  # as it was given to load
        self._adapter = adapter
        self._graph = graph  # of a model that translates
        self._costs: dict[tuple[int, int], Cost] = {}
        self._session: InferenceSession | None = session
        self._pid = os.getpid()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model; calls after this raise ModelError."""
        self._session = None

    def __repr__(self) -> str:
        h, w = self.spec.image_size
        shape = f"{h}x{w}x{self.spec.channels}"
        return f"<edgegan.Generator {self.source!r}: {self.spec.recipe!r}, {shape}, on {self.provider}>"

    def sample(
        self,
        n: int,
        seed: int = 0,
        *,
        start: int = 0,
        labels: Label | Sequence[Label] | None = None,
        truncation: float | None = None,
        psi: float | None = None,
        batch: int | None = None,
    ) -> U8:
        """Pictures start .. start + n - 1 of `seed`: [n, H, W, C] uint8.

        n: 1 or more. seed: 0 .. 2^64 - 1. labels: one class for all, or n of them, each an index, a class
        name or an index as text; default: each picture's own, drawn uniformly from the seed. truncation:
        latents from N(0, 1) within [-truncation, truncation]; less variety, fewer failures. psi: truncation
        in style space, default 1, for models that have one. batch: pictures a run of the model, default 8;
        it bounds memory.

        Raises ArgumentError.
        """
        n = _whole("n", n, 1, MAX_COUNT)
        images = np.empty((n, *self.spec.image_size, self.spec.channels), np.uint8)

        def place(i: int, floats: F32) -> None:
            to_uint8(floats, images[i : i + len(floats)])

        for _ in self._batches(n, seed, start, labels, truncation, psi, batch, place):
            pass
        return images

    def grid(
        self,
        n: int,
        seed: int = 0,
        *,
        start: int = 0,
        labels: Label | Sequence[Label] | None = None,
        truncation: float | None = None,
        psi: float | None = None,
        batch: int | None = None,
        columns: int | None = None,
        zoom: int = 1,
        gap: int = 2,
        progress: Callable[[int], None] | None = None,
    ) -> U8:
        """The pictures of `sample` on one sheet [H', W', C] uint8, row by row, each drawn straight into its place.

        columns: default near-square. zoom: each pixel becomes zoom x zoom. gap: white pixels between and around the
        pictures. progress: is told after each batch how many are done. Raises as `sample`, and SizeError above 2^31 - 1
        elements.
        """
        n = _whole("n", n, 1, MAX_COUNT)
        sheet, tiles = blank_sheet(n, self.spec.image_size, self.spec.channels, columns=columns, zoom=zoom, gap=gap)
        columns = tiles.shape[1]

        def place(i: int, floats: F32) -> int:
            done = 0
            while done < len(floats):  # what a batch has for one row of the sheet
                row, column = divmod(i + done, columns)
                part = floats[done : done + columns - column]
                to_uint8(part, tiles[row, column : column + len(part)], zoom=zoom)
                done += len(part)
            return i + done

        for done in self._batches(n, seed, start, labels, truncation, psi, batch, place):
            if progress is not None:
                progress(done)
        return sheet

    def stream(
        self,
        n: int,
        seed: int = 0,
        *,
        start: int = 0,
        labels: Label | Sequence[Label] | None = None,
        truncation: float | None = None,
        psi: float | None = None,
        batch: int | None = None,
    ) -> Iterator[U8]:
        """The pictures of `sample` in batches [<= batch, H, W, C], at flat memory.

        One caller draws each when it is asked for; several (`callers`), a few batches ahead.
        """
        return self._batches(n, seed, start, labels, truncation, psi, batch, lambda _, floats: to_uint8(floats))

    def _batches(
        self,
        n: int,
        seed: int,
        start: int,
        labels: Label | Sequence[Label] | None,
        truncation: float | None,
        psi: float | None,
        batch: int | None,
        place: Callable[[int, F32], T],
    ) -> Iterator[T]:
        """What `place(i, floats)` makes of each batch of `sample`: from its i-th picture on, [<= batch, C, H, W].

        In order. `place` is called in the thread that drew the batch.
        """
        n = _whole("n", n, 1, MAX_COUNT)
        start = _whole("start", start, 0, 2**64 - n)
        batch = BATCH if batch is None else _whole("batch", batch, 1, 2**20)
        chosen = self._labels(labels, n)
        self._check_psi(psi)
        # All arguments are checked here, when this is called, and not at the first next().
        self.latents(1, seed, start=start, truncation=truncation)

        def draw(i: int) -> T:
            m = min(batch, n - i)
            z = self.latents(m, seed, start=start + i, truncation=truncation)
            part = chosen[i : i + m] if isinstance(chosen, np.ndarray) else chosen
            return place(i, self._draw(z, part, seed, start + i, psi))

        return in_order((partial(draw, i) for i in range(0, n, batch)), self.callers)

    def latents(self, n: int, seed: int = 0, *, start: int = 0, truncation: float | None = None) -> F32:
        """The latents of pictures start .. start + n - 1 of `seed`: [n, latent_dim] float32, N(0, 1).

        The same bits on every device. Raises ArgumentError.
        """
        n = _whole("n", n, 1, MAX_COUNT)
        return noise.normal(seed, n, self._latent_dim(), start=start, truncation=truncation)

    def _latent_dim(self) -> int:
        if self.spec.latent_dim is None:
            raise ModelError(f"{self.source}: it turns pictures into others and draws none: use translate")
        return self.spec.latent_dim

    def decode(
        self,
        latents: F32,
        labels: Label | Sequence[Label] | None = None,
        *,
        seed: int = 0,
        start: int = 0,
        psi: float | None = None,
        batch: int | None = None,
    ) -> U8:
        """Pictures of given latents [n, latent_dim] -> [n, H, W, C] uint8.

        What latents do not fix (labels left out, noise of layers) is drawn from `seed` at start, start + 1,
        ...: `decode(latents(n, seed), seed=seed)` is `sample(n, seed)`. Raises ArgumentError.
        """
        z = np.ascontiguousarray(latents, np.float32)
        dim = self._latent_dim()
        if z.ndim != 2 or z.shape[1] != dim or not len(z):
            raise ArgumentError(f"latents have shape {list(z.shape)}; valid: [n, {dim}] with n at least 1")
        start = _whole("start", start, 0, 2**64 - len(z))
        batch = BATCH if batch is None else _whole("batch", batch, 1, 2**20)
        chosen = self._labels(labels, len(z))
        self._check_psi(psi)
        images = np.empty((len(z), *self.spec.image_size, self.spec.channels), np.uint8)

        def draw(i: int) -> None:
            part = chosen[i : i + batch] if isinstance(chosen, np.ndarray) else chosen
            to_uint8(self._draw(z[i : i + batch], part, seed, start + i, psi), images[i : i + batch])

        for _ in in_order((partial(draw, i) for i in range(0, len(z), batch)), self.callers):
            pass
        return images

    def walk(
        self,
        seeds: Sequence[int],
        frames: int,
        loop: bool = True,
        *,
        label: Label | None = None,
        truncation: float | None = None,
        psi: float | None = None,
        batch: int | None = None,
    ) -> Iterator[U8]:
        """A journey from picture 0 of each seed to that of the next, and back to the first if `loop`.

        Yields pictures [H, W, C] uint8: `frames` for each leg, without the last of it, which begins the next one; so
        len(seeds) * frames for a loop, else (len(seeds) - 1) * frames + 1. Between two seeds the latents move on the
        arc (`noise.slerp`); layers' noise stays that of the first picture. label: one class, default the one that the
        first seed draws. The other arguments are those of `sample`. Raises ArgumentError.
        """
        seeds = list(seeds)
        if len(seeds) < 2:
            raise ArgumentError(f"seeds are {seeds}; valid: two or more to walk between")
        frames = _whole("frames", frames, 1, MAX_COUNT)
        batch = BATCH if batch is None else _whole("batch", batch, 1, 2**20)
        self._check_psi(psi)
        stops = [self.latents(1, seed, truncation=truncation)[0] for seed in seeds]
        if label is not None:
            chosen = self._labels(label, 1)
        else:
            chosen = int(noise.labels(seeds[0], 1, len(self.spec.classes))[0]) if self.spec.classes else None

        def latents() -> Iterator[F32]:
            """At most `batch` at a time, each piece within one leg."""
            for a, b in zip(stops, [*stops[1:], stops[0]] if loop else stops[1:], strict=False):
                for i in range(0, frames, batch):
                    yield noise.slerp(a, b, [k / frames for k in range(i, min(frames, i + batch))])
            if not loop:
                yield stops[-1][None]

        def draw(z: F32) -> U8:
            return to_uint8(self._draw(z, chosen, seeds[0], 0, psi, still=True))

        return chain.from_iterable(in_order((partial(draw, z) for z in latents()), self.callers))

    def translate(
        self,
        picture: "Picture",
        *,
        tile: int | None = None,
        overlap: int | None = None,
        max_memory: int | None = None,
        batch: int | None = None,
        tell: "Tell | None" = None,
    ) -> Any:
        """What a model that translates makes of a picture, of the same kind: see `edgegan.translate.translate`.

        Of an array of pictures at most `batch` share a run of the model, default 8.
        """
        from edgegan.translate import Tiling, translate

        batch = BATCH if batch is None else _whole("batch", batch, 1, 2**20)
        return translate(self, picture, Tiling(tile, overlap, max_memory, batch), tell)

    def test_pictures(self, n: int, seed: int = 0) -> U8:
        """What golden samples are taken of: [n, H, W, C] uint8.

        The pictures of `sample(n, seed)`; of a model that translates, what it makes of the first n synthetic pictures
        that `inputs_of` gives. Raises ArgumentError.
        """
        if self.spec.task == "generate":
            return self.sample(n, seed)
        n = _whole("n", n, 1, MAX_COUNT)
        self.cost_of(self.spec.image_size)  # the gate's bounds, before pictures of that size are made
        parts = ((i, min(BATCH, n - i)) for i in range(0, n, BATCH))
        return np.concatenate([to_uint8(self.run(inputs_of(self.spec, seed, m, i))) for i, m in parts])

    def check_golden(self) -> int:
        """Draw the golden samples again: the largest difference of a pixel, 0..255, from those in the file.

        At most `spec.golden.tolerance` where the model works as its exporter saw it. Raises ModelError if the
        file has no golden samples.
        """
        golden = self.spec.golden
        if golden is None:
            raise ModelError(f"{self.source}: it has no golden samples to check against")
        drawn = shrink(self.test_pictures(golden.count, golden.seed), golden.size)
        expected = np.frombuffer(golden.pixels, np.uint8).reshape(drawn.shape)
        return int(np.abs(drawn.astype(np.int16) - expected).max())

    def _draw(
        self, z: F32, labels: I64 | int | None, seed: int, start: int, psi: float | None, *, still: bool = False
    ) -> F32:
        """One run of the model: [m, latent_dim] -> [m, C, H, W] float32, about [-1, 1]."""
        feed = inputs_of(self.spec, seed, len(z), start, z=z, still=still)
        if labels is not None:
            feed["label"] = np.broadcast_to(np.asarray(labels, np.int64), (len(z),)).copy()
        if psi is not None:
            feed["psi"] = np.array([psi], np.float32)
        return self.run(feed)

    def run(self, feed: dict[str, NDArray[Any]]) -> F32:
        """The network's own output for inputs by name (`spec.inputs()`): [n, C, H, W] float32, about [-1, 1].

        For comparing networks; to make pictures use `sample`, `decode` or `translate`. Raises ModelError if onnxruntime
        fails.
        """
        spec, session = self.spec, self._open_session()
        if spec.task == "translate":
            n, _, h, w = feed["source"].shape
            self.cost_of((h, w))
            size = h * spec.scale, w * spec.scale
        else:
            n, size = len(feed["z"]), spec.image_size
        try:
            if self._adapter is not None:
                images = self._adapter.run(session.run, feed)
            elif self.provider in ON_CUDA:
                images = _run_on_cuda(session, feed)
            else:
                (images,) = session.run(["image"], feed)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(f"{self.source}: onnxruntime failed to run it: {one_line(error)}") from error
        expected = (n, spec.channels, *size)
        if images.shape != expected:
            problem = f"its output has shape {list(images.shape)}, expected {list(expected)}"
            if spec.task == "translate" and self.foreign is not None and spec.size_multiple == 1:
                problem += "; if its sides must be multiples of a number, say so (--size-multiple)"
            raise ModelError(f"{self.source}: {problem}")
        return images

    def cost_of(self, size: tuple[int, int]) -> Cost:
        """What one picture of `size` (h, w) takes, of a model that translates.

        Raises ModelError if that is more than the gate allows, or the network cannot take the size.
        """
        if self._graph is None:
            raise ModelError(f"{self.source}: it draws pictures and takes none: use sample")
        if size not in self._costs:
            shapes: dict[str, tuple[int, ...]] = {"source": (1, self.spec.channels, *size)}
            if self._adapter is not None:
                shapes = cast("TranslatorAdapter", self._adapter).shapes(self.spec.channels, *size)
            try:
                self._costs[size] = self._graph.cost_of(shapes)
            except ModelError as error:
                raise ModelError(f"{self.source}: of a picture of {size[1]} x {size[0]}: {error}") from None
        return self._costs[size]

    @property
    def weight_bytes(self) -> int:
        """The bytes of the weights, of a model that translates."""
        return 0 if self._graph is None else self._graph.weight_bytes

    @property
    def fixed_size(self) -> tuple[int | None, int | None]:
        """The height and width that a model of another origin takes alone; None where they are free."""
        return (getattr(self._adapter, "height", None), getattr(self._adapter, "width", None))

    def _open_session(self) -> "InferenceSession":
        if self._session is None:
            raise ModelError(f"{self.source}: the model was closed; load it again")
        if os.getpid() != self._pid:
            raise ModelError(f"{self.source}: loaded before this process was forked; load it again in the child")
        return self._session

    def _labels(self, labels: Label | Sequence[Label] | None, n: int) -> I64 | int | None:
        """Class indices [n], one index for all, or None for those drawn from the seed."""
        if labels is None:
            return None
        if not self.spec.classes:
            raise ArgumentError(f"labels were given, but {self.source} has no classes; leave them out")
        if isinstance(labels, int | str | np.integer):
            return self.label(labels)
        if len(labels) != n:
            raise ArgumentError(f"{len(labels)} labels were given for {n} pictures; valid: one, or {n}")
        return np.array([self.label(label) for label in labels], np.int64)

    def label(self, label: "Label | np.integer") -> int:
        """The index of a class, given by index, by name, or by index as text. Raises ArgumentError."""
        classes = self.spec.classes
        if isinstance(label, str):
            if label in classes:
                return classes.index(label)
            index = int(label) if label.isdecimal() and len(label) <= 6 else -1
        else:
            try:
                index = operator.index(label)
            except TypeError:
                index = -1
        if not 0 <= index < len(classes):
            names = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            valid = f"0 to {len(classes) - 1} or a name ({names})" if classes else "none, it has no classes"
            raise ArgumentError(f"label {label!r} is not a class of {self.source}; valid: {valid}")
        return index

    def _check_psi(self, psi: float | None) -> None:
        if psi is not None and not self.spec.style:
            raise ArgumentError(f"psi was given, but {self.source} has no style space; leave it out")
        if psi is not None and not math.isfinite(psi):
            raise ArgumentError(f"psi is {psi}; valid: a finite number, usually 0 to 1")


def _run_on_cuda(session: "InferenceSession", feed: dict[str, NDArray[Any]]) -> F32:
    """The same as session.run, with inputs and output bound to the device: one copy each way, and none between."""
    ort = onnxruntime()
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    binding.bind_output("image", "cuda", 0)
    session.run_with_iobinding(binding)
    images: F32 = binding.get_outputs()[0].numpy()
    return images


def inputs_of(
    spec: ModelSpec,
    seed: int,
    n: int,
    start: int = 0,
    z: F32 | None = None,
    *,
    still: bool = False,
    size: tuple[int, int] | None = None,
) -> dict[str, NDArray[Any]]:
    """What a model with `spec` is fed for pictures start .. start + n - 1 of `seed`, by input name.

    The one place that says so: the runtime, the exporter's golden samples and previews in training all ask here. z:
    other latents than the seed's. still: the noise of layers is that of picture `start` in all of them. A model that
    translates is fed synthetic pictures (leaves.py) of `size` (h, w), default `spec.image_size`.
    """
    if spec.latent_dim is None:
        return {"source": to_float(leaves.pictures(seed, n, size or spec.image_size, spec.channels, start))}
    if z is None:
        z = noise.normal(seed, n, spec.latent_dim, start=start)
    feed: dict[str, NDArray[Any]] = {"z": z}
    if spec.classes:
        feed["label"] = noise.labels(seed, n, len(spec.classes), start=start)
    if spec.style:
        feed["psi"] = np.ones(1, np.float32)
    for k, shape in enumerate(spec.noise_inputs):
        count = 1 if still else n
        drawn = noise.normal(seed, count, math.prod(shape), start=start, stream=noise.STREAM_NOISE_INPUT + k)
        feed[f"noise_{k}"] = np.broadcast_to(drawn.reshape(count, *shape), (n, *shape))
    return feed


def shrink(images: U8, size: tuple[int, int]) -> U8:
    """[N, H, W, C] -> [N, h, w, C] by picking the pixel at the centre of each cell.

    For golden samples: a picked pixel keeps its difference, which an average would hide.
    """
    (h, w), (full_h, full_w) = size, images.shape[1:3]
    rows = (2 * np.arange(h) + 1) * full_h // (2 * h)
    columns = (2 * np.arange(w) + 1) * full_w // (2 * w)
    return images[:, rows[:, None], columns]


def _whole(name: str, value: int, low: int, high: int) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = low - 1
    if not low <= found <= high:
        raise ArgumentError(f"{name} is {value!r}; valid: a whole number from {low} to {high}")
    return found
