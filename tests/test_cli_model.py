"""The commands about a model and an installation: info, verify, reproduce, walk, bench, doctor, completion."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from edgegan import DataError, ModelError, devices, load
from edgegan.commands import doctor
from edgegan.image import encode_png, grid
from edgegan.model import BUILT_INS
from edgegan.provenance import Grid, Provenance
from support import BIN, TEN, Exits, process

MakeTiny = Callable[..., Any]


# info


def test_info_as_json(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "info", model, "--json")
    found = json.loads(done.out)
    assert done.status == 0
    assert found["classes"] == list(TEN)
    assert found["file"] == model
    assert found["sha256"] == load(model).digest
    assert found["inputs"] == {
        "z": {"type": "float32", "shape": ["N", 8]},
        "label": {"type": "int64", "shape": ["N"]},
    }
    assert found["outputs"]["image"]["shape"] == ["N", 1, 6, 5]
    assert found["golden"] == {"seed": 5, "count": 2, "size": [6, 5], "tolerance": 1}


# verify


def test_verify_passes(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "verify", model)
    assert done.status == 0
    assert done.out.startswith("pass: m.onnx on cpu: the largest difference of a pixel in 2 golden samples is ")


def test_verify_the_built_in_models(capfd: pytest.CaptureFixture[str]) -> None:
    assert Exits(capfd, "verify").out.startswith("pass: the built-in model on cpu")
    for name in BUILT_INS:
        assert Exits(capfd, "verify", name).out.startswith(f"pass: {name} on cpu")


def test_verify_fails_where_pixels_differ(make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str]) -> None:
    tiny = make_tiny("m.onnx", golden_count=3)
    wrong = bytearray(tiny.spec.golden.pixels)
    wrong[7] = (wrong[7] + 100) % 256
    off = abs(wrong[7] - tiny.spec.golden.pixels[7])
    spec = replace(tiny.spec, golden=replace(tiny.spec.golden, pixels=bytes(wrong)))
    bad = make_tiny("bad.onnx", metadata=spec.to_json())
    done = Exits(capfd, "verify", str(bad.path))
    assert done.status == 1
    assert done.out.startswith("fail: ")
    differences = {int(word) for word in done.out.split() if word.isdecimal()}
    assert {off - 1, off, off + 1} & differences  # the runtime may round by one


def test_verify_without_golden_samples(make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "verify", str(make_tiny().path)).fails(1, "it has no golden samples to check against")


# reproduce


@pytest.mark.parametrize(
    "options",
    [(), ("--labels", "3,seven", "--start", "5"), ("--truncation", "0.5", "--seed", "18446744073709551615")],
)
def test_a_grid_is_drawn_again(model: str, options: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", "7", "-o", "x.png", *options)
    done = Exits(capfd, "reproduce", "x.png", model)
    assert done.status == 0
    assert done.out.endswith(": the same\n")


def test_each_file_of_a_folder_is_drawn_again(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", "3", "--start", "40", "-o", "all/")
    for index in (40, 41, 42):
        done = Exits(capfd, "reproduce", f"all/{index:08d}.png", model)
        assert done.status == 0
        assert f"seed 0, picture {index}: the same" in done.out


def test_a_changed_picture_is_not_the_same(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", "1", "-o", "all/")
    with Image.open("all/00000000.png") as picture:
        texts = dict(picture.text)  # type: ignore[attr-defined]
        array = np.asarray(picture).copy()[:, :, None]
    changed = array.copy()
    changed[2, 3] ^= 64
    Path("x.png").write_bytes(encode_png(changed, texts))
    done = Exits(capfd, "reproduce", "x.png", model)
    assert done.status == 1
    assert "not the same: pixels differ by up to 64 of 255, allowed are 1" in done.out
    Path("y.png").write_bytes(encode_png(array[:, :4], texts))
    assert (
        "not the same: it is 4x6 with 1 channels, and drawn again 5x6" in Exits(capfd, "reproduce", "y.png", model).out
    )
    array[0, 0] += 1 if array[0, 0] < 255 else -1
    Path("z.png").write_bytes(encode_png(array, texts))
    assert "the same but for rounding, by at most 1" in Exits(capfd, "reproduce", "z.png", model).out


def test_what_cannot_be_drawn_again(model: str, make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", "2", "-o", "x.png")
    Exits(capfd, "reproduce", "x.png").fails(1, "x.png was drawn by another model: its SHA-256 begins with")
    Image.new("L", (5, 6)).save("plain.png")
    Exits(capfd, "reproduce", "plain.png", model).fails(1, "plain.png: it does not say which model drew it")
    Path("text.png").write_text("no picture")
    Exits(capfd, "reproduce", "text.png", model).fails(1, "text.png: not a PNG picture")
    Path("cut.png").write_bytes(Path("x.png").read_bytes()[:200])
    Exits(capfd, "reproduce", "cut.png", model).fails(1, "cut.png: not a PNG picture")
    Exits(capfd, "reproduce", "absent.png", model).fails(1, "absent.png does not exist; give a PNG file")
    os.mkfifo("pipe.png")
    Exits(capfd, "reproduce", "pipe.png", model).fails(1, "pipe.png is not a regular file")


def test_many_labels_are_drawn_again(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", "9", "--labels", ",".join(["3", "7", "zero"] * 3000), "-o", "x.png")
    assert Exits(capfd, "reproduce", "x.png", model).out.endswith(": the same\n")


def test_arguments_that_a_file_gives_are_the_files_fault(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    digest = load(model).digest
    for origin, part in (
        (Provenance(digest, 0, 0, psi=0.5), "psi was given"),
        (Provenance(digest, 0, 0, labels=(77,)), "label 77"),
        (Provenance(digest, 0, 0, truncation=-1.0), "truncation is -1.0"),
        (Provenance(digest, 0, 2**64 - 1, grid=Grid(4, 2, 1, 0)), "start is"),
    ):
        size = (12, 10, 1) if origin.grid else (6, 5, 1)
        Path("x.png").write_bytes(encode_png(np.zeros(size, np.uint8), origin.texts()))
        Exits(capfd, "reproduce", "x.png", model).fails(1, "x.png: ", part)


def test_without_stdout_or_stderr(model: str) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(f"{BIN}/edgegan sample {model} -n 1 -o x.png {closed}", shell=True, check=False)
        assert done.returncode == 0
        os.remove("x.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", "x"), ("seed", "-1"), ("seed", str(2**64)), ("index", ""), ("label", "1,b"), ("truncation", "nan"),
        ("truncation", "x"), ("psi", "inf"), ("grid", "1 2 3"), ("grid", "1 0 1 2"), ("grid", "a b c d"),
        ("grid", "9999999999 1 1 1"), ("seed", "7\x1b[2J"),
    ],
)  # fmt: skip
def test_texts_that_are_not_valid_are_named(
    model: str, name: str, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = Provenance("0" * 64, 1, 2).texts() | {f"edgegan-{name}": text}
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    Image.new("L", (5, 6)).save("x.png", pnginfo=info)
    Exits(capfd, "reproduce", "x.png", model).fails(1, f"x.png: its text edgegan-{name} is '", "valid: ")


def test_a_grid_that_claims_to_be_huge_is_not_drawn(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    origin = Provenance(load(model).digest, 0, 0, grid=Grid(999_999_999, 30_000, 1, 2))
    Path("x.png").write_bytes(encode_png(np.zeros((6, 5, 1), np.uint8), origin.texts()))
    done = Exits(capfd, "reproduce", "x.png", model)
    assert done.status == 1
    assert "not the same: it is 5x6" in done.out


def test_provenance_is_read_as_it_is_written() -> None:
    for origin in (
        Provenance("ab", 2**64 - 1, 0),
        Provenance("ab", 1, 2, (3,), 0.7, 0.25),
        Provenance("ab", 1, 2, (3, 4), grid=Grid(5, 3, 2, 1)),
    ):
        assert Provenance.of_texts(origin.texts(), "x") == origin
    with pytest.raises(DataError, match="edgegan-seed is missing"):
        Provenance.of_texts({"edgegan-model": "ab"}, "x")


# walk


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_walk(model: str, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--seeds", "1,2,3", "--frames", "4", "--label", "seven", "--fps", "10", "-o", f"w.{suffix}")
    done = Exits(capfd, "walk", model, *options)
    assert done.status == 0
    assert done.out == f"w.{suffix}: 12 frames by m.onnx on cpu\n"
    assert done.err == ""  # no bar where nobody looks
    with Image.open(f"w.{suffix}") as animation:
        assert animation.n_frames == 12  # type: ignore[attr-defined]
        assert min(animation.size) >= 128
        animation.seek(1)
        animation.load()
        assert animation.info["duration"] == 100


@pytest.mark.parametrize(
    ("options", "status", "part"),
    [
        (("--seeds", "1"), 2, "two or more"),
        (("--seeds", "1,x"), 2, "'x' is not a whole number"),
        (("--label", "eleven"), 2, "label 'eleven' is not a class"),
        (("-o", "w.mp4"), 2, "valid: .gif, .webp, .png"),
        (("-o", "no/w.gif"), 2, "does not exist"),
        (("--provider", "cuda"), 1, "'cuda' is not there"),
        (("--provider", "abacus"), 2, "abacus"),
    ],
)
def test_walks_that_are_refused(
    model: str, options: tuple[str, ...], status: int, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Exits(capfd, "walk", model, *options).fails(status, part)
    assert not list(Path().glob("w.*"))


# bench


def test_bench(model: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgegan.commands import bench

    monkeypatch.setattr(bench, "BATCHES", (1, 4))
    monkeypatch.setattr(bench, "COLD_STARTS", 1)
    found = json.loads(Exits(capfd, "bench", model, "--json", "--threads", "1").out)
    assert found["provider"] == "cpu"
    assert found["threads"] == 1
    assert 0 < found["cold_start_s"] < 60
    assert 20 < found["peak_mb"] < 2000
    assert [measured["batch"] for measured in found["batches"]] == [1, 4]
    for measured in found["batches"]:
        assert abs(sum(measured["shares"].values()) - 1) < 1e-9
        assert 0 < measured["ms_an_image"] <= measured["p95_ms"] <= measured["p99_ms"]
    assert found["best_batch"] in (1, 4)
    shown = Exits(capfd, "bench", model).out
    assert "cold start" in shown
    assert "*" in shown


# doctor


def test_doctor_tries_the_providers(capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "doctor")
    assert done.status == 0
    assert "provider     cpu: works\n" in done.out
    assert "to fix" not in done.out


def test_doctor_names_what_to_fix(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "installed_runtimes", lambda: ["onnxruntime 1", "onnxruntime-gpu 1"])
    done = Exits(capfd, "doctor")
    assert done.status == 1
    assert "to fix       onnxruntime 1 and onnxruntime-gpu 1 hide each other: run  pip uninstall" in done.out


def test_doctor_says_which_provider_does_not_load(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*, provider: str) -> object:
        if provider == "cuda":
            raise ModelError("libcudart.so.12: cannot open shared object file")
        return load(provider=provider)

    monkeypatch.setattr(doctor.edgegan, "load", broken, raising=False)
    monkeypatch.setattr(devices, "available_providers", lambda: ["cpu", "cuda"])
    done = Exits(capfd, "doctor")
    assert done.status == 1
    assert "provider     cuda: libcudart.so.12: cannot open" in done.out
    assert "to fix       cuda: in an environment of its own, run  pip install 'edgegan[gpu]'" in done.out


# completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "completion", shell)
    assert done.status == 0
    assert "_EDGEGAN_COMPLETE" in done.out


def test_bash_completes_commands() -> None:
    script = process("completion", "bash").stdout
    code = f"""{script}
COMP_WORDS=(edgegan re)
COMP_CWORD=1
_edgegan_completion edgegan
echo "${{COMPREPLY[@]}}"
"""
    env = {"PATH": f"{BIN}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["reproduce"], done.stderr


def test_grid_layout_of_reproduce_is_that_of_grid() -> None:
    """The shape that reproduce expects without drawing is the one that is drawn."""
    from edgegan.commands.reproduce import _shape_of

    generator = load()
    pictures = generator.sample(7)
    for columns, zoom, gap in [(3, 2, 2), (7, 1, 0), (1, 3, 5)]:
        origin = Provenance(generator.digest, 0, 0, grid=Grid(7, columns, zoom, gap))
        assert _shape_of(generator, origin) == grid(pictures, columns=columns, zoom=zoom, gap=gap).shape
