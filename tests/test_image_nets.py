"""What superres and restore share: the U-Net discriminator, their phases, terms with closed forms, who learns when."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgegan.trainer import recipes
from edgegan.trainer.image_nets import Bounded, UNetDiscriminator, paired_phases, picture_logits
from edgegan.trainer.recipe import Batch, DataShape, Progress, Recipe

START, END = Progress(0, 4, 100), Progress(90, 4, 100)  # within the warm-up and behind it
TINY: dict[str, dict[str, object]] = {
    "superres": {"width": 8, "blocks": 1, "d_width": 8},
    "restore": {"width": 0.25, "style_dim": 8, "d_width": 8},
}
paired_recipe = pytest.mark.parametrize("name", ["superres", "restore"])


def example(name: str, **options: object) -> tuple[Recipe, nn.ModuleDict, Batch]:
    """A recipe, its nets for pictures of 16x16 and a batch of four, as the loop would make it."""
    recipe, shape = recipes.load(name), DataShape(16, 16, 1)
    config = recipe.Config(**TINY[name], **options)
    config = config if recipe.complete is None else recipe.complete(config, shape)
    torch.manual_seed(0)
    real = torch.rand(4, 1, 16, 16) * 2 - 1
    z = torch.randn(4, recipe.degrade_noise(config, shape))
    return recipe, recipe.build(config, shape), Batch(real, None, z, recipe.degrade(config, real, z))


def test_d_gives_each_pixel_a_logit_at_any_size() -> None:
    D = UNetDiscriminator(3, 8)
    for h, w in ((8, 8), (17, 13), (32, 20)):
        logits = D(torch.randn(2, 3, h, w))
        assert logits.shape == (2, h, w)
        assert logits.dtype == torch.float32


def test_d_sees_what_is_far_and_what_is_near() -> None:
    """A pixel's logit depends on its neighbours and, by way of the halvings, on pixels 20 away."""
    D = UNetDiscriminator(1, 8).eval()
    image = torch.randn(1, 1, 64, 64, requires_grad=True)
    D(image)[0, 32, 32].backward()
    assert image.grad is not None
    slope = image.grad[0, 0].abs()
    assert slope[32, 32] > 0
    assert slope[32, 12] > 0
    assert slope[32, 31:34].mean() > 5 * slope[32, 10:14].mean()


def test_spectral_norm_holds_all_layers_but_the_first_and_the_last() -> None:
    torch.manual_seed(0)
    D = UNetDiscriminator(1, 8)
    for conv in (*D.downs, *D.ups, D.mix):
        with torch.no_grad():
            conv.parametrizations.weight.original.mul_(7)
    for _ in range(30):  # of the power iteration
        D(torch.randn(1, 1, 16, 16))
    D.eval()
    for conv in (*D.downs, *D.ups, D.mix):
        largest = np.linalg.svd(conv.weight.detach().flatten(1).numpy(), compute_uv=False)[0]
        assert largest == pytest.approx(1, rel=0.05)
    assert isinstance(D.first.weight, nn.Parameter)
    assert isinstance(D.out.weight, nn.Parameter)


@paired_recipe
def test_terms_have_their_closed_forms(name: str) -> None:
    recipe, nets, batch = example(name)
    d_phase, g_phase = recipe.phases(recipe.Config(l1_weight=3.0, adversarial_weight=0.25, warmup=0.5))
    distance = np.abs(nets["G"](batch.source).detach().numpy() - batch.real.numpy()).mean()
    terms = g_phase.loss(nets, batch, START)
    assert terms.keys() == {"L1"}
    assert terms["L1"].item() == pytest.approx(3 * distance, rel=1e-5)
    for bias in (0.0, 40.0):  # of paired logits the difference alone counts: where D says one thing, log 2 is left
        nn.init.zeros_(nets["D"].out.weight)
        nn.init.constant_(nets["D"].out.bias, bias)
        terms = g_phase.loss(nets, batch, END)
        assert terms.keys() == {"L1", "G"}
        assert terms["G"].item() == pytest.approx(0.25 * math.log(2))
        for nimg, share in ((50, 0.0), (53, 0.3), (60, 1.0)):  # it rises behind the warm-up
            terms = g_phase.loss(nets, batch, Progress(nimg, 4, 100))
            assert terms["G"].item() == pytest.approx(0.25 * math.log(2) * share, rel=1e-5, abs=1e-7)
        assert d_phase.loss(nets, batch, START)["D"].item() == pytest.approx(math.log(2))


@paired_recipe
@pytest.mark.parametrize("t", [START, END])
def test_gradients_reach_all_of_the_net_that_learns_and_no_other(name: str, t: Progress) -> None:
    recipe, nets, batch = example(name)
    for phase in recipe.phases(recipe.Config()):
        for net in ("G", "D"):
            nets[net].requires_grad_(net in phase.trains)
        nets.zero_grad()
        torch.stack(list(phase.loss(nets, batch, t).values())).sum().backward()
        for key, p in nets.named_parameters():
            if key.split(".")[0] in phase.trains:
                assert p.grad is not None, key
                assert p.grad.isfinite().all(), key
                assert p.grad.any(), key
            else:
                assert p.grad is None, key


def test_d_learns_to_tell_pixels_of_pairs() -> None:
    recipe, nets, batch = example("superres", d_lr=1e-2)
    d_phase, _ = recipe.phases(recipe.Config(d_lr=1e-2))
    optimizer = d_phase.optimizer(nets["D"].parameters())
    for _ in range(8):
        d_phase.loss(nets, batch, START)["D"].backward()
        optimizer.step()
        optimizer.zero_grad()
    nets.eval()
    with torch.no_grad():
        fake = nets["G"](batch.source)
        assert (nets["D"](batch.real) > nets["D"](fake)).float().mean() > 0.8
        real_logits, fake_logits = picture_logits(nets, batch.real, None), picture_logits(nets, fake, None)
    assert real_logits.shape == (4,)
    assert (real_logits > fake_logits).all()


@paired_recipe
def test_a_feature_network_adds_a_term_behind_the_warm_up(name: str) -> None:
    _, nets, batch = example(name)
    Config = recipes.load(name).Config
    with_network = Config(perceptual="lenet", perceptual_weight=2.0)
    for config, terms in ((with_network, {"L1", "perceptual", "G"}), (Config(), {"L1", "G"})):
        _, g_phase = paired_phases(config)
        assert g_phase.loss(nets, batch, START).keys() == {"L1"}
        found = g_phase.loss(nets, batch, END)
        assert found.keys() == terms
    _, once = paired_phases(Config(perceptual="lenet", perceptual_weight=1.0))
    _, twice = paired_phases(with_network)
    weighed = [phase.loss(nets, batch, END)["perceptual"].item() for phase in (once, twice)]
    assert weighed[0] > 0
    assert weighed[1] == pytest.approx(2 * weighed[0], rel=1e-5)


@paired_recipe
def test_a_picture_is_made_and_judged_by_itself(name: str) -> None:
    recipe, nets, batch = example(name)
    module = recipe.export_module(nets.eval())
    with torch.no_grad():
        together, alone = module(batch.source), module(batch.source[2:3])
        assert torch.allclose(together[2:3], alone, atol=1e-5)
        logits = picture_logits(nets, together, None)
        assert torch.allclose(logits[2:3], picture_logits(nets, alone, None), atol=1e-5)


def test_bounded() -> None:
    class Far(nn.Module):
        def forward(self, source: Tensor) -> Tensor:
            return 3 * source

    source = torch.tensor([-1.0, -0.2, 0.2, 1.0]).view(1, 1, 2, 2)
    expected = torch.tensor([-1.0, -0.6, 0.6, 1.0]).view(1, 1, 2, 2)
    assert torch.allclose(Bounded(Far())(source), expected)


@paired_recipe
def test_the_average_of_g_is_what_is_exported(name: str) -> None:
    recipe, nets, batch = example(name)
    _, g_phase = recipe.phases(recipe.Config())
    with torch.no_grad():
        before = recipe.export_module(nets)(batch.source)
        nets["G"].out.bias.add_(5)
        assert torch.equal(recipe.export_module(nets)(batch.source), before)
        assert g_phase.after is not None
        g_phase.after(nets, batch, Progress(0, 100_000, 100_000))  # past many half-lives
        assert not torch.allclose(recipe.export_module(nets)(batch.source), before, atol=0.1)
