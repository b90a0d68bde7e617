"""Loading a model file and drawing with it, on tiny models whose pictures NumPy computes too."""

import os
import pickle
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgegan
from edgegan import ArgumentError, MissingExtraError, ModelError, ModelSpec, _backend, load, noise
from edgegan.model import Generator, shrink
from support import TEN

Tiny = Any  # conftest.Tiny, which importlib's import mode leaves out of reach
MakeTiny = Callable[..., Tiny]


def close(drawn: np.ndarray, expected: np.ndarray) -> bool:
    """Within the rounding of a float32 runtime, and not all of one value."""
    difference = np.abs(drawn.astype(int) - expected)
    return drawn.shape == expected.shape and bool(difference.max() <= 1) and drawn.std() > 1


@pytest.fixture
def plain(make_tiny: MakeTiny) -> Tiny:
    return make_tiny()


@pytest.fixture
def ten(make_tiny: MakeTiny) -> Tiny:
    return make_tiny("ten.onnx", classes=TEN, channels=3)


# Drawing


def test_sample_is_the_network_on_the_noise(plain: Tiny) -> None:
    images = load(plain.path).sample(20, seed=7)
    assert images.dtype == np.uint8
    assert images.shape == (20, 6, 5, 1)
    assert close(images, plain.expected(noise.normal(7, 20, 8)))


@pytest.mark.parametrize("opened", ["str", "bytes"])
def test_load_takes_a_name_or_bytes(plain: Tiny, opened: str) -> None:
    model = load(str(plain.path)) if opened == "str" else load(plain.path.read_bytes())
    assert model.spec == plain.spec
    np.testing.assert_array_equal(model.sample(2), load(plain.path).sample(2))


def test_the_file_is_read_once(plain: Tiny) -> None:
    model = load(plain.path)
    plain.path.unlink()
    assert len(model.sample(3)) == 3


def test_a_picture_is_the_same_whatever_n_batch_and_start(ten: Tiny) -> None:
    model = load(ten.path)
    z = model.latents(37, 3)
    images = model.sample(37, 3, batch=1)  # a tiny matrix product is exact enough to compare at every batch
    for n, start, batch in [(1, 0, 1), (5, 0, 16), (7, 30, 4), (37, 0, 37), (20, 3, 7)]:
        np.testing.assert_array_equal(model.latents(n, 3, start=start), z[start : start + n])
        drawn = model.sample(n, 3, start=start, batch=batch)
        assert np.abs(drawn.astype(int) - images[start : start + n]).max() <= 1
    # At the same batches the pixels are the same bits, even if fewer are asked for.
    np.testing.assert_array_equal(model.sample(37, 3, batch=8)[:16], model.sample(16, 3, batch=8))


def test_seeds_and_indices_reach_to_two_to_the_64(plain: Tiny) -> None:
    model = load(plain.path)
    last = model.sample(1, 2**64 - 1, start=2**64 - 1)
    assert not np.array_equal(last, model.sample(1, 2**64 - 1, start=0))
    assert not np.array_equal(model.sample(4, 0), model.sample(4, 1))


def test_labels_default_to_the_label_stream(ten: Tiny) -> None:
    drawn = load(ten.path).sample(40, 9)
    assert close(drawn, ten.expected(noise.normal(9, 40, 8), noise.labels(9, 40, 10)))


@pytest.mark.parametrize("label", [3, "three", "3", np.int64(3)])
def test_one_label_is_for_all(ten: Tiny, label: Any) -> None:
    drawn = load(ten.path).sample(20, labels=label)
    assert close(drawn, ten.expected(noise.normal(0, 20, 8), np.full(20, 3)))


@pytest.mark.parametrize("convert", [list, tuple, np.array])
def test_a_label_for_each_across_batches(ten: Tiny, convert: Any) -> None:
    labels = np.arange(20) % 10
    drawn = load(ten.path).sample(20, labels=convert(labels.tolist()), batch=7)
    assert close(drawn, ten.expected(noise.normal(0, 20, 8), labels))
    mixed = load(ten.path).sample(3, labels=["two", 5, "7"])
    assert close(mixed, ten.expected(noise.normal(0, 3, 8), np.array([2, 5, 7])))


def test_a_name_goes_before_an_index(make_tiny: MakeTiny) -> None:
    model = load(make_tiny(classes=("1", "0")).path)
    assert [model.label("1"), model.label("0"), model.label(1)] == [0, 1, 1]


def test_truncation_bounds_the_latents(plain: Tiny) -> None:
    model = load(plain.path)
    z = model.latents(500, truncation=0.5)
    assert np.abs(z).max() <= 0.5
    assert np.abs(z).max() > 0.49
    assert close(model.sample(500, truncation=0.5), plain.expected(z))
    np.testing.assert_array_equal(z, noise.normal(0, 500, 8, truncation=0.5))


def test_style_and_noise_inputs(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(style=True, noise_inputs=((1, 6, 5), (1, 1, 1)))
    model = load(tiny.path)
    z = noise.normal(4, 30, 8, start=2)
    layers = noise.normal(4, 30, 30, start=2, stream=16).reshape(30, 1, 6, 5)
    layers = layers + noise.normal(4, 30, 1, start=2, stream=17).reshape(30, 1, 1, 1)
    assert close(model.sample(30, 4, start=2), tiny.expected(z, noise=layers))
    assert close(model.sample(30, 4, start=2, psi=0.25), tiny.expected(z, psi=0.25, noise=layers))


def test_stream_yields_the_pictures_of_sample(ten: Tiny) -> None:
    model = load(ten.path)
    labels = [i % 10 for i in range(11)]
    parts = list(model.stream(11, 5, start=1, labels=labels, truncation=2.0, batch=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    whole = model.sample(11, 5, start=1, labels=labels, truncation=2.0, batch=4)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_stream_draws_when_asked_and_checks_at_once(plain: Tiny) -> None:
    model = load(plain.path)
    batches = model.stream(10**12)  # would never end, nor fit, if it drew ahead
    assert next(batches).shape == (8, 6, 5, 1)
    with pytest.raises(ArgumentError):
        model.stream(4, seed=-1)


def test_decode(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(classes=TEN, noise_inputs=((1, 6, 5),))
    model = load(tiny.path)
    np.testing.assert_array_equal(
        model.decode(model.latents(20, 3, start=5), seed=3, start=5), model.sample(20, 3, start=5)
    )
    z = np.linspace(-2, 2, 24, dtype=np.float32).reshape(3, 8)
    layer_noise = noise.normal(0, 3, 30, stream=16).reshape(3, 1, 6, 5)
    drawn = model.decode(z, labels=[1, 2, 3], batch=2)
    assert close(drawn, tiny.expected(z, np.array([1, 2, 3]), noise=layer_noise))
    doubles: Any = z.astype(np.float64)[:, ::-1]  # another dtype, and not contiguous
    turned = tiny.expected(doubles, np.array([1, 1, 1]), noise=layer_noise)
    assert close(model.decode(doubles, labels=1), turned)


def test_golden_samples(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(classes=TEN, golden_count=4)
    model = load(tiny.path)
    assert model.check_golden() <= 1
    assert model.spec.golden is not None
    wrong = bytes([(model.spec.golden.pixels[0] + 99) % 256]) + model.spec.golden.pixels[1:]
    text = tiny.spec.to_json().replace(_base64(tiny.spec), _base64_of(wrong))
    assert load(make_tiny(classes=TEN, metadata=text).path).check_golden() >= 98
    with pytest.raises(ModelError, match="no golden samples"):
        load(make_tiny().path).check_golden()


def _base64_of(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _base64(spec: ModelSpec) -> str:
    assert spec.golden is not None
    return _base64_of(spec.golden.pixels)


def test_shrink_picks_the_middle_of_each_cell() -> None:
    images = np.arange(6 * 9, dtype=np.uint8).reshape(1, 6, 9, 1)
    assert shrink(images, (2, 3))[0, :, :, 0].tolist() == [[10, 13, 16], [37, 40, 43]]
    np.testing.assert_array_equal(shrink(images, (6, 9)), images)


def test_threads_at_once_equal_one_after_another(ten: Tiny) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model = load(ten.path, threads=1)
    serial = [model.sample(8, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(serial, pool.map(lambda seed: model.sample(8, seed), range(16)), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("built_in", [False, True])
def test_bits_do_not_depend_on_threads_or_on_how_they_share_the_work(ten: Tiny, built_in: bool) -> None:
    """In bulk each thread draws batches of its own; else onnxruntime's share one."""
    path = None if built_in else ten.path
    one = load(path, threads=1)
    labels = [i % 10 for i in range(70)]
    z = one.latents(70, 4)
    expected = [
        one.sample(70, 3),
        one.sample(41, 3, start=8, labels=labels[:41], truncation=0.7, batch=5),
        one.grid(70, 3, zoom=2, columns=9),
        one.decode(z, labels),
        np.array(list(one.walk([1, 2, 3], 13, label=4))),
    ]
    for threads, bulk in ((2, False), (5, False), (1, True), (2, True), (5, True)):
        model = load(path, threads=threads, bulk=bulk)
        assert model.callers == (threads if bulk else 1)
        told: list[int] = []
        found = [
            model.sample(70, 3),
            np.concatenate(list(model.stream(41, 3, start=8, labels=labels[:41], truncation=0.7, batch=5))),
            model.grid(70, 3, zoom=2, columns=9, progress=told.append),
            model.decode(z, labels),
            np.array(list(model.walk([1, 2, 3], 13, label=4))),
        ]
        assert told == [*range(8, 70, 8), 70]
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_large_picture_is_drawn_by_all_threads_together(make_tiny: MakeTiny) -> None:
    large = load(make_tiny(image_size=(1024, 1024), latent_dim=1).path, threads=4, bulk=True)
    assert large.callers == 1
    assert large.sample(1).shape == (1, 1024, 1024, 1)


def test_stream_in_bulk_draws_a_few_batches_ahead(plain: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    run = Generator.run
    monkeypatch.setattr(Generator, "run", lambda self, feed: drawn.append(len(feed["z"])) or run(self, feed))
    model = load(plain.path, threads=3, bulk=True)
    batches = model.stream(10**12)
    for i in range(1, 10):
        assert next(batches).shape == (8, 6, 5, 1)
        assert i <= len(drawn) <= i + 6
    with pytest.raises(ArgumentError):
        model.stream(4, seed=-1)


def test_what_fails_in_a_drawing_thread_is_raised(plain: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(plain.path, threads=3, bulk=True)
    monkeypatch.setattr(model._session, "run", lambda *_: 1 / 0)
    with pytest.raises(ModelError, match=r"tiny\.onnx: onnxruntime failed to run it: division by zero"):
        model.sample(100)


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; valid: a whole number from 1"),
        ({"n": -3}, "n is -3"),
        ({"n": 10**12 + 1}, "n is 1000000000001"),
        ({"n": 2.0}, "n is 2.0"),
        ({"n": "4"}, "n is '4'"),
        ({"n": 2, "seed": -1}, "seed"),
        ({"n": 2, "seed": 2**64}, "seed"),
        ({"n": 2, "start": -1}, "start is -1"),
        ({"n": 2, "start": 2**64 - 1}, "start is"),
        ({"n": 2, "batch": 0}, "batch is 0"),
        ({"n": 2, "truncation": 0.0}, "truncation"),
        ({"n": 2, "truncation": -1.0}, "truncation"),
        ({"n": 2, "truncation": float("nan")}, "truncation"),
        ({"n": 2, "labels": 10}, r"label 10 is not a class of .*; valid: 0 to 9 or a name \(zero, one"),
        ({"n": 2, "labels": -1}, "label -1"),
        ({"n": 2, "labels": "ten"}, "label 'ten'"),
        ({"n": 2, "labels": "9" * 5000}, "label '9"),
        ({"n": 2, "labels": [1, 2, 3]}, "3 labels were given for 2 pictures"),
        ({"n": 2, "labels": [1, 2.5]}, "label 2.5"),
        ({"n": 2, "psi": 0.5}, "no style space"),
    ],
)
def test_wrong_arguments(ten: Tiny, arguments: dict[str, Any], message: str) -> None:
    model = load(ten.path)
    with pytest.raises(ArgumentError, match=message):
        model.sample(**arguments)
    with pytest.raises(ValueError, match=message):
        model.stream(**arguments)  # at the call, not at the first batch


def test_labels_for_a_model_without_classes(plain: Tiny) -> None:
    with pytest.raises(ArgumentError, match="has no classes"):
        load(plain.path).sample(2, labels=3)


def test_psi_that_is_no_number(make_tiny: MakeTiny) -> None:
    with pytest.raises(ArgumentError, match="psi is nan"):
        load(make_tiny(style=True).path).sample(2, psi=float("nan"))


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 7), (1, 2, 8)])
def test_latents_of_another_shape(plain: Tiny, shape: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match=re.escape(f"{list(shape)}; valid: [n, 8]")):
        load(plain.path).decode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("threads", [0, -1, 1.5, 10**6])
def test_threads_out_of_range(plain: Tiny, threads: Any) -> None:
    with pytest.raises(ArgumentError, match="threads is"):
        load(plain.path, threads=threads)


# Files that are no models


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    cases = {
        "missing.onnx": "does not exist",
        ".": "not a regular file|is a folder",
        "pipe.onnx": "not a regular file",
        "null\0byte": "cannot be read",
        "x" * 300: "cannot be read",
    }
    for name, message in cases.items():
        with pytest.raises(ModelError, match=message):
            load(tmp_path / name)
    with pytest.raises(ModelError, match=r"^/dev/zero is not a regular file"):
        load("/dev/zero")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"hello, world",
        b"PK\x03\x04" + bytes(50),
        pickle.dumps([1]),
        b"\x08",
        b"\x08\x09",
        b"\x08\x09" + b"\xff" * 100,
    ],
)
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"^.*/x\.onnx (is empty|is not an ONNX model)") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"^the model (is empty|is not an ONNX model)"):
        load(data)


def test_a_model_cut_short(plain: Tiny) -> None:
    data = plain.path.read_bytes()
    for length in range(1, len(data), 37):
        with pytest.raises(ModelError) as caught:
            load(data[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no edgegan metadata"),
        ("{}", "metadata key 'format' is missing"),
        ("not JSON", "not valid JSON"),
        (b"\xff\xfe\xfd{}", "not valid UTF-8"),
    ],
)
def test_metadata_that_is_none(make_tiny: MakeTiny, metadata: str | bytes | None, message: str) -> None:
    with pytest.raises(ModelError, match=rf"tiny\.onnx: .*{message}"):
        load(make_tiny(metadata=metadata).path)


def test_a_graph_that_is_not_what_its_metadata_says(make_tiny: MakeTiny) -> None:
    says = make_tiny().spec.to_json()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"classes": TEN}, r"its inputs are \['label', 'z'\], but its metadata calls for \['z'\]"),
        ({"latent_dim": 9}, r"its input 'z' is tensor\(float\) \['N', 9\].*float32 \['N', 8\]"),
        ({"channels": 3}, r"its output 'image' is .* 3, 6, 5\].*'N', 1, 6, 5"),
        ({"image_size": (5, 6)}, r"its output 'image'"),
        ({"fixed_batch": 4}, r"its input 'z' is tensor\(float\) \[4, 8\]"),
    ]
    for fields, message in cases:
        with pytest.raises(ModelError, match=message):
            load(make_tiny(metadata=says, **fields).path)


@pytest.mark.parametrize("location", ["secret.bin", "../tmp/secret.bin", "../../secret.bin", "ABSOLUTE"])
def test_weights_in_other_files_are_not_read(
    plain: Tiny, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    model = onnx.load(plain.path)
    weights = model.graph.initializer[0]
    (tmp_path / "secret.bin").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    location = str(tmp_path / "secret.bin") if location == "ABSOLUTE" else location
    weights.external_data.add(key="location", value=location)
    plain.path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    for source in (plain.path, plain.path.read_bytes()):
        with pytest.raises(ModelError, match="external data"):
            load(source)


def test_a_task_that_the_graph_is_not_made_for(make_tiny: MakeTiny) -> None:
    text = ModelSpec("pix2pix", (6, 5), 1, None, task="translate").to_json()
    with pytest.raises(ModelError, match=r"its inputs are \['z'\], but its metadata calls for \['source'\]"):
        load(make_tiny(metadata=text).path)


def test_an_output_that_is_not_declared_is_checked_when_it_comes(make_tiny: MakeTiny) -> None:
    import onnx

    tiny = make_tiny()
    model = onnx.load(tiny.path)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for name in ("a", "b", "c", "d"):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param=name)
    next(t for t in model.graph.initializer if t.name == "shape").CopyFrom(
        onnx.numpy_helper.from_array(np.array([-1, 1, 5, 6]), "shape")
    )
    with pytest.raises(ModelError):
        load(model.SerializeToString()).sample(2)


def test_nothing_is_printed(plain: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    load(plain.path).sample(1)
    with pytest.raises(ModelError):
        load(b"\x08\x09garbage")
    assert capfd.readouterr() == ("", "")


# The package


def in_python(code: str, *, before: str = "") -> str:
    """The stdout of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", before + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_edgegan_is_light() -> None:
    code = "import sys, edgegan, edgegan.model, edgegan.cli; print([m for m in {} if m in sys.modules])"
    assert in_python(code.format("('torch', 'onnx', 'onnxruntime', 'PIL')")) == "[]"
    assert in_python("import sys, edgegan; print('numpy' in sys.modules)") == "False"


def test_without_onnxruntime_the_pip_line_is_shown(plain: Tiny) -> None:
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from edgegan import load, MissingExtraError
try:
    load({str(plain.path)!r})
except MissingExtraError as error:
    print(error, isinstance(error, ImportError), error.name)
"""
    assert in_python(code) == (
        "sampling needs onnxruntime, which is not installed: run  pip install 'edgegan[cpu]' True onnxruntime"
    )


def test_the_public_names() -> None:
    assert all(hasattr(edgegan, name) for name in edgegan.__all__)
    assert edgegan.Generator is Generator
    assert issubclass(MissingExtraError, ImportError)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgegan.nothing
    assert re.fullmatch(r"\d+\.\d+\.\d+", edgegan.__version__)


def test_the_built_in_model() -> None:
    model = load()
    assert model.spec.golden is not None
    assert model.check_golden() <= model.spec.golden.tolerance
    assert model.sample(2).shape == (2, 28, 28, 1)


def test_built_in_models_by_name(plain: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (load("digits").sample(4, 1) == load().sample(4, 1)).all()
    fashion = load("fashion")
    assert "Bag" in fashion.spec.classes
    assert (fashion.sample(2, 1, labels="Bag") == fashion.sample(2, 1, labels=fashion.spec.classes.index("Bag"))).all()
    # A file of that name does not change what the name means.
    monkeypatch.chdir(tmp_path)
    shutil.copy(plain.path, "fashion")
    assert load("fashion").spec == fashion.spec
    assert load("./fashion").spec == plain.spec
    with pytest.raises(ModelError, match=r"^fashon does not exist; give an \.onnx file .* or one of digits, fashion$"):
        load("fashon")


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() != "x86_64", reason="x86 alone overflows"
)
def test_processors_before_vnni_draw_the_built_in_models(tmp_path: Path) -> None:
    """Their 16-bit sums of 8-bit products overflow, unless onnxruntime is asked for the exact way."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not there: apt install qemu-user")
    draw = (
        "import sys, numpy as np, edgegan; "
        "np.save(sys.argv[1], [edgegan.load(m, threads=1).sample(16, 3) for m in ('digits', 'fashion')]); "
        "print(edgegan._backend.core.has_vnni())"
    )
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    own = _backend.NAME == "c" and re.search(r"\b(avx512_vnni|avx_vnni)\b", flags) is not None
    for name, processor, has in (("own", [], own), ("haswell", [emulator, "-cpu", "Haswell-v4"], False)):
        command = [*processor, sys.executable, "-c", draw, tmp_path / f"{name}.npy"]
        done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == f"{has}\n"
    assert (np.load(tmp_path / "own.npy") == np.load(tmp_path / "haswell.npy")).all()


def test_an_installation_without_its_built_in_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgegan.model.BUILT_IN", tmp_path / "digits.onnx")
    with pytest.raises(ModelError, match=r"digits\.onnx does not exist"):
        load()
