"""The first GAN: two multi-layer perceptrons, for small pictures of any shape.

Paper: Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio 2014, "Generative Adversarial Nets".
The place to begin reading: no layer knows what a picture is. Grey or colour, at most 64 pixels a side, no classes.

G: z [n, 64] -> dense layers of 256, 512 and 1024 features, ReLU -> one for each pixel, tanh. D: all pixels -> dense
layers of 512 and 256 features, LeakyReLU(0.2) and dropout -> one logit. --loss chooses what G learns from: minimax, the
paper's equation 1, or nonsaturating, which its section 3 advises. D learns one step for each of G, as there.

What differs from the paper: normal latents for its uniform ones, tanh for sigmoid since pictures are in [-1, 1], ReLU
throughout G, LeakyReLU in place of maxout in D, Adam in place of momentum; an exponential moving average of G draws the
pictures; --pack joins pictures (PacGAN).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgegan.errors import ArgumentError
from edgegan.spec import ModelSpec
from edgegan.trainer.config import option
from edgegan.trainer.ema import EMA, averaged, follow_generator
from edgegan.trainer.layers import Dropout, check_pack, pack, packs_of_each
from edgegan.trainer.losses import discriminator_bce, generator_minimax, generator_nonsaturating
from edgegan.trainer.recipe import Batch, DataShape, Phase, Progress, Recipe

MAX_SIDE = 64  # pixels: a dense layer has a weight for each pixel and each feature
G_WIDTHS, D_WIDTHS = (256, 512, 1024), (512, 256)  # features of the hidden layers, from the input on
GENERATOR_LOSSES = {"minimax": generator_minimax, "nonsaturating": generator_nonsaturating}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters."""

    kimg: float = option(3000.0, "thousands of images to show", low=0.001, high=1e9)
    batch: int = option(64, "images in a batch", low=1, high=65536)
    latent_dim: int = option(64, "elements of z", low=1, high=65536)
    loss: str = option(
        "nonsaturating",
        "what G learns from: the paper's equation 1 or its advice",
        choices=("minimax", "nonsaturating"),
    )
    lr: float = option(2e-4, "Adam's learning rate, for both nets", low=0, high=10)
    beta1: float = option(0.5, "Adam's beta1; beta2 is 0.999", low=0, high=0.999)
    dropout: float = option(0.3, "share of D's features dropped", low=0, high=0.95)
    pack: int = option(1, "pictures that D judges together, against collapse; 1: each by itself", low=1, high=16)
    ema_kimg: float = option(20.0, "half-life of G's moving average in thousands of images", low=0, high=1e6)


class Generator(nn.Sequential):
    """z [n, latent_dim] -> [n, C, H, W] in [-1, 1]."""

    def __init__(self, latent_dim: int, shape: DataShape) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise([latent_dim, *G_WIDTHS]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        picture = (shape.channels, shape.height, shape.width)
        layers += [nn.Linear(G_WIDTHS[-1], pixels(shape)), nn.Tanh(), nn.Unflatten(1, picture)]
        super().__init__(*layers)


class Discriminator(nn.Module):
    """Images [n, C, H, W] -> logits [n / pack]: positive means real."""

    def __init__(self, config: Config, shape: DataShape) -> None:
        super().__init__()
        self.pack = config.pack
        layers: list[nn.Module] = []
        for before, after in pairwise([config.pack * pixels(shape), *D_WIDTHS]):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2), Dropout(config.dropout)]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(D_WIDTHS[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(pack(images, self.pack)).squeeze(1).float()  # the loss is float32 under autocast too


def pixels(shape: DataShape) -> int:
    """The numbers that make a picture."""
    return shape.channels * shape.height * shape.width


def checked(config: Config, shape: DataShape) -> Config:
    """The config, if the pictures and the batch are such that it can be."""
    if max(shape.height, shape.width) > MAX_SIDE:
        raise ArgumentError(
            f"recipe vanilla draws pictures of at most {MAX_SIDE}x{MAX_SIDE}, but the data has "
            f"{shape.width}x{shape.height}: pass --resolution {MAX_SIDE} or less, or take recipe dcgan or edge"
        )
    check_pack(config.batch, config.pack)
    return config


def build(config: Config, shape: DataShape) -> nn.ModuleDict:
    """G, D and the moving average of G."""
    G, D = Generator(config.latent_dim, shape), Discriminator(config, shape)
    for layer in G.modules():  # D keeps torch's smaller weights: one that starts strong leaves G behind for good
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.ModuleDict({"G": G, "D": D, "G_ema": EMA(G, config.ema_kimg * 1000)})


def phases(config: Config) -> tuple[Phase, ...]:
    """D learns to tell real from fake, then G to pass for real."""
    generator_loss = GENERATOR_LOSSES[config.loss]

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=config.lr, betas=(config.beta1, 0.999), fused=True)

    def d_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = nets["G"](batch.z)
        return {"D": discriminator_bce(nets["D"](batch.real), nets["D"](fake))}

    def g_loss(nets: nn.ModuleDict, batch: Batch, t: Progress) -> dict[str, Tensor]:
        return {"G": generator_loss(nets["D"](nets["G"](batch.z)))}

    return (
        Phase("D", trains=("D",), loss=d_loss, optimizer=adam),
        Phase("G", trains=("G",), loss=g_loss, optimizer=adam, after=follow_generator),
    )


def export_module(nets: nn.ModuleDict) -> nn.Module:
    """The generator that users get."""
    return averaged(nets).net


def spec(config: Config, shape: DataShape) -> ModelSpec:
    """What the exported model says about itself."""
    return ModelSpec(
        recipe="vanilla",
        image_size=(shape.height, shape.width),
        channels=shape.channels,
        latent_dim=config.latent_dim,
    )


def logits(nets: nn.ModuleDict, images: Tensor, label: Tensor | None) -> Tensor:
    """[n]: what D says of images, without classes; of each with those that follow it, if it judges packs."""
    D = nets["D"]
    assert isinstance(D, Discriminator)
    return D(images[packs_of_each(len(images), D.pack, images.device)])


RECIPE = Recipe("vanilla", Config, build, phases, export_module, spec, logits, compiles=("G", "D"), complete=checked)
