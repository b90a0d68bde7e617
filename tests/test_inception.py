"""The Inception network: how its weights are had and believed, and torch-fidelity's numbers from the same pictures.

No test has the real weights. Those here are random, in a file as torch-fidelity loads it; where that is not installed
(pip install torch-fidelity), the tests that need it are left out.
"""

import hashlib
import io
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgegan
from edgegan.errors import ArgumentError, MissingExtraError, ModelError
from edgegan.model import BUILT_IN
from edgegan.trainer.metrics import inception
from edgegan.trainer.metrics.features import open_features
from edgegan.trainer.scoring import score as score_module
from edgegan.trainer.scoring.cli import cli
from support import Exits, command


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, large enough that pictures of another kind have other features."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Blank(module.FeatureExtractorInceptionV3):  # type: ignore[misc, name-defined]
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            """Keeps the weights that it drew."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Blank("inception", ["2048"], feature_extractor_weights_path=nothing)
        for part in network.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


def blobs(n: int, level: float, channels: int = 1, side: int = 28) -> np.ndarray:
    """Smooth pictures, uint8 [n, side, side, channels], of more contrast at a higher level."""
    walks = np.random.default_rng(n).normal(size=(n, side, side, channels)).cumsum(1).cumsum(2)
    return (walks * level + 128).clip(0, 255).astype(np.uint8)


# Weights: where they come from, and that they are the real ones -----------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is published as the real weights, behind an address that does not answer; torch's cache is empty."""
    path = tmp_path / "server" / "weights.pth"
    path.parent.mkdir()
    path.write_bytes(b"numbers" * 1000)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "URLS", (f"{tmp_path.as_uri()}/nowhere/a.pth", path.as_uri()))
    return path


def test_the_real_weights_are_downloaded_once(published: Path, tmp_path: Path) -> None:
    content = published.read_bytes()
    path = inception.real_weights()
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / "a.pth"  # the name of the first address
    assert path.read_bytes() == content
    published.unlink()
    assert inception.real_weights() == path
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"a\.pth is not the Inception network of FID: its SHA-256 is .*; remove it"):
        inception.real_weights()


def test_weights_that_do_not_come_or_are_others_are_told_on_one_line(published: Path, tmp_path: Path) -> None:
    published.write_bytes(b"an error page")
    told = r"cannot download the Inception network: .*nowhere/a\.pth .*invalid hash.*or give --features a\.pth, a file"
    with pytest.raises(ModelError, match=told) as caught:
        inception.real_weights()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "torch" / "hub" / "checkpoints").iterdir()) == []


def test_the_real_weights_are_those_that_everyone_means() -> None:
    """The published files carry the first digits of their SHA-256 in their names."""
    assert all(url.endswith(f"inception-2015-12-05-{inception.SHA256[:8]}.pth") for url in inception.URLS)
    assert frozenset([inception.SHA256]) == score_module.INCEPTION


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    told = "the Inception network needs torch-fidelity, which is not installed: run  pip install 'edgegan[inception]'"
    with pytest.raises(MissingExtraError) as caught:
        open_features("inception")
    assert str(caught.value) == told
    Exits(capfd, str(BUILT_IN), "digits", "--features", "inception", command=cli).fails(1, told)
    assert list(tmp_path.iterdir()) == []


def test_it_prepares_its_pictures_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("inception", "other.pth"):
        with pytest.raises(ArgumentError, match=f"{name} prepares its pictures by itself: do not give range, size"):
            open_features(name, range=(0, 1), size=299, mean=None)
    how = '{"range": [0, 1]}'
    args = (str(BUILT_IN), "digits", "--features", "inception", "--preparation", how)
    Exits(capfd, *args, command=cli).fails(2, "do not give range")
    grey, colour = blobs(3, 2), blobs(3, 2, channels=3)
    prepared = inception._ByItself()
    assert np.array_equal(prepared(grey), np.repeat(grey, 3, axis=3).transpose(0, 3, 1, 2))
    assert np.array_equal(prepared(colour), colour.transpose(0, 3, 1, 2))


# With torch-fidelity ------------------------------------------------------------------------------


def test_features_are_those_of_torch_fidelity(weights: Path) -> None:
    """Also of a training around it neither the random numbers nor torch's switches change."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    network = open_features(weights, threads=1, batch=2)
    images = blobs(3, 2)  # a batch and a half
    found = network.run(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert (network.name, network.dim) == ("random", 2048)
    assert network.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    theirs = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(np.repeat(images, 3, axis=3).transpose(0, 3, 1, 2).copy()))
    assert found.logits is not None
    for ours, other in zip((found.features, found.logits), wanted, strict=True):
        assert other.std() > 0.01
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)


def test_only_the_real_weights_are_called_inception(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "URLS", (weights.as_uri(),))
    monkeypatch.setenv("TORCH_HOME", str(weights.parent / "torch"))
    assert open_features("inception", threads=1).name == "inception"
    assert open_features(weights, threads=1).name == "inception"  # the same file by another way


class Bomb:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def test_a_file_of_other_things_is_told_on_one_line(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.load(weights)
    state.pop("fc.bias")
    torch.save(state, "lacks.pth")
    torch.save([1, 2], "list.pth")
    torch.save(Bomb(), "bomb.pth")
    Path("pickle.pth").write_bytes(pickle.dumps(Bomb()))
    Path("text.pth").write_text("weights")
    Path("empty.pth").write_bytes(b"")
    for name in ("lacks", "list", "bomb", "pickle", "text", "empty"):
        with pytest.raises(ModelError, match=rf"{name}\.pth does not hold the weights of torch-fidelity's") as caught:
            open_features(f"{name}.pth")
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not Path("unpickled").exists()
    with pytest.raises(ModelError, match=r"none\.pth does not exist; give a \.pth file of Inception weights"):
        open_features("none.pth")


@pytest.mark.slow
def test_the_command_tells_the_distance_of_torch_fidelity(weights: Path, tmp_path: Path) -> None:
    """From pictures in two folders of PNG files, as it is used; grey ones, which both make RGB."""
    from torch_fidelity import calculate_metrics

    folders = tmp_path / "drawn", tmp_path / "real"
    generator = edgegan.load(threads=1)
    sets = generator.sample(16), np.roll(generator.sample(20, 5), 2, axis=1)
    for folder, images in zip(folders, sets, strict=True):
        folder.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(folder / f"{i:03}.png")
    how = {"fid": True, "cuda": False, "save_cpu_ram": True, "feature_extractor_weights_path": str(weights)}
    theirs = calculate_metrics(input1=str(folders[0]), input2=str(folders[1]), **how)
    args = ["-n", "16", "--features", weights, "--metrics", "frechet", "--json", "-", "--threads", "1"]
    shown = command("edgegan-score", BUILT_IN, folders[1], *args, "--no-floor")
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["scores"]["frechet"]["title"] == "frechet"
    ours = found["scores"]["frechet"]["value"]
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert found["features"]["preparation"]["resize"] == "bilinear as in TensorFlow 1"
    assert found["features"]["engine"].startswith("torch")
    assert "16 samples of 2048 features" in found["warnings"][0]
