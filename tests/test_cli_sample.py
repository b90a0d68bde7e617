"""The command `edgegan` as a user meets it: what it writes, and how it fails."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from edgegan import DataError, EdgeGANError, load
from edgegan._cli import debug_option, run
from edgegan.errors import printable
from support import Exits, process

MakeTiny = Callable[..., Any]


def test_a_grid(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "sample", model, "-n", "6", "--seed", "7")
    assert (done.status, done.err) == (0, "")
    assert done.out == "samples.png: 6 pictures of 5x6 by m.onnx on cpu, seed 7\n"
    with Image.open("samples.png") as picture:
        zoom = 12  # 5 pixels become at least 56
        assert picture.size == (2 + 3 * (5 * zoom + 2), 2 + 2 * (6 * zoom + 2))
        sheet = np.asarray(picture)
    images = load(model).sample(6, 7)[..., 0]
    for i in range(6):
        y, x = 2 + i // 3 * (6 * zoom + 2), 2 + i % 3 * (5 * zoom + 2)
        np.testing.assert_array_equal(sheet[y : y + 6 * zoom : zoom, x : x + 5 * zoom : zoom], images[i])


@pytest.mark.parametrize("name", ["x.jpg", "x.webp", "x.PNG", "näme ünd.png", "-x.png"])
def test_other_outputs(model: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert Exits(capfd, "sample", model, "-n", "1", "-o", name).status == 0
    with Image.open(name) as picture:
        picture.load()
    assert sorted(os.listdir()) == sorted(["m.onnx", name])


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--seed", str(2**64 - 1)], {"seed": 2**64 - 1}),
        (["--start", "5"], {"start": 5}),
        (["--labels", "three"], {"labels": 3}),
        (["--labels", "3, seven"], {"labels": [3, 7] * 10}),
        (["--labels", "1,2,3", "--start", "4"], {"labels": ([2, 3, 1] * 7)[:20], "start": 4}),
        (["--truncation", "0.5"], {"truncation": 0.5}),
        (["--batch", "3"], {"batch": 3}),
        (["--threads", "1"], {}),
    ],
)
def test_an_array(model: str, options: list[str], arguments: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert Exits(capfd, "sample", model, "-n", "20", *options, "-o", "x.npy").status == 0
    array = np.load("x.npy")
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, load(model).sample(20, **arguments))


def test_labels_stay_with_their_pictures(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    for start, n in ((0, 9), (0, 4), (4, 5)):
        Exits(
            capfd,
            "sample",
            model,
            "-n",
            str(n),
            "--start",
            str(start),
            "--labels",
            "1,2,3",
            "-o",
            f"{start}{n}.npy",
        )
    whole = np.load("09.npy").astype(int)
    parts = np.concatenate([np.load("04.npy"), np.load("45.npy")])
    assert np.abs(whole - parts).max() <= 1  # the batches differ


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["-n", "0"], ["edgegan sample: error: Invalid value for '-n': '0' is not a whole number from 1 to"]),
        (["-n", "-3"], ["'-n': '-3' is not a whole number"]),
        (["-n", "x"], ["'-n': 'x' is not a whole number from 1 to 1000000000000"]),
        (["-n", ""], ["'-n': '' is not a whole number"]),
        (["--seed", "-1"], ["'--seed': '-1' is not a whole number from 0 to 18446744073709551615"]),
        (["--seed", str(2**64)], ["'--seed'", "is not a whole number"]),
        (["--truncation", "nan"], ["truncation is nan"]),
        (["--truncation", "-1"], ["truncation is -1"]),
        (["--labels", "3,ten"], ["label 'ten' is not a class of m.onnx; valid: 0 to 9 or a name (zero, one"]),
        (["--labels", ""], ["label '' is not a class"]),
        (["--start", str(2**64 - 1)], ["start is 18446744073709551615; valid"]),
        (["--batch", "0"], ["'--batch'"]),
        (["-o", "no/such/x.png"], ["cannot write no/such/x.png: the folder", "does not exist"]),
        (["-o", "x.bmp"], ["'.bmp'; valid: .png, .jpg, .jpeg, .webp, .npy"]),
        (["-o", ""], ["its suffix is ''; valid: .png"]),
        (["-o", "x.tar/y/"], ["the folder", "x.tar does not exist"]),
        (["-o", "m.onnx/"], ["it is a file, not a folder"]),
        (["-o", "x.png", "--format", "jpg"], ["--format is for a folder"]),
        (["-o", "x", "--format", "npy"], ["a folder holds png, jpg or webp; for an array use -o x.npy"]),
        (["-o", "x", "--format", "gif"], ["'gif' is not one of 'png', 'jpg', 'webp', 'npy'"]),
        (["-n", "100000", "-o", "-"], ["a grid of 100000 pictures", "use --format npy"]),
        (["--shard", "0/2"], ["'--shard': '0/2' is not K/M"]),
        (["--shard", "3/2"], ["'--shard': '3/2' is not K/M"]),
        (["--shard", "2"], ["'--shard': '2' is not K/M"]),
        (["--shard", "2/2", "-n", "8"], ["this shard has no pictures, since batches stay whole"]),
        (["--psi", "0.5"], ["psi was given, but m.onnx has no style space"]),
        (["--truncation", "nan", "-o", "x/"], ["truncation is nan"]),
        (["--labels", "3,ten", "-o", "x/"], ["label 'ten'"]),
        (["-n", "100000"], ["a grid of 100000 pictures is larger than 16384", "use -o samples.npy"]),
        (["--surprise"], ["No such option", "--surprise", "Try 'edgegan sample --help'."]),
        (["another.onnx"], ["unexpected extra argument"]),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    model: str, options: list[str], parts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    Exits(capfd, "sample", model, *options).fails(2, "edgegan", "error: ", *parts)
    assert os.listdir() == ["m.onnx"]


def test_an_unknown_command(capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "smaple").fails(2, "edgegan: error: No such command 'smaple'", "Try 'edgegan --help'.")


def test_files_that_are_no_models(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("note.onnx").write_text("a text\n")
    Path("folder").mkdir()
    before = sorted(os.listdir())
    for name, part in (
        ("missing.onnx", "missing.onnx does not exist"),
        ("folder", "folder is a folder"),
        ("note.onnx", "note.onnx is not an ONNX model"),
        ("bad\x1b[31m\nname", r"bad\x1b[31m\nname does not exist"),
    ):
        Exits(capfd, "sample", name).fails(1, "edgegan: error: ", part)
        Exits(capfd, "info", name).fails(1, "edgegan: error: ", part)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("n", [10_000_000_019, 999_999_999_989, 10**12])
def test_a_grid_that_is_far_too_large_is_refused_at_once(model: str, n: int, capfd: pytest.CaptureFixture[str]) -> None:
    Exits(capfd, "sample", model, "-n", str(n)).fails(2, ".npy")


def test_a_class_whose_name_holds_a_comma(
    make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = make_tiny(classes=("a", "x,y", " b"))
    for text, label in (("x,y", 1), (" b", 2), ("1", 1)):
        assert Exits(capfd, "sample", str(tiny.path), "-n", "3", "--labels", text, "-o", "a.npy").status == 0
        np.testing.assert_array_equal(np.load("a.npy"), load(tiny.path).sample(3, labels=label))


def test_labels_in_turn_over_many_batches(model: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["-n", "150", "--batch", "1", "--start", "5", "--labels", "3,0,2"]
    assert Exits(capfd, "sample", model, *options, "-o", "a.npy").status == 0
    turn = [(3, 0, 2)[i % 3] for i in range(5, 155)]
    np.testing.assert_array_equal(np.load("a.npy"), load(model).sample(150, start=5, labels=turn, batch=1))


def test_the_output_is_checked_before_the_work(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # Both are wrong; only what could be known first is said.
    Exits(capfd, "sample", "missing.onnx", "-o", str(tmp_path / "no" / "x.png")).fails(2, "the folder")


def test_debug_shows_the_traceback(
    model: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for args in (["--debug", "sample", "missing.onnx"], ["sample", "missing.onnx", "--debug"]):
        done = Exits(capfd, *args)
        assert done.status == 1
        assert "Traceback" in done.err
        assert done.err.endswith("\nedgegan: error: " + done.err.rpartition("error: ")[2])
    monkeypatch.setenv("EDGEGAN_DEBUG", "1")
    assert "Traceback" in Exits(capfd, "sample", "missing.onnx").err
    monkeypatch.setenv("EDGEGAN_DEBUG", "0")
    assert "Traceback" not in Exits(capfd, "sample", "missing.onnx").err


def test_info(model: str, make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str]) -> None:
    done = Exits(capfd, "info", model)
    assert done.status == 0
    for line in ("model        m.onnx", "recipe       tiny", "pictures     5x6, grey", "latents      8"):
        assert line + "\n" in done.out
    assert "classes      10: zero, one, two" in done.out
    assert "golden       2 samples, tolerance 1" in done.out


def test_text_of_a_model_cannot_steer_the_terminal(make_tiny: MakeTiny, capfd: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\r\n"
    tiny = make_tiny(
        classes=(evil, "b"), recipe=evil, licence=evil, dataset=evil, version=evil, precision=evil,
        scores={evil: 1.0, "features": evil},
    )  # fmt: skip
    done = Exits(capfd, "info", str(tiny.path))
    assert done.status == 0
    assert r"\x1b]0;owned\x07\r\n" in done.out
    assert done.out.replace("\n", "").isprintable()
    done = Exits(capfd, "sample", str(tiny.path), "--labels", "c", "-o", str(tiny.path.with_suffix(".npy")))
    done.fails(2, r"\x1b]0;owned\x07\r\n, b")
    assert done.err.strip().isprintable()


def test_doctor(capfd: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    from edgegan import _backend

    done = Exits(capfd, "doctor")
    assert done.status == 0
    for line in (f"onnxruntime  {onnxruntime.__version__}", f"numpy        {np.__version__}"):
        assert line + "\n" in done.out
    core = "C, " if _backend.NAME == "c" else "NumPy, "
    assert f"core         {core}" in done.out
    assert f"threads      {len(os.sched_getaffinity(0))}" in done.out


@pytest.mark.parametrize("text", ["", "plain, ünïcödé 数字"])
def test_printable_keeps_what_prints(text: str) -> None:
    assert printable(text) == text


def test_printable_escapes_what_does_not() -> None:
    assert printable("a\nb\x1b[0m\udc80\u202e") == r"a\nb\x1b[0m\udc80\u202e"


# `run`, which the other console scripts share


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("a.png is\nbroken"), 1, "edgegan: error: a.png is\\nbroken\n"),
        (
            OSError(28, "No space left on device", "x.npy"),
            1,
            "edgegan: error: x.npy: No space left on device\n",
        ),
        (OSError("odd"), 1, "edgegan: error: odd\n"),
        (click.ClickException("no"), 1, "edgegan: error: no\n"),
    ],
)
def test_errors_of_any_command(error: Exception, status: int, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    @click.command()
    @debug_option
    def fail() -> None:
        raise error

    done = Exits(capfd, command=fail)
    assert (done.status, done.err) == (status, line)
    assert "Traceback" in Exits(capfd, "--debug", command=fail).err


def test_a_bug_keeps_its_traceback() -> None:
    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(fail, "edgegan", [])
    assert issubclass(DataError, EdgeGANError)


# Real processes


def test_the_real_command(model: str) -> None:
    done = process("sample", model, "-n", "2", "-o", "x.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "x.png: 2 pictures of 5x6 by m.onnx on cpu, seed 0\n"
    script = Path(sys.executable).with_name("edgegan")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("edgegan, version ")
    assert process("sample", model, "-n", "0").returncode == 2
    assert process("sample", "missing.onnx").returncode == 1
    assert process("sample", "missing.onnx", "-o", "x.png").stderr.count("\n") == 1


def test_c_and_numpy_draw_the_same(model: str) -> None:
    for pure in ("0", "1"):
        environment = os.environ | {"EDGEGAN_PUREPYTHON": pure}
        assert process("sample", model, "-o", f"{pure}.npy", env=environment).returncode == 0
    assert Path("0.npy").read_bytes() == Path("1.npy").read_bytes()


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from edgegan._cli import run
from edgegan.cli import cli
try:
    run(cli, "edgegan", sys.argv[1:])
finally:
    print([m for m in ("numpy", "onnxruntime", "PIL", "torch", "onnx") if m in sys.modules])
"""
    for args in (["--help"], ["sample", "-h"], ["sample", "-n", "0"], []):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert done.stdout.endswith("[]\n")


def test_a_late_ctrl_c_is_quiet() -> None:
    """It comes when the command has ended and Python clears up."""
    code = """
import atexit, time
import click
from edgegan._cli import run
@click.command()
def cli():
    atexit.register(lambda: (print("ended", flush=True), time.sleep(0.5)))
run(cli, "edgegan", [])
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        assert ended.stdout is not None
        assert ended.stdout.readline() == "ended\n"
        ended.send_signal(signal.SIGINT)
        assert ended.communicate() == ("", "")
    assert ended.returncode == 0


def test_help_shows_examples() -> None:
    for args in (["--help"], ["sample", "--help"], ["info", "--help"]):
        done = process(*args)
        assert done.returncode == 0
        assert "\n  edgegan " in done.stdout


def test_a_closed_pipe_is_quiet(model: str) -> None:
    command = [sys.executable, "-m", "edgegan", "info", model]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_stdout_on_a_full_disk_is_an_error(model: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgegan", "info", model], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "edgegan: error: No space left on device\n"
