"""The plain path: GLIP on our parameters the way the official code computes it, without one of our fast functions.

Shape letters: B images, C channels, H and W rows and columns of a map, M cells of all levels, T tokens (always 256), D
text width, n tokens of a window. Maps are ``(B, C, H, W)``. Slow on purpose: each function is the textbook formula, so
that tests and benchmarks have something to compare with. Sections are those of GLIP's description in the model's code.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_TEXT = 256
Stages = dict[str, Tensor]


def window_attention(attention: Any, windows: Tensor, allowed: Tensor | None) -> Tensor:
    """Self-attention in windows ``(k, n, C)``; ``allowed (k, n, n)`` is False where two tokens may not meet."""
    k, n, C = windows.shape
    heads, side = attention.num_heads, attention.window
    q, kk, v = (
        part.view(k, n, heads, C // heads).transpose(1, 2)  # (k, heads, n, d)
        for part in F.linear(windows, attention.qkv.weight, attention.qkv.bias).split(C, -1)
    )
    scores = q @ kk.transpose(-2, -1) / (C // heads) ** 0.5
    place = torch.arange(n, device=windows.device)
    dy = place[:, None] // side - place[None, :] // side + side - 1
    dx = place[:, None] % side - place[None, :] % side + side - 1
    scores = scores + attention.position_bias[dy * (2 * side - 1) + dx].permute(2, 0, 1)
    if allowed is not None:
        scores = scores + torch.where(allowed, 0.0, -100.0).unsqueeze(1)
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(k, n, C)
    return F.linear(out, attention.project.weight, attention.project.bias)


def swin_block(block: Any, x: Tensor) -> Tensor:
    """One Swin block on ``(B, H, W, C)``: pad after the norm, roll, cut into windows, attend, and all of it back."""
    B, H, W, C = x.shape
    side, shift = block.window, block.shift
    y = F.layer_norm(x, (C,), block.norm1.weight, block.norm1.bias)
    y = F.pad(y, (0, 0, 0, -W % side, 0, -H % side))
    rows, columns = y.shape[1:3]
    y = y.roll((-shift, -shift), (1, 2))
    allowed = None
    if shift:
        bands = [
            (torch.arange(size) >= size - side).long() + (torch.arange(size) >= size - shift).long()
            for size in (rows, columns)
        ]
        region = (3 * bands[0][:, None] + bands[1]).expand(B, 1, rows, columns).float()
        region = F.unfold(region, side, stride=side).transpose(1, 2).flatten(0, 1)  # (k, n)
        allowed = region[:, :, None] == region[:, None, :]
    windows = y.unfold(1, side, side).unfold(2, side, side)  # (B, rows, columns, C, side, side)
    across = windows.shape[:3]
    windows = windows.flatten(0, 2).flatten(2).transpose(1, 2)  # (k, n, C)
    windows = window_attention(block.attention, windows, allowed)
    y = windows.view(*across, side, side, C).transpose(2, 3).reshape(B, rows, columns, C)
    x = x + y.roll((shift, shift), (1, 2))[:, :H, :W]
    y = F.layer_norm(x, (C,), block.norm2.weight, block.norm2.bias)
    y = F.gelu(F.linear(y, block.expand.weight, block.expand.bias))
    return x + F.linear(y, block.contract.weight, block.contract.bias)


def swin(backbone: Any, pixel_values: Tensor, record: Stages) -> list[Tensor]:
    """``(B, 3, H, W)``, sizes multiples of 4, to the maps of strides 8, 16 and 32."""
    x = F.conv2d(pixel_values, backbone.patch_embed.weight, backbone.patch_embed.bias, stride=4).permute(0, 2, 3, 1)
    x = F.layer_norm(x, x.shape[-1:], backbone.patch_norm.weight, backbone.patch_norm.bias)
    maps = []
    for i, stage in enumerate(backbone.stages):
        for block in stage:
            x = swin_block(block, x)
        out = x
        if i > 0:
            out = F.layer_norm(x, x.shape[-1:], backbone.norms[i - 1].weight, backbone.norms[i - 1].bias)
            maps.append(out.permute(0, 3, 1, 2).contiguous())
        record[f"swin.stage{i + 2}"] = out.permute(0, 3, 1, 2)
        if i < 3:
            merge = backbone.merges[i]
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            x = torch.cat([x[:, dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)], -1)
            x = F.layer_norm(x, x.shape[-1:], merge.norm.weight, merge.norm.bias)
            x = F.linear(x, merge.reduce.weight)
    return maps


def pyramid(fpn: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    """P3 to P7."""
    inner: list[Tensor] = []
    for lateral, level in zip(reversed(fpn.lateral), reversed(maps), strict=True):
        x = F.conv2d(level, lateral.weight, lateral.bias)
        inner.insert(0, x + F.interpolate(inner[0], size=x.shape[2:], mode="nearest") if inner else x)
    levels = [F.conv2d(x, conv.weight, conv.bias, padding=1) for x, conv in zip(inner, fpn.smooth, strict=True)]
    levels.append(F.conv2d(levels[-1], fpn.p6.weight, fpn.p6.bias, stride=2, padding=1))
    levels.append(F.conv2d(levels[-1].relu(), fpn.p7.weight, fpn.p7.bias, stride=2, padding=1))
    return levels


def clamp(x: Tensor) -> Tensor:
    return x.clamp(-50_000, 50_000)


def cross_attention(attention: Any, v: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What cells ``(B, M, C)`` and tokens ``(B, T, D)`` learn from each other: all (B * heads, M, T) scores at once."""
    B, M, _ = v.shape
    T, heads = text.shape[1], attention.num_heads

    def split(linear: Any, x: Tensor) -> Tensor:
        y = F.linear(x, linear.weight, linear.bias)
        return y.view(B, -1, heads, y.shape[-1] // heads).transpose(1, 2).flatten(0, 1)  # (B * heads, M or T, d)

    def join(x: Tensor, linear: Any) -> Tensor:
        return F.linear(x.unflatten(0, (B, heads)).transpose(1, 2).flatten(2), linear.weight, linear.bias)

    q, k = split(attention.query, v), split(attention.key, text)
    scores = clamp((q * q.shape[-1] ** -0.5) @ k.transpose(1, 2))  # (B * heads, M, T)
    to_image = scores.transpose(1, 2)
    to_image = clamp(to_image - to_image.amax(-1, keepdim=True)).softmax(-1)  # (B * heads, T, M)
    additive = torch.where(mask == 0, -9e15, 1.0).repeat_interleave(heads, 0).unsqueeze(1)  # (B * heads, 1, T)
    to_text = (scores + additive).softmax(-1)
    dv = join(to_text @ split(attention.text_value, text), attention.image_out)
    dl = join(to_image @ split(attention.image_value, v), attention.text_out)
    assert dv.shape[1] == M
    assert dl.shape[1] == T
    return dv, dl


def fuse(fusion: Any, levels: list[Tensor], text: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
    """Cross-attention between all maps and the text, both normalised first; the residual starts from there."""
    v = torch.cat([x.flatten(2).transpose(1, 2) for x in levels], 1)  # (B, M, C)
    v = F.layer_norm(v, v.shape[-1:], fusion.image_norm.weight, fusion.image_norm.bias)
    text = F.layer_norm(text, text.shape[-1:], fusion.text_norm.weight, fusion.text_norm.bias)
    dv, dl = cross_attention(fusion.attention, v, text, mask)
    v, text = v + fusion.image_scale * dv, text + fusion.text_scale * dl
    parts = v.split([x[0, 0].numel() for x in levels], 1)
    return [part.transpose(1, 2).reshape_as(x) for part, x in zip(parts, levels, strict=True)], text


def text_layer(layer: Any, text: Tensor, mask: Tensor) -> Tensor:
    """One post-norm BERT layer with GLIP's clamps."""
    q, k, v = (
        F.linear(text, linear.weight, linear.bias).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for linear in (layer.query, layer.key, layer.value)
    )
    scores = clamp(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5)
    scores = scores + torch.where(mask == 0, torch.finfo(torch.float32).min, 0.0)[:, None, None, :]
    seen = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    def post_norm(x: Tensor, linear: Any, inner: Tensor, norm: Any) -> Tensor:
        y = clamp(F.linear(inner, linear.weight, linear.bias))
        return F.layer_norm(x + y, x.shape[-1:], norm.weight, norm.bias, norm.eps)

    text = post_norm(text, layer.attention_out, seen, layer.attention_norm)
    inner = clamp(F.gelu(clamp(F.linear(text, layer.expand.weight, layer.expand.bias))))
    return clamp(post_norm(text, layer.contract, inner, layer.norm))


def deform_conv(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Modulated deformable 3 x 3 convolution with padding 1: gather four corners into columns, multiply.

    Args:
        x: ``(B, C, H, W)``.
        offset: ``(B, 18, h, w)``; kernel point k moves by (dy, dx) = channels 2k, 2k + 1.
        mask: ``(B, 9, h, w)``.
        weight: ``(C_out, C, 3, 3)``.
        bias: ``(C_out,)``.
        stride: input cells per output cell.
    """
    H, W = x.shape[2:]
    h, w = offset.shape[2:]
    k = torch.arange(9, device=x.device).view(9, 1, 1)
    y0 = torch.arange(h, device=x.device).view(h, 1) * stride - 1 + k // 3
    x0 = torch.arange(w, device=x.device) * stride - 1 + k % 3
    outputs = []
    for image, off, factor in zip(x, offset, mask, strict=True):
        py, px = y0 + off[0::2], x0 + off[1::2]  # (9, h, w)
        columns = x.new_zeros(len(image), 9, h, w)
        for cy, wy in ((py.floor(), py.floor() + 1 - py), (py.floor() + 1, py - py.floor())):
            for cx, wx in ((px.floor(), px.floor() + 1 - px), (px.floor() + 1, px - px.floor())):
                inside = (cy >= 0) & (cy < H) & (cx >= 0) & (cx < W)
                index = (cy.clamp(0, H - 1) * W + cx.clamp(0, W - 1)).long()
                columns += image.flatten(1)[:, index] * (wy * wx * inside * factor)
        outputs.append((weight.flatten(1) @ columns.flatten(0, 1).flatten(1)).view(-1, h, w))
    return torch.stack(outputs) + bias.view(-1, 1, 1)


def normed_deform_conv(conv: Any, x: Tensor, offset: Tensor, mask: Tensor, stride: int = 1) -> Tensor:
    weight = conv.weight.unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2).contiguous()
    y = deform_conv(x, offset, mask, weight, conv.bias, stride)
    return F.group_norm(y, conv.groups, conv.norm_weight, conv.norm_bias, 1e-5)


def hard_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


def dynamic_relu(conv: Any, x: Tensor) -> Tensor:
    """The larger of two lines per channel, whose slopes and offsets come from the pooled map."""
    pooled = x.mean((2, 3))
    hidden = F.linear(pooled, conv.relu_squeeze.weight, conv.relu_squeeze.bias).relu()
    theta = hard_sigmoid(F.linear(hidden, conv.relu_expand.weight, conv.relu_expand.bias))
    a1, b1, a2, b2 = theta[:, :, None, None].chunk(4, 1)
    return torch.maximum(x * (2 * (a1 - 0.5) + 1) + b1 - 0.5, x * 2 * (a2 - 0.5) + b2 - 0.5)


def dynamic_conv(conv: Any, levels: list[Tensor]) -> list[Tensor]:
    """Deformable convolutions of each level and its neighbours, joined by attention, then the dynamic ReLU."""
    outputs = []
    for i, x in enumerate(levels):
        predicted = F.conv2d(x, conv.offset.weight, conv.offset.bias, padding=1)
        offset, mask = predicted[:, :18], predicted[:, 18:].sigmoid()
        terms = [normed_deform_conv(conv.same, x, offset, mask)]
        if i > 0:
            terms.append(normed_deform_conv(conv.finer, levels[i - 1], offset, mask, 2))
        if i + 1 < len(levels):
            # The official kernel reads this level's offsets as flat memory in the coarser size.
            h, w = levels[i + 1].shape[2:]
            flat_offset = offset.flatten(1)[:, : 18 * h * w].view(-1, 18, h, w)
            flat_mask = mask.flatten(1)[:, : 9 * h * w].view(-1, 9, h, w)
            term = normed_deform_conv(conv.coarser, levels[i + 1], flat_offset, flat_mask)
            terms.append(F.interpolate(term, size=x.shape[2:], mode="bilinear", align_corners=True))
        weighted = []
        for term in terms:
            score = F.linear(term.mean((2, 3)), conv.scale_attention.weight, conv.scale_attention.bias).relu()
            weighted.append(term * hard_sigmoid(score)[:, :, None, None])
        outputs.append(dynamic_relu(conv, torch.stack(weighted).mean(0)))
    return outputs


def padded_text(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and mask on all 256 positions."""
    missing = MAX_TEXT - input_ids.shape[1]
    return F.pad(input_ids, (0, missing)), F.pad(attention_mask, (0, missing))


def forward(
    model: Any, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, record: Stages | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits ``(B, A, 256)``, deltas ``(B, A, 4)`` and centerness ``(B, A)``, as GlipForDetection in eval mode.

    Args:
        model: a GlipForDetection on our Swin.
        pixel_values: ``(B, 3, H, W)``.
        input_ids: ``(B, T)``, or ``(1, T)`` for all images.
        attention_mask: same shape.
        record: is filled with the output of every stage under the names that the golden data use.
    """
    keep: Stages = {} if record is None else record
    ids, mask = padded_text(input_ids, attention_mask)
    mask = mask.expand(len(pixel_values), -1)
    levels = pyramid(model.pyramid, swin(model.backbone, pixel_values, keep))
    text = model.text_encoder(input_ids=ids, attention_mask=mask[: len(ids)]).last_hidden_state
    text = text.expand(len(pixel_values), -1, -1)
    embedded = text * mask.unsqueeze(-1)
    keep.update({f"fpn.p{i}": x for i, x in enumerate(levels, 3)} | {"lang.hidden": text, "lang.embedded": embedded})
    if not model.config.early_fusion:
        text = embedded
    module = 0
    for block in model.tower:
        if model.config.early_fusion:
            levels, text = fuse(block.fusion, levels, text, mask)
            keep.update({f"tower.{module}.VLFuse.visual.p{i}": x for i, x in enumerate(levels, 3)})
            keep[f"tower.{module}.VLFuse.lang"] = text
            text = text_layer(block.text_layer, text, mask)
            keep[f"tower.{module + 1}.BertEncoderLayer.lang"] = text
            module += 2
        levels = dynamic_conv(block.dynamic_conv, levels)
        keep.update({f"tower.{module}.DyConv.visual.p{i}": x for i, x in enumerate(levels, 3)})
        module += 1
        if record is None:
            keep.clear()
    return head(model.head, levels, text, keep)


def head(parameters: Any, levels: list[Tensor], text: Tensor, record: Stages) -> tuple[Tensor, Tensor, Tensor]:
    """Alignment, boxes and centerness, level by level."""
    words = F.normalize(text, dim=-1, eps=1e-12)
    tokens = F.linear(words / 2, parameters.text_projection.weight, parameters.text_projection.bias)  # (B, T, C)
    bias = words @ parameters.text_bias + parameters.prior_bias  # (B, T)
    logits, deltas, centerness = [], [], []
    for i, x in enumerate(levels):
        cells = x.flatten(2).transpose(1, 2)  # (B, h w, C)
        aligned = cells @ tokens.transpose(1, 2) / parameters.log_scale.exp() + bias.unsqueeze(1)
        logits.append(clamp(aligned))
        box = F.conv2d(x, parameters.box.weight[:, :, None, None], parameters.box.bias) * parameters.level_scales[i]
        centre = F.conv2d(x, parameters.centerness.weight[:, :, None, None], parameters.centerness.bias)
        record[f"head.dot_product_logits.p{i + 3}"] = logits[-1]
        record[f"head.bbox_reg.p{i + 3}"] = box
        record[f"head.centerness.p{i + 3}"] = centre
        deltas.append(box.flatten(2).transpose(1, 2))
        centerness.append(centre.flatten(1))
    return torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(centerness, 1)
