"""`edgegan sample` under fire: killed, interrupted, out of space or permission, asked for a million."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgegan import load
from support import process

SAMPLE = [sys.executable, "-m", "edgegan", "sample"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def parts() -> list[Path]:
    return list(Path().rglob(".edgegan-*"))


def size_of(output: str) -> int:
    """How far a run at work is: pictures in the folder, or bytes in the hidden file beside the array."""
    try:
        if output.endswith("/"):
            return sum(1 for name in os.listdir(output) if name.endswith(".png") and name[0] != ".")
        return max((path.stat().st_size for path in Path().glob(".edgegan-*")), default=0)
    except FileNotFoundError:
        return 0


def stopped(command: list[str], output: str, size: int, number: int, delay: float = 0) -> tuple[int, str]:
    """Exit status and stderr of a command that got the signal when its output was at `size`."""
    with subprocess.Popen(
        [*command, "-o", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            deadline = time.monotonic() + 60
            while running.poll() is None and size_of(output) < size and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(delay)
            assert running.poll() is None, "it was done before it could be stopped"
            running.send_signal(number)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert out == ""
    return running.returncode, err


def same(a: Path, b: Path) -> bool:
    """The same names and bytes."""
    if a.is_file():
        return a.read_bytes() == b.read_bytes()
    return sorted(os.listdir(a)) == sorted(os.listdir(b)) and all(same(path, b / path.name) for path in a.iterdir())


@pytest.mark.parametrize("output", ["out/", "x.npy"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_stopped_and_on_where_it_stopped(model: str, output: str, number: signal.Signals) -> None:
    n = 4000 if output == "out/" else 40_000
    command = [*SAMPLE, model, "-n", str(n), "--batch", "3", "--seed", "5", "--threads", "4"]
    subprocess.run([*command, "-o", f"whole{output}"], check=True, stdout=subprocess.DEVNULL)
    for size in (1, 1000) if output == "out/" else (1000, 500_000):
        # What is there from the first time may be as much already: the second must have got to its work, too.
        status, err = stopped(command, output, max(size, size_of(output) + 1), number)
        done = size_of(output)
        if number == signal.SIGKILL:
            assert (status, err) == (-9, "")
        else:
            assert status == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
            says = (
                rf"edgegan: interrupted: {output}: (\d+) of {n} pictures are kept, and the same command goes on there\n"
            )
            found = re.fullmatch(says, err)
            assert found, err
            if output == "out/":
                assert 0 <= done - int(found[1]) < 6  # as below
                assert not parts()
            else:
                assert 0 <= (done - 128) // 30 - int(found[1]) < 6  # a batch that was written and not yet counted
        assert not os.path.exists("x.npy")
    again = subprocess.run([*command, "-o", output], check=True, capture_output=True, text=True)
    there = int(re.search(r"(\d+) were there", again.stdout)[1])  # type: ignore[index]
    assert there >= size // 30 - 10
    assert same(Path(output), Path(f"whole{output}"))
    assert not parts()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("output", "n"), [("x.npz", 1_000_000_000), ("x.png", 48_000)])
def test_others_leave_nothing_behind(model: str, output: str, n: int, number: signal.Signals, status: int) -> None:
    Path(output).write_text("precious")
    command = [*SAMPLE, model, "-n", str(n), "--batch", "1"]
    # A grid is in no file before it is done: give it the time to begin.
    size, delay = (1000, 0.0) if output == "x.npz" else (0, 0.8)
    found, err = stopped(command, output, size, number, delay)
    assert found == status, err
    assert Path(output).read_text() == "precious"
    assert sorted(os.listdir()) == sorted(["m.onnx", output])


def test_an_archive_after_a_kill_starts_over(model: str) -> None:
    command = [*SAMPLE, model, "-n", "60000", "--batch", "1"]
    assert stopped(command, "x.npz", 10_000, signal.SIGKILL)[0] == -9
    assert len(parts()) == 1
    assert not os.path.exists("x.npz")
    subprocess.run([*command, "-o", "x.npz"], check=True, stdout=subprocess.DEVNULL)
    with np.load("x.npz") as arrays:
        assert arrays["images"].shape == (60000, 6, 5, 1)
    assert not parts()


def test_a_part_belongs_to_its_request_alone(model: str) -> None:
    command = [*SAMPLE, model, "-n", "40000", "--batch", "1"]
    stopped(command, "x.npy", 40_000, signal.SIGKILL)
    (part,) = parts()
    before = part.read_bytes()
    for other in (["-n", "300"], ["-n", "300", "--seed", "1"], ["-n", "300", "--labels", "1"]):
        done = process("sample", model, *other, "-o", "x.npy")
        assert (done.returncode, "were there" in done.stdout) == (0, False)
    assert parts() == [part]
    assert part.read_bytes() == before
    # A part that is no such array does no harm.
    part.write_bytes(b"junk" * 1000)
    subprocess.run([*command, "-o", "x.npy"], check=True, stdout=subprocess.DEVNULL)
    np.testing.assert_array_equal(np.load("x.npy"), load(model).sample(40_000, batch=1))


def test_two_at_one_array(model: str) -> None:
    command = [*SAMPLE, model, "-n", "1000000000", "-o", "x.npy"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            while not size_of("x.npy") and first.poll() is None:
                time.sleep(0.01)
            second = subprocess.run(command, capture_output=True, text=True)
        finally:
            first.kill()
    assert second.returncode == 2
    assert "cannot write x.npy: another process is drawing the same into it; wait" in second.stderr
    assert len(parts()) == 1


# Space and permission


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png"])
def test_a_disk_that_fills_up_keeps_the_old_file(model: str, name: str) -> None:
    Path(name).write_text("precious")
    done = process("sample", model, "-n", "400", "-o", name, preexec_fn=small_files)
    assert (done.returncode, done.stdout) == (1, "")
    kept = "; 88 of 400 pictures are kept, and the same command goes on there" if name == "x.npy" else ""
    assert done.stderr == f"edgegan: error: {name}: File too large{kept}\n"
    assert Path(name).read_text() == "precious"
    assert len(os.listdir()) == (3 if kept else 2)
    done = process("sample", model, "-n", "400", "-o", name)
    assert done.returncode == 0
    assert ("; 312 drawn, 88 were there" in done.stdout) == bool(kept)
    assert sorted(os.listdir()) == ["m.onnx", name]
    if kept:
        np.testing.assert_array_equal(np.load(name), load(model).sample(400))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    how = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(how, capture_output=True).returncode:
        pytest.skip("mount does not work here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@linux
@pytest.mark.parametrize("name", ["out", "x.npy", "x.npz"])
def test_a_full_disk(model: str, small_disk: Path, name: str) -> None:
    n = 600 if name == "out" else 60_000
    output = str(small_disk / name)
    options = ["sample", model, "-n", str(n), "--threads", "4", "-o", output]
    done = process(*options)
    assert done.returncode == 1
    if name == "x.npz":
        assert done.stderr == f"edgegan: error: {output}: No space left on device\n"
        assert not os.listdir(small_disk)
    else:
        says = rf"edgegan: error: {output}: No space left on device; (\d+) of {n} pictures are kept, .*\n"
        found = re.fullmatch(says, done.stderr)
        assert found, done.stderr
        if name == "out":
            assert len(os.listdir(output)) == int(found[1]) + 1
            assert "samples.json" in os.listdir(output)
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    done = process(*options)
    assert done.returncode == 0
    assert ("were there" in done.stdout) == (name != "x.npz")
    process("sample", model, "-n", str(n), "-o", name)
    assert same(Path(output), Path(name))
    assert os.listdir(small_disk) == [name]


@linux
def test_a_read_only_folder(model: str) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    user = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are out of another user's reach
        os.chmod(folder, 0o755)
        shutil.copy(model, f"{folder}/m.onnx")
        os.mkdir(f"{folder}/out")
        os.chmod(folder, 0o555)
        for output in ("x.png", "x.npy", "x.npz", "new", "out", "out/x.png"):
            done = subprocess.run([*user, *SAMPLE, "m.onnx", "-o", output], cwd=folder, capture_output=True, text=True)
            if output.startswith("out") and not user:
                continue
            assert (done.returncode, done.stdout) == (2, "")
            assert re.fullmatch(rf"edgegan: error: cannot write {output}: no permission to write in .*\n", done.stderr)
        assert sorted(os.listdir(folder)) == ["m.onnx", "out"]
        os.chmod(folder, 0o755)


@pytest.mark.parametrize("output", ["/dev/full", "/dev/null"])
def test_devices_are_refused(model: str, output: str) -> None:
    done = process("sample", model, "-o", output)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not Path(output).is_file()


@linux
@pytest.mark.parametrize("format", ["png", "npy"])
def test_stdout_on_a_full_disk(model: str, format: str) -> None:
    with open("/dev/full", "wb") as full:
        command = [*SAMPLE, model, "-o", "-", "--format", format]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "edgegan: error: stdout: No space left on device\n")


def test_a_pipe_that_closes_early_is_quiet(model: str) -> None:
    command = [*SAMPLE, model, "-n", "100000000", "-o", "-", "--format", "npy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.read(6) == b"\x93NUMPY"
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 1


# Names, processors, threads


@linux
@pytest.mark.parametrize("name", [b"\xff\xfe", "new\nline a'b\"c 数字 \U0001f600".encode(), b"x" * 200])
def test_odd_names(model: str, name: bytes) -> None:
    os.rename(model, name + b".onnx")
    for suffix in (b".png", b".npy", b".npz", b"/"):
        command = [*map(os.fsencode, SAMPLE), name + b".onnx", b"-n", b"3", b"-o", name + suffix]
        done = subprocess.run(command, capture_output=True)
        assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)
    assert len(os.listdir()) == 5
    assert sorted(os.listdir(name)) == [b"00000000.png", b"00000001.png", b"00000002.png", b"samples.json"]
    done = subprocess.run([*map(os.fsencode, SAMPLE), b"no" + name], capture_output=True)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


@linux
@pytest.mark.skipif(shutil.which("taskset") is None, reason="needs taskset")
def test_on_one_processor(model: str) -> None:
    for name in ("x.npy", "out"):
        subprocess.run([*SAMPLE, model, "-n", "50", "-o", f"all-{name}"], check=True)
        subprocess.run(["taskset", "-c", "0", *SAMPLE, model, "-n", "50", "-o", f"one-{name}"], check=True)
        assert same(Path(f"all-{name}"), Path(f"one-{name}"))


@pytest.mark.parametrize("built_in", [False, True])
def test_eight_threads_at_one_generator(model: str, built_in: bool) -> None:
    generator = load(None if built_in else model)
    n = 32 if built_in else 200
    serial = [generator.sample(n, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, expected in zip(pool.map(lambda seed: generator.sample(n, seed), range(8)), serial, strict=True):
                np.testing.assert_array_equal(found, expected)


# A million


def peak(*args: str) -> int:
    """Kilobytes of memory that the command took at most."""
    code = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    return int(subprocess.run([sys.executable, "-c", code, *SAMPLE, *args], stdout=subprocess.PIPE, check=True).stdout)


@linux
@pytest.mark.parametrize(
    ("output", "n"),
    [
        ("x.npy", 300_000),
        ("x.npz", 300_000),
        ("out/", 20_000),
        pytest.param("out/", 1_000_000, marks=pytest.mark.slow),
    ],
)
def test_memory_stays_flat(model: str, output: str, n: int) -> None:
    shared = Path("/dev/shm")
    where = shared if n >= 300_000 and shutil.disk_usage(shared).free > 8e9 else None
    with tempfile.TemporaryDirectory(dir=where) as folder:
        few = peak(model, "-n", "1000", "-o", f"{folder}/few-{output}")
        many = peak(model, "-n", str(n), "-o", f"{folder}/{output}")
        assert many <= 1.1 * few
        if output == "out/":
            with os.scandir(f"{folder}/out") as entries:
                assert sum(1 for _ in entries) == n + 1
            start = time.monotonic()
            again = peak(model, "-n", str(n), "-o", f"{folder}/{output}")
            assert again <= 1.1 * few
            assert time.monotonic() - start < 2 + n / 50_000
