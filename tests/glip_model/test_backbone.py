from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F

from glip_model.backbone import DropBlock, DropPath, FeaturePyramid, SwinBackbone, SwinBlock
from glip_model.configuration_glip import GlipConfig, GlipSwinConfig
from glip_model.modeling_glip import GlipForDetection
from tests.glip_model import reference
from tests.glip_model.random_weights import random_pixels, randomise

SWIN = GlipSwinConfig(embed_dim=8, depths=(1, 1, 2, 2), num_heads=(1, 2, 2, 4), window_size=7, drop_path_rate=0.0)


def _block(shifted: bool) -> SwinBlock:
    block = SwinBlock(8, 2, SWIN, shifted, drop_path=0.0)
    randomise(block)
    return block


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(14, 21), (15, 20), (3, 5), (7, 7), (1, 30), (92, 69)])
def test_window_attention_equals_plain_attention_in_each_window(size: tuple[int, int], shifted: bool) -> None:
    block, x = _block(shifted), torch.randn(2, *size, 8)
    with torch.no_grad():
        torch.testing.assert_close(block(x.clone()), reference.swin_block(block, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shifted", [False, True])
def test_a_block_in_training_equals_the_plain_one_gradients_included(shifted: bool) -> None:
    block, x = _block(shifted), torch.randn(2, 15, 20, 8, requires_grad=True)
    found = torch.autograd.grad(block(x).sin().sum(), [x, *block.parameters()])
    expected = torch.autograd.grad(reference.swin_block(block, x).sin().sum(), [x, *block.parameters()])
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 96), (36, 100), (8, 4)])
def test_the_image_encoder_equals_the_plain_one(size: tuple[int, int]) -> None:
    backbone = SwinBackbone(SWIN)
    randomise(backbone)
    with torch.no_grad():
        found = backbone(random_pixels(2, *size))
        expected = reference.swin(backbone, random_pixels(2, *size), {})
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


def test_a_picture_that_the_stride_does_not_divide_is_padded() -> None:
    backbone = SwinBackbone(SWIN)
    randomise(backbone)
    odd = random_pixels(1, 37, 61)
    with torch.no_grad():
        for ours, padded in zip(backbone(odd), backbone(F.pad(odd, (0, 3, 0, 3))), strict=True):
            torch.testing.assert_close(ours, padded)


@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6), (2, 3)], [(9, 13), (5, 7), (3, 4)], [(4, 4), (2, 2), (1, 1)]])
def test_the_pyramid_equals_the_plain_one(sizes: list[tuple[int, int]]) -> None:
    pyramid = FeaturePyramid([4, 6, 8], 16, drop_block_rate=0.3)
    randomise(pyramid)
    pyramid.train(False)
    maps = [torch.randn(2, c, *size) for c, size in zip([4, 6, 8], sizes, strict=True)]
    with torch.no_grad():
        for ours, plain in zip(pyramid(maps), reference.pyramid(pyramid, maps), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 2, 3))
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)


def test_drop_block_drops_squares_in_training_only_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropBlock(0.3), torch.ones(4, 2, 40, 40)
    dropped = drop(x)
    zeros = (dropped == 0).float()
    assert 0.15 < zeros.mean() < 0.4
    assert dropped.mean() == pytest.approx(1.0, abs=1e-3)
    alone = (zeros == 1) & (F.avg_pool2d(zeros, 3, 1, 1, count_include_pad=False) < 3.5 / 9)
    assert not alone[..., 1:-1, 1:-1].any()  # no cell is dropped but as part of a block
    assert torch.equal(drop.train(False)(x), x)


SMALL: dict[str, Any] = {"hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1]}
STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
BACKBONES = [
    {"model_type": "resnet", "embedding_size": 8, **SMALL, **STAGES},
    {"model_type": "convnextv2", **SMALL, **STAGES},
]


def _glip(backbone: dict[str, Any]) -> GlipForDetection:
    text = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return GlipForDetection(
        GlipConfig(
            backbone_config=backbone,
            text_config={**text, "vocab_size": 50},
            hidden_size=16,
            num_blocks=1,
            fusion_dim=32,
        )
    )


@pytest.mark.parametrize("backbone", BACKBONES, ids=["resnet", "convnextv2"])
def test_another_backbone_runs_and_learns(backbone: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = _glip(backbone).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    wanted = {"boxes": torch.tensor([[8.0, 8.0, 50.0, 44.0]]), "positive_map": torch.tensor([[0.0, 1.0, 0.0]])}
    losses = []
    for _ in range(8):
        output = model(
            pixel_values=random_pixels(2, 64, 96), input_ids=torch.tensor([[2, 7, 3]]), targets=[wanted, wanted]
        )
        assert output.token_logits.shape == (2, 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1, 3)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    first = next(cast(Any, model.backbone).body.parameters())
    assert first.grad.abs().max() > 0
    assert losses[-1] < losses[0]


def test_a_backbone_with_other_than_three_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="yields 2 maps, not 3"):
        _glip({"model_type": "resnet", **SMALL, "out_features": ["stage3", "stage4"]})
