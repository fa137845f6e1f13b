import pytest
import torch
from torch import Tensor

from glip_model.configuration_glip import GlipConfig
from glip_model.convert_glip_checkpoint import CheckpointError, convert_state_dict
from glip_model.modeling_glip import GlipForDetection
from tests.golden.cases import official_shapes, tiny_config

# Parameters of the published models as the official code counts them, the unused classifier left out.
PARAMETERS = {"glip-t": 231_780_222, "glip-t-a": 151_430_526, "glip-l": 430_422_384}
UNUSED_CLASSIFIER = 80 * 256 + 80


def _official(variant: str) -> dict[str, Tensor]:
    """Weightless state dict in the official names."""
    return {name: torch.empty(shape, device="meta") for name, shape in official_shapes(variant).items()}


@pytest.mark.parametrize("variant", ["glip-t", "glip-t-a", "glip-l"])
def test_the_table_covers_every_key_of_a_published_checkpoint(variant: str) -> None:
    config = GlipConfig.named(variant)
    converted = convert_state_dict(_official(variant), config)
    with torch.device("meta"):
        model = GlipForDetection(config)
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in model.named_parameters()}
    assert sum(p.numel() for p in model.parameters()) + UNUSED_CLASSIFIER == PARAMETERS[variant]


@pytest.mark.parametrize(
    "extra",
    [
        "language_backbone.body.model.pooler.dense.weight",
        "language_backbone.body.model.embeddings.position_ids",
        "rpn.resizer.fc.weight",
        "rpn.tunable_linear.weight",
        "rpn.head.mlm_head.cls.weight",
        "rpn.head.cls_logits.weight",
        "rpn.loss_evaluator.shallow_contrastive.weight",
    ],
)
def test_leftovers_of_training_are_ignored_in_any_shape(extra: str) -> None:
    config = tiny_config()
    expected = convert_state_dict(_official("tiny"), config)
    found = convert_state_dict({**_official("tiny"), extra: torch.empty(3, device="meta")}, config)
    assert found.keys() == expected.keys()


def test_buffers_may_be_missing() -> None:
    buffers = ("relative_position_index", "position_ids")
    state = {k: v for k, v in _official("tiny").items() if not k.endswith(buffers) and "cell_anchors" not in k}
    assert len(state) < len(_official("tiny"))
    assert convert_state_dict(state, tiny_config())


def test_the_prefix_of_distributed_training_is_dropped_if_all_names_have_it() -> None:
    prefixed = {f"module.{name}": tensor for name, tensor in _official("tiny").items()}
    assert (
        convert_state_dict(prefixed, tiny_config()).keys()
        == convert_state_dict(_official("tiny"), tiny_config()).keys()
    )
    name = next(iter(prefixed))
    mixed = {name.removeprefix("module."): prefixed.pop(name), **prefixed}
    with pytest.raises(CheckpointError, match=r"unknown: module\."):
        convert_state_dict(mixed, tiny_config())


def test_unknown_missing_and_misshaped_keys_are_listed_together() -> None:
    state = _official("tiny")
    state["rpn.head.surprise"] = torch.empty(1)
    del state["rpn.head.bias_lang"]
    state["rpn.head.bias0"] = torch.empty(2)
    with pytest.raises(CheckpointError) as refusal:
        convert_state_dict(state, tiny_config())
    message = str(refusal.value)
    assert "unknown: rpn.head.surprise" in message
    assert "missing: head.text_bias" in message
    assert "mis-shaped: head.prior_bias (2,) instead of (1,)" in message


def test_a_missing_level_scale_is_an_error() -> None:
    state = _official("tiny")
    del state["rpn.head.scales.2.scale"]
    with pytest.raises(CheckpointError, match="level_scales"):
        convert_state_dict(state, tiny_config())


def test_another_model_is_refused_in_one_short_line() -> None:
    resnet = {f"layer{i}.conv.weight": torch.empty(1) for i in range(400)}
    with pytest.raises(CheckpointError) as refusal:
        convert_state_dict(resnet, tiny_config())
    assert "\n" not in str(refusal.value)
    assert "and 392 more" in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_the_variant_without_fusion_is_not_taken_for_the_fused_one() -> None:
    with pytest.raises(CheckpointError, match="unknown"):
        convert_state_dict(_official("tinyA"), tiny_config(early_fusion=True))
    with pytest.raises(CheckpointError, match="unknown"):
        convert_state_dict(_official("tiny"), tiny_config(early_fusion=False))
