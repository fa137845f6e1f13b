"""Projects as their people left them, with the image files kept on this machine under their SHA-256."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

from backend.domain.dataset import AnnotatedImage, ImageFile
from backend.domain.facts import ProjectState
from backend.domain.file_names import shown_reference
from backend.domain.records import Label, Picture
from backend.errors import ImageError, LabelConfigError
from backend.pictures import decode_picture
from backend.ports import AnnotatedImages
from integrations.label_studio.labels import LabelingConfig, parse_labeling_config
from integrations.written_aside import written_aside


class KeptImages:
    """The ``Images`` port for files that were kept; a reference is a SHA-256. The folder may be emptied at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, sha256: str) -> bool:
        """Tell whether there is one of this content."""
        return self._path(sha256).is_file()

    def keep(self, file: ImageFile) -> None:
        """Keep a file.

        Raises:
            GlipLabelError: it cannot be written.
        """
        with written_aside(self._path(file.facts.sha256)) as aside:
            aside.write_bytes(file.content)

    def fetch(self, reference: str, task_id: int | None = None) -> Picture:
        """Decode the file with this SHA-256, upright.

        Raises:
            ImageError: it is not there any more, or was damaged; then it is removed, so that it is fetched anew.
        """
        path = self._path(reference)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"the image {reference[:12]}… is not kept any more: train again") from error
        if sha256(data).hexdigest() != reference:
            path.unlink(missing_ok=True)
            raise ImageError(f"{path} was damaged and is removed: train again, which fetches the image anew")
        return decode_picture(data, f"{reference[:12]}…")

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


class StoredProjects:
    """``ports.ReviewedProjects`` on the database.

    Args:
        images: opens the images of a project, whose ``<Image>`` tags show these keys of its tasks' data; None is not
            served.
        kept: where image files are kept.
        read: gets an image's file from where its task says.
    """

    def __init__(
        self,
        images: Callable[[ProjectState, Mapping[str, str | None]], AbstractContextManager[AnnotatedImages]],
        kept: KeptImages,
        read: Callable[[AnnotatedImage], ImageFile],
    ) -> None:
        self._images = images
        self._kept = kept
        self._read = read

    def open(self, project: ProjectState) -> AbstractContextManager[AnnotatedImages]:
        """As ``ports.ReviewedProjects``."""
        return self._images(project, _config(project).image_keys)

    def labels(self, project: ProjectState) -> tuple[Label, ...]:
        """As ``ports.ReviewedProjects``."""
        return _config(project).labels

    def has(self, sha256: str) -> bool:
        """As ``ports.ReviewedProjects``."""
        return self._kept.has(sha256)

    def read(self, image: AnnotatedImage) -> ImageFile:
        """As ``ports.ReviewedProjects``; what is kept was decoded once, as a header does not tell of what broke off."""
        file = self._read(image)
        decode_picture(file.content, shown_reference(image.reference))
        self._kept.keep(file)
        return file


def _config(project: ProjectState) -> LabelingConfig:
    if not project.label_config:
        name = project.title or project.uid
        if project.is_imported:
            raise LabelConfigError(f"project {name!r} was imported, and imported data sets cannot be trained on")
        raise LabelConfigError(
            f"the labelling config of project {name!r} is not known: run `glip-label sync --project {project.id}` first"
        )
    return parse_labeling_config(project.label_config)
