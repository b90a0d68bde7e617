"""What each recipe makes of real pictures: its cost, score, speed and samples, as tables and pictures.

    python benchmarks/recipes.py measure RUN... --results FOLDER   # exports each run, scores it, draws its pictures
    python benchmarks/recipes.py time --results FOLDER             # all of them by turns; wants an idle machine
    python benchmarks/recipes.py show --results FOLDER             # the table in Markdown, and pareto.png

RUN is a finished folder of edgegan-train. FOLDER gets, for each, NAME.onnx and NAME-int8.onnx, NAME-samples.png,
NAME-walk.png and NAME.json, where NAME is that of RUN's folder. Scores are of 10,000 drawn pictures in the features of
--features, by default lenet for digits and lenet-fashion for garments. Times are the shortest of many rounds on one
thread, of the float32 file as torch exported it, the lowered one and the int8 one.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import say
from PIL import Image

import edgegan
from edgegan.devices import processor
from edgegan.image import grid
from edgegan.model import inputs_of
from edgegan.trainer.dryrun import macs_of_drawing
from edgegan.trainer.report import command_of
from edgegan.trainer.run import Run

FORMS = {"plain": "-plain", "lowered": "", "int8": "-int8"}  # how the file of each form ends
DRAWN, GRID, STEPS, ROWS = 10_000, 64, 10, 10
ROUNDS, SHORTEST = 30, 0.02  # of timing; seconds of a round at least
BATCHES = (1, 64)
SCORES = ("frechet", "precision", "recall", "class-accuracy")


def command(*words: object) -> str:
    """What one of our commands prints."""
    program = Path(sys.executable).with_name(str(words[0]))
    say("$ " + " ".join(map(str, words)))
    return subprocess.run([program, *map(str, words[1:])], check=True, stdout=subprocess.PIPE, text=True).stdout


# One run ------------------------------------------------------------------------------------------


def measure(folder: Path, results: Path, features: list[str], psi: float) -> None:
    """Everything about one run but its speed."""
    run, name = Run.open(folder), folder.resolve().name
    files = {form: results / f"{name}{end}.onnx" for form, end in FORMS.items()}
    command("edgegan-export", folder, "-o", files["plain"], "--lower", "none", "--no-measure")
    command("edgegan-export", folder, "-o", files["lowered"], "--no-measure")
    command("edgegan-export", folder, "-o", files["int8"], "--precision", "int8", "--no-measure")
    data = ["--fit", run.settings.data.fit, "-n", DRAWN, "--json", "-"]
    score = ["edgegan-score", files["lowered"], run.settings.data.source, *features, *data]
    scored = json.loads(command(*score))
    int8 = json.loads(command("edgegan-score", files["int8"], run.settings.data.source, *features, *data, "--no-floor"))
    with torch.device("meta"):
        nets = run.build()
        drawing = run.recipe.export_module(nets)
    last = json.loads(run.log.read_text(encoding="utf-8").splitlines()[-1])
    draw_samples(files["lowered"], results / f"{name}-samples.png", psi)
    draw_walk(files["lowered"], results / f"{name}-walk.png", psi)
    record = {
        "name": name,
        "recipe": run.settings.recipe,
        "data": run.settings.data.name,
        "size": [run.settings.data.height, run.settings.data.width, run.settings.data.channels],
        "classes": len(run.settings.data.classes),
        "parameters": sum(parameter.numel() for parameter in drawing.parameters()),
        "macs": macs_of_drawing(run, nets),
        "kimg": last["kimg"],
        "hours": last["seconds"] / 3600,
        "bytes": {form: path.stat().st_size for form, path in files.items()},
        "scores": scored,
        "int8": int8,
        "command": training_command(run),
    }
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def training_command(run: Run) -> str:
    """The line that trains such a run, with the name of the data for where they were."""
    return command_of(run).replace(shlex.quote(run.settings.data.source), run.settings.data.name)


def draw_samples(path: Path, picture: Path, psi: float) -> None:
    """64 samples, for a model with classes a class in each column."""
    generator = edgegan.load(path)
    labels = [i % min(8, len(generator.spec.classes)) for i in range(GRID)] if generator.spec.classes else None
    zoom = max(1, 56 // generator.spec.image_size[0])
    style = psi if generator.spec.style else None
    save(generator.grid(GRID, labels=labels, columns=8, zoom=zoom, psi=style), picture)


def draw_walk(path: Path, picture: Path, psi: float) -> None:
    """Rows of pictures between two latents: one a class where there are classes, else each with its own two."""
    generator = edgegan.load(path)
    spec = generator.spec
    rows = min(ROWS, len(spec.classes)) or ROWS // 2
    shown = []
    for row in range(rows):
        seeds, label = ((0, 1), row) if spec.classes else ((2 * row, 2 * row + 1), None)
        frames = generator.walk(seeds, STEPS - 1, loop=False, label=label, psi=psi if spec.style else None)
        shown += list(frames)
    zoom = max(1, 56 // spec.image_size[0])
    save(grid(np.stack(shown), columns=STEPS, zoom=zoom), picture)


def save(sheet: np.ndarray, path: Path) -> None:
    """As PNG of at most 256 colours: these pictures are shown in docs."""
    image = Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)
    (image if image.mode == "L" else image.quantize(256)).save(path, optimize=True)


# All of them --------------------------------------------------------------------------------------


def time_all(results: Path) -> None:
    """Seconds an image of every model at each batch: the best of rounds in which all have their turn."""
    models = {
        (record["name"], form): edgegan.load(results / f"{record['name']}{end}.onnx", threads=1)
        for record in records(results)
        for form, end in FORMS.items()
    }
    best: dict[str, dict[str, dict[str, float]]] = {}
    for batch in BATCHES:
        feeds = {key: inputs_of(model.spec, 0, batch) for key, model in models.items()}
        for _ in range(ROUNDS):
            for (name, form), model in models.items():
                start, runs = time.perf_counter(), 0
                while runs == 0 or time.perf_counter() - start < SHORTEST:
                    model.run(feeds[name, form])
                    runs += 1
                took = (time.perf_counter() - start) / runs / batch
                place = best.setdefault(name, {}).setdefault(form, {})
                place[str(batch)] = min(took, place.get(str(batch), np.inf))
    text = json.dumps({"processor": processor(), "seconds": best}, indent=1)
    (results / "times.json").write_text(text + "\n", encoding="utf-8")


def records(results: Path) -> list[dict[str, Any]]:
    """What was measured, by data and recipe."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    return sorted((r for r in found if "recipe" in r), key=lambda r: (r["data"], r["recipe"], r["name"]))


def show(results: Path) -> None:
    """The table, and the picture of distance over time."""
    times_path = results / "times.json"
    times = json.loads(times_path.read_text(encoding="utf-8")) if times_path.exists() else {"seconds": {}}
    print("| run | data | parameters of G | MMACs | kimg | hours | " + " | ".join(SCORES), end="")
    print(" | int8 frechet | us an image: float32, lowered, int8 | the same, batch 64 | int8 kB |")
    print("|---|---|---:|---:|---:|---:|" + "---:|" * (len(SCORES) + 4))
    for record in records(results):
        height, width, channels = record["size"]
        cells = [
            record["name"],
            f"{record['data']} {width}x{height}x{channels}",
            f"{record['parameters']:,}",
            f"{record['macs'] / 1e6:.2f}",
            f"{record['kimg']:g}",
            f"{record['hours']:.1f}",
            *(value_of(record["scores"], name) for name in SCORES),
            value_of(record["int8"], "frechet"),
            *(microseconds(times["seconds"].get(record["name"], {}), str(batch)) for batch in BATCHES),
            f"{record['bytes']['int8'] / 1000:.0f}",
        ]
        print("| " + " | ".join(cells) + " |")
    print()
    for record in records(results):
        print(f"- {record['name']}: `{record['command']}`")
    if times["seconds"]:
        print(f"\nTimes on {times['processor']}.")
        draw_pareto(results, times["seconds"])


def value_of(report: dict[str, Any], name: str) -> str:
    score = report["scores"].get(name)
    return "" if score is None else f"{score['value']:.4g}"


def microseconds(times: dict[str, dict[str, float]], batch: str) -> str:
    return ", ".join(f"{times[form][batch] * 1e6:.0f}" for form in FORMS if form in times)


def draw_pareto(results: Path, times: dict[str, dict[str, dict[str, float]]]) -> None:
    """Frechet distance over the time of an image, a panel for each data set and network."""
    from matplotlib.figure import Figure

    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records(results):
        if record["name"] in times and "frechet" in record["scores"]["scores"]:
            network = record["scores"]["features"]["name"]
            groups.setdefault((record["data"], network), []).append(record)
    figure = Figure(figsize=(5 * len(groups), 4.2), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for ax, ((data, network), members) in zip(axes, groups.items(), strict=True):
        for index, record in enumerate(members):
            for form, marker in (("plain", "s"), ("lowered", "^"), ("int8", "o")):
                report = record["int8"] if form == "int8" else record["scores"]
                x = times[record["name"]][form]["1"] * 1e3
                y = report["scores"]["frechet"]["value"]
                label = record["name"] if form == "int8" else None
                ax.plot(x, y, marker, color=f"C{index}", label=label, markersize=6)
        ax.set(xscale="log", yscale="log", xlabel="ms an image, one at a time, one thread", title=f"{data}, {network}")
        ax.set_ylabel("Frechet distance to real pictures")
        ax.grid(alpha=0.3, which="both")
        ax.legend(fontsize=8, title="square: as exported, triangle: lowered, circle: int8", title_fontsize=7)
    figure.savefig(results / "pareto.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("measure", help="export, score and draw finished runs")
    one.add_argument("runs", nargs="+", type=Path)
    one.add_argument("--features", metavar="NAME|FILE", help="as of edgegan-score")
    one.add_argument("--preparation", metavar="JSON", help="as of edgegan-score")
    one.add_argument("--psi", type=float, default=0.7, help="of what is shown (default: %(default)s)")
    for each in (
        one,
        commands.add_parser("time", help="time all"),
        commands.add_parser("show", help="print the table"),
    ):
        each.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    if options.command == "measure":
        given = {"--features": options.features, "--preparation": options.preparation}
        features = [word for flag, value in given.items() if value for word in (flag, value)]
        for folder in options.runs:
            measure(folder, options.results, features, options.psi)
    elif options.command == "time":
        time_all(options.results)
    else:
        show(options.results)


if __name__ == "__main__":
    main()
