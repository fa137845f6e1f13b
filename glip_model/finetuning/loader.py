"""Batches of views, drawn by another thread while the last one is learnt from."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from glip_model.finetuning.batches import Asking, Plan
from glip_model.finetuning.examples import Pictures, TrainingExample
from glip_model.finetuning.settings import FinetuneSettings
from glip_model.finetuning.student import Asked, KeepingStudent, Student

_SIDES = (0.6, 0.75, 0.9)  # of views, relative to the shorter side that inference shows
# Views grow: most of what there is to learn shows in small ones, which cost a third; what a box needs to be exact and a
# picture to be looked over, in large ones (progressive learning: Tan and Le, "EfficientNetV2", 2021, section 4).
_EARLY_SIDES = (0.4, 0.475, 0.6)
_EARLY_SHARE = (
    0.6  # of a run's steps, or of its time where that ends it: else a slow machine would see small ones alone
)
_LEAST_SIDE = 160  # P7 has more than one cell; oneDNN computes wrong bf16 gradients for a strided convolution of one
_MOST_VIEWS = 4  # of a picture, for each side


class Loader:
    """Batches, whose pictures another thread draws one step ahead."""

    def __init__(
        self,
        student: Student,
        asking: Asking,
        examples: Sequence[TrainingExample],
        settings: FinetuneSettings,
        pool: ThreadPoolExecutor,
    ) -> None:
        pixels = student.processor.image_processor.settings
        early, sides = (
            tuple(max(_LEAST_SIDE, round(pixels.shortest_edge * share / 32) * 32) for share in shares)
            for shares in (_EARLY_SIDES, _SIDES)
        )
        early_steps, views = round(_EARLY_SHARE * settings.steps), None
        if isinstance(student, KeepingStudent):  # what is kept of a view costs nothing when it comes again
            early_steps = 0
            room = student.room // (len(examples) * sum(map(student.view_bytes, sides)))
            views = max(1, min(_MOST_VIEWS, room))  # without room for one of each, some are made anew
        empty = tuple(len(example.boxes_xyxy) == 0 for example in examples)
        captions = max(1, len(asking.captions))
        self._plan = Plan(empty, settings.batch_size, sides, views, settings.seed, early, early_steps, captions)
        self._pictures = Pictures(examples, pixels, settings.handling, settings.seed)
        self._student, self._asking, self._examples, self._pool = student, asking, examples, pool
        self._next: tuple[int, list[Asked]] | None = None

    def batch(self, step: int, time_spent: float = 0.0) -> list[Asked]:
        """What a step sees; the next one is being drawn when this returns.

        Args:
            step: from 0.
            time_spent: share of the run's time.
        """
        late = time_spent >= _EARLY_SHARE
        ready = self._next[1] if self._next and self._next[0] == step else self._ask(step, late)
        self._next = step + 1, self._ask(step + 1, late)
        return ready

    def epoch(self, step: int) -> float:
        """Rounds through the data when a step begins."""
        return step * self._plan.batch_size / self._plan.round_size

    def _ask(self, step: int, late: bool) -> list[Asked]:
        batch = []
        for key in self._plan.step(step, late=late):
            caption = self._asking.caption(key, step)
            drawn = None if self._student.keeps(key, caption) else self._pool.submit(self._pictures.view, key)
            example = self._examples[key.example]
            batch.append(Asked(key, caption, example.weight, drawn, example.unasked))
        return batch
