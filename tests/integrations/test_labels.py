"""Which labels, words, images and controls a labelling config asks for."""

import pytest
from label_studio_sdk.label_interface.interface import LabelInterface

from backend.domain.records import Label
from backend.errors import LabelConfigError
from integrations.label_studio.labels import ImageTarget, parse_labeling_config
from tests.make import recorded, recordings

IMAGE = '<Image name="image" value="$image"/>'


def target(labels: str, control: str = 'name="label" toName="image"') -> ImageTarget:
    xml = f"<View>{IMAGE}<RectangleLabels {control}>{labels}</RectangleLabels></View>"
    (only,) = parse_labeling_config(xml).targets
    return only


@pytest.mark.parametrize("name", recordings("/predict"))
def test_recorded_configs_are_read_as_the_sdk_reads_them(name: str) -> None:
    xml = recorded(name)["json"]["label_config"]
    (only,) = parse_labeling_config(xml).targets
    control = LabelInterface(xml).get_control("label")
    assert [label.name for label in only.labels] == control.labels
    assert set(only.controls.values()) == {"label"}
    assert (only.name, only.data_key) == ("image", "image")


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ('<Label value="cat"/>', Label("cat")),
        ('<Label value="car" predicted_values="jeep, taxi,,Car"/>', Label("car", ("car", "jeep", "taxi"))),
        ('<Label value="c1" prompt="red car"/>', Label("c1", ("red car",))),
        (
            '<Label value="c1" prompt="car|bus, van" predicted_values="x"/>',
            Label("c1", ("car", "bus", "van")),
        ),
        ('<Label value="Traffic light" alias="tl"/>', Label("tl", ("Traffic light",))),
        ('<Label value="chat &amp; chien"/>', Label("chat & chien")),
    ],
)
def test_a_label_says_which_words_ask_for_it(tag: str, label: Label) -> None:
    assert target(tag).labels == (label,)


def test_labels_inside_views_count_and_repeated_or_empty_ones_do_not() -> None:
    labels = '<View><Label value="cat"/></View><Label value="cat"/><Label value=" "/><Label/>'
    assert target(labels).labels == (Label("cat"),)


def test_each_label_belongs_to_its_own_control() -> None:
    xml = f"""<View>{IMAGE}<RectangleLabels name="smart" toName="image" smartOnly="true"><Label value="cat"/>
      <Label value="fox"/></RectangleLabels>
      <RectangleLabels name="animals" toName="image"><Label value="cat"/></RectangleLabels>
      <RectangleLabels name="things" toName="image"><Label value="car"/></RectangleLabels></View>"""
    (only,) = parse_labeling_config(xml).targets
    assert only.controls == {"cat": "animals", "car": "things", "fox": "smart"}


def test_an_image_without_labels_of_its_own_is_left_out() -> None:
    xml = f"""<View>{IMAGE}<Image name="map" value="$map"/><Image name="pages" valueList="$pages"/>
      <RectangleLabels name="label" toName="image,pages"><Label value="cat"/></RectangleLabels></View>"""
    config = parse_labeling_config(xml)
    assert [each.name for each in config.targets] == ["image"]
    assert config.image_keys == {"image": "image", "map": None, "pages": None}


def rectangle_labels(labels: str = '<Label value="cat"/>', to: str = "image") -> str:
    return f'<RectangleLabels name="label" toName="{to}">{labels}</RectangleLabels>'


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("<View>", "is no XML"),
        ("cats", "is no XML"),
        ("<View/>", "no <Image>"),
        (f'<View><Text name="image" value="$t"/>{rectangle_labels()}</View>', "no <Image>"),
        (f"<View>{IMAGE}</View>", "no <RectangleLabels>"),
        (f'<View>{IMAGE}<PolygonLabels name="p" toName="image"/></View>', "no <RectangleLabels>"),
        (f"<View>{IMAGE}{rectangle_labels('')}</View>", "holds no <Label"),
        (f"<View>{IMAGE}{rectangle_labels(to='other')}</View>", "toName"),
        (
            f'<View><Image name="image" value="http://me:s3cret@h/x"/>{rectangle_labels()}</View>',
            "key of the task's data",
        ),
        (f'<View><Image name="image" valueList="$p"/>{rectangle_labels()}</View>', "valueList"),
        ('<!DOCTYPE v [<!ENTITY a "b">]><View>&a;</View>', "DTD or entities"),
        ('<!DOCTYPE v SYSTEM "file:///etc/passwd"><View/>', "DTD or entities"),
    ],
)
def test_a_config_that_cannot_serve_is_refused_in_one_line(xml: str, said: str) -> None:
    with pytest.raises(LabelConfigError, match=said) as refused:
        parse_labeling_config(xml)
    assert "\n" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_entity_bombs_are_refused_at_once() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(LabelConfigError):
        parse_labeling_config(f'<!DOCTYPE v [<!ENTITY e0 "ha">{entities}]><View>&e11;</View>')
