"""Official GLIP checkpoints to ours: one table of names, checked both ways.

Names on the left are those of ``microsoft/GLIP`` checkpoints without ``module.``. A checkpoint converts only if every
key is known, present, and of the expected shape.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from glip_model.configuration_glip import GlipConfig

# Extra keys that published files may hold and that no detection depends on.
IGNORED = (
    r"language_backbone\.body\.model\.pooler\..*",
    r"language_backbone\.body\.model\.embeddings\.position_ids",
    r"backbone\.body\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index",
    r"rpn\.anchor_generator\.cell_anchors\.\d",
    r"rpn\.head\.cls_logits\..*",
    r"rpn\.head\.mlm_head\..*",
    r"rpn\.resizer\..*",
    r"rpn\.tunable_linear\.weight",
    r"rpn\.loss_evaluator\.shallow_.*",
)

_SWIN = [
    (r"backbone\.body\.patch_embed\.proj\.(.*)", r"backbone.patch_embed.\1"),
    (r"backbone\.body\.patch_embed\.norm\.(.*)", r"backbone.patch_norm.\1"),
    (r"backbone\.body\.layers\.(\d+)\.downsample\.reduction\.(.*)", r"backbone.merges.\1.reduce.\2"),
    (r"backbone\.body\.layers\.(\d+)\.downsample\.norm\.(.*)", r"backbone.merges.\1.norm.\2"),
    (r"backbone\.body\.norm1\.(.*)", r"backbone.norms.0.\1"),
    (r"backbone\.body\.norm2\.(.*)", r"backbone.norms.1.\1"),
    (r"backbone\.body\.norm3\.(.*)", r"backbone.norms.2.\1"),
]
_SWIN_BLOCK = {
    r"attn\.relative_position_bias_table": "attention.position_bias",
    r"attn\.qkv\.(weight|bias)": r"attention.qkv.{}",
    r"attn\.proj\.(weight|bias)": r"attention.project.{}",
    r"mlp\.fc1\.(weight|bias)": r"expand.{}",
    r"mlp\.fc2\.(weight|bias)": r"contract.{}",
    r"norm([12]\.(?:weight|bias))": r"norm{}",
}
_PYRAMID = [
    (r"backbone\.fpn\.fpn_inner2\.(.*)", r"pyramid.lateral.0.\1"),
    (r"backbone\.fpn\.fpn_inner3\.(.*)", r"pyramid.lateral.1.\1"),
    (r"backbone\.fpn\.fpn_inner4\.(.*)", r"pyramid.lateral.2.\1"),
    (r"backbone\.fpn\.fpn_layer2\.(.*)", r"pyramid.smooth.0.\1"),
    (r"backbone\.fpn\.fpn_layer3\.(.*)", r"pyramid.smooth.1.\1"),
    (r"backbone\.fpn\.fpn_layer4\.(.*)", r"pyramid.smooth.2.\1"),
    (r"backbone\.fpn\.top_blocks\.(p[67]\..*)", r"pyramid.\1"),
]
_FUSION = {
    r"b_attn\.gamma_v": "image_scale",
    r"b_attn\.gamma_l": "text_scale",
    r"b_attn\.layer_norm_v\.(.*)": "image_norm.{}",
    r"b_attn\.layer_norm_l\.(.*)": "text_norm.{}",
    r"b_attn\.attn\.v_proj\.(.*)": "attention.query.{}",
    r"b_attn\.attn\.l_proj\.(.*)": "attention.key.{}",
    r"b_attn\.attn\.values_v_proj\.(.*)": "attention.image_value.{}",
    r"b_attn\.attn\.values_l_proj\.(.*)": "attention.text_value.{}",
    r"b_attn\.attn\.out_v_proj\.(.*)": "attention.image_out.{}",
    r"b_attn\.attn\.out_l_proj\.(.*)": "attention.text_out.{}",
}
_TEXT_LAYER = {
    r"attention\.self\.(query\..*|key\..*|value\..*)": "{}",
    r"attention\.output\.dense\.(.*)": "attention_out.{}",
    r"attention\.output\.LayerNorm\.(.*)": "attention_norm.{}",
    r"intermediate\.dense\.(.*)": "expand.{}",
    r"output\.dense\.(.*)": "contract.{}",
    r"output\.LayerNorm\.(.*)": "norm.{}",
}
# DyConv.0 reads the coarser level, 1 the level itself, 2 the finer one.
_DYNAMIC_CONV = {
    r"DyConv\.0\.conv\.(.*)": "coarser.{}",
    r"DyConv\.0\.bn\.(.*)": "coarser.norm_{}",
    r"DyConv\.1\.conv\.(.*)": "same.{}",
    r"DyConv\.1\.bn\.(.*)": "same.norm_{}",
    r"DyConv\.2\.conv\.(.*)": "finer.{}",
    r"DyConv\.2\.bn\.(.*)": "finer.norm_{}",
    r"AttnConv\.1\.(.*)": "scale_attention.{}",
    r"relu\.fc\.0\.(.*)": "relu_squeeze.{}",
    r"relu\.fc\.2\.(.*)": "relu_expand.{}",
    r"offset\.(.*)": "offset.{}",
}
_HEAD = [
    (r"rpn\.head\.bbox_pred\.(.*)", r"head.box.\1"),
    (r"rpn\.head\.centerness\.(.*)", r"head.centerness.\1"),
    (r"rpn\.head\.dot_product_projection_text\.(.*)", r"head.text_projection.\1"),
    (r"rpn\.head\.bias_lang", r"head.text_bias"),
    (r"rpn\.head\.bias0", r"head.prior_bias"),
    (r"rpn\.head\.log_scale", r"head.log_scale"),
]
_TEXT = [(r"language_backbone\.body\.model\.(.*)", r"text_encoder.\1")]
_FLAT = [*_SWIN, *_PYRAMID, *_TEXT, *_HEAD]


class CheckpointError(ValueError):
    """A checkpoint that does not fit; the message lists what is unknown, missing or mis-shaped."""


def _lookup(table: dict[str, str], name: str) -> str | None:
    for pattern, replacement in table.items():
        match = re.fullmatch(pattern, name)
        if match:
            return replacement.format(*match.groups())
    return None


def _tower_name(module: int, rest: str, early_fusion: bool) -> str | None:
    """The official tower is one flat list: fusion, text layer, dynamic convolution per block, or the last alone."""
    parts = [("fusion", _FUSION), ("text_layer", _TEXT_LAYER), ("dynamic_conv", _DYNAMIC_CONV)]
    if not early_fusion:
        parts = parts[2:]
    block, kind = divmod(module, len(parts))
    part, table = parts[kind]
    name = _lookup(table, rest)
    return name and f"tower.{block}.{part}.{name}"


def our_name(official: str, early_fusion: bool) -> str | None:
    """Our name of an official key (without ``module.``), or None if the table does not know it."""
    if match := re.fullmatch(r"backbone\.body\.layers\.(\d+)\.blocks\.(\d+)\.(.*)", official):
        stage, block, rest = match.groups()
        name = _lookup(_SWIN_BLOCK, rest)
        return name and f"backbone.stages.{stage}.{block}.{name}"
    if match := re.fullmatch(r"rpn\.head\.dyhead_tower\.(\d+)\.(.*)", official):
        return _tower_name(int(match[1]), match[2], early_fusion)
    for pattern, replacement in _FLAT:
        if re.fullmatch(pattern, official):
            return re.sub(pattern, replacement, official)
    return None


def _to_our_layout(name: str, tensor: Tensor) -> Tensor:
    """1 x 1 convolutions of ours are linear layers; deformable kernels are stored kernel point by kernel point."""
    if tensor.dim() != 4:  # as it is, or mis-shaped, which the caller reports
        return tensor
    if re.search(r"dynamic_conv\.(coarser|same|finer)\.weight$", name):
        return tensor.permute(0, 2, 3, 1).flatten(1)  # (C_out, C, 3, 3) -> (C_out, 9 C)
    if re.search(r"(head\.(box|centerness)|scale_attention)\.weight$", name):
        return tensor.flatten(1)  # (C_out, C, 1, 1) -> (C_out, C)
    return tensor


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if state and all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def convert_state_dict(official_state_dict: Mapping[str, Tensor], config: GlipConfig) -> dict[str, Tensor]:
    """Rename and reshape an official state dict for :class:`GlipForDetection`.

    Args:
        official_state_dict: names of the official code; a ``module.`` that all of them carry is dropped.
        config: the variant it belongs to.

    Returns:
        All parameters of the model, and no other key.

    Raises:
        CheckpointError: keys are unknown, missing or mis-shaped; the message lists them.
    """
    from glip_model.modeling_glip import GlipForDetection

    with torch.device("meta"):
        expected = {name: tuple(p.shape) for name, p in GlipForDetection(config).named_parameters()}
    converted: dict[str, Tensor] = {}
    unknown, misshaped = [], []
    scales: dict[int, Tensor] = {}
    for key, tensor in _without_prefix(official_state_dict).items():
        if any(re.fullmatch(pattern, key) for pattern in IGNORED):
            continue
        if match := re.fullmatch(r"rpn\.head\.scales\.(\d)\.scale", key):
            scales[int(match[1])] = tensor.flatten()
            continue
        name = our_name(key, config.early_fusion)
        if name is None or name not in expected:
            unknown.append(key)
            continue
        converted[name] = _to_our_layout(name, tensor).contiguous()
    if scales:
        converted["head.level_scales"] = torch.cat([scales[level] for level in sorted(scales)])
    for name, tensor in converted.items():
        if tuple(tensor.shape) != expected[name]:
            misshaped.append(f"{name} {tuple(tensor.shape)} instead of {expected[name]}")
    missing = [name for name in expected if name not in converted]
    problems = [("unknown", unknown), ("missing", missing), ("mis-shaped", misshaped)]
    if any(names for _, names in problems):
        raise CheckpointError("; ".join(f"{what}: {_listed(names)}" for what, names in problems if names))
    return converted


def _listed(names: list[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + rest
