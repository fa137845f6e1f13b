"""The whole network against the plain path, on sizes, captions and batches that its shortcuts must survive."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from glip_model.modeling_glip import NO_TOKEN, GlipForDetection
from tests.glip_model import reference
from tests.glip_model.random_weights import random_model, random_pixels

SIZES = [(32, 32), (96, 160), (64, 288), (224, 32), (352, 416)]


def _caption(*lengths: int, width: int | None = None, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Random ids ``(B, T)`` with this many tokens each, padded to the longest or to ``width``."""
    mask = (torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, 50, mask.shape, generator=torch.Generator().manual_seed(seed))
    return ids * mask, mask


def _assert_equal_to_plain_path(
    model: GlipForDetection, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> None:
    with torch.no_grad():
        output = model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
        logits, deltas, centerness = reference.forward(model, pixel_values, input_ids, attention_mask)
    T = input_ids.shape[1]
    words = attention_mask.expand(len(pixel_values), -1).bool().unsqueeze(1).expand_as(output.token_logits)
    plain = logits[..., :T]
    assert plain[words].std() > 0.3  # else there was nothing to compare
    torch.testing.assert_close(output.token_logits[words], plain[words], atol=1e-4, rtol=0)
    assert (output.token_logits[~words] == NO_TOKEN).all()
    torch.testing.assert_close(output.box_deltas, deltas, atol=1e-4, rtol=0)
    torch.testing.assert_close(output.centerness, centerness, atol=1e-4, rtol=0)


@pytest.mark.parametrize("early_fusion", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_picture_gives_the_plain_logits(size: tuple[int, int], early_fusion: bool) -> None:
    model = random_model(early_fusion)
    _assert_equal_to_plain_path(model, random_pixels(1, *size), *_caption(7))


@pytest.mark.parametrize("early_fusion", [True, False])
def test_a_batch_under_one_padded_caption_gives_the_plain_logits(early_fusion: bool) -> None:
    _assert_equal_to_plain_path(random_model(early_fusion), random_pixels(2, 96, 128), *_caption(5, width=20))


@pytest.mark.parametrize("early_fusion", [True, False])
def test_captions_of_unequal_length_in_a_batch_give_the_plain_logits(early_fusion: bool) -> None:
    _assert_equal_to_plain_path(random_model(early_fusion), random_pixels(2, 96, 128), *_caption(3, 11))


def test_a_caption_of_all_256_tokens_gives_the_plain_logits() -> None:
    _assert_equal_to_plain_path(random_model(), random_pixels(1, 64, 96), *_caption(256))


def test_a_caption_of_one_token_gives_the_plain_logits() -> None:
    _assert_equal_to_plain_path(random_model(), random_pixels(1, 64, 96), *_caption(1))


@pytest.mark.parametrize("seed", range(3))
def test_other_weights_give_the_plain_logits(seed: int) -> None:
    model = random_model(seed=seed + 10, hidden_size=32, num_blocks=3)
    _assert_equal_to_plain_path(model, random_pixels(1, 160, 224, seed), *_caption(9, seed=seed))


@pytest.mark.parametrize("early_fusion", [True, False])
def test_gradients_equal_those_of_the_plain_path(early_fusion: bool) -> None:
    model, pixels = random_model(early_fusion), random_pixels(2, 96, 128)
    ids, mask = _caption(4, 9)
    words = mask.unsqueeze(1).bool()

    def gradients(network: GlipForDetection, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        logits = outputs[0][..., : ids.shape[1]].masked_fill(~words, 0.0)
        torch.stack([x.sin().sum() for x in (logits, *outputs[1:])]).sum().backward()
        return {name: p.grad.double() for name, p in network.named_parameters() if p.grad is not None}

    doubled = copy.deepcopy(model).double()  # in float32 the plain path is further from the truth than the fast one
    expected = gradients(doubled, reference.forward(doubled, pixels.double(), ids, mask))
    output = model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    found = gradients(model, (output.token_logits, output.box_deltas, output.centerness))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        scale = max(float(gradient.abs().max()), 1.0)  # the biases of keys have rounding for a gradient
        torch.testing.assert_close(found[name], gradient, atol=1e-3 * scale, rtol=0, msg=name)
