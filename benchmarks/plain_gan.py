"""DCGAN in the plain loop that public examples teach: what benchmarks/training.py measures the trainer against.

The nets are those of the recipe `dcgan`, layer by layer and with the same names, made of torch's own layers. Float32,
memory as torch lays it out by itself, Adam as it is, D on real and on fake pictures one after the other. The one
difference from the examples: D's step and G's step draw noise of their own, as the recipe does it.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TutorialG(nn.Module):
    """z [n, 100] -> [n, C, 28, 28]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(100, 256 * 7 * 7, bias=False)
        self.norm0 = nn.BatchNorm1d(256 * 7 * 7, eps=1e-3, momentum=0.01)
        self.conv1 = nn.ConvTranspose2d(256, 128, 5, 1, 2, bias=False)
        self.norm1 = nn.BatchNorm2d(128, eps=1e-3, momentum=0.01)
        self.conv2 = nn.ConvTranspose2d(128, 64, 5, 2, 2, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
        self.conv3 = nn.ConvTranspose2d(64, channels, 5, 2, 2, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm0(self.dense(z)), 0.3).view(-1, 256, 7, 7)
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.3)
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.3)
        return torch.tanh(self.conv3(x))


class TutorialD(nn.Module):
    """[n, C, 28, 28] -> [n]."""

    def __init__(self, channels: int, dropout: Callable[[float], nn.Module] = nn.Dropout) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 5, 2, 2)
        self.conv2 = nn.Conv2d(64, 128, 5, 2, 2)
        self.dense = nn.Linear(128 * 7 * 7, 1)
        self.dropout = dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.leaky_relu(self.conv1(x), 0.3))
        x = self.dropout(F.leaky_relu(self.conv2(x), 0.3))
        return self.dense(x.flatten(1)).squeeze(1)


class RadfordG(nn.Sequential):
    """z [n, 100] -> [n, C, 64, 64]."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Unflatten(1, (100, 1, 1)),
            nn.ConvTranspose2d(100, 512, 4, 1, 0, bias=False),
            nn.BatchNorm2d(512),
            nn.ReLU(True),
            nn.ConvTranspose2d(512, 256, 4, 2, 1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(True),
            nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(True),
            nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(True),
            nn.ConvTranspose2d(64, channels, 4, 2, 1, bias=False),
            nn.Tanh(),
        )


class RadfordD(nn.Sequential):
    """[n, C, 64, 64] -> [n]."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 64, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(128, 256, 4, 2, 1, bias=False),
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(256, 512, 4, 2, 1, bias=False),
            nn.BatchNorm2d(512),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(512, 1, 4, 1, 0, bias=False),
            nn.Flatten(0),
        )


def shuffled(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Batches of the pictures in memory, [N, C, H, W], in a new order each epoch, for ever."""
    while True:
        order = torch.randperm(len(images))
        for start in range(0, len(images) - batch + 1, batch):
            yield images[order[start : start + batch]]


def random_noise(step: int, phase: int, n: int) -> Tensor:
    """[n, 100]."""
    return torch.randn(n, 100)


def train(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[Tensor],
    *,
    lr: float,
    beta1: float,
    eps: float,
    noise: Callable[[int, int, int], Tensor] = random_noise,
) -> Iterator[tuple[float, float]]:
    """A step for each batch; yields the losses of D and of G."""
    criterion = nn.BCEWithLogitsLoss()
    optimizer_d = torch.optim.Adam(D.parameters(), lr=lr, betas=(beta1, 0.999), eps=eps)
    optimizer_g = torch.optim.Adam(G.parameters(), lr=lr, betas=(beta1, 0.999), eps=eps)
    for step, real in enumerate(batches):
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))

        optimizer_d.zero_grad()
        fake = G(noise(step, 0, len(real)))
        loss_d = criterion(D(real), ones) + criterion(D(fake.detach()), zeros)
        loss_d.backward()
        optimizer_d.step()

        optimizer_g.zero_grad()
        loss_g = criterion(D(G(noise(step, 1, len(real)))), ones)
        loss_g.backward()
        optimizer_g.step()

        yield loss_d.item(), loss_g.item()
