"""Training batches, each a pure function of (seed, step), so that a resumed run reads what the first would have read.

Shape letters: B images, S side of the square pictures, T tokens of the longest caption, N boxes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from glip_model.caption import tokens_of_spans
from glip_model.loss_glip import UNDECIDED
from glip_model.pretraining.asking import ask_names, ask_sentence, random_phrase
from glip_model.pretraining.coco_sets import RealSet
from glip_model.pretraining.recipe import INPUT_SIZE
from glip_model.pretraining.samples import CaptionedSample, as_captioned
from glip_model.pretraining.scenes import Scene, random_scene
from glip_model.training.augment import augmented, mosaic
from glip_model.training.samples import Sample

_MOST_NAMES = 14

_SCALES = (0.5, 1.25)
"""Least and largest enlargement of a real picture; inference shows a 640 px picture at 0.75 to 0.8."""


class Batch(TypedDict):
    """What one step reads: pictures as bytes, to be normalised on the other side of the queue."""

    rgb: Tensor  # (B, S, S, 3) uint8
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    targets: list[dict[str, Tensor]]


@dataclass(frozen=True)
class Mixture:
    """What a batch is made of.

    Attributes:
        batch_size: pictures a step.
        sides: side of the square pictures, at least 160; one is drawn for each batch. Below, P7 is a single cell, and
            oneDNN computes wrong bf16 gradients for a strided convolution of one cell.
        scene_share: share of generated scenes asked with names.
        sentence_share: share of generated scenes asked with a sentence; the rest are real pictures.
        mosaic_share: share of the real pictures that are four in one.
    """

    batch_size: int = 8
    sides: tuple[int, ...] = (224, 288, 352)
    scene_share: float = 0.27
    sentence_share: float = 0.08
    mosaic_share: float = 0.3


SCENES_ONLY = Mixture(sides=(160, 192, 224), scene_share=0.8, sentence_share=0.2)
"""Generated scenes alone, small: words need many pictures more than they need large ones."""


class PretrainingBatches(Dataset[Batch]):
    """Batch number ``step`` of an endless run; the sets are drawn with the given weights."""

    def __init__(
        self, tokenizer: Any, sets: Sequence[RealSet], weights: Sequence[float], mixture: Mixture, seed: int
    ) -> None:
        self._tokenizer = tokenizer
        self._sets = tuple(sets)
        self._weights = np.asarray(weights, dtype=np.float64) / max(sum(weights), 1e-9)
        self._mixture = mixture
        self._seed = seed

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        side = int(rng.choice(self._mixture.sides))
        samples = [self._draw(side, rng) for _ in range(self._mixture.batch_size)]
        return collate(self._tokenizer, samples)

    def _draw(self, side: int, rng: np.random.Generator) -> CaptionedSample:
        mixture = self._mixture
        kind = rng.random()
        if kind < mixture.sentence_share:
            return ask_sentence(self._scene(side, rng), rng)
        if kind < mixture.sentence_share + mixture.scene_share or not self._sets:
            return as_captioned(ask_names(self._scene(side, rng), rng), rng)
        real = self._mosaic(side, rng) if rng.random() < mixture.mosaic_share else self._view((side, side), rng)
        return as_captioned(self._with_negatives(real, rng), rng)

    def _scene(self, side: int, rng: np.random.Generator) -> Scene:
        """A small picture is a part of a larger scene: things keep sizes at which their shapes can be told apart."""
        return random_scene(side, rng, frame=rng.uniform(side, max(side, INPUT_SIZE["shortest_edge"])))

    def _view(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Sample:
        real = self._sets[rng.choice(len(self._sets), p=self._weights)]
        sample = real.samples[rng.integers(len(real.samples))]
        return augmented(sample, real.handling, size_hw, _SCALES, rng)

    def _mosaic(self, side: int, rng: np.random.Generator) -> Sample:
        x, y = (int(v) for v in rng.integers(round(side * 0.35), round(side * 0.65), 2))
        sizes = ((y, x), (y, side - x), (side - y, x), (side - y, side - x))
        return mosaic([self._view(size_hw, rng) for size_hw in sizes], (x, y), side)

    def _with_negatives(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Ask for absent names too: those of other sets and of scenes. Now and then some names are left out."""
        asked = list(sample.asked)
        names, boxes = sample.names, sample.boxes_xyxy
        if rng.random() < 0.2:
            asked = [name for name in asked if rng.random() < 0.6] or asked[:1]
            kept = [i for i, of_box in enumerate(names) if of_box[0] in asked]
            names, boxes = tuple(names[i] for i in kept), boxes[kept]
        others = [name for real in self._sets for name in real.names if name not in sample.asked]
        others.append(random_phrase(rng).text())
        room = max(0, _MOST_NAMES - len(asked))
        count = min(room, len(others), int(rng.integers(0, 6)))
        asked += [others[i] for i in rng.permutation(len(others))[:count]]
        return Sample(sample.rgb, boxes, names, tuple(asked))


def collate(tokenizer: Any, samples: Sequence[CaptionedSample]) -> Batch:
    """Tokenise the captions and stack pictures of one size."""
    read: list[tuple[tuple[int, ...], Iterator[tuple[int, ...]]]] = []
    for sample in samples:
        flat = [span for spans in (*sample.spans, *sample.undecided) for span in spans]
        ids, tokens = tokens_of_spans(tokenizer, sample.caption, flat)
        read.append((ids, iter(tokens)))
    longest = max(len(ids) for ids, _ in read)
    input_ids = torch.full((len(samples), longest), tokenizer.pad_token_id)  # (B, T)
    attention_mask = torch.zeros_like(input_ids)
    targets = []
    for row, (sample, (ids, token_groups)) in enumerate(zip(samples, read, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        positive = torch.zeros(len(sample.boxes_xyxy), longest)  # (N, T)
        for value, spans_of_boxes in ((1.0, sample.spans), (float(UNDECIDED), sample.undecided)):
            for box, spans in enumerate(spans_of_boxes):
                for _ in spans:
                    positive[box, list(next(token_groups))] = value
        boxes = torch.from_numpy(sample.boxes_xyxy)
        targets.append({"boxes": boxes, "positive_map": positive, "words": word_targets(tokenizer, sample)})
    rgb = torch.from_numpy(np.stack([sample.rgb for sample in samples]))
    return Batch(rgb=rgb, input_ids=input_ids, attention_mask=attention_mask, targets=targets)


def word_targets(tokenizer: Any, sample: CaptionedSample) -> Tensor:
    """Which pieces describe each box: ``(N, V)`` int8 of 1 true, 0 false, -1 undecided."""

    def pieces(words: frozenset[str]) -> list[int]:
        ids: list[int] = tokenizer(" ".join(sorted(words)), add_special_tokens=False).input_ids
        return ids

    targets = torch.full((len(sample.boxes_xyxy), len(tokenizer)), UNDECIDED, dtype=torch.int8)
    of_words = {words: pieces(words) for words in {*sample.decided, *sample.words}}
    for row, decided, fitting in zip(targets, sample.decided, sample.words, strict=True):
        row[of_words[decided]] = 0
        row[of_words[fitting]] = 1
    return targets
