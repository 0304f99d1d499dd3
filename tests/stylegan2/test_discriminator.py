"""The discriminator: closed forms, any batch size, conversion."""

import pytest
import torch

from stylegan2.networks.discriminator import Discriminator, minibatch_std
from stylegan2.public.rosinality import discriminator_from_rosinality, discriminator_to_rosinality

pytestmark = pytest.mark.usefixtures("one_thread")


TINY = {4: 8, 8: 6, 16: 8, 32: 4}


def test_minibatch_std_closed_form():
    x = torch.zeros(4, 1, 2, 2)
    x[:2] = 2.0  # values 2, 2, 0, 0: standard deviation 1
    out = minibatch_std(x)
    assert out.shape == (4, 2, 2, 2) and torch.allclose(out[:, 1], torch.ones(()))
    assert torch.equal(out[:, :1], x)


@pytest.mark.parametrize("n", [1, 3, 5, 6])
def test_discriminator_takes_any_batch_and_is_twice_differentiable(n):
    torch.manual_seed(0)
    discriminator = Discriminator(16, {4: 8, 8: 6, 16: 4})
    x = torch.randn(n, 3, 16, 16, requires_grad=True)
    logits = discriminator(x)
    assert logits.shape == (n, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None for name, p in discriminator.named_parameters() if name.endswith("weight"))


def test_discriminator_converts_with_its_channel_table():
    torch.manual_seed(0)
    discriminator = Discriminator(32, TINY)
    again = discriminator_from_rosinality(discriminator_to_rosinality(discriminator))
    x = torch.randn(2, 3, 32, 32)
    assert again.config == discriminator.config
    assert torch.equal(again(x), discriminator(x))
    with pytest.raises(ValueError, match="expected images"):
        discriminator(torch.zeros(1, 3, 16, 16))
