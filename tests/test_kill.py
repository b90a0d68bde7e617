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

folder, source, kills, longest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
chance, killed = random.Random(1), 0
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


def outlived(pictures: Path, dataset: Dataset, tmp_path: Path, kimg: float, kills: int, longest: float) -> int:
    """How often a run was killed until it was complete; asserts that it equals one that was not."""
    config = {"kimg": kimg, "batch": 16, "width": 0.25}
    whole, parts = (make_run(tmp_path / n, dataset, "edge", str(pictures), config=config) for n in ("whole", "parts"))
    lives = subprocess.run(
        [sys.executable, "-c", LIVES, parts.folder, pictures, str(kills), str(longest)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # all of it: the environment may choose NumPy's BLAS, which rounds
    )
    assert lives.returncode == 0, lives.stderr
    train(whole, dataset)
    assert equal(result_of(Run.open(parts.folder)), result_of(whole))
    assert [p.name for p in sorted(whole.samples.iterdir())] == [p.name for p in sorted(parts.samples.iterdir())]
    assert not list(parts.folder.rglob("*.tmp"))
    return int(lives.stdout.split()[-1])


def test_killed_at_a_dozen_random_moments(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert outlived(pictures, dataset, tmp_path, 2.0, 12, 0.6) == 12


@pytest.mark.slow
def test_killed_at_200_random_moments(pictures: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert outlived(pictures, dataset, tmp_path, 24.0, 200, 0.6) == 200
