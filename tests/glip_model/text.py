"""Tokenizers for tests: the golden data's, of bert-base-uncased's size, and one of a handful of words."""

import gzip
from functools import cache
from pathlib import Path

from transformers import BertTokenizer

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@cache
def golden_tokenizer() -> BertTokenizer:
    """Tokenizer behind all ``input_ids`` in ``tests/golden``."""
    packed = Path(__file__).parents[1] / "golden" / "vocab.txt.gz"
    words = gzip.decompress(packed.read_bytes()).decode().splitlines()
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


def small_tokenizer(words: str) -> BertTokenizer:
    """Tokenizer that knows ``words`` (separated by blanks), full stop and comma; everything else is unknown."""
    vocabulary = (*_SPECIAL, ".", ",", *words.split())
    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)})
