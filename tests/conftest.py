"""Fixtures of several test files: a data root, and tiny ONNX generators whose pictures NumPy can compute too."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgegan import Golden, ModelSpec, _backend
from edgegan.trainer.data import Dataset, open_dataset
from support import BACKENDS, TEN


@pytest.fixture(scope="session", autouse=True)
def data_root_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded data sets go to a folder of this session, never to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data-root")
        patch.setenv("EDGEGAN_DATA", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A command takes over the signals of its process, which here goes on, and whose children would inherit them."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root of this test alone."""
    monkeypatch.setenv("EDGEGAN_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture(params=BACKENDS, ids=lambda module: module.__name__.rpartition(".")[2])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run the test with the C core and with NumPy, where there are both."""
    monkeypatch.setattr(_backend, "core", request.param)
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for pictures."""
    (tmp_path / "pets").mkdir()
    return tmp_path / "pets"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A labelled set of 40 noisy 28x28 pictures: fewer than a run shows, so that epochs are crossed."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    images = rng.integers(0, 80, (40, 28, 28)) + 60 * labels[:, None, None]
    np.savez(tmp_path / "set.npz", images=images.astype(np.uint8), labels=labels)
    return tmp_path / "set.npz"


@pytest.fixture
def dataset(pictures: Path) -> Dataset:
    """That set, opened."""
    return open_dataset(str(pictures))


@dataclass
class Tiny:
    """image = tanh(psi * z @ weights + classes[label] + noise_0), and the same in NumPy."""

    path: Path
    spec: ModelSpec
    weights: np.ndarray
    classes: np.ndarray

    def expected(
        self,
        z: np.ndarray,
        labels: np.ndarray | None = None,
        psi: float = 1.0,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """uint8 [N, H, W, C] in float64: within 1 of what a float32 runtime draws."""
        x = psi * z.astype(np.float64) @ self.weights
        if labels is not None:
            x = x + self.classes[labels]
        x = x.reshape(len(z), self.spec.channels, *self.spec.image_size)
        if noise is not None:
            x = x + noise
        return np.rint(np.tanh(x) * 127.5 + 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


MakeTiny = Callable[..., Tiny]


@pytest.fixture
def make_tiny(tmp_path: Path) -> MakeTiny:
    """A function that writes a tiny model: make_tiny(classes=("a", "b"), channels=3, ..., name="x.onnx").

    `metadata` replaces the JSON (None: no metadata at all); `fixed_batch` declares N as that number.
    """
    from onnx import TensorProto, helper, numpy_helper

    def make(
        name: str = "tiny.onnx",
        *,
        metadata: str | bytes | None = "",
        fixed_batch: int | None = None,
        golden_count: int = 0,
        **fields: Any,
    ) -> Tiny:
        spec = replace(ModelSpec(recipe="tiny", image_size=(6, 5), channels=1, latent_dim=8), **fields)
        (h, w), c, dim = spec.image_size, spec.channels, spec.latent_dim or 0
        random = np.random.default_rng(1)
        weights = random.standard_normal((dim, c * h * w), np.float32) / np.float32(4)
        classes = random.standard_normal((max(1, len(spec.classes)), c * h * w), np.float32)
        n = fixed_batch or "N"
        inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [n, dim])]
        constants = [numpy_helper.from_array(weights, "weights")]
        nodes, last = [], "z"
        if spec.style:
            inputs.append(helper.make_tensor_value_info("psi", TensorProto.FLOAT, [1]))
            nodes.append(helper.make_node("Mul", [last, "psi"], ["styled"]))
            last = "styled"
        nodes.append(helper.make_node("MatMul", [last, "weights"], ["flat"]))
        last = "flat"
        if spec.classes:
            inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, [n]))
            constants.append(numpy_helper.from_array(classes, "classes"))
            nodes.append(helper.make_node("Gather", ["classes", "label"], ["embedded"]))
            nodes.append(helper.make_node("Add", [last, "embedded"], ["sum"]))
            last = "sum"
        constants.append(numpy_helper.from_array(np.array([-1, c, h, w]), "shape"))
        nodes.append(helper.make_node("Reshape", [last, "shape"], ["shaped"]))
        last = "shaped"
        for k, shape in enumerate(spec.noise_inputs):
            inputs.append(helper.make_tensor_value_info(f"noise_{k}", TensorProto.FLOAT, [n, *shape]))
            nodes.append(helper.make_node("Add", [last, f"noise_{k}"], [f"noisy_{k}"]))
            last = f"noisy_{k}"
        nodes.append(helper.make_node("Tanh", [last], ["image"]))
        output = helper.make_tensor_value_info("image", TensorProto.FLOAT, [n, c, h, w])
        graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        tiny = Tiny(tmp_path / name, spec, weights, classes)
        if golden_count:
            from edgegan import noise

            drawn = tiny.expected(
                noise.normal(5, golden_count, dim),
                noise.labels(5, golden_count, len(spec.classes)) if spec.classes else None,
            )
            golden = Golden(seed=5, count=golden_count, size=(h, w), tolerance=1, pixels=drawn.tobytes())
            tiny.spec = replace(spec, golden=golden)
        if metadata is not None:
            text = metadata or tiny.spec.to_json()
            entry = model.metadata_props.add(key="edgegan", value="TEXT")
            if isinstance(text, str):
                entry.value = text
            else:  # bytes that the protobuf library would refuse to write: put in afterwards
                entry.value = "T" * len(text)
        data = model.SerializeToString()
        if isinstance(metadata, bytes):
            data = data.replace(b"T" * len(metadata), metadata)
        tiny.path.write_bytes(data)
        return tiny

    return make


@pytest.fixture
def model(make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model with ten classes in the current, otherwise empty folder."""
    make_tiny("m.onnx", classes=TEN, golden_count=2)
    monkeypatch.chdir(tmp_path)
    return "m.onnx"
