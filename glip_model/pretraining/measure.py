"""Figures of a pre-trained model: real splits, and generated scenes of seen and of never-seen combinations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glip_model.evaluation import DetectionScores, evaluate_detections
from glip_model.inference import GlipDetector
from glip_model.pretraining.coco_sets import read_coco_set
from glip_model.pretraining.scenes import draw_scene, random_looks
from glip_model.pretraining.words import (
    COLOURS,
    HELD_OUT,
    HELD_OUT_COLOURS,
    HELD_OUT_TEXTURES,
    IMPOSSIBLE,
    SHAPES,
    TEXTURES,
    Looks,
    Phrase,
    possible_looks,
)
from glip_model.training.samples import Sample

SCENES = 100
SCENE_SIDE = 416
_SHARE_OF_ASKED = 0.6
_SEED = 20_240

SceneKind = Literal["seen", "unseen"]


@dataclass(frozen=True)
class MeasuredSet:
    """Pictures with all their boxes; every name is asked in every picture."""

    names: tuple[str, ...]
    samples: tuple[Sample, ...]

    def coco(self) -> dict[str, Any]:
        """The boxes as a COCO data set; image ids count from 1, category ids from 1 in the order of the names."""
        category = {name: number for number, name in enumerate(self.names, 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, sample in enumerate(self.samples, 1):
            height, width = sample.rgb.shape[:2]
            images.append({"id": image, "file_name": f"{image:04}.png", "height": height, "width": width})
            for (x1, y1, x2, y2), names in zip(sample.boxes_xyxy.tolist(), sample.names, strict=True):
                annotations.extend(
                    {"image_id": image, "category_id": category[name], "bbox": [x1, y1, x2 - x1, y2 - y1]}
                    for name in names
                )
        numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)]
        categories = [{"id": number, "name": name} for name, number in category.items()]
        return {"images": images, "annotations": numbered, "categories": categories}


def asked_phrases(kind: SceneKind) -> tuple[Phrase, ...]:
    """The names of a scene set: all that training never saw, or as many of the same form that it may have seen."""
    coloured: tuple[tuple[str, str], ...] = HELD_OUT_COLOURS
    textured: tuple[tuple[str, str], ...] = HELD_OUT_TEXTURES
    if kind == "seen":
        coloured = _seen_pairs(tuple(COLOURS), len(HELD_OUT_COLOURS))
        textured = _seen_pairs(TEXTURES[1:], len(HELD_OUT_TEXTURES))
    phrases = [Phrase(shape, colour=colour) for colour, shape in coloured]
    return (*phrases, *(Phrase(shape, texture=texture) for texture, shape in textured))


def _seen_pairs(attributes: Sequence[str], count: int) -> tuple[tuple[str, str], ...]:
    allowed = [
        (attribute, SHAPES[i % len(SHAPES)])
        for i, attribute in ((i, attributes[(5 * i + i // len(SHAPES)) % len(attributes)]) for i in range(3 * count))
    ]
    possible = [pair for pair in dict.fromkeys(allowed) if pair not in HELD_OUT and pair not in IMPOSSIBLE]
    return tuple(possible[:count])


def scene_set(kind: SceneKind, count: int = SCENES, side: int = SCENE_SIDE) -> MeasuredSet:
    """Scenes in which most things answer to an asked name and the others share parts of their looks.

    The scenes of "unseen" ask for held-out combinations only; the things around them are of seen ones.
    """
    phrases = asked_phrases(kind)
    pool = [
        (shape, colour, texture)
        for shape, colour, texture in possible_looks(held_out=kind == "unseen")
        if any(phrase.fits(Looks(shape, colour, texture, None)) for phrase in phrases)
    ]
    samples = []
    for number in range(count):
        rng = np.random.default_rng([_SEED, kind == "unseen", number])
        wanted: list[Looks] = []
        for _ in range(int(rng.integers(4, 11))):
            if rng.random() < _SHARE_OF_ASKED:
                size = random_looks(rng).size
                wanted.append(Looks(*pool[rng.integers(len(pool))], size))
            else:
                wanted.append(random_looks(rng, wanted))
        scene = draw_scene(side, wanted, rng)
        fitting = [tuple(p.text() for p in phrases if p.fits(thing.looks)) for thing in scene.things]
        boxes = [thing.box_xyxy for thing, names in zip(scene.things, fitting, strict=True) if names]
        samples.append(
            Sample(
                scene.rgb,
                np.array(boxes, dtype=np.float32).reshape(-1, 4),
                tuple(names for names in fitting if names),
                tuple(phrase.text() for phrase in phrases),
            )
        )
    return MeasuredSet(tuple(phrase.text() for phrase in phrases), tuple(samples))


def real_set(folder: Path, split: str) -> MeasuredSet:
    """A split of a real set, pictures in the size they have on disk up to 640 px.

    Raises:
        DataError: as ``read_coco_set``.
    """
    real = read_coco_set(folder, split)
    return MeasuredSet(real.names, real.samples)


def measure(detector: GlipDetector, data: MeasuredSet, progress: Iterable[int] | None = None) -> DetectionScores:
    """Ask for every name in every picture and score the boxes as COCO does.

    Args:
        detector: the model.
        data: what to look at.
        progress: positions of the pictures in order, as a progress bar yields them.
    """
    captions = detector.captions([[name] for name in data.names])
    results: list[dict[str, Any]] = []
    for index in range(len(data.samples)) if progress is None else progress:
        results.extend(_results(detector, captions, data.samples[index].rgb, index + 1))
    return evaluate_detections(data.coco(), results)


def _results(detector: GlipDetector, captions: Any, rgb: NDArray[np.uint8], image_id: int) -> list[dict[str, Any]]:
    (found,) = detector.detect([np.ascontiguousarray(rgb)], captions)
    return [
        {"image_id": image_id, "category_id": label + 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes_xyxy.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        )
    ]
