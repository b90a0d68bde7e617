"""Make trainer/metrics/networks/lenet.onnx, the feature network of the metrics, from the IDX files of MNIST.

    python benchmarks/make_lenet.py FOLDER-OF-MNIST
    python benchmarks/make_lenet.py FOLDER-OF-FASHION-MNIST --fashion     # lenet-fashion.onnx
    python benchmarks/make_lenet.py FOLDER-OF-MNIST --measure             # of the file that is there

A LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) with max pooling, ReLU in the convolutions and more channels learns the
60,000 training pictures on one thread, some minutes. The last weights are kept, whatever epoch was the best. The
exported file, run as the metrics run it, then says its accuracy on the 10,000 test pictures; below the floor, 99.2 %
(Fashion-MNIST: 91 %), no file is written. With the same torch on the same kind of processor the command writes the same
bytes. Last come Fréchet distances of real pictures to the first 50,000 training pictures, the least that a generator
can hope for: of test pictures, and of the other training pictures.
"""

import argparse
import io
import logging
import math
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from common import say
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn
from torch.nn import functional as F

from edgegan import __version__
from edgegan._files import atomic_write
from edgegan.devices import processor
from edgegan.trainer.data.arrays import idx_labels_of, read_idx
from edgegan.trainer.data.download import NAMED
from edgegan.trainer.metrics import features
from edgegan.trainer.metrics.frechet import Statistics, frechet_distance

SIZE = 28
DIM = 84  # features, as in LeNet-5
BATCH = 128
OPSET = 18
REFERENCE = 50_000  # training pictures that others are compared with


@dataclass(frozen=True)
class Network:
    """What differs between the two."""

    name: str
    epochs: int
    learning_rate: float  # at the start; it falls to 0 as a half cosine
    shift: int  # training pictures are moved by up to so many pixels each way
    mirror: bool  # and half of them are mirrored
    floor: float  # accuracy


DIGITS = Network("lenet", 10, 1e-3, shift=2, mirror=False, floor=0.992)
GARMENTS = Network("lenet-fashion", 20, 2e-3, shift=1, mirror=True, floor=0.91)


class LeNet(nn.Module):
    """Grey pictures [N, 1, 28, 28] in [-1, 1] -> features [N, 84] in [-1, 1], logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, padding=2)
        self.conv2 = nn.Conv2d(20, 40, 5)
        self.hidden = nn.Linear(40 * 5 * 5, DIM)
        self.dropout = nn.Dropout(0.25)
        self.classify = nn.Linear(DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        found = torch.tanh(self.hidden(x.flatten(1)))  # as LeNet-5; of ReLU's features 33 were 0 for every digit
        return found, self.classify(self.dropout(found))


def shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Each of uint8 [n, 28, 28] moved by up to `most` pixels each way, black coming in: float32 [n, 1, 28, 28]."""
    padded = F.pad(images, (most,) * 4)
    windows = padded.unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # [n, dy, dx, 28, 28]
    dy, dx = torch.randint(2 * most + 1, (2, len(images)))
    return windows[torch.arange(len(images)), dy, dx].unsqueeze(1) / 127.5 - 1


def train(images: torch.Tensor, labels: torch.Tensor, how: Network) -> LeNet:
    """The network that has learnt uint8 [n, 28, 28] and their labels, in eval mode."""
    net = LeNet()
    optimizer = torch.optim.AdamW(net.parameters(), how.learning_rate, weight_decay=0.01)
    steps = how.epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    for epoch in range(how.epochs):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH):
            if len(chosen) < BATCH:
                continue
            batch = images[chosen]
            if how.mirror:
                batch = torch.where(torch.rand(BATCH, 1, 1) < 0.5, batch, batch.flip(2))
            loss = F.cross_entropy(net(shifted(batch, how.shift))[1], labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch + 1} of {how.epochs}: mean loss {total / (len(images) // BATCH):.4f}")
    return net.eval()


def exported(net: LeNet) -> bytes:
    """The file: inputs and outputs by name, a free batch, and how the network wants its pictures."""
    free = {0: torch.export.Dim("N")}
    # The exporter prints its progress and warns of its own internals; what fails raises.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            net,
            (torch.zeros(3, 1, SIZE, SIZE),),
            input_names=["image"],
            output_names=["features", "logits"],
            dynamic_shapes=(free,),
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # torch notes source files there: paths of this machine
    model = program.model_proto
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "edgegan", __version__
    about = features.Preparation((-1.0, 1.0), (SIZE, SIZE), 1, output="features", logits="logits")
    model.metadata_props.add(key=features.METADATA_KEY, value=about.to_json())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def accuracy_of(file: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Which part of uint8 [n, 28, 28] the exported file gives its label."""
    _, logits = features.open_features(file, threads=1).run(images[..., None])
    assert logits is not None
    return float((logits.argmax(1) == labels).mean())


def print_distances(file: Path, shown: np.ndarray, test: np.ndarray) -> None:
    """Fréchet distances of real pictures, uint8 [n, 28, 28], to the first 50,000 of the training pictures `shown`."""
    network = features.open_features(file, threads=1)
    *seen, unseen = (network(part[..., None]) for part in (shown[:REFERENCE], test, shown[REFERENCE:]))
    reference = Statistics.of(seen[0])
    print(f"Fréchet distances to {REFERENCE:,} training pictures, whose features have the total variance", end=" ")
    print(f"{np.trace(reference.covariance):.1f}:")
    for what, found in (("test pictures", seen[1]), ("other training pictures", unseen)):
        for n in (1000, 10_000):
            print(f"  {n:6,} {what}: {frechet_distance(Statistics.of(found[:n]), reference):.3f}")


def read(folder: Path, images: str, digests: tuple[str | None, str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 [n, 28, 28] and labels uint8 [n]. Raises FileNotFoundError."""
    path = next((p for p in (folder / images, folder / f"{images}.gz") if p.is_file()), None)
    beside = None if path is None else idx_labels_of(path)
    if path is None or beside is None:
        raise FileNotFoundError(f"{folder} lacks {images}, or the labels beside it")
    return read_idx(path, digests[0]), read_idx(beside, digests[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the feature network of the metrics.")
    parser.add_argument("data", type=Path, help="folder of the IDX files, .gz or not, of training and test set")
    parser.add_argument("--fashion", action="store_true", help="the files are Fashion-MNIST's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true", help="train nothing, measure the file that is there")
    parser.add_argument("-o", "--out", type=Path, help="default: where the metrics look for it")
    arguments = parser.parse_args()
    how = GARMENTS if arguments.fashion else DIGITS
    out = arguments.out or features.NETWORKS / f"{how.name}.onnx"
    named = NAMED["fashion-mnist" if arguments.fashion else "mnist"]
    try:
        shown = read(arguments.data, named.images.name, (named.images.sha256, named.labels.sha256))
        test = read(arguments.data, "t10k-images-idx3-ubyte", (None, None))
    except FileNotFoundError as error:
        parser.error(str(error))

    if not arguments.measure:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(arguments.seed)
        began = time.perf_counter()
        labels = torch.from_numpy(shown[1].astype(np.int64))
        net = train(torch.from_numpy(shown[0].copy()), labels, how)
        print(f"{how.epochs} epochs in {time.perf_counter() - began:.0f} s on one thread of {processor()}")
        data = exported(net)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / out.name
            file.write_bytes(data)
            accuracy = accuracy_of(file, *test)
        if accuracy < how.floor:
            parser.exit(1, f"{accuracy:.2%} of the test pictures, less than {how.floor:.1%}: no file is written\n")
        with atomic_write(out) as written:
            written.write(data)
    accuracy, size = accuracy_of(out, *test), out.stat().st_size
    print(f"{out.name}: {accuracy:.2%} of {len(test[1]):,} test pictures, {size:,} bytes")
    print_distances(out, shown[0], test[0])


if __name__ == "__main__":
    main()
