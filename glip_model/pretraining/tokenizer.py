"""The bundled model's own WordPiece tokenizer, in the manner of BERT: lower case, [CLS] before and [SEP] behind."""

import string
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from glip_model.pretraining.asking import ask_sentence, random_phrase
from glip_model.pretraining.scenes import random_scene

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = 1200
_SENTENCES = 600
_SMALL_SIDE = 64
_COMMON_WORDS = (
    "person people man woman child car truck bus train bicycle motorcycle airplane boat road sign light bird cat dog "
    "horse sheep cow bear animal fish flower tree plant leaf fruit apple banana orange bread cup glass bottle fork "
    "knife spoon bowl plate table chair bed sofa lamp clock book phone screen keyboard mouse board chip wire button "
    "box bag hat shoe shirt ball kite wheel door window wall house roof street water sky grass stone sand cell blood "
    "bone tooth hand face eye head body tail wing leg part piece group thing object shape colour color light dark "
    "left right top bottom front back behind under over above below near far between inside outside with without "
    "playing card king queen ace jack ten nine eight seven six five four three two one zero first last other same "
    "big small large little tiny long short round flat empty full open closed old new broken clean dirty red green "
    "blue yellow white black brown gray grey pink purple and or of the a an in on at to from by for is are this that"
)


def _corpus(names: Sequence[str], seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        yield from names
    yield from _COMMON_WORDS.split()
    for _ in range(_SENTENCES):
        yield ask_sentence(random_scene(_SMALL_SIDE, rng), rng).caption
        yield random_phrase(rng).text()


def train_tokenizer(names: Sequence[str], seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on scene sentences, common English words and the names of the real sets.

    Every letter and digit is a piece, also inside a word, so that no plain English word is unknown.

    Args:
        names: class names that must tokenise well.
        seed: of the generated sentences.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    letters = string.ascii_lowercase + string.digits
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=list(letters + string.punctuation),
        show_progress=False,
    )
    alphabet = [f"a{letter}" for letter in letters]  # makes every letter a word-inner piece as well
    tokenizer.train_from_iterator([*alphabet, *_corpus(names, seed)], trainer)
    first, last = (SPECIAL_TOKENS.index(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
        model_max_length=256,
    )
