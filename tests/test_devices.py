"""Providers and threads: what is chosen, what is said, and the CUDA path on a stand-in for onnxruntime."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgegan import ArgumentError, DeviceError, ModelError, devices, load
from edgegan.devices import PROVIDERS, cpu_quota
from support import BIN

MakeTiny = Callable[..., Any]


PERIOD = {"cpu_cfs_period_us": "100000"}


def group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.mark.parametrize(
    ("membership", "groups", "quota"),
    [
        ("0::/\n", {"": {"cpu_max": "150000 100000\n"}}, 1.5),
        ("0::/\n", {"": {"cpu_max": "max 100000\n"}}, None),
        ("0::/a/b\n", {"": {}, "a": {"cpu_max": "50000 100000"}, "a/b": {"cpu_max": "400000 100000"}}, 0.5),
        ("0::/not/visible\n", {"": {"cpu_max": "200000 100000"}}, 2.0),
        ("4:memory:/x\n2:cpu,cpuacct:/y\n", {"cpu,cpuacct/y": {"cpu_cfs_quota_us": "300000", **PERIOD}}, 3),
        ("2:cpu:/\n", {"cpu": {"cpu_cfs_quota_us": "-1", **PERIOD}}, None),
        ("", {}, None),
        ("nonsense\n::\n0::\n", {"": {"cpu_max": "x y z"}}, None),
        ("0::/../..\n", {"": {"cpu_max": "100000 0"}}, None),
    ],
)
def test_quota_of_the_container(
    tmp_path: Path, membership: str, groups: dict[str, dict[str, str]], quota: float | None
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
    for path, files in groups.items():
        group(tmp_path / "cgroup", path, **files)
    assert cpu_quota(tmp_path / "proc", tmp_path / "cgroup") == quota


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (1.5, 2), (0.2, 1), (100, 8), (8, 8)])
def test_threads_default_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(devices, "cpu_quota", lambda: quota)
    assert devices.default_threads() == threads


def test_the_affinity_counts(make_tiny: MakeTiny) -> None:
    code = "from edgegan.devices import default_threads; print(default_threads())"
    processor = str(min(os.sched_getaffinity(0)))
    done = subprocess.run(["taskset", "-c", processor, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_cpu_and_auto_run_here(make_tiny: MakeTiny) -> None:
    tiny = make_tiny()
    a, b = load(tiny.path, "cpu", threads=1), load(tiny.path)
    assert a.provider == b.provider == "cpu"  # the tests install the CPU build of onnxruntime
    assert "on cpu" in repr(a)
    assert np.array_equal(a.sample(3), b.sample(3))


def test_an_explicit_provider_that_is_not_there_is_an_error(make_tiny: MakeTiny) -> None:
    path = make_tiny().path
    with pytest.raises(DeviceError, match=r"'cuda' is not there: the installed onnxruntime has cpu; .*edgegan\[gpu\]"):
        load(path, "cuda")
    with pytest.raises(DeviceError, match=r"'openvino' is not there.*pip install onnxruntime-openvino"):
        load(path, provider="openvino")
    with pytest.raises(DeviceError, match="'abacus' is not known; valid: auto, cpu, cuda"):
        load(path, provider="abacus")


# A stand-in for an onnxruntime with GPU providers


class Stub:
    """What edgegan uses of onnxruntime; each provider works, fails, or falls back to the CPU as onnxruntime does."""

    __version__ = "0"

    def __init__(self, **behaviour: str) -> None:
        import onnxruntime

        self.real, self.behaviour, self.made = onnxruntime, behaviour, []
        self.SessionOptions = onnxruntime.SessionOptions
        self.bound: list[str] = []
        self.OrtValue = SimpleNamespace(ortvalue_from_numpy=lambda array, device, index: (array, device, index))

    def get_available_providers(self) -> list[str]:
        return ["AzureExecutionProvider", *(PROVIDERS[name] for name in self.behaviour), PROVIDERS["cpu"]]

    def InferenceSession(self, data: bytes, options: Any, providers: list[Any]) -> Any:  # noqa: N802
        full = providers[0][0]
        name = next(name for name, known in PROVIDERS.items() if known == full)
        self.made.append((name, providers))
        how = self.behaviour.get(name, "works")
        if how == "fails":
            raise RuntimeError("CUDA failure 100: no CUDA-capable device\nis detected ; GPU=0")
        session = self.real.InferenceSession(data, options, providers=[PROVIDERS["cpu"]])
        return Session(session, full if how == "works" else PROVIDERS["cpu"], self)


class Session:
    def __init__(self, session: Any, provider: str, stub: Stub) -> None:
        self.session, self.provider, self.stub = session, provider, stub

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        return [self.provider, PROVIDERS["cpu"]]

    def run(self, names: list[str], feed: dict[str, Any]) -> Any:
        assert self.provider == PROVIDERS["cpu"], "on a GPU inputs and outputs are bound"
        return self.session.run(names, feed)

    def io_binding(self) -> Any:
        binding = SimpleNamespace(feed={}, outputs=[])

        def bind_input(name: str, value: Any) -> None:
            array, device, index = value
            assert (device, index) == ("cuda", 0)
            binding.feed[name] = array

        binding.bind_ortvalue_input = bind_input
        binding.bind_output = lambda name, device, index: binding.outputs.append((name, device, index))
        binding.get_outputs = lambda: [SimpleNamespace(numpy=lambda: binding.result)]
        return binding

    def run_with_iobinding(self, binding: Any) -> None:
        assert binding.outputs == [("image", "cuda", 0)]
        self.stub.bound.append("image")
        (binding.result,) = self.session.run(["image"], binding.feed)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stub]:
    def install(**behaviour: str) -> Stub:
        made = Stub(**behaviour)
        monkeypatch.setitem(sys.modules, "onnxruntime", made)  # type: ignore[arg-type]
        return made

    return install


def test_auto_takes_a_gpu_and_binds_its_memory(make_tiny: MakeTiny, stub: Callable[..., Stub]) -> None:
    tiny = make_tiny(classes=("a", "b"))
    expected = load(tiny.path, "cpu").sample(5, seed=3)
    ort = stub(tensorrt="works", cuda="works")
    generator = load(tiny.path, threads=8, bulk=True)
    assert (generator.provider, generator.callers) == ("cuda", 1)
    assert np.array_equal(generator.sample(5, seed=3), expected)
    assert ort.bound == ["image"]
    ((name, providers),) = ort.made
    assert name == "cuda"
    assert providers[0][1]["use_tf32"] == "0"
    assert providers[1] == PROVIDERS["cpu"]


@pytest.mark.parametrize("how", ["fails", "falls back"])
def test_a_gpu_that_does_not_load(make_tiny: MakeTiny, stub: Callable[..., Stub], how: str) -> None:
    path = make_tiny().path
    ort = stub(cuda=how)
    generator = load(path, threads=8, bulk=True)  # auto
    assert (generator.provider, generator.callers) == ("cpu", 8)
    assert [name for name, _ in ort.made] == ["cuda", "cpu"]
    reason = (
        "CUDA failure 100: no CUDA-capable device is detected" if how == "fails" else "could not load its libraries"
    )
    with pytest.raises(DeviceError, match=rf"'cuda' does not run .*tiny.onnx: .*{reason}.*NVIDIA driver") as caught:
        load(path, "cuda")
    assert "\n" not in str(caught.value)


def test_a_broken_model_is_not_blamed_on_the_processor(stub: Callable[..., Stub]) -> None:
    stub(cuda="fails")
    with pytest.raises(ModelError):
        load(b"\x08\x0anonsense")


def test_two_onnxruntimes_are_named(monkeypatch: pytest.MonkeyPatch, make_tiny: MakeTiny) -> None:
    versions = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    assert devices.installed_runtimes() == ["onnxruntime 1.32.0", "onnxruntime-gpu 1.32.0"]
    with pytest.raises(DeviceError, match="hide each other: run  pip uninstall onnxruntime onnxruntime-gpu"):
        load(make_tiny().path, "cuda")


@pytest.mark.parametrize("rest", ["raise ImportError('libx.so: cannot open shared object file')", ""])
def test_a_broken_onnxruntime_is_said_to_be_broken(tmp_path: Path, rest: str) -> None:
    """Also in doctor, which is there to say so."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(rest)
    for command in (["doctor"], ["sample", "-n", "1", "-o", str(tmp_path / "x.png")]):
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run([BIN / "edgegan", *command], env=env, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "onnxruntime is broken (" in done.stdout + done.stderr
        assert "reinstall it" in done.stdout + done.stderr


# Threads, forks, closing


def test_eight_threads_draw_what_one_does(make_tiny: MakeTiny) -> None:
    generator = load(make_tiny(classes=("a", "b", "c"), channels=3).path)
    whole = generator.sample(8 * 20, seed=5)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: generator.sample(20, seed=5, start=20 * i, batch=4), range(8)))
    assert np.abs(np.concatenate(parts).astype(int) - whole).max() <= 1


@pytest.mark.parametrize(("threads", "bulk"), [(1, False), (3, True)])
def test_a_forked_child_is_told_to_load_its_own(make_tiny: MakeTiny, threads: int, bulk: bool) -> None:
    path = make_tiny().path
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
from edgegan import load, ModelError
g = load({str(path)!r}, threads={threads}, bulk={bulk})
g.sample(100)
if os.fork() == 0:
    try:
        g.sample(100)
    except ModelError as error:
        print(error, flush=True)
    print(load({str(path)!r}, threads=1).sample(2).shape, flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "loaded before this process was forked; load it again in the child\n(2, 6, 5, 1)\n" in done.stdout


def test_a_model_is_closed_at_the_end_of_its_block(make_tiny: MakeTiny) -> None:
    with load(make_tiny().path) as generator:
        assert len(generator.sample(2)) == 2
    for call in (lambda: generator.sample(1), lambda: next(generator.walk([1, 2], 3))):
        with pytest.raises(ModelError, match="was closed; load it again"):
            call()


# Walks


@pytest.mark.parametrize(("loop", "count"), [(True, 3 * 20), (False, 2 * 20 + 1)])
def test_a_walk_passes_its_seeds(make_tiny: MakeTiny, loop: bool, count: int) -> None:
    tiny = make_tiny(classes=("a", "b", "c"), noise_inputs=((1, 6, 5),))
    generator = load(tiny.path)
    frames = np.array(list(generator.walk([5, 9, 7], 20, loop, label="b", batch=8)))
    assert frames.shape == (count, 6, 5, 1)
    stops = {0: 5, 20: 9, 40: 7}
    for i, seed in stops.items():
        z = generator.latents(1, seed)
        assert np.abs(frames[i].astype(int) - generator.decode(z, "b", seed=5)[0]).max() <= 1
    steps = np.abs(np.diff(frames.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert 0 < steps.max() < 60  # no jump: also the layers' noise stands still
    around = np.abs(frames[0].astype(int) - frames[-1]).max()
    assert (around < 60) == loop


def test_a_walk_draws_its_label_from_the_first_seed(make_tiny: MakeTiny) -> None:
    generator = load(make_tiny(classes=("a", "b", "c")).path)
    first = next(generator.walk([4, 1], 5))
    assert np.abs(first.astype(int) - generator.sample(1, seed=4)[0]).max() <= 1


@pytest.mark.parametrize(
    ("seeds", "frames", "message"),
    [([1], 5, "two or more"), ([], 5, "two or more"), ([1, 2], 0, "frames is 0"), ([1, -1], 5, "seed is -1")],
)
def test_walks_that_are_refused(make_tiny: MakeTiny, seeds: list[int], frames: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load(make_tiny().path).walk(seeds, frames)
