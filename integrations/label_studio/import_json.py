"""Tasks with pre-annotations as Label Studio's Import reads them."""

from collections.abc import Iterable, Sequence

from backend.domain.records import Label, Prediction
from integrations.label_studio.labels import ImageTarget
from integrations.label_studio.payloads import prediction_to_json
from integrations.label_studio.regions import Json


def default_target(labels: Sequence[str]) -> ImageTarget:
    """Return the names that Label Studio's own object detection template uses."""
    return ImageTarget("image", "image", tuple(map(Label, labels)), dict.fromkeys(labels, "label"))


def tasks_to_json(predictions: Iterable[tuple[str, Prediction]], target: ImageTarget) -> list[Json]:
    """Write one task per image.

    Args:
        predictions: the address of each image, as Label Studio is to load it, and what was found in it.
        target: tag names and data key of the project's labelling config.
    """
    return [
        {
            "data": {target.data_key: address},
            "predictions": [prediction_to_json([(target, prediction)])],
        }
        for address, prediction in predictions
    ]
