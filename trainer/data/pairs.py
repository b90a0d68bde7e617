"""Two sets of one training: pictures to be translated, and how they should look.

dataset = with_source(zebras, horses)       # dataset.source are the horses
"""

from dataclasses import replace
from pathlib import Path, PurePath

from edgegan.errors import DataError, printable
from edgegan.trainer.data.cache import Dataset
from edgegan.trainer.data.sources import find_source


def with_source(dataset: Dataset, source: Dataset, paired: bool = False) -> Dataset:
    """`dataset` with the pictures that are to be turned into such as its own.

    paired: picture i of one belongs to picture i of the other; see also `check_names`. Raises DataError for pictures of
    other sizes or channels, and for pairs of which some lack a partner.
    """
    (_, h, w, c), (_, h2, w2, c2) = dataset.images.shape, source.images.shape
    if (h, w, c) != (h2, w2, c2):
        raise DataError(
            f"the pictures of {dataset.name} are {w}x{h}x{c}, those of {source.name} {w2}x{h2}x{c2}; make them alike: "
            "pass --resolution N"
        )
    if paired:
        for each in (dataset, source):
            if each.skipped:
                raise DataError(f"pairs would not match any more: {each.skipped_line}; take out their partners, too")
        if len(dataset) != len(source):
            raise DataError(
                f"{dataset.name} has {len(dataset):,} pictures, {source.name} {len(source):,}; valid for pairs: as many"
            )
    return replace(dataset, source=source)


def check_names(data: str, source: str, root: Path, download_from: str | None = None) -> None:
    """Raise DataError unless the pictures of two sources, as --data takes them, have the same names in their order.

    Folders and the kind of file do not matter: day/1.png belongs to night/1.jpg. Pictures of arrays have no names but
    their numbers.
    """
    theirs, ours = (_names(each, root, download_from) for each in (source, data))
    if len(ours) != len(theirs):
        raise DataError(
            f"{printable(data)} and {printable(source)} have {len(ours):,} pictures and {len(theirs):,}; valid for "
            "pairs: as many"
        )
    for ours_name, theirs_name in zip(ours, theirs, strict=True):
        if PurePath(ours_name).with_suffix("") != PurePath(theirs_name).with_suffix(""):
            raise DataError(
                f"{printable(data)} and {printable(source)} are no pairs: {printable(ours_name)} would belong to "
                f"{printable(theirs_name)}; give both the same name"
            )


def _names(source: str, root: Path, download_from: str | None) -> list[str]:
    with find_source(source, root, download_from, None).load() as pictures:
        return [pictures.name(i) for i in range(pictures.count)]
