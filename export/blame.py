"""Which line of a torch module is to blame: torch's exporter knows it, and says it in many ways or not at all."""

import inspect
import io
import itertools
import linecache
import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx

from edgegan.errors import one_line, printable

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = tuple(os.path.dirname(inspect.getfile(package)) + os.sep for package in (torch, sympy))
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_GUARDS = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in [^\n]*(?:\n\s+([^\n]+))?')


def where(stack: str, layers: list[str]) -> str:
    """`FILE:LINE (CODE): ` of the innermost frame of a formatted stack that is the module's, else `layer NAME: `."""
    for file, line, code in reversed(_FRAME.findall(stack)):
        if _is_of_module(file):
            return _place(file, line, code)
    name = next((name for name in reversed(layers) if name), "")
    return f"layer {printable(name)}: " if name else ""


def _place(file: str, line: int | str | None, code: str | None) -> str:
    try:
        relative = os.path.relpath(file)
        file = file if relative.startswith("..") else relative
    except ValueError:  # another drive
        pass
    return printable(f"{file}:{line}" + (f" ({code.strip()[:120]})" if code else "")) + ": "


def _is_of_module(file: str) -> bool:
    standard = file.startswith(_STANDARD) and "site-packages" not in file
    return not (standard or file.startswith((*_LIBRARIES, _HERE, "torch" + os.sep, "<string>", "<eval_with_key>")))


def line_of(error: BaseException) -> str:
    """Where the module's forward raised; its frames are the ones within the block that caught the error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_of_module(frame.filename)]
    return _place(frames[-1].filename, frames[-1].lineno, frames[-1].line) if frames else ""


def shown(error: BaseException) -> str:
    """The first line of an error's text."""
    text = str(error).strip().partition("\n")[0]
    return one_line(RuntimeError(text)) if text else type(error).__name__


def node_of(error: BaseException) -> fx.Node | None:
    """The node that torch's exporter was at: its exceptions do not hold it, but the frames that they passed do."""
    found = None
    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            node = frame.f_locals.get("node")
            found = node if isinstance(node, fx.Node) else found
        cause = cause.__cause__
    return found


@dataclass(frozen=True)
class Guard:
    """A condition on a free size that torch assumed while it traced, and where."""

    text: str
    place: str

    def holds(self, numbers: Sequence[int]) -> bool:
        """Whether it is true where its free sizes are any of these numbers, equal or not; also if that is not known."""
        try:
            condition = sympy.sympify(self.text)
            symbols = sorted(condition.free_symbols, key=str)
            tried = itertools.product(numbers, repeat=len(symbols))
            return all(condition.subs(dict(zip(symbols, sizes, strict=True))) != False for sizes in tried)  # noqa: E712
        except Exception:  # a text that sympy does not read
            return True


class _Recorder(logging.Handler):
    """Takes the place of torch's own handlers, which print, and keeps the guards that it logs."""

    def __init__(self) -> None:
        super().__init__()
        self.guards: list[Guard] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "[guard added]" not in str(record.msg) or not isinstance(record.args, tuple) or len(record.args) < 2:
            return
        here = inspect.currentframe()
        frame = here.f_back if here else None
        while frame is not None and not (file := frame.f_code.co_filename).startswith(_HERE):
            if _is_of_module(file):
                line = linecache.getline(file, frame.f_lineno)
                self.guards.append(Guard(str(record.args[1]), _place(file, frame.f_lineno, line)))
                break
            frame = frame.f_back


@contextmanager
def whole_stacks() -> Iterator[None]:
    """While the block runs, a node's stack holds all frames of the module; torch keeps only those called `forward`."""
    name, tracer = "_filter_traceback_frames", fx.proxy.TracerBase
    own = getattr(tracer, name, None)
    if own is None:  # another torch: the line in forward has to do
        yield
        return

    def of_module(_: object, frames: traceback.StackSummary) -> traceback.StackSummary:
        ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(_HERE)]
        kept = frames[ours[-1] + 1 if ours else 0 :]
        return traceback.StackSummary.from_list([frame for frame in kept if _is_of_module(frame.filename)])

    setattr(tracer, name, of_module)
    try:
        yield
    finally:
        setattr(tracer, name, own)


def frozen(guards: list[Guard], numbers: Sequence[int]) -> str:
    """Where a size was frozen that can be any of these numbers, "" if torch did not say."""
    return next((guard.place for guard in guards if not guard.holds(numbers)), guards[-1].place if guards else "")


@contextmanager
def quiet() -> Iterator[list[Guard]]:
    """While the block runs, torch prints and logs nothing, but the guards that it adds are listed."""
    recorder = _Recorder()
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "torch"]
    loggers = [logging.getLogger(name) for name in names]
    handlers = [(logger, logger.handlers) for logger in loggers if logger.handlers]
    level = _GUARDS.level
    try:
        for logger, _ in handlers:
            logger.handlers = [recorder]
        _GUARDS.setLevel(logging.INFO)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield recorder.guards
    finally:
        _GUARDS.setLevel(level)
        for logger, own in handlers:
            logger.handlers = own
