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

# Cells per step: scores of one step stay in the processor's cache.
CELLS = 1024
# The official code clamps here to stay finite in fp16.
LIMIT = 50_000.0


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

    def forward(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each side learns from the other.

        Args:
            image: ``(B, M, C)``.
            text: ``(B, T, D)``.
            attention_mask: ``(B, T)``, 1 for tokens that cells may look at. Tokens look at all cells, always.

        Returns:
            Updates ``(B, M, C)`` and ``(B, T, D)``.
        """
        B, T, _ = text.shape
        H = self.num_heads
        keys = self._per_head(self.key(text)) * (self.query.out_features // H) ** -0.5
        queries_of_keys = (keys @ self._head_weights(self.query)).flatten(1, 2)  # (B, H T, C)
        shift = (keys @ self.query.bias.view(H, -1, 1)).view(B, 1, H * T)
        out_weights = self.image_out.weight.unflatten(1, (H, -1)).permute(1, 2, 0)  # (H, d, C)
        values = (self._per_head(self.text_value(text)) @ out_weights).flatten(1, 2)  # (B, H T, C)
        no_pads = ((attention_mask == 0) * -9e15)[:, None, None, :]  # (B, 1, 1, T)

        updates = []
        peak = torch.full((B, 1, H * T), -torch.inf, device=image.device)
        total = kept = pooled = torch.zeros((), device=image.device)
        for cells in image.split(CELLS, dim=1):
            scores = clamped(torch.baddbmm(shift, cells, queries_of_keys.transpose(1, 2)).float())  # (B, m, H T)
            to_text = (scores.unflatten(-1, (H, T)) + no_pads).softmax(-1).flatten(2)
            updates.append(torch.baddbmm(self.image_out.bias, self.dropout(to_text).to(cells.dtype), values))
            # Softmax over all cells with a running maximum: no (M, H T) tensor is kept.
            higher = torch.maximum(peak, scores.detach().amax(1, keepdim=True))
            shrink, peak = (peak - higher).exp(), higher
            weights = (scores - peak).exp()
            dropped = self.dropout(weights)
            total = total * shrink + weights.sum(1, keepdim=True)
            kept = kept * shrink + dropped.sum(1, keepdim=True)
            pooled = pooled * shrink.transpose(1, 2) + dropped.transpose(1, 2) @ cells.float()
        pooled = (pooled / total.transpose(1, 2)).to(image.dtype).unflatten(1, (H, T))  # (B, H, T, C)
        seen = pooled @ self._head_weights(self.image_value).transpose(1, 2)  # (B, H, T, d)
        # Weights sum to one but for dropout, so the bias of the values enters with what was kept.
        seen = seen + self.image_value.bias.view(H, 1, -1) * (kept / total).view(B, H, T, 1)
        return torch.cat(updates, 1), self.text_out(seen.transpose(1, 2).flatten(2))


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
        image, text = self.image_norm(image), self.text_norm(text)
        image_update, text_update = self.attention(image, text, attention_mask)
        return torch.addcmul(image, self.image_scale, image_update), text + self.text_scale * text_update


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
