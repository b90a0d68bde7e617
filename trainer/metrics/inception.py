"""The Inception network of FID, as torch-fidelity has it: `open_features("inception")`.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", compared
pictures in the 2,048 features of the network that came with TensorFlow in 2015. Obukhov et al. 2020, torch-fidelity,
have it for PyTorch with the resizing of TensorFlow 1, which other ports get wrong. Network and resizing are theirs, on
a GPU where torch sees one; only the weights, 96 MB, are fetched here, once, into the folder where torch-fidelity keeps
them, too. They are believed for their SHA-256: a distance is FID only with these.

torch and torch-fidelity come with the extra `inception`, and are imported when the network is opened.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegan.errors import MissingExtraError, ModelError, one_line, printable
from edgegan.session import read_file
from edgegan.trainer.metrics.features import F32, INCEPTION, U8, WEIGHTS, FeatureNetwork, Preparation

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (  # torch-fidelity's, and pytorch-fid's, which has the same file
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
FEATURES, LOGITS = "2048", "logits_unbiased"  # torch-fidelity's names; the Inception score is of these logits
SIZE = 299  # pixels


@dataclass(frozen=True)
class _ByItself(Preparation):
    """What the network itself does, told for the records. It is fed uint8 [n, 3, H, W] of any size."""

    range: tuple[float, float] = (-1.0, 127 / 128)
    size: tuple[int, int] | None = (SIZE, SIZE)
    channels: int | None = 3
    resize: str = "bilinear as in TensorFlow 1"
    output: str | None = FEATURES
    logits: str | None = LOGITS

    def __post_init__(self) -> None:
        """Nothing to check: these are no one's to choose."""

    def __call__(self, images: U8) -> NDArray[Any]:
        """uint8 [n, H, W, C] -> [n, 3, H, W]; grey is repeated."""
        return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2))


class Inception(FeatureNetwork):
    """torch-fidelity's network with the weights that are the bytes `data`, of a file called `source`."""

    def __init__(self, data: bytes, source: str, threads: int, batch: int) -> None:
        torch, extractor = _imported()
        from edgegan.trainer.devices import pick_device

        self.digest = hashlib.sha256(data).hexdigest()
        self.name = INCEPTION if self.digest == SHA256 else Path(source).stem
        self.preparation = _ByItself()
        self.batch, self.dim = batch, 2048
        self._source, self._threads, self._device = source, threads, torch.device(pick_device("auto"))
        gpu = self._device.type == "cuda"
        self.engine = f"torch {torch.__version__} on {torch.cuda.get_device_name(self._device) if gpu else 'cpu'}"
        numbers = io.BytesIO()
        try:
            # torch-fidelity unpickles whatever its file says. What is read here can only be numbers, and these, written
            # anew, are what it gets.
            torch.save(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), numbers)
            numbers.seek(0)
            # It draws weights before it loads these: not with the random numbers of a training around it.
            with torch.random.fork_rng(devices=[]):
                network = extractor(INCEPTION, [FEATURES, LOGITS], feature_extractor_weights_path=numbers)
        except Exception as error:  # pickle's and torch's share no base class
            why = "it is no file of numbers alone" if not numbers.getvalue() else one_line(error)
            raise ModelError(
                f"{printable(source)} does not hold the weights of torch-fidelity's Inception network: {why}; valid: a "
                f"{WEIGHTS} file as torch-fidelity loads it"
            ) from error
        self._network = network.to(self._device)

    def _call(self, x: NDArray[Any]) -> list[F32]:
        import torch

        try:
            with _exactly(self._threads), torch.inference_mode():
                found = self._network(torch.from_numpy(x).to(self._device))
                return [y.cpu().numpy() for y in found]
        except RuntimeError as error:
            raise ModelError(f"{self._source}: it cannot run on {list(x.shape)}: {one_line(error)}") from error


@contextmanager
def _exactly(threads: int) -> Iterator[None]:
    """In float32, on so many threads of the CPU; torch's switches, which are a whole process's, are put back after.

    TensorFloat-32, which a GPU may take for float32, has 10 bits of a number: distances would be off in the 3rd digit.
    """
    import torch

    before, matmul = torch.get_num_threads(), torch.backends.cuda.matmul
    fast = matmul.allow_tf32
    torch.set_num_threads(threads)
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = fast
        torch.set_num_threads(before)


def open_inception(path: str | None, threads: int, batch: int, progress: bool) -> Inception:
    """The network with the weights of the file at `path`; None: the real ones, downloaded if they are not there.

    Raises ModelError for a file that does not hold such weights, or that cannot be downloaded; MissingExtraError
    without torch or torch-fidelity.
    """
    _imported()  # before 96 MB are fetched
    if path is None:
        path = str(real_weights(progress))
    return Inception(read_file(path, f"give a {WEIGHTS} file of Inception weights"), path, threads, batch)


def real_weights(progress: bool = False) -> Path:
    """The file of the real weights in torch's cache, downloaded if it is not there; progress: with a bar on stderr.

    Raises ModelError if it cannot be had, or is another one.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / URLS[0].rpartition("/")[2]
    by_hand = f"put {path.name} into {printable(path.parent)} by hand, or give --features {path.name}, a file"
    if not path.exists():
        failures = []
        for url in URLS:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # Under its name only when it is whole and its digest is right.
                torch.hub.download_url_to_file(url, os.fspath(path), hash_prefix=SHA256, progress=progress)
                return path
            except (OSError, HTTPException, RuntimeError, ValueError) as error:
                failures.append(f"{url} ({one_line(error)})")
        raise ModelError(f"cannot download the Inception network: {'; '.join(failures)}; {by_hand}")
    if (found := hashlib.sha256(read_file(os.fspath(path))).hexdigest()) != SHA256:
        raise ModelError(
            f"{printable(path)} is not the Inception network of FID: its SHA-256 is {found}, not {SHA256}; remove it, "
            "and it is downloaded again"
        )
    return path


def _imported() -> tuple[Any, Any]:
    """torch, and torch-fidelity's class of the network. Raises MissingExtraError, ModelError if they do not load."""
    try:
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        module = str(error.name).partition(".")[0].replace("_", "-")  # as pip calls it
        raise MissingExtraError.of("the Inception network", module, INCEPTION) from None
    except Exception as error:  # torchvision of another torch: a RuntimeError
        raise ModelError(
            f"torch-fidelity does not load, which the Inception network comes with: {one_line(error)}; see that torch "
            "and torchvision are of one release"
        ) from error
    return torch, FeatureExtractorInceptionV3
