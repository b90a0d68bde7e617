"""Checkpoints: whole or not at all, and proof of which."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgegan.errors import RunError
from edgegan.trainer import checkpoint
from support import equal

STATE = {
    "nets": {"G.weight": torch.arange(12.0).reshape(3, 4), "G.steps": torch.tensor(3)},
    "optimizers": {
        "D": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.0, 0.9)}]}
    },
    "best": None,
    "since": (3, 1.5),
}


def test_what_is_read_is_what_was_written_and_torch_reads_it_alone(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 32, {**STATE, "nimg": 32, "format": checkpoint.FORMAT})
    (path,) = checkpoint.found(tmp_path)
    assert path.name == "000000000032.pt"
    assert equal(checkpoint.load(path), {**STATE, "nimg": 32, "format": checkpoint.FORMAT})
    assert equal(torch.load(path, weights_only=True)["nets"], STATE["nets"])


def test_any_changed_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 0, STATE)
    (path,) = checkpoint.found(tmp_path)
    data = path.read_bytes()
    noticed = 0
    for place in np.random.default_rng(0).choice(len(data), 300, replace=False):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(place) % 8
        path.write_bytes(damaged)
        try:
            found = checkpoint.load(path)
        except RunError as error:
            assert "damaged" in str(error) or "another edgegan" in str(error)  # noqa: PT017
            noticed += 1
        else:
            assert equal(found, STATE)  # a byte of padding
    assert noticed > 60


@pytest.mark.parametrize("length", [0, 1, 100, -1, -100])
def test_a_cut_file_is_noticed(length: int, tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 0, STATE)
    (path,) = checkpoint.found(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match="damaged or cut short"):
        checkpoint.load(path)


def test_a_file_without_its_digest_or_with_code_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "1.pt")
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(tmp_path / "1.pt")
    torch.save({**STATE, "code": Path("never unpickled")}, tmp_path / "2.pt")
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(tmp_path / "2.pt")


def test_another_format_is_named(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 0, {**STATE, "format": 99})
    with pytest.raises(RunError, match="format 99"):
        checkpoint.load(tmp_path / "000000000000.pt")


def test_the_newest_two_and_the_best_stay(tmp_path: Path) -> None:
    writer = checkpoint.Writer(tmp_path)
    for nimg, best in ((0, True), (16, True), (32, False), (48, False), (64, False)):
        writer.save(nimg, STATE, best=best)
    writer.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000000048.pt", "000000000064.pt", "best.pt"]
    assert checkpoint.load(tmp_path / "best.pt")["nimg"] == 16


def test_the_best_is_copied_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.write(tmp_path, 7, {**STATE, "nimg": 7}, best=True)
    assert checkpoint.load(tmp_path / "best.pt")["nimg"] == 7


def test_training_may_go_on_while_it_is_written(tmp_path: Path) -> None:
    weight = torch.zeros(1000, 1000)
    writer = checkpoint.Writer(tmp_path)
    writer.save(5, {"weight": weight})
    weight += 1  # the next step
    writer.close()
    assert not checkpoint.load(tmp_path / "000000000005.pt")["weight"].any()


def test_a_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write in the same way."""
    script = """
import resource, signal, sys, torch
from pathlib import Path
from edgegan.trainer.checkpoint import Writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Writer(Path(sys.argv[1]))
writer.save(1, {"weight": torch.zeros(1000)})
writer.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
writer.save(2, {"weight": torch.zeros(1_000_000)})
try:
    writer.close()
except OSError as error:
    print(error.strerror, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{os.strerror(27)} {tmp_path}/000000000002.pt\n"
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.pt"]
    assert checkpoint.load(tmp_path / "000000000001.pt")["nimg"] == 1


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "link", "unlink"])
def test_killed_at_each_step_of_writing(call: str, tmp_path: Path) -> None:
    """A whole checkpoint is there before, between and after: kill -9 inside each system call in turn."""
    script = """
import os, sys, torch
from pathlib import Path
from edgegan.trainer import checkpoint
folder, call = Path(sys.argv[1]), sys.argv[2]
for nimg in (1, 2):
    checkpoint.write(folder, nimg, {"nimg": nimg, "weight": torch.full((1000,), nimg)}, best=True)
if call == "write":
    checkpoint._Told.write = lambda self, data: os.kill(os.getpid(), 9)
else:
    setattr(os, call, lambda *_: os.kill(os.getpid(), 9))
    Path.unlink = lambda self: os.unlink(self)
checkpoint.write(folder, 3, {"nimg": 3, "weight": torch.full((1000,), 3)}, best=True)
"""
    died = subprocess.run([sys.executable, "-c", script, tmp_path, call], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    for path in (*checkpoint.found(tmp_path), tmp_path / "best.pt"):
        state = checkpoint.load(path)
        assert (state["weight"] == state["nimg"]).all()
    assert len(checkpoint.found(tmp_path)) >= 2
