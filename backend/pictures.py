"""From the bytes of an image file to a ``Picture``."""

from hashlib import sha256

from backend.domain.records import Picture
from backend.errors import ImageError
from glip_model.image import ImageDecodeError, decode_image


def decode_picture(data: bytes, source: str) -> Picture:
    """Decode an image file upright; ``source`` names it in errors and in the picture.

    Raises:
        ImageError: it is no image, damaged, or too large.
    """
    try:
        rgb = decode_image(data, source)
    except ImageDecodeError as error:
        raise ImageError(str(error)) from error
    height, width = rgb.shape[:2]
    return Picture(width, height, rgb.tobytes(), sha256(data).hexdigest(), source)
