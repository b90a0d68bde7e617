"""Sets of many pictures: processes that decode, broken pictures left out, memory that does not grow."""

import io
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgegan import noise
from edgegan.errors import DataError
from edgegan.trainer.data import decoding, entry, open_dataset, pictures, sample_order
from edgegan.trainer.data.pictures import Treatment
from edgegan.trainer.data.sources import find_source
from support import random_picture, save_picture

pytestmark = pytest.mark.usefixtures("root")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


# Processes ----------------------------------------------------------------------------------------


def fill(folder):
    """Grey ones first, then colour; two broken ones; JPEG, PNG, rotated."""
    for i in range(40):
        array = random_picture(20 + i % 3, 24, 1 if i < 25 else 3)
        save_picture(folder / "ab"[i % 2] / f"{i:02}.{('png', 'jpg')[i % 3 == 0]}", array)
    (folder / "a" / "08.png").write_bytes(b"")
    (folder / "b" / "07.png").write_bytes((folder / "b" / "07.png").read_bytes()[:200])


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "npy"])
def test_processes_give_what_threads_give(folder, tmp_path, monkeypatch, kind):
    fill(folder)
    source = folder
    if kind == "zip":
        source = tmp_path / "pets.zip"
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.rglob("*.*"):
                archive.write(file, file.relative_to(folder))
    elif kind == "tar":
        source = tmp_path / "pets.tar"
        with tarfile.open(source, "w") as archive:
            archive.add(folder, ".")
    elif kind == "npy":
        source = tmp_path / "pets.npy"
        np.save(source, random_picture(30, 16)[:, :, None].repeat(16, 2))
    threads = open_dataset(str(source), resolution=12, skip_broken=True, data_root=tmp_path / "t")
    monkeypatch.setattr(entry, "PROCESSES_FROM", 1)
    monkeypatch.setattr(pictures, "decode", lambda data: pytest.fail("decoded here"))
    processes = open_dataset(str(source), resolution=12, skip_broken=True, data_root=tmp_path / "p")
    np.testing.assert_array_equal(processes.images, threads.images)
    assert (processes.digest, processes.classes, processes.skipped) == (
        threads.digest,
        threads.classes,
        threads.skipped,
    )
    assert len(threads.skipped) == (0 if kind == "npy" else 2)


def test_a_process_that_dies_is_an_error_that_names_the_place(folder, monkeypatch):
    for i in range(8):
        save_picture(folder / f"{i}.png")
    monkeypatch.setattr(entry, "PROCESSES_FROM", 1)
    monkeypatch.setattr(decoding, "_START", decoding._START.replace("work(", "os.kill(os.getpid(), 9) or work("))
    with pytest.raises(DataError, match=r"process that decoded [01]\.png .* ended with signal 9"):
        open_dataset(str(folder))


def children(pid):
    """The living processes whose parent is or was `pid`, told by their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"decoding-test-{pid}".encode() in path.parent.joinpath("environ").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


@linux
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -15), (9, -9)])
def test_no_process_is_left(folder, tmp_path, number, status):
    picture = save_picture(folder / "a.png", random_picture(400, 400)).read_bytes()
    for i in range(200):
        (folder / f"{i}.png").write_bytes(picture)
    code = (
        "import os, sys, signal; os.environ['MARK'] = f'decoding-test-{os.getpid()}'\n"
        "from edgegan.trainer.data import entry, open_dataset; entry.PROCESSES_FROM = 1\n"
        "open_dataset(sys.argv[1], resolution=300, progress=lambda *step: print(*step, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert parent.stdout.readline()
    assert children(parent.pid)
    parent.send_signal(number)
    _, error = parent.communicate(timeout=20)
    assert parent.returncode == status
    assert error.count(b"Traceback") == (number == signal.SIGINT), "of KeyboardInterrupt, and nothing of the others"
    deadline = time.monotonic() + 10
    while children(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children(parent.pid)


def test_a_script_without_a_main_guard_works(folder, tmp_path):
    for i in range(4):
        save_picture(folder / f"{i}.png")
    script = tmp_path / "script.py"
    script.write_text(
        "print('started')\n"
        "from edgegan.trainer.data import entry, open_dataset\n"
        f"entry.PROCESSES_FROM = 1\nprint(len(open_dataset({str(folder)!r})))"
    )
    (tmp_path / "pickle.py").write_text("print('a stranger')")
    run = subprocess.run([sys.executable, "-P", script], capture_output=True, text=True, cwd=tmp_path)
    assert (run.stdout, run.stderr) == ("started\n4\n", "")


# Broken pictures left out -------------------------------------------------------------------------


def test_broken_pictures_are_left_out_and_named(folder, root):
    arrays = [random_picture() for _ in range(8)]
    for i, array in enumerate(arrays):
        save_picture(folder / f"{i}.png", array)
    for i in (0, 3, 4, 6):
        (folder / f"{i}.png").write_bytes(b"x" * (i > 0))
    (folder / "6.png").rename(folder / "\x1b[31m.png")
    with pytest.raises(DataError, match=r"4 of 8 pictures .*\(--skip-broken"):
        open_dataset(str(folder))
    for _ in range(2):  # decoded, and from the cache
        dataset = open_dataset(str(folder), skip_broken=True)
        np.testing.assert_array_equal(dataset.images, [arrays[i] for i in (1, 2, 5, 7)])
        assert len(dataset.skipped) == 4
        assert dataset.skipped[1] == "0.png (an empty file)"
        assert dataset.skipped_list.read_text().splitlines() == list(dataset.skipped)
        line = dataset.skipped_line
        assert line.startswith(r"skipped 4 broken pictures of 8: \x1b[31m.png (not a picture")
        assert line.isprintable()
        assert f"and 1 more; all are listed in {root / 'decoded'}" in line
    (entry_folder,) = (root / "decoded").iterdir()
    (entry_folder / "skipped.txt").unlink()
    assert len(open_dataset(str(folder), skip_broken=True).skipped) == 4, "a damaged entry is made again"


def test_what_is_left_equals_the_set_without_them(folder, tmp_path):
    fill(folder)
    skipped = open_dataset(str(folder), resolution=8, skip_broken=True)
    for name in ("a/08.png", "b/07.png"):
        (folder / name).unlink()
    clean = open_dataset(str(folder), resolution=8)
    assert (clean.digest, clean.skipped, clean.skipped_line) == (skipped.digest, (), "")
    np.testing.assert_array_equal(clean.labels, skipped.labels)
    assert np.load(Path(skipped.images.filename)).shape == skipped.images.shape, "NumPy reads the file by itself"


def test_too_few_left_are_an_error(folder):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save_picture(folder / name)
    (folder / "b" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no picture of the class b .* can be read: b/1.png \(not a picture"):
        open_dataset(str(folder), skip_broken=True)
    (folder / "a" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"2 of 3 pictures .* training needs 2"):
        open_dataset(str(folder), skip_broken=True)


def test_what_the_disk_refuses_is_no_broken_picture(folder, monkeypatch):
    """A lost connection to a disk must not become a set without half of its pictures."""
    for i in range(4):
        save_picture(folder / f"{i}.png")

    def refuse(self, blob):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(decoding._Reader, "read", refuse)
    with pytest.raises(DataError, match=r"0.png in .* cannot be read: Input/output error"):
        open_dataset(str(folder), skip_broken=True)


def test_grey_until_the_last_picture(folder):
    arrays = [random_picture(8, 8, 1) for _ in range(5)]
    for i, array in enumerate(arrays):
        save_picture(folder / f"{i}.png", array)
    grey = open_dataset(str(folder))
    np.testing.assert_array_equal(grey.images[..., 0], arrays)
    colour = random_picture()
    save_picture(folder / "9.png", colour)
    mixed = open_dataset(str(folder))
    np.testing.assert_array_equal(mixed.images[:5], np.stack(arrays)[..., None].repeat(3, 3))
    np.testing.assert_array_equal(mixed.images[5], colour)
    assert open_dataset(str(folder), channels=3).digest == mixed.digest


# Memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", pytest.param("tar", marks=pytest.mark.slow)])
def test_an_open_set_holds_little_for_each_picture(tmp_path, kind):
    count, picture = 20_000, save_picture(tmp_path / "a.png").read_bytes()
    path = tmp_path / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(count):
                archive.writestr(f"class-{i % 5}/{i:09}.png", picture)
    else:
        with tarfile.open(path, "w") as archive:
            for i in range(count):
                info = tarfile.TarInfo(f"{i:09}.png")
                info.size = len(picture)
                archive.addfile(info, io.BytesIO(picture))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with find_source(str(path), tmp_path, None, None).load() as opened:
        held = (tracemalloc.get_traced_memory()[0] - before) / opened.count
        assert opened.count == count
        tracemalloc.reset_peak()
        now = tracemalloc.get_traced_memory()[0]
        tasks = (decoding.Task(opened.items(i, i + 100), Treatment(None, None, "crop")) for i in range(0, 5000, 100))
        assert sum(len(images) for results in decoding.in_order(tasks, processes=False) for images in results) == 5000
        working = tracemalloc.get_traced_memory()[1] - now
    tracemalloc.stop()
    assert held < 160, "bytes a picture: its name, its place, its label"
    assert working < 4 << 20, "bytes while decoding, whatever the count"


def test_order_of_a_large_set_is_the_stable_argsort():
    size = 300_000
    words = noise.words(noise.derive_seed(5, 0), 1, size, start=1, stream=noise.STREAM_TRAINING)[0]
    assert len(np.unique(words)) < size, "some words are equal"
    np.testing.assert_array_equal(sample_order(5, size, size, size), np.argsort(words, kind="stable"))
