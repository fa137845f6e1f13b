"""The outputs of every stage of one run of the real network, under the names that the golden data use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from glip_model.modeling_glip import GlipForDetection, GlipOutput
from tests.glip_model.reference import MAX_TEXT


def run_with_stages(
    model: GlipForDetection, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[GlipOutput, dict[str, Tensor]]:
    """Run the network and keep what its parts returned; text positions that were never computed are NaN."""
    stages = _Stages(len(pixel_values))
    hooks = stages.listen(model)
    try:
        output = model(pixel_values=pixel_values, input_ids=input_ids, attention_mask=attention_mask)
    finally:
        for hook in hooks:
            hook.remove()
    blank = attention_mask.unsqueeze(-1) == 0
    stages.kept["lang.embedded"] = stages.kept["lang.hidden"].masked_fill(blank, 0.0)
    return output, stages.kept | _head_maps(output, stages.maps, attention_mask)


class _Stages:
    """Keeps what the parts of a network return, as maps and texts of all positions."""

    def __init__(self, images: int) -> None:
        self.kept: dict[str, Tensor] = {}
        self._images = images
        self._sizes: list[tuple[int, int]] = []

    def listen(self, model: Any) -> list[Any]:
        """Hook every stage; returns the hooks, to be removed."""

        def on(module: Any, keep: Callable[[Any], None]) -> Any:
            return module.register_forward_hook(lambda _module, _inputs, output: keep(output))

        hooks = [
            on(model.backbone.stages[0][-1], self._stage2),
            on(model.backbone, self._backbone),
            on(model.pyramid, self._pyramid),
            on(model.text_encoder, lambda output: self._text("lang.hidden", output.last_hidden_state)),
        ]
        number = 0
        for block in model.tower:
            if block.fusion is not None:
                hooks.append(on(block.fusion, partial(self._fused, f"tower.{number}.VLFuse")))
                hooks.append(on(block.text_layer, partial(self._text, f"tower.{number + 1}.BertEncoderLayer.lang")))
                number += 2
            hooks.append(on(block.dynamic_conv, partial(self._image, f"tower.{number}.DyConv")))
            number += 1
        return hooks

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Cells ``(B, A, C)`` as one ``(B, C, h, w)`` per level."""
        cells = x.split([h * w for h, w in self._sizes], 1)
        return {
            f"p{i}": part.transpose(1, 2).unflatten(2, size)
            for i, (part, size) in enumerate(zip(cells, self._sizes, strict=True), 3)
        }

    def _stage2(self, x: Tensor) -> None:
        self.kept["swin.stage2"] = x.permute(0, 3, 1, 2).clone()

    def _backbone(self, outputs: list[Tensor]) -> None:
        self.kept.update({f"swin.stage{i}": x.clone() for i, x in enumerate(outputs, 3)})

    def _pyramid(self, levels: list[Tensor]) -> None:
        self._sizes.extend((level.shape[2], level.shape[3]) for level in levels)
        self.kept.update({f"fpn.p{i}": level.clone() for i, level in enumerate(levels, 3)})

    def _fused(self, name: str, output: tuple[Tensor, Tensor]) -> None:
        self._image(name, output[0])
        self._text(f"{name}.lang", output[1])

    def _image(self, name: str, output: Tensor) -> None:
        self.kept.update({f"{name}.visual.{level}": x.clone() for level, x in self.maps(output).items()})

    def _text(self, name: str, output: Tensor) -> None:
        self.kept[name] = _all_positions(output).expand(self._images, -1, -1).clone()


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
