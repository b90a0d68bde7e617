"""The picture of a score of a model that translates: sources, what became of them, and what they should be."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgegan import image
from edgegan.trainer.data import Dataset
from edgegan.trainer.metrics.manifold import nearest
from edgegan.trainer.metrics.pairs import feature_distance
from edgegan.trainer.scoring.figure import (
    BAR,
    CHART,
    GAP,
    INK,
    LINE,
    MARGIN,
    PALE,
    SHARES,
    SIDE,
    draw_bars,
    scaled,
    title_of,
)
from edgegan.trainer.scoring.metrics import Comparison
from edgegan.trainer.scoring.score import Report
from edgegan.trainer.scoring.translated import Translates, chosen_sources

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

COLUMNS = 10  # pictures of each of the two parts
LABEL = 64  # pixels, for what a row is


def save_translations(
    path: Path, report: Report, comparison: Comparison, generator: Translates, sources: Dataset, dataset: Dataset
) -> None:
    """Write a picture to `path`: .png, .jpg or .webp.

    A column for each source: on top the source, below it the result, and below that its true picture, with the PSNR of
    both, or, without pairs, the real picture that is nearest in the features' space, with their distance. First the
    first sources, unpicked; then the results that are farthest from their true, or from any real picture. At the right
    precision, recall, density and coverage, as `save_figure` has them. Raises ArgumentError as `save_image`.
    """
    image.check_suffix(path)
    chosen = chosen_sources(len(comparison.drawn), report.facts["samples"]["seed"], len(sources))
    partners, distances, captions = _partners(comparison)
    true = comparison.pairs is not None
    count = min(COLUMNS, len(chosen))
    sides = dataset.images.shape[1:3]
    h, w = (max(1, round(side * SIDE / max(sides))) for side in sides)
    block = 2 * LINE + 3 * (h + 2) + LINE
    shares = [name for name in SHARES if name in report.scores]
    left = LABEL + count * (w + GAP)
    size = (
        left + 2 * MARGIN + (CHART if shares else 0),
        max(2 * block + MARGIN, round(BAR * 1.2) + 7 * LINE if shares else 0) + 2 * MARGIN + 2 * LINE,
    )
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    font, bold = ImageFont.load_default(13), ImageFont.load_default(16)
    pen.text((MARGIN, MARGIN), title_of(report), INK, bold)

    def columns(top: int, places: I64, text: str) -> None:
        pen.text((MARGIN, top), text, INK, font)
        top += 2 * LINE
        for row, name in enumerate(("source", "result", "true" if true else "nearest")):
            pen.text((MARGIN, top + row * (h + 2) + h // 2), name, PALE, font, anchor="lm")
        for column, i in enumerate(places):
            x = MARGIN + LABEL + column * (w + GAP)
            source = sources.images[chosen[i]]
            shown = (source, generator.translate(source[None])[0], dataset.images[partners[i]])
            for row, picture in enumerate(shown):
                sheet.paste(scaled(picture, (w, h)), (x, top + row * (h + 2)))
            pen.text((x + w // 2, top + 3 * (h + 2)), captions[i], PALE, font, anchor="ma")

    top = MARGIN + 2 * LINE
    name = report.facts["features"]["name"]
    columns(
        top,
        np.arange(count),
        "The first results, with their PSNR" if true else f"The first results, with their distance in {name}",
    )
    worst = np.argsort(-distances, kind="stable")[:count]
    whose = "their true picture" if true else "any real picture"
    columns(top + block + MARGIN, worst, f"The results farthest from {whose} in {name}, of {len(chosen):,}")
    if shares:
        draw_bars(pen, (left + 2 * MARGIN + 20, top), report, shares, font)
    image.save_image(path, np.asarray(sheet))


def _partners(c: Comparison) -> tuple[I64, F64, list[str]]:
    """Of each result: the position of the real picture that is shown with it, how far that is, and what to write."""
    if c.pairs is not None:
        far = feature_distance(c.drawn.features, c.real.features[c.pairs.twins])
        return c.pairs.twins, far, [f"{value:.1f} dB" for value in c.pairs.psnr]
    found = nearest(c.drawn.features, c.real.features)
    distances = found.distances[:, 0]
    return found.indices[:, 0], distances, [f"{value:.3g}" for value in distances]
