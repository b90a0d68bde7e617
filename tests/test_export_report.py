"""Measuring an export and reporting it: real models, files that are read back, and known answers."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image
from torch import nn

from edgegan import load
from edgegan.errors import ArgumentError, ModelError
from edgegan.export import measure
from edgegan.export.comparison import GAIN, comparison
from edgegan.export.describe import describe
from edgegan.export.lower import lower
from edgegan.export.page import picture_of, to_markdown, write
from edgegan.export.pipeline import How, variants_of
from edgegan.export.quality import SEED, Judge
from edgegan.export.report import Distance, Report, table, to_json
from edgegan.export.trace import to_model
from edgegan.gate import check
from edgegan.model import inputs_of
from edgegan.spec import ModelSpec

SPEC = ModelSpec(recipe="dcgan", image_size=(28, 28), channels=1, latent_dim=16, dataset="digits", kimg=1.5)
NAMES = ("float32 as exported", "float32 lowered", "int8")


def network(width: int) -> nn.Module:
    """z [n, 16] -> [n, 1, 28, 28], with statistics of its batch norms that change something."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 49 * width, bias=False),
        nn.BatchNorm1d(49 * width),
        nn.ReLU(),
        nn.Unflatten(1, (width, 7, 7)),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )
    net(torch.randn(64, 16))
    return net.eval().requires_grad_(False)


@cache
def exported(width: int) -> bytes:
    net = network(width)
    return describe(to_model(net, SPEC), SPEC, net)


def with_int8_weights(data: bytes) -> bytes:
    """The model with its large weights stored as int8 and made float where they are used."""
    model = onnx.load_from_string(data)
    for weight in [w for w in model.graph.initializer if math.prod(w.dims) > 1000]:
        values = numpy_helper.to_array(weight)
        scale = np.float32(np.abs(values).max() / 127)
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}_int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        inputs = [f"{name}_int8", f"{name}_scale"]
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name]))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def lowered() -> tuple[dict[str, bytes], Report]:
    """Three variants of one network, and their report as an export makes it."""
    data = exported(32)
    result = lower(onnx.load_from_string(data), inputs_of(SPEC, 0, 8), measure=False)
    datas = dict(zip(NAMES, (data, result.model.SerializeToString(), with_int8_weights(data)), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SECONDS", 0.05)
        variants = variants_of(datas, SPEC, Judge(data, SPEC), How(), threads=1)
    report = Report(
        model="my digits.onnx",
        spec=load(data).spec,
        parameters=sum(p.numel() for p in network(32).parameters()),
        variants=variants,
        chosen="int8",
        machine=measure.this_machine(1),
        checkpoint="best",
        parity={1: 1.5e-7, 17: 2.25e-7},
        tolerance=1e-4,
        rewrites=result.applied,
        notes=["the last layer stays in float: int8 | cost 3 dB there"],
    )
    return datas, report


def test_measured_figures_are_those_of_the_files(lowered: tuple[dict[str, bytes], Report]) -> None:
    datas, report = lowered
    first, second, int8 = report.variants
    assert [v.name for v in report.variants] == list(NAMES)
    for variant in report.variants:
        assert variant.file_bytes == len(datas[variant.name])
        assert variant.multiply_adds == check(datas[variant.name], "it").cost.multiply_adds
        assert variant.milliseconds.keys() == {1, 16}
        assert min(variant.milliseconds.values()) > 0
    assert int8.file_bytes < first.file_bytes / 3
    assert (first.psnr, first.ssim, first.difference, first.compared) == (None, None, None, 0)
    assert second.difference is not None
    assert second.difference < 1e-5
    # The likeness of int8 by its definition, from pictures that the runtime draws.
    a, b = (load(datas[name], "cpu").sample(128, SEED).astype(float) for name in (NAMES[0], NAMES[2]))
    assert int8.psnr == pytest.approx(10 * np.log10(255**2 / np.square(a - b).mean()), abs=0.1)
    assert int8.compared == 128
    assert int8.ssim is not None
    assert 0.9 < int8.ssim < 1
    assert int8.difference is not None
    assert int8.difference == pytest.approx(np.abs(a - b).max() / 127.5, abs=0.01)


def test_a_larger_network_takes_more_time_and_memory() -> None:
    small, large = exported(4), exported(256)
    times = measure.timings({"small": small, "large": large}, SPEC, 1)
    assert times["large"][1] / times["small"][1] > 1
    assert times["large"][16] / times["small"][16] > 1
    ballast = np.ones(40_000_000, np.float32)  # memory of this process is none of theirs
    little, much = measure.peak_memory(small, 1), measure.peak_memory(large, 1)
    assert little is not None
    assert much is not None
    assert little.peak_mb < ballast.nbytes / 1e6
    assert 0 < little.model_mb < much.model_mb < much.peak_mb
    assert much.model_mb > (len(large) - len(small)) / 1e6
    assert much.peak_mb > little.peak_mb


def test_what_takes_too_long_is_left_out_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MAX_SECONDS", 0.0)
    datas = {"a": exported(4), "b": exported(4)}
    times = measure.timings(datas, SPEC, 1)
    assert [list(times[name]) for name in datas] == [[1], [1]]


def test_what_cannot_be_measured_is_an_error_or_none() -> None:
    with pytest.raises(ArgumentError, match="no models"):
        measure.measure({}, SPEC)
    with pytest.raises(ModelError, match="int8"):
        measure.measure({"int8": b"no model"}, SPEC)
    assert measure.peak_memory(b"no model") is None


def test_json_has_the_numbers(lowered: tuple[dict[str, bytes], Report]) -> None:
    report = lowered[1]
    first, equal, int8 = report.variants
    equal = replace(equal, psnr=math.inf, milliseconds={1: 0.123456789})
    distance = Distance("lenet", "ab12", 5000, "digits")
    given = replace(report, variants=[replace(first, distance=12.25), equal, int8], distance=distance)
    found = json.loads(to_json(given), parse_constant=pytest.fail)
    assert (found["format"], found["model"], found["chosen"], found["checkpoint"]) == (
        *(1, "my digits.onnx", "int8"),
        "best",
    )
    assert found["spec"]["image_size"] == [28, 28]
    assert found["spec"]["golden"] is None
    assert found["parity"] == {"1": 1.5e-7, "17": 2.25e-7}
    assert found["distance"] == {"network": "lenet", "digest": "ab12", "samples": 5000, "dataset": "digits"}
    assert found["machine"]["threads"] == 1
    assert [v["file_bytes"] for v in found["variants"]] == [v.file_bytes for v in report.variants]
    assert found["variants"][0]["distance"] == 12.25
    assert found["variants"][0]["psnr"] is None
    assert found["variants"][1]["psnr"] == "inf"
    assert found["variants"][1]["milliseconds"] == {"1": 0.123457}
    assert found["variants"][2]["psnr"] == pytest.approx(int8.psnr, rel=1e-5)
    assert [r["name"] for r in found["rewrites"]] == [a.name for a in report.rewrites]
    assert to_json(given) == to_json(given)


def test_table_fits_a_terminal(lowered: tuple[dict[str, bytes], Report]) -> None:
    lines = table(lowered[1])
    assert [line[2 : len(name) + 2] for line, name in zip(lines[1:], NAMES, strict=False)] == list(NAMES)
    assert [line[0] for line in lines[1:4]] == [" ", " ", "*"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert "distance" not in lines[0]
    huge = measure.Variant(
        "float32 as exported", 2**31, 2**39, {1: 98765.4, 16: 98765.4}, 12345.6, 12345.6, 99.94, 0.99999, 1.0, 64, 4321
    )
    lines = table(replace(lowered[1], variants=[huge], chosen=huge.name))
    assert max(map(len, lines[:2])) <= 100
    assert "2.15 GB" in lines[1]
    assert "98,800" in lines[1]
    assert "distance" in lines[0]
    bare = measure.Variant("int8", 999, 1500, {})
    lines = table(replace(lowered[1], variants=[bare], chosen="int8"))
    assert lines[0].split() == ["size", "MACs"]
    assert lines[1].split() == ["*", "int8", "999", "B", "1.5", "k"]


def test_page_has_every_part_and_its_picture(lowered: tuple[dict[str, bytes], Report], tmp_path: Path) -> None:
    datas, report = lowered
    pictures = {"float32": load(datas[NAMES[0]]).sample(12), "int8": load(datas["int8"]).sample(12)}
    written = write(report, tmp_path / "the report.MD", pictures)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["the report.MD", "the report.png"]
    page = (tmp_path / "the report.MD").read_text(encoding="utf-8")
    (link,) = re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", page)
    assert tmp_path / unquote(link) == written
    rows = {row[0].strip("* "): row for row in ([c.strip() for c in line[1:-1].split("|")] for line in tabled(page))}
    assert len(rows["int8"]) == len(rows[NAMES[0]]) == len(rows[""])
    assert rows["int8"][rows[""].index("PSNR, dB")] == f"{report.variants[2].psnr:.1f}"
    assert rows["17"] == ["17", "2.2e-07"]
    assert report.rewrites
    assert {a.name for a in report.rewrites} <= rows.keys()
    assert r"int8 \| cost 3 dB" in page
    assert "edgegan sample 'my digits.onnx' -n 16" in page
    assert "1,500 were shown" in page
    for variant, row in ((v, rows[v.name]) for v in report.variants):
        assert f"{variant.file_bytes / 1000:.3g} kB" in row


def tabled(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("|")]


def test_page_of_a_file_that_is_as_it_was(lowered: tuple[dict[str, bytes], Report]) -> None:
    report = lowered[1]
    bare = replace(report, variants=report.variants[:1], chosen=NAMES[0], rewrites=[], notes=[], model="-a`b")
    page = to_markdown(bare, "x.png")
    assert "None was applied" in page
    assert "Precision" not in page
    assert "edgegan verify './-a`b'" in page


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((64, 48), 3), ((600, 1200), 3), ((1, 2000), 1)])
def test_picture_has_labelled_rows(size: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 255, (10, *size, channels), np.uint8)
    second = np.minimum(first, 249) + rng.integers(0, 6, first.shape, np.uint8)
    sheet = comparison({"float32": first, "int8": second}).astype(int)
    assert sheet.shape[2] == channels
    assert max(sheet.shape[:2]) < 2000
    blank = (sheet == 255).all(axis=(1, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[True], blank, [True]]).astype(int)))
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    tall = max(end - begin for begin, end in spans)
    rows = [sheet[begin:end] for begin, end in spans if end - begin == tall]
    if size[0] == 1:  # labels are taller than these pictures
        return
    top, low, apart = rows
    inside = ~(top == 255).all(axis=(0, 2))
    assert len(spans) == 6  # three labels, three rows
    assert inside.mean() > 0.8
    np.testing.assert_array_equal(apart[:, inside], np.minimum(np.abs(top - low) * GAIN, 255)[:, inside])
    if size == (28, 28):
        np.testing.assert_array_equal(top[::4, 2:114:4, 0], first[0, :, :, 0])
        np.testing.assert_array_equal(low[::4, 116:228:4, 0], second[1, :, :, 0])
        assert tall == 112


def test_picture_of_one_network_and_of_rgba() -> None:
    clear = np.zeros((2, 64, 64, 4), np.uint8)
    sheet = comparison({"float32": clear})
    assert sheet.shape[2] == 3
    assert (sheet[30:] == 255).all()  # transparent black on white
    assert (sheet[:20] == 0).any()  # the label
    with pytest.raises(ArgumentError, match="valid: one for all"):
        comparison({"a": clear, "b": clear[:1]})


@pytest.mark.parametrize("name", ["a.txt", "a", "missing/a.md", "folder.md"])
def test_bad_paths_are_refused_and_nothing_is_written(
    name: str, lowered: tuple[dict[str, bytes], Report], tmp_path: Path
) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(ArgumentError, match=re.escape(name)):
        picture_of(tmp_path / name)
    with pytest.raises(ArgumentError, match="cannot write"):
        write(lowered[1], tmp_path / name, {"float32": np.zeros((1, 28, 28, 1), np.uint8)})
    assert [p.name for p in tmp_path.iterdir()] == ["folder.md"]


def test_json_report_has_a_picture_too(lowered: tuple[dict[str, bytes], Report], tmp_path: Path) -> None:
    picture = write(lowered[1], tmp_path / "a.json", {"float32": np.zeros((1, 28, 28, 1), np.uint8)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["chosen"] == "int8"
    with Image.open(picture) as opened:
        assert opened.size[0] >= 112


def test_reporting_needs_neither_torch_nor_onnx() -> None:
    """A model file can be lowered, and that reported, without torch; and the likeness is measured without it."""
    code = (
        "import sys, edgegan.export.measure, edgegan.export.page, edgegan.trainer.metrics.similarity; "
        "print(sys.modules.keys() & {'torch', 'onnx'})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_a_report_names_one_of_its_variants(lowered: tuple[dict[str, bytes], Report]) -> None:
    with pytest.raises(ArgumentError, match=r"float16.*float32 as exported, float32 lowered, int8"):
        replace(lowered[1], chosen="float16")
