"""Where a run trains and how it computes: the device and precision by name, and torch's switches for speed."""

import sys

import torch

from edgegan.errors import ArgumentError


def pick_device(name: str, local_rank: int = 0) -> str:
    """The device called `name`; auto is cuda if there is a GPU, else cpu.

    On several processes of one machine "auto" and "cuda" mean the GPU of that number. Raises ArgumentError for a device
    that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise ArgumentError(f"device is {name!r}; valid: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cpu":
        return name
    if index and local_rank:
        raise ArgumentError(f"device is {name}, but each process takes a GPU of its own; pass --device cuda")
    name = f"cuda:{index or local_rank}"
    if int(index or local_rank) >= torch.cuda.device_count():
        raise ArgumentError(
            f"device {name} is not there: torch sees {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return name


def pick_precision(name: str, device: str) -> str:
    """The precision called `name`; auto is bf16 where `device` multiplies bfloat16 in hardware, else fp32."""
    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device != "cpu" else _cpu_has_bf16()
    return "bf16" if fast else "fp32"


def _cpu_has_bf16() -> bool:
    """Without these instructions bfloat16 is emulated, slower than float32."""
    supported = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in supported)


def tune(device: torch.device) -> None:
    """Process-wide switches that make a GPU fast: TensorFloat-32, and cuDNN's choice of algorithm by trial."""
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory that training has had: of the GPU there, else of the process; None where the system can't say."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
