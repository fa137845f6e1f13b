"""The model that learns: which of its parts move, how its losses come about, and what is kept of frozen parts.

Shape letters: B views, S side of a square view, A anchors, C channels, T tokens, D text width.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glip_model.adapters import Adapter, PromptOffsets, weights_sha256
from glip_model.caption import Caption
from glip_model.finetuning.batches import padded_target, target_of
from glip_model.finetuning.examples import View
from glip_model.loading import quiet
from glip_model.modeling_glip import FusedStates, GlipForDetection, ImageStates, TextStates
from glip_model.processing_glip import GlipProcessor
from glip_model.training.machine import has_bf16_units, pixel_values
from glip_model.training.samples import Sample


@dataclass(frozen=True)
class Asked:
    """One view with the caption that it is asked with.

    Attributes:
        key: names it.
        caption: its text.
        weight: how much the picture counts.
        drawn: the view, drawn by another thread; None where the student keeps what it made of it.
    """

    key: View
    caption: Caption
    weight: float
    drawn: Future[Sample] | None

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

    Attributes:
        keeps_views: whether what frozen parts make of a view is kept, so that the same views should come again.
    """

    keeps_views = True

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

    def view_bytes(self, side: int) -> int:
        """Memory that one kept view takes."""
        cells = sum((side // stride) ** 2 for stride in (8, 16, 32, 64, 128))
        return cells * int(self.model.config.hidden_size) * (2 if has_bf16_units() else 4)

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
        pairs = zip(batch, samples, strict=True)
        return self.padded([target_of(sample, asked.caption, asked.weight) for asked, sample in pairs])

    def padded(self, targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Targets on the device, all as wide as the longest caption."""
        longest = max(target["positive_map"].shape[1] for target in targets)
        return [padded_target(target, longest, self.device) for target in targets]


class FullStudent(Student):
    """All parts learn but the frozen ones, which stay in evaluation mode.

    Args:
        model, processor: as of `Student`.
        frozen: prefixes of parameter names.

    Raises:
        ValueError: a prefix fits no parameter, or they fit all.
    """

    keeps_views = False

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


class PromptStudent(Student):
    """Offsets of the prompts learn. Images behind the pyramid are kept, captions behind the text encoder as well.

    Args:
        model, processor: as of `Student`.
        captions: all that will be asked.
    """

    def __init__(self, model: GlipForDetection, processor: GlipProcessor, captions: Sequence[Caption]) -> None:
        super().__init__(model, processor)
        width = model.config.get_text_config().hidden_size
        self._offsets = PromptOffsets.of_captions(captions, width).to(self.device)
        self._seen: dict[View, tuple[ImageStates, Sample]] = {}

    @property
    def trained(self) -> nn.Module:
        return self._offsets

    def keeps(self, key: View, caption: Caption) -> bool:
        return key in self._seen

    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        images, samples = self._images(batch)
        captions = [asked.caption for asked in batch]
        with self.precision():
            with torch.no_grad():
                text = self.encoded(captions)
            fused = self.model.fuse(images, self._offsets(text, captions[: len(text.hidden)]))
            return self.model.align(fused, self.targets(batch, samples)).losses or {}

    def _images(self, batch: Sequence[Asked]) -> tuple[ImageStates, list[Sample]]:
        missing = {asked.key: asked.sample() for asked in batch if asked.key not in self._seen}
        if missing:
            with torch.no_grad(), self.precision():
                states = self.model.encode_image(self.pixels(list(missing.values())))
            for row, (key, sample) in enumerate(missing.items()):
                self._seen[key] = ImageStates(states.cells[row : row + 1].clone(), states.level_sizes), _light(sample)
        kept = [self._seen[asked.key] for asked in batch]
        cells = torch.cat([states.cells for states, _ in kept])
        return ImageStates(cells, kept[0][0].level_sizes), [sample for _, sample in kept]

    def save(self, folder: Path, base: Path) -> None:
        Adapter(base.name, weights_sha256(base), offsets=self._offsets).save(folder)


class HeadStudent(Student):
    """The head learns (linear probing). All that it reads is kept."""

    def __init__(self, model: GlipForDetection, processor: GlipProcessor) -> None:
        super().__init__(model, processor)
        model.head.requires_grad_(True)
        self._seen: dict[tuple[View, Caption], tuple[FusedStates, Sample]] = {}

    @property
    def trained(self) -> nn.Module:
        return self.model.head

    def keeps(self, key: View, caption: Caption) -> bool:
        return (key, caption) in self._seen

    def losses(self, batch: Sequence[Asked]) -> dict[str, Tensor]:
        missing = {(asked.key, asked.caption): asked for asked in batch if (asked.key, asked.caption) not in self._seen}
        if missing:
            self._look_at(list(missing.values()))
        kept = [self._seen[asked.key, asked.caption] for asked in batch]
        longest = max(states.text.shape[1] for states, _ in kept)
        text = torch.cat([F.pad(states.text, (0, 0, 0, longest - states.text.shape[1])) for states, _ in kept])
        masks = [F.pad(states.attention_mask, (0, longest - states.attention_mask.shape[1])) for states, _ in kept]
        cells = torch.cat([states.cells for states, _ in kept])
        fused = FusedStates(cells, text, torch.cat(masks), kept[0][0].level_sizes)
        with self.precision():
            return self.model.align(fused, self.targets(batch, [sample for _, sample in kept])).losses or {}

    @torch.no_grad()
    def _look_at(self, batch: Sequence[Asked]) -> None:
        samples = [asked.sample() for asked in batch]
        with self.precision():
            text = self.encoded([asked.caption for asked in batch])
            fused = self.model.fuse(self.model.encode_image(self.pixels(samples)), text)
        kind = torch.bfloat16 if has_bf16_units() else fused.cells.dtype
        for row, (asked, sample) in enumerate(zip(batch, samples, strict=True)):
            length = len(asked.caption.input_ids)
            states = FusedStates(
                fused.cells[row : row + 1].to(kind, copy=True),
                fused.text[row : row + 1, :length].clone(),
                fused.attention_mask[row : row + 1, :length].clone(),
                fused.level_sizes,
            )
            self._seen[asked.key, asked.caption] = states, _light(sample)

    def save(self, folder: Path, base: Path) -> None:
        Adapter(base.name, weights_sha256(base), head=self.model.head).save(folder)


def _light(sample: Sample) -> Sample:
    """The sample without its pixels."""
    return Sample(
        sample.rgb[:0], sample.boxes_xyxy, sample.names, sample.asked, sample.rejected, sample.unreviewed_xyxy
    )
