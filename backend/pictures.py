"""From the bytes of an image file to a ``Picture``, or to its size alone."""

from hashlib import sha256

from backend.domain.dataset import ImageFacts, ImageFile
from backend.domain.records import Picture
from backend.errors import ImageError
from glip_model.image import ImageDecodeError, decode_image, upright_size


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


def measure_picture(data: bytes, source: str) -> ImageFile:
    """Find an image file's upright size and its hash without decoding its pixels; ``source`` names it in errors.

    Raises:
        ImageError: it is no image, or too large.
    """
    try:
        height, width = upright_size(data, source)
    except ImageDecodeError as error:
        raise ImageError(str(error)) from error
    return ImageFile(data, ImageFacts(width, height, sha256(data).hexdigest()))
