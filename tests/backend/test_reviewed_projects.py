"""Image files of reviewed projects, kept under their SHA-256: whole ones only."""

from contextlib import nullcontext
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from backend.domain.dataset import AnnotatedImage, ImageFile
from backend.domain.facts import ProjectState
from backend.domain.learning import TrainingRequest
from backend.domain.training_data import FrozenData, Part, split_of
from backend.errors import ImageError
from backend.pictures import measure_picture
from backend.reviewed_projects import KeptImages, StoredProjects
from backend.services.gathering import Gathering
from tests.backend.test_gathering import annotated_image, known
from tests.facts import UID, at, make_annotation, make_region
from tests.fake_learning import FakeAnnotatedImages
from tests.make import image_bytes

CONFIG = """<View><Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels></View>"""
PROJECT = ProjectState(UID, 7, "street", at(0), CONFIG)
WHOLE = next(
    data
    for data in (image_bytes(640, 480, "JPEG") + b"%d" % number for number in count())
    if split_of(sha256(data).hexdigest()) is Part.TRAIN
)
IMAGES = [
    annotated_image(name, make_annotation(number, 0, make_region(), task_id=number), task_id=number)
    for number, name in enumerate(["whole.jpg", "broken-off.jpg"], start=1)
]


class House:
    """A project with a whole picture and one that broke off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = KeptImages(folder)
        self.files = {"whole.jpg": WHOLE, "broken-off.jpg": WHOLE[: len(WHOLE) // 2]}
        projects = StoredProjects(lambda *_: nullcontext(FakeAnnotatedImages(IMAGES, ["cat"])), self.kept, self.read)
        database = known(*IMAGES)
        self.gathering = Gathering(projects, database, database)

    def read(self, image: AnnotatedImage) -> ImageFile:
        return measure_picture(self.files[image.reference], image.reference)

    def gather(self) -> FrozenData:
        return self.gathering(PROJECT, TrainingRequest("command"), lambda progress: None)


def test_a_picture_that_broke_off_is_left_out_with_its_task_and_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path)
    gathered = house.gather()

    assert [image.sha256 for image in gathered.images] == [sha256(WHOLE).hexdigest()]
    assert gathered.left_out == {"file-cannot-be-had": 1}
    assert "task=2 left out: broken-off.jpg: " in caplog.text
    assert [path.name for path in tmp_path.glob("*/*")] == [sha256(WHOLE).hexdigest()]


def test_a_kept_file_that_was_damaged_is_refused_and_fetched_anew_by_the_next_job(tmp_path: Path) -> None:
    house = House(tmp_path)
    (image,) = house.gather().images
    assert house.kept.fetch(image.sha256).width == 640
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(WHOLE[:300])

    with pytest.raises(ImageError, match=f"{image.sha256} was damaged and is removed: train again"):
        house.kept.fetch(image.sha256)
    with pytest.raises(ImageError, match="is not kept any more: train again"):
        house.kept.fetch(image.sha256)
    assert house.gather().images == (image,)
    assert house.kept.fetch(image.sha256).width == 640
