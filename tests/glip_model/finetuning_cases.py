"""Pictures of bright and dark squares, and a base that finds squares but cannot tell the two apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glip_model.evaluation import evaluate_detections
from glip_model.finetune import FinetuneSettings, Handling, TrainingExample
from glip_model.finetuning.settings import Mode
from glip_model.inference import GlipDetector
from glip_model.processing_glip import GlipImageProcessor, GlipProcessor
from tests.glip_model.text import small_tokenizer
from tests.glip_model.tiny import WORDS, tiny_model

SIDE = 160
PROMPTS = [["cat"], ["red dog"]]
CPU = torch.device("cpu")


def squares(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], tuple[int, ...]]:
    """A grey picture, a bright square (label 0) and a dark one (label 1)."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(110, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    boxes = []
    for label, left in enumerate(rng.permutation([8, 84])):
        x, y, side = left + rng.integers(0, 20), rng.integers(10, 90), rng.integers(36, 46)
        rgb[y : y + side, x : x + side] = (250, 5)[label]
        boxes.append([x, y, x + side, y + side])
    return rgb, np.array(boxes, dtype=np.float32), (0, 1)


def example(seed: int, **given: Any) -> TrainingExample:
    """Both squares of a picture, or what is given instead."""
    rgb, boxes, labels = squares(seed)
    return TrainingExample(lambda: rgb, **{"boxes_xyxy": boxes, "labels": labels, **given})


def examples(count: int = 6) -> list[TrainingExample]:
    return [example(seed) for seed in range(count)]


def settings(mode: Mode, steps: int = 4, **given: Any) -> FinetuneSettings:
    handling = Handling(quarter_turns=True, colour=0.1)
    return FinetuneSettings(mode, steps, **{"batch_size": 4, "handling": handling, **given})


def save_tiny_base(folder: Path) -> Path:
    """A tiny model folder with random weights."""
    processor = GlipProcessor(
        GlipImageProcessor(size={"shortest_edge": SIDE, "longest_edge": SIDE}), small_tokenizer(WORDS)
    )
    tiny_model().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def ap50(detector: GlipDetector, seeds: Sequence[int] = range(100, 112)) -> float:
    """On pictures that training did not see."""
    images, annotations, results = [], [], []
    captions = detector.captions(PROMPTS)
    for image, seed in enumerate(seeds, 1):
        rgb, boxes, labels = squares(seed)
        images.append({"id": image, "file_name": f"{image}.png", "height": SIDE, "width": SIDE})
        for number, ((x1, y1, x2, y2), label) in enumerate(zip(boxes.tolist(), labels, strict=True)):
            box = {"image_id": image, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            annotations.append({"id": 2 * image + number, **box})
        (found,) = detector.detect([rgb], captions)
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes_xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            box = {"image_id": image, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            results.append({**box, "score": score})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "red dog"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return evaluate_detections(truth, results).ap50 or 0.0
