"""What is installed: every module, under the right names, with imports that run one way, and a light runtime."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"edgegan": "edgegan", "trainer": "edgegan.trainer", "export": "edgegan.export"}


def source_files() -> set[str]:
    """The files that a wheel must hold, as paths inside it: of the C core, the public header and the table."""
    found = set()
    for folder, package in PACKAGES.items():
        for path in (ROOT / folder).rglob("*"):
            private = path.suffix == ".h" and path.name not in ("edgegan.h", "normal_table.h")
            if path.is_file() and not private and path.suffix not in (".pyc", ".so", ".pyd", ".c"):
                found.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    env = {**os.environ, "EDGEGAN_PUREPYTHON": ""}  # with the C core, whichever of the two this run of the tests uses
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--outdir", out, ROOT], check=True, cwd=out, env=env)
    return out


def test_wheel_holds_every_file_of_the_tree(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    extension = {name for name in names if name.startswith("edgegan/core/_core.")}
    assert len(extension) == 1
    assert names - extension == source_files()
    assert "-cp311-abi3-" in wheel.name


def test_sdist_holds_every_file_of_the_tree_and_the_core(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in PACKAGES:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".so", ".pyd"):
                assert path.relative_to(ROOT).as_posix() in names
    assert {"pyproject.toml", "setup.py", "LICENSE", "README.md"} <= names
    assert {"tests/support.py", "tests/c/core_test.c", "tests/vectors/noise.txt", "docs/core.md"} <= names


def test_an_sdist_made_without_the_c_core_still_has_its_sources(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    env = {**os.environ, "EDGEGAN_PUREPYTHON": "1"}
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--sdist", tree], env=env, cwd=tree, check=True)
    (sdist,) = tree.glob("dist/*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"edgegan/core/noise.c", "edgegan/core/kernels.h", "edgegan/core/_core.c"} <= names


def test_a_build_without_the_sources_of_the_c_core_is_loud(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    for path in (tree / "edgegan" / "core").glob("*.c"):
        path.unlink()
    command = [sys.executable, "setup.py", "build"]
    env = {**os.environ, "EDGEGAN_PUREPYTHON": ""}
    failed = subprocess.run(command, env=env, cwd=tree, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "sources of the C core are missing" in failed.stderr


def test_scripts_train_and_export_say_what_to_install_and_the_runtime_draws(built: Path, tmp_path: Path) -> None:
    """A fresh environment with the wheel and the extra `cpu` alone: no torch, no onnx."""
    (wheel,) = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    bin = tmp_path / "env" / "bin"
    subprocess.run(
        [bin / "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"edgegan[cpu] @ {wheel.as_uri()}"],
        check=True,
    )

    env = {**os.environ, "EDGEGAN_PUREPYTHON": ""}

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([bin / args[0], *args[1:]], cwd=tmp_path, env=env, capture_output=True, text=True)

    modules = "from importlib.util import find_spec as f; print(*filter(f, ('torch', 'onnx', 'trainer', 'export')))"
    assert call("python", "-c", modules).stdout.strip() == ""
    assert call("edgegan", "sample", "-n", "4", "-o", "four.png").returncode == 0
    assert (tmp_path / "four.png").stat().st_size > 500
    assert "core         C, " in call("edgegan", "doctor").stdout
    built_in = call("python", "-c", "from edgegan.model import BUILT_IN; print(BUILT_IN)").stdout.strip()
    assert "frechet" in call("edgegan-score", built_in, "digits", "-n", "8").stdout
    for script, args in (
        ("edgegan-train", ("dcgan", "--data", "digits", "--out", "run")),
        ("edgegan-export", ("run", "-o", "a.onnx")),
        ("edgegan-score", (built_in, "digits", "-n", "8", "--write")),
    ):
        assert call(script, "--help").returncode == 0
        failed = call(script, *args)
        assert failed.returncode == 1
        assert failed.stderr.count("\n") == 1
        assert "pip install 'edgegan[" in failed.stderr
    assert not (tmp_path / "run").exists()


def test_trainer_and_export_are_not_top_level_names(tmp_path: Path) -> None:
    code = "from importlib.util import find_spec as f; print(f('edgegan.trainer').name, f('trainer'), f('export'))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "edgegan.trainer None None"


def copy_of_the_tree(folder: Path) -> Path:
    """What a build reads, without an extension that is built already."""
    ignore = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_a_build_without_a_compiler_is_loud(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    env = {**os.environ, "CC": "/nonexistent/cc", "EDGEGAN_PUREPYTHON": ""}
    command = [sys.executable, "-m", "build", "--wheel", tree]
    failed = subprocess.run(command, env=env, cwd=tree, capture_output=True, text=True)
    assert failed.returncode != 0
    assert "/nonexistent/cc" in failed.stdout + failed.stderr
    assert not list(tree.glob("dist/*"))


def test_a_build_without_the_c_core_by_choice(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    env = {**os.environ, "CC": "/nonexistent/cc", "EDGEGAN_PUREPYTHON": "1"}
    subprocess.run([sys.executable, "-m", "build", "--quiet", "--wheel", tree], env=env, cwd=tree, check=True)
    (wheel,) = tree.glob("dist/*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "EDGEGAN_PUREPYTHON": ""}
    command = [sys.executable, "-m", "edgegan", "doctor"]
    shown = subprocess.run(command, env=env, cwd=tmp_path / "site", capture_output=True, text=True, check=True)
    assert "core         NumPy, " in shown.stdout


# The runtime, its entry points included, and --help of every script: neither torch nor onnx is loaded.
LIGHT = {
    "import edgegan, edgegan.model, edgegan.image, edgegan.noise, edgegan.cli": ("torch", "onnx"),
    # main() itself ends the process
    "import sys; sys.argv[1:] = ['--help']; from edgegan import _cli, cli; main = lambda: _cli.run(cli.cli, 'x')": (
        "torch",
        "onnx",
        "numpy",
        "onnxruntime",
    ),
    "import sys; sys.argv[1:] = ['--help']; from edgegan.trainer.cli import main": ("torch", "onnx"),
    "import sys; sys.argv[1:] = ['dcgan', '--help']; from edgegan.trainer.cli import main": ("torch", "onnx"),
    "import sys; sys.argv[1:] = ['--help']; from edgegan.export.cli import main": ("torch", "onnx"),
    "import sys; sys.argv[1:] = ['--help']; from edgegan.trainer.scoring.cli import main": (
        "torch",
        "onnx",
        "numpy",
        "onnxruntime",
    ),
}


@pytest.mark.parametrize("code", LIGHT)
def test_no_heavy_import(code: str, tmp_path: Path) -> None:
    run = "\ntry: main()\nexcept SystemExit as e: assert not e.code\nexcept NameError: pass\n"
    check = f"import sys; loaded = [m for m in {LIGHT[code]} if m in sys.modules]; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code + run + check], cwd=tmp_path, check=True, capture_output=True)


def imported_packages(path: Path) -> set[str]:
    """Which of our packages a file imports, wherever in the file."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("edgegan", ("edgegan.trainer", "edgegan.export", "torch", "onnx")),
        ("trainer", ("edgegan.export",)),
        ("export", ()),
    ],
)
def test_imports_run_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for module in imported_packages(path):
            bad = [f for f in (*forbidden, "trainer", "export") if module == f or module.startswith(f + ".")]
            assert not bad, f"{path.relative_to(ROOT)} imports {module}"


# Inside the runtime, a module imports only those before it: from cli down to spec, noise, errors.
ORDER = [
    "errors",
    "_files",
    "_folder",
    "_markdown",
    "_signals",
    "_cli",
    "spec",
    "_pure",
    "core",
    "_backend",
    "noise",
    "image",
    "decode",
    "tiles",
    "provenance",
    "devices",
    "_protobuf",
    "_shapes",
    "gate",
    "session",
    "foreign",
    "_order",
    "translate",
    "leaves",
    "model",
    "output",
    "translate_files",
    "cli",
    "__main__",
]


def test_runtime_modules_import_only_downwards() -> None:
    found = {path.stem for path in (ROOT / "edgegan").glob("*.py")} - {"__init__"}
    assert found <= set(ORDER), "add the new module to ORDER"
    for name in found:
        for module in imported_packages(ROOT / "edgegan" / f"{name}.py"):
            package, _, target = module.partition(".")
            target = target.partition(".")[0]
            if package == "edgegan" and target in ORDER:
                assert ORDER.index(target) < ORDER.index(name), f"{name} imports {target}"


def test_no_path_of_a_developers_machine_in_the_tree() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        data = (ROOT / name).read_bytes()
        assert str(ROOT).encode() + b"/" not in data, name
