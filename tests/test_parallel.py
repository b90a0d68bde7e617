"""Several processes train one run: the same losses as one process, and an orderly end when one of them dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from edgegan.errors import ArgumentError
from edgegan.trainer import checkpoint
from edgegan.trainer.data import Dataset
from edgegan.trainer.parallel import part_of
from edgegan.trainer.run import Run
from support import BIN, always, equal, options_of, result_of, sets_of, train

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ("--kimg", "0.064", "--batch", "16", "--log-kimg", "0.016", "--sample-kimg", "0.032", "--precision", "fp32")
LONG = ("--kimg", "4", "--batch", "16", "--log-kimg", "0.016", "--sample-kimg", "100", "--precision", "fp32")


def torchrun(processes: int, *args: object, restarts: int = 0) -> list[str]:
    """The command line that trains on so many processes of this machine."""
    how = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    return [str(BIN / "torchrun"), *how, "-m", "edgegan.trainer", *map(str, args)]


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a group of its own, which does not outlive the block."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in children(process.pid):  # torchrun's are not of its group
                    os.kill(child, signal.SIGKILL)
                os.killpg(process.pid, signal.SIGKILL)


def children(process: int) -> list[int]:
    """The process ids of those that it started."""
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is so; a minute at most."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def rank_process(launcher: int, rank: int) -> int:
    """The process id of a rank among the children of torchrun."""
    wanted = f"RANK={rank}".encode()
    return next(c for c in children(launcher) if wanted in Path(f"/proc/{c}/environ").read_bytes().split(b"\0"))


@pytest.mark.parametrize(
    ("recipe", "processes"),
    [
        *always("dcgan", also=(2,)),  # its batch norm and dropout see the whole batch
        pytest.param("dcgan", 4, marks=pytest.mark.slow),
    ],
)
def test_as_many_processes_as_you_like_make_the_same_losses(
    recipe: str, processes: int, pictures: Path, dataset: Dataset, tmp_path: Path
) -> None:
    together = tmp_path / "together"
    done = subprocess.run(
        torchrun(processes, recipe, "--data", pictures, *options_of(recipe, pictures), "--out", together, *TINY),
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert done.returncode == 0, done.stderr
    assert f"{processes} processes" in done.stdout
    assert done.stdout.count("done: 0.064 kimg") == 1
    alone = Run.create(tmp_path / "alone", Run.open(together).settings)
    train(alone, sets_of(alone, dataset))
    (state, log), (state_alone, log_alone) = result_of(Run.open(together)), result_of(alone)
    assert [r["nimg"] for r in log] == [r["nimg"] for r in log_alone] == [16, 32, 48, 64]
    for record, other in zip(log, log_alone, strict=True):
        close = 2e-4 if record["nimg"] <= 32 else 2e-3  # what Adam makes of rounding, see below, grows with each step
        assert record["losses"] == pytest.approx(other["losses"], rel=close, abs=2e-4)
        assert record.get("swd", 0) == pytest.approx(other.get("swd", 0), rel=1e-3)
    assert [p.name for p in sorted(alone.samples.iterdir())] == [
        p.name for p in sorted((together / "samples").iterdir())
    ]
    # Adam turns the least difference of a gradient near 0 into a step of another sign: some learning rates in all.
    for name, value in state_alone["nets"].items():
        assert torch.allclose(state["nets"][name].float(), value.float(), rtol=1e-3, atol=8 * alone.config.lr), name


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_with_a_checkpoint_and_resume_goes_on(pictures: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    args = ("dcgan", "--data", pictures)
    with running(torchrun(2, *args, "--out", run, *LONG)) as process:
        wait_for(lambda: (run / "log.jsonl").exists() and len(Run.open(run).read_log()) > 4)
        os.kill(rank_process(process.pid, 1), signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "another process of this run ended" in stderr
    state = Run.open(run).newest_checkpoint()
    assert state is not None
    assert state["nimg"] >= 64  # not that of the beginning, which is the only one by then otherwise
    shorter = [*LONG[2:], "--kimg", str(state["nimg"] / 1000 + 0.064)]
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"kimg": 4.0', f'"kimg": {shorter[-1]}'))
    for command in (("resume", run), (*args, "--out", whole, *shorter)):
        done = subprocess.run(torchrun(2, *command), capture_output=True, text=True, env=ENV)
        assert done.returncode == 0, done.stderr
    (state, log), (expected, log_expected) = result_of(Run.open(run)), result_of(Run.open(whole))
    assert log == log_expected
    assert [name for name in state if not equal(state[name], expected[name])] == []


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_in_order(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with running(torchrun(2, "edge", "--data", pictures, "--out", run, *LONG)) as process:
        wait_for(lambda: (run / "log.jsonl").exists() and len(Run.open(run).read_log()) > 1)
        os.kill(rank_process(process.pid, 1), signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "nothing is lost; go on with  edgegan-train resume" in stderr
    opened = Run.open(run)
    state = opened.newest_checkpoint()
    assert state is not None
    assert 0 < opened.read_log()[-1]["nimg"] <= state["nimg"] < 4000


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_process(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = ("dcgan", "--data", pictures, "--out", run, "--kimg", "0.4", *LONG[2:])
    with running(torchrun(2, *args, restarts=1)) as process:
        wait_for(lambda: (run / "log.jsonl").exists() and len(Run.open(run).read_log()) > 4)
        os.kill(rank_process(process.pid, 0), signal.SIGKILL)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert Run.open(run).read_log()[-1]["nimg"] == 400


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGINT],
        *(pytest.param(other, marks=pytest.mark.slow) for other in ([signal.SIGINT] * 2, [signal.SIGTERM])),
    ],
)
def test_a_signal_to_the_whole_group_with_workers(
    signals: list[signal.Signals], pictures: Path, tmp_path: Path
) -> None:
    """As a terminal sends Ctrl-C, once or twice, and a system that shuts down: to the command and all it started."""
    run = tmp_path / "run"
    command = [BIN / "edgegan-train", "edge", "--data", pictures, "--out", run, *LONG, "--workers", "2"]
    with running([str(word) for word in command]) as process:
        wait_for(lambda: (run / "log.jsonl").exists())
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(0.05)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signals[0]
    assert "Traceback" not in stderr
    assert Run.open(run).newest_checkpoint() is not None
    assert not list(run.rglob("*.tmp"))


def test_a_batch_that_cannot_be_shared_is_refused(pictures: Path, tmp_path: Path) -> None:
    assert part_of(64, 8) == 8
    with pytest.raises(ArgumentError, match="batch is 16, which 3 processes"):
        part_of(16, 3)


SYNCED = """
import torch, torch.distributed as dist
from edgegan.trainer.layers import BatchNorm, Dropout
torch.manual_seed(1)
whole_dropped = Dropout(0.5)(torch.ones(8, 3, 5, 5))  # on one process
dist.init_process_group("gloo")
torch.manual_seed(0)
rank, x = dist.get_rank(), torch.randn(8, 3, 5, 5)
part = slice(rank * 4, rank * 4 + 4)
ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
mine, whole = x[part].clone().requires_grad_(), x.clone().requires_grad_()
y, expected = ours(mine), theirs(whole)
assert torch.allclose(y, expected[part], atol=1e-5)
# As the loop does: each takes the mean over its part, and the gradients are averaged.
weight = torch.randn(8, 3, 5, 5)
(y * weight[part]).mean().backward()
(expected * weight).mean().backward()
assert torch.allclose(mine.grad / 2, whole.grad[part], atol=1e-6), (mine.grad / 2 - whole.grad[part]).abs().max()
for a, b in zip(ours.parameters(), theirs.parameters()):
    dist.all_reduce(a.grad)
    assert torch.allclose(a.grad / 2, b.grad, atol=1e-6)
for a, b in zip(ours.buffers(), theirs.buffers()):
    assert torch.allclose(a, b, atol=1e-6)
torch.manual_seed(1)
dropped = Dropout(0.5)(torch.ones(4, 3, 5, 5))
both = [torch.empty_like(dropped) for _ in range(2)]
dist.all_gather(both, dropped)
assert torch.equal(torch.cat(both), whole_dropped)
dist.barrier()
dist.destroy_process_group()
"""


def test_batch_norm_and_dropout_see_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "synced.py").write_text(SYNCED)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            tmp_path / "synced.py",
        ],
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert done.returncode == 0, done.stderr


GROUPED = """
import torch, torch.distributed as dist
from edgegan.trainer.layers import minibatch_deviation

def penalty(x, weight, together):
    # As R1: of the slopes by the pictures, to be differentiated again.
    logits = minibatch_deviation(x * weight, together=together)[:, -1].square().sum((1, 2))
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits, slope.square().sum((1, 2, 3)).mean() + logits.mean()

torch.manual_seed(0)
cases = [(n, torch.randn(2 * n, 3, 2, 2)) for n in (2, 3, 6, 8)]  # one group; one of six; three; each has its own two
weights = [torch.nn.Parameter(torch.ones(3, 1, 1)) for _ in cases]
expected = []
for (n, x), weight in zip(cases, weights):
    logits, loss = penalty(x.clone().requires_grad_(), weight, False)
    expected.append((logits.detach(), torch.autograd.grad(loss, weight)[0]))
dist.init_process_group("gloo")
rank = dist.get_rank()
for (n, x), weight, (logits, gradient) in zip(cases, weights, expected):
    part = slice(rank * n, rank * n + n)
    mine, loss = penalty(x[part].clone().requires_grad_(), weight, True)
    assert torch.allclose(mine, logits[part], atol=1e-6), n
    (found,) = torch.autograd.grad(loss, weight)
    dist.all_reduce(found)
    assert torch.allclose(found / 2, gradient, rtol=1e-5), (n, found / 2, gradient)
if rank == 0:  # the monitors ask D on the first process alone
    assert minibatch_deviation(torch.randn(3, 3, 2, 2)).shape == (3, 4, 2, 2)
dist.barrier()
dist.destroy_process_group()
"""


def test_the_groups_whose_deviation_d_sees_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "grouped.py").write_text(GROUPED)
    how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([sys.executable, *how, tmp_path / "grouped.py"], capture_output=True, text=True, env=ENV)
    assert done.returncode == 0, done.stderr


def test_batch_norm_and_dropout_of_one_process() -> None:
    from edgegan.trainer.layers import BatchNorm, Dropout

    x = torch.randn(6, 3, 4, 4)
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    dropped = Dropout(0.25)(torch.ones(1000, 100))
    assert set(dropped.unique().tolist()) == {0.0, np.float32(1 / 0.75)}
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(Dropout(0.25).eval()(x), x)


def test_checkpoints_of_processes_that_drifted_apart_are_refused(tmp_path: Path) -> None:
    assert checkpoint.digest_of(torch.zeros(3)) != checkpoint.digest_of(-torch.zeros(3))  # bits, not values
    (tmp_path / "drift.py").write_text("""
import torch, torch.distributed as dist
from edgegan.errors import RunError
from edgegan.trainer.parallel import join, leave
group = join("cpu")
nets = torch.nn.ModuleDict({"G": torch.nn.Linear(2, 2), "D": torch.nn.BatchNorm1d(2)})
for value in nets.state_dict().values():
    value.fill_(1)
group.check_same(nets)
if group.rank:
    nets["D"].running_var[0] += 1e-6
try:
    group.check_same(nets)
except RunError as error:
    assert "D.running_var differs" in str(error)
else:
    leave(3)
assert group.greatest(group.rank * 130) == 130
leave(0)
""")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", tmp_path / "drift.py"],
        capture_output=True,
        text=True,
        env=ENV,
    )
    assert done.returncode == 0, done.stderr
