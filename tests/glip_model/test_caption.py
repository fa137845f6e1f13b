from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glip_model.caption import (
    caption_from_names,
    caption_from_sentence,
    clean_name,
    plan_captions,
    positive_map,
    tokens_of_spans,
)
from glip_model.sentence import CaptionError, GroundedSentence, parse_sentence
from tests.glip_model.text import golden_tokenizer, small_tokenizer
from tests.golden.cases import read_json

PROMPTS = read_json("extras")["prompts"]


def spans_of(names: Sequence[str], text: str) -> list[tuple[int, int]]:
    spans = []
    start = 0
    for name in names:
        start = text.index(name, start)
        spans.append((start, start + len(name)))
        start += len(name)
    return spans


@pytest.mark.parametrize("golden", PROMPTS)
def test_names_become_the_official_caption_and_tokens(golden: dict[str, Any]) -> None:
    names = [clean_name(name) for name in golden["names"]]
    text = ". ".join(names)
    input_ids, label_tokens = tokens_of_spans(golden_tokenizer(), text, spans_of(names, text))
    assert text == golden["caption"]
    assert list(input_ids) == golden["input_ids"]
    assert {str(i): list(tokens) for i, tokens in enumerate(label_tokens, 1)} == golden["positive_map"]


@pytest.mark.parametrize("case", ["tiny_p3", "tiny_p12"])
def test_a_planned_caption_has_the_official_ids_and_positions(case: str) -> None:
    golden = read_json(case)
    caption = caption_from_names(golden_tokenizer(), golden["class_names"])
    used = sum(golden["attention_mask"])
    assert caption.text == golden["caption"]
    assert list(caption.input_ids) == golden["input_ids"][:used]
    expected = golden["positive_map_label_to_token"]
    assert [list(tokens) for tokens in caption.label_tokens] == [expected[str(i + 1)] for i in caption.owners]


def test_chunks_keep_the_labels_of_the_official_chunked_evaluation() -> None:
    golden = read_json("tiny_p12_chunk5")
    names = read_json("tiny_p12")["class_names"]
    captions = plan_captions(golden_tokenizer(), [[name] for name in names], max_prompts=5)
    assert [caption.text for caption in captions] == golden["captions"]
    maps = [
        {str(owner + 1): list(tokens) for owner, tokens in zip(c.owners, c.label_tokens, strict=True)} for c in captions
    ]
    assert maps == golden["maps"]


NAMES = st.lists(
    st.sampled_from(["traffic light", "Hair Drier", "bear_(toy)", "CAFÉ", "teddy-bear", "x", "bär (zoo)"]), min_size=1
)


@given(NAMES)
def test_spans_own_the_tokens_that_the_official_search_finds(names: list[str]) -> None:
    cleaned = [clean_name(name) for name in names]
    text = ". ".join(cleaned)
    encoding = golden_tokenizer()(text)
    expected = []
    for start, end in spans_of(cleaned, text):
        first = next(t for t in map(encoding.char_to_token, range(start, start + 3)) if t is not None)
        last = next(t for t in map(encoding.char_to_token, range(end - 1, end - 4, -1)) if t is not None)
        expected.append(tuple(range(first, last + 1)))
    assert tokens_of_spans(golden_tokenizer(), text, spans_of(cleaned, text))[1] == expected


def test_too_many_names_go_into_several_captions_in_order() -> None:
    tokenizer = small_tokenizer(" ".join(f"n{i}" for i in range(40)))
    captions = plan_captions(tokenizer, [[f"n{i}"] for i in range(40)], max_tokens=21)
    assert [len(caption.input_ids) for caption in captions] == [21, 21, 21, 21]
    assert [owner for caption in captions for owner in caption.owners] == list(range(40))
    assert all(len(tokens) == 1 for caption in captions for tokens in caption.label_tokens)


def test_several_prompts_of_a_label_share_its_index() -> None:
    (caption,) = plan_captions(small_tokenizer("cat dog puppy"), [["cat"], ["dog", "puppy", "Dog"]])
    assert caption.prompts == ("cat", "dog", "puppy")
    assert caption.owners == (0, 1, 1)


def test_brackets_in_a_prompt_leave_the_rest_as_context() -> None:
    (caption,) = plan_captions(small_tokenizer("some fish in water"), [["some [fish] in water"], ["water"]])
    assert caption.text == "some fish in water. water"
    assert caption.label_tokens == ((2,), (6,))
    assert [caption.text[start:end] for start, end in caption.spans] == ["fish", "water"]


def test_the_same_words_with_other_parts_scored_are_different_prompts() -> None:
    (caption,) = plan_captions(small_tokenizer("red car"), [["[red] car"], ["red [car]"], ["red car"]])
    assert caption.label_tokens == ((1,), (5,), (7, 8))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no names"),
        ([["cat"], []], "label 2 has no prompt"),
        ([["cat"], ["  "]], "label 2 has an empty name"),
        (["cat", "dog"], "the prompts of label 1 are 'cat': give a list of them"),
        ([["cat"], [4]], "the name of label 2 is 4: give it as text"),
        ([["cat"], ["(all)"]], r"'\(all\)' has no token"),
        ([["cat"], ["\x00\x01"]], "has no token"),
        ([["cat"], ["caf\udce9"]], r"'caf\\udce9' holds what is no character"),
        ([["cat"], ["zebra"]], "'zebra' has no token in the model's vocabulary"),
        ([["cat"], ["dog"], ["Cat_(pet)"]], r"'cat' and 'Cat_\(pet\)' are the same tokens"),
        ([["dog " * 20]], "has 20 tokens, a caption holds 14"),
    ],
)
def test_names_that_cannot_be_asked_are_refused_by_name(prompts: Any, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        plan_captions(small_tokenizer("cat dog"), prompts, max_tokens=16)


def test_one_caption_for_too_many_names_is_refused() -> None:
    with pytest.raises(CaptionError, match="3 names do not fit"):
        caption_from_names(small_tokenizer("a b c"), ["a", "b", "c"], max_tokens=5)


def test_phrases_of_a_sentence_own_their_tokens() -> None:
    sentence = parse_sentence("a [red car] behind [two dogs]")
    caption = caption_from_sentence(small_tokenizer("a red car behind two dogs"), sentence, owners=[1, 0])
    assert caption.text == "a red car behind two dogs"
    assert caption.label_tokens == ((2, 3), (5, 6))
    assert caption.prompts == ("red car", "two dogs")
    assert caption.owners == (1, 0)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        (GroundedSentence("a car", ()), "no phrase"),
        (GroundedSentence("a car", ((2, 9),)), "outside the sentence"),
        (GroundedSentence("a car", ((3, 3),)), "outside the sentence"),
        (GroundedSentence("a  car", ((1, 3),)), "has no token"),
        (GroundedSentence("a zebra", ((2, 7),)), "has no token"),
        (GroundedSentence("a " * 20, ((0, 1),)), "has 20 tokens"),
        (GroundedSentence("a car \ud83d", ((2, 5),)), "holds what is no character"),
    ],
)
def test_sentences_that_cannot_be_asked_are_refused(sentence: GroundedSentence, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        caption_from_sentence(small_tokenizer("a car"), sentence, max_tokens=16)


@pytest.mark.parametrize(
    ("marked", "text", "phrases"),
    [
        ("a [red car] behind [two dogs]", "a red car behind two dogs", ("red car", "two dogs")),
        ("cat, big dog ,bus", "cat, big dog ,bus", ("cat", "big dog", "bus")),
        ("cat. dog. ", "cat. dog. ", ("cat", "dog")),
        ("screw no. 4", "screw no. 4", ("screw no", "4")),
        ("a 2.5 litre bottle", "a 2.5 litre bottle", ("a 2.5 litre bottle",)),
        ("all the red things", "all the red things", ("all the red things",)),
    ],
)
def test_a_sentence_is_read_into_its_phrases(marked: str, text: str, phrases: tuple[str, ...]) -> None:
    sentence = parse_sentence(marked)
    assert sentence.text == text
    assert sentence.phrases == phrases


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("a [red car", r"'\[' without its '\]'"),
        ("a red] car", r"'\]' without its '\['"),
        ("a [red [car]]", "brackets inside brackets"),
        ("a [ ] car", "empty brackets"),
        ("", "empty"),
        (" ,. ", "empty"),
    ],
)
def test_a_badly_marked_sentence_is_refused(marked: str, message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        parse_sentence(marked)


def test_the_positive_map_is_one_on_every_token_of_every_prompt_of_a_box() -> None:
    wanted = positive_map([(1,), (3, 4)], [[1], [0], [0, 1]], num_tokens=6)
    assert wanted.dtype == np.float32
    assert wanted.tolist() == [[0, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0]]
    assert positive_map([(1,)], [], num_tokens=4).shape == (0, 4)


def test_a_positive_map_narrower_than_its_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond the 4"):
        positive_map([(3, 4)], [[0]], num_tokens=4)
