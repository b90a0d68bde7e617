"""The same emoji as two artists drew them: an unpaired translation whose truth is known, for `cyclegan`.

    python benchmarks/emoji_pairs.py emoji                   # on Debian or Ubuntu: apt-get fetches two packages
    python benchmarks/emoji_pairs.py emoji --packages FOLDER # of the two .deb files, fetched by hand
    edgegan-train cyclegan --source emoji/unpaired/emojione --data emoji/unpaired/noto --out emoji-run
    edgegan-train cyclegan --paired --source emoji/paired/emojione --data emoji/paired/noto --out emoji-pairs-run

The artists: EmojiOne 2 (package ruby-gemojione, CC BY 4.0 or CC BY-SA 4.0) and Noto Emoji (ruby-tanuki-emoji, Apache
2.0). Of the emoji that both drew, without those that differ in the tone of skin alone, one in five is kept for tests.
The rest is halved: in unpaired/ each artist has another half, so that no emoji is in both training sets; in paired/
both have all of it. test/ has the same names in both folders. Pictures are square, on white.
"""

import argparse
import re
import tempfile
from pathlib import Path

from common import say
from debian import unpack
from PIL import Image

PACKAGES = {"emojione": "ruby-gemojione", "noto": "ruby-tanuki-emoji"}
TONES = re.compile(r"1f3f[b-f]")  # Fitzpatrick's modifiers
TEST_SHARE = 5  # one in so many


def name_of(path: Path) -> str:
    """ "1f600" for emoji_u1f600.png and 1F600.png; "" for a picture that is no emoji, or of a tone of skin."""
    name = path.stem.lower().removeprefix("emoji_u").replace("_", "-")
    is_emoji = re.fullmatch(r"[0-9a-f]{2,6}(-[0-9a-f]{2,6})*", name) and not TONES.search(name)
    return name if is_emoji else ""


def drawn(path: Path, side: int) -> Image.Image:
    """The picture on white, side x side."""
    with Image.open(path) as picture:
        layer = picture.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def parts_of(names: list[str]) -> dict[str, dict[str, list[str]]]:
    """{"unpaired/emojione": names, ...}: every fifth for tests, of the rest every other for one artist."""
    test = names[::TEST_SHARE]
    rest = [name for i, name in enumerate(names) if i % TEST_SHARE]
    halves = dict(zip(PACKAGES, (rest[::2], rest[1::2]), strict=True))
    return {
        "unpaired": halves,
        "paired": dict.fromkeys(PACKAGES, rest),
        "test": dict.fromkeys(PACKAGES, test),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the pictures")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--packages", type=Path, help="a folder with the two .deb files")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = unpack(list(PACKAGES.values()), Path(temporary), options.packages)
        pictures = {
            artist: {name_of(path): path for path in folders[package].rglob("*.png") if name_of(path)}
            for artist, package in PACKAGES.items()
        }
        names = sorted(set.intersection(*map(set, pictures.values())))
        for part, artists in parts_of(names).items():
            for artist, chosen in artists.items():
                target = options.folder / part / artist
                target.mkdir(parents=True)
                for name in chosen:
                    drawn(pictures[artist][name], options.size).save(target / f"{name}.png")
                say(f"{target}: {len(chosen)} pictures of {options.size}x{options.size}")


if __name__ == "__main__":
    main()
