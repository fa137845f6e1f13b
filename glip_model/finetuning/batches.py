"""Which views each step sees, and what the loss reads of them.

Shape letters: B views of a step, T tokens of the longest caption, N boxes of a view.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from glip_model.caption import Caption, caption_from_sentence, plan_captions, positive_map
from glip_model.finetuning.examples import TrainingExample, View
from glip_model.loss_glip import TOKEN_MAPS
from glip_model.training.samples import Sample

_MOST_EMPTY = 0.25
"""Empty pictures for each one with boxes, at most: the rest of them waits for the next round."""


@dataclass(frozen=True)
class Plan:
    """Views of any step as a pure function of seed and step, so that a resumed run reads what the first would have.

    Only how long views are early ones may hang on time as well.

    Attributes:
        empty: whether each example has no box.
        batch_size: B.
        sides: of the square views; steps take turns, so that each of the captions is asked with each side.
        early_sides, early_steps: of the first so many steps.
        captions: that steps take turns to ask.
        views: views of each picture, after which they come again; None makes every view a new one.
        seed: of the run.
    """

    empty: tuple[bool, ...]
    batch_size: int
    sides: tuple[int, ...]
    views: int | None
    seed: int
    early_sides: tuple[int, ...] = ()
    early_steps: int = 0
    captions: int = 1

    @property
    def round_size(self) -> int:
        """Pictures of one round through the data."""
        filled = self.empty.count(False)
        return filled + min(len(self.empty) - filled, max(1, round(_MOST_EMPTY * filled)))

    def step(self, step: int, *, late: bool = False) -> list[View]:
        """The views of a step; none is early any more where it is ``late`` by the clock."""
        sides = self.early_sides if step < self.early_steps and not late else self.sides
        turn, caption = divmod(step, self.captions)
        side = sides[(turn + caption) % len(sides)]
        first = step * self.batch_size
        views = []
        for place in range(first, first + self.batch_size):
            number, at = divmod(place, self.round_size)
            example = int(self._round(number)[at])
            views.append(View(example, number if self.views is None else number % self.views, side))
        return views

    def _round(self, number: int) -> Sequence[int]:
        """Every picture with boxes and some of the empty ones, in random order."""
        filled = [index for index, empty in enumerate(self.empty) if not empty]
        others = [index for index, empty in enumerate(self.empty) if empty]
        count = self.round_size - len(filled)
        in_turn = np.random.default_rng(self.seed).permutation(np.array(others, dtype=np.int64))
        chosen = in_turn.take(range(number * count, number * count + count), mode="wrap") if count else others
        return list(np.random.default_rng([self.seed, number]).permutation([*filled, *chosen]))


class Asking:
    """The caption that a view is asked with.

    Args:
        tokenizer: the model's.
        prompts: of each label.
        examples: for their sentences.
        max_tokens: longest caption.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[str]],
        examples: Sequence[TrainingExample],
        max_tokens: int,
    ) -> None:
        self.captions = plan_captions(tokenizer, prompts, max_tokens=max_tokens) if prompts else ()
        self._sentences = {
            index: caption_from_sentence(tokenizer, example.sentence, max_tokens=max_tokens)
            for index, example in enumerate(examples)
            if example.sentence is not None
        }

    def caption(self, view: View, step: int) -> Caption:
        """The sentence of the view's picture; else the run's captions in turn, where the names need several."""
        return self._sentences.get(view.example) or self.captions[step % len(self.captions)]

    @property
    def all_captions(self) -> tuple[Caption, ...]:
        """Every caption of the run."""
        return (*self.captions, *self._sentences.values())


def target_of(sample: Sample, caption: Caption, weight: float, unasked: Collection[int] = ()) -> dict[str, Tensor]:
    """What ``detection_losses`` reads about one view, without boxes of labels that the caption does not ask for.

    A box with several labels is one row that all of them name: of two rows that are equal, the first has all anchors.
    """
    prompts: dict[str, list[int]] = {}
    for prompt, owner in enumerate(caption.owners):
        prompts.setdefault(str(owner), []).append(prompt)
    target = {"weight": torch.tensor(weight)}
    parts = (("boxes", "positive_map", sample.names), ("rejected", "rejected_map", sample.rejected or ()))
    for boxes, tokens, names in parts:
        named: dict[tuple[float, ...], list[int]] = {}
        for row, of_box in enumerate(names):
            if of_box and of_box[0] in prompts:
                named.setdefault(tuple(sample.boxes_xyxy[row].tolist()), []).extend(prompts[of_box[0]])
        if named or boxes == "boxes":
            target[boxes] = torch.tensor(list(named), dtype=torch.float32).reshape(-1, 4)
            wanted = positive_map(caption.label_tokens, list(named.values()), len(caption.input_ids))
            target[tokens] = torch.from_numpy(wanted)
    if len(sample.unreviewed_xyxy):
        target["unreviewed"] = torch.from_numpy(sample.unreviewed_xyxy)
    silent = [prompt for prompt, owner in enumerate(caption.owners) if owner in unasked]
    if silent:
        (marked,) = positive_map(caption.label_tokens, [silent], len(caption.input_ids))
        target["unasked"] = torch.from_numpy(marked)
    return target


def padded_target(target: dict[str, Tensor], width: int, device: torch.device) -> dict[str, Tensor]:
    """The target on its device, with T = ``width`` tokens."""
    padded = {}
    for name, tensor in target.items():
        if name in TOKEN_MAPS:
            tensor = torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]))
        padded[name] = tensor.to(device)
    return padded
