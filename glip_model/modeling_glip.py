"""GLIP: detection as phrase grounding (Grounded Language-Image Pre-training, CVPR 2022).

Shape letters: B images, A anchors = cells of P3 to P7 (row-major, in that order, one anchor per cell), T tokens,
C channels of the alignment space, D text width, N boxes. Sizes are (height, width).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput

from glip_model.anchors import grid_anchors
from glip_model.backbone import FeaturePyramid, SwinBackbone, TransformersBackbone, WindowAttention
from glip_model.configuration_glip import GlipConfig, GlipSwinConfig
from glip_model.deform_conv import LevelSizes
from glip_model.dyhead import DynamicConv, NormedDeformConv
from glip_model.fusion import BidirectionalCrossAttention, Fusion, TextLayer, clamped
from glip_model.loss_glip import TOKEN_MAPS, detection_losses
from glip_model.postprocess import Detections, PostprocessSettings, detect_boxes, label_scores

# Logit of tokens that are padding: no probability, and finite in fp16.
NO_TOKEN = -50_000.0


@dataclass
class GlipOutput(ModelOutput):
    """What the network says about every anchor.

    Attributes:
        loss: weighted sum of ``losses``, in training.
        token_logits: ``(B, A, T)`` alignment of anchors and tokens before the sigmoid; padding has -50,000.
        box_deltas: ``(B, A, 4)`` coded against the anchors (SPEC 7).
        centerness: ``(B, A)`` before the sigmoid.
        level_sizes: ``(B, 5, 2)``, (height, width) of P3 to P7, the same for all images, on the CPU.
        losses: ``token``, ``centerness`` and ``box``, weighted (SPEC 10); None without targets.
        border: ``(B,)``, 1 where x2 and y2 of an image's boxes name the last pixel, 0 where the edge behind it.
    """

    loss: Tensor | None = None
    token_logits: Tensor | None = None
    box_deltas: Tensor | None = None
    centerness: Tensor | None = None
    level_sizes: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    border: Tensor | None = None


@dataclass(frozen=True)
class TextStates:
    """A caption behind the text encoder, reusable for any image: ``hidden (B, T, D)``, ``attention_mask (B, T)``."""

    hidden: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class ImageStates:
    """Images behind the backbone and the pyramid, reusable for any caption: ``cells (B, A, C)`` of levels P3 to P7."""

    cells: Tensor
    level_sizes: LevelSizes


@dataclass(frozen=True)
class FusedStates:
    """Images and a caption behind the tower, all that the head reads: ``cells (B, A, C)``, ``text (B, T, D)``."""

    cells: Tensor
    text: Tensor
    attention_mask: Tensor
    level_sizes: LevelSizes


class TowerBlock(nn.Module):
    """Fusion, text layer, dynamic convolution; without early fusion the last alone."""

    def __init__(self, config: GlipConfig) -> None:
        super().__init__()
        text_config = cast(Any, config.text_config)
        self.fusion: Fusion | None = None
        self.text_layer: TextLayer | None = None
        if config.early_fusion:
            attention = BidirectionalCrossAttention(
                config.hidden_size,
                text_config.hidden_size,
                config.fusion_dim,
                config.num_fusion_heads,
                config.fusion_dropout,
            )
            self.fusion = Fusion(config.hidden_size, text_config.hidden_size, attention, 1 / config.num_blocks)
            self.text_layer = TextLayer(text_config)
        self.dynamic_conv = DynamicConv(config.hidden_size, config.group_norm_groups)

    def forward(self, image: Tensor, text: Tensor, attention_mask: Tensor, sizes: LevelSizes) -> tuple[Tensor, Tensor]:
        """``(B, A, C)`` and ``(B, T, D)`` to the same shapes."""
        if self.fusion is not None and self.text_layer is not None:
            image, text = self.fusion(image, text, attention_mask)
            text = self.text_layer(text, attention_mask)
        return self.dynamic_conv(image, sizes), text


class AlignmentHead(nn.Module):
    """Region-word alignment, boxes and centerness of every cell (GLIP, eq. 3)."""

    def __init__(self, channels: int, text_width: int, num_levels: int, prior_probability: float) -> None:
        super().__init__()
        self.box = nn.Linear(channels, 4)
        self.centerness = nn.Linear(channels, 1)
        self.level_scales = nn.Parameter(torch.ones(num_levels))
        self.text_projection = nn.Linear(text_width, channels)
        self.text_bias = nn.Parameter(torch.zeros(text_width))
        self.prior_bias = nn.Parameter(torch.zeros(1))
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.prior_probability = prior_probability

    def forward(self, image: Tensor, text: Tensor, sizes: LevelSizes) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, A, C)`` and ``(B, T, D)`` to logits ``(B, A, T)``, deltas ``(B, A, 4)``, centerness ``(B, A)``."""
        cells = torch.tensor([h * w for h, w in sizes], device=image.device)
        scales = self.level_scales.repeat_interleave(cells).unsqueeze(-1)  # (A, 1)
        words = F.normalize(text.float(), dim=-1, eps=1e-12).to(self.text_bias.dtype)
        # Official quirk: only the projection sees half of the normalised text, the bias sees all of it.
        tokens = self.text_projection(words / 2) / self.log_scale.exp()  # (B, T, C)
        bias = words @ self.text_bias + self.prior_bias  # (B, T)
        logits = torch.baddbmm(bias.unsqueeze(1).to(image.dtype), image, tokens.to(image.dtype).transpose(1, 2))
        return clamped(logits), self.box(image) * scales, self.centerness(image).squeeze(-1)


class GlipPreTrainedModel(PreTrainedModel):
    """Initialisation and the hooks of transformers."""

    config_class = GlipConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]  # noqa: RUF012 - as the base class types it

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, NormedDeformConv):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
            init.ones_(module.norm_weight)
            init.zeros_(module.norm_bias)
        elif isinstance(module, WindowAttention):
            init.trunc_normal_(module.position_bias, std=0.02)
        elif isinstance(module, Fusion):
            scale = 1 / cast(GlipConfig, self.config).num_blocks
            init.constant_(module.image_scale, scale)
            init.constant_(module.text_scale, scale)
        elif isinstance(module, AlignmentHead):
            init.ones_(module.level_scales)
            init.zeros_(module.text_bias)
            init.zeros_(module.log_scale)
            prior = module.prior_probability
            init.constant_(module.prior_bias, math.log(prior / (1 - prior)))
            init.normal_(module.box.weight, std=0.01)
            init.normal_(module.centerness.weight, std=0.01)
        if isinstance(module, DynamicConv):  # start as a plain convolution with equal attention
            init.zeros_(module.offset.weight)
            init.zeros_(cast(Tensor, module.offset.bias))
            init.normal_(module.scale_attention.weight, std=0.01)


class GlipForDetection(GlipPreTrainedModel):
    """GLIP with early fusion (T, L) or without (A)."""

    def __init__(self, config: GlipConfig) -> None:
        super().__init__(config)
        backbone_config, text_config = config.backbone_config, cast(Any, config.text_config)
        own = isinstance(backbone_config, GlipSwinConfig)
        self.backbone = SwinBackbone(cast(GlipSwinConfig, backbone_config)) if own else TransformersBackbone(config)
        self.pyramid = FeaturePyramid(self.backbone.channels, config.hidden_size, config.drop_block_rate)
        self.text_encoder = BertModel(text_config, add_pooling_layer=False)
        self.tower = nn.ModuleList(TowerBlock(config) for _ in range(config.num_blocks))
        self.head = AlignmentHead(config.hidden_size, text_config.hidden_size, 5, config.prior_probability)
        self.post_init()  # type: ignore[no-untyped-call]

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> TextStates:
        """Run the text encoder once for a caption: ``(B, T)`` ids and mask. B may be 1 for many images.

        Positions behind the last that a caption of the batch uses are cut off: masked everywhere, they change nothing.

        Raises:
            ValueError: more tokens are used than the text encoder has positions for.
        """
        used = int(attention_mask.any(0).nonzero().max()) + 1
        longest = self.text_encoder.config.max_position_embeddings
        if used > longest:
            raise ValueError(f"a caption has {used} tokens, the text encoder reads {longest}: give shorter names")
        ids, mask = input_ids[:, :used], attention_mask[:, :used]
        hidden = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return TextStates(hidden, mask)

    def encode_image(self, pixel_values: Tensor) -> ImageStates:
        """Run backbone and pyramid once for many captions: ``(B, 3, H, W)`` of any precision."""
        levels = self.pyramid(self.backbone(pixel_values.to(self.dtype)))
        sizes = tuple((level.shape[2], level.shape[3]) for level in levels)
        return ImageStates(torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1), sizes)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        text_states: TextStates | None = None,
        image_states: ImageStates | None = None,
        **_unused: Any,
    ) -> GlipOutput:
        """Align every anchor with every token.

        Args:
            pixel_values: ``(B, 3, H, W)``, BGR 0-255 minus mean over standard deviation, padded right and bottom to
                multiples of 32 after that.
            input_ids: ``(B, T)``, or ``(1, T)`` for one caption over all images.
            attention_mask: same shape, 1 for tokens; all ones when left out.
            targets: per image ``boxes (N, 4)`` xyxy in input pixels, ``positive_map (N, T)`` and what else
                `detection_losses` knows; adds the losses.
            text_states: of :meth:`encode_text`, instead of ``input_ids``.
            image_states: of :meth:`encode_image`, instead of ``pixel_values``.
            _unused: what tokenizers add for other models (``token_type_ids``).

        Raises:
            ValueError: no image or no caption in either form, other numbers of them, or a caption that is too long.
        """
        if image_states is None:
            if pixel_values is None:
                raise ValueError("GLIP needs pixel_values or image_states: there is nothing to look at")
            image_states = self.encode_image(pixel_values)
        if text_states is None:
            if input_ids is None:
                raise ValueError("GLIP needs input_ids or text_states: there is nothing to look for")
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            text_states = self.encode_text(input_ids, mask)
        width = text_states.hidden.shape[1] if input_ids is None else input_ids.shape[1]
        output = self.align(self.fuse(image_states, text_states), targets)
        logits = cast(Tensor, output.token_logits)
        output.token_logits = F.pad(logits, (0, width - logits.shape[-1]), value=NO_TOKEN)
        return output

    def fuse(self, image_states: ImageStates, text_states: TextStates) -> FusedStates:
        """Run the tower: B images, with one caption each or one for all.

        Raises:
            ValueError: there are more or fewer captions.
        """
        image, sizes = image_states.cells, image_states.level_sizes
        if (captions := len(text_states.hidden)) not in (1, len(image)):
            raise ValueError(f"{captions} captions for {len(image)} images: give one for each, or one for all")
        mask = text_states.attention_mask.expand(len(image), -1)
        # Without early fusion the official code blanks the padding; fused text stays as the encoder left it.
        text = text_states.hidden.expand(len(image), -1, -1)
        text = text if self.config.early_fusion else text * mask.unsqueeze(-1)
        for block in self.tower:
            image, text = block(image, text, mask, sizes)
        return FusedStates(image, text, mask, sizes)

    def align(
        self,
        fused: FusedStates,
        targets: Sequence[Mapping[str, Tensor]] | None = None,
        head: AlignmentHead | None = None,
    ) -> GlipOutput:
        """Run the head, the model's own or another, on what the tower gave; as :meth:`forward` otherwise."""
        sizes = fused.level_sizes
        logits, deltas, centerness = (head or self.head)(fused.cells, fused.text, sizes)
        losses = loss = None
        if targets is not None:
            T = logits.shape[-1]
            losses = detection_losses(
                logits,
                deltas,
                centerness,
                anchors=grid_anchors(sizes, logits.device),
                targets=[
                    {name: v[..., :T] if name in TOKEN_MAPS else v for name, v in each.items()} for each in targets
                ],
                attention_mask=fused.attention_mask,
            )
            loss = torch.stack(list(losses.values())).sum()
        logits = logits.masked_fill(fused.attention_mask.unsqueeze(1) == 0, NO_TOKEN)
        # One row per image, as of all that a pipeline divides into images again.
        level_sizes = torch.tensor(sizes).expand(len(logits), -1, -1)  # (B, 5, 2)
        border = torch.full((len(logits),), cast(GlipConfig, self.config).border)
        return GlipOutput(loss, logits, deltas, centerness, level_sizes, losses, border)

    @staticmethod
    def postprocess(
        output: GlipOutput,
        label_tokens: Sequence[Sequence[int]],
        image_sizes_hw: Sequence[tuple[int, int]],
        score_threshold: float = 0.05,
        nms_threshold: float = 0.6,
        max_detections: int = 100,
    ) -> list[Detections]:
        """Boxes of each image, best score first (SPEC 8).

        Args:
            output: of :meth:`forward`.
            label_tokens: token positions of each label.
            image_sizes_hw: sizes of the images before padding; boxes are clipped to them and in their pixels.
            score_threshold: on the label probability, before centerness.
            nms_threshold: boxes of one label that overlap more are suppressed.
            max_detections: most boxes per image.
        """
        settings = PostprocessSettings(score_threshold, nms_threshold, max_detections)
        return GlipForDetection.detections(output, label_tokens, image_sizes_hw, settings)

    @staticmethod
    def detections(
        output: GlipOutput,
        label_tokens: Sequence[Sequence[int]],
        image_sizes_hw: Sequence[tuple[int, int]],
        settings: PostprocessSettings,
    ) -> list[Detections]:
        """As :meth:`postprocess`, with all that can be set."""
        sizes = cast(Tensor, output.level_sizes)[0].tolist()
        logits = cast(Tensor, output.token_logits)
        return detect_boxes(
            label_scores(logits, label_tokens),
            cast(Tensor, output.box_deltas),
            cast(Tensor, output.centerness),
            anchors=grid_anchors(sizes, logits.device),
            image_sizes_hw=image_sizes_hw,
            settings=replace(settings, border=float(cast(Tensor, output.border)[0])),
        )
