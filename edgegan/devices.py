"""Where a model runs: onnxruntime's execution providers by short names, and the threads that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from edgegan.errors import DeviceError, MissingExtraError, one_line

AUTO = "auto"
CPU = "cpu"
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
# What auto tries, in order. The others are by choice only: TensorRT compiles for minutes at the first start, and on
# small generators the rest is no faster than the CPU.
AUTO_ORDER = ("cuda", "directml", "cpu")


def onnxruntime() -> ModuleType:
    """The module. Raises MissingExtraError without it, DeviceError if it is there but broken."""
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise DeviceError(f"onnxruntime is broken ({one_line(error)}): reinstall it") from error
        raise MissingExtraError.of("sampling", "onnxruntime", "cpu") from None
    except ImportError as error:
        raise DeviceError(f"onnxruntime is broken ({one_line(error)}): reinstall it") from error
    if not hasattr(ort, "InferenceSession"):  # what is left when one of two packages is removed
        raise DeviceError("onnxruntime is broken (its folder is there, its files are not): reinstall it")
    return ort


def available_providers() -> list[str]:
    """The short names of the providers that the installed onnxruntime has; whether they load is another question."""
    built = onnxruntime().get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in built]


def candidates(provider: str) -> list[str]:
    """The names to try for `provider`, in order.

    Raises DeviceError for a name that is not known, or that the installed onnxruntime does not have.
    """
    available = available_providers()
    if provider == AUTO:
        return [name for name in AUTO_ORDER if name in available]
    if provider not in PROVIDERS:
        raise DeviceError(f"the provider {provider!r} is not known; valid: {AUTO}, {', '.join(PROVIDERS)}")
    if provider not in available:
        has = f"the installed onnxruntime has {', '.join(available)}"
        raise DeviceError(f"the provider '{provider}' is not there: {has}; {remedy(provider)}")
    return [provider]


def remedy(provider: str) -> str:
    """What to do for a provider that is missing or does not load."""
    installed = installed_runtimes()
    if len(installed) > 1:
        return both_installed(installed)
    if provider in ("cuda", "tensorrt"):
        return "in an environment of its own, run  pip install 'edgegan[gpu]'  and see that the NVIDIA driver works"
    if provider == "directml":
        return "uninstall onnxruntime and run  pip install onnxruntime-directml"
    if provider == "openvino":
        return "uninstall onnxruntime and run  pip install onnxruntime-openvino"
    return f"choose another, or {AUTO}"


def both_installed(installed: list[str]) -> str:
    """What to say of several packages that bring the module `onnxruntime`."""
    names = " ".join(package.partition(" ")[0] for package in installed)
    return (
        f"{' and '.join(installed)} hide each other: run  pip uninstall {names}  and then install one of them "
        "('edgegan[cpu]' or 'edgegan[gpu]')"
    )


def installed_runtimes() -> list[str]:
    """The installed packages that bring a module `onnxruntime`: more than one overwrite each other's files."""
    from importlib import metadata  # here: its import takes as long as a tenth of a start

    found = []
    for name in ("", "-gpu", "-directml", "-openvino", "-rocm", "-training", "-silicon", "-qnn", "-cann"):
        try:
            version = metadata.version(f"onnxruntime{name}")
        except metadata.PackageNotFoundError:
            continue
        found.append(f"onnxruntime{name} {version}")
    return found


def default_threads() -> int:
    """As many threads as this process may run at once: its affinity, and the quota of its container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cpu_quota(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many processors' time this process's control groups allow it, or None without a limit (or off Linux)."""
    limits = list(_quotas(proc, cgroups))
    return min(limits, default=None)


def _quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":  # version 2: "max 100000" or "150000 100000"
            for group in _with_parents(cgroups, path):
                quota, _, period = _read(group / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for root in (cgroups / controllers, cgroups / "cpu"):
                for group in _with_parents(root, path):
                    yield from _ratio(_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us"))


def _with_parents(root: Path, path: str) -> list[Path]:
    """A group's folder and those above it: a limit holds for all below. In a container the path may not be visible."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _ratio(quota: str, period: str) -> Iterator[float]:
    try:
        allowed, of = int(quota), int(period)
    except ValueError:  # no such file, or "max"
        return
    if allowed > 0 and of > 0:  # version 1 says -1 for no limit
        yield allowed / of


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        import platform

        return platform.processor() or platform.machine()
