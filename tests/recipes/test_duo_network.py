"""The network: what it is at its start, its rotary positions, and that every attention is the same attention."""

from __future__ import annotations

import pytest
import torch
from duo import noise, rotary
from duo.dit import SIZES, DiT
from duo.loss import naive_loss, token_loss

from outlast.errors import BadInput

TOY = {"vocab": 31, "hidden": 32, "blocks": 2, "heads": 4, "cond_dim": 16, "length": 24}


def awake(seed: int = 0, **change) -> DiT:
    """A network whose zeros are not zero any more, as after some training."""
    made = torch.Generator().manual_seed(seed)
    network = DiT(**{**TOY, "dropout": 0.0, **change})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=made))
    return network.eval()


def tokens(batch: int = 2, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(31, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_at_its_start_it_knows_nothing_and_every_block_does_nothing() -> None:
    network = DiT(**TOY).eval()
    z, sigma = tokens(), torch.tensor([0.1, 3.0])
    assert (network(z, sigma) == 0).all()
    plain = torch.nn.functional.layer_norm(network.embedding(z), (32,))
    torch.testing.assert_close(network.hidden(z, sigma), plain)


def test_a_step_of_training_wakes_the_output_and_the_next_ones_the_blocks() -> None:
    torch.manual_seed(0)
    network = DiT(**{**TOY, "dropout": 0.0})
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    x = tokens(8) % 3  # something to learn: three tokens of 31
    losses = []
    for _ in range(30):
        t = torch.full((8,), 0.3)
        z = noise.corrupt(x, noise.alpha(t), 31)
        loss = token_loss(network.projection(z, noise.sigma(t)), x, z, t, 31).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


def test_a_turn_is_a_product_with_a_complex_number() -> None:
    made = torch.Generator().manual_seed(2)
    heads = torch.randn(2, 3, 50, 16, generator=made, dtype=torch.float64)
    places = torch.arange(50, dtype=torch.float64)
    theta = torch.tensor([10_000 ** (-2 * i / 16) for i in range(8)], dtype=torch.float64)
    turned = torch.complex(heads[..., :8], heads[..., 8:]) * torch.exp(1j * places[:, None] * theta)
    wanted = torch.cat((turned.real, turned.imag), -1)
    torch.testing.assert_close(rotary.turn(heads, *rotary.table(50, 16)), wanted, atol=1e-6, rtol=0)


def test_a_product_of_turned_heads_knows_only_how_far_apart_they_are() -> None:
    made = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, 1, 8, generator=made).expand(2, 40, 8)
    turning = rotary.table(40, 8)
    products = rotary.turn(query, *turning) @ rotary.turn(key, *turning).t()
    torch.testing.assert_close(products[10, 3], products[30, 23])
    assert (products[10, 3] - products[10, 4]).abs() > 1e-3


def test_far_places_are_turned_as_exactly_as_near_ones() -> None:
    cosine, _ = rotary.table(100_000, 4)
    assert cosine[99_999, 0].item() == pytest.approx(torch.tensor(99_999.0, dtype=torch.float64).cos().item(), abs=1e-6)


def test_torch_attention_is_attention_by_hand() -> None:
    z, sigma = tokens(), torch.tensor([0.1, 3.0])
    by_torch, by_hand, chosen = (awake(attention=name)(z, sigma) for name in ("sdpa", "eager", "auto"))
    torch.testing.assert_close(by_torch, by_hand, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(chosen, by_hand, atol=1e-5, rtol=1e-5)
    assert by_hand.std() > 0.01


def test_every_position_sees_all_others_and_their_order() -> None:
    network, z, sigma = awake(), tokens(1), torch.tensor([0.5])
    before = network(z, sigma)
    for place in (0, 23):
        other = z.clone()
        other[0, place] = (z[0, place] + 1) % 31
        assert ((network(other, sigma) - before).abs().amax(-1) > 1e-6).all()
    swapped = z.clone()
    swapped[0, [2, 9]] = z[0, [9, 2]]
    assert (network(swapped, sigma) - before)[0, 15].abs().max() > 1e-6


def test_it_is_told_how_much_noise_there_is() -> None:
    network, z = awake(), tokens(1).expand(2, -1)
    little, much = network(z, torch.tensor([0.01, 6.0]))
    assert (little - much).abs().max() > 1e-2


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, z, sigma = awake(), tokens(3), torch.tensor([0.1, 1.0, 3.0])
    torch.testing.assert_close(network(z, sigma)[1:2], network(z[1:2], sigma[1:2]), atol=1e-5, rtol=1e-5)


def test_shorter_text_goes_and_longer_is_refused() -> None:
    network = awake()
    assert network(tokens(length=5), torch.tensor([1.0, 1.0])).shape == (2, 5, 31)
    with pytest.raises(BadInput, match="25 positions, the network has 24"):
        network(tokens(length=25), torch.tensor([1.0, 1.0]))


def test_from_hidden_states_the_loss_is_that_of_the_logits() -> None:
    network, x, t = awake(), tokens(), torch.tensor([0.2, 0.8])
    z = noise.corrupt(x, noise.alpha(t), 31, generator=torch.Generator().manual_seed(4))
    sigma = noise.sigma(t)
    chunked = token_loss(network.projection(z, sigma), x, z, t, 31, chunk_bytes=31 * 4 * 7)
    torch.testing.assert_close(chunked, naive_loss(network(z, sigma), x, z, t, 31), rtol=1e-3, atol=1e-3)


def test_half_precision_trains_with_weights_in_float32() -> None:
    network, x, t = awake().train(), tokens(), torch.tensor([0.2, 0.8])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = token_loss(network.projection(x, noise.sigma(t)), x, x, t, 31).mean()
    high = token_loss(network.projection(x, noise.sigma(t)), x, x, t, 31).mean()
    low.backward()
    assert low.item() == pytest.approx(high.item(), rel=0.1)
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_whole_heads(name) -> None:
    size = SIZES[name]
    with torch.device("meta"):
        network = DiT(50_257, size.hidden, size.blocks, size.heads, size.cond_dim, 1024)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx({"toy": 6.6, "tiny": 34.0, "small": 169.6, "medium": 424.0}[name], rel=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"heads": 5}, "do not make 5 heads"), ({"heads": 32}, "of an even size"), ({"attention": "best"}, "'best'")],
)
def test_sizes_that_do_not_go_together_are_refused(change, says) -> None:
    with pytest.raises(BadInput, match=says):
        DiT(**{**TOY, **change})
