"""The page on a GAN of your own: its recipe, dropped into a copy of the package, is a command like the others."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgegan import load
from support import equal

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-gan.md").read_text(encoding="utf-8")
COMMANDS = {"edgegan-train": "trainer.cli", "edgegan-export": "export.cli", "edgegan": "cli"}
BUDGET = {"edgegan-train": "--kimg 0.32 --batch 16 --sample-kimg 0.16", "edgegan-export": "--lower fixed --no-measure"}


def block(language: str) -> str:
    """The one fenced block whose info string is exactly `language`."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.M | re.S)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the package as it installs, the page's recipe in it, and the commands in bin/."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "edgegan", tmp_path / "edgegan", ignore=ignore)
    for name in ("trainer", "export"):
        shutil.copytree(ROOT / name, tmp_path / "edgegan" / name, ignore=ignore)
    name = re.search(r"`trainer/recipes/(\w+\.py)`", PAGE)
    assert name is not None
    assert not (ROOT / "trainer" / "recipes" / name[1]).exists()
    (tmp_path / "edgegan" / "trainer" / "recipes" / name[1]).write_text(block("python"))
    (tmp_path / "bin").mkdir()
    for command, module in COMMANDS.items():
        path = tmp_path / "bin" / command
        path.write_text(f"#!{sys.executable}\nfrom edgegan.{module} import main\nmain()\n")
        path.chmod(0o755)
    return tmp_path


def run(folder: Path, line: str) -> str:
    """Run a command line there; returns what it printed."""
    env = {
        **os.environ,
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(shlex.split(line), cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def test_one_file_is_a_recipe(copy: Path) -> None:
    where = run(copy, f"{sys.executable} -c 'import edgegan.trainer; print(edgegan.trainer.__file__)'")
    assert where.startswith(str(copy))
    listed = run(copy, "edgegan-train --list")
    assert "wgan: Wasserstein GAN with a gradient penalty: two perceptrons, for small pictures." in listed
    assert "Improved Training of Wasserstein GANs" in " ".join(listed.split())
    shown = " ".join(run(copy, "edgegan-train wgan --help").split())
    assert "--penalty FLOAT Weight of the gradient penalty. [default: 10.0]" in shown
    for line in block("sh").splitlines():
        run(copy, f"{line} {BUDGET.get(line.split()[0], '')}")
    log = [json.loads(line) for line in (copy / "wgan-run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["nimg"] == 320
    assert {"D", "penalty"} <= {name for record in log for name in record["losses"]}
    generator = load(copy / "wgan.onnx")
    assert (generator.spec.recipe, generator.spec.image_size) == ("wgan", (28, 28))
    assert generator.check_golden() <= 1
    assert (copy / "wgan.png").stat().st_size > 1000


@pytest.mark.slow
def test_it_resumes_exactly(copy: Path) -> None:
    """Ended half-way, at an iteration at which only D learns, by a loop that is asked to stop."""
    (copy / "stop.py").write_text("""
import sys, torch
from pathlib import Path
from edgegan.trainer.data import open_dataset
from edgegan.trainer.loop import Trainer
from edgegan.trainer.run import Run
from edgegan.trainer.settings import DataSettings, Settings

dataset = open_dataset("digits")
data = DataSettings.of(dataset, "digits")
settings = Settings("wgan", {"kimg": 0.16, "batch": 16}, data, log_kimg=0.016, sample_kimg=0.16)
for name, stop_at in (("whole", 999), ("parts", 112)):
    trainer = Trainer(Run.create(Path(name), settings), dataset, "cpu")
    trainer.train([], lambda: 130 if trainer.nimg >= stop_at else 0)
trainer = Trainer(Run.open(Path("parts")), dataset, "cpu")
assert trainer.nimg == 112
trainer.train([])
""")
    run(copy, f"{sys.executable} stop.py")
    from edgegan.trainer import checkpoint

    states = [checkpoint.load(checkpoint.found(copy / name / "checkpoints")[-1]) for name in ("whole", "parts")]
    assert states[0]["nimg"] == 160
    assert equal(states[0]["nets"], states[1]["nets"])
    assert equal(states[0]["optimizers"], states[1]["optimizers"])


def test_the_recipe_is_short_and_clean(tmp_path: Path) -> None:
    code = block("python")
    assert len(code.splitlines()) < 110
    (tmp_path / "wgan.py").write_text(code)
    config = ["--config", str(ROOT / "pyproject.toml")]
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *config, str(tmp_path / "wgan.py")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
