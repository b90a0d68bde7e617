"""Scores while a run trains: those that `edgegan-score` would give the model that could be exported now.

They are of pictures 0 .. n - 1 of the previews' seed, drawn in float32 by the averaged generator, against all pictures
of the run's data set. Training goes on as if they had not been taken.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import ArgumentError, EdgeGANWarning, RunError
from edgegan.trainer.data import Dataset, Progress
from edgegan.trainer.metrics.features import INCEPTION, NAMES, FeatureNetwork, open_features
from edgegan.trainer.preview import SEED, Preview
from edgegan.trainer.scoring.network import default_features, read_preparation
from edgegan.trainer.scoring.score import score
from edgegan.trainer.scoring.sets import see_real
from edgegan.trainer.settings import ScoreSettings, check_interval

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")  # the first says which is best
IMAGES = 10_000  # as many as `edgegan-score` draws


class StoppedError(Exception):
    """Raised by who is told of the progress, to end a scoring; `status` is the exit status that was asked for."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Scored:
    """What the scores of one moment become."""

    distance: float  # Frechet's: the least is the best
    record: dict[str, object]  # for log.jsonl: "score" by name, and "features", the name of the network
    metadata: dict[str, float | str]  # for `ModelSpec.scores`


class Averaged:
    """The averaged generator of a training, as scores ask for its pictures (`scoring.sets.Draws`)."""

    digest = ""  # it is no file yet

    def __init__(self, preview: Preview) -> None:
        self.preview, self.spec = preview, preview.spec
        self.source, self.provider = "the generator in training", preview.device.type

    def sample(self, n: int, seed: int = SEED, *, start: int = 0, batch: int | None = None) -> NDArray[np.uint8]:
        """Pictures start .. start + n - 1 of SEED, the only seed: uint8 [n, H, W, C]. batch: how many at a time."""
        assert seed == SEED
        return self.preview.draw(n, start=start, **({} if batch is None else {"batch": batch}))


class Scorer:
    """The network of a run's scores, open, and the pictures that it compares with."""

    def __init__(
        self, settings: ScoreSettings, dataset: Dataset, features: str | None = None, root: Path | None = None
    ) -> None:
        """features: where the network is now, if it has moved. root: where features of real pictures are kept, default
        `default_root()`.

        Raises RunError for another network than the run began with; the rest as `open_network`.
        """
        self.settings, self.dataset, self.root = settings, dataset, root
        source = settings.features if features is None else features
        self.network = open_network(source, settings.preparation)
        if self.network.digest != settings.network_digest:
            raise RunError(
                f"{source} is not the feature network that the run began with (SHA-256 {self.network.digest[:12]}, it "
                f"was {settings.network_digest[:12]}): its scores would not compare; give that one with --features"
            )
        self._told = False

    def see_real(self, progress: Progress | None = None) -> None:
        """Have the features of the real pictures made, or found, and kept; else the first `score` does it.

        Raises ModelError for features that are NaN or infinite.
        """
        see_real(self.dataset, self.network, self.root, progress)

    def score(self, preview: Preview, progress: Progress | None = None) -> Scored:
        """Scores of the nets as they are. `progress` may raise, which ends it with nothing changed.

        Raises ModelError for features that are NaN or infinite. Only the first time does it warn of what makes the
        scores less telling.
        """
        with warnings.catch_warnings():
            if self._told:
                warnings.simplefilter("ignore", EdgeGANWarning)
            n = self.settings.score_images
            report, _ = score(
                Averaged(preview),
                self.dataset,
                self.network,
                n,
                seed=SEED,
                metrics=METRICS,
                floor=False,
                root=self.root,
                progress=progress,
            )
        self._told = True
        values = {report.title(name): float(f"{report.scores[name].value:.6g}") for name in METRICS}
        record: dict[str, object] = {"score": values, "features": self.network.name}
        return Scored(report.scores[METRICS[0]].value, record, report.to_metadata())


def open_network(features: str, preparation: str | None) -> FeatureNetwork:
    """The network that --features names and --preparation describes. Raises as `open_features`."""
    return open_features(features, progress=sys.stderr.isatty(), **read_preparation(preparation, features))


def named(network: FeatureNetwork) -> tuple[str, str]:
    """Its name and digest, without keeping it: it may take hundreds of megabytes."""
    return network.name, network.digest


class ScoreOptions:
    """What a command was asked for. All that is wrong with it is found before the data are opened, or just after."""

    def __init__(
        self,
        every: float | None,
        images: int | None = None,
        features: str | None = None,
        preparation: str | None = None,
    ) -> None:
        """every: kimg between two scores; None: no scores, and no other option. images: drawn for each.

        features: a name, or a file, which preparation (JSON) describes; None: what knows pictures as those of the data.

        Raises ArgumentError for values out of range, and as `open_network`.
        """
        self.every, self.images, self.features, self.preparation = every, images, features, preparation
        if every is None:
            given = {"score-images": images, "features": features, "preparation": preparation}
            if needless := [f"--{name}" for name, value in given.items() if value is not None]:
                raise ArgumentError(f"{needless[0]} is for scores: give --score-every KIMG too, how often to take them")
            return
        check_interval("score-every", every)
        read_preparation(preparation, features)
        self.network = None if features is None else named(open_network(features, preparation))

    def settings(self, dataset: Dataset) -> ScoreSettings | None:
        """What config.json keeps of them. Raises ArgumentError if no network comes along for such pictures."""
        if self.every is None:
            return None
        features, network = self.features, self.network
        if features is None or network is None:
            _, h, w, channels = dataset.images.shape
            features = default_features((h, w), channels, dataset.name, "this run")
            network = named(open_network(features, None))
        elif features not in (*NAMES, INCEPTION):
            features = str(Path(features).resolve())  # to be found again from any working directory
        images = IMAGES if self.images is None else self.images
        return ScoreSettings(self.every, images, features, self.preparation, *network)
