"""edgegan-score: the numbers it gives, what it keeps, and what it says when it cannot."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import MakeTiny
from onnx import TensorProto, helper
from PIL import Image

import edgegan
from edgegan import noise
from edgegan.errors import ArgumentError, EdgeGANWarning
from edgegan.image import on_white
from edgegan.model import BUILT_IN
from edgegan.trainer.data import Dataset, open_dataset, sample_order
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.metrics.manifold import manifold, nearest
from edgegan.trainer.metrics.prd import precision_recall_curve
from edgegan.trainer.scoring import score as score_module
from edgegan.trainer.scoring.cli import cli
from edgegan.trainer.scoring.figure import CHART, CURVE, LINE, MARGIN, save_figure
from edgegan.trainer.scoring.metrics import NAMES, Comparison, lacks_classes
from edgegan.trainer.scoring.score import score
from edgegan.trainer.scoring.sets import Seen, see_drawn, see_real
from support import TEN, Exits, command, save_picture

N = 300


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits", resolution=28, channels=1)


@pytest.fixture(scope="module")
def lenet() -> FeatureNetwork:
    return open_features("lenet", threads=1)


@pytest.fixture(autouse=True)
def few_pictures() -> Any:
    """Most tests take fewer pictures than a score should; those that are about it look at the warnings themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeGANWarning)
        yield


def fails(capfd: pytest.CaptureFixture[str], status: int, args: list[Any], *parts: str) -> None:
    Exits(capfd, *map(str, args), command=cli).fails(status, *parts)


def network(path: Path, op: str, channels: int = 1, side: int | str = 28) -> str:
    """A network of unknown preparation: `op` of each pixel, whose mean over all is the only feature of a channel."""
    nodes = [helper.make_node(op, ["x"], ["y"]), helper.make_node("GlobalAveragePool", ["y"], ["features"])]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", channels, side, side]), ("features", ["N", channels, 1, 1]))
    ]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_the_scores_are_those_of_the_metrics(digits: Dataset, lenet: FeatureNetwork) -> None:
    generator = edgegan.load(threads=1)
    report, _ = score(generator, digits, lenet, N, seed=3, k=4)
    drawn, real = lenet.run(generator.sample(N, 3)), lenet(digits.images)
    assert list(report.scores) == list(report.floor) == list(NAMES)
    assert report.missing == {}
    found = report.scores["frechet"]
    expected = frechet_distance(Statistics.of(drawn.features), Statistics.of(real))
    assert (found.drawn, found.real) == (N, 10_000)
    assert found.value == pytest.approx(expected, rel=1e-6)
    some = real[np.sort(sample_order(0, 0, N, 10_000))]
    for name, value in manifold(drawn.features, some, 4)._asdict().items():
        assert report.scores[name].value == value
    assert drawn.logits is not None
    asked = noise.labels(3, N, 10)
    assert report.scores["class-accuracy"].value == (drawn.logits.argmax(axis=1) == asked).mean()
    # Real pictures in their place.
    order = sample_order(1, 0, 10_000, 10_000)
    floor = frechet_distance(Statistics.of(real[order[:N]]), Statistics.of(real[order[N:]]))
    assert report.floor["frechet"].value == pytest.approx(floor, rel=1e-6)
    assert 0 < expected < 2
    assert 0.9 < report.scores["class-accuracy"].value < report.floor["class-accuracy"].value


def test_pictures_are_the_same_in_chunks_of_any_size(lenet: FeatureNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = edgegan.load(threads=1)
    whole = see_drawn(generator, lenet, 200, 5)
    monkeypatch.setattr("edgegan.trainer.scoring.sets.CHUNK_BYTES", 1)
    parts = see_drawn(generator, lenet, 200, 5)
    assert np.array_equal(whole.features, parts.features)
    assert whole.pictures is not None
    assert np.array_equal(whole.pictures, generator.sample(200, 5))
    assert parts.pictures is not None
    assert np.array_equal(parts.pictures, whole.pictures[:2])


def test_the_command_says_the_same_again_in_json_and_for_people(tmp_path: Path) -> None:
    """In a fresh process, without torch or onnx: the second time with the real features that the first has kept."""
    args = [str(BUILT_IN), "digits", "-n", str(N), "--threads", "1", "--per-class", "--json"]
    code = (
        "import sys; from edgegan.trainer.scoring import cli; sys.argv[1:] = {}\n"
        "try: cli.main()\nexcept SystemExit as e: assert not e.code\n"
        "loaded = [m for m in ('torch', 'onnx', 'matplotlib') if m in sys.modules]; assert not loaded, loaded"
    )
    first, again = (
        subprocess.run(
            [sys.executable, "-c", code.format([*args, "-"])], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    )
    found = json.loads(first.stdout)
    assert first.stdout == again.stdout
    assert found["model"]["sha256"] == edgegan.load().digest
    assert found["features"]["name"] == "lenet"
    assert found["features"]["preparation"]["resize"] == "bicubic"
    assert found["samples"] == {"drawn": N, "real": 10000, "seed": 0, "batch": 8, "k": 5, "floor": [N, 9700]}
    assert list(found["scores"]) == list(NAMES)
    assert set(found["scores"]["kernel"]) == {"title", "value", "error", "drawn", "real", "floor", "better"}
    assert list(found["per_class"]) == [str(k) for k in range(10)]
    assert all(0.8 < each["accuracy"] <= 1 < each["frechet"] for each in found["per_class"].values())
    few = [line.partition("warning: ")[2] for line in first.stderr.splitlines()]
    assert few == found["warnings"]
    assert len(few) == 2  # of a class's Frechet distance, and of precision to coverage

    shown = command("edgegan-score", *args, "scores.json", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    rows = {line.split()[0]: line.split() for line in shown.stdout.splitlines() if line}
    assert rows["frechet"][1] == f"{found['scores']['frechet']['value']:.4g}"
    assert rows["frechet"][2] == f"{found['scores']['frechet']['floor']['value']:.4g}"
    assert rows["7"][1] == f"{found['per_class']['7']['frechet']:.4g}"
    assert max(map(len, shown.stdout.splitlines())) <= 110


def test_real_features_are_kept_and_made_anew_when_damaged(
    digits: Dataset, lenet: FeatureNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(digits, images=digits.images[:200], labels=digits.labels[:200], digest="few")  # type: ignore[index]
    first = see_real(few, lenet, tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    good = path.read_bytes()
    calls: list[int] = []
    run = FeatureNetwork.run

    def counted(self: FeatureNetwork, images: np.ndarray) -> Any:
        calls.append(len(images))
        return run(self, images)

    monkeypatch.setattr(FeatureNetwork, "run", counted)
    assert np.array_equal(see_real(few, lenet, tmp_path).features, first.features)
    assert calls == []
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for damaged in (bytes(flipped), good[: len(good) // 2], b"", b"no zip"):
        path.write_bytes(damaged)
        calls.clear()
        assert np.array_equal(see_real(few, lenet, tmp_path).features, first.features)
        assert sum(calls) == 200
        assert path.read_bytes() == good
    see_real(replace(few, digest="other"), lenet, tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_a_warning(digits: Dataset, lenet: FeatureNetwork, tmp_path: Path) -> None:
    few = replace(digits, images=digits.images[:64], labels=None, digest="few")
    (tmp_path / "features").write_text("in the way")
    with pytest.warns(EdgeGANWarning, match="cannot be kept for the next time"):
        assert len(see_real(few, lenet, tmp_path)) == 64


def test_the_picture_shows_samples_beside_their_nearest_real_ones(
    digits: Dataset, lenet: FeatureNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = command("edgegan-score", BUILT_IN, "digits", "-n", N, "--threads", "1", "-o", "scores.png", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    with Image.open("scores.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    images = edgegan.load(threads=1).sample(N)
    partner = nearest(lenet(images), lenet(digits.images)).indices[0, 0]
    for picture in (images[0], digits.images[partner]):
        tile = np.asarray(Image.fromarray(picture[..., 0]).resize((96, 96), Image.Resampling.NEAREST))
        views = np.lib.stride_tricks.sliding_window_view(pixels[60:220, :240], (96, 96))
        assert np.abs(views.astype(np.int16) - tile).max(axis=(2, 3)).min() <= 2


def test_the_picture_shows_precision_over_recall(digits: Dataset, lenet: FeatureNetwork, tmp_path: Path) -> None:
    """The curve is where `precision_recall_curve` has it: in the square's corner of a good generator, not of a bad."""
    generator = edgegan.load(threads=1)
    report, comparison = score(generator, digits, lenet, N, metrics=["frechet"], floor=False)
    far = replace(comparison.drawn, features=comparison.drawn.features + 1000)

    def blue(c: Comparison) -> set[tuple[int, int]]:
        save_figure(tmp_path / "x.png", report, c, generator, digits)
        with Image.open(tmp_path / "x.png") as sheet:
            pixels = np.asarray(sheet.convert("RGB")).astype(int)
        at = np.argwhere(np.abs(pixels - (0x4C, 0x78, 0xA8)).max(axis=2) == 0)
        left, base = pixels.shape[1] - CHART + 20, MARGIN + 3 * LINE + 8 + CURVE  # of the square, with no bars above
        return {(int(x) - left, base - int(y)) for y, x in at if x < left + CURVE + 3}

    curve = precision_recall_curve(*comparison.even)
    seen = blue(comparison)
    for k in range(0, len(curve.recall), 100):
        x, y = curve.recall[k] * CURVE, curve.precision[k] * CURVE
        assert min(max(abs(x - a), abs(y - b)) for a, b in seen) <= 3
    assert max(max(place) for place in blue(replace(comparison, drawn=far))) <= 3


def test_few_pictures_are_warned_of_and_what_they_do_not_allow_is_left_out(
    digits: Dataset, lenet: FeatureNetwork
) -> None:
    generator = edgegan.load(threads=1)
    with pytest.warns(EdgeGANWarning) as caught:
        report, _ = score(generator, digits, lenet, 5, floor=False)
    assert [str(w.message) for w in caught] == list(report.warnings)
    assert "5 samples of 84 features" in report.warnings[0]
    assert set(report.missing) == {"kernel", "precision", "recall", "density", "coverage", "class-score"}
    assert report.missing["recall"] == "it takes 6 pictures of each set, and there are 5"
    assert {"frechet", "authenticity", "diversity", "ms-ssim", "class-accuracy"} == set(report.scores)
    assert report.floor == {}
    json.dumps(report.to_json(), allow_nan=False)
    with pytest.raises(ArgumentError, match="recall cannot be measured: it takes 6 pictures"):
        score(generator, digits, lenet, 5, metrics=["recall"])
    with pytest.raises(ArgumentError, match="n is 1"):
        score(generator, digits, lenet, 1)


def test_transparent_pictures_are_laid_on_white(make_tiny: MakeTiny, tmp_path: Path) -> None:
    pixels = np.array([[[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 255, 51]]]], np.uint8)
    assert on_white(pixels).tolist() == [[[[10, 20, 30], [255, 255, 255], [224, 204, 255]]]]
    tiny = make_tiny(channels=4, image_size=(12, 12))
    for i in range(12):
        save_picture(tmp_path / "photos" / f"{i}.png")
    net = network(tmp_path / "net.onnx", "Abs", 3, 12)
    how = ["--features", net, "--preparation", '{"range": [0, 1]}', "--metrics", "frechet"]
    shown = command("edgegan-score", tiny.path, tmp_path / "photos", "-n", "64", *how, "-o", tmp_path / "x.png")
    assert shown.returncode == 0, shown.stderr
    assert "the model's transparent pictures were laid on white" in shown.stdout
    assert (tmp_path / "x.png").stat().st_size > 1000
    report = edgegan.load(tiny.path).sample(64)
    drawn = open_features(net, range=(0, 1))(on_white(report))
    np.testing.assert_allclose(drawn, on_white(report).mean(axis=(1, 2)) / 255, rtol=1e-5)


def test_classes_of_the_data_are_matched_by_name(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """Folders are in the order of the alphabet, the model's classes are not."""
    tiny = make_tiny(classes=("white", "black"), image_size=(28, 28))
    for i in range(4):
        save_picture(tmp_path / "photos" / "white" / f"{i}.png", np.full((28, 28), 250 + i, np.uint8))
        save_picture(tmp_path / "photos" / "black" / f"{i}.png", np.full((28, 28), i, np.uint8))
    dataset = open_dataset(str(tmp_path / "photos"), resolution=28, channels=1)
    assert dataset.classes == ("black", "white")
    net = open_features(network(tmp_path / "net.onnx", "Abs"), range=(0, 255))
    report, comparison = score(edgegan.load(tiny.path), dataset, net, 40, per_class=True, floor=False)
    labels = comparison.real.labels
    assert labels is not None
    assert comparison.real.features[labels == 0].min() >= 250
    drawn = comparison.drawn.features[comparison.drawn.labels == 0]
    expected = frechet_distance(Statistics.of(drawn), Statistics.of(comparison.real.features[labels == 0]))
    assert report.per_class["white"] == {"frechet": expected}
    assert report.missing["class-accuracy"] == "net gives no logits"


def test_a_classifier_that_counts_its_classes_otherwise_is_found_out() -> None:
    logits = np.eye(4, dtype=np.float32).repeat(5, axis=0)
    labels = np.arange(4).repeat(5)
    statistics = Statistics.of(logits)
    seen = Seen(logits, statistics, logits, labels)
    assert lacks_classes(Comparison(seen, seen, classes=("a", "b", "c", "d"))) == ""
    turned = replace(seen, labels=3 - labels)
    assert "knows only 0% of the real pictures" in lacks_classes(Comparison(seen, turned, "net", classes=tuple("abcd")))
    assert "knows 4 classes, the model 3" in lacks_classes(Comparison(seen, seen, "net", classes=tuple("abc")))
    assert lacks_classes(Comparison(replace(seen, labels=None), seen)) == "the model has no classes"


def test_only_the_inception_network_gives_a_fid(
    digits: Dataset, lenet: FeatureNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["frechet", "kernel", "class-score"]
    report, _ = score(edgegan.load(threads=1), digits, lenet, 200, metrics=names, floor=False)
    assert [entry["title"] for entry in report.to_json()["scores"].values()] == names
    monkeypatch.setattr(score_module, "INCEPTION", frozenset([lenet.digest]))
    assert [entry["title"] for entry in report.to_json()["scores"].values()] == ["FID", "KID", "Inception score"]
    assert set(report.to_metadata()) == {"FID", "KID", "Inception score", "measured by"}


def test_scores_are_written_into_the_model_and_all_else_is_kept(make_tiny: MakeTiny, tmp_path: Path) -> None:
    tiny = make_tiny(classes=TEN, image_size=(28, 28), scores={"old": 1.0})
    model = onnx.load(tiny.path)
    (entry,) = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "of a later release": [1]})
    model.metadata_props.add(key="other", value="kept")
    onnx.save(model, tiny.path)
    before = edgegan.load(tiny.path)
    args = ["edgegan-score", tiny.path, "digits", "-n", "50", "--threads", "1", "--metrics", "frechet,recall"]
    shown = command(*args, "--write", "--no-floor")
    assert shown.returncode == 0, shown.stderr
    after = edgegan.load(tiny.path)
    assert shown.stdout.splitlines()[-1].endswith(after.digest)
    assert list(after.spec.scores) == ["frechet", "recall", "measured by"]
    assert "lenet" in str(after.spec.scores["measured by"])
    assert replace(after.spec, scores={}) == replace(before.spec, scores={})
    written = onnx.load(tiny.path)
    assert written.graph == model.graph
    assert [prop.key for prop in written.metadata_props] == ["edgegan", "other"]
    assert json.loads(written.metadata_props[0].value)["of a later release"] == [1]
    assert np.array_equal(after.sample(3), before.sample(3))
    info = command("edgegan", "info", tiny.path).stdout
    assert f"score recall {after.spec.scores['recall']:g}" in info
    assert "score old" not in info
    # The same pictures have the same scores, whatever the file says of itself.
    assert command(*args, "--json", "-").stdout.count('"frechet"') == 2


@pytest.mark.parametrize(
    ("args", "status", "parts"),
    [
        (["--metrics", "frechet,fid"], 2, ["there is no metric fid; valid: frechet, kernel"]),
        (["-n", "1"], 2, ["'1' is not a whole number from 2"]),
        (["-n", "3", "--metrics", "kernel"], 2, ["kernel cannot be measured: it takes 10 pictures"]),
        (["--features", "nowhere.onnx"], 1, ["nowhere.onnx does not exist; give one of lenet"]),
        (["--features", "lenet", "--preparation", "{"], 2, ["--preparation is not JSON"]),
        (["--preparation", '{"range": [0, 1]}'], 2, ["goes with --features"]),
        (["--features", "lenet", "--preparation", '{"batch": 3}'], 2, ["--preparation has no batch"]),
        (["-o", "x.txt"], 2, ["cannot write x.txt"]),
        (["-o", "nowhere/x.png"], 2, ["the folder", "does not exist"]),
        (["--json", "nowhere/x.json"], 2, ["the folder", "does not exist"]),
        (["--fit", "squeeze"], 2, ["fit is 'squeeze'; valid: crop, pad, stretch, tiles"]),
    ],
)
def test_errors_before_the_work(
    args: list[str], status: int, parts: list[str], capfd: pytest.CaptureFixture[str], root: Path
) -> None:
    fails(capfd, status, [BUILT_IN, "digits", *args], *parts)
    assert not (root / "features").exists() or "kernel" in parts[0]


def test_errors_of_models_data_and_networks(
    make_tiny: MakeTiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "model.onnx"
    text.write_text("no model")
    fails(capfd, 1, [text, "digits"], "model.onnx is not an ONNX model")
    plain = network(tmp_path / "net.onnx", "Log")
    fails(capfd, 1, [plain, "digits"], "edgegan")
    fails(capfd, 1, [BUILT_IN, tmp_path / "none"], "none")
    oblong = make_tiny("oblong.onnx")
    fails(capfd, 1, [oblong.path, "digits", "--features", "lenet"], "draws pictures of 5 x 6, those of 'digits' are 28")
    colour = make_tiny("colour.onnx", channels=3, image_size=(28, 28))
    fails(capfd, 2, [colour.path, "digits"], "draws 28 x 28 RGB pictures", "give --features inception or FILE.onnx")
    grey = make_tiny("grey.onnx", image_size=(28, 28))
    fails(capfd, 2, [grey.path, "digits", "-n", "50", "--per-class"], "--per-class is for models with classes")
    named = make_tiny("named.onnx", image_size=(28, 28), classes=TEN)
    fails(
        capfd, 2, [named.path, "digits", "-n", "50", "--per-class"], "--per-class needs data with the model's classes"
    )
    how = '{"range": [-1, 1], "output": "pool"}'
    fails(
        capfd, 1, [BUILT_IN, "digits", "--features", plain, "--preparation", how], "its outputs are 'features'", "name"
    )
    how = '{"range": [-1, 1]}'  # the logarithm of black is none
    args = [BUILT_IN, "digits", "-n", "50", "--features", plain, "--preparation", how]
    fails(capfd, 1, args, "net: its features of the real pictures of 'digits' hold NaN or infinity, first between")


def test_a_model_that_translates_is_refused(digits: Dataset, lenet: FeatureNetwork) -> None:
    generator = edgegan.load(threads=1)
    generator.spec = replace(generator.spec, task="translate", latent_dim=None)
    with pytest.raises(ArgumentError, match="turns pictures into others; valid: a model that draws them"):
        score(generator, digits, lenet, 20)


def test_help_says_what_every_score_means(capfd: pytest.CaptureFixture[str]) -> None:
    shown = Exits(capfd, "--help", command=cli)
    assert shown.status == 0
    explained = [line.split()[0] for line in shown.out.splitlines() if line.startswith("  ") and "  " in line.strip()]
    assert [word for word in explained if word in NAMES] == list(NAMES)


@pytest.mark.slow
def test_memory_is_that_of_the_features(tmp_path: Path) -> None:
    """50,000 pictures of 784 bytes and 84 features: 32 MiB more than 2,000 take, and not their pixels again."""
    code = (
        "import resource, edgegan; from edgegan.trainer.scoring.sets import see_drawn\n"
        "from edgegan.trainer.metrics.features import open_features\n"
        "see_drawn(edgegan.load(threads=1), open_features('lenet', threads=1), {})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    few, many = (
        int(subprocess.run([sys.executable, "-c", code.format(n)], capture_output=True, text=True, check=True).stdout)
        for n in (2_000, 50_000)
    )
    features = 48_000 * (84 + 10) * 4 / 1024  # KiB; the statistics take them in float64, twice
    assert many - few < 4.5 * features
