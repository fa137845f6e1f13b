"""The model that learns: which of its parts move, how its losses come about, and what is kept of frozen parts.

Shape letters: B views, S side of a square view, A anchors, C channels, T tokens, D text width.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.adapters import Adapter, PromptOffsets, weights_sha256
from glip_model.caption import Caption
from glip_model.configuration_glip import GlipConfig
from glip_model.finetuning.batches import padded_target, target_of
from glip_model.finetuning.examples import View
from glip_model.loading import quiet
from glip_model.modeling_glip import FusedStates, GlipForDetection, ImageStates, TextStates
from glip_model.processing_glip import GlipProcessor
from glip_model.training.machine import has_bf16_units, pixel_values
from glip_model.training.samples import Sample

KEPT_BYTES = 1 << 30

States = TypeVar("States", bound=ImageStates | FusedStates)


@dataclass(frozen=True)
class Asked:
    """One view with the caption that it is asked with.

    Attributes:
        key: names it.
        caption: its text.
        weight: how much the picture counts.
        drawn: the view, drawn by another thread; None where the student keeps what it made of it.
        unasked: labels about which the picture teaches nothing.
    """

    key: View
    caption: Caption
    weight: float
    drawn: Future[Sample] | None
    unasked: tuple[int, ...] = ()

    def sample(self) -> Sample:
        """The view.

        Raises:
            ValueError: it was not to be drawn.
        """
        if self.drawn is None:
            raise ValueError(f"{self.key} was not drawn")
        return self.drawn.result()


class Student(ABC):
    """A base model of which some parts learn.

    Args:
        model: the base, on its device.
        processor: of the same folder.
    """

    def __init__(self, model: GlipForDetection, processor: GlipProcessor) -> None:
        self.model, self.processor = model, processor
        self.device = model.device
        model.requires_grad_(False)
        model.eval()  # type: ignore[no-untyped-call]

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """What learns; its state dict is what checkpoints hold."""

    @abstractmethod
    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        """The weighted losses of a batch."""

    @abstractmethod
    def save(self, folder: Path, base: Path) -> None:
        """Write the result; the file that makes it whole comes last."""

    def keeps(self, key: View, caption: Caption) -> bool:
        """Whether this view need not be drawn again."""
        return False

    def precision(self) -> AbstractContextManager[object]:
        """Mixed precision in bf16 where the hardware has it; losses are in float32 always."""
        kind = self.device.type
        able = torch.cuda.is_bf16_supported() if kind == "cuda" else kind == "cpu" and has_bf16_units()
        return torch.autocast(kind, torch.bfloat16, enabled=able)

    def pixels(self, samples: Sequence[Sample]) -> Tensor:
        """``(B, 3, S, S)``."""
        rgb = torch.stack([torch.from_numpy(sample.rgb) for sample in samples]).to(self.device)
        return pixel_values(rgb, self.processor.image_processor.settings)

    def encoded(self, captions: Sequence[Caption]) -> TextStates:
        """Captions behind the text encoder: ``(B, T, D)``, or ``(1, T, D)`` where all are the same."""
        distinct = captions[:1] if len(set(captions)) == 1 else captions
        longest = max(len(caption.input_ids) for caption in distinct)
        ids = torch.zeros(len(distinct), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, caption in enumerate(distinct):
            ids[row, : len(caption.input_ids)] = torch.tensor(caption.input_ids)
            mask[row, : len(caption.input_ids)] = 1
        return self.model.encode_text(ids.to(self.device), mask.to(self.device))

    def targets(self, batch: Sequence[Asked], samples: Sequence[Sample]) -> list[dict[str, Tensor]]:
        """What the loss reads of each view, all T tokens wide."""
        border = cast(GlipConfig, self.model.config).border
        pairs = zip(batch, [_bordered(sample, border) for sample in samples], strict=True)
        return self.padded([target_of(sample, asked.caption, asked.weight, asked.unasked) for asked, sample in pairs])

    def padded(self, targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Targets on the device, all as wide as the longest caption."""
        longest = max(target["positive_map"].shape[1] for target in targets)
        return [padded_target(target, longest, self.device) for target in targets]


def _bordered(sample: Sample, border: float) -> Sample:
    """The sample with boxes as the model has them: with a border of 1 they end on an original picture's last pixel."""
    low, high = np.split(sample.boxes_xyxy, 2, axis=1)
    high = np.maximum(high - np.float32(border * sample.pixel), low)
    return replace(sample, boxes_xyxy=np.concatenate([low, high], axis=1))


class FullStudent(Student):
    """All parts learn but the frozen ones, which stay in evaluation mode.

    Args:
        model, processor: as of `Student`.
        frozen: prefixes of parameter names.

    Raises:
        ValueError: a prefix fits no parameter, or they fit all.
    """

    def __init__(self, model: GlipForDetection, processor: GlipProcessor, frozen: Sequence[str]) -> None:
        super().__init__(model, processor)
        names = [name for name, _ in model.named_parameters()]
        for prefix in frozen:
            if not any(name.startswith(prefix) for name in names):
                raise ValueError(f"nothing to freeze is called {prefix!r}: parameters are called like {names[0]!r}")
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not name.startswith(tuple(frozen))
        for name, module in model.named_modules():
            if name.startswith(tuple(frozen)):
                module.eval()
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError("all parts are frozen: nothing would learn")
        nn.Module.to(model, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def trained(self) -> nn.Module:
        return self.model

    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        samples = [asked.sample() for asked in batch]
        with self.precision():
            text = self.encoded([asked.caption for asked in batch])
            fused = self.model.fuse(self.model.encode_image(self.pixels(samples)), text)
            return self.model.align(fused, self.targets(batch, samples)).losses or {}

    def save(self, folder: Path, base: Path) -> None:
        aside = folder / "model.part"
        aside.mkdir(exist_ok=True)
        with quiet():
            self.model.half().save_pretrained(aside)  # type: ignore[no-untyped-call]
        self.processor.save_pretrained(aside)
        for file in sorted(aside.iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(folder / file.name)
        aside.rmdir()


class KeepingStudent(Student, Generic[States]):
    """What frozen parts make of a view is kept while there is room, and made anew each time where there is none.

    What came first stays: views come again in rounds, so that the one seen last is wanted last.

    Args:
        model, processor: as of `Student`.
        room: bytes that may be kept.
    """

    def __init__(self, model: GlipForDetection, processor: GlipProcessor, room: int = KEPT_BYTES) -> None:
        super().__init__(model, processor)
        self.room = room
        self._kept: dict[Hashable, tuple[States, Sample]] = {}
        self._kept_bytes = 0

    @abstractmethod
    def name(self, key: View, caption: Caption) -> Hashable:
        """Tell apart what frozen parts make of views and captions."""

    @abstractmethod
    def look(self, batch: Sequence[Asked], samples: Sequence[Sample]) -> list[States]:
        """What frozen parts make of each view, in memory of its own."""

    def keeps(self, key: View, caption: Caption) -> bool:
        return self.name(key, caption) in self._kept

    def view_bytes(self, side: int) -> int:
        """Memory that the cells of one kept view take."""
        cells = sum((side // stride) ** 2 for stride in (8, 16, 32, 64, 128))
        return cells * int(self.model.config.hidden_size) * (2 if has_bf16_units() else 4)

    def seen(self, batch: Sequence[Asked]) -> tuple[list[States], list[Sample]]:
        """What frozen parts make of a batch, and its views without their pixels."""
        names = [self.name(asked.key, asked.caption) for asked in batch]
        found = {name: self._kept[name] for name in names if name in self._kept}
        missing = {name: asked for name, asked in zip(names, batch, strict=True) if name not in found}
        if missing:
            samples = [asked.sample() for asked in missing.values()]
            with torch.no_grad(), self.precision():
                made = self.look(list(missing.values()), samples)
            for name, states, sample in zip(missing, made, samples, strict=True):
                found[name] = states, replace(sample, rgb=sample.rgb[:0].copy())  # a view would hold all pixels
                self._keep(name, *found[name])
        return [found[name][0] for name in names], [found[name][1] for name in names]

    def _keep(self, name: Hashable, states: States, sample: Sample) -> None:
        size = sum(part.nbytes for part in vars(states).values() if isinstance(part, Tensor))
        size += sample.boxes_xyxy.nbytes + sample.unreviewed_xyxy.nbytes
        if self._kept_bytes + size <= self.room:
            self._kept[name] = states, sample
            self._kept_bytes += size


class PromptStudent(KeepingStudent[ImageStates]):
    """Offsets of the prompts learn. Images behind the pyramid are kept.

    Args:
        model, processor, room: as of `KeepingStudent`.
        captions: all that will be asked.
    """

    def __init__(
        self,
        model: GlipForDetection,
        processor: GlipProcessor,
        captions: Sequence[Caption],
        room: int = KEPT_BYTES,
    ) -> None:
        super().__init__(model, processor, room)
        width = model.config.get_text_config().hidden_size
        self._offsets = PromptOffsets.of_captions(captions, width).to(self.device)

    @property
    def trained(self) -> nn.Module:
        return self._offsets

    def name(self, key: View, caption: Caption) -> Hashable:
        return key

    def look(self, batch: Sequence[Asked], samples: Sequence[Sample]) -> list[ImageStates]:
        states = self.model.encode_image(self.pixels(samples))
        return [ImageStates(cells.clone(), states.level_sizes) for cells in states.cells.split(1)]

    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        kept, samples = self.seen(batch)
        images = ImageStates(torch.cat([states.cells for states in kept]), kept[0].level_sizes)
        captions = [asked.caption for asked in batch]
        with self.precision():
            with torch.no_grad():
                text = self.encoded(captions)
            fused = self.model.fuse(images, self._offsets(text, captions[: len(text.hidden)]))
            return self.model.align(fused, self.targets(batch, samples)).losses or {}

    def save(self, folder: Path, base: Path) -> None:
        Adapter(base.name, weights_sha256(base), offsets=self._offsets).save(folder)


class HeadStudent(KeepingStudent[FusedStates]):
    """The head learns (linear probing). All that it reads is kept."""

    def __init__(self, model: GlipForDetection, processor: GlipProcessor, room: int = KEPT_BYTES) -> None:
        super().__init__(model, processor, room)
        model.head.requires_grad_(True)

    @property
    def trained(self) -> nn.Module:
        return self.model.head

    def name(self, key: View, caption: Caption) -> Hashable:
        return key, caption

    def look(self, batch: Sequence[Asked], samples: Sequence[Sample]) -> list[FusedStates]:
        text = self.encoded([asked.caption for asked in batch])
        fused = self.model.fuse(self.model.encode_image(self.pixels(samples)), text)
        kind = torch.bfloat16 if has_bf16_units() else fused.cells.dtype
        made = []
        for row, asked in enumerate(batch):
            length = len(asked.caption.input_ids)
            states = FusedStates(
                fused.cells[row : row + 1].to(kind, copy=True),
                fused.text[row : row + 1, :length].clone(),
                fused.attention_mask[row : row + 1, :length].clone(),
                fused.level_sizes,
            )
            made.append(states)
        return made

    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        kept, samples = self.seen(batch)
        longest = max(states.text.shape[1] for states in kept)
        text = torch.cat([F.pad(states.text, (0, 0, 0, longest - states.text.shape[1])) for states in kept])
        masks = [F.pad(states.attention_mask, (0, longest - states.attention_mask.shape[1])) for states in kept]
        cells = torch.cat([states.cells for states in kept])
        fused = FusedStates(cells, text, torch.cat(masks), kept[0].level_sizes)
        with self.precision():
            return self.model.align(fused, self.targets(batch, samples)).losses or {}

    def save(self, folder: Path, base: Path) -> None:
        Adapter(base.name, weights_sha256(base), head=self.model.head).save(folder)
