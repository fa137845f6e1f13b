import pytest
import torch
from transformers import BertConfig

from glip_model.fusion import BidirectionalCrossAttention, Fusion, TextLayer
from glip_model.layout import CELLS
from tests.glip_model import reference
from tests.glip_model.random_weights import randomise

WIDTHS = (16, 24)  # of cells and of tokens


def _fusion(dropout: float = 0.0) -> Fusion:
    fusion = Fusion(*WIDTHS, BidirectionalCrossAttention(*WIDTHS, 64, 4, dropout), scale=0.5)
    randomise(fusion)
    return fusion


def _inputs(cells: int, tokens: int, used: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(cells)
    used = used or (tokens, tokens)
    mask = (torch.arange(tokens) < torch.tensor(used)[:, None]).long()
    return torch.randn(len(used), cells, 16), torch.randn(len(used), tokens, 24), mask


def _attend(
    attention: BidirectionalCrossAttention, image: torch.Tensor, text: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both updates, the cells met in parts as the fusion does."""
    encounter = attention(text, mask)
    return torch.cat([encounter.meet(cells) for cells in image.split(CELLS, 1)], 1), encounter.told()


@pytest.mark.parametrize("cells", [1, 7, CELLS - 1, CELLS, CELLS + 1, 2 * CELLS + 5])
def test_cross_attention_equals_the_full_attention_at_every_chunk_boundary(cells: int) -> None:
    attention, (image, text, mask) = _fusion().attention, _inputs(cells, 9)
    with torch.no_grad():
        found, expected = _attend(attention, image, text, mask), reference.cross_attention(attention, image, text, mask)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


def test_cells_do_not_look_at_padding() -> None:
    fusion, (image, text, mask) = _fusion(), _inputs(50, 9, used=(4, 7))
    with torch.no_grad():
        update, _ = _attend(fusion.attention, image, text, mask)
        short, _ = _attend(fusion.attention, image[:1], text[:1, :4], mask[:1, :4])
        plain, _ = reference.cross_attention(fusion.attention, image, text, mask)
    torch.testing.assert_close(update, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(update[:1], short, atol=1e-5, rtol=0)


def test_scores_beyond_half_precision_stay_finite_and_equal() -> None:
    attention, (image, text, mask) = _fusion().attention, _inputs(60, 5)
    with torch.no_grad():
        found = _attend(attention, 300 * image, 300 * text, mask)
        expected = reference.cross_attention(attention, 300 * image, 300 * text, mask)
    for ours, plain in zip(found, expected, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, plain, atol=2e-2, rtol=1e-3)


def test_fusion_starts_from_the_normalised_inputs() -> None:
    fusion, (image, text, mask) = _fusion(), _inputs(24, 6)
    with torch.no_grad():
        found_image, found_text = fusion(image.clone(), text.clone(), mask)
        levels = [image.transpose(1, 2).unflatten(2, (4, 6))]
        (expected_image,), expected_text = reference.fuse(fusion, levels, text, mask)
    torch.testing.assert_close(found_image, expected_image.flatten(2).transpose(1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found_text, expected_text, atol=1e-5, rtol=0)


def test_gradients_of_cross_attention_equal_the_plain_ones() -> None:
    attention, (image, text, mask) = _fusion().attention, _inputs(CELLS + 30, 9, used=(9, 5))
    image, text = image.requires_grad_(), text.requires_grad_()
    inputs = [image, text, *attention.parameters()]
    found = torch.autograd.grad([x.sin().sum() for x in _attend(attention, image, text, mask)], inputs)
    plain = reference.cross_attention(attention, image, text, mask)
    expected = torch.autograd.grad([x.sin().sum() for x in plain], inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * max(1.0, float(theirs.abs().max())), rtol=0)


def test_dropout_of_attention_keeps_the_mean() -> None:
    torch.manual_seed(0)
    attention, (image, text, mask) = _fusion(dropout=0.2).attention.train(), _inputs(40, 6)
    with torch.no_grad():
        runs = [_attend(attention, image, text, mask) for _ in range(200)]
        attention.train(False)
        expected = _attend(attention, image, text, mask)
    for side, plain in enumerate(expected):
        several = torch.stack([run[side] for run in runs])
        assert several.std(0).mean() > 1e-3
        torch.testing.assert_close(several.mean(0), plain, atol=6 * float(several.std(0).max()) / 14, rtol=0)


def test_the_text_layer_equals_the_plain_one() -> None:
    config = BertConfig(hidden_size=24, num_attention_heads=4, intermediate_size=48)
    layer = TextLayer(config)
    randomise(layer)
    layer.train(False)
    _, text, mask = _inputs(1, 9, used=(9, 4))
    with torch.no_grad():
        torch.testing.assert_close(layer(text, mask), reference.text_layer(layer, text, mask), atol=1e-5, rtol=0)
