"""The programs in examples/ build with the command that they state and draw what Python draws."""

import re
import subprocess
from pathlib import Path

import pytest

from edgegan import _backend, noise
from edgegan.image import blank_sheet, encode_png, to_uint8

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(_backend.NAME == "python", reason="compares with the C core's PNG files, to the byte")
def test_sheet(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "sheet.c").read_text(encoding="ascii")
    (command,) = re.findall(r"^ \*     (cc .*) && \./sheet 7 sheet\.png$", source, flags=re.M)
    command = command.replace("-o sheet", f"-o {tmp_path}/sheet")
    subprocess.run(command, shell=True, cwd=ROOT, check=True)
    subprocess.run([tmp_path / "sheet", "7", tmp_path / "sheet.png"], check=True)

    images = noise.normal(7, 4, 3 * 32 * 32).reshape(4, 3, 32, 32)
    sheet, tiles = blank_sheet(4, (32, 32), 3, zoom=4, gap=2)
    for i, row in enumerate(tiles):
        to_uint8(images[2 * i : 2 * i + 2], row, zoom=4)
    assert (tmp_path / "sheet.png").read_bytes() == encode_png(sheet, {"seed": "7"})

    wrong = subprocess.run([tmp_path / "sheet"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr == "usage: sheet SEED FILE.png\n"
