"""edgegan-score of models that translate: results against what they should be, beside the untouched sources."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import translators
from conftest import MakeTiny
from PIL import Image
from scipy.spatial import distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import edgegan
from edgegan.errors import ArgumentError, DataError, EdgeGANWarning
from edgegan.model import BUILT_IN, Generator
from edgegan.trainer.data import Dataset, open_dataset
from edgegan.trainer.metrics.features import FeatureNetwork, open_features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance
from edgegan.trainer.metrics.manifold import manifold, nearest
from edgegan.trainer.metrics.pairs import feature_distance, retrieved
from edgegan.trainer.metrics.similarity import mean_absolute_error
from edgegan.trainer.scoring.cli import cli
from edgegan.trainer.scoring.figure import LINE, MARGIN, SIDE
from edgegan.trainer.scoring.figure_translated import LABEL
from edgegan.trainer.scoring.metrics import MOST_DB, PAIRED, TRANSLATED
from edgegan.trainer.scoring.score import score_translation
from edgegan.trainer.scoring.translated import chosen_sources, enlarged
from support import Exits, save_picture

N = 60
PAIR_NAMES = [metric.name for metric in PAIRED]
RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """uint8 [60, 28, 28, 1]."""
    return np.asarray(open_dataset("digits", resolution=28, channels=1).images[:N])


@pytest.fixture(scope="module")
def lenet() -> FeatureNetwork:
    return open_features("lenet", threads=1)


@pytest.fixture(autouse=True)
def few_pictures() -> Any:
    """All tests take fewer pictures than a score should."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeGANWarning)
        yield


@pytest.fixture
def negative(tmp_path: Path) -> Generator:
    """255 - p, of grey pictures."""
    return edgegan.load(translators.negative(tmp_path / "negative.onnx", channels=1), threads=1)


@pytest.fixture
def twice(tmp_path: Path) -> Generator:
    """Each grey pixel becomes 2 x 2."""
    return edgegan.load(translators.twice(tmp_path / "twice.onnx", channels=1), threads=1)


def dataset_of(path: Path, images: np.ndarray) -> Dataset:
    np.save(path, images)
    return open_dataset(str(path))


def values(scores: dict[str, Any]) -> dict[str, float]:
    return {name: score.value for name, score in scores.items()}


# The metrics of pairs


def test_feature_distance_is_twice_that_of_the_cosine() -> None:
    a, b = RANDOM.standard_normal((2, 20, 7)).astype(np.float32)
    expected = [2 * distance.cosine(x.astype(float), y.astype(float)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(feature_distance(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(feature_distance(3 * a, 1e-30 * b), expected, rtol=1e-5)  # lengths do not matter
    assert feature_distance(a, -a) == pytest.approx(4)
    assert np.array_equal(feature_distance(a, 2 * a), np.zeros(20))
    blank = np.zeros((20, 7))
    assert feature_distance(a, blank) == pytest.approx(1)
    assert np.array_equal(feature_distance(blank, blank), np.zeros(20))
    with pytest.raises(ArgumentError, match="there are 20 and 19 features"):
        feature_distance(a, b[:19])


def test_retrieved_is_what_a_table_of_all_distances_says() -> None:
    real = RANDOM.standard_normal((40, 5))
    twins = RANDOM.permutation(40)[:25]
    made = real[twins] + 0.6 * RANDOM.standard_normal((25, 5))
    hits = retrieved(made, real, twins)
    assert np.array_equal(hits, distance.cdist(made, real).argmin(axis=1) == twins)
    assert 0 < hits.sum() < 25
    # The very features of the true picture elsewhere in the set are as good.
    assert retrieved(real[:3], np.concatenate([real[:3], real[:3]]), np.array([3, 4, 5])).all()
    for wrong in (np.array([0, 1]), np.arange(25.0), np.full(25, 40), np.full(25, -1)):
        with pytest.raises(ArgumentError, match=r"valid: integers \[25\], 0 to 39"):
            retrieved(made, real, wrong)


def test_mean_absolute_error() -> None:
    a, b = translators.noisy(5, 6, 7, 3), translators.noisy(5, 6, 7, 3)
    np.testing.assert_allclose(mean_absolute_error(a, b), np.abs(a.astype(float) - b).mean(axis=(1, 2, 3)))
    assert mean_absolute_error(np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 255, np.uint8)) == [255]


# The scores


def test_scores_are_those_of_the_metrics(
    digits: np.ndarray, lenet: FeatureNetwork, twice: Generator, tmp_path: Path
) -> None:
    """Of a model that enlarges: by NumPy, scikit-image and SciPy; the sources enlarged by Pillow."""
    small = np.stack([np.asarray(Image.fromarray(x[..., 0]).resize((14, 14))) for x in digits])[..., None]
    sources, dataset = dataset_of(tmp_path / "small.npy", small), dataset_of(tmp_path / "true.npy", digits)
    report, _ = score_translation(twice, sources, dataset, lenet, paired=True, k=3)
    bicubic = [np.asarray(Image.fromarray(x[..., 0]).resize((28, 28), Image.Resampling.BICUBIC)) for x in small]
    real = lenet(digits)
    for scores, pictures in (
        (report.scores, small.repeat(2, axis=1).repeat(2, axis=2)),
        (report.source, np.stack(bicubic)[..., None]),
    ):
        found, features = values(scores), lenet(pictures)
        assert list(found) == [*PAIR_NAMES, *(metric.name for metric in TRANSLATED)]
        pairs = list(zip(pictures[..., 0], digits[..., 0], strict=True))
        decibels = [peak_signal_noise_ratio(true, made) for made, true in pairs]
        assert found["psnr"] == pytest.approx(np.mean(decibels))
        assert scores["psnr"].error == pytest.approx(np.std(decibels, ddof=1) / N**0.5)
        how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert found["ssim"] == pytest.approx(np.mean([structural_similarity(*pair, **how) for pair in pairs]))
        assert found["l1"] == pytest.approx(np.abs(pictures.astype(float) - digits).mean())
        angles = [2 * distance.cosine(a.astype(float), b.astype(float)) for a, b in zip(features, real, strict=True)]
        assert found["feature-distance"] == pytest.approx(np.mean(angles), rel=1e-5)
        hits = distance.cdist(features.astype(float), real.astype(float)).argmin(axis=1) == np.arange(N)
        assert found["retrieval"] == hits.mean()
        expected = frechet_distance(Statistics.of(features), Statistics.of(real))
        assert found["frechet"] == pytest.approx(expected, rel=1e-5)
        assert found["recall"] == manifold(features, real, 3).recall
    assert report.scores["psnr"].value < report.source["psnr"].value
    assert set(report.floor) == {metric.name for metric in TRANSLATED}
    assert report.missing == {}
    assert report.facts["source"] | {"sha256": ""} == {
        "name": "small",
        "sha256": "",
        "pictures": N,
        "size": [14, 14],
        "scale": 2,
        "paired": True,
    }


def test_a_perfect_model_and_fewer_pictures(
    digits: np.ndarray, lenet: FeatureNetwork, negative: Generator, tmp_path: Path
) -> None:
    """Negatives of negatives are the true pictures, each its own also where only some are taken."""
    sources, dataset = dataset_of(tmp_path / "a.npy", 255 - digits), dataset_of(tmp_path / "b.npy", digits)
    report, comparison = score_translation(negative, sources, dataset, lenet, 20, paired=True, seed=5)
    found = values(report.scores)
    assert [found[name] for name in PAIR_NAMES] == [MOST_DB, 1, 0, 0, 1]
    json.dumps(report.to_json(), allow_nan=False)
    chosen = chosen_sources(20, 5, N)
    assert len(set(chosen)) == 20
    assert not np.array_equal(chosen, chosen_sources(20, 6, N))
    assert np.array_equal(comparison.drawn.features, lenet(digits)[chosen])
    assert report.scores["frechet"][1:3] == (20, N)
    assert report.source["l1"].value == pytest.approx(np.abs(255 - 2.0 * digits[chosen]).mean())
    assert report.source["retrieval"].value < 1
    assert str(report.to_metadata()["measured by"]).startswith("lenet 495fac955620: 20 of a ")


def test_without_pairs(digits: np.ndarray, lenet: FeatureNetwork, negative: Generator, tmp_path: Path) -> None:
    """Sources and data may be of any numbers; what becomes of one has no true picture."""
    sources, dataset = dataset_of(tmp_path / "a.npy", 255 - digits[:25]), dataset_of(tmp_path / "b.npy", digits[25:])
    report, comparison = score_translation(negative, sources, dataset, lenet, k=3)
    assert list(report.scores) == [metric.name for metric in TRANSLATED]
    assert comparison.pairs is None
    expected = frechet_distance(Statistics.of(lenet(digits[:25])), Statistics.of(lenet(digits[25:])))
    assert report.scores["frechet"].value == pytest.approx(expected, rel=1e-5)
    assert report.source["frechet"].value > expected
    with pytest.raises(ArgumentError, match="there is no metric psnr, which needs --source and --paired; valid: fre"):
        score_translation(negative, sources, dataset, lenet, metrics=["psnr"])
    with pytest.raises(DataError, match="'a' has 25 pictures, 'b' 35; valid with --paired: as many"):
        score_translation(negative, sources, dataset, lenet, paired=True)


def test_pictures_too_small_for_ssim(lenet: FeatureNetwork, negative: Generator, tmp_path: Path) -> None:
    pictures = dataset_of(tmp_path / "a.npy", translators.noisy(12, 10, 10))
    report, _ = score_translation(negative, pictures, pictures, lenet, paired=True)
    assert [name for name in PAIR_NAMES if name in report.scores] == [name for name in PAIR_NAMES if name != "ssim"]
    assert report.missing["ssim"] == "it takes pictures of 11 x 11 pixels or more"
    assert report.source["psnr"].value == MOST_DB


def test_results_do_not_depend_on_the_batch(lenet: FeatureNetwork, tmp_path: Path) -> None:
    pictures = dataset_of(tmp_path / "x.npy", translators.noisy(9, 20, 20, 3))
    mean = edgegan.load(translators.without_mean(tmp_path / "mean.onnx"), threads=1)
    reports = [score_translation(mean, pictures, pictures, lenet, batch=n, metrics=["frechet"])[0] for n in (1, 4)]
    assert reports[0].scores == reports[1].scores


def test_enlarged() -> None:
    pictures = translators.noisy(3, 5, 4, 3)
    assert enlarged(pictures, 1) is pictures
    large = enlarged(pictures, 3)
    assert large.shape == (3, 15, 12, 3)
    expected = Image.fromarray(pictures[1]).resize((12, 15), Image.Resampling.BICUBIC)
    assert np.array_equal(large[1], np.asarray(expected))


# The command


@pytest.fixture
def folders(digits: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """negative.onnx, and the folders `true` and `negatives`, pairs of other suffixes."""
    for i, digit in enumerate(digits[:20, ..., 0]):
        save_picture(tmp_path / "true" / f"{i:02}.png", digit)
        save_picture(tmp_path / "negatives" / f"{i:02}.bmp", 255 - digit)
    translators.negative(tmp_path / "negative.onnx", channels=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGS = ["negative.onnx", "true", "--source", "negatives", "--threads", "1", "--k", "3"]
FEW = ["--resolution", "28", "--metrics", "frechet,recall"]


def test_the_command(folders: Path, lenet: FeatureNetwork, capfd: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, "--paired", "--resolution", "28"]
    shown = Exits(capfd, *args, "-o", "scores.png", command=cli)
    assert shown.status == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0].startswith("negative.onnx against true in the eyes of lenet (")
    assert lines[1] == "20 of the 20 pictures of negatives, 28 x 28 to 28 x 28, 20 real ones, in pairs"
    assert lines[2].startswith('column "source": these pictures as they are; column "real": 10 of these against')
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["score"][:4] == ["score", "value", "source", "real"]
    assert rows["retrieval"][1] == "1"
    assert rows["retrieval"][3] == "-"
    assert rows["l1"][1] == "0"
    found = Exits(capfd, *args, "--json", "-", command=cli).out
    assert found == Exits(capfd, *args, "--json", "-", command=cli).out
    scores = json.loads(found)["scores"]
    assert set(scores["frechet"]) == {"title", "value", "error", "drawn", "real", "floor", "better", "source"}
    assert rows["frechet"][2] == f"{scores['frechet']['source']['value']:.4g}"
    assert scores["psnr"]["floor"] is None
    # The picture has the first source, the result and the true one below each other.
    true = np.asarray(Image.open("true/00.png"))
    with Image.open("scores.png") as sheet:
        pixels = np.asarray(sheet.convert("L")).astype(np.int16)
    x, y = MARGIN + LABEL, MARGIN + 4 * LINE
    for row, picture in enumerate((255 - true, true, true)):
        tile = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.NEAREST))
        top = y + row * (SIDE + 2)
        assert np.abs(pixels[top : top + SIDE, x : x + SIDE] - tile).max() <= 2


def test_the_picture_without_pairs_shows_the_nearest(
    folders: Path, digits: np.ndarray, lenet: FeatureNetwork, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save("others.npy", digits[20:])
    args = ["negative.onnx", "others.npy", *ARGS[2:], *FEW, "-o", "scores.png"]
    assert Exits(capfd, *args, command=cli).status == 0
    partner = nearest(lenet(digits[:1]), lenet(digits[20:])).indices[0, 0]
    tile = np.asarray(Image.fromarray(digits[20 + partner, ..., 0]).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    with Image.open("scores.png") as sheet:
        pixels = np.asarray(sheet.convert("L")).astype(np.int16)
    x, y = MARGIN + LABEL, MARGIN + 4 * LINE + 2 * (SIDE + 2)
    assert np.abs(pixels[y : y + SIDE, x : x + SIDE] - tile).max() <= 2


def test_scores_are_written_into_the_model(folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert Exits(capfd, *ARGS, *FEW, "--write", command=cli).status == 0
    spec = edgegan.load("negative.onnx").spec
    assert list(spec.scores) == ["frechet", "recall", "measured by"]
    assert "20 of negatives" in str(spec.scores["measured by"])
    assert spec.task == "translate"


@pytest.mark.parametrize(
    ("model", "given", "size"),
    [
        ("negative", [], (64, 64)),  # as in training
        ("negative", ["--resolution", "own"], (28, 28)),
        ("negative", ["--resolution", "20"], (20, 20)),
        ("twice", [], (14, 14)),
        ("twice", ["--resolution", "10"], (10, 10)),
    ],
)
def test_sizes(
    model: str,
    given: list[str],
    size: tuple[int, int],
    digits: np.ndarray,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = getattr(translators, model)(tmp_path / "m.onnx", channels=1)
    np.save(tmp_path / "true.npy", digits)
    np.save(tmp_path / "source.npy", digits if model == "negative" else digits[:, ::2, ::2])
    how = ["--features", "lenet", "--metrics", "l1", "--paired", "--threads", "1", "--json", "-"]
    shown = Exits(
        capfd, path, str(tmp_path / "true.npy"), "--source", str(tmp_path / "source.npy"), *given, *how, command=cli
    )
    assert shown.status == 0, shown.err
    assert json.loads(shown.out)["source"]["size"] == list(size)


@pytest.mark.parametrize(
    ("args", "status", "parts"),
    [
        ([BUILT_IN, "true", "--source", "negatives"], 2, ["digits.onnx draws its pictures from noise", "leave it out"]),
        (["negative.onnx", "true"], 2, ["turns pictures into others", "--source SOURCE"]),
        ([BUILT_IN, "true", "--paired"], 2, ["--paired is for models that translate: give --source SOURCE"]),
        ([BUILT_IN, "true", "--resolution", "20"], 2, ["--resolution is for models that translate"]),
        ([*ARGS, "--per-class"], 2, ["--per-class is for models that draw pictures of classes"]),
        ([*ARGS, "--resolution", "0"], 2, ["'0' is not a whole number from 1 to 8192"]),
        ([*ARGS, "--metrics", "psnr"], 2, ["there is no metric psnr, which needs --source and --paired"]),
        ([*ARGS, *FEW[:2], "--metrics", "kernel", "-n", "5"], 2, ["kernel cannot be measured: it takes 10 pictures"]),
        ([*ARGS, "--resolution", "own", "--fit", "pad"], 2, ["fit is pad, which needs a resolution"]),
        ([*ARGS[:2], "--source", "nowhere"], 1, ["no such data: nowhere"]),
        (ARGS, 2, ["negative.onnx draws 64 x 64 grey pictures", "give --features inception or FILE.onnx"]),
    ],
)
def test_errors(
    args: list[Any], status: int, parts: list[str], folders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Exits(capfd, *map(str, args), command=cli).fails(status, *parts)


def test_sizes_that_do_not_fit(digits: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = translators.twice(tmp_path / "twice.onnx", channels=1)
    np.save(tmp_path / "true.npy", digits)
    args = [path, str(tmp_path / "true.npy"), "--source", str(tmp_path / "true.npy")]
    shown = Exits(capfd, *args, "--features", "lenet", command=cli)
    shown.fails(1, "twice.onnx turns the 28 x 28 pictures of 'true' into 56 x 56, those of 'true' are 28 x 28", "N")


def test_names_that_do_not_pair(folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = [*ARGS, "--paired", "--resolution", "28", "--metrics", "l1"]
    (folders / "negatives" / "07.bmp").rename(folders / "negatives" / "07b.bmp")
    Exits(capfd, *args, command=cli).fails(1, "07.png", "07b.bmp", "no pairs")
    (folders / "negatives" / "07b.bmp").rename(folders / "negatives" / "07.bmp")
    (folders / "negatives" / "19.bmp").unlink()
    Exits(capfd, *args, command=cli).fails(1, "have 20 pictures and 19; valid for pairs: as many")
    (folders / "negatives" / "19.bmp").write_bytes(b"broken")
    shown = Exits(capfd, *args, "--skip-broken", command=cli)
    assert shown.status == 1
    assert "pairs would not match any more: skipped 1 broken pictures of 20: 19.bmp" in shown.err.splitlines()[-1]


def test_a_model_that_draws_is_refused(
    make_tiny: MakeTiny, digits: np.ndarray, lenet: FeatureNetwork, tmp_path: Path
) -> None:
    pictures = dataset_of(tmp_path / "a.npy", digits)
    generator: Any = edgegan.load(make_tiny(image_size=(28, 28)).path)
    with pytest.raises(ArgumentError, match="draws its pictures from noise"):
        score_translation(generator, pictures, pictures, lenet)


def test_help_says_what_every_score_of_pairs_means(capfd: pytest.CaptureFixture[str]) -> None:
    shown = Exits(capfd, "--help", command=cli).out
    first = {word.strip(",") for line in shown.splitlines() if line.startswith("  ") for word in line.split()[:3]}
    assert set(PAIR_NAMES) <= first
