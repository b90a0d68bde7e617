"""Feature networks: what they are fed, that they pass the gate, and those that come with edgegan."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgegan.errors import ArgumentError, ModelError
from edgegan.trainer.data.sources import DIGITS
from edgegan.trainer.metrics.features import METADATA_KEY, NAMES, NETWORKS, Preparation, open_features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance


@pytest.fixture
def rng() -> np.random.Generator:
    """Each test draws the same numbers, whichever ran before."""
    return np.random.default_rng(0)


Write = Callable[..., str]


@pytest.fixture
def network(tmp_path: Path) -> Write:
    """A function that writes a network whose features are its input, flat: what it is fed can be read off.

    network([N, C, H, W], ...): `described` is the metadata, `pooled` the mean over H and W with these kept as 1,
    `window` that over each window of so many pixels.
    """

    def write(
        shape: list[int | str],
        *,
        described: Any = None,
        pooled: bool = False,
        window: int = 1,
        op: str = "",
        name: str = "net.onnx",
    ) -> str:
        n = shape[0]
        means = helper.make_node("AveragePool", ["x"], ["means"], kernel_shape=[window, window])
        nodes, constants, out = [means, helper.make_node("Flatten", ["means"], ["features"])], [], [n, "d"]
        if pooled:
            nodes, out = [helper.make_node("GlobalAveragePool", ["x"], ["features"])], [n, shape[1], 1, 1]
        nodes.append(helper.make_node(op or "ReduceMax", ["x", "axes"], ["top"], keepdims=0))
        constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in (("x", shape), ("features", out), ("top", [n, shape[1]]))
        ]
        graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        if described is not None:
            text = described if isinstance(described, str) else json.dumps(described)
            model.metadata_props.add(key=METADATA_KEY, value=text)
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return str(path)

    return write


def test_a_network_is_fed_what_its_description_says(rng: np.random.Generator, network: Write) -> None:
    images = rng.integers(0, 256, (5, 6, 4, 3), np.uint8)
    how = {"range": (0, 1), "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3), "output": "features"}
    expected = (images / 255 - how["mean"]) / how["std"]
    found = open_features(network(["N", 3, 6, 4]), **how)
    assert (found.name, found.dim) == ("net", 72)
    np.testing.assert_allclose(found(images).reshape(5, 3, 6, 4), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)

    last = open_features(network(["N", 6, 4, 3]), **how, layout="NHWC", order="BGR")
    bgr = (images[..., ::-1] / 255 - how["mean"]) / how["std"]
    np.testing.assert_allclose(last(images).reshape(5, 6, 4, 3), bgr, rtol=1e-5, atol=1e-5)

    told = {"format": 1, "range": [-1, 1], "output": "features", "logits": "top", "of a later release": 7}
    run = open_features(network(["N", 3, 6, 4], described=told)).run(images)
    assert run.logits is not None
    np.testing.assert_allclose(run.logits, images.max((1, 2)) / 127.5 - 1, rtol=1e-5, atol=1e-6)
    assert Preparation.from_json(last.preparation.to_json(), "x") == last.preparation


def test_pictures_of_other_sizes_and_colours_are_made_to_fit(rng: np.random.Generator, network: Write) -> None:
    colour = rng.integers(0, 256, (2, 40, 30, 3), np.uint8)
    grey = open_features(network(["N", 1, "H", "W"]), range=(0, 255), size=16, output="features")
    expected = [np.asarray(Image.fromarray(x).convert("L").resize((16, 16), Image.Resampling.BICUBIC)) for x in colour]
    np.testing.assert_array_equal(grey(colour), np.array(expected).reshape(2, -1))
    wide = open_features(network(["N", 3, "H", "W"]), range=(0, 255), size=(8, 12), output="features")
    small = np.asarray(Image.fromarray(colour[0, ..., 0]).resize((12, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(wide(colour[:1, ..., :1]).reshape(3, 8, 12), [small] * 3)


@pytest.mark.parametrize("n", [4, "N"])
def test_features_do_not_depend_on_the_company(rng: np.random.Generator, network: Write, n: int | str) -> None:
    images = rng.integers(0, 256, (11, 6, 4, 3), np.uint8)
    found = open_features(network([n, 3, 6, 4]), range=(0, 255), output="features", logits="top", batch=4)
    whole = found.run(images)
    assert found.batch == 4
    assert whole.features.shape == (11, 72)
    for size in (1, 3, 4, 7):
        parts = [found.run(images[i : i + size]) for i in range(0, 11, size)]
        np.testing.assert_array_equal(np.concatenate([part.features for part in parts]), whole.features)
    pooled = open_features(network([n, 3, 6, 4], pooled=True), range=(0, 255), output="features")
    assert pooled.dim == 3
    np.testing.assert_allclose(pooled(images), images.mean((1, 2)), rtol=1e-5)


def test_a_network_says_what_it_lacks(network: Write, tmp_path: Path) -> None:
    free, fixed = network(["N", 3, "H", "W"], name="free.onnx"), network(["N", 3, 6, 4], name="fixed.onnx")
    described = network(["N", 3, 6, 4], described={"format": 1, "range": [0, 1]}, name="described.onnx")
    for path, how, error, text in (
        ("vgg", {}, ModelError, "vgg does not exist; give one of lenet, lenet-fashion, inception, or"),
        (free, {}, ArgumentError, "does not say how it wants its pictures: give range"),
        (free, {"range": (0, 1)}, ModelError, "free.onnx: its input is 'x' float32.*give channels, size and layout"),
        (fixed, {"range": (0, 1), "size": 8}, ModelError, "give channels, size and layout that fit it"),
        (fixed, {"range": (0, 1), "layout": "NHWC"}, ModelError, "valid: 1 or 3 channels"),
        (fixed, {"range": (0, 1)}, ModelError, "its outputs are 'features'.*'top'.*name that of features"),
        (fixed, {"range": (0, 1), "output": "x"}, ModelError, "its outputs are"),
        (fixed, {"range": (0, 1), "scale": 2}, ArgumentError, "has no scale; valid: range, size"),
        (fixed, {"range": (1, 1)}, ArgumentError, "range is .1, 1.; valid: two different"),
        (fixed, {"range": (0, 1), "std": (0,)}, ArgumentError, "std is .*above 0"),
        (fixed, {"range": (0, 1), "layout": "HWC"}, ArgumentError, "layout is HWC; valid: NCHW or NHWC"),
        (fixed, {"range": (0, 1), "batch": 0}, ArgumentError, "batch is 0; valid: 1 to 1024"),
        (described, {"size": 6}, ArgumentError, "says itself how it wants its pictures: do not give size"),
        (described, {}, ModelError, "name that of features"),
    ):
        with pytest.raises(error, match=text) as caught:
            open_features(path, **how)
        assert "\n" not in str(caught.value)
    found = open_features(fixed, range=(0, 1), output="features")
    for images in (np.zeros((2, 6, 4, 4), np.uint8), np.zeros((2, 6, 4, 3)), np.zeros((0, 6, 4, 3), np.uint8)):
        with pytest.raises(ArgumentError, match="valid: uint8"):
            found(images)
    for bad in ("{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "range": 5}', "[" * 60_000):
        with pytest.raises(ModelError, match="its edgegan-features metadata is not valid"):
            open_features(network(["N", 3, 6, 4], described=bad))


def test_a_network_passes_the_gate_or_is_not_run(network: Write, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'ReduceEverything', which is not one of"):
        open_features(network(["N", 3, 6, 4], op="ReduceEverything"), range=(0, 1), output="features")
    free = network(["N", 3, "H", "W"], window=7)  # its costs, and whether it is one at all, depend on the size
    assert open_features(free, range=(0, 1), size=8, output="features").dim == 12
    with pytest.raises(ModelError, match=r"net\.onnx: node 'means' .*is wider than 6"):
        open_features(free, range=(0, 1), size=6, output="features")


# The networks that come with edgegan --------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_networks_that_come_along_are_small_and_whole(name: str) -> None:
    network = open_features(name, threads=1)
    assert (network.name, network.dim, len(network.digest)) == (name, 84, 64)
    file = NETWORKS / f"{name}.onnx"
    assert file.stat().st_size < 500_000
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert not any(node.doc_string or len(node.metadata_props) for node in model.graph.node)


def test_lenet_reads_the_built_in_digits() -> None:
    """These are among its training pictures: 99.2 % is what it must have on those it never saw."""
    with np.load(DIGITS) as digits:
        images, labels = digits["images"][::5, ..., None], digits["labels"][::5]
    found = open_features("lenet", threads=1).run(images)
    assert found.logits is not None
    assert found.logits.shape == (2000, 10)
    assert (found.logits.argmax(1) == labels).mean() > 0.992


def test_distances_in_lenet_rank_what_eyes_would(rng: np.random.Generator) -> None:
    """Two halves of the digits are near each other, blurred and noisy ones further, digits without one class too."""
    with np.load(DIGITS) as digits:
        images, labels = digits["images"][..., None], digits["labels"]
    network = open_features("lenet", threads=1)
    reference = Statistics.of(network(images[::4]))

    def distance(others: np.ndarray) -> float:
        return frechet_distance(reference, Statistics.of(network(others)))

    same = images[2::4]
    floor = distance(same)
    noisy = (same + rng.normal(size=same.shape) * 40).clip(0, 255).astype(np.uint8)
    noisier = (same + rng.normal(size=same.shape) * 80).clip(0, 255).astype(np.uint8)
    assert 2 * floor < distance(noisy) < distance(noisier)
    assert 2 * floor < distance(same[labels[2::4] != 7])


def test_metrics_need_no_torch(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from edgegan.trainer.metrics import features, frechet, kernel, similarity, sliced_wasserstein
features.open_features("lenet", threads=1)(np.zeros((1, 28, 28, 1), np.uint8))
print(sorted({"torch", "onnx", "scipy", "skimage"} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_code_of_the_page_on_metrics(tmp_path: Path) -> None:
    """The first block of docs/metrics.md, with the built-in digits for MNIST, and fewer of them."""
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].partition("```")[0]
    for there, here in (('"mnist"', '"digits"'), ("50_000", "2_000"), ("10_000", "1_000")):
        assert there in code
        code = code.replace(there, here)
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    frechet, kernel = shown.stdout.splitlines()
    assert 0 < float(frechet) < 100
    assert kernel.startswith("Estimate(value=")
