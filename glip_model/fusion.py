"""Deep fusion of the two encoders: bidirectional cross-attention and the tower's text layer (GLIP, section 3.2).

Shape letters: B images, M cells of all pyramid levels, T tokens, C image channels, D text width, H heads, d width of a
head. Both attentions are multiplied from the text side. With E = H * d the scores are
``(x Wq + bq) (l Wk + bk)'``; a caption has few tokens, so ``Wq (l Wk + bk)'`` of shape (C, H * T) is formed first and
the 2048-wide tensors over all cells never are. The products are the same, only their order differs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig

from glip_model.layout import joined, place, room_for, slices

# The official code clamps here to stay finite in fp16.
LIMIT = 50_000.0

# Cells per step: what a caption makes of them stays in the cache.
MEETING_CELLS = 2048


def clamped(x: Tensor) -> Tensor:
    return x.clamp(-LIMIT, LIMIT)


class BidirectionalCrossAttention(nn.Module):
    """Each cell looks at the tokens, each token at the cells, through one score matrix (GLIP, eq. 4 to 6)."""

    def __init__(self, channels: int, text_width: int, fusion_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, fusion_dim)
        self.key = nn.Linear(text_width, fusion_dim)
        self.image_value = nn.Linear(channels, fusion_dim)
        self.text_value = nn.Linear(text_width, fusion_dim)
        self.image_out = nn.Linear(fusion_dim, channels)
        self.text_out = nn.Linear(fusion_dim, text_width)
        self.dropout = nn.Dropout(dropout)

    def _per_head(self, x: Tensor) -> Tensor:
        B, T, E = x.shape
        return x.view(B, T, self.num_heads, E // self.num_heads).transpose(1, 2)  # (B, H, T, d)

    def _head_weights(self, linear: nn.Linear) -> Tensor:
        return linear.weight.view(self.num_heads, -1, linear.in_features)  # (H, d, C)

    def forward(self, text: Tensor, attention_mask: Tensor) -> "Encounter":
        """Prepare a caption, or one for each image, to meet the cells of the images.

        Args:
            text: ``(B, T, D)``.
            attention_mask: ``(B, T)``, 1 for tokens that cells may look at. Tokens look at all cells, always.
        """
        B, T, _ = text.shape
        H = self.num_heads
        keys = self._per_head(self.key(text)) * (self.query.out_features // H) ** -0.5
        pads = attention_mask == 0
        out_weights = self.image_out.weight.unflatten(1, (H, -1)).permute(1, 2, 0)  # (H, d, C)
        return Encounter(
            self,
            queries_of_keys=(keys @ self._head_weights(self.query)).flatten(1, 2),
            shift=(keys @ self.query.bias.view(H, -1, 1)).view(B, 1, H * T),
            values=(self._per_head(self.text_value(text)) @ out_weights).flatten(1, 2),
            no_pads=(pads * -9e15)[:, None, None, :] if pads.any() else None,
        )

    def told(self, pooled: Tensor, kept: Tensor) -> Tensor:
        """What tokens make of the cells they looked at.

        Args:
            pooled: ``(B, H, T, C)``, the cells' mean as each head of each token weighed them.
            kept: ``(B, H, T, 1)``, the sum of those weights: one but for dropout.
        """
        seen = pooled @ self._head_weights(self.image_value).transpose(1, 2)  # (B, H, T, d)
        seen = seen + self.image_value.bias.view(self.num_heads, 1, -1) * kept
        told: Tensor = self.text_out(seen.transpose(1, 2).flatten(2).to(self.text_out.weight.dtype))
        return told


class Encounter:
    """A caption meeting the cells of its images, part by part.

    Attributes:
        queries_of_keys: ``(B, H T, C)``; times cells, plus ``shift (B, 1, H T)``, the scores.
        values: ``(B, H T, C)``, what cells take from tokens, behind the output projection.
        no_pads: ``(B, 1, 1, T)``, added to scores that tokens compete for; None where there is no padding.
    """

    def __init__(
        self,
        attention: BidirectionalCrossAttention,
        *,
        queries_of_keys: Tensor,
        shift: Tensor,
        values: Tensor,
        no_pads: Tensor | None,
    ) -> None:
        self._attention = attention
        self._keys, self._shift, self._values, self._no_pads = queries_of_keys, shift, values, no_pads
        # Softmax over all cells with a running maximum: no (M, H T) tensor is kept.
        self._peak = torch.full_like(shift, -torch.inf, dtype=torch.float32)  # (B, 1, H T)
        self._total = self._kept = self._pooled = torch.zeros((), device=shift.device)

    def meet(self, cells: Tensor) -> Tensor:
        """Show some cells ``(B, m, C)`` to the tokens; returns what they learn from them, ``(B, m, C)``."""
        dropout = self._attention.dropout
        scores = torch.baddbmm(self._shift, cells, self._keys.transpose(1, 2)).float()  # (B, m, H T)
        scores = scores.clamp_(-LIMIT, LIMIT)
        heads = scores.unflatten(-1, (self._attention.num_heads, -1))  # (B, m, H, T)
        heads = heads if self._no_pads is None else heads + self._no_pads
        to_text = dropout(heads.softmax(-1).flatten(2)).to(cells.dtype)
        higher = torch.maximum(self._peak, scores.detach().amax(1, keepdim=True))
        shrink, self._peak = (self._peak - higher).exp(), higher
        weights = scores.sub_(higher).exp_()
        dropped = dropout(weights)
        total = weights.sum(1, keepdim=True)
        self._total = self._total * shrink + total
        self._kept = self._kept * shrink + (total if dropped is weights else dropped.sum(1, keepdim=True))
        self._pooled = self._pooled * shrink.transpose(1, 2) + dropped.transpose(1, 2) @ cells.float()
        return torch.baddbmm(self._attention.image_out.bias, to_text, self._values)

    def told(self) -> Tensor:
        """What the tokens learn from all the cells they met: ``(B, T, D)``."""
        H = self._attention.num_heads
        pooled = (self._pooled / self._total.transpose(1, 2)).to(self._values.dtype).unflatten(1, (H, -1))
        return self._attention.told(pooled, (self._kept / self._total).view(*pooled.shape[:3], 1))


class Fusion(nn.Module):
    """Cross-attention around which the *normalised* inputs run as residuals (SPEC 5a: LN replaces its input)."""

    def __init__(self, channels: int, text_width: int, attention: BidirectionalCrossAttention, scale: float) -> None:
        super().__init__()
        self.image_norm = nn.LayerNorm(channels)
        self.text_norm = nn.LayerNorm(text_width)
        self.attention = attention
        self.image_scale = nn.Parameter(torch.full((channels,), scale))
        self.text_scale = nn.Parameter(torch.full((text_width,), scale))

    def forward(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, M, C)`` and ``(B, T, D)`` to the same shapes."""
        text = self.text_norm(text)
        encounter = self.attention(text, attention_mask)

        def updated(part: slice) -> Tensor:
            cells = self.image_norm(image[:, part])
            return torch.addcmul(cells, self.image_scale, encounter.meet(cells), out=place(room, part))

        room = room_for(image, *image.shape[1:])
        cells = joined(map(updated, slices(image.shape[1], image.device, MEETING_CELLS)), room)
        return cells, text + self.text_scale * encounter.told()


class TextLayer(nn.Module):
    """One BERT layer (post-norm) with the official clamps; no part of the published text encoder."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.expand = nn.Linear(width, config.intermediate_size)
        self.contract = nn.Linear(config.intermediate_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention_dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, text: Tensor, attention_mask: Tensor) -> Tensor:
        """``(B, T, D)`` with ``attention_mask (B, T)`` to ``(B, T, D)``."""
        q, k, v = (
            linear(text).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, T, d)
            for linear in (self.query, self.key, self.value)
        )
        scores = clamped((q @ k.transpose(-2, -1)).float() * q.shape[-1] ** -0.5)
        no_pads = ((attention_mask == 0) * -9e15)[:, None, None, :]
        weights = self.attention_dropout((scores + no_pads).softmax(-1)).to(v.dtype)
        seen = (weights @ v).transpose(1, 2).flatten(2)
        text = self.attention_norm(text + self.dropout(self.attention_out(seen)))
        inner = clamped(F.gelu(clamped(self.expand(text))))
        return clamped(self.norm(text + self.dropout(clamped(self.contract(inner)))))
