"""Pictures with boxes, labels and scores drawn on them."""

import colorsys
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from backend.domain.records import Picture, Proposal

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Tried in order: the first covers most alphabets and comes with most Linux systems; Pillow's own knows Latin only.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "Arial.ttf")
_GOLDEN_RATIO = 0.618034  # steps of this share of the colour circle keep any number of hues apart


def label_colours(labels: Iterable[str]) -> dict[str, Colour]:
    """Give each label a colour that tells it from the others; the same labels in the same order keep theirs."""
    colours = {}
    for position, label in enumerate(dict.fromkeys(labels)):
        red, green, blue = colorsys.hsv_to_rgb((position * _GOLDEN_RATIO) % 1.0, 0.85, 0.95)
        colours[label] = (round(red * 255), round(green * 255), round(blue * 255))
    return colours


def draw_proposals(picture: Picture, proposals: Sequence[Proposal], colours: Mapping[str, Colour]) -> Image.Image:
    """Draw every proposal with its label and score, the best on top; line and letters grow with the picture.

    Args:
        picture: the upright picture that the boxes are of.
        proposals: boxes in its pixels.
        colours: one for each label, as from ``label_colours``.
    """
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    canvas = ImageDraw.Draw(image)
    longer = max(picture.width, picture.height)
    line = max(2, round(longer / 400))
    font = _font(max(11, round(longer / 55)))
    for proposal in sorted(proposals, key=lambda proposal: proposal.score):
        colour = colours[proposal.label]
        box = proposal.box
        canvas.rectangle((box.x1, box.y1, box.x2, box.y2), outline=colour, width=line)
        _draw_tag(canvas, proposal, colour, font, picture.width)
    return image


def _draw_tag(canvas: ImageDraw.ImageDraw, proposal: Proposal, colour: Colour, font: Font, image_width: int) -> None:
    """Write label and score above the box, or inside it where the picture ends above."""
    text = f"{' '.join(proposal.label.split())} {proposal.score:.2f}"
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    margin = max(1, round((bottom - top) / 5))
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0.0, min(proposal.box.x1, image_width - width))
    y = proposal.box.y1 - height
    if y < 0:
        y = proposal.box.y1
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    canvas.text((x + margin - left, y + margin - top), text, font=font, fill=_readable_on(colour))


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


def _font(size: int) -> Font:
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
    return ImageFont.load_default(size)
