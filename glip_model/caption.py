"""From names or a sentence to the captions the text encoder reads, and back from token positions to labels.

Shape letters: T tokens of one caption, ``[CLS]`` at position 0 and ``[SEP]`` at T - 1; N boxes.

A *prompt* is the words one label is asked with. A label may have several; the best-scoring one wins, so
every caption says which label *owns* each of its prompts. Brackets in a prompt mark the words that are
scored and leave the rest as context: ``some [fish] in the water``.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glip_model.sentence import CaptionError, GroundedSentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEPARATOR = ". "
MAX_TOKENS = 256
_BROKEN = re.compile("[\ud800-\udfff]")
_MARKED_PROMPT = re.compile(r"([^\[\]]*)\[([^\[\]]+)\]([^\[\]]*)")


@dataclass(frozen=True, slots=True)
class Caption:
    """One text for the encoder, and which of its tokens belong to which prompt.

    Attributes:
        text: the caption as it is tokenised.
        input_ids: T token ids, with ``[CLS]`` and ``[SEP]``, without padding.
        spans: character range of each prompt in ``text``, end exclusive.
        label_tokens: token positions of each prompt, at least one each.
        prompts: the words of each prompt.
        owners: index of the label that each prompt asks for.
    """

    text: str
    input_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    label_tokens: tuple[tuple[int, ...], ...]
    prompts: tuple[str, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt before it is put into a caption: its text, the part that is scored, both as token ids."""

    words: str
    owner: int
    text: str
    span: tuple[int, int]
    text_ids: tuple[int, ...]
    scored_ids: tuple[int, ...]

    @property
    def identity(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Equal for prompts that the model cannot tell apart (but not for "[red] car" and "red [car]")."""
        return self.text_ids, self.scored_ids


def clean_name(name: str) -> str:
    """Turn a data set's class name into words: no parenthesised part, no underscores, no double spaces.

    A blank may remain at the end (``bear_(toy)`` becomes ``"bear "``): it owns no token, and the official
    captions keep it.
    """
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ")


def tokens_of_spans(
    tokenizer: "PreTrainedTokenizerBase", text: str, spans: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Find the tokens that each character range covers, wholly or in part.

    Args:
        tokenizer: a fast tokenizer, one that knows its offsets.
        text: the whole caption.
        spans: character ranges, end exclusive.

    Returns:
        The caption's token ids with ``[CLS]`` and ``[SEP]``, never cut, and per range its token positions,
        which may be none.
    """
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
    offsets = encoding["offset_mapping"]
    # Special tokens have an empty range, so they touch no span.
    tokens = [
        tuple(i for i, (first, last) in enumerate(offsets) if first < last and first < end and last > start)
        for start, end in spans
    ]
    return tuple(encoding["input_ids"]), tokens


def plan_captions(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[str]],
    *,
    max_tokens: int = MAX_TOKENS,
    max_prompts: int | None = None,
) -> tuple[Caption, ...]:
    """Put the prompts of all labels into as few captions as hold them, in order.

    Args:
        tokenizer: the model's fast tokenizer.
        prompts: for each label the words it is asked with, at least one: ``[["cat"], ["dog", "puppy"]]``.
        max_tokens: longest caption, ``[CLS]`` and ``[SEP]`` included.
        max_prompts: most prompts in one caption; ``None`` means as many as fit.

    Raises:
        CaptionError: there is no label, a name is empty, no text, has no token the model knows or is too long for a
            caption, or two labels come out as the same tokens.
    """
    distinct = _distinct(_read_prompts(tokenizer, prompts))
    if not distinct:
        raise CaptionError("no names: give at least one label to look for")
    separator = len(_own_ids(tokenizer, SEPARATOR))
    captions = []
    chunk: list[_Prompt] = []
    length = 0
    for prompt in distinct:
        needed = len(prompt.text_ids)
        if needed + 2 > max_tokens:
            raise CaptionError(f"name {_short(prompt.words)} has {needed} tokens, a caption holds {max_tokens - 2}")
        if chunk and (length + separator + needed + 2 > max_tokens or len(chunk) == max_prompts):
            captions.append(_join(tokenizer, chunk))
            chunk, length = [], 0
        length += needed + (separator if chunk else 0)
        chunk.append(prompt)
    captions.append(_join(tokenizer, chunk))
    return tuple(captions)


def caption_from_names(
    tokenizer: "PreTrainedTokenizerBase", names: Sequence[str], *, max_tokens: int = MAX_TOKENS
) -> Caption:
    """Put all names into one caption, as training does; prompt i is name i.

    Raises:
        CaptionError: as `plan_captions`, and when one caption cannot hold them all.
    """
    captions = plan_captions(tokenizer, [[name] for name in names], max_tokens=max_tokens)
    if len(captions) > 1:
        raise CaptionError(f"{len(names)} names do not fit into one caption of {max_tokens} tokens: give fewer")
    return captions[0]


def caption_from_sentence(
    tokenizer: "PreTrainedTokenizerBase",
    sentence: GroundedSentence,
    owners: Sequence[int] | None = None,
    *,
    max_tokens: int = MAX_TOKENS,
) -> Caption:
    """Make a sentence a caption whose prompts are its phrases.

    Args:
        tokenizer: the model's fast tokenizer.
        sentence: the text and the character ranges of its phrases.
        owners: label index of each phrase; phrase i is label i if not given.
        max_tokens: longest caption, ``[CLS]`` and ``[SEP]`` included.

    Raises:
        CaptionError: there is no phrase, one lies outside the sentence or has no token, or the sentence is no text or
            too long.
    """
    if not sentence.spans:
        raise CaptionError(f"no phrase is marked in {_short(sentence.text)}")
    for start, end in sentence.spans:
        if not 0 <= start < end <= len(sentence.text):
            raise CaptionError(f"characters {start} to {end} lie outside the sentence {_short(sentence.text)}")
    _refuse_broken(sentence.text)
    input_ids, label_tokens = tokens_of_spans(tokenizer, sentence.text, sentence.spans)
    if len(input_ids) > max_tokens:
        raise CaptionError(
            f"the sentence {_short(sentence.text)} has {len(input_ids) - 2} tokens, a caption holds {max_tokens - 2}"
        )
    for phrase, tokens in zip(sentence.phrases, label_tokens, strict=True):
        _refuse_unknown(tokenizer, phrase, [input_ids[i] for i in tokens])
    return Caption(
        sentence.text,
        input_ids,
        sentence.spans,
        tuple(label_tokens),
        sentence.phrases,
        tuple(range(len(sentence.spans)) if owners is None else owners),
    )


def positive_map(
    label_tokens: Sequence[Sequence[int]], prompts_of_boxes: Sequence[Sequence[int]], num_tokens: int
) -> NDArray[np.float32]:
    """Say which tokens each box is to be aligned with.

    Args:
        label_tokens: token positions of each prompt, as in `Caption`.
        prompts_of_boxes: for each of the N boxes the prompts that name it; several where phrases share a box.
        num_tokens: T, the width the model is given.

    Returns:
        ``(N, T)``, exactly 0 or 1.

    Raises:
        ValueError: a prompt has a token at or beyond ``num_tokens``.
    """
    wanted = np.zeros((len(prompts_of_boxes), num_tokens), dtype=np.float32)  # (N, T)
    for row, prompts in zip(wanted, prompts_of_boxes, strict=True):
        for prompt in prompts:
            if max(label_tokens[prompt]) >= num_tokens:
                raise ValueError(f"prompt {prompt} has tokens beyond the {num_tokens} the model is given")
            row[list(label_tokens[prompt])] = 1.0
    return wanted


def _read_prompts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Sequence[str]]) -> Iterator[_Prompt]:
    for owner, alternatives in enumerate(prompts):
        if not alternatives:
            raise CaptionError(f"label {owner + 1} has no prompt: give it words to be asked with")
        if isinstance(alternatives, str):  # whose letters would be asked for one by one
            raise CaptionError(f"the prompts of label {owner + 1} are {_short(alternatives)}: give a list of them")
        for words in alternatives:
            if not isinstance(words, str):
                raise CaptionError(f"the name of label {owner + 1} is {words!r}: give it as text")
            if not words.strip():
                raise CaptionError(f"label {owner + 1} has an empty name: give it words")
            _refuse_broken(words)
            marked = _MARKED_PROMPT.fullmatch(words.strip())
            before, name, after = marked.groups() if marked else ("", words.strip(), "")
            name = clean_name(name)
            scored_ids = _own_ids(tokenizer, name)
            _refuse_unknown(tokenizer, words, scored_ids)
            text = before + name + after
            span = (len(before), len(before) + len(name))
            yield _Prompt(words, owner, text, span, _own_ids(tokenizer, text), scored_ids)


def _own_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _refuse_broken(words: str) -> None:
    """Bytes that are no UTF-8 on a command line, and halves of characters in JSON, come as what no text may hold."""
    if _BROKEN.search(words):
        raise CaptionError(f"{_short(words)} holds what is no character: write it anew, in UTF-8")


def _refuse_unknown(tokenizer: "PreTrainedTokenizerBase", words: str, ids: Sequence[int]) -> None:
    if all(token == tokenizer.unk_token_id for token in ids):
        raise CaptionError(
            f"name {_short(words)} has no token in the model's vocabulary: give it a prompt in words the model knows"
        )


def _distinct(prompts: Iterator[_Prompt]) -> list[_Prompt]:
    """Drop what one label asks twice, and refuse what two labels ask."""
    seen: dict[object, _Prompt] = {}
    for prompt in prompts:
        other = seen.setdefault(prompt.identity, prompt)
        if other.owner != prompt.owner:
            raise CaptionError(
                f"names {_short(other.words)} and {_short(prompt.words)} are the same tokens to the model: "
                "give one of them another prompt"
            )
    return list(seen.values())


def _join(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[_Prompt]) -> Caption:
    text = ""
    spans = []
    for prompt in prompts:
        text += SEPARATOR if text else ""
        spans.append((len(text) + prompt.span[0], len(text) + prompt.span[1]))
        text += prompt.text
    input_ids, label_tokens = tokens_of_spans(tokenizer, text, spans)
    return Caption(
        text,
        input_ids,
        tuple(spans),
        tuple(label_tokens),
        tuple(prompt.words for prompt in prompts),
        tuple(prompt.owner for prompt in prompts),
    )


def _short(words: str) -> str:
    return repr(words if len(words) <= 60 else words[:57] + "...")
