"""The word head of pre-training: what its loss counts, and that it teaches the pyramid."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.loss_glip import UNDECIDED
from glip_model.modeling_glip import ImageStates
from glip_model.pretraining.word_head import WordHead

SIZES = ((8, 8), (4, 4), (2, 2), (1, 1), (1, 1))
CELLS = sum(h * w for h, w in SIZES)


def target(words: list[int]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor([[4.0, 4.0, 60.0, 60.0]]), "words": torch.tensor([words], dtype=torch.int8)}


def image(batch: int = 1) -> ImageStates:
    torch.manual_seed(0)
    return ImageStates(torch.randn(batch, CELLS, 16, requires_grad=True), SIZES)


def silent_head(bias: list[float]) -> WordHead:
    """A head that says the same of every cell."""
    head = WordHead(16, len(bias))
    nn.init.zeros_(head.words.weight)
    head.words.bias.data = torch.tensor(bias)
    return head


def test_the_loss_is_the_cross_entropy_of_the_decided_words_per_positive_anchor() -> None:
    head = silent_head([2.0, -1.0, 5.0])
    expected = F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-1.0))
    assert head(image(), [target([1, 0, UNDECIDED])]).item() == pytest.approx(expected.item())


def test_cells_outside_every_box_teach_nothing() -> None:
    states = image(2)
    empty = {"boxes": torch.zeros(0, 4), "words": torch.zeros(0, 3, dtype=torch.int8)}
    WordHead(16, 3)(states, [target([1, 0, 0]), empty]).backward()
    assert states.cells.grad is not None
    assert states.cells.grad[0].abs().sum() > 0
    assert states.cells.grad[1].abs().sum() == 0


def test_a_batch_without_boxes_has_no_loss() -> None:
    empty = {"boxes": torch.zeros(0, 4), "words": torch.zeros(0, 3, dtype=torch.int8)}
    assert WordHead(16, 3)(image(), [empty]).item() == 0.0
