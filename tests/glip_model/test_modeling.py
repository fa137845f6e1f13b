from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glip_model.configuration_glip import GlipConfig
from glip_model.modeling_glip import GlipForDetection, GlipOutput
from glip_model.pretraining.recipe import nano_config
from tests.glip_model.random_weights import random_model, random_pixels

IDS = torch.tensor([[3, 14, 15, 9, 2]])


def _run(
    model: GlipForDetection, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None
) -> GlipOutput:
    with torch.no_grad():
        output: GlipOutput = model(pixel_values=pixels, input_ids=input_ids, attention_mask=attention_mask)
    return output


def _assert_same(found: GlipOutput, expected: GlipOutput, atol: float = 1e-5) -> None:
    for part in ("token_logits", "box_deltas", "centerness"):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part), atol=atol, rtol=0)


@pytest.mark.parametrize("early_fusion", [True, False])
def test_a_saved_model_gives_equal_outputs_when_loaded(early_fusion: bool, tmp_path: Path) -> None:
    model, pixels = random_model(early_fusion), random_pixels(1, 64, 96)
    model.save_pretrained(tmp_path)
    loaded = GlipForDetection.from_pretrained(tmp_path)
    found, expected = _run(loaded, pixels, IDS), _run(model, pixels, IDS)
    assert loaded.config.early_fusion is early_fusion
    weights = model.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    _assert_same(found, expected, atol=1e-6)  # where tensors lie in memory decides which of a processor's kernels run
    for output in (found, expected):
        assert output.level_sizes is not None
        assert output.level_sizes.tolist() == [[[8, 12], [4, 6], [2, 3], [1, 2], [1, 1]]]


def test_without_words_there_is_nothing_to_look_for() -> None:
    with pytest.raises(ValueError, match="needs input_ids"):
        random_model()(pixel_values=random_pixels(1, 32, 32))


@pytest.mark.parametrize("early_fusion", [True, False])
def test_captions_of_their_own_in_a_batch_give_what_each_image_gets_alone(early_fusion: bool) -> None:
    model, pixels = random_model(early_fusion), random_pixels(2, 96, 64)
    ids = torch.tensor([[3, 14, 15, 0, 0], [3, 9, 26, 5, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    together = _run(model, pixels, ids, mask)
    for i, length in enumerate((3, 5)):
        alone = _run(model, pixels[i : i + 1], ids[i : i + 1, :length])
        assert together.token_logits is not None
        torch.testing.assert_close(together.token_logits[i : i + 1, :, :length], alone.token_logits, atol=5e-5, rtol=0)
        assert together.box_deltas is not None
        torch.testing.assert_close(together.box_deltas[i : i + 1], alone.box_deltas, atol=5e-5, rtol=0)


def test_one_caption_serves_all_images_of_a_batch() -> None:
    model, pixels = random_model(), random_pixels(2, 64, 64)
    _assert_same(_run(model, pixels, IDS), _run(model, pixels, IDS.expand(2, -1)), atol=2e-5)


@pytest.mark.parametrize("images", [1, 3])
def test_captions_for_another_number_of_images_are_refused(images: int) -> None:
    with pytest.raises(ValueError, match=f"2 captions for {images} images: give one for each, or one for all"):
        _run(random_model(), random_pixels(images, 64, 96), IDS.expand(2, -1))


def test_a_caption_encoded_before_gives_equal_outputs() -> None:
    model, pixels = random_model(), random_pixels(1, 64, 64)
    with torch.no_grad():
        states = model.encode_text(IDS, torch.ones_like(IDS))
        _assert_same(model(pixel_values=pixels, text_states=states), _run(model, pixels, IDS), atol=0)


def test_padding_of_the_caption_changes_nothing() -> None:
    model, pixels = random_model(), random_pixels(1, 64, 64)
    padded = torch.cat([IDS, torch.full((1, 40), 7)], 1)
    mask = (torch.arange(45) < 5).long()[None]
    found, expected = _run(model, pixels, padded, mask), _run(model, pixels, IDS)
    assert found.token_logits is not None
    assert found.token_logits.shape[-1] == 45
    assert (found.token_logits[..., 5:].sigmoid() == 0).all()
    found.token_logits = found.token_logits[..., :5]
    _assert_same(found, expected, atol=0)


def test_a_caption_padded_on_the_left_gives_the_same_alone_as_beside_a_longer_one() -> None:
    model, pixels = random_model(), random_pixels(1, 64, 96)
    ids = torch.tensor([[0, 0, 3, 14, 2], [3, 14, 15, 9, 2]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    together = _run(model, pixels.expand(2, -1, -1, -1), ids, mask).token_logits
    alone = _run(model, pixels, ids[:1], mask[:1]).token_logits
    assert together is not None
    torch.testing.assert_close(alone, together[:1], atol=1e-4, rtol=0)


def test_the_words_change_what_is_seen_only_with_early_fusion() -> None:
    pixels, others = random_pixels(1, 64, 64), torch.tensor([[3, 8, 21, 33, 2]])
    for early_fusion in (True, False):
        model = random_model(early_fusion)
        first, second = (_run(model, pixels, ids).box_deltas for ids in (IDS, others))
        assert first is not None
        assert second is not None
        assert torch.equal(first, second) is not early_fusion


def test_targets_add_losses_that_training_lowers() -> None:
    model, pixels = random_model().train(), random_pixels(2, 64, 96)
    positive_map = torch.zeros(1, 5)
    positive_map[0, 1] = 1
    targets = [
        {"boxes": torch.tensor([[10.0, 10.0, 60.0, 50.0]]), "positive_map": positive_map},
        {"boxes": torch.zeros(0, 4), "positive_map": torch.zeros(0, 5)},
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(6):
        output = model(pixel_values=pixels, input_ids=IDS, targets=targets)
        assert set(output.losses) == {"token", "centerness", "box"}
        assert output.loss.item() == pytest.approx(sum(loss.item() for loss in output.losses.values()), rel=1e-5)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        totals.append(output.loss.item())
    assert totals[-1] < totals[0]


def test_outputs_come_in_the_order_that_they_are_documented_in() -> None:
    model, pixels = random_model(), random_pixels(1, 64, 96)
    target = {"boxes": torch.tensor([[4.0, 6, 50, 40]]), "positive_map": torch.tensor([[0.0, 1, 0, 0, 0]])}
    assert list(model(pixels, IDS)) == ["token_logits", "box_deltas", "centerness", "level_sizes", "border"]
    assert list(model(pixels, IDS, targets=[target]))[:2] == ["loss", "token_logits"]


def test_a_fresh_model_gives_every_token_the_prior_probability() -> None:
    config = random_model().config
    assert isinstance(config, GlipConfig)
    config.prior_probability = 0.02
    torch.manual_seed(0)
    model = GlipForDetection(config)
    model.train(False)
    logits = _run(model, random_pixels(1, 64, 64), IDS).token_logits
    assert logits is not None
    assert logits.sigmoid().mean() == pytest.approx(0.02, rel=0.5)


@pytest.mark.parametrize("early_fusion", [True, False])
def test_half_precision_autocast_gives_nearly_the_same(early_fusion: bool) -> None:
    model, pixels = random_model(early_fusion), random_pixels(1, 64, 96)
    expected = _run(model, pixels, IDS).token_logits
    with torch.autocast("cpu", torch.bfloat16):
        found = _run(model, pixels, IDS).token_logits
    assert found is not None
    assert expected is not None
    assert found.isfinite().all()
    difference = (found.float() - expected).abs()
    assert difference.mean() < 0.1 * expected.std()


@pytest.mark.parametrize("early_fusion", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_give_nearly_the_same_from_the_same_pixels(
    dtype: torch.dtype, early_fusion: bool
) -> None:
    model, pixels = random_model(early_fusion), random_pixels(1, 64, 96)
    expected = _run(model, pixels, IDS).token_logits
    model.to(dtype=dtype)  # type: ignore[call-arg]  # transformers' wrapper hides the signature
    output = _run(model, pixels, IDS)
    assert expected is not None
    for part in (output.token_logits, output.box_deltas, output.centerness):
        assert part is not None
        assert part.dtype == dtype
        assert part.isfinite().all()
    assert output.token_logits is not None
    difference = (output.token_logits.float() - expected).abs()
    assert difference.mean() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 250}, "hidden_size 250 is no multiple of 16 groups"),
        ({"fusion_dim": 2047}, "fusion_dim 2047 is no multiple of 8 heads"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlipConfig(**fields)


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no GLIP variant 'glip-x'; there are glip-l, glip-t"):
        GlipConfig.named("glip-x")


def test_official_boxes_include_the_last_pixel_and_those_of_our_own_backbone_do_not() -> None:
    assert GlipConfig.named("glip-l").boxes_include_last_pixel is True
    assert nano_config(100).boxes_include_last_pixel is False
    for config in (GlipConfig(), nano_config(100)):  # as folders are that were written before there was the field
        fields = {name: value for name, value in config.to_dict().items() if name != "boxes_include_last_pixel"}
        assert GlipConfig(**fields).border == config.border
    assert GlipConfig(boxes_include_last_pixel=False).to_diff_dict()["boxes_include_last_pixel"] is False


def test_a_model_trains_after_it_was_used_for_inference() -> None:
    model, pixels = random_model(), random_pixels(1, 96, 160)  # a size of its own: nothing is cached for it yet
    with torch.inference_mode():
        model(pixels, IDS)
    target = {
        "boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]),
        "positive_map": torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0]]),
    }
    output: GlipOutput = model.train()(pixels, IDS, targets=[target])
    assert output.loss is not None
    output.loss.backward()
    for part in (model.backbone, model.tower, model.head):
        gradients = [weight.grad for weight in part.parameters() if weight.grad is not None]
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0
