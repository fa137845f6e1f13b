"""The network, through the converter, against what the official code computed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from glip_model.caption import plan_captions
from glip_model.modeling_glip import GlipForDetection, GlipOutput
from glip_model.postprocess import Detections
from glip_model.weights_files import convert_checkpoint
from tests.glip_model import reference
from tests.glip_model.stages import run_with_stages
from tests.glip_model.text import golden_tokenizer
from tests.golden.cases import (
    FOLDER,
    deviation,
    in_label_order,
    official_shapes,
    pixel_values,
    read_case,
    read_json,
    tiny_config,
    write_official_checkpoint,
)
from tests.golden.refinit import weights_sha256

CASES = ("tiny_p3", "tiny_p12", "tiny_small_p3", "tinyA_p3")
# By the beginning of a tensor's name; what float32 leaves open between two orders of the same sums.
TOLERANCES = {
    "swin": 2e-5,
    "fpn": 2e-5,
    "lang": 2e-5,
    "tower": 1e-4,
    "head.bbox_reg": 4e-4,
    "head.centerness": 4e-4,
    "head.dot_product_logits": 2e-4,
}
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 3e-5

Models = Callable[[str], GlipForDetection]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Converted models by key list: from the official ``.pth`` over a model folder, as users come by them."""

    @cache
    def make(variant: str) -> GlipForDetection:
        folder: Path = tmp_path_factory.mktemp(variant)
        tag = read_case("tiny_p3").data["weight_tag"]
        write_official_checkpoint(folder / "official.pth", official_shapes(variant), tag)
        config = tiny_config(early_fusion=variant == "tiny")
        convert_checkpoint(folder / "official.pth", folder / "converted", config, tokenizer=None)
        loaded: GlipForDetection = GlipForDetection.from_pretrained(folder / "converted")
        loaded.train(False)
        return loaded

    return make


@cache
def _run(model: GlipForDetection, name: str) -> tuple[GlipOutput, dict[str, Tensor]]:
    case = read_case(name)
    with torch.no_grad():
        return run_with_stages(model, pixel_values(case), case.input_ids, case.attention_mask)


@cache
def _run_plainly(model: GlipForDetection, name: str) -> dict[str, Tensor]:
    case, stages = read_case(name), dict[str, Tensor]()
    with torch.no_grad():
        reference.forward(model, pixel_values(case), case.input_ids, case.attention_mask, stages)
    return stages


def _tolerance(name: str) -> float:
    return next(limit for prefix, limit in TOLERANCES.items() if name.startswith(prefix))


def _beyond_tolerance(case_name: str, stages: dict[str, Tensor]) -> dict[str, float]:
    case = read_case(case_name)
    differences = {name: deviation(case, name, tensor) for name, tensor in stages.items()}
    return {name: value for name, value in differences.items() if not value <= _tolerance(name)}


def _assert_same_detections(found: Detections, expected: dict[str, Any]) -> None:
    assert len(found.scores) == len(expected["scores"])
    torch.testing.assert_close(found.scores, torch.tensor(expected["scores"]), atol=SCORE_TOLERANCE, rtol=0)
    torch.testing.assert_close(found.boxes_xyxy, torch.tensor(expected["boxes"]), atol=BOX_TOLERANCE, rtol=0)
    assert (found.labels + 1).tolist() == expected["labels"]


@pytest.mark.parametrize("variant", ["tiny", "tinyA"])
def test_the_formula_makes_the_weights_that_the_golden_data_were_computed_with(variant: str) -> None:
    tag = read_case("tiny_p3").data["weight_tag"]
    assert weights_sha256(official_shapes(variant), tag) == read_json("extras")["weights"][variant]["sha256"]


@pytest.mark.parametrize("name", CASES)
def test_every_stage_equals_the_official_one(models: Models, name: str) -> None:
    _, stages = _run(models(name.split("_")[0]), name)
    # The mean of all words is computed officially too, but feeds nothing.
    assert set(stages) == set(read_case(name).data["tensors"]) - {"lang.aggregate"}
    assert _beyond_tolerance(name, stages) == {}


@pytest.mark.parametrize("name", CASES)
def test_every_stage_of_the_plain_path_equals_the_official_one(models: Models, name: str) -> None:
    stages = _run_plainly(models(name.split("_")[0]), name)
    assert set(stages) == set(read_case(name).data["tensors"]) - {"lang.aggregate"}
    assert _beyond_tolerance(name, stages) == {}


@pytest.mark.parametrize("name", CASES)
def test_the_plain_path_keeps_the_official_statistics_padding_included(models: Models, name: str) -> None:
    statistics = read_case(name).data["tensors"]
    for stage, tensor in _run_plainly(models(name.split("_")[0]), name).items():
        numbers, expected = tensor.double(), statistics[stage]
        found = {
            "mean": numbers.mean(),
            "std": numbers.std(correction=0),
            "absmax": numbers.abs().max(),
            "l2": numbers.norm(),
        }
        for what, value in found.items():
            assert float(value) == pytest.approx(expected[what], rel=1e-4, abs=_tolerance(stage)), (stage, what)


def test_whole_arrays_equal_the_official_ones(models: Models) -> None:
    _, stages = _run(models("tiny"), "tiny_p3")
    with np.load(FOLDER / "tiny_p3.full.npz") as arrays:
        expected = {name: torch.from_numpy(arrays[name]) for name in arrays if name != "lang.aggregate"}
    for name, array in expected.items():
        found = stages[name][tuple(slice(0, size) for size in array.shape)]  # words behind the caption are not kept
        known = ~found.isnan()
        assert known.any()
        torch.testing.assert_close(found[known], array[known], atol=_tolerance(name), rtol=0, msg=name)


@pytest.mark.parametrize("name", CASES)
def test_detections_equal_the_official_ones(models: Models, name: str) -> None:
    case = read_case(name)
    model = models(name.split("_")[0])
    output, _ = _run(model, name)
    found = model.postprocess(output, case.label_tokens, case.data["image_sizes_hw"])
    for detections, expected in zip(found, case.data["detections"], strict=True):
        _assert_same_detections(detections, expected)


def test_many_names_over_several_captions_give_the_official_detections(models: Models) -> None:
    chunked, case, model = read_json("tiny_p12_chunk5"), read_case("tiny_p12"), models("tiny")
    size = chunked["options"]["CHUNKED_EVALUATION"]
    captions = plan_captions(golden_tokenizer(), [[name] for name in case.data["class_names"]], max_prompts=size)
    parts: list[list[Detections]] = []
    for caption, positive_map in zip(captions, chunked["maps"], strict=True):
        input_ids = torch.tensor([caption.input_ids])
        with torch.no_grad():
            output = model(pixel_values=pixel_values(case), input_ids=input_ids)
        found = model.postprocess(
            output,
            in_label_order(positive_map),
            case.data["image_sizes_hw"],
            max_detections=chunked["options"]["DETECTIONS_PER_IMG"],
        )
        first = int(min(positive_map, key=int)) - 1
        parts.append([Detections(d.boxes_xyxy, d.scores, d.labels + first) for d in found])
    assert [[len(d.scores) for d in part] for part in parts] == chunked["per_chunk"]
    for per_chunk, expected in zip(zip(*parts, strict=True), chunked["detections"], strict=True):
        scores = torch.cat([d.scores for d in per_chunk])
        order = scores.argsort(descending=True, stable=True)
        boxes = torch.cat([d.boxes_xyxy for d in per_chunk])[order]
        labels = torch.cat([d.labels for d in per_chunk])[order]
        _assert_same_detections(Detections(boxes, scores[order], labels), expected)
