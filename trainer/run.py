"""The run folder: config.json, log.jsonl, checkpoints/, samples/. A run is a function of its config.json."""

import json
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from edgegan._files import atomic_write, check_output, sweep_temporaries
from edgegan.errors import ArgumentError, EdgeGANWarning, ModelError, RunError
from edgegan.spec import MAX_GOLDEN_BYTES, MAX_JSON_BYTES
from edgegan.trainer import checkpoint, recipes
from edgegan.trainer.config import make_config
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.data.pairs import with_source
from edgegan.trainer.recipe import Recipe, optimizers_of
from edgegan.trainer.settings import DataSettings, Settings


class Run:
    """A training run's folder. `create` starts one, `open` reads one."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.recipe: Recipe = recipes.load(settings.recipe)
        self.config = make_config(self.recipe.Config, settings.config)
        if self.recipe.complete is not None:
            self.config = self.recipe.complete(self.config, settings.data.shape)
        self.checkpoints, self.samples, self.log = folder / "checkpoints", folder / "samples", folder / "log.jsonl"

    @staticmethod
    def create(folder: Path, settings: Settings) -> "Run":
        """Make the folder and write config.json.

        Raises RunError if a run is there already, ArgumentError for settings that no run can have: what would fail
        after hours of training fails here, before a folder is made.
        """
        check_new(folder)
        run = Run(folder, settings)
        nets = run.build()
        optimizers_of(run.recipe.phases(run.config), nets)
        try:
            text = run.recipe.spec(run.config, settings.data.shape).to_json()
        except ModelError as error:
            raise ArgumentError(f"no model file could describe this run: {error}") from None
        if len(text.encode()) + 2 * MAX_GOLDEN_BYTES > MAX_JSON_BYTES:
            raise ArgumentError(
                f"no model file could describe this run: the names of its {len(settings.data.classes)} classes are too "
                "long; shorten the names of the folders"
            )
        run._make_folders()
        with atomic_write(folder / "config.json", durable=True) as file:
            file.write(settings.to_json().encode())
        return run

    @staticmethod
    def open(folder: Path) -> "Run":
        """Read the run in `folder`. Raises RunError if there is none or it can't be understood."""
        path = folder / "config.json"
        if not folder.exists():
            raise RunError(f"there is no run at {folder}: no such folder; start one with edgegan-train, see its --help")
        if not path.is_file():
            raise RunError(f"{folder} is not a training run: it is no folder with a config.json")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RunError(f"{path} is not valid UTF-8") from None
        settings = Settings.from_json(text, str(path))
        try:
            return Run(folder, settings)
        except ArgumentError as error:
            raise RunError(f"{path}: {error}") from None

    def _make_folders(self) -> None:
        for path in (self.folder, self.checkpoints, self.samples):
            path.mkdir(exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainers out; the system lets go when the process ends, however it ends.

        Raises RunError if another trainer works in this folder.
        """
        self._make_folders()
        with (self.folder / ".lock").open("w") as file:
            try:
                import fcntl
            except ImportError:  # Windows: two trainers at once are not noticed there
                yield
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another edgegan-train is working in {self.folder}; wait for it or stop it") from None
            for folder in (self.folder, self.checkpoints, self.samples):
                sweep_temporaries(folder)  # of a trainer that was killed while it wrote
            yield

    @property
    def paired(self) -> bool:
        """Whether each picture of the source set belongs to the one at its place in the data set."""
        return bool(getattr(self.config, "paired", False))

    def open_dataset(self, source: str | None = None, source_set: str | None = None, **how: Any) -> Dataset:
        """Open the run's data set again, from `source` if it has moved, and its source set, from `source_set`.

        Raises RunError if its content is not what the run began with, DataError if it is not there.
        """
        dataset = self._reopen(self.settings.data, source, **how)
        if self.settings.source_set is None:
            return dataset
        return with_source(dataset, self._reopen(self.settings.source_set, source_set, **how), self.paired)

    def _reopen(self, data: DataSettings, source: str | None, **how: Any) -> Dataset:
        source = data.source if source is None else source
        dataset = open_dataset(source, **data.how, **how)
        found = (dataset.digest, dataset.images.shape, dataset.classes)
        if found != (data.digest, (data.count, data.height, data.width, data.channels), data.classes):
            raise RunError(f"{source} is not the data set that {self.folder} began with: its content differs")
        return dataset

    def build(self) -> nn.ModuleDict:
        """The run's networks, freshly initialised."""
        return self.recipe.build(self.config, self.settings.data.shape)

    def newest_checkpoint(self, device: Any = "cpu") -> dict[str, Any] | None:
        """The state to go on from, or None if the run has no checkpoint yet.

        A damaged one is passed over with a warning, for the one before. Raises RunError if none is left, or if there
        are records of training but no checkpoint: nobody's work is begun again in silence.
        """
        paths = checkpoint.found(self.checkpoints)
        if not paths and any(record["nimg"] > 0 for record in self.read_log()):
            raise RunError(
                f"{self.log} tells of {self.read_log()[-1]['kimg']:g} kimg of training, but {self.checkpoints} holds "
                f"no checkpoint; bring them back, or delete {self.folder} to start anew"
            )
        while paths:
            path = paths.pop()
            try:
                return checkpoint.load(path, device)
            except checkpoint.DamagedError as error:
                if not paths:
                    raise
                told = f"{error.args[0].partition(';')[0]}; going on from {paths[-1].name}"
                warnings.warn(told, EdgeGANWarning, stacklevel=2)
        return None

    def load_checkpoint(self, which: str) -> dict[str, Any]:
        """The state called "newest", "best", or by its number of images. Raises RunError if there is none."""
        if which == "newest":
            state = self.newest_checkpoint()
            if state is None:
                resume = f"edgegan-train resume {shlex.quote(str(self.folder))}"
                raise RunError(f"the run {self.folder} has no checkpoint yet; train it first with  {resume}")
            return state
        path = self.checkpoints / (checkpoint.BEST if which == "best" else f"{int(which):012d}.pt")
        if not path.is_file():
            there = ", ".join(
                ["newest", *(path.stem.lstrip("0") or "0" for path in checkpoint.found(self.checkpoints))]
            )
            raise RunError(f"{self.folder} has no checkpoint {which}; there are: {there}")
        return checkpoint.load(path)

    def load_nets(self, nets: nn.ModuleDict, state: dict[str, Any]) -> None:
        """Put a checkpoint's weights into `nets`. Raises RunError if they do not fit."""
        try:
            nets.load_state_dict(state["nets"])
        except RuntimeError:
            raise RunError(
                f"the checkpoint of {state['nimg']} images in {self.folder} does not fit its config.json; "
                "was that edited?"
            ) from None

    def read_log(self) -> list[dict[str, Any]]:
        """The records of log.jsonl, oldest first; a last line cut short by a crash is left out.

        Raises RunError for any other line that is not a record.
        """
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if type(record["nimg"]) is not int or not isinstance(record["losses"], dict):
                    raise ValueError
                records.append(record)
            except (ValueError, KeyError, TypeError, RecursionError):
                if number < len(lines):
                    raise RunError(f"{self.log}: line {number} is not a record; take it out or restore it") from None
        return records

    def rewind_log(self, nimg: int) -> None:
        """Drop the records after `nimg` images: a resumed run writes them again."""
        records = [record for record in self.read_log() if record["nimg"] <= nimg]
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        if not self.log.exists() or self.log.read_bytes() != data:
            with atomic_write(self.log) as file:
                file.write(data)

    def flush_log(self) -> None:
        """To the disk: before a checkpoint that counts its records as written."""
        if self.log.exists():
            with self.log.open("rb") as file:
                os.fsync(file.fileno())

    def append_log(self, record: dict[str, Any]) -> None:
        """Add one record."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def check_new(folder: Path) -> None:
    """Raise unless a run may begin in `folder`: it must be new or hold no file, and its parent must be there."""
    if (folder / "config.json").exists():
        resume = f"edgegan-train resume {shlex.quote(str(folder))}"
        raise RunError(f"there is a run at {folder} already: go on with  {resume}  or name another --out")
    if folder.exists() and (not folder.is_dir() or any(not path.is_dir() for path in folder.rglob("*"))):
        raise ArgumentError(f"cannot start a run at {folder}: it is not an empty folder; name another --out")
    check_output(folder.absolute() if not folder.exists() else folder / "config.json")
