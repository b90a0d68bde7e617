"""Sharp photographs for super-resolution, split by photograph: wallpapers of Debian's packages, made smaller.

    python benchmarks/photographs.py photos                    # on Debian or Ubuntu: apt-get fetches three packages
    python benchmarks/photographs.py photos --packages FOLDER  # of the .deb files, fetched by hand
    edgegan-train superres --data photos/train --resolution 64 --fit tiles --out sharper-run

Each is made smaller, to 1,600 pixels at its longer side, where the camera's blur and JPEG's blocks are gone. One in
five goes to test/, the others to train/; of one photograph in several sizes only the largest is taken. Licences: those
of the packages lomiri-wallpapers-16.04, lomiri-wallpapers-20.04 and mate-backgrounds, file by file.
"""

import argparse
import tempfile
from pathlib import Path

from common import say
from debian import unpack
from PIL import Image

PACKAGES = ["lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds"]
SIDE = 1600  # pixels
TEST_SHARE = 5  # one in so many


def photographs(folders: list[Path]) -> list[Path]:
    """The files, sorted by name, one of each photograph. MATE's other wallpapers are drawings."""
    largest: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.jpg") if not path.is_symlink()):
        if "mate" in path.parts and "nature" not in path.parts:
            continue
        name = path.stem.rstrip("0123456789x_")
        if name not in largest or path.stat().st_size > largest[name].stat().st_size:
            largest[name] = path
    return [largest[name] for name in sorted(largest)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the pictures")
    parser.add_argument("--packages", type=Path, help="a folder with the .deb files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        paths = photographs(list(unpack(PACKAGES, Path(temporary), options.packages).values()))
        for part in ("train", "test"):
            (options.folder / part).mkdir(parents=True)
        for i, path in enumerate(paths):
            with Image.open(path) as picture:
                smaller = picture.convert("RGB")
            smaller.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
            smaller.save(options.folder / ("train" if i % TEST_SHARE else "test") / f"{path.stem}.png")
    say(f"{options.folder}: {len(paths)} photographs, one in {TEST_SHARE} of them in test/")


if __name__ == "__main__":
    main()
