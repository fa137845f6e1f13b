"""What fine-tuning adds to a base that stays as it is: offsets of prompts, or another head.

Shape letters: B captions, T tokens of the longest, K sub-tokens of all prompts together, D text width.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from glip_model.caption import Caption
from glip_model.modeling_glip import AlignmentHead, TextStates

_FORMAT = 1
_NUMBERS, _FACTS = "adapter.safetensors", "adapter.json"


class AdapterError(ValueError):
    """A folder whose adapter cannot be used; the message says why."""


class PromptOffsets(nn.Module):
    """Language prompt tuning (GLIP, section 4.3): a summand for each sub-token of each prompt, behind the text encoder.

    The official code gives each *position* of the caption its summand, so that a name put in between hands all later
    names' summands on to their neighbours. Here a summand belongs to its prompt wherever that stands.

    Args:
        counts: sub-tokens of each prompt.
        width: D.
    """

    def __init__(self, counts: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.counts = dict(counts)
        self.table = nn.Parameter(torch.zeros(sum(counts.values()), width))  # (K, D)

    @classmethod
    def of_captions(cls, captions: Sequence[Caption], width: int) -> "PromptOffsets":
        """Offsets, all zero, for every prompt of some captions."""
        counts: dict[str, int] = {}
        for caption in captions:
            counts.update((words, len(at)) for words, at in zip(caption.prompts, caption.label_tokens, strict=True))
        return cls(counts, width)

    def forward(self, states: TextStates, captions: Sequence[Caption]) -> TextStates:
        """Add to ``hidden (B, T, D)`` of B captions what their prompts learnt; a prompt unknown here stays as it is."""
        width = states.hidden.shape[1]
        rows = torch.tensor([self._rows(caption, width) for caption in captions], device=self.table.device)  # (B, T)
        summands = F.embedding(rows, F.pad(self.table, (0, 0, 0, 1)))  # (B, T, D)
        return TextStates(states.hidden + summands, states.attention_mask)

    def _rows(self, caption: Caption, width: int) -> list[int]:
        """Row of the table for each token; K, which is none, for those outside prompts."""
        rows = [len(self.table)] * width
        start = 0
        starts = {}
        for words, count in self.counts.items():
            starts[words] = start
            start += count
        for words, tokens in zip(caption.prompts, caption.label_tokens, strict=True):
            if self.counts.get(words) == len(tokens):
                for number, token in enumerate(tokens):
                    rows[token] = starts[words] + number
        return rows


@dataclass(frozen=True)
class Adapter:
    """One version made by fine-tuning without touching the base.

    Attributes:
        base: name of the base's folder.
        base_sha256: of its weights; on any other base the adapter means nothing.
        offsets: of mode "prompt".
        head: of mode "head".
    """

    base: str
    base_sha256: str
    offsets: PromptOffsets | None = None
    head: AlignmentHead | None = None

    def adapted(self, states: TextStates, caption: Caption) -> TextStates:
        """The states of one caption with what its prompts learnt."""
        return states if self.offsets is None else self.offsets(states, [caption])

    def save(self, folder: Path) -> None:
        """Write ``adapter.safetensors``, then ``adapter.json``; both appear whole or not at all."""
        parts = {"offsets": self.offsets, "head": self.head}
        numbers = {
            f"{part}.{name}": tensor.detach().cpu().contiguous()
            for part, module in parts.items()
            if module is not None
            for name, tensor in module.state_dict().items()
        }
        facts = {
            "format": _FORMAT,
            "base": self.base,
            "base_sha256": self.base_sha256,
            "prompts": {} if self.offsets is None else self.offsets.counts,
        }
        aside = folder / f"{_NUMBERS}.part"
        save_file(numbers, aside)
        aside.replace(folder / _NUMBERS)
        aside = folder / f"{_FACTS}.part"
        aside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        aside.replace(folder / _FACTS)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a whole adapter."""
    return (folder / _FACTS).is_file()


def load_adapter(folder: Path, base: Path, device: torch.device) -> Adapter:
    """Load an adapter onto a device, to be used with the model in ``base``.

    Raises:
        AdapterError: it is missing or damaged, or was made on other weights.
    """
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise AdapterError(f"{folder}: an adapter of a newer version: update glip-label")
        made_on, sha256_of_base = str(facts["base"]), str(facts["base_sha256"])
        numbers = load_file(folder / _NUMBERS, device=str(device))
        offsets = _offsets(facts["prompts"], _part(numbers, "offsets"))
        head = _head(_part(numbers, "head"))
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, AdapterError):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise AdapterError(f"{folder}: the adapter cannot be loaded ({reason}): train it again") from error
    if offsets is None and head is None:
        raise AdapterError(f"{folder}: the adapter is empty: train it again")
    if not all(tensor.isfinite().all() for tensor in numbers.values()):
        raise AdapterError(f"{folder}: the adapter holds numbers that are not finite: train it again")
    if sha256_of_base != weights_sha256(base):
        raise AdapterError(f"{folder}: made on {made_on}, whose weights are not those in {base}: give that model")
    return Adapter(made_on, sha256_of_base, offsets, head)


def weights_sha256(folder: Path) -> str:
    """Digest of a model folder's weights; read once for each state of the files.

    Raises:
        OSError: they cannot be read.
    """
    files = sorted(folder.glob("model*.safetensors"))
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=8)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digests = []
    for path, _, _ in files:
        with path.open("rb") as file:
            digests.append(file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest()


def _part(numbers: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): v for name, v in numbers.items() if name.startswith(f"{part}.")}


def _offsets(counts: Mapping[str, int], numbers: dict[str, Tensor]) -> PromptOffsets | None:
    if not numbers:
        return None
    offsets = PromptOffsets(counts, numbers["table"].shape[1])
    _fill(offsets, numbers)
    return offsets


def _head(numbers: dict[str, Tensor]) -> AlignmentHead | None:
    if not numbers:
        return None
    channels, text_width = numbers["text_projection.weight"].shape
    head = AlignmentHead(channels, text_width, len(numbers["level_scales"]), 0.01)
    _fill(head, numbers)
    return head


def _fill(module: nn.Module, numbers: dict[str, Tensor]) -> None:
    """Take these tensors for the module's own, for use only."""
    module.load_state_dict(numbers, assign=True)
    module.requires_grad_(False)
