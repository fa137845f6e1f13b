import contextlib
import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from glip_model.image import (
    ImageDecodeError,
    ImageLimits,
    PixelSettings,
    decode_image,
    normalize_and_pad,
    read_image,
    resized_size,
    to_pixel_values,
    upright_size,
)
from tests.golden.cases import read_json
from tests.golden.refinit import reference_image

RESIZES = read_json("extras")["resize_800_1333"]


def stripes(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    """Red on the left, blue on the right."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, : width // 2, 0] = 250
    image[:, width // 2 :, 2] = 250
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size without having the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP"])
def test_common_formats_come_out_as_rgb(kind: str) -> None:
    decoded = decode_image(encoded(Image.fromarray(stripes()), kind), "a picture")
    assert decoded.shape == (20, 30, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded[5, 5].astype(int) - [250, 0, 0]).max() < 12
    assert np.abs(decoded[5, 25].astype(int) - [0, 0, 250]).max() < 12


@pytest.mark.parametrize(
    ("orientation", "left", "top"),
    [(1, "red", ""), (2, "blue", ""), (3, "blue", ""), (4, "red", ""), (5, "", "red"), (6, "", "red"), (7, "", "blue")],
)
def test_exif_orientation_is_applied(orientation: int, left: str, top: str) -> None:
    decoded = decode_image(encoded(Image.fromarray(stripes()), "PNG", exif=turned(orientation)), "a picture")
    channel = {"red": 0, "blue": 2}
    assert decoded.shape[:2] == ((20, 30) if left else (30, 20))
    edge = decoded[:, 0] if left else decoded[0]
    assert (edge[:, channel[left or top]] == 250).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "MPO", "AVIF"])
def test_the_size_without_decoding_is_that_of_the_decoded_picture(kind: str, orientation: int) -> None:
    data = encoded(Image.fromarray(stripes()), kind, exif=turned(orientation))
    assert upright_size(data, "a picture") == decode_image(data, "a picture").shape[:2]


def with_chunk(png: bytes, kind: bytes, content: bytes, place: int) -> bytes:
    """Put a chunk into a PNG: before its pixels at 33, behind them at -12."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:place] + chunk + png[place:]


def turned_pictures() -> dict[str, bytes]:
    """Pictures of 30 x 20 pixels that ask to be turned by a quarter, in every way there is."""
    picture = Image.fromarray(stripes())
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    other = Image.Exif()
    other[0x010E] = "a description"
    png, raw = encoded(picture, "PNG"), turned(6).tobytes()
    profile = f"\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
    return {
        **{f"{kind} EXIF": encoded(picture, kind, exif=turned(6)) for kind in ("JPEG", "MPO", "PNG", "AVIF", "WEBP")},
        **{f"{kind} XMP": encoded(picture, kind, xmp=xmp) for kind in ("JPEG", "AVIF", "WEBP")},
        "JPEG EXIF without orientation, XMP": encoded(picture, "JPEG", exif=other, xmp=xmp),
        "PNG XMP": with_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp, 33),
        "PNG EXIF behind the pixels": with_chunk(png, b"eXIf", raw.removeprefix(b"Exif\0\0"), -12),
        "PNG EXIF as text": with_chunk(png, b"tEXt", b"Raw profile type exif\0" + profile, 33),
    }


def test_a_picture_is_turned_where_a_browser_turns_it() -> None:
    # As naturalWidth and naturalHeight tell it in Chromium 156.
    by_browsers = {"JPEG EXIF", "MPO EXIF", "PNG EXIF", "AVIF EXIF"}
    pictures = turned_pictures()
    assert {name for name, data in pictures.items() if upright_size(data, name) == (30, 20)} == by_browsers
    assert {name for name, data in pictures.items() if decode_image(data, name).shape[:2] == (30, 20)} == by_browsers


def test_the_size_of_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="a picture: not an image of a known format"):
        upright_size(b"nothing", "a picture")


def test_broken_exif_does_not_spoil_the_pixels() -> None:
    decoded = decode_image(encoded(Image.fromarray(stripes()), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00"), "a picture")
    assert decoded.shape == (20, 30, 3)


def test_cmyk_greyscale_palette_and_bilevel_become_rgb() -> None:
    picture = Image.fromarray(stripes())
    assert (
        np.abs(decode_image(encoded(picture.convert("CMYK"), "JPEG"), "x")[5, 5].astype(int) - [250, 0, 0]).max() < 12
    )
    assert decode_image(encoded(picture.convert("P"), "PNG"), "x")[5, 25, 2] > 200
    for mode in ("L", "1"):
        decoded = decode_image(encoded(picture.convert(mode), "PNG"), "x")
        assert (decoded[..., 0] == decoded[..., 2]).all()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    deep = np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(deep), "PNG"), "x")[0, :, 0].tolist() == [0, 128, 255]


def test_floats_are_stretched_and_what_is_not_finite_is_dark() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)
    assert decode_image(encoded(Image.fromarray(values), "TIFF"), "x")[0, :, 0].tolist() == [0, 128, 255, 0]


def test_transparency_is_shown_on_white() -> None:
    image = np.zeros((4, 4, 4), dtype=np.uint8)
    image[:2, :, 3] = 255
    decoded = decode_image(encoded(Image.fromarray(image), "PNG"), "x")
    assert (decoded[:2] == 0).all()
    assert (decoded[2:] == 255).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(data, "x")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.jpg: the file is empty"),
        (b"no image at all", "a.jpg: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.jpg: not an image of a known format"),
        (encoded(Image.fromarray(stripes()), "JPEG")[:-120], "a.jpg: damaged or truncated image"),
        (encoded(Image.fromarray(stripes()), "PNG")[:-40], "a.jpg: damaged or truncated image"),
        (png_header(20_001, 1), r"a.jpg: 20001 x 1 pixels, a side may have 20,000"),
        (png_header(13_000, 13_000), r"at most 150,000,000 are decoded"),
        (png_header(20_000, 20_000), "a.jpg: damaged or truncated image .*exceeds limit"),
        (b"\x00" * 2_000_001, "a.jpg: larger than 2,000,000 bytes"),
    ],
    ids=["empty", "text", "eps", "cut jpeg", "cut png", "wide", "many", "bomb", "large"],
)
def test_a_file_that_cannot_be_decoded_is_refused_with_its_cause(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message):
        decode_image(data, "a.jpg", ImageLimits(max_bytes=2_000_000))


@given(position=st.integers(8, 200), value=st.integers(0, 255), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "GIF"]))
def test_a_damaged_file_is_decoded_or_refused(position: int, value: int, kind: str) -> None:
    data = bytearray(encoded(Image.fromarray(stripes()), kind))
    data[position % len(data)] = value
    with contextlib.suppress(ImageDecodeError):
        assert decode_image(bytes(data), "x").dtype == np.uint8


def test_a_path_is_read_and_named_in_errors(tmp_path: Path) -> None:
    Image.fromarray(stripes()).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == stripes()).all()
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageDecodeError, match=f"{path.name}: no such file"):
            read_image(path)
    with pytest.raises(ImageDecodeError, match=r"a\.png: larger than 10 bytes"):
        read_image(tmp_path / "a.png", ImageLimits(max_bytes=10))


@pytest.mark.parametrize("case", RESIZES, ids=lambda case: f"{case['w']}x{case['h']}")
def test_images_are_scaled_as_in_the_official_evaluation(case: dict[str, Any]) -> None:
    assert resized_size((case["h"], case["w"])) == tuple(case["out_hw"])


def test_a_hair_thin_image_keeps_a_pixel() -> None:
    assert min(resized_size((1, 20_000))) == 1


def test_pixel_values_are_the_golden_ones() -> None:
    case = read_json("tiny_p3")
    recipe = read_json("images")
    pictures = [
        np.ascontiguousarray(reference_image(seed, *size)[::-1].transpose(1, 2, 0))
        for seed, size in zip(recipe["seeds"], recipe["sizes"], strict=True)
    ]
    batch = normalize_and_pad(pictures)
    assert list(batch.shape) == case["batch_shape"]
    assert hashlib.sha256(batch.tobytes()).hexdigest() == case["batch_sha256"]


def test_a_batch_is_scaled_then_padded_with_zeros_to_multiples_of_32() -> None:
    settings = PixelSettings(shortest_edge=48, longest_edge=100)
    pixel_values, sizes_hw = to_pixel_values([stripes(24, 36), stripes(30, 20)], settings)
    assert sizes_hw == [(48, 72), (72, 48)]
    assert pixel_values.shape == (2, 3, 96, 96)
    assert pixel_values.dtype == np.float32
    red_left = (250 - np.float32(123.675)) / np.float32(58.395)
    assert pixel_values[0, 2, 10, 2] == pytest.approx(red_left)
    assert (pixel_values[0, :, 48:] == 0).all()
    assert (pixel_values[1, :, :, 48:] == 0).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_arrays_that_are_no_rgb_images_are_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        to_pixel_values([bad])


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="has no pixels"):
        to_pixel_values([np.zeros(shape, np.uint8)])


def test_a_batch_of_no_images_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        to_pixel_values([])
