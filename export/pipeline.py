"""The steps of an export: trace, lower, make smaller, prove, measure, write. `export_run`, `export_generator`, ...

`export_model` needs no torch: it makes another model file of one that is there.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from edgegan._files import atomic_write, check_output
from edgegan.devices import CPU
from edgegan.errors import ArgumentError, ExportError
from edgegan.export.describe import GOLDEN_SEED, describe, serialized
from edgegan.export.graph import Array
from edgegan.export.lower import Applied, Lowered, lower
from edgegan.export.measure import Variant, measure, this_machine
from edgegan.export.page import picture_of, write
from edgegan.export.quality import Judge, Limit, Quality
from edgegan.export.report import Distance, Report
from edgegan.export.verify import TOLERANCE, parity, size_parity
from edgegan.image import to_uint8
from edgegan.model import inputs_of, load
from edgegan.session import BATCH
from edgegan.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from edgegan.trainer.data import Dataset
    from edgegan.trainer.metrics.features import FeatureNetwork

PRECISIONS = ("fp32", "fp16", "int8")
LOWERINGS = ("auto", "fixed", "none")
AS_IT_WAS, LOWERED, HALF, INT8 = "float32 as exported", "float32 lowered", "float16", "int8"  # names of variants
SHOWN = 16  # pictures of a report at most
HALF_TOLERANCE = 0.05  # of pixels in [-1, 1], between fp16 and float32: six grey levels

Progress = Callable[[str], None]


@dataclass(frozen=True)
class How:
    """How to export, whatever it is. Raises ArgumentError for values that are not valid."""

    precision: str = "fp32"  # or fp16, int8
    lower: str = "auto"  # measure on this processor what is fastest; fixed: the same on every machine; none
    max_quality_loss: Limit = field(default_factory=Limit)
    report: Path | None = None  # .md or .json
    measure: bool = True  # time and memory of all variants, some seconds
    progress: Progress = lambda text: None  # is told what is being done

    def __post_init__(self) -> None:
        for name, value, valid in (("precision", self.precision, PRECISIONS), ("lower", self.lower, LOWERINGS)):
            if value not in valid:
                raise ArgumentError(f"{name} is {value!r}; valid: {', '.join(valid)}")


@dataclass(frozen=True)
class _Source:
    """What is exported: a float32 graph, and who says what it should draw."""

    model: onnx.ModelProto
    spec: ModelSpec
    parameters: int
    network: "nn.Module | None" = None  # None: the graph is all that there is, and its golden samples stay
    data: bytes = b""  # the model file, where that is the source
    checkpoint: str = ""


def export_run(
    folder: Path,
    output: Path,
    *,
    checkpoint: str = "newest",
    reverse: bool = False,
    licence: str = "",
    data: "Dataset | None" = None,
    features: "FeatureNetwork | None" = None,
    how: How | None = None,
) -> Report:
    """Write a checkpoint of the run in `folder` as the ONNX model `output`, whole or not at all.

    checkpoint: "newest", "best", or its number of images. reverse: the network for the way back, of a recipe that
    learns to translate both ways. data and features: real pictures and a network, to measure the distance of the drawn
    pictures to real ones before and after fp16 or int8; data is the run's own by default.

    Unless `lower` is "none" or "fixed", what is chosen depends on measured times: two exports of one run may differ.

    Raises RunError for a folder that is no run or has no such checkpoint, ArgumentError for `reverse` where the recipe
    learns one way, ExportError if it cannot be traced, does not
    match in onnxruntime, or loses more quality than allowed.
    """
    from edgegan.trainer.run import Run

    how = how or How()
    _check(output, how)
    run = Run.open(folder)
    if how.report is not None and how.report.resolve().parent == run.folder.resolve():
        raise ArgumentError(
            f"{how.report} would be among the run's own files, and may replace one: choose another folder"
        )
    export_module = run.recipe.reverse_module if reverse else run.recipe.export_module
    if export_module is None:
        raise ArgumentError(f"the recipe '{run.recipe.name}' learns one direction and has no reverse: leave it out")
    state = run.load_checkpoint(checkpoint)
    nets = run.build()
    run.load_nets(nets, state)
    spec = replace(
        run.recipe.spec(run.config, run.settings.data.shape),
        dataset=run.settings.data.name,
        dataset_digest=run.settings.data.digest,
        kimg=state["nimg"] / 1000,
        scores={} if reverse else scores_of(state),  # which are of the way there
        licence=licence,
    )
    if features is not None and data is None:
        data = run.open_dataset()
    _check_distance(spec, data, features)
    how.progress("tracing")
    source = _traced(export_module(nets), spec)
    return _export(replace(source, checkpoint=checkpoint), output, how, data, features)


def scores_of(state: dict[str, Any]) -> dict[str, float | str]:
    """What a training has measured of this very checkpoint, for `ModelSpec.scores`; empty if it has not.

    They are of the averaged generator in float32, and so they are left out of fp16 and int8 models: see `_export`.
    """
    nimg, scores = state.get("scored") or (None, {})
    unchanged = nimg == state["nimg"] and state["done"] == 0  # 0: no phase has moved the nets since
    return dict(scores) if unchanged else {}


def export_generator(
    module: "nn.Module",
    spec: ModelSpec,
    output: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    lower: str = "auto",
    licence: str = "",
    data: "Dataset | None" = None,
    features: "FeatureNetwork | str | None" = None,
    max_quality_loss: str = "",
    report: str | os.PathLike[str] | None = None,
    measure: bool = True,
) -> Report:
    """Write any torch module that draws pictures, or translates them, as the ONNX model `output`, whole or not at all.

    module: called with tensors in the order of `spec.inputs()`, returns float32 [N, C, H, W] in [-1, 1]; it is left as
    it is. If spec.task is "translate", it is called with sources [N, C, h, w] of any size in multiples of
    spec.size_multiple, and makes them spec.scale times as large. precision: fp32, fp16 or int8. lower: auto, fixed or
    none, see `edgegan-export --help`, like the rest. data and features: a set of real pictures
    (`edgegan.trainer.data.open_dataset`) and a network ("lenet", a file, or one of
    `edgegan.trainer.metrics.features.open_features`), both or none, to judge fp16 and int8 by the distance to real
    pictures; not of what translates. max_quality_loss: "5%" of that distance, or "30dB" of PSNR. report: a .md or .json
    file to write. measure: also the time and memory of each form, for the report that is returned; it takes some
    seconds.

    Raises ExportError for a module that cannot be a model file, with its line, or that loses more quality than allowed;
    ArgumentError for values that are not valid.
    """
    if isinstance(features, str):
        from edgegan.trainer.metrics.features import open_features

        features = open_features(features)
    limit = Limit.parse(max_quality_loss) if max_quality_loss else Limit()
    how = How(precision, lower, limit, None if report is None else Path(report), measure)
    output = Path(output)
    _check(output, how)
    _check_distance(spec, data, features)
    return _export(_traced(module, replace(spec, licence=licence or spec.licence)), output, how, data, features)


def export_model(
    file: Path,
    output: Path,
    *,
    data: "Dataset | None" = None,
    features: "FeatureNetwork | None" = None,
    how: How | None = None,
) -> Report:
    """Make another form of the float32 model `file` of edgegan, for this processor or in another precision.

    Its description stays, and in float32 its golden samples too. Raises ModelError for a file that is no such model,
    ExportError if the new one does not draw the same or loses more quality than allowed.
    """
    how = how or How()
    _check(output, how)
    spec, content = load(file, provider=CPU).spec, file.read_bytes()
    _check_distance(spec, data, features)
    if output.resolve() == file.resolve():
        raise ArgumentError(f"{file} would be replaced by what is made of it: give another --output")
    if spec.precision != "fp32":
        raise ExportError(f"{file} is in {spec.precision} already; give the float32 model that it was made of")
    model = onnx.load_from_string(content)
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == 1)
    return _export(_Source(model, spec, parameters, data=content), output, how, data, features)


def _check(output: Path, how: How) -> None:
    """Raise ArgumentError before the work, for what could not be written after it."""
    if output.suffix.lower() != ".onnx":
        raise ArgumentError(f"cannot write {output}: the file's name must end in .onnx")
    check_output(output)
    if how.report is not None:
        picture_of(how.report)


def _check_distance(spec: ModelSpec, data: "Dataset | None", features: "FeatureNetwork | None") -> None:
    """Raise ArgumentError unless a distance can be measured, or none is asked for."""
    if (data is None) != (features is None):
        raise ArgumentError("a distance to real pictures takes both: data and features")
    if features is not None and spec.task == "translate":
        raise ArgumentError(
            "only a generator has a distance to real pictures; this model translates: leave features out"
        )


def _traced(module: "nn.Module", spec: ModelSpec) -> _Source:
    from edgegan.export.bake import baked
    from edgegan.export.trace import to_model

    network = baked(module)
    model = to_model(network, spec)
    return _Source(model, spec, sum(p.numel() for p in network.parameters()), network)


def _export(
    source: _Source, output: Path, how: How, data: "Dataset | None", features: "FeatureNetwork | None"
) -> Report:
    """Every step behind the trace."""
    spec, feed = source.spec, _usual(source.spec)
    if source.network is None:
        first, expected = source.data, load(source.data, provider=CPU).run
    else:
        from edgegan.export.trace import draw

        first, expected = describe(source.model, spec, source.network), partial(draw, source.network, spec)
    datas, differences, sizes = {AS_IT_WAS: first}, parity(first, expected), size_parity(first, expected)
    tolerance: float | None = TOLERANCE
    judge, rewrites, notes = None, list[Applied](), list[str]()
    judged: dict[str, Quality] = {}
    if how.measure or how.precision != "fp32":
        how.progress("drawing with float32")
        judge = Judge(first, spec, how.max_quality_loss, data, features)
    if how.lower != "none" and (how.measure or how.precision == "fp32"):  # else it would only be a row of the table
        how.progress("lowering: measuring what is fastest here" if how.lower == "auto" else "lowering")
        lowered = lower(source.model, feed, measure=how.lower == "auto")
        if lowered.applied:
            datas[LOWERED], rewrites = _same(lowered.model, source), lowered.applied
            differences, sizes = parity(datas[LOWERED], expected), size_parity(datas[LOWERED], expected)
    if how.precision != "fp32":
        assert judge is not None
        made = _smaller(source, how, judge)
        rewrites, notes, judged = made.rewrites, made.notes, {made.name: made.quality}
        # Scores that were written into the model are float32's.
        datas[made.name] = describe(made.model, replace(spec, precision=how.precision, scores={}))
        tolerance = HALF_TOLERANCE if how.precision == "fp16" else None  # of int8 the judge decides alone
        differences = parity(datas[made.name], expected, tolerance)
        sizes = size_parity(datas[made.name], expected, tolerance)
    chosen = list(datas)[-1]
    report = Report(
        model=output.name,
        spec=load(datas[chosen], provider=CPU).spec,
        parameters=source.parameters,
        variants=variants_of(datas, spec, judge, how, judged),
        chosen=chosen,
        machine=this_machine(),
        checkpoint=source.checkpoint,
        parity=differences,
        sizes=sizes,
        tolerance=tolerance,
        rewrites=rewrites,
        notes=notes,
        distance=_distance(judge, data, features),
    )
    with atomic_write(output, durable=True) as file:
        file.write(datas[chosen])
        if how.report is not None:  # before the model gets its name: if one fails, nothing is there
            _write_report(report, how.report, first, datas[chosen])
    return report


def _usual(spec: ModelSpec) -> dict[str, Array]:
    """The batch for which to be fast: of pictures to be translated there is mostly one."""
    return inputs_of(spec, GOLDEN_SEED, BATCH if spec.task == "generate" else 1)


def _write_report(report: Report, path: Path, first: bytes, chosen: bytes) -> None:
    pictures = {AS_IT_WAS: load(first, provider=CPU).test_pictures(SHOWN, GOLDEN_SEED)}
    if report.chosen != AS_IT_WAS:
        pictures[report.chosen] = load(chosen, provider=CPU).test_pictures(SHOWN, GOLDEN_SEED)
    translates = report.spec.task == "translate"
    sources = to_uint8(inputs_of(report.spec, GOLDEN_SEED, SHOWN)["source"]) if translates else None
    write(report, path, pictures, sources)


def _same(model: onnx.ModelProto, source: _Source) -> bytes:
    """A float32 model that draws the source's pictures, described as the source is."""
    return serialized(model) if source.network is None else describe(model, source.spec, source.network)


@dataclass(frozen=True)
class _Smaller:
    """A model of fewer bits."""

    name: str  # of the variant
    model: onnx.ModelProto
    rewrites: list[Applied]  # of the float32 model that it was made of
    quality: Quality
    notes: list[str]


def _smaller(source: _Source, how: How, judge: Judge) -> _Smaller:
    """The model in fp16 or int8. Raises ExportError if that loses more than allowed."""
    feed = _usual(source.spec)
    int8 = how.precision == "int8"
    lowered = Lowered(source.model, [])
    if int8:
        from edgegan.export.quantize import fast_int8, quantize

        if how.lower != "none":
            how.progress("lowering: measuring what is fastest in int8")
            measured = how.lower == "auto"
            lowered = lower(source.model, feed, measure=measured, prepare=fast_int8)
        quantized = quantize(lowered.model, source.spec, judge, how.progress)
        return _Smaller(INT8, quantized.model, lowered.applied, quantized.quality, quantized.lines())
    from edgegan.export.half import to_half

    how.progress("converting to float16")
    if how.lower != "none":  # what is fast on a CPU in float32 is not so on a GPU: only what leaves less work
        lowered = lower(source.model, feed, measure=False, choices=())
    half = to_half(lowered.model)
    quality = judge.judge(serialized(half))
    if not judge.passes(quality):
        raise ExportError(f"float16 loses too much quality: {judge.verdict(quality)}; nothing was written")
    notes = [f"float16: {quality.shown()}", "  for storage and GPUs: a CPU computes it in float32, no faster"]
    return _Smaller(HALF, half, lowered.applied, quality, notes)


def variants_of(
    datas: dict[str, bytes],
    spec: ModelSpec,
    judge: Judge | None,
    how: How,
    judged: dict[str, Quality] | None = None,
    threads: int | None = None,
) -> list[Variant]:
    """What each form takes, and how near its pictures are to the first one's. judged: what of that is known already."""
    if how.measure:
        how.progress("measuring")
    made = []
    for variant in measure(datas, spec, threads, timed=how.measure):
        if judge is None:
            made.append(variant)
        elif variant.name == AS_IT_WAS:
            made.append(replace(variant, distance=judge.before))
        else:
            found = (judged or {}).get(variant.name) or judge.judge(datas[variant.name])
            made.append(
                replace(
                    variant,
                    psnr=found.psnr,
                    ssim=found.ssim,
                    difference=found.difference,
                    compared=judge.compared,
                    distance=found.distance,
                )
            )
    return made


def _distance(judge: Judge | None, data: "Dataset | None", features: "FeatureNetwork | None") -> Distance | None:
    if judge is None or data is None or features is None:
        return None
    return Distance(features.name, features.digest, judge.count, data.name)
