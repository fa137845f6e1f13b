"""What a person asks of the open task."""

import pytest

from backend.domain.geometry import Box
from backend.domain.records import Label, Prediction, Proposal, Query, Region, Sentence, Span
from backend.errors import UsageError
from integrations.label_studio.interactive import read_prompt, text_query
from integrations.label_studio.labels import LabelingConfig, parse_labeling_config
from tests.make import recorded


def config(*labels: str) -> LabelingConfig:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return parse_labeling_config(
        f"""<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image"/>
        <RectangleLabels name="label" toName="image">{tags}</RectangleLabels></View>"""
    )


def query(text: str, *labels: str) -> Query:
    return text_query(text, config(*labels).targets[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog", (Label("dog", ("dog",)),)),
        ("Dogs", (Label("dog", ("Dogs",)),)),
        ("dog. cat", (Label("dog", ("dog",)), Label("cat", ("cat",)))),
        ("brown dog, small dog", (Label("dog", ("brown dog", "small dog")),)),
        ("traffic light", (Label("traffic light", ("traffic light",)),)),
        ("cat: fluffy kitten", (Label("cat", ("fluffy kitten",)),)),
        ("dog: cat toy", (Label("dog", ("cat toy",)),)),
        ("kitten", (Label("cat", ("kitten",)),)),
    ],
)
def test_names_belong_to_the_label_they_equal_mention_or_say(text: str, expected: tuple[Label, ...]) -> None:
    assert query(text, "cat", "dog", "light", "traffic light") == expected


@pytest.mark.parametrize("text", ["BİSİKLET", "bısıklet", "BISIKLET"])
def test_a_label_is_mentioned_with_any_i(text: str) -> None:
    assert query(f"a kedi, one {text}", "kedi", "bisiklet") == (
        Label("kedi", ("a kedi",)),
        Label("bisiklet", (f"one {text}",)),
    )


def test_with_one_label_every_phrase_is_its() -> None:
    assert query("red thing; blue thing", "object") == (Label("object", ("red thing", "blue thing")),)


def test_a_sentence_that_mentions_several_labels_is_read_as_a_whole() -> None:
    text = "a cat beside two dogs"
    assert query(text, "cat", "dog") == Sentence(text, (Span(2, 5, "cat"), Span(17, 21, "dog")))


def test_brackets_mark_the_phrases_of_a_sentence() -> None:
    sentence = query("a [fluffy cat] on [dog: the big one]", "cat", "dog")
    assert sentence == Sentence("a fluffy cat on the big one", (Span(2, 12, "cat"), Span(16, 27, "dog")))


DEEP: list[object] = []
for _ in range(2000):
    DEEP = [DEEP]


@pytest.mark.parametrize("text", [None, 5, {"a": 1}, [DEEP], [["cat"]]])
def test_what_is_no_text_is_no_prompt(text: object) -> None:
    item = {"type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": text}}
    with pytest.raises(UsageError, match="prompt is empty"):
        read_prompt([item], config("cat"))


def test_a_drawn_shape_asks_for_all_labels_where_its_own_are_no_text() -> None:
    prompt = read_prompt([shape("keypointlabels", x=1, y=1, keypointlabels=[DEEP])], config("cat", "dog"))
    assert prompt is not None
    assert prompt.query == (Label("cat"), Label("dog"))


@pytest.mark.parametrize("text", ["", "  ", ".,;", "[]"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="prompt is empty"):
        query(text, "cat")


def test_recorded_shapes_ask_for_their_label() -> None:
    for name in ("editor_interactive_smart_rectangle", "editor_interactive_smart_keypoint"):
        body = recorded(name)["json"]
        prompt = read_prompt(body["params"]["context"]["result"], parse_labeling_config(body["label_config"]))
        assert prompt is not None
        assert prompt.query == (Label("cat"),)


def shape(kind: str, **value: object) -> dict[str, object]:
    return {"type": kind, "from_name": "label", "to_name": "image", "value": value}


def chosen(item: dict[str, object], *boxes: Box) -> list[Box]:
    prompt = read_prompt([item], config("cat"))
    assert prompt is not None
    regions = tuple(Region(str(index), Proposal(box, "cat", 0.5, "cat")) for index, box in enumerate(boxes))
    return [region.proposal.box for region in prompt.chosen(Prediction(1, "v", 200, 100, regions, "p")).regions]


def test_a_drawn_box_is_not_suggested_again() -> None:
    drawn = shape("rectanglelabels", x=10, y=10, width=20, height=20, rectanglelabels=["cat"])
    same, other = Box(21, 9, 60, 31), Box(100, 50, 150, 90)
    assert chosen(drawn, same, other) == [other]


def test_a_point_gets_the_best_box_around_it() -> None:
    point = shape("keypointlabels", x=50, y=50, keypointlabels=["cat"])
    aside, best, worse = Box(0, 0, 50, 50), Box(90, 40, 110, 60), Box(0, 0, 200, 100)
    assert chosen(point, aside, best, worse) == [best]


NO_NUMBERS = ["left", float("inf"), 9e8, 10**400, None, [[]]]


@pytest.mark.parametrize("value", [{}, *({"x": 1, "y": number} for number in NO_NUMBERS)])
def test_a_shape_without_position_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no position"):
        read_prompt([shape("keypointlabels", **value)], config("cat"))


def test_a_shape_on_an_image_that_is_not_served_gets_no_boxes_of_another() -> None:
    drawn = shape("rectanglelabels", x=10, y=10, width=20, height=20, rectanglelabels=["cat"]) | {"to_name": "pages"}
    with pytest.raises(UsageError, match="an image that is not served"):
        read_prompt([drawn], config("cat"))


def test_other_items_are_no_prompt() -> None:
    note = {"type": "textarea", "from_name": "note", "value": {}}
    items = [{"type": "choices", "value": {"choices": ["x"]}}, note, note | {"from_name": []}, {}]
    assert read_prompt(items, config("cat")) is None
