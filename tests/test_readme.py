"""Every command of the README, run as it stands there; with a tiny budget appended to trainings and exports."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgegan.trainer import recipes
from support import BIN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUDGET = "--kimg 0.032 --batch 8"
QUICK = "--lower fixed --no-measure"  # an export that measures nothing


def outside_make() -> dict[str, str]:
    """The environment without an outer make's flags, which change what an inner one does and prints."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced blocks whose info string is exactly `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.M | re.S)


def test_commands_and_code(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        size = (70 + i, 90 - i, 3)
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(tmp_path / f"photos/{i}.jpg")
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ran = set()
    of_export = blocks("sh", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"))
    lines = "".join([*blocks("sh"), *of_export]).splitlines()
    for line in dict.fromkeys(lines):  # each once, though both pages have it
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            continue  # the next tests
        is_training = words[0] == "edgegan-train" and words[1] in recipes.names()
        is_export = words[0] == "edgegan-export" and "--check" not in words
        command = shlex.join(words) + f" {BUDGET}" * is_training + f" {QUICK}" * is_export
        shown = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert shown.returncode == 0, f"{command}: {shown.stderr}"
        ran.add(" ".join(words[:2]))
    assert {"edgegan-train edge", "edgegan-train resume", "edgegan-export photos-run", "edgegan sample"} <= ran
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.mode == "RGB"
    (code,) = blocks("python")
    code += "\nassert images.shape == (16, 64, 64, 3) and images.dtype == 'uint8'"
    subprocess.run([BIN / "python", "-c", code], cwd=tmp_path, env=env, check=True)


def test_code_of_the_pages_on_the_runtime_and_the_core(tmp_path: Path) -> None:
    shutil.copy(ROOT / "edgegan" / "models" / "digits.onnx", tmp_path / "photos.onnx")
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("runtime.md", "core.md")]
    setup = "import numpy as np\nimages = np.zeros((16, 3, 64, 64), np.float32)\n"
    for code in [code for page in pages for code in blocks("python", page)]:
        subprocess.run([BIN / "python", "-W", "error", "-c", setup + code], cwd=tmp_path, check=True)
    assert (tmp_path / "sheet.png").stat().st_size > 100


def test_make_demo(tmp_path: Path) -> None:
    """The demo's steps with a tiny budget, in a copy of the Makefile's folder, without the installation."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = ["make", "-o", ".venv/.train", f"BIN={BIN}", "DEMO_KIMG=0.064", "demo"]
    for _ in range(2):  # the second time it goes on with what is there
        shown = subprocess.run(make, cwd=tmp_path, env=outside_make(), capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        named = re.findall(r"demo/\S+\.(?:png|gif)", shown.stdout[shown.stdout.index("Look at") :])
        assert {"demo/samples.png", "demo/run/progress.gif"} <= set(named)
        for path in ("demo/samples.png", "demo/run/progress.gif"):
            with Image.open(tmp_path / path) as picture:
                assert picture.size[0] > 200
    last = shown.stdout.strip().splitlines()[-1]
    assert subprocess.run(last.removeprefix("Try next"), shell=True, cwd=tmp_path).returncode == 0


def test_make_demo_and_test_are_in_the_readme_and_ci() -> None:
    assert re.search(r"^make demo\b.*\nmake test\b", "".join(blocks("sh")), flags=re.M)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    shown = subprocess.run(
        ["make", "-n", "test"], cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=True
    )
    assert "pytest" in shown.stdout


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)  # code has no links
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            if not re.match(r"https?:", link):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("recipe", recipes.names())
def test_every_recipe_has_its_row(recipe: str) -> None:
    assert f"| [`{recipe}`](trainer/recipes/{recipe}.py) |" in README


def test_extras_of_the_install_lines_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"\.\[([\w,]+)\]", README)
    assert named
    for group in named:
        assert set(group.split(",")) <= extras.keys()
