"""Generators of another origin: they draw what NumPy computes, or it is said what is missing."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgegan import ArgumentError, Foreign, ModelError, load, noise
from support import Exits

WEIGHTS = np.random.default_rng(0).standard_normal((8, 3 * 6 * 5), np.float32) / np.float32(4)
CLASSES = np.random.default_rng(1).standard_normal((3, 3 * 6 * 5), np.float32)
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A file of sigmoid(latents @ WEIGHTS + CLASSES[label]) * 255 in the shapes that others use."""

    def write(
        *,
        batch: int | str = "batch",
        latent: tuple[int, ...] = (8,),
        label: int | None = None,
        last: bool = False,
        extra: tuple[str, int] | None = None,
        outputs: int = 1,
    ) -> str:
        inputs = [helper.make_tensor_value_info("noise", TensorProto.FLOAT, [batch, *latent])]
        constants = [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(CLASSES, "classes"),
            numpy_helper.from_array(np.array([-1, 8]), "flat"),
            numpy_helper.from_array(np.array([-1, 3, 6, 5]), "shape"),
            numpy_helper.from_array(np.float32(255), "scale"),
        ]
        nodes = [
            helper.make_node("Reshape", ["noise", "flat"], ["z"]),
            helper.make_node("MatMul", ["z", "weights"], ["x"]),
        ]
        x = "x"
        if label is not None:
            inputs.append(helper.make_tensor_value_info("kind", label, [batch]))
            nodes.append(helper.make_node("Gather", ["classes", "kind"], ["embedded"]))
            nodes.append(helper.make_node("Add", [x, "embedded"], ["sum"]))
            x = "sum"
        if extra is not None:
            inputs.append(helper.make_tensor_value_info(extra[0], extra[1], [batch, 90]))
            nodes.append(helper.make_node("Add", [x, extra[0]], ["more"]))
            x = "more"
        nodes.append(helper.make_node("Sigmoid", [x], ["unit"]))
        nodes.append(helper.make_node("Mul", ["unit", "scale"], ["bytes"]))
        nodes.append(helper.make_node("Reshape", ["bytes", "shape"], ["first" if last else "picture0"]))
        if last:
            nodes.append(helper.make_node("Transpose", ["first"], ["picture0"], perm=[0, 2, 3, 1]))
        sizes = (6, 5, 3) if last else (3, 6, 5)
        found = [helper.make_tensor_value_info("picture0", TensorProto.FLOAT, [batch, *sizes])]
        for k in range(1, outputs):
            nodes.append(helper.make_node("Neg", ["picture0"], [f"picture{k}"]))
            found.append(helper.make_tensor_value_info(f"picture{k}", TensorProto.FLOAT, [batch, *sizes]))
        graph = helper.make_graph(nodes, "other", inputs, found, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / "other.onnx"
        path.write_bytes(model.SerializeToString())
        return str(path)

    return write


def expected(n: int, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    x = noise.normal(seed, n, 8).astype(np.float64) @ WEIGHTS
    if labels is not None:
        x = x + CLASSES[labels]
    return np.rint(255 / (1 + np.exp(-x))).reshape(n, 3, 6, 5).transpose(0, 2, 3, 1)


def close(drawn: np.ndarray, wanted: np.ndarray) -> bool:
    return drawn.shape == wanted.shape and bool(np.abs(drawn.astype(int) - wanted).max() <= 1) and drawn.std() > 1


BYTES = Foreign(range=(0, 255))


@pytest.mark.parametrize("batch", ["batch", 1, 3])
@pytest.mark.parametrize("latent", [(8,), (8, 1, 1)])
@pytest.mark.parametrize("last", [False, True])
def test_it_draws_what_it_is(make: Make, batch: int | str, latent: tuple[int, ...], last: bool) -> None:
    generator = load(make(batch=batch, latent=latent, last=last), foreign=BYTES)
    assert generator.spec.image_size == (6, 5)
    assert generator.spec.channels == 3
    assert generator.spec.latent_dim == 8
    assert close(generator.sample(7, seed=3), expected(7, 3))
    assert close(generator.sample(2, seed=3, start=5), expected(7, 3)[5:])


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_one_with_classes(make: Make, kind: int) -> None:
    generator = load(make(label=kind), foreign=Foreign(range=(0, 255), classes=3))
    assert generator.spec.classes == ("0", "1", "2")
    assert close(generator.sample(6, labels=2), expected(6, 0, np.full(6, 2)))
    assert close(generator.sample(6), expected(6, 0, noise.labels(0, 6, 3)))


def test_the_range_is_as_said(make: Make) -> None:
    path = make()
    upside_down = load(path, foreign=Foreign(range=(255, 0))).sample(4)
    assert close(upside_down, 255 - expected(4, 0))


@pytest.mark.parametrize(
    ("how", "foreign", "message"),
    [
        ({}, Foreign(classes=3), "it has no integer input for the 3 classes"),
        ({"label": TensorProto.INT64}, BYTES, "'kind' is for classes: say how many"),
        (
            {"extra": ("style", TensorProto.FLOAT)},
            BYTES,
            "it has 2 times a float32 input for latents: name one; there are",
        ),
        ({"extra": ("style", TensorProto.FLOAT)}, Foreign(latent="noise"), r"what to put into its inputs \['style'\]"),
        ({}, Foreign(latent="z"), "'z' is no float32 input for latents; there are 'noise' tensor"),
        ({"outputs": 2}, BYTES, "it has 2 times a float32 output: name one"),
        ({"latent": (4, 2)}, BYTES, r"valid: \[N, dim\] or \[N, dim, 1, 1\]"),
    ],
)
def test_what_must_be_said(make: Make, how: dict[str, Any], foreign: Foreign, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(make(**how), foreign=foreign)
    assert "\n" not in str(caught.value)


def test_an_output_can_be_named(make: Make) -> None:
    generator = load(make(outputs=2), foreign=Foreign(range=(0, 255), output="picture0"))
    assert close(generator.sample(3), expected(3, 0))


@pytest.mark.parametrize("wrong", [{"range": (1, 1)}, {"range": (0, np.nan)}, {"classes": -1}])
def test_descriptions_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=re.escape(f"{next(iter(wrong))} is ")):
        Foreign(**wrong)


def test_the_gate_stands_before_it(tmp_path: Path) -> None:
    node = helper.make_node("RandomNormalLike", ["noise"], ["picture"])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 4, 4]) for name in ("noise", "picture")]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(ModelError, match="RandomNormalLike"):
        load(model.SerializeToString(), foreign=Foreign())


def test_the_commands(make: Make, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(make(label=TensorProto.INT64))
    monkeypatch.chdir(path.parent)
    Exits(capfd, "sample", path.name).fails(1, "it has no edgegan metadata", "--range LOW,HIGH")
    options = ("--range", "0,255", "--classes", "3", "--latent-name", "noise")
    assert Exits(capfd, "sample", path.name, *options, "-n", "5", "-o", "x.npy").status == 0
    assert close(np.load("x.npy"), expected(5, 0, noise.labels(0, 5, 3)))
    assert Exits(capfd, "sample", path.name, *options, "-n", "5", "-o", "x.png").status == 0
    assert "the same" in Exits(capfd, "reproduce", "x.png", path.name, *options).out
    assert Exits(capfd, "walk", path.name, *options, "--frames", "2").status == 0
    Exits(capfd, "sample", path.name, "--range", "0").fails(2, "'0' is not two numbers with a comma between them")
    # A folder of one description takes no pictures of another.
    assert Exits(capfd, "sample", path.name, *options, "-n", "2", "-o", "many/").status == 0
    assert Exits(capfd, "sample", path.name, *options, "-n", "4", "-o", "many/").status == 0
    other = ("--range", "0,1", "--classes", "3")
    Exits(capfd, "sample", path.name, *other, "-n", "4", "-o", "many/").fails(2, "samples.json says foreign")


def test_an_output_is_named_on_the_command_line(
    make: Make, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(make(outputs=2))
    monkeypatch.chdir(path.parent)
    Exits(capfd, "sample", path.name, "--range", "0,255").fails(1, "name one")
    named = ("--range", "0,255", "--output-name", "picture0")
    assert Exits(capfd, "sample", path.name, *named, "-n", "3", "-o", "x.npy").status == 0
    assert close(np.load("x.npy"), expected(3, 0))
