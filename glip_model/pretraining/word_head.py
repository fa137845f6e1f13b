"""A teacher's aid of pre-training: the pyramid names what it shows, word by word, before the text has any say.

Shape letters: B images, A anchors, C channels, N boxes, P positive anchors, V pieces of the tokenizer.

Boxes are learnt from a few hundred pictures, names from many thousands: until then the alignment loss teaches the image
encoder "a thing" and lets it throw colours and shapes away. A linear word classifier on the pyramid keeps them. It is
trained beside the network and is no part of the saved model (deep supervision; Lee et al., "Deeply-Supervised Nets").
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.anchors import grid_anchors
from glip_model.assignment import assign_targets
from glip_model.loss_glip import UNDECIDED
from glip_model.modeling_glip import ImageStates


class WordHead(nn.Module):
    """Bag of words of every positive anchor, read linearly off the pyramid."""

    def __init__(self, channels: int, pieces: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.words = nn.Linear(channels, pieces)

    def forward(self, image: ImageStates, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Binary cross-entropy, summed over the decided pieces, mean over the positive anchors.

        Args:
            image: cells ``(B, A, C)``.
            targets: per image ``boxes (N, 4)`` xyxy in input pixels and ``words (N, V)``: 1 fits, 0 not, -1 undecided.
        """
        words = torch.cat([target["words"] for target in targets])  # (N, V)
        positives, _ = assign_targets(grid_anchors(image.level_sizes), targets)
        cells = image.cells[positives.image, positives.anchor].float()  # (P, C)
        wanted = words[positives.box].float()  # (P, V)
        loss = F.binary_cross_entropy_with_logits(self.words(self.norm(cells)), wanted.clamp(min=0), reduction="none")
        return (loss * (wanted != UNDECIDED)).sum() / max(1, len(cells))
