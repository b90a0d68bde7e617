"""The C core by itself: other compilers, sanitizers, other processors, random calls; docs/robustness.md is its page.

Everything is compiled here from edgegan/core, whatever the installed package was built with. What a test needs beyond a
C compiler is an ordinary Debian package; a test that lacks it skips and names it.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegan import _backend, noise

ROOT = Path(__file__).parents[1]
CORE = ROOT / "edgegan" / "core"
C = ROOT / "tests" / "c"
VECTORS = ROOT / "tests" / "vectors"
SOURCES = [path for path in sorted(CORE.glob("*.c")) if path.name != "_core.c"]

X86 = platform.machine() == "x86_64"
STRICT = ["-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
DEFAULTS = ["-O2"]  # gcc then fuses multiplications and additions, where edgegan/core/rounding.h does not stop it
SANITIZERS = "-g -fno-omit-frame-pointer -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
FUZZ_SECONDS = 60

PACKAGES = {
    "cc": "gcc",
    "clang-19": "clang-19 libclang-rt-19-dev",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "s390x-linux-gnu-gcc": "gcc-s390x-linux-gnu libc6-dev-s390x-cross",
    "qemu-aarch64": "qemu-user",
    "qemu-arm": "qemu-user",
    "qemu-s390x": "qemu-user",
    "qemu-x86_64": "qemu-user",
}


def need(*tools: str) -> None:
    """Skip the test, with the name of the Debian package, if a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install {PACKAGES.get(tool, tool)}")


def run(*command: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; what it wrote is the message if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, (
        f"{command[0]}: exit status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    )
    return done


def build(folder: Path, compiler: str, flags: Sequence[str], *, main: str = "core_test.c") -> Path:
    """Compile the core with a program of tests/c; a warning fails as an error does."""
    need(compiler)
    program = folder / Path(main).stem
    done = run(compiler, *flags, "-o", program, C / main, *SOURCES, "-lm")
    assert done.stderr == ""
    return program


@dataclass(frozen=True)
class Report:
    """What core_test prints."""

    sets: list[str]
    digest: str
    passed: int


def core_test(*command: object, more: Sequence[str] = (), **how: Any) -> Report:
    out = run(*command, VECTORS, *more, **how).stdout
    found = re.fullmatch(r"instruction sets: (.+)\ndigest: (\w{16})\n(\d+) passed, 0 failed\n", out)
    assert found is not None, out
    return Report(found[1].split(), found[2], int(found[3]))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """core_test, compiled strictly for this processor."""
    return build(tmp_path_factory.mktemp("core"), "cc", STRICT)


@pytest.fixture(scope="module")
def native(program: Path) -> Report:
    return core_test(program)


# In every run of the tests


def test_alone_and_strict(native: Report) -> None:
    assert native.sets[-1] == "scalar"
    assert "sse2" in native.sets or not X86
    assert native.passed > 20_000


@pytest.mark.slow
def test_the_compilers_defaults(native: Report, tmp_path: Path) -> None:
    assert core_test(build(tmp_path, "cc", DEFAULTS)) == native


def test_pictures_of_many_chunks(native: Report, tmp_path: Path) -> None:
    """The limit of 2^31 - 1 bytes for a chunk cannot be reached in a test, but lowered."""
    report = core_test(build(tmp_path, "cc", [*STRICT, "-DEDGEGAN_IDAT_LIMIT=1000"]))
    assert report.passed == native.passed
    assert report.digest != native.digest


def test_fast_math_is_refused(tmp_path: Path) -> None:
    need("cc")
    for name in ("noise.c", "interpolate.c", "kernels_scalar.c"):
        command = ["cc", "-O2", "-ffast-math", "-fsyntax-only", str(CORE / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "no -ffast-math" in done.stderr


PROGRAM = r"""
#include "edgegan.h"
#include <stdio.h>

int main(void)
{
    static uint64_t workspace[1 << 15];
    static uint8_t file[1 << 16];
    float z[6];
    uint8_t pixels[3];
    const edgegan_shape shape = {1, 3, 1, 1};
    const edgegan_strides from = {12, 4, 4, 4}, to = {3, 1, 3, 3};
    size_t written;
    if (edgegan_check() != EDGEGAN_OK || edgegan_normal(7, 0, 2, 3, EDGEGAN_STREAM_LATENT, 1e9f, z, 6) != EDGEGAN_OK
        || edgegan_to_uint8(shape, z, from, pixels, to, 1) != EDGEGAN_OK
        || edgegan_png(pixels, 3, 1, 1, 3, NULL, 0, workspace, sizeof workspace, file, sizeof file, &written))
        return 1;
    printf("%a %a %a %a %a %a\n%d %d %d\n", z[0], z[1], z[2], z[3], z[4], z[5], pixels[0], pixels[1], pixels[2]);
    return fwrite(file, 1, written, stderr) != written;
}
"""


def test_the_headers_command_and_a_program_that_only_includes_it(tmp_path: Path) -> None:
    header = (CORE / "edgegan.h").read_text(encoding="utf-8")
    command = re.search(r"^ \* +(cc .*edgegan/core/.*\.c)$", header, re.MULTILINE)
    assert command is not None
    need("cc")
    (tmp_path / "edgegan").symlink_to(ROOT / "edgegan")
    run("sh", "-c", command[1], cwd=tmp_path)
    objects = sorted(tmp_path.glob("*.o"))
    assert [path.stem for path in objects] == [path.stem for path in SOURCES]
    (tmp_path / "program.c").write_text(PROGRAM)
    warnings = STRICT[3:]
    run("cc", "-std=c11", *warnings, f"-I{CORE}", "program.c", *objects, "-lm", "-o", "program", cwd=tmp_path)
    done = subprocess.run([tmp_path / "program"], capture_output=True, check=True)
    drawn, pixels = done.stdout.decode().splitlines()
    want = noise.normal(7, 2, 3)
    assert [float.fromhex(z) for z in drawn.split()] == want.ravel().tolist()
    (tmp_path / "program.png").write_bytes(done.stderr)
    with Image.open(tmp_path / "program.png") as image:
        assert image.mode == "RGB"
        assert np.asarray(image).tolist() == [[[int(p) for p in pixels.split()]]]


def test_the_header_is_cpp_too() -> None:
    need("g++")
    for standard in ("c++11", "c++20"):
        run(
            "g++",
            f"-std={standard}",
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-x",
            "c++",
            CORE / "edgegan.h",
        )


def test_the_header_needs_no_other_header_first(tmp_path: Path) -> None:
    need("cc")
    (tmp_path / "only.c").write_text('#include "edgegan.h"\nedgegan_text text; edgegan_shape shape;\n')
    run("cc", *STRICT, f"-I{CORE}", "-fsyntax-only", tmp_path / "only.c")


def test_streams_for_test_suites_are_the_noise(tmp_path: Path) -> None:
    """dieharder must judge the words that users get."""
    program = build(tmp_path, "cc", STRICT, main="noise_stream.c")
    piece = 1 << 20
    images = subprocess.run([program, "images", "2"], capture_output=True, check=True).stdout
    assert images == noise.words(7, 1024, 512).tobytes()
    seeds = subprocess.run([program, "seeds", "1"], capture_output=True, check=True).stdout
    assert len(seeds) == piece
    got = np.frombuffer(seeds, np.uint32).reshape(-1, 4)
    for seed in (0, 1, 2, 511, len(got) - 1):
        assert got[seed].tolist() == noise.words(seed, 1, 4)[0].tolist()


# Sanitizers


@pytest.mark.slow
@pytest.mark.parametrize("level", ["-O1", "-O3"])
@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])
def test_address_and_undefined_behaviour_sanitizers(native: Report, tmp_path: Path, compiler: str, level: str) -> None:
    program = build(tmp_path, compiler, ["-std=c11", level, *SANITIZERS.split()])
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1"}
    assert core_test(program, env=environment) == native


@pytest.mark.slow
def test_memory_sanitizer(native: Report, tmp_path: Path) -> None:
    """No result depends on memory that is not initialised: edgegan_png's workspace, for one."""
    flags = [
        "-std=c11",
        "-O1",
        "-g",
        "-fsanitize=memory",
        "-fsanitize-memory-track-origins",
        "-fno-sanitize-recover=all",
    ]
    assert core_test(build(tmp_path, "clang-19", flags)) == native


# Other processors


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="not every gcc knows -march=native")
def test_everything_this_processor_has(native: Report, tmp_path: Path) -> None:
    """Where there are fused multiply-adds the compiler may use them in plain C, too; on x86-64 not by default."""
    assert core_test(build(tmp_path, "cc", ["-O3", "-march=native"])) == native


@pytest.mark.slow
@pytest.mark.parametrize("flags", [STRICT, DEFAULTS], ids=["strict", "defaults"])
@pytest.mark.parametrize(
    ("compiler", "emulator", "sets"),
    [
        ("aarch64-linux-gnu-gcc", "qemu-aarch64", ["neon", "scalar"]),
        ("arm-linux-gnueabihf-gcc", "qemu-arm", ["scalar"]),
        ("s390x-linux-gnu-gcc", "qemu-s390x", ["scalar"]),
    ],
    ids=["aarch64", "armhf", "s390x"],
)
def test_other_processors(
    native: Report, tmp_path: Path, compiler: str, emulator: str, sets: list[str], flags: list[str]
) -> None:
    """gcc for aarch64 and s390x fuses by default; armhf has 32-bit sizes, s390x the other order of bytes."""
    need(compiler, emulator)
    if "s390x" in compiler:  # by tradition gcc there computes float in double with -std=c11, which the core refuses
        flags = ["-std=gnu11" if flag == "-std=c11" else flag for flag in flags]
    program = build(tmp_path, compiler, [*flags, "-static"])
    report = core_test(emulator, program)
    assert report.sets == sets
    assert report.digest == native.digest


@pytest.mark.slow
def test_a_processor_with_arithmetic_on_16_bits(native: Report, tmp_path: Path) -> None:
    """gcc then says FLT_EVAL_METHOD is 16, which changes nothing for float."""
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    program = build(tmp_path, "aarch64-linux-gnu-gcc", ["-O3", "-march=armv8.2-a+fp16", "-static"])
    assert core_test("qemu-aarch64", "-cpu", "max", program).digest == native.digest


@pytest.mark.slow
@pytest.mark.skipif(not X86, reason="runs a program for x86-64")
@pytest.mark.parametrize(
    ("processor", "sets"), [("Nehalem", ["sse2", "scalar"]), ("Haswell", ["avx2", "sse2", "scalar"])]
)
def test_older_x86(native: Report, program: Path, processor: str, sets: list[str]) -> None:
    """The choice at run time, on processors without the instructions of this one."""
    need("qemu-x86_64")
    report = core_test("qemu-x86_64", "-cpu", processor, program)
    assert report.sets == sets
    assert report.digest == native.digest


@pytest.mark.slow
def test_all_words_with_every_instruction_set(native: Report, program: Path) -> None:
    report = core_test(program, more=["all"])
    assert report.passed == native.passed + len(native.sets) - 1
    assert report.digest == native.digest


# Random calls


def seed_corpus(folder: Path) -> None:
    """Each function with some random arguments, and with none."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for choice in range(18):
        for length in (0, 8, 40, 200):
            data = bytes([choice]) + rng.integers(0, 256, length, np.uint8).tobytes()
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


@pytest.mark.slow
def test_fuzzing_all_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need("clang-19", "pngcheck")
    flags = f"-std=c11 -O1 {SANITIZERS.replace('address', 'fuzzer,address')} -Wall -Wextra -Werror"
    program = build(tmp_path, "clang-19", flags.split(), main="fuzz_core.c")
    seed_corpus(tmp_path / "corpus")
    files = tmp_path / "files"
    files.mkdir()
    limits = [f"-max_total_time={FUZZ_SECONDS}", "-seed=1", "-max_len=400", "-len_control=0", "-rss_limit_mb=2048"]
    environment = {**os.environ, "EDGEGAN_FUZZ_PNG": str(files)}
    done = run(program, *limits, "-print_final_stats=1", "corpus", cwd=tmp_path, env=environment)
    executions = int(re.findall(r"number_of_executed_units: (\d+)", done.stderr)[0])
    pictures = sorted(files.glob("*.png"))
    with capsys.disabled():
        print(f"\nfuzz_core: {executions} executions in {FUZZ_SECONDS} s, {len(pictures)} PNG files kept")
    assert executions > 5000
    assert len(pictures) > 10

    run("pngcheck", "-q", *pictures)
    modes = set()
    for path in pictures:
        width, height, channels = map(int, path.stem.partition("-")[0].split("x"))
        with Image.open(path) as image:
            image.load()
            modes.add(image.mode)
            got = np.asarray(image)
        assert got.reshape(height, width, channels).tobytes() == path.with_suffix(".raw").read_bytes(), path.name
    assert modes <= {"L", "LA", "RGB", "RGBA"}


@pytest.mark.slow
@pytest.mark.skipif(_backend.NAME == "python", reason="watches the C core")
def test_valgrind_finds_nothing_in_the_python_module(tmp_path: Path) -> None:
    """Python and NumPy give valgrind much to say; what counts is where edgegan's module is among the callers."""
    need("valgrind")
    log = tmp_path / "valgrind.xml"
    command = ["valgrind", "--error-limit=no", "--num-callers=40", "--xml=yes", f"--xml-file={log}", sys.executable]
    environment = {**os.environ, "PYTHONMALLOC": "malloc"}
    done = run(*command, C / "memcheck.py", env=environment)
    assert done.stdout.startswith("done ")
    root = ElementTree.parse(log).getroot()
    assert root.findtext("./status[last()]/state") == "FINISHED"
    module = str(_backend.core.__file__)
    ours = [error for error in root.iter("error") if any(at.text == module for at in error.iter("obj"))]
    assert not ours, "\n\n".join(ElementTree.tostring(error, encoding="unicode") for error in ours[:3])
