"""The picture of a score: drawn pictures beside their nearest real ones, bars of shares, precision over recall."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgegan import image
from edgegan.trainer.data import Dataset, sample_order
from edgegan.trainer.metrics.manifold import nearest
from edgegan.trainer.metrics.prd import BETA, CLUSTERS, Curve, precision_recall_curve
from edgegan.trainer.scoring.measure import real_against_real
from edgegan.trainer.scoring.metrics import Comparison
from edgegan.trainer.scoring.score import Report

if TYPE_CHECKING:
    from edgegan.model import Generator

U8 = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMNS, ROWS = 6, 2  # pairs in each of the two parts
SIDE = 96  # pixels of a picture's longer side
GAP, LINE, MARGIN = 12, 18, 24  # between pairs, of text, around all
BAR, CURVE, CHART = 150, 230, 440  # height of the bars at 1, side of the curve's square, width of the part of both
SHARES = {"precision": "#4c78a8", "recall": "#f58518", "density": "#72b7b2", "coverage": "#54a24b"}
INK, PALE = "#222222", "#777777"
TYPICAL = 500  # real pictures that the usual distance between neighbours is the median of


def save_figure(path: Path, report: Report, comparison: Comparison, generator: "Generator", dataset: Dataset) -> None:
    """Write a picture to `path`: .png, .jpg or .webp.

    On top the first pictures of the seed, unpicked, each to the left of its nearest real one in the features' space
    with their distance; below those that are nearest of all, where copies would be. At the right what was measured of
    precision, recall, density and coverage, with a line where real pictures are, and the curve of precision over recall
    (`precision_recall_curve`), if there are pictures enough. Raises ArgumentError as `save_image`.
    """
    image.check_suffix(path)
    found = nearest(comparison.drawn.features, comparison.real.features)
    partners, distances = found.indices[:, 0], found.distances[:, 0]
    count = COLUMNS * ROWS
    closest = np.argsort(distances, kind="stable")[:count]
    seed = report.facts["samples"]["seed"]
    h, w = (max(1, round(side * SIDE / max(generator.spec.image_size))) for side in generator.spec.image_size)
    cell = (2 * w + GAP, h + LINE + 4)
    block = LINE * 2 + ROWS * (cell[1] + GAP)
    shares = [name for name in SHARES if name in report.scores]
    curves = _curves(report, comparison)
    left = COLUMNS * cell[0] + (COLUMNS - 1) * GAP
    bars = round(BAR * 1.2) + 7 * LINE if shares else 0  # high, as all their part
    right = bars + (CURVE + 5 * LINE if curves else 0)
    size = (left + 2 * MARGIN + (CHART if right else 0), max(2 * block + MARGIN, right) + 2 * MARGIN + 2 * LINE)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font, bold = ImageFont.load_default(13), ImageFont.load_default(16)
    pen.text((MARGIN, MARGIN), title_of(report), INK, bold)

    def pairs(top: int, indices: NDArray[np.int64], text: str) -> None:
        pen.text((MARGIN, top), text, INK, font)
        for place, i in enumerate(indices):
            row, column = divmod(place, COLUMNS)
            x, y = MARGIN + column * (cell[0] + GAP), top + 2 * LINE + row * (cell[1] + GAP)
            drawn = image.on_white(generator.sample(1, seed, start=int(i)))[0]
            for k, picture in enumerate((drawn, dataset.images[partners[i]])):
                sheet.paste(scaled(picture, (w, h)), (x + k * (w + 2), y))
            pen.text((x + w + 1, y + h + 3), f"#{i}: {distances[i]:.3g}", PALE, font, anchor="ma")

    usual = _usual(comparison)
    top = MARGIN + 2 * LINE
    first = np.arange(min(count, len(distances)))
    name = report.facts["features"]["name"]
    pairs(top, first, f"The first drawn pictures, each left of its nearest real one; their distance in {name}")
    told = f"The drawn pictures nearest to a real one, of {len(distances):,}: are they copies?"
    pairs(top + block + MARGIN, closest, f"{told} Real ones: {usual:.3g} to the next, median")
    if shares:
        draw_bars(pen, (left + 2 * MARGIN + 20, top), report, shares, font)
    if curves:
        _plot(pen, (left + 2 * MARGIN + 20, top + bars), curves, font)
    image.save_image(path, np.asarray(sheet))


def title_of(report: Report) -> str:
    """The model's file, the data and the network, and the Frechet distance if it was measured."""
    facts, scores = report.facts, report.scores
    main = f"   {report.title('frechet')} {scores['frechet'].value:.4g}" if "frechet" in scores else ""
    return f"{Path(facts['model']['file']).name} against {facts['data']['name']}, {facts['features']['name']}{main}"


def _usual(c: Comparison) -> float:
    """The median distance of a real picture to the nearest other one."""
    some = sample_order(2, 0, min(TYPICAL, len(c.real)), len(c.real))
    return float(np.median(nearest(c.real.features[some], c.real.features, 2).distances[:, 1]))


def scaled(picture: U8, size: tuple[int, int]) -> Image.Image:
    """[H, W, 1 or 3] as RGB of size (width, height)."""
    array = np.asarray(picture)
    shown = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    how = Image.Resampling.NEAREST if shown.width < size[0] else Image.Resampling.LANCZOS
    return shown.resize(size, how)


def draw_bars(pen: ImageDraw.ImageDraw, at: tuple[int, int], report: Report, names: list[str], font: Font) -> None:
    """A bar of each share; density, which may be above 1, is cut off at 1.2."""
    x, y = at
    room, base = (CHART - 60) // len(names), y + LINE + round(BAR * 1.2)
    for tick in (0, 0.5, 1):
        level = base - round(BAR * tick)
        pen.line((x, level, x + room * len(names), level), "#dddddd")
        pen.text((x - 8, level), f"{tick:g}", PALE, font, anchor="rm")
    for i, name in enumerate(names):
        value, lowest = report.scores[name].value, report.floor.get(name)
        left = x + i * room + 12
        right = left + room - 24
        top = base - round(BAR * min(value, 1.2))
        pen.rectangle((left, top, right, base), SHARES[name])
        lines = [(name, INK), (f"{value:.3f}", INK)]
        if lowest is not None:
            level = base - round(BAR * min(lowest.value, 1.2))
            pen.line((left - 6, level, right + 6, level), INK, 2)
            lines.append((f"real {lowest.value:.3f}", PALE))
        for k, (text, colour) in enumerate(lines):
            pen.text(((left + right) // 2, base + 6 + k * LINE), text, colour, font, anchor="ma")
    if report.floor:
        pen.text((x, base + 6 + 4 * LINE), "line: real pictures in the drawn ones' place", PALE, font)


def _curves(report: Report, c: Comparison) -> dict[str, Curve]:
    """Precision over recall of the drawn pictures, and of real ones in their place if the report has such; or none."""
    sets = {"drawn": c} | ({"real": real_against_real(c)} if report.floor else {})
    few = min(len(each.even[0]) for each in sets.values())
    return {name: precision_recall_curve(*each.even) for name, each in sets.items()} if few >= 2 * CLUSTERS else {}


def _plot(pen: ImageDraw.ImageDraw, at: tuple[int, int], curves: dict[str, Curve], font: Font) -> None:
    """The square of recall and precision, a curve of each set in it, and beside it what they come to."""
    x, y = at
    top, base = y + LINE + 8, y + LINE + 8 + CURVE
    pen.text((x, y), f"precision over recall, of {CLUSTERS} clusters of the features", INK, font)
    for tick in (0, 0.5, 1):
        level, place = base - round(CURVE * tick), x + round(CURVE * tick)
        pen.line((x, level, x + CURVE, level), "#dddddd")
        pen.line((place, top, place, base), "#dddddd")
        pen.text((x - 8, level), f"{tick:g}", PALE, font, anchor="rm")
        pen.text((place, base + 4), f"{tick:g}", PALE, font, anchor="ma")
    pen.text((x + CURVE // 2, base + 4 + LINE), "recall: variety", PALE, font, anchor="ma")
    row = top
    for name, curve in reversed(curves.items()):
        colour = SHARES["precision"] if name == "drawn" else PALE
        # From axis to axis: a set that lacks nothing runs along the square's upper and right edge.
        recall = np.concatenate([curve.recall[:1], curve.recall, [0.0]])
        precision = np.concatenate([[0.0], curve.precision, curve.precision[-1:]])
        points = zip(x + CURVE * recall, base - CURVE * precision, strict=True)
        pen.line([(float(a), float(b)) for a, b in points], colour, 3 if name == "drawn" else 2)
    for name, curve in curves.items():
        colour = SHARES["precision"] if name == "drawn" else PALE
        variety, quality = curve.best(BETA), curve.best(1 / BETA)
        for text in (f"{name} pictures", f"variety (F8)  {variety:.3f}", f"quality (F1/8)  {quality:.3f}"):
            pen.text((x + CURVE + 16, row), text, colour, font)
            row += LINE
        row += LINE // 2
