"""`edgegan doctor`: say what this installation is, and what to fix."""

import os
import platform
import sys

import click

import edgegan
from edgegan import devices
from edgegan._cli import debug_option
from edgegan.errors import DeviceError, EdgeGANError, MissingExtraError


@click.command(short_help="Say what this installation is, and what to fix.")
@debug_option
def doctor() -> None:
    """Say what this installation is made of, try what it needs, and say what to fix.

    Exit status 0 if there is nothing to fix, else 1.
    """
    import numpy as np
    import PIL

    to_fix: list[str] = []
    for name, value in (
        ("edgegan", edgegan.__version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("numpy", np.__version__),
        ("pillow", PIL.__version__),
        ("onnxruntime", _runtimes(to_fix)),
        ("core", _core()),
        ("threads", _threads()),
    ):
        _say(name, value)
    if not to_fix:
        _try_providers(to_fix)
    for line in to_fix:
        _say("to fix", line)
    sys.exit(1 if to_fix else 0)


def _say(name: str, value: str) -> None:
    click.echo(f"{name:<12} {value}")


def _core() -> str:
    from edgegan import _backend  # here: it may bring NumPy, which --help must not

    if _backend.NAME == "c":
        return f"C, {_backend.core.instruction_set()}"
    return "NumPy, with the same results as the C core but slower"


def _runtimes(to_fix: list[str]) -> str:
    try:
        version: str = devices.onnxruntime().__version__
    except (DeviceError, MissingExtraError) as error:
        to_fix.append(str(error))
        return "none"
    installed = devices.installed_runtimes()
    if len(installed) > 1:
        to_fix.append(devices.both_installed(installed))
        return f"{version}, of {len(installed)} installed: {', '.join(installed)}"
    return version


def _threads() -> str:
    quota = devices.cpu_quota()
    limit = "no limit by a container" if quota is None else f"a container's limit of {quota:g}"
    return f"{devices.default_threads()} of {os.cpu_count()} processors; {limit}"


def _try_providers(to_fix: list[str]) -> None:
    """Whether each provider that the installed onnxruntime has really draws the built-in model's golden samples."""
    for name in devices.available_providers():
        try:
            with edgegan.load(provider=name) as generator:
                difference, golden = generator.check_golden(), generator.spec.golden
            assert golden is not None
            works = difference <= golden.tolerance
            state = "works" if works else f"draws wrong pictures, off by {difference} of 255"
        except EdgeGANError as error:
            works, state = False, str(error)
        _say("provider", f"{name}: {state}")
        if not works and name == devices.CPU:
            to_fix.append("onnxruntime does not work on this processor: reinstall it")
        elif not works and name in devices.AUTO_ORDER:
            to_fix.append(f"{name}: {devices.remedy(name)}; or ask for --provider cpu")
