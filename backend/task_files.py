"""The files behind tasks' images, as bytes."""

from backend.bootstrap import build_images
from backend.domain.dataset import AnnotatedImage, ImageFile
from backend.domain.records import Picture
from backend.errors import ImageError
from backend.pictures import measure_picture
from backend.settings import Settings


class TaskFiles:
    """Fetches as predictions do, with the same rules about where to, but leaves the pixels alone."""

    def __init__(self, settings: Settings) -> None:
        self._images = build_images(settings, self._keep)
        self._file: ImageFile | None = None

    def read(self, image: AnnotatedImage) -> ImageFile:
        """Get an image's file.

        Raises:
            ImageError: it cannot be had, or is no image.
        """
        self._file = None
        self._images.fetch(image.reference, image.task_id)
        if self._file is None:
            raise ImageError(f"{image.reference}: cannot be had")
        return self._file

    def _keep(self, data: bytes, source: str) -> Picture:
        self._file = measure_picture(data, source)
        facts = self._file.facts
        return Picture(facts.width, facts.height, b"", facts.sha256, source)
