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
_LETTERS = string.ascii_lowercase + string.digits
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
    "platelet microscope shark penguin puffin jellyfish starfish stingray whale crab turtle insect egg seed rock coin "
    "raspberry arduino nano heltec lora esp32 esp8266 pi sensor cable screw tool pen pencil paper camera bench boot "
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


def _word_pieces(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def train_tokenizer(names: Sequence[str], seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on scene sentences, common English words and the names of the real sets.

    Every letter and digit is a piece, also inside a word, so that no plain English word is unknown.

    Args:
        names: class names that must tokenise well.
        seed: of the generated sentences.
    """
    tokenizer = _word_pieces(Tokenizer(models.WordPiece(unk_token="[UNK]")))  # noqa: S106
    # Pieces inside words are numbered here: the trainer would number them in the order of a hash table, which differs
    # from run to run and decides ties between merges.
    inner = [f"##{letter}" for letter in _LETTERS]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[*SPECIAL_TOKENS, *inner],
        initial_alphabet=list(_LETTERS + string.punctuation),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(names, seed), trainer)
    vocabulary = tokenizer.get_vocab()
    tokenizer = _word_pieces(Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")))  # noqa: S106
    first, last = (vocabulary[token] for token in ("[CLS]", "[SEP]"))
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
