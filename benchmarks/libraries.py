"""The same features through the metrics of other libraries, those that are installed, and through ours.

benchmarks/metrics.py prints it. Beside edgegan they take  pip install torch-fidelity prdc clean-fid scikit-image
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from common import say

from edgegan.trainer.data import sample_order
from edgegan.trainer.metrics.classes import class_score
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.metrics.kernel import kernel_distance
from edgegan.trainer.metrics.manifold import manifold
from edgegan.trainer.metrics.similarity import psnr, ssim

EQUAL = 1e-3  # relative: some libraries compute in float32
COUNT = 5000  # samples of each set
BLOCKS = 5  # of 1,000 samples: those in which `kernel_distance` takes so many


class Row(NamedTuple):
    what: str
    library: str
    theirs: float
    ours: float
    most: float = EQUAL  # that they may differ by, relative to theirs

    @property
    def gap(self) -> float:
        return abs(self.ours / self.theirs - 1)


Rows = Iterator[Row]
Sets = tuple[np.ndarray, np.ndarray, np.ndarray]  # drawn and real features float32 [COUNT, d], logits [COUNT, classes]


def compared(lenet: Sets, pictures: tuple[np.ndarray, np.ndarray]) -> Rows:
    """In features of lenet, and in as many as Inception's, which are drawn: above 0 like those, and correlated."""
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(512, 2048)).astype(np.float32) / 512**0.5
    wide = [np.maximum(rng.normal(m, s, (COUNT, 512)).astype(np.float32) @ mixing, 0) for m, s in ((0.1, 0.9), (0, 1))]
    logits = rng.normal(0, 2, (COUNT, 1008)).astype(np.float32)
    for what, sets in (("lenet's 84", lenet), ("2,048 drawn", (wide[0], wide[1], logits))):
        for name, rows in (("torch-fidelity", torch_fidelity), ("prdc", prdc), ("clean-fid", clean_fid)):
            yield from _of(name, lambda rows=rows, sets=sets: rows(*sets), what)
    yield from _of("scikit-image", lambda: scikit_image(*pictures), "pixels")


def _of(library: str, rows: Callable[[], Rows], what: str) -> Rows:
    say(f"{library}, {what}")
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            told = f"{library} {version(library)}"
            found = [row._replace(what=f"{row.what}, {what}", library=told) for row in rows()]
    except ImportError as error:
        say(f"{library} is not installed, or does not load: not compared ({error})")
        return
    yield from found


def torch_fidelity(drawn: np.ndarray, real: np.ndarray, logits: np.ndarray) -> Rows:
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    a, b = torch.from_numpy(drawn), torch.from_numpy(real)
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)
    yield Row("Fréchet distance", "", *theirs.values(), frechet_distance(Statistics.of(drawn), Statistics.of(real)))

    ours = kernel_distance(drawn, real)
    orders = [sample_order(seed, 0, COUNT, COUNT) for seed in (0, 1)]  # as ours puts samples into blocks
    x, y = drawn[orders[0]], real[orders[1]]
    blocks = [kernel_mmd(x[k::BLOCKS], y[k::BLOCKS]) for k in range(BLOCKS)]
    yield Row("kernel distance, the same blocks", "", float(np.mean(blocks)), ours.value)
    theirs = kid_features_to_metric(a, b, verbose=False)  # of 100 random subsets of 1,000
    mean = theirs["kernel_inception_distance_mean"]
    yield Row("kernel distance, its 100 subsets", "", mean, ours.value, most=3 * ours.error / abs(mean))

    order = sample_order(0, 0, COUNT, COUNT)  # as ours puts samples into parts
    theirs = isc_features_to_metric(torch.from_numpy(logits[order]), splits=10, shuffle=False)
    for name, value, own in zip(("mean", "deviation"), theirs.values(), class_score(logits, 10), strict=True):
        yield Row(f"class score, {name} of 10 parts", "", value, own)

    theirs = prc_features_to_metric(a, b, verbose=False)
    near = manifold(drawn, real, k=3)
    for name in ("precision", "recall"):
        yield Row(f"{name}, k = 3", "", theirs[name], getattr(near, name))


def prdc(drawn: np.ndarray, real: np.ndarray, _: Any) -> Rows:
    from prdc import compute_prdc

    for k in (3, 5):
        theirs = compute_prdc(real.astype(np.float64), drawn.astype(np.float64), k)
        for name, own in manifold(drawn, real, k)._asdict().items():
            yield Row(f"{name}, k = {k}", "", float(theirs[name]), own, most=1e-12)


def clean_fid(drawn: np.ndarray, real: np.ndarray, _: Any) -> Rows:
    from cleanfid.fid import frechet_distance as theirs

    a, b = Statistics.of(drawn), Statistics.of(real)
    yield Row("Fréchet distance", "", theirs(a.mean, a.covariance, b.mean, b.covariance), frechet_distance(a, b))


def scikit_image(a: np.ndarray, b: np.ndarray) -> Rows:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    pairs = list(zip(a, b, strict=True))
    ratio = np.mean([peak_signal_noise_ratio(x, y, data_range=255) for x, y in pairs])
    likeness = np.mean([structural_similarity(x, y, channel_axis=2, **how) for x, y in pairs])
    yield Row("PSNR, mean", "", float(ratio), float(psnr(a, b).mean()))
    yield Row("SSIM, mean", "", float(likeness), float(ssim(a, b).mean()))


def print_table(rows: Rows) -> bool:
    """Prints the table; whether all are as equal as they should be."""
    print("\n| metric, features | library | theirs | ours | difference, relative | allowed |\n|---|---|" + "---:|" * 4)
    good = True
    for row in rows:
        good &= row.gap <= row.most
        cells = (row.what, row.library, f"{row.theirs:.6g}", f"{row.ours:.6g}", f"{row.gap:.0e}", f"{row.most:.0e}")
        print(f"| {' | '.join(cells)}{'' if row.gap <= row.most else ' **missed**'} |", flush=True)
    return good
