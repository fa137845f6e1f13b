"""What is typed becomes what is asked."""

import pytest

from backend.domain.records import Label, Sentence, Span
from backend.errors import UsageError
from backend.services.queries import answered_labels, parse_labels


def test_labels_are_separated_by_commas_and_trimmed() -> None:
    assert parse_labels(" cat, red car ") == (Label("cat"), Label("red car"))


def test_a_label_may_bring_several_prompts() -> None:
    (label,) = parse_labels("RBC = red blood cell | erythrocyte")
    assert label == Label("RBC", ("red blood cell", "erythrocyte"))


def test_lines_replace_the_prompts_of_labels() -> None:
    lines = ["WBC=white cell", "", "RBC=red cell|some [red] cell"]
    assert parse_labels("RBC=x,WBC", lines) == (
        Label("RBC", ("red cell", "some [red] cell")),
        Label("WBC", ("white cell",)),
    )


@pytest.mark.parametrize(
    ("text", "lines", "complaint"),
    [
        ("  ", [], "no labels"),
        ("cat,", [], "an empty label"),
        ("=cat", [], "an empty label"),
        ("cat,cat", [], "'cat' comes twice"),
        ("cat=a||b", [], "an empty prompt"),
        ("cat", ["dog=x"], "'dog', which is not one of the labels cat"),
        ("cat", ["cat"], "gives no prompts"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, lines: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        parse_labels(text, lines)


def test_a_sentence_is_answered_with_each_of_its_labels_once() -> None:
    spans = (Span(0, 3, "dog"), Span(4, 7, "cat"), Span(8, 11, "dog"))
    assert answered_labels(Sentence("dog cat dog", spans)) == ("dog", "cat")
