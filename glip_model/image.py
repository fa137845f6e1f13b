"""From untrusted image files to upright RGB arrays, and from those to the pixel values the network reads.

Sizes are ``(height, width)``. RGB arrays are ``(H, W, 3)`` uint8. B images.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

# Only formats that Pillow decodes itself: EPS, for one, would start Ghostscript on the file.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow's decoders raise on damaged files, found by cutting and flipping bytes.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# EXIF orientation -> what brings the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))  # width and height change places


class ImageDecodeError(ValueError):
    """A file that is no image, a damaged one, or one beyond the limits; the message names both."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image that is decoded; checked before any pixel is."""

    max_bytes: int = 100_000_000
    max_side: int = 20_000
    max_pixels: int = 150_000_000


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """How RGB images become pixel values.

    ``mean`` and ``std`` belong to blue, green, red in ``0..255``, in this order, as official weights expect.
    """

    shortest_edge: int = 800
    longest_edge: int = 1333
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    std: tuple[float, float, float] = (57.375, 57.12, 58.395)
    size_divisor: int = 32


DEFAULT_LIMITS = ImageLimits()
DEFAULT_PIXELS = PixelSettings()


def read_image(path: Path, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode an image file to upright RGB, as `decode_image`.

    Raises:
        ImageDecodeError: the file is missing, unreadable, or refused by `decode_image`.
    """
    if not path.is_file():
        raise ImageDecodeError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise ImageDecodeError(f"{path}: cannot be read ({error.strerror})") from error
    return decode_image(data, str(path), limits)


def decode_image(data: bytes, name: str, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB, turned as browsers turn it; of an animation the first frame.

    Args:
        data: the whole file.
        name: what the file is called in errors.
        limits: the largest image accepted.

    Returns:
        ``(H, W, 3)``, contiguous.

    Raises:
        ImageDecodeError: no bytes, no image, a truncated or damaged one, or one beyond the limits.
    """
    with _opened(data, name, limits) as image:
        return to_rgb_array(image)


def upright_size(data: bytes, name: str, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Return the ``(height, width)`` that `decode_image` would give, without decoding the pixels (but for TIFF).

    Raises:
        ImageDecodeError: no bytes, no image, or one beyond the limits.
    """
    with _opened(data, name, limits) as image:
        if image.format == "TIFF":
            image.load()  # turns it
        width, height = image.size
        return (width, height) if _upright(image) in _SWAPPING else (height, width)


def to_rgb_array(image: Image.Image) -> NDArray[np.uint8]:
    """Turn an opened image of any mode into an upright RGB array ``(H, W, 3)``.

    Transparent pixels are shown on white, as a browser shows them; 16 bits are cut to the upper 8; other
    greyscale ranges (32-bit integers, floats) are stretched to 0..255.
    """
    upright = _upright(image)  # before the pixels: the EXIF of a PNG that follows them turns nothing in a browser
    image.load()
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_stretched(image))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image.convert("RGB")
    return np.array(image.transpose(upright) if upright is not None else image, dtype=np.uint8)


def resized_size(size_hw: tuple[int, int], settings: PixelSettings = DEFAULT_PIXELS) -> tuple[int, int]:
    """Say how large an image is scaled: shorter side to ``shortest_edge``, longer at most ``longest_edge``.

    The rounding is the official evaluation's: the shorter side rounded, the longer one cut. So the longer side of a
    hair-thin image, whose shorter one is rounded up, is beyond ``longest_edge``: 1 x 5000 stays as it is.
    """
    short, long = min(size_hw), max(size_hw)
    target = settings.shortest_edge
    if target * long / short > settings.longest_edge:
        # A side of at least one pixel keeps hair-thin images possible; the official code fails on them.
        target = max(1, round(settings.longest_edge * short / long))
    other = int(target * long / short)
    return (target, other) if size_hw[0] <= size_hw[1] else (other, target)


def resize_rgb(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an RGB array to ``size_hw``, bilinear with antialiasing."""
    if image.shape[:2] == size_hw:
        return image
    height, width = size_hw
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def normalize_and_pad(
    images: Sequence[NDArray[np.uint8]], settings: PixelSettings = DEFAULT_PIXELS
) -> NDArray[np.float32]:
    """Turn RGB arrays into one batch of pixel values, without scaling.

    Returns:
        ``(B, 3, H, W)``: blue, green, red minus mean over std, zeros to the right and below up to the largest
        image's sides rounded up to ``size_divisor``.

    Raises:
        ValueError: there is no image, or an array is not ``(H, W, 3)`` uint8.
    """
    check_rgb(images)
    height, width = padded_size([(image.shape[0], image.shape[1]) for image in images], settings.size_divisor)
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (settings.mean, settings.std))
    batch = np.zeros((len(images), 3, height, width), dtype=np.float32)  # (B, 3, H, W)
    for target, image in zip(batch, images, strict=True):
        bgr = image.transpose(2, 0, 1)[::-1].astype(np.float32)  # (3, h, w)
        target[:, : image.shape[0], : image.shape[1]] = (bgr - mean) / std
    return batch


def padded_size(sizes_hw: Sequence[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """Return the smallest size with sides divisible by ``divisor`` that holds every image.

    Raises:
        ValueError: there is no image.
    """
    if not sizes_hw:
        raise ValueError("no images")
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes_hw, strict=True))
    return height, width


def to_pixel_values(
    images: Sequence[NDArray[np.uint8]], settings: PixelSettings = DEFAULT_PIXELS
) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    """Scale, normalise and pad upright RGB arrays for the network.

    Returns:
        Pixel values ``(B, 3, H, W)`` as `normalize_and_pad`, and each image's size in them before padding.

    Raises:
        ValueError: there is no image, or an array is not ``(H, W, 3)`` uint8.
    """
    check_rgb(images)
    sizes_hw = [resized_size((image.shape[0], image.shape[1]), settings) for image in images]
    resized = [resize_rgb(image, size_hw) for image, size_hw in zip(images, sizes_hw, strict=True)]
    return normalize_and_pad(resized, settings), sizes_hw


def check_rgb(images: Sequence[NDArray[np.uint8]]) -> None:
    """Make sure that all arrays are RGB images.

    Raises:
        ValueError: one is not ``(H, W, 3)`` uint8, or has no pixels.
    """
    for image in images:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an RGB image is (H, W, 3) uint8, not {image.shape} {image.dtype}")
        if not image.size:
            raise ValueError(f"an image of shape {image.shape} has no pixels")


@contextmanager
def _opened(data: bytes, name: str, limits: ImageLimits) -> Iterator[Image.Image]:
    """Open an image file; whatever Pillow says against it, in the block too, becomes an `ImageDecodeError`."""
    if not data:
        raise ImageDecodeError(f"{name}: the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageDecodeError(f"{name}: larger than {limits.max_bytes:,} bytes")
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and its own size limit; ours is checked below.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
                _check_size(image, name, limits)
                yield image
        except ImageDecodeError:
            raise
        except UnidentifiedImageError as error:
            raise ImageDecodeError(f"{name}: not an image of a known format") from error
        except _DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageDecodeError(f"{name}: damaged or truncated image ({reason})") from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_size(image: Image.Image, name: str, limits: ImageLimits) -> None:
    width, height = image.size
    if max(width, height) > limits.max_side:
        raise ImageDecodeError(f"{name}: {width} x {height} pixels, a side may have {limits.max_side:,}")
    if width * height > limits.max_pixels:
        raise ImageDecodeError(f"{name}: {width} x {height} pixels, at most {limits.max_pixels:,} are decoded")


def _upright(image: Image.Image) -> Image.Transpose | None:
    """Turn what browsers turn, for people draw on what these show: Pillow's ``getexif`` would also follow XMP."""
    if image.format == "WEBP":  # which browsers leave as it is
        return None
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return _UPRIGHT.get(exif.get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:  # broken metadata does not spoil the pixels
        return None


def _stretched(image: Image.Image) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # signalling NaNs of damaged files
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    stretched: NDArray[np.uint8] = ((values - low) / (high - low or 1.0) * 255).round().astype(np.uint8)
    return stretched
