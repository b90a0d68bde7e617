"""OpenVINO for benchmarks/export.py, in a process and an environment of its own.

    python -m venv VENV && VENV/bin/pip install openvino nncf
    python benchmarks/export.py --openvino VENV/bin/python

Reads requests from stdin, a line of JSON each, and answers each with a line on stdout:
{"quantize": [model, latents.npy, to]}; {"open": [model, threads]}, the answer is a number; {"time": [number,
latents.npy, runs]}, the answer is [seconds, processor seconds]; {"draw": [number, latents.npy, to.npy]}.
"""

import contextlib
import json
import sys
import time

import numpy as np
import openvino as ov

BATCH = 50  # of what is drawn


def quantize(model: str, latents: str, to: str) -> None:
    import nncf

    z = np.load(latents)
    ov.save_model(nncf.quantize(ov.Core().read_model(model), nncf.Dataset(list(z[:, None])), subset_size=len(z)), to)


def main() -> None:
    requests, answers = sys.stdin, sys.stdout
    core, opened = ov.Core(), []
    for line in requests:
        (what, arguments), answer = next(iter(json.loads(line).items())), None
        with contextlib.redirect_stdout(sys.stderr):
            if what == "quantize":
                quantize(*arguments)
            elif what == "open":
                model, threads = arguments
                how = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
                compiled = core.compile_model(model, "CPU", how | {"INFERENCE_PRECISION_HINT": "f32"})
                opened.append(compiled.create_infer_request())
                answer = len(opened) - 1
            elif what == "time":
                number, latents, runs = arguments
                z, request = np.load(latents), opened[number]
                request.infer([z])
                start, used = time.perf_counter(), time.process_time()
                for _ in range(runs):
                    request.infer([z], share_inputs=True, share_outputs=True)
                answer = [time.perf_counter() - start, time.process_time() - used]
            else:
                number, latents, to = arguments
                z = np.load(latents)
                drawn = [opened[number].infer([z[i : i + BATCH]])[0] for i in range(0, len(z), BATCH)]
                np.save(to, np.concatenate(drawn))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
