"""Tasks for Label Studio's Import, checked by Label Studio's own validator."""

from typing import Any, cast

from label_studio_sdk.label_interface.interface import LabelInterface

from backend.domain.geometry import Box
from backend.domain.records import Prediction, Proposal, Region
from integrations.label_studio.import_json import default_target, tasks_to_json

TEMPLATE = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="red car"/></RectangleLabels>
</View>"""


def test_tasks_fit_label_studios_object_detection_template() -> None:
    region = Region("1f-0", Proposal(Box(10, 20, 60, 70), "red car", 0.75, "red car"))
    prediction = Prediction(1, "glip-nano-0123abcd", 100, 80, (region,), "1f")
    (task,) = cast(list[Any], tasks_to_json([("/data/a.png", prediction)], default_target(["cat", "red car"])))
    config = LabelInterface(TEMPLATE)
    assert task["data"] == {"image": "/data/a.png"}
    assert config.validate_prediction(task["predictions"][0])
    assert task["predictions"][0]["model_version"] == "glip-nano-0123abcd"
    assert task["predictions"][0]["score"] == 0.75
    assert task["predictions"][0]["result"][0]["value"]["y"] == 25


def test_an_image_where_nothing_was_found_has_an_empty_prediction() -> None:
    (task,) = tasks_to_json([("/data/a.png", Prediction(1, "v", 8, 6, (), "1f"))], default_target(["cat"]))
    assert task["predictions"] == [{"result": [], "score": 0.0, "model_version": "v"}]
