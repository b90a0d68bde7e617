"""Draw a data set of aligned cartoon faces: colour, on white, as many as you like.

    pip install resvg-py                                     # and node with npm
    python benchmarks/cartoon_faces.py faces                 # 10,000 PNGs of 64x64 in a new folder
    python benchmarks/cartoon_faces.py faces128 --size 128 -n 20000
    edgegan-train stylegan --data faces --out faces-run

The drawings are "Adventurer" by Lisa Wischofsky (CC BY 4.0), put together at random by DiceBear, whose packages of a
fixed version npm downloads: the same seed draws the same faces. faces.csv beside the pictures says what each is made
of: eyes, mouth, hair, glasses, colours.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import say

PACKAGES = ("@dicebear/core@9.4.3", "@dicebear/adventurer@9.4.3")
ATTRIBUTES = ("eyes", "eyebrows", "mouth", "hair", "hairColor", "skinColor", "glasses", "earrings", "features")
DRAW = """
import { createAvatar } from '@dicebear/core';
import * as adventurer from '@dicebear/adventurer';
const [seed, n, size] = process.argv.slice(2).map(Number);
for (let i = 0; i < n; i++) {
    const face = createAvatar(adventurer, { seed: `${seed}-${i}`, size, backgroundColor: ['ffffff'] });
    console.log(JSON.stringify({ svg: face.toString(), extra: face.toJson().extra }));
}
"""


def draw(seed: int, n: int, size: int) -> Iterator[dict[str, Any]]:
    """{"svg": text, "extra": what it is made of} for each face."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("--silent", "--no-fund", "--no-audit")
        subprocess.run(("npm", "install", *quiet, *PACKAGES), cwd=folder, check=True, stdout=sys.stderr)
        script = Path(folder) / "draw.mjs"
        script.write_text(DRAW, encoding="utf-8")
        command = ("node", script.name, str(seed), str(n), str(size))
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield from map(json.loads, process.stdout)
        if process.returncode:
            raise SystemExit(f"node ended with status {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder for the pictures")
    parser.add_argument("-n", type=int, default=10_000, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise SystemExit("cartoon_faces.py needs resvg-py: pip install resvg-py") from None
    if options.folder.exists():
        raise SystemExit(f"{options.folder} is there already; give a new folder")
    partial = options.folder.with_name(options.folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was stopped
    partial.mkdir(parents=True)
    with (partial / "faces.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("file", *ATTRIBUTES))
        for i, face in enumerate(draw(options.seed, options.n, options.size)):
            name = f"{i:05}.png"
            (partial / name).write_bytes(bytes(svg_to_bytes(svg_string=face["svg"], skip_system_fonts=True)))
            table.writerow((name, *(face["extra"].get(attribute, "") for attribute in ATTRIBUTES)))
            if (i + 1) % 1000 == 0:
                say(f"{i + 1} of {options.n}")
    os.replace(partial, options.folder)


if __name__ == "__main__":
    main()
