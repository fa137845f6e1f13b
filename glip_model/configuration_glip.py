"""Configuration of GLIP: every number that the published variants disagree about, and the sizes that tests shrink."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, BertConfig, PreTrainedConfig


@strict
class GlipSwinConfig(PreTrainedConfig):
    """The image encoder of the published GLIP models: Swin v1 as detection code bases compute it.

    It differs from ``transformers``' Swin on maps smaller than a window: the shift is kept (SPEC 3).
    """

    model_type = "glip-swin"

    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    drop_path_rate: float = 0.2


@strict
class GlipConfig(PreTrainedConfig):
    """All that is needed to build a :class:`~glip_model.modeling_glip.GlipForDetection`.

    Args:
        backbone_config: a :class:`GlipSwinConfig` or its fields; a dict with a ``model_type`` builds that backbone of
            transformers, which must yield three maps of strides 8, 16 and 32 (``out_features``).
        text_config: a ``BertConfig`` or its fields. The tower's text layers share its sizes.
        hidden_size: channels C of pyramid, tower and alignment space; a multiple of ``group_norm_groups``.
        num_blocks: blocks of the tower; each is fusion, text layer, dynamic convolution.
        early_fusion: False is the layout of GLIP-T (A): no fusion and no text layers in the tower.
        num_fusion_heads: heads of the bidirectional cross-attention.
        fusion_dim: total width of its heads.
        fusion_dropout: dropout on its weights, in training.
        drop_block_rate: share of P3 and P4 cells dropped in blocks of 3 x 3, in training.
        prior_probability: initial probability of every token, which the focal loss needs to start from.
        boxes_include_last_pixel: whether x2 and y2 name the last pixel of a box, as official weights learnt it, or the
            edge behind it, as those do that we pre-train. Where it is not said, the backbone tells: all official
            weights have Swin, and none of ours.
    """

    model_type = "glip"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": BertConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    hidden_size: int = 256
    num_blocks: int = 6
    early_fusion: bool = True
    num_fusion_heads: int = 8
    fusion_dim: int = 2048
    fusion_dropout: float = 0.1
    drop_block_rate: float = 0.3
    group_norm_groups: int = 16
    prior_probability: float = 0.01
    max_text_len: int = 256
    boxes_include_last_pixel: bool | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone_config is None or isinstance(self.backbone_config, dict):
            fields = dict(self.backbone_config or {})
            model_type = fields.pop("model_type", GlipSwinConfig.model_type)
            own = model_type == GlipSwinConfig.model_type
            self.backbone_config = (GlipSwinConfig if own else CONFIG_MAPPING[model_type])(**fields)
        if self.text_config is None or isinstance(self.text_config, dict):
            fields = dict(self.text_config or {})
            fields.pop("model_type", None)
            self.text_config = BertConfig(**fields)
        if self.boxes_include_last_pixel is None:
            self.boxes_include_last_pixel = isinstance(self.backbone_config, GlipSwinConfig)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        if self.hidden_size % self.group_norm_groups:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.group_norm_groups} groups")
        if self.fusion_dim % self.num_fusion_heads:
            raise ValueError(f"fusion_dim {self.fusion_dim} is no multiple of {self.num_fusion_heads} heads")

    @property
    def border(self) -> float:
        """What ``x2 - x1`` lacks to be a width, in pixels of the original picture: 1 for the last pixel, or 0."""
        return float(bool(self.boxes_include_last_pixel))

    @classmethod
    def named(cls, name: str) -> "GlipConfig":
        """Configuration of a published variant: ``glip-t`` (also for B and C), ``glip-t-a`` or ``glip-l``.

        Raises:
            ValueError: no such variant; the message lists those there are.
        """
        if name not in VARIANTS:
            raise ValueError(f"no GLIP variant {name!r}; there are {', '.join(sorted(VARIANTS))}")
        return cls(**VARIANTS[name])


_SWIN_LARGE = {
    "embed_dim": 192,
    "depths": (2, 2, 18, 2),
    "num_heads": (6, 12, 24, 48),
    "window_size": 12,
    "drop_path_rate": 0.4,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "glip-t": {},
    "glip-t-b": {},
    "glip-t-c": {},
    "glip-t-a": {"early_fusion": False},
    "glip-l": {"backbone_config": _SWIN_LARGE, "num_blocks": 8},
}
