"""Layers of recipes against known answers: equalised learning rate, pixel norm, the deviation of a group."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgegan.export.trace import to_onnx, to_program
from edgegan.spec import ModelSpec
from edgegan.trainer.layers import EqualizedConv2d, EqualizedLinear, minibatch_deviation, pixel_norm


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_equalised_weights_keep_the_variance_and_start_from_a_normal_distribution(rate: float) -> None:
    torch.manual_seed(0)
    dense = EqualizedLinear(300, 400, rate=rate, bias=0.5)
    assert (dense.weight * rate).std().item() == pytest.approx(1, rel=0.01)
    y = dense(torch.randn(200, 300))
    assert y.mean().item() == pytest.approx(0.5, abs=0.02)
    assert y.std().item() == pytest.approx(1, rel=0.02)
    conv = EqualizedConv2d(64, 48, 3)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.01)
    y = conv(torch.randn(8, 64, 16, 16))[:, :, 1:-1, 1:-1]
    assert y.shape == (8, 48, 14, 14)
    assert y.var().item() == pytest.approx(2, rel=0.05)  # He's gain: half of it is left behind a ReLU
    assert EqualizedConv2d(3, 8, 1, bias=False).bias is None


def test_equalised_weights_all_learn_at_one_speed() -> None:
    """A step of Adam moves each weight by the learning rate, and what is used of it by that share of its usual size."""
    dense, conv = torch.ones(1, 1000), torch.ones(1, 16, 3, 3)
    for layer, x in ((EqualizedLinear(1000, 4), dense), (EqualizedConv2d(16, 4, 3), conv)):
        used = (layer.weight * layer.scale).detach().clone()
        layer(x).sum().backward()
        torch.optim.Adam(layer.parameters(), lr=0.001, betas=(0.0, 0.99)).step()
        moved = (layer.weight * layer.scale - used).abs()
        assert moved.mean().item() / used.std().item() == pytest.approx(0.001, rel=0.2)
    slow = EqualizedLinear(1000, 4, rate=0.01)
    before = slow.weight.detach() * slow.scale
    slow(torch.ones(1, 1000)).sum().backward()
    torch.optim.Adam(slow.parameters(), lr=0.001, betas=(0.0, 0.99)).step()
    assert (slow.weight * slow.scale - before).abs().mean().item() == pytest.approx(1e-5 * 1000**-0.5, rel=0.01)


def test_pixel_norm_divides_by_the_root_mean_square() -> None:
    x = torch.tensor([[3.0, 4.0], [0.6, -0.8]])
    assert torch.allclose(pixel_norm(x), x / torch.tensor([[12.5], [0.5]]).sqrt())
    images = torch.randn(2, 32, 4, 4) * 100
    assert torch.allclose(pixel_norm(images).square().mean(1), torch.ones(2, 4, 4), atol=1e-5)


def test_pixel_norm_of_nothing_is_nothing_also_in_onnx() -> None:
    """torch's exporter leaves out what it takes for + 0, such as the papers' 1e-8; 0 would become 0 / 0."""

    class Norm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return pixel_norm(x)

    x = torch.tensor([[0.0, 0.0, 0.0], [1e-3, 2.0, 5.0]])
    expected = pixel_norm(x)
    assert torch.equal(expected[0], torch.zeros(3))
    program = to_program(Norm(), ModelSpec("norm", (1, 3), 1, 3))
    data = to_onnx(program, ["z"], ["image"]).SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    (drawn,) = session.run(None, {"z": x.numpy()})
    assert np.allclose(drawn, expected.numpy(), rtol=1e-5, atol=0)


def test_the_deviation_of_a_group_is_a_last_channel() -> None:
    """Channel 0 of the first group has the values 0, 0, 2, 2, of deviation 1; channel 1 is constant: on average 1/2."""
    x = torch.zeros(8, 2, 3, 5)
    x[2:4, 0] = 2
    x[4:] = torch.tensor([1.0, -1.0, 7.0, -7.0])[:, None, None, None]  # in both channels: deviation 5
    y = minibatch_deviation(x)
    assert y.shape == (8, 3, 3, 5)
    assert torch.equal(y[:, :2], x)
    assert torch.allclose(y[:4, 2], torch.tensor(0.5), atol=1e-3)
    assert torch.allclose(y[4:, 2], torch.tensor(5.0), atol=1e-3)
    one_group = minibatch_deviation(x[:6])  # no multiple of four
    assert torch.allclose(one_group[:, 2], x[:6].std(0, unbiased=False).mean(), atol=1e-3)
    assert minibatch_deviation(x.bfloat16()).dtype == torch.bfloat16


def test_the_deviation_of_equal_pictures_has_a_finite_slope() -> None:
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    minibatch_deviation(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
