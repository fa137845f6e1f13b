"""Boxes between pixels of the upright image and Label Studio's percent of the displayed image."""

from collections.abc import Mapping

from backend.domain.geometry import Box
from backend.domain.records import Prediction, Region
from integrations.label_studio.labels import ImageTarget

Json = dict[str, object]


def box_to_percent(box: Box, width: int, height: int) -> dict[str, float]:
    """Express a box as ``x, y, width, height`` in percent of the image, clipped to it.

    The displayed image is the upright one: our frame is turned where browsers turn it.
    """
    inside = box.clipped(width, height)
    x, y = 100 * inside.x1 / width, 100 * inside.y1 / height
    return {
        "x": x,
        "y": y,
        "width": min(100 * inside.width / width, 100 - x),
        "height": min(100 * inside.height / height, 100 - y),
    }


def box_from_percent(value: Mapping[str, float], width: int, height: int) -> Box:
    """Read an unrotated ``x, y, width, height`` in percent as a box in pixels of an image of that size."""
    x1, y1 = value["x"] * width / 100, value["y"] * height / 100
    return Box(x1, y1, x1 + value["width"] * width / 100, y1 + value["height"] * height / 100)


def region_to_json(region: Region, prediction: Prediction, target: ImageTarget) -> Json:
    """Write one region of Label Studio's result list; ``meta.glip`` survives into the annotation as provenance."""
    proposal = region.proposal
    value: Json = {**box_to_percent(proposal.box, prediction.width, prediction.height)}
    value |= {"rotation": 0, "rectanglelabels": [proposal.label]}
    return {
        "id": region.id,
        "from_name": target.controls[proposal.label],
        "to_name": target.name,
        "type": "rectanglelabels",
        "original_width": prediction.width,
        "original_height": prediction.height,
        "image_rotation": 0,
        "value": value,
        "score": region.score,
        "meta": {
            "glip": {
                "version": prediction.model_version,
                "prediction": prediction.id,
                "score": proposal.score,
                "prompt": proposal.prompt,
            }
        },
    }
