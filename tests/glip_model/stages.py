"""The outputs of every stage of one run of the real network, under the names that the golden data use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from glip_model.modeling_glip import GlipForDetection, GlipOutput
from tests.glip_model.reference import MAX_TEXT


def run_with_stages(
    model: GlipForDetection, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[GlipOutput, dict[str, Tensor]]:
    """Run the network and keep what its parts returned; text positions that were never computed are NaN."""
    kept: dict[str, Tensor] = {}
    sizes: list[tuple[int, int]] = []

    def maps(x: Tensor) -> dict[str, Tensor]:
        cells = x.split([h * w for h, w in sizes], 1)
        return {
            f"p{i}": part.transpose(1, 2).unflatten(2, size)  # (B, C, h, w)
            for i, (part, size) in enumerate(zip(cells, sizes, strict=True), 3)
        }

    def text(x: Tensor) -> Tensor:
        return _all_positions(x).expand(len(pixel_values), -1, -1).clone()

    def on(module: Any, keep: Callable[[Any], None]) -> Any:
        return module.register_forward_hook(lambda _module, _inputs, output: keep(output))

    def pyramid(levels: list[Tensor]) -> None:
        sizes.extend((level.shape[2], level.shape[3]) for level in levels)
        kept.update({f"fpn.p{i}": level.clone() for i, level in enumerate(levels, 3)})

    def fused(name: str) -> Callable[[tuple[Tensor, Tensor]], None]:
        def keep(output: tuple[Tensor, Tensor]) -> None:
            kept.update({f"{name}.visual.{level}": x.clone() for level, x in maps(output[0]).items()})
            kept[f"{name}.lang"] = text(output[1])

        return keep

    def layer(name: str) -> Callable[[Tensor], None]:
        return lambda output: kept.update({f"{name}.lang": text(output)})

    def convolved(name: str) -> Callable[[Tensor], None]:
        return lambda output: kept.update({f"{name}.visual.{k}": x.clone() for k, x in maps(output).items()})

    def stage2(x: Tensor) -> None:
        kept["swin.stage2"] = x.permute(0, 3, 1, 2).clone()

    def backbone(outputs: list[Tensor]) -> None:
        kept.update({f"swin.stage{i}": x.clone() for i, x in enumerate(outputs, 3)})

    def encoder(output: Any) -> None:
        kept["lang.hidden"] = text(output.last_hidden_state)

    parts: Any = model
    hooks = [
        on(parts.backbone.stages[0][-1], stage2),
        on(parts.backbone, backbone),
        on(parts.pyramid, pyramid),
        on(parts.text_encoder, encoder),
    ]
    number = 0
    for block in parts.tower:
        if block.fusion is not None:
            hooks.append(on(block.fusion, fused(f"tower.{number}.VLFuse")))
            hooks.append(on(block.text_layer, layer(f"tower.{number + 1}.BertEncoderLayer")))
            number += 2
        hooks.append(on(block.dynamic_conv, convolved(f"tower.{number}.DyConv")))
        number += 1
    try:
        output = model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
    finally:
        for hook in hooks:
            hook.remove()
    blank = attention_mask.unsqueeze(-1) == 0
    kept["lang.embedded"] = (kept["lang.hidden"]).masked_fill(blank, 0.0)
    return output, kept | _head_maps(output, maps, attention_mask)


def _all_positions(x: Tensor) -> Tensor:
    """``(B, t, D)`` of the first t positions to all 256; the rest is NaN."""
    rest = x.new_full((x.shape[0], MAX_TEXT - x.shape[1], x.shape[2]), torch.nan)
    return torch.cat([x, rest], 1)


def _head_maps(
    output: GlipOutput, maps: Callable[[Tensor], dict[str, Tensor]], attention_mask: Tensor
) -> dict[str, Tensor]:
    logits, deltas, centerness = (getattr(output, n) for n in ("token_logits", "box_deltas", "centerness"))
    missing = (attention_mask == 0).unsqueeze(1)  # (B, 1, T)
    aligned = logits.masked_fill(missing, torch.nan)
    kept = {f"head.dot_product_logits.{k}": x.flatten(2).transpose(1, 2) for k, x in maps(aligned).items()}
    kept |= {f"head.bbox_reg.{k}": x for k, x in maps(deltas).items()}
    return kept | {f"head.centerness.{k}": x for k, x in maps(centerness.unsqueeze(-1)).items()}
