"""The model file's contract: what is written is read back, and what breaks it is refused by name."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegan import ArgumentError, Golden, ModelError, ModelSpec
from edgegan.spec import MAX_GOLDEN_BYTES, MAX_JSON_BYTES

PIXELS = bytes(range(24)) * 2
FULL = ModelSpec(
    recipe="dcgan",
    image_size=(4, 6),
    channels=1,
    latent_dim=100,
    classes=("null", "één", "2"),
    precision="int8",
    dataset="mnist",
    dataset_digest="sha256:00",
    kimg=1234.5,
    scores={"fid": 12.25, "features": "lenet"},
    licence="Apache-2.0",
    version="0.1.0",
    style=True,
    noise_inputs=((1, 4, 6), (7,)),
    golden=Golden(seed=2**64 - 1, count=2, size=(4, 6), tolerance=3, pixels=PIXELS),
)
TRANSLATE = replace(
    FULL, task="translate", latent_dim=None, classes=(), style=False, noise_inputs=(), golden=None, scale=4
)


def changed(**values: Any) -> str:
    return json.dumps(json.loads(FULL.to_json()) | values)


@pytest.mark.parametrize("spec", [FULL, TRANSLATE, ModelSpec("x", (1, 1), 3, 1)])
def test_what_is_written_is_read_back(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_the_json_has_the_contract_s_keys() -> None:
    # Files in the field depend on these names: changing one is a new format.
    values = json.loads(FULL.to_json())
    assert set(values) == {
        *(
            "format",
            "task",
            "recipe",
            "image_size",
            "channels",
            "latent_dim",
            "classes",
            "scale",
            "size_multiple",
        ),
        *("precision", "dataset", "dataset_digest", "kimg", "scores", "licence", "version", "style"),
        *("noise_inputs", "golden"),
    }
    assert values["format"] == 1
    assert values["image_size"] == [4, 6]
    assert sorted(values["golden"]) == ["count", "pixels", "seed", "size", "tolerance"]
    assert values["golden"]["pixels"].startswith("AAECAwQFBgcI")  # base64 of 0, 1, 2, ...


def test_inputs_and_outputs() -> None:
    assert FULL.inputs() == {
        "z": ("float32", ("N", 100)),
        "label": ("int64", ("N",)),
        "psi": ("float32", (1,)),
        "noise_0": ("float32", ("N", 1, 4, 6)),
        "noise_1": ("float32", ("N", 7)),
    }
    assert FULL.outputs() == {"image": ("float32", ("N", 1, 4, 6))}
    assert TRANSLATE.inputs() == {"source": ("float32", ("N", 1, "H", "W"))}
    assert TRANSLATE.outputs() == {"image": ("float32", ("N", 1, "H", "W"))}
    assert list(ModelSpec("x", (1, 1), 3, 1).inputs()) == ["z"]


def test_unknown_keys_are_ignored() -> None:
    assert ModelSpec.from_json(changed(invented_later={"a": [1]})) == FULL


@pytest.mark.parametrize("key", sorted(json.loads(FULL.to_json())))
def test_a_missing_key_is_named(key: str) -> None:
    values = json.loads(FULL.to_json())
    del values[key]
    with pytest.raises(ModelError, match=f"^faces.onnx: metadata key '{key}' is missing$"):
        ModelSpec.from_json(json.dumps(values), "faces.onnx")


GOLDEN = json.loads(FULL.to_json())["golden"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 0),
        ("format", "1"),
        ("format", True),
        ("task", "classify"),
        ("task", None),
        ("recipe", 3),
        ("recipe", "x" * 257),
        ("image_size", [4]),
        ("image_size", [4, 0]),
        ("image_size", [4, 16385]),
        ("image_size", [4, 6.0]),
        ("image_size", 4),
        ("image_size", "46"),
        ("channels", 0),
        ("channels", 2),
        ("channels", 5),
        ("channels", 1.0),
        ("latent_dim", 0),
        ("latent_dim", 65537),
        ("latent_dim", None),
        ("classes", "abc"),
        ("classes", [1, 2]),
        ("classes", ["a", "a"]),
        ("classes", ["x" * 257]),
        ("scale", 0),
        ("size_multiple", -1),
        ("precision", None),
        ("dataset", 1),
        ("kimg", -1),
        ("kimg", "1"),
        ("kimg", True),
        ("kimg", 10**400),
        ("scores", []),
        ("scores", {"fid": None}),
        ("scores", {"fid": True}),
        ("scores", {"fid": 10**400}),
        ("style", 1),
        ("noise_inputs", [4]),
        ("noise_inputs", [[]]),
        ("noise_inputs", [[0]]),
        ("noise_inputs", [[16384, 16384]]),
        ("noise_inputs", [[1]] * 65),
        ("golden", 7),
        ("golden", []),
        ("licence", ["MIT"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_valid(key: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"^faces.onnx: metadata key '{key}' is .*; valid: .+") as caught:
        ModelSpec.from_json(changed(**{key: value}), "faces.onnx")
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 2**64),
        ("count", 0),
        ("count", 3),  # no longer what the pixels hold
        ("size", [4, 7]),  # larger than the image
        ("size", [0, 6]),
        ("tolerance", 256),
        ("tolerance", 1.5),
        ("pixels", "not base64!"),
        ("pixels", "é"),
        ("pixels", GOLDEN["pixels"][:-4]),
        ("pixels", None),
    ],
)
def test_a_wrong_golden_value_is_named(key: str, value: Any) -> None:
    named = "pixels" if key == "count" and value else key
    with pytest.raises(ModelError, match=f"'golden.{named}' is .*; valid: "):
        ModelSpec.from_json(changed(golden=GOLDEN | {key: value}))


def test_a_newer_format_asks_for_an_upgrade() -> None:
    with pytest.raises(ModelError, match=r"^f\.onnx: metadata key 'format' is 2; .*upgrade edgegan"):
        ModelSpec.from_json(changed(format=2, task="something new"), "f.onnx")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    with pytest.raises(ModelError):
        ModelSpec.from_json(changed(kimg=0.125).replace("0.125", number))
    with pytest.raises(ModelError):
        ModelSpec.from_json(changed(scores={"fid": 0.125}).replace("0.125", number))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "[" * 30000, '{"a":' * 5000, "1" * 5000])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"^f\.onnx: its edgegan metadata is not "):
        ModelSpec.from_json(text, "f.onnx")


def test_deep_nesting_in_a_known_key_is_refused() -> None:
    for depth in range(50, 1500, 50):
        nested: str = "[" * depth + "]" * depth
        with pytest.raises(ModelError):
            ModelSpec.from_json(changed(image_size="HERE").replace('"HERE"', nested))


def test_size_limit() -> None:
    with pytest.raises(ModelError, match="larger than 65536 bytes"):
        ModelSpec.from_json(changed(extra="x" * MAX_JSON_BYTES))
    with pytest.raises(ModelError, match="larger than 65536 bytes"):
        ModelSpec.from_json(FULL.to_json() + "é" * 32768)  # few enough characters, too many bytes


@pytest.mark.parametrize(
    "wrong",
    [
        {"kimg": math.nan},
        {"latent_dim": 0},
        {"scores": {"fid": object()}},
        {"classes": tuple(f"class number {i}" for i in range(5000))},
        {"golden": Golden(0, 1, (4, 6), 0, b"short")},
    ],
)
def test_what_would_not_be_read_is_not_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        replace(FULL, **wrong).to_json()


@pytest.mark.parametrize(
    ("size", "channels", "count", "fitted"),
    [
        ((28, 28), 1, 16, (28, 28)),
        ((28, 28), 1, 20, (28, 28)),
        ((28, 28), 1, 21, (14, 14)),
        ((256, 256), 3, 4, (36, 36)),  # 256 // 7; 256 // 6 = 42 needs 21,168 bytes
        ((1, 16384), 1, 2, (1, 8192)),
    ],
)
def test_golden_pictures_are_shrunk_to_fit(
    size: tuple[int, int], channels: int, count: int, fitted: tuple[int, int]
) -> None:
    assert Golden.fit(size, channels, count) == fitted
    assert count * fitted[0] * fitted[1] * channels <= MAX_GOLDEN_BYTES


@pytest.mark.parametrize("count", [0, -1, MAX_GOLDEN_BYTES + 1])
def test_a_count_of_golden_pictures_that_cannot_fit(count: int) -> None:
    with pytest.raises(ArgumentError):
        Golden.fit((28, 28), 1, count)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(FULL.to_json()))), json_values)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    message = ""
    try:
        spec = ModelSpec.from_json(changed(**{key: value}), "f.onnx")
    except ModelError as error:
        message = str(error)
    else:
        assert ModelSpec.from_json(spec.to_json()) == spec
    assert message.isprintable()
    assert message.startswith("f.onnx: ") or not message
