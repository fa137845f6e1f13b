"""Golden cases: what the official code computed on formula-made weights and images, and how to rebuild its inputs.

Each case is a JSON file (prompt, images, detections; shape and statistics of every tensor) and a ``.samples.npz`` (per
tensor its first 64 numbers, then 256 spread evenly). ``tiny_p3.full.npz`` holds whole arrays.
"""

import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glip_model.configuration_glip import GlipConfig
from glip_model.convert_glip_checkpoint import convert_state_dict
from glip_model.modeling_glip import GlipForDetection
from tests.golden.refinit import normalise, reference_image, reference_weight

FOLDER = Path(__file__).parent
# Key lists: the two small models of the golden data and the published variants.
VARIANTS = ("tiny", "tinyA", "glip-t", "glip-t-a", "glip-l")


@dataclass(frozen=True)
class Case:
    """One golden case: its JSON content, and the sampled numbers of each tensor by name."""

    data: dict[str, Any]
    samples: dict[str, NDArray[np.float32]]

    @property
    def input_ids(self) -> Tensor:
        return torch.tensor(self.data["input_ids"])[None]  # (1, 256)

    @property
    def attention_mask(self) -> Tensor:
        return torch.tensor(self.data["attention_mask"])[None]

    @property
    def label_tokens(self) -> list[list[int]]:
        return in_label_order(self.data["positive_map_label_to_token"])


def in_label_order(positive_map: Mapping[str, list[int]]) -> list[list[int]]:
    """Label tokens of a map with labels "1", "2", …."""
    return [positive_map[label] for label in sorted(positive_map, key=int)]


@cache
def read_case(name: str) -> Case:
    data = read_json(name)
    with np.load(FOLDER / f"{name}.samples.npz") as arrays:
        return Case(data, dict(arrays))


def read_json(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@cache
def official_shapes(variant: str) -> dict[str, list[int]]:
    """Shape of every key, without ``module.``, in an official state dict of one of VARIANTS."""
    packed = (FOLDER / "official_keys.json.gz").read_bytes()
    shapes: dict[str, list[int]] = json.loads(gzip.decompress(packed))[variant]
    return shapes


def tiny_config(early_fusion: bool = True, dropout: bool = True) -> GlipConfig:
    """The small model of the golden data; without ``dropout`` training is deterministic."""
    text = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 30522,
    }
    swin: dict[str, Any] = {"embed_dim": 24, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 7}
    config = GlipConfig(backbone_config=swin, text_config=text, hidden_size=32, num_blocks=3, early_fusion=early_fusion)
    return config if dropout else without_dropout(config)


def without_dropout(config: GlipConfig) -> GlipConfig:
    config.fusion_dropout = config.drop_block_rate = 0.0
    text, swin = config.get_text_config(), config.backbone_config
    text.hidden_dropout_prob = text.attention_probs_dropout_prob = 0.0
    setattr(swin, "drop_path_rate", 0.0)  # noqa: B010 - the type checker only knows the base class
    return config


def write_official_checkpoint(file: Path, shapes: Mapping[str, Sequence[int]], tag: str) -> None:
    """Write a ``.pth`` as the official trainer does: ``module.`` names, buffers, leftovers of training beside them."""
    state = {}
    for name, shape in shapes.items():
        weight = reference_weight(name, shape, tag)
        buffer_type = torch.float32 if "cell_anchors" in name else torch.int64
        state[f"module.{name}"] = torch.zeros(*shape, dtype=buffer_type) if weight is None else torch.from_numpy(weight)
    width = len(state["module.rpn.head.bias_lang"])
    state["module.language_backbone.body.model.pooler.dense.weight"] = torch.zeros(width, width)
    state["module.rpn.tunable_linear.weight"] = torch.zeros(1000, width)
    torch.save({"model": state, "optimizer": {"state": {}}, "iteration": 7}, file)


def pixel_values(case: Case) -> Tensor:
    """The batch ``(B, 3, H, W)`` that the case was computed on, checked by its hash."""
    recipe = read_json("images")
    small = [tuple(recipe["small"])]
    pair = [(seed, *size) for seed, size in zip(recipe["seeds"], recipe["sizes"], strict=True)]
    images = small if "small" in case.data["case"] else pair
    batch = np.zeros(case.data["batch_shape"], np.float32)
    for target, (seed, height, width) in zip(batch, images, strict=True):
        target[:, :height, :width] = normalise(reference_image(seed, height, width))
    if hashlib.sha256(batch.tobytes()).hexdigest() != case.data["batch_sha256"]:
        raise ValueError(f"{case.data['case']}: the images differ from those of the golden data")
    return torch.from_numpy(batch)


def targets(case: Case, training: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """Boxes and positive maps of a training case, for the network's ``targets``."""
    tokens = iter(training["positive_map_tokens"])
    made = []
    for boxes in training["boxes_xyxy"]:
        positive_map = torch.zeros(len(boxes), case.input_ids.shape[1])
        for row in positive_map:
            row[next(tokens)] = 1
        made.append({"boxes": torch.tensor(boxes), "positive_map": positive_map})
    return made


def official_gradients(model: GlipForDetection, variant: str) -> dict[str, Tensor]:
    """Gradients of a model under official names, in official shapes and float64; NaN where it has no such weight.

    Each entry of an official state dict is numbered, and its number followed through the converter.
    """
    gradients = {name: p.grad for name, p in model.named_parameters()}
    numbered, first = {}, 0
    for name, shape in official_shapes(variant).items():
        numbered[name] = torch.arange(first, first + math.prod(shape)).view(shape)
        first += math.prod(shape)
    flat = torch.full((first,), torch.nan, dtype=torch.float64)
    for name, places in convert_state_dict(numbered, cast(GlipConfig, model.config)).items():
        gradient = gradients[name]
        if gradient is not None:
            flat[places.flatten()] = gradient.flatten().double()
    return {name: flat[places] for name, places in numbered.items()}


def sample_places(size: int) -> Tensor:
    """Flat indices of a tensor's stored numbers: the first 64, then 256 spread evenly."""
    return torch.cat([torch.arange(min(64, size)), torch.arange(256) * size // 256])


def deviation(case: Case, name: str, tensor: Tensor) -> float:
    """Largest difference to the stored numbers of tensor ``name``; NaN entries of ``tensor`` are left out.

    Raises:
        ValueError: the shape is not the official one.
    """
    expected = case.data["tensors"][name]
    if list(tensor.shape) != expected["shape"]:
        raise ValueError(f"{name}: shape {list(tensor.shape)} instead of {expected['shape']}")
    flat = tensor.detach().flatten()
    found = flat[sample_places(len(flat))]
    difference = (found - torch.from_numpy(case.samples[name])).abs()
    return float(difference[~found.isnan()].max())
