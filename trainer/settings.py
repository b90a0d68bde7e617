"""All that decides a run, and its form in config.json."""

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegan import __version__
from edgegan.errors import ArgumentError, RunError
from edgegan.trainer.config import check_number
from edgegan.trainer.data import NAMES, Dataset
from edgegan.trainer.recipe import DataShape

FORMAT = 2
PRECISIONS = ("fp32", "bf16")
LEAST_SCORED = 10  # pictures, drawn and real: what the kernel distance takes


@dataclass(frozen=True)
class DataSettings:
    """How to open the data set again, and the digest that proves it is the same one."""

    source: str
    resolution: int | None  # as asked for; None: as the pictures are
    grey_or_rgb: int | None  # channels as asked for: 1, 3, or None for what the pictures are
    fit: str  # how pictures become square
    skip_broken: bool
    name: str
    digest: str
    count: int
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]

    @staticmethod
    def of(
        dataset: Dataset,
        source: str,
        resolution: int | None = None,
        channels: int | None = None,
        fit: str = "crop",
        skip_broken: bool = False,
    ) -> "DataSettings":
        """Describe `dataset`, which was opened from `source` in this way."""
        if source not in NAMES:
            source = str(Path(source).resolve())  # to be found again from any working directory
        count, height, width, own = dataset.images.shape
        how = (resolution, channels, fit, skip_broken)
        return DataSettings(source, *how, dataset.name, dataset.digest, count, height, width, own, dataset.classes)

    @property
    def how(self) -> dict[str, Any]:
        """The arguments that open the data set in the same way."""
        return {
            "resolution": self.resolution,
            "channels": self.grey_or_rgb,
            "fit": self.fit,
            "skip_broken": self.skip_broken,
        }

    @property
    def shape(self) -> DataShape:
        """What the networks are built for."""
        return DataShape(self.height, self.width, self.channels, self.classes)


@dataclass(frozen=True)
class ScoreSettings:
    """Scores while it trains: how often, of how many pictures, in the eyes of which network."""

    score_every: float  # kimg
    score_images: int  # drawn each time
    features: str  # the network: a name, or a file
    preparation: str | None  # how that file wants its pictures, in JSON; None: it says so itself
    network: str  # its name, for people
    network_digest: str  # proves that it is the same one

    def __post_init__(self) -> None:
        check_interval("score-every", self.score_every)
        check_number("score-images", self.score_images, LEAST_SCORED, 10**7)


@dataclass(frozen=True)
class Settings:
    """With the same settings on the same device every bit of a run is the same."""

    recipe: str
    config: dict[str, Any]  # the recipe's hyper-parameters
    data: DataSettings
    seed: int = 0
    precision: str = "fp32"  # or "bf16": autocast
    log_kimg: float = 1.0
    sample_kimg: float = 10.0  # grid, distance and checkpoint
    mirror: bool = False  # show half of the pictures flipped left to right
    holdout: int = 0  # pictures that are never shown, for the monitors
    micro_batch: int = 0  # images whose activations are in memory at a time; 0: the whole batch
    score: ScoreSettings | None = None
    source_set: DataSettings | None = (
        None  # of a recipe that translates: the pictures that it learns to turn into these
    )

    def __post_init__(self) -> None:
        check_number("seed", self.seed, 0, 2**64 - 1)
        check_interval("log-kimg", self.log_kimg)
        check_interval("sample-kimg", self.sample_kimg)
        check_number("holdout", self.holdout, 0, max(0, self.data.count - 2))
        check_number("micro-batch", self.micro_batch, 0, 2**20)
        if self.precision not in PRECISIONS:
            raise ArgumentError(f"precision is {self.precision!r}; valid: {', '.join(PRECISIONS)}")
        if self.score is not None and self.data.count < LEAST_SCORED:
            raise ArgumentError(
                f"scores take {LEAST_SCORED} real pictures or more, and there are {self.data.count}; leave "
                "--score-every out"
            )

    def to_json(self) -> str:
        """The text of config.json."""
        values = {"format": FORMAT, "version": __version__, **dataclasses.asdict(self)}
        return json.dumps(values, indent=2) + "\n"

    @staticmethod
    def from_json(text: str, where: str) -> "Settings":
        """Read the text of config.json at `where`. Raises RunError, which names it and the key."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{where} is not valid JSON: {error}") from None
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise RunError(f"{where} is not the config.json of a run: it has no number 'format'")
        if values["format"] > FORMAT:
            raise RunError(f"{where} was written by a newer edgegan: upgrade edgegan")
        if values["format"] < FORMAT:
            raise RunError(f"{where} is of an edgegan before 0.1: finish that run with the edgegan it began with")
        # Runs that began before there were these have no such keys.
        score, source_set = values.get("score"), _with_classes(values.get("source_set"))
        try:
            parts = {
                "data": _typed(DataSettings, _with_classes(values.get("data")), where, "data."),
                "score": None if score is None else _typed(ScoreSettings, score, where, "score."),
                "source_set": None if source_set is None else _typed(DataSettings, source_set, where, "source_set."),
            }
            return _typed(Settings, values | parts, where)
        except ArgumentError as error:
            raise RunError(f"{where}: {error}") from None


def check_interval(name: str, kimg: float) -> None:
    """Raise ArgumentError unless `kimg` can be the time between two records or samples."""
    check_number(name, kimg, 0.001, 1e9)


def _with_classes(data: Any) -> Any:
    """What JSON has of DataSettings, with the names of the classes as a tuple if they are a list of texts."""
    classes = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes):
        return data
    return data | {"classes": tuple(classes)}


def _typed(cls: type, values: Any, where: str, prefix: str = "") -> Any:
    """A dataclass from plain values, each of the type that its field declares; other keys are ignored."""
    if not isinstance(values, dict):
        raise RunError(f"{where}: key '{prefix.rstrip('.')}' is missing or not an object")
    hints = typing.get_type_hints(cls)
    for name, hint in hints.items():
        if name not in values:
            raise RunError(f"{where}: key '{prefix}{name}' is missing")
        allowed = typing.get_args(hint) if type(None) in typing.get_args(hint) else (typing.get_origin(hint) or hint,)
        allowed = (*allowed, int) if float in allowed else allowed
        if type(values[name]) not in allowed:
            kinds = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise RunError(f"{where}: key '{prefix}{name}' is {values[name]!r:.60}; valid: {kinds}")
    return cls(**{name: values[name] for name in hints})
