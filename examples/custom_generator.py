"""Export a generator that edgegan did not train, with every kind of input that a model file can have.

    python examples/custom_generator.py OUT.onnx
    edgegan sample OUT.onnx -n 16 --labels warm --psi 0.7

It is a small StyleGAN2 (Karras et al. 2020): z and a class become a style, the style modulates the convolutions, psi
draws the style towards its mean, and each level adds noise. Its weights are random, so it draws coloured textures; put
`generator.load_state_dict(...)` where your own weights come in.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgegan.export import export_generator
from edgegan.spec import ModelSpec
from edgegan.trainer.layers import modulated_conv2d

LATENT, STYLE, CHANNELS, COARSEST, LEVELS = 64, 64, 32, 4, 4  # 4x4, 8x8, 16x16, 32x32 pixels
CLASSES = ("warm", "cold")


class Level(nn.Module):
    """[n, C, h, w] and styles [n, STYLE] -> [n, C, up * h, up * w], with noise [n, 1, up * h, up * w]."""

    def __init__(self, up: int) -> None:
        super().__init__()
        self.up = up
        self.affine = nn.Linear(STYLE, CHANNELS)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(CHANNELS, CHANNELS, 3, 3))
        self.strength = nn.Parameter(torch.full((), 0.1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        x = modulated_conv2d(x, self.weight, self.affine(style), up=self.up)
        return F.leaky_relu(x + self.strength * noise, 0.2) * 2**0.5


class Generator(nn.Module):
    """z [n, 64], label [n], psi [1], noise of each level -> [n, 3, 32, 32] in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(CLASSES), LATENT)
        self.mapping = nn.Sequential(nn.Linear(2 * LATENT, STYLE), nn.LeakyReLU(0.2), nn.Linear(STYLE, STYLE))
        self.register_buffer("mean_style", torch.zeros(STYLE))  # its moving average, where it was trained
        self.start = nn.Parameter(torch.randn(1, CHANNELS, COARSEST, COARSEST))
        self.levels = nn.ModuleList(Level(up=2 if level else 1) for level in range(LEVELS))
        self.to_rgb = nn.Conv2d(CHANNELS, 3, 1)

    def forward(self, z: Tensor, label: Tensor, psi: Tensor, *noises: Tensor) -> Tensor:
        style = self.mapping(torch.cat([z, self.embed(label)], dim=1))
        style = self.mean_style + psi * (style - self.mean_style)
        x = self.start.expand(z.shape[0], -1, -1, -1)
        for level, noise in zip(self.levels, noises, strict=True):
            x = level(x, style, noise)
        return torch.tanh(self.to_rgb(x))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/custom_generator.py OUT.onnx")
    torch.manual_seed(1)
    generator = Generator()
    sides = [COARSEST << level for level in range(LEVELS)]
    spec = ModelSpec(
        recipe="custom-stylegan2",
        image_size=(sides[-1], sides[-1]),
        channels=3,
        latent_dim=LATENT,
        classes=CLASSES,
        style=True,
        noise_inputs=tuple((1, side, side) for side in sides),
    )
    export_generator(generator, spec, sys.argv[1])


if __name__ == "__main__":
    main()
