"""A trainer killed again and again at random moments ends with the bits of one that was never killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgegan.trainer.data import Dataset
from edgegan.trainer.run import Run
from support import equal, make_run, result_of, train

# Each life is a fork of a process that has imported torch but computed nothing with it: a start in milliseconds.
LIVES = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from edgegan.trainer.data import open_dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.run import Run
import edgegan.trainer.recipes.edge, edgegan.trainer.figures, matplotlib.figure, torch._dynamo

folder, source, kills, longest, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
chance, killed = random.Random(seed), 0
while True:
    child = os.fork()
    if not child:
        run = Run.open(folder)
        with run.locked():
            Trainer(run, open_dataset(source), "cpu", workers=killed % 3).train([])
        os._exit(0)
    if killed < kills:
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        killed += 1
    elif status:
        sys.exit(f"a life failed with status {status}")
    else:
        break
print(killed)
"""


def outlive(pictures: Path, dataset: Dataset, tmp_path: Path, kimg: float, kills: int, longest: float) -> None:
    """Kill runs until it was done so often; assert that each ends as one that was not killed."""
    config = {"kimg": kimg, "batch": 16, "width": 0.25}
    whole = make_run(tmp_path / "whole", dataset, "edge", str(pictures), config=config)
    train(whole, dataset)
    killed = 0
    for attempt in range(kills):  # a fast machine completes a run before it was killed that often
        parts = make_run(tmp_path / f"parts{attempt}", dataset, "edge", str(pictures), config=config)
        arguments = (parts.folder, pictures, kills - killed, longest, attempt)
        lives = subprocess.run(
            [sys.executable, "-c", LIVES, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # all of it: it may choose NumPy's BLAS, which rounds
        )
        assert lives.returncode == 0, lives.stderr
        assert equal(result_of(Run.open(parts.folder)), result_of(whole))
        assert [p.name for p in sorted(whole.samples.iterdir())] == [p.name for p in sorted(parts.samples.iterdir())]
        assert not list(parts.folder.rglob("*.tmp"))
        killed += int(lives.stdout.split()[-1])
        if killed >= kills:
            return
    raise AssertionError(f"only {killed} of {kills} lives could be killed before they were over")


def test_killed_at_a_dozen_random_moments(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    outlive(pictures, dataset, tmp_path, 0.64, 12, 0.6)


@pytest.mark.slow
def test_killed_at_200_random_moments(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    outlive(pictures, dataset, tmp_path, 16.0, 200, 0.6)
