"""`edgegan bench`: how fast a model is on this device, and where the time goes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

import edgegan
from edgegan._cli import WholeNumber, debug_option
from edgegan.commands import device_options, model_argument, name_of
from edgegan.errors import ModelError, printable

if TYPE_CHECKING:
    from edgegan.model import Generator

BATCHES = (1, 2, 4, 8, 16, 32, 64)
COLD_STARTS = 3
# What a program does that wants one picture; it prints the most memory it ever had, in MB, where the system tells.
COLD_START = """
import sys
import edgegan
edgegan.load(sys.argv[1] or None, sys.argv[2], int(sys.argv[3])).sample(1)
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
except ImportError:
    peak = 0
print(peak)
"""


@click.command(short_help="Measure a model on this device.")
@model_argument
@click.option("--seconds", type=WholeNumber(1, 600), default=1, show_default=True, help="For each batch size.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for other programs.")
@device_options
@debug_option
def bench(model: str | None, seconds: int, as_json: bool, provider: str, threads: int | None) -> None:
    """Measure how fast MODEL draws on this device, how much memory it takes, and where the time goes.

    \b
    edgegan bench                           the built-in model
    edgegan bench faces.onnx --threads 1
    edgegan bench faces.onnx --provider cuda --seconds 5
    """
    from edgegan.devices import default_threads, onnxruntime, processor

    threads = threads or default_threads()
    generator = edgegan.load(model, provider, threads)
    result: dict[str, Any] = {
        "model": generator.source,
        "provider": generator.provider,
        "threads": threads,
        "onnxruntime": onnxruntime().__version__,
        "processor": processor(),
        **_cold_start(model, generator.provider, threads),
        "batches": [_measure(generator, batch, seconds) for batch in BATCHES],
        "bulk": _bulk(model, generator.provider, threads, seconds),
    }
    best = min(result["batches"], key=lambda measured: measured["ms_an_image"])
    result["best_batch"] = best["batch"]
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{name_of(model)} on {generator.provider}, {threads} thread{'s' if threads > 1 else ''}")
    click.echo(f"{result['processor']}, onnxruntime {result['onnxruntime']}\n")
    memory = f", {result['peak_mb']:.0f} MB at most" if result["peak_mb"] else ""
    click.echo(f"cold start   {result['cold_start_s']:.2f} s from nothing to the first picture{memory}\n")
    click.echo("         ms an image                              where the time goes")
    click.echo("batch    median    95 %    99 %   images a second  noise  model  pixels  PNG")
    for measured in result["batches"]:
        shares = measured["shares"]
        ms, p95, p99 = (measured[key] for key in ("ms_an_image", "p95_ms", "p99_ms"))
        mark = "*" if measured is best else " "
        click.echo(
            f"{measured['batch']:>4}{mark}  {ms:>8.3f} {p95:>7.3f} {p99:>7.3f}   {1000 / ms:>15,.0f}  "
            f"{shares['noise']:>5.1%}  {shares['model']:>5.1%}  {shares['pixels']:>6.1%}  {shares['encoding']:>5.1%}"
        )
    click.echo("\n* the best batch size, by the median")
    bulk = result["bulk"]
    if bulk is not None:
        how = f"{bulk['callers']} batches of {bulk['batch']} at once"
        click.echo(f"in bulk, {how}: {bulk['images_per_second']:,.0f} images a second, without PNG")


def _measure(generator: "Generator", batch: int, seconds: float) -> dict[str, Any]:
    """Times of batches drawn and encoded one after another, for some seconds but three times at least."""
    from edgegan.image import encode_png, to_uint8
    from edgegan.model import inputs_of

    stages: dict[str, list[float]] = {"noise": [], "model": [], "pixels": [], "encoding": []}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        stages[stage].append(time.perf_counter() - start)
        return result

    index = 0
    end = None
    while end is None or time.perf_counter() < end or index < 4 * batch:
        start = index
        feed = timed("noise", lambda start=start: inputs_of(generator.spec, 0, batch, start))  # type: ignore[misc]
        floats = timed("model", lambda feed=feed: generator.run(feed))  # type: ignore[misc]
        pixels = timed("pixels", lambda floats=floats: to_uint8(floats))  # type: ignore[misc]
        timed("encoding", lambda pixels=pixels: [encode_png(picture) for picture in pixels])  # type: ignore[misc]
        index += batch
        if end is None:  # the first batch warms up: memory is allocated, caches fill
            end = time.perf_counter() + seconds
            for times in stages.values():
                times.clear()
    totals = sorted(1000 / batch * sum(times) for times in zip(*stages.values(), strict=True))
    spent = {stage: sum(times) for stage, times in stages.items()}
    return {
        "batch": batch,
        "runs": len(totals),
        "ms_an_image": _percentile(totals, 50),
        "p95_ms": _percentile(totals, 95),
        "p99_ms": _percentile(totals, 99),
        "shares": {stage: time / sum(spent.values()) for stage, time in spent.items()},
    }


def _bulk(model: str | None, provider: str, threads: int, seconds: float) -> dict[str, Any] | None:
    """How fast `load(bulk=True)` draws for some seconds; None if that is no other way here."""
    from edgegan.model import MAX_COUNT
    from edgegan.session import BATCH

    generator = edgegan.load(model, provider, threads, bulk=True)
    if generator.callers == 1:
        return None
    batches = generator.stream(MAX_COUNT)
    for _ in range(2 * generator.callers):  # as many as were drawn ahead: these warm up
        next(batches)
    drawn, start = 0, time.perf_counter()
    while not drawn or time.perf_counter() < start + seconds:
        drawn += len(next(batches))
    rate = drawn / (time.perf_counter() - start)
    return {"callers": generator.callers, "batch": BATCH, "images_per_second": rate}


def _percentile(ascending: list[float], percent: int) -> float:
    return ascending[min(len(ascending) - 1, len(ascending) * percent // 100)]


def _cold_start(model: str | None, provider: str, threads: int) -> dict[str, float]:
    """Seconds of a new process from nothing to its first picture, the median of three, and its peak memory."""
    times, peaks = [], []
    for _ in range(COLD_STARTS):
        start = time.perf_counter()
        command = [sys.executable, "-P", "-c", COLD_START, model or "", provider, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - start)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ModelError(f"a new process could not draw with {name_of(model)}: {printable(lines[-1])}")
        peaks.append(float(done.stdout))
    return {"cold_start_s": sorted(times)[COLD_STARTS // 2], "peak_mb": max(peaks)}
