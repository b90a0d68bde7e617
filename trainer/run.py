"""The run folder: config.json, log.jsonl, checkpoints/, samples/. A run is a function of its config.json."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegan import __version__
from edgegan._files import atomic_write
from edgegan.errors import ArgumentError, RunError
from edgegan.trainer import checkpoint, recipes
from edgegan.trainer.config import check_number, make_config
from edgegan.trainer.data import NAMES, Dataset, open_dataset
from edgegan.trainer.recipe import DataShape, Recipe

FORMAT = 1
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class DataSettings:
    """How to open the data set again, and the digest that proves it is the same one."""

    source: str
    resolution: int | None  # as asked for; None: as the pictures are
    grey_or_rgb: int | None  # channels as asked for: 1, 3, or None for what the pictures are
    name: str
    digest: str
    count: int
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]

    @staticmethod
    def of(dataset: Dataset, source: str, resolution: int | None = None, channels: int | None = None) -> "DataSettings":
        """Describe `dataset`, which was opened from `source` in this way."""
        if source not in NAMES:
            source = str(Path(source).resolve())  # to be found again from any working directory
        count, height, width, own = dataset.images.shape
        return DataSettings(
            source, resolution, channels, dataset.name, dataset.digest, count, height, width, own, dataset.classes
        )

    @property
    def shape(self) -> DataShape:
        """What the networks are built for."""
        return DataShape(self.height, self.width, self.channels, self.classes)


@dataclass(frozen=True)
class Settings:
    """All that decides a run: with the same settings on the same device every bit is the same."""

    recipe: str
    config: dict[str, Any]  # the recipe's hyper-parameters
    data: DataSettings
    seed: int = 0
    precision: str = "fp32"  # or "bf16": autocast
    log_kimg: float = 1.0
    sample_kimg: float = 10.0  # grid, distance and checkpoint

    def __post_init__(self) -> None:
        check_number("seed", self.seed, 0)
        check_number("log-kimg", self.log_kimg, 0.001)
        check_number("sample-kimg", self.sample_kimg, 0.001)
        if self.precision not in PRECISIONS:
            raise ArgumentError(f"precision is {self.precision!r}; valid: {', '.join(PRECISIONS)}")


class Run:
    """A training run's folder. `create` starts one, `open` reads one."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.recipe: Recipe = recipes.load(settings.recipe)
        self.config = make_config(self.recipe.Config, settings.config)
        self.checkpoints, self.samples, self.log = (
            folder / "checkpoints",
            folder / "samples",
            folder / "log.jsonl",
        )

    @staticmethod
    def create(folder: Path, settings: Settings) -> "Run":
        """Make the folder and write config.json. Raises RunError if a run is there already."""
        check_new(folder)
        run = Run(folder, settings)
        run.recipe.build(run.config, settings.data.shape)  # what does not fit is said before a folder is made
        for path in (folder, run.checkpoints, run.samples):
            path.mkdir(exist_ok=True)
        values = {"format": FORMAT, "version": __version__, **dataclasses.asdict(settings)}
        with atomic_write(folder / "config.json", durable=True) as file:
            file.write((json.dumps(values, indent=2) + "\n").encode())
        return run

    @staticmethod
    def open(folder: Path) -> "Run":
        """Read the run in `folder`. Raises RunError if there is none or it can't be understood."""
        path = folder / "config.json"
        if not folder.is_dir():
            raise RunError(f"there is no run at {folder}: no such folder; start one with  edgegan-train RECIPE --out")
        if not path.is_file():
            raise RunError(f"{folder} is not a training run: it has no config.json")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") > FORMAT:
                raise RunError(f"{path} was written by a newer edgegan ({values['version']}): upgrade edgegan")
            del values["version"]
            data = values.pop("data")
            data = DataSettings(**{**data, "classes": tuple(data["classes"])})
            return Run(folder, Settings(data=data, **values))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from None

    def open_dataset(self, **how: Any) -> Dataset:
        """Open the run's data set again. Raises RunError if its content is not what the run began with."""
        data = self.settings.data
        dataset = open_dataset(data.source, resolution=data.resolution, channels=data.grey_or_rgb, **how)
        if dataset.digest != data.digest:
            raise RunError(
                f"the data set {data.source} has changed since {self.folder} began: {len(dataset)} images now"
            )
        return dataset

    def newest_checkpoint(self, device: Any = "cpu") -> dict[str, Any] | None:
        """The state to go on from, or None if the run has no checkpoint yet."""
        found = checkpoint.found(self.checkpoints)
        return checkpoint.load(found[-1], device) if found else None

    def read_log(self) -> list[dict[str, Any]]:
        """The records of log.jsonl, oldest first; a last line cut short by a crash is left out."""
        if not self.log.exists():
            return []
        records = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind_log(self, nimg: int) -> None:
        """Drop the records after `nimg` images: a resumed run writes them again."""
        records = [record for record in self.read_log() if record["nimg"] <= nimg]
        with atomic_write(self.log) as file:
            file.write("".join(json.dumps(record) + "\n" for record in records).encode())

    def append_log(self, record: dict[str, Any]) -> None:
        """Add one record."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def check_new(folder: Path) -> None:
    """Raise unless a run may begin in `folder`: it must be new or empty, and its parent must be there."""
    if (folder / "config.json").exists():
        raise RunError(
            f"there is a run at {folder} already: go on with  edgegan-train resume {folder}  or name another --out"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"cannot start a run at {folder}: it is not an empty folder; name another --out")
    if not folder.absolute().parent.is_dir():
        raise ArgumentError(
            f"cannot start a run at {folder}: the folder {folder.parent} does not exist; create it first"
        )
