"""What each recipe makes of real pictures: its cost, score, speed and samples, as tables and pictures.

    python benchmarks/recipes.py measure RUN... --models FOLDER   # exports each run, scores it, draws its pictures
    python benchmarks/recipes.py time --models FOLDER             # all of FOLDER by turns; wants an idle machine
    python benchmarks/recipes.py show                             # the page's tables; pareto.png and curves.png

RUN is a folder of edgegan-train, finished or stopped. FOLDER gets, for each, NAME.onnx and NAME-int8.onnx;
--results, by default docs/recipes, NAME.json, NAME-samples.png and NAME-walk.png, where NAME is that of RUN's folder.
Scores are of 10,000 drawn pictures in the features of --features, by default lenet for digits and lenet-fashion for
garments. Times are the shortest of many rounds on one thread, of the float32 file as torch exported it, the lowered one
and the int8 one. Beside them the built-in model of digits is always timed: over its time, those of different days
compare on one processor.
"""

import argparse
import json
import re
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
from edgegan.trainer import recipes
from edgegan.trainer.dryrun import macs_of_drawing
from edgegan.trainer.report import command_of
from edgegan.trainer.run import Run

FORMS = {"plain": "-plain", "lowered": "", "int8": "-int8"}  # how the file of each form ends
RESULTS = Path(__file__).parents[1] / "docs" / "recipes"
DRAWN, COLUMNS, ROWS = 10_000, 10, 8  # pictures that are scored; pictures that are shown, but a row for each class
ROUNDS, SHORTEST = 30, 0.02  # of timing; seconds of a round at least
BATCHES = (1, 64)
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "fontsize": 8}  # a panel's legend, which hides no dot
YARDSTICK = "digits"  # the built-in model
SCORES = ("frechet", "precision", "recall", "class-accuracy")


def command(*words: object) -> str:
    """What one of our commands prints."""
    program = Path(sys.executable).with_name(str(words[0]))
    say("$ " + " ".join(map(str, words)))
    return subprocess.run([program, *map(str, words[1:])], check=True, stdout=subprocess.PIPE, text=True).stdout


# One run ------------------------------------------------------------------------------------------


def measure(folder: Path, models: Path, results: Path, features: list[str], psi: float) -> None:
    """Everything about one run but its speed."""
    run, name = Run.open(folder), folder.resolve().name
    files = {form: models / f"{name}{end}.onnx" for form, end in FORMS.items()}
    command("edgegan-export", folder, "-o", files["plain"], "--lower", "none", "--no-measure")
    command("edgegan-export", folder, "-o", files["lowered"], "--no-measure")
    classes = run.recipe.spec(run.config, run.settings.data.shape).classes
    wanted = ",".join(SCORES if classes else SCORES[:-1])
    data = [run.settings.data.source, *features, "--fit", run.settings.data.fit, "-n", DRAWN]
    data += ["--metrics", wanted, "--json", "-"]
    scores = {"float32": json.loads(command("edgegan-score", files["lowered"], *data))}
    network = scores["float32"]["features"]["name"]
    # Garments cost more in 8 bits than the default limit allows.
    int8 = ["--precision", "int8", "--max-quality-loss"]
    int8 += ["10%,25dB", "--features", network] if network.startswith("lenet") else ["25dB"]
    command("edgegan-export", folder, "-o", files["int8"], *int8, "--no-measure")
    scores["int8"] = json.loads(command("edgegan-score", files["int8"], *data, "--no-floor"))
    with torch.device("meta"):
        nets = run.build()
        drawing = run.recipe.export_module(nets)
    log = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    draw_samples(files["int8"], results / f"{name}-samples.png", psi)
    draw_walk(files["int8"], results / f"{name}-walk.png", psi)
    record = {
        "name": name,
        "recipe": run.settings.recipe,
        "data": run.settings.data.name,
        "size": [run.settings.data.height, run.settings.data.width, run.settings.data.channels],
        "classes": len(classes),
        "parameters": sum(parameter.numel() for parameter in drawing.parameters()),
        "macs": macs_of_drawing(run, nets),
        "asked_kimg": run.config.kimg,
        "kimg": log[-1]["kimg"],
        "hours": log[-1]["seconds"] / 3600,
        "processor": processor(),
        "bytes": {form: path.stat().st_size for form, path in files.items()},
        "features": network,
        "scores": {form: {name: score["value"] for name, score in of["scores"].items()} for form, of in scores.items()},
        "floor": {name: score["floor"]["value"] for name, score in scores["float32"]["scores"].items()},
        "curve": [[line["kimg"], line["score"]["frechet"]] for line in log if "frechet" in line.get("score", {})],
        "command": training_command(run),
        "int8": int8,
    }
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def training_command(run: Run) -> str:
    """The line that trains such a run, with the name of the data for where they were."""
    line = command_of(run).replace(shlex.quote(run.settings.data.source), run.settings.data.name)
    return re.sub(r"(\d)\.0(?= )", r"\1", line.removesuffix("-again"))


def draw_samples(path: Path, picture: Path, psi: float) -> None:
    """Rows of samples, for a model with classes a class in each column."""
    generator = edgegan.load(path)
    classes = min(COLUMNS, len(generator.spec.classes)) or COLUMNS
    labels = [i % classes for i in range(ROWS * classes)] if generator.spec.classes else None
    style = psi if generator.spec.style else None
    sheet = generator.grid(ROWS * classes, labels=labels, columns=classes, zoom=zoom_of(generator), psi=style)
    save(sheet, picture)


def draw_walk(path: Path, picture: Path, psi: float) -> None:
    """Rows of pictures between two latents: one a class where there are classes, else each with its own two."""
    generator = edgegan.load(path)
    spec = generator.spec
    shown = []
    for row in range(min(COLUMNS, len(spec.classes)) or ROWS):
        seeds, label = ((0, 1), row) if spec.classes else ((2 * row, 2 * row + 1), None)
        frames = generator.walk(seeds, COLUMNS - 1, loop=False, label=label, psi=psi if spec.style else None)
        shown += list(frames)
    save(grid(np.stack(shown), columns=COLUMNS, zoom=zoom_of(generator)), picture)


def zoom_of(generator: edgegan.Generator) -> int:
    """How many times small pictures are enlarged, to be seen."""
    return max(1, 64 // generator.spec.image_size[0])


def save(sheet: np.ndarray, path: Path) -> None:
    """As PNG of few colours: these pictures are shown in docs."""
    grey = sheet.shape[2] == 1
    image = Image.fromarray(sheet[..., 0] if grey else sheet)
    image.quantize(64 if grey else 256).save(path, optimize=True)


# All of them --------------------------------------------------------------------------------------


def time_all(models: Path, results: Path) -> None:
    """Seconds an image of every model at each batch, into its record: the best of rounds with a turn for each."""
    timed = [record for record in records(results) if (models / f"{record['name']}.onnx").exists()]
    sessions = {(YARDSTICK, "int8"): edgegan.load(threads=1)}
    for record in timed:
        for form, end in FORMS.items():
            sessions[record["name"], form] = edgegan.load(models / f"{record['name']}{end}.onnx", threads=1)
    best: dict[tuple[str, str], dict[str, float]] = {key: {} for key in sessions}
    for batch in BATCHES:
        feeds = {key: inputs_of(model.spec, 0, batch) for key, model in sessions.items()}
        for _ in range(ROUNDS):
            for key, model in sessions.items():
                start, runs = time.perf_counter(), 0
                while runs == 0 or time.perf_counter() - start < SHORTEST:
                    model.run(feeds[key])
                    runs += 1
                took = (time.perf_counter() - start) / runs / batch
                best[key][str(batch)] = min(took, best[key].get(str(batch), np.inf))
    for record in timed:
        seconds = {form: best[record["name"], form] for form in FORMS}
        record["time"] = {"processor": processor(), "seconds": seconds, YARDSTICK: best[YARDSTICK, "int8"]}
        (results / f"{record['name']}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def records(results: Path) -> list[dict[str, Any]]:
    """What was measured, by data and recipe."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    return sorted(found, key=lambda r: (r["size"], r["data"], r["recipe"], r["name"]))


def show(results: Path) -> None:
    """The table, a section for each run, and the picture of distance over time."""
    print(
        "| run | paper | data | parameters of G | multiply-adds | kimg | hours | Fréchet distance: float32, int8 "
        "(real) | ms an image: float32, int8 | of 64 at once | int8 over `digits`, on | int8 kB |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for record in records(results):
        float32, int8 = (record["scores"][form]["frechet"] for form in ("float32", "int8"))
        cells = [
            f"[{record['name']}](#{record['name']})",
            paper_of(record["recipe"]),
            pictures_of(record),
            f"{record['parameters']:,}",
            f"{record['macs'] / 1e6:.2f} M",
            f"{record['kimg']:.0f}",
            f"{record['hours']:.1f}",
            f"{float32:.3g}, {int8:.3g} ({record['floor']['frechet']:.2g}) {record['features']}",
            *times_of(record),
            f"{record['bytes']['int8'] / 1000:.0f}",
        ]
        print("| " + " | ".join(cells) + " |")
    for record in records(results):
        print_section(record)
    timed, scored = ([r for r in records(results) if r.get(name)] for name in ("time", "curve"))
    if timed:
        draw_pareto(timed, results / "pareto.png")
    if scored:
        draw_curves(scored, results / "curves.png")


def paper_of(recipe: str) -> str:
    """Author and year of the paper that the recipe names first."""
    found = re.search(r"Papers?[^:]*: ([\w-]+)(, [\w-]+)* (\d{4}),", recipes.describe(recipe).paper.replace("\n", " "))
    if found is None:
        raise SystemExit(f"recipe {recipe} names no paper")
    return f"{found[1]}{' et al.' if found[2] else ''} {found[3]}"


def pictures_of(record: dict[str, Any]) -> str:
    """What it draws: the data set, and the pictures' width and height."""
    height, width, channels = record["size"]
    return f"{record['data']} {width}x{height}{' in colour' if channels == 3 else ''}"


def times_of(record: dict[str, Any]) -> tuple[str, str, str]:
    """Milliseconds an image, alone and of 64; and those of int8, alone, over the built-in model's of digits."""
    if "time" not in record:
        return "", "", ""
    of = record["time"]["seconds"]
    plain, int8 = of["plain"], of["int8"]
    alone, together = (f"{plain[n] * 1e3:.3f}, {int8[n] * 1e3:.3f}" for n in map(str, BATCHES))
    return alone, together, f"{int8['1'] / record['time'][YARDSTICK]['1']:.1f}, {timed_on(record)}"


def timed_on(record: dict[str, Any]) -> str:
    """The processor's name, short."""
    return re.sub(r"^(Intel|AMD)(\(R\))? |\(R\)|\(TM\)| Processor", "", record["time"]["processor"]).strip()


def print_section(record: dict[str, Any]) -> None:
    """The pictures, the scores and the three commands of a run."""
    name = record["name"]
    print(f"\n### {name}\n\n![samples](recipes/{name}-samples.png) ![a walk](recipes/{name}-walk.png)\n")
    print("| | " + " | ".join(SCORES) + " |\n|---|" + "---:|" * len(SCORES))
    rows = {"float32": record["scores"]["float32"], "int8": record["scores"]["int8"], "real": record["floor"]}
    for form, values in rows.items():
        cells = ["" if values.get(score) is None else f"{values[score]:.4g}" for score in SCORES]
        print(f"| {form} | " + " | ".join(cells) + " |")
    if record["kimg"] < 0.99 * record["asked_kimg"]:
        print(f"\nStopped at {record['kimg']:.0f} kimg.")
    print(f"\n```sh no-test\n{record['command']}")
    print(f"edgegan-export {name} -o {name}.onnx {shlex.join(record['int8'])}")
    print(f"edgegan sample {name}.onnx -n 64 -o {name}.png\n```")


def panels_of(members: list[dict[str, Any]]) -> tuple[Any, list[tuple[Any, list[dict[str, Any]]]]]:
    """A figure with a panel for each data set, size of pictures and network, and each panel's records.

    Data sets of the same pictures, with classes or without, are told by the same distance between real ones.
    """
    from matplotlib.figure import Figure

    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in members:
        key = (str(record["size"]), record["features"], f"{record['floor']['frechet']:.3g}")
        groups.setdefault(key, []).append(record)
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(groups) :]:
        ax.remove()
    for ax, group in zip(axes, groups.values(), strict=False):
        first = group[0]
        ax.axhline(first["floor"]["frechet"], color="grey", linestyle=":", label="real pictures")
        ylabel = f"Fréchet distance to real pictures ({first['features']})"
        ax.set(yscale="log", ylabel=ylabel, title=pictures_of(first))
        ax.grid(alpha=0.3, which="both")
    return figure, list(zip(axes, groups.values(), strict=False))


def draw_pareto(timed: list[dict[str, Any]], path: Path) -> None:
    """Frechet distance over the time of an image."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, panels = panels_of(timed)
    for ax, group in panels:
        for index, record in enumerate(group):
            for form, marker in (("plain", "s"), ("lowered", "^"), ("int8", "o")):
                x = record["time"]["seconds"][form]["1"] / record["time"][YARDSTICK]["1"]
                y = record["scores"]["int8" if form == "int8" else "float32"]["frechet"]
                label = f"{record['name']}, {timed_on(record)}" if form == "int8" else None
                ax.plot(x, y, marker, color=f"C{index}", label=label, markersize=6)
        ax.set(xscale="log", xlabel="time of an image over that of the built-in digits")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend(title="square: as exported\ntriangle: lowered\ncircle: int8", title_fontsize=8, **BESIDE)
    figure.savefig(path, dpi=100)


def draw_curves(scored: list[dict[str, Any]], path: Path) -> None:
    """Frechet distance over the images shown, of the runs that were scored while they trained."""
    figure, panels = panels_of(scored)
    for ax, group in panels:
        for index, record in enumerate(group):
            ax.plot(*zip(*record["curve"], strict=True), ".-", color=f"C{index}", label=record["name"])
        ax.set(xlabel="kimg shown")
        ax.legend(**BESIDE)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("measure", help="export, score and draw runs")
    one.add_argument("runs", nargs="+", type=Path)
    one.add_argument("--features", metavar="NAME|FILE", help="as of edgegan-score")
    one.add_argument("--preparation", metavar="JSON", help="as of edgegan-score")
    one.add_argument("--psi", type=float, default=0.7, help="of what is shown (default: %(default)s)")
    timing = commands.add_parser("time", help="time all")
    for each in (one, timing):
        each.add_argument("--models", type=Path, required=True, help="where the exported files are kept")
    for each in (one, timing, commands.add_parser("show", help="print the table")):
        each.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    if options.command == "measure":
        options.models.mkdir(parents=True, exist_ok=True)
        given = {"--features": options.features, "--preparation": options.preparation}
        features = [word for flag, value in given.items() if value for word in (flag, value)]
        for folder in options.runs:
            measure(folder, options.models, options.results, features, options.psi)
    elif options.command == "time":
        time_all(options.models, options.results)
    else:
        show(options.results)


if __name__ == "__main__":
    main()
