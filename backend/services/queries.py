"""What a person types into what a model is asked."""

from collections.abc import Iterable, Iterator

from backend.domain.records import Label, Query
from backend.errors import UsageError


def parse_labels(text: str, overrides: Iterable[str] = ()) -> tuple[Label, ...]:
    """Read ``cat,dog``, where a label may bring the words it is asked with: ``RBC=red blood cell|erythrocyte``.

    Args:
        text: labels separated by commas.
        overrides: further ``label=prompt|prompt`` lines, which replace the words of labels in ``text``; empty lines
            are passed over.

    Raises:
        UsageError: there is no label, one is empty or comes twice, or an override is malformed or names another.
    """
    if not text.strip():
        raise UsageError('no labels: name at least one, as in --labels "cat,dog"')
    labels: dict[str, Label] = {}
    for entry in text.split(","):
        label = _label(entry)
        if label.name in labels:
            raise UsageError(f"label {label.name!r} comes twice: name each label once")
        labels[label.name] = label
    for line in overrides:
        if not line.strip():
            continue
        label = _label(line)
        if label.name not in labels:
            raise UsageError(f"prompts for {label.name!r}, which is not one of the labels {', '.join(labels)}")
        if not label.prompts:
            raise UsageError(f"{line.strip()!r} gives no prompts: write label=prompt or label=prompt|prompt")
        labels[label.name] = label
    return tuple(labels.values())


def answered_labels(query: Query) -> tuple[str, ...]:
    """Return the labels that answers to the query can have, each once, in the query's order."""
    names = (label.name for label in query) if isinstance(query, tuple) else (span.label for span in query.spans)
    return tuple(dict.fromkeys(names))


def _label(entry: str) -> Label:
    name, equals, words = (part.strip() for part in entry.partition("="))
    prompts = tuple(_prompts(words, entry)) if equals else ()
    if not name:
        raise UsageError(f"an empty label in {entry.strip()!r}: name it, or leave out the comma")
    return Label(name, prompts)


def _prompts(words: str, entry: str) -> Iterator[str]:
    for prompt in words.split("|"):
        if not prompt.strip():
            raise UsageError(f"an empty prompt in {entry.strip()!r}: write label=prompt or label=prompt|prompt")
        yield prompt.strip()
