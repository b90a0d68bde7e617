"""The cache of decoded sets: one folder each, that appears whole or not at all."""

import hashlib
import json
import re
import secrets
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import DataError
from edgegan.trainer.data.entry import NAMED_BROKEN, SKIPPED, write_entry
from edgegan.trainer.data.files import Source
from edgegan.trainer.data.pictures import Progress, Treatment

FORMAT = 2  # of the cache; part of the key, so that a change never reads an old entry
_DAY = 24 * 3600.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded training set."""

    images: NDArray[np.uint8]  # [N, H, W, C], C = 1 (grey) or 3 (RGB); a read-only memory map
    labels: NDArray[np.int64] | None  # [N], positions in `classes`; None without classes
    classes: tuple[str, ...]  # their names; () without classes
    name: str  # short name of the source
    digest: str  # sha256 (hex) over shape, pixels and labels: identifies the content
    skipped: tuple[str, ...] = ()  # each broken picture that was left out: "a.png (cut short)"
    skipped_list: Path | None = None  # a text file with the same, a line each
    source: "Dataset | None" = None  # in a set for translation: the pictures that are to be turned into such as these

    def __len__(self) -> int:
        return len(self.images)

    @property
    def skipped_line(self) -> str:
        """What to tell people of the pictures that were left out, on one line; "" if there are none."""
        if not self.skipped:
            return ""
        more = f" and {len(self.skipped) - NAMED_BROKEN:,} more" if len(self.skipped) > NAMED_BROKEN else ""
        total, named = len(self) + len(self.skipped), ", ".join(self.skipped[:NAMED_BROKEN])
        listed = f"; all are listed in {self.skipped_list}" if more else ""
        return f"skipped {len(self.skipped):,} broken pictures of {total:,}: {named}{more}{listed}"


def open_cached(
    source: Source, how: Treatment, root: Path, progress: Progress | None, skip_broken: bool = False
) -> Dataset:
    """The decoded set of `source`, from the cache under `root` or put there now."""
    treatment = (how.resolution, how.channels, how.fit, skip_broken)
    key = hashlib.sha256(repr((FORMAT, treatment, source.stamp)).encode(errors="surrogateescape")).hexdigest()
    short = re.sub(r"[^A-Za-z0-9_-]+", "_", source.name)[:40]
    folder = root / "decoded" / f"{short}-{key[:32]}"
    for _ in range(3):  # another process may be replacing a damaged entry at the very moment of reading
        dataset = _read(folder, source.name)
        if dataset is not None:
            return dataset
        _decode_into(folder, source, how, progress, skip_broken)
    raise DataError(f"the decoded pictures in {folder} are damaged when read back; check that disk")


def _read(folder: Path, name: str) -> Dataset | None:
    """The set in a cache folder; None if there is none or it is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        classes = tuple(meta["classes"])
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
        if images.dtype != np.uint8 or list(images.shape) != meta["shape"]:
            return None
        labels = None
        if classes:
            labels = np.load(folder / "labels.npy", allow_pickle=False)
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                return None
            if labels.min() < 0 or labels.max() >= len(classes):
                return None
            labels.flags.writeable = False
        skipped = tuple((folder / SKIPPED).read_text(encoding="utf-8").splitlines()) if meta["skipped"] else ()
        if len(skipped) != meta["skipped"]:
            return None
        listed = folder / SKIPPED if skipped else None
        return Dataset(images, labels, classes, name, str(meta["digest"]), skipped, listed)
    except (FileNotFoundError, NotADirectoryError, EOFError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _decode_into(folder: Path, source: Source, how: Treatment, progress: Progress | None, skip_broken: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    building = folder.parent / f".building-{secrets.token_hex(8)}"
    building.mkdir()
    try:
        with source.load() as pictures, warnings.catch_warnings():
            # Pillow warns about odd but readable files, naming none; broken ones are errors below.
            warnings.simplefilter("ignore")
            write_entry(building, pictures, how, progress, skip_broken)
        try:
            building.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            if _read(folder, source.name) is None:  # damaged, and not what another process has just finished
                old = folder.rename(folder.parent / f".building-{secrets.token_hex(8)}")
                building.rename(folder)
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-built more than a day ago."""
    for left in folder.glob(".building-*"):
        try:
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue  # its owner has finished it just now
