"""Generated projects: what is exported is the truth to the pixel, and comes back byte for byte.

``GLIP_LABEL_TEST_PROJECTS=1000`` generates as many instead of a few.
"""

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import supervision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from backend.domain.annotations import AnnotatedRegion, Annotation, PercentBox
from backend.domain.dataset import AnnotatedImage, AttributedAnnotation, DatasetLabel, ImageFile, Provenance
from backend.domain.policies import AnnotatorPolicy, Splits
from backend.pictures import measure_picture
from backend.services.export import Export, ExportRequest
from backend.services.import_ import import_images
from integrations.coco_export import CocoFolder
from integrations.coco_import import read_dataset
from tests.datasets import START, FakeProject
from tests.make import image_bytes

PROJECTS = int(os.environ.get("GLIP_LABEL_TEST_PROJECTS", "30"))
PARTS = ("train", "val", "test")
KINDS = ("PNG", "JPEG", "WEBP", "TIFF")

texts = st.text(min_size=1, max_size=8) | st.sampled_from(["a.png", "A.png", "größe/日本.jpg", "x" * 300 + ".png"])
references = st.builds(
    "{}{}".format,
    st.sampled_from(
        ["", "d/", "/data/upload/7/0134dd4e-", "/data/local-files/?d=d/", "s3://b/", "https://me:pw@h/", "/"]
    ),
    texts,
)
percents = st.floats(0, 80) | st.floats(0, 80) | st.floats(-40, 140) | st.sampled_from([0.0, 50.0, 100.0])
rotations = st.just(0.0) | st.floats(-400, 400) | st.sampled_from([30.0, 90.0, 180.0, 359.9999999])
sides = st.floats(5, 80) | st.floats(5, 80) | st.floats(-1, 120)
values = st.builds(PercentBox, percents, percents, sides, sides, rotations)


@lru_cache
def file_bytes(width: int, height: int, kind: str, orientation: int) -> bytes:
    return image_bytes(width, height, kind, orientation)


@st.composite
def annotations(draw: st.DrawFn, number: int, count: int, names: Sequence[str]) -> AttributedAnnotation:
    """An annotation of image ``number``; each region has the prompt ``number/count/position``."""
    # Hypothesis prefers little of everything, and then hardly a box would be left: what is odd gets a small share.
    labels = st.lists(st.sampled_from([*names, *names, "nobody's"]), min_size=1, max_size=3)
    regions: list[AnnotatedRegion] = []
    for _ in range(draw(st.sampled_from([3, 2, 1, 5, 0]))):
        chosen = draw(labels) if draw(st.integers(0, 9)) < 9 else []
        again = regions and draw(st.integers(0, 4)) == 4
        value = regions[-1].value if again else draw(values)
        regions.append(AnnotatedRegion("r", "image", tuple(chosen), value, None, None))
    annotator = draw(st.none() | st.integers(1, 3))
    annotation = Annotation(
        id=10 * number + count,
        task_id=number,
        project_id=7,
        created_at=START,
        updated_at=START + timedelta(hours=draw(st.integers(0, 2))),
        annotator=annotator,
        cancelled=draw(st.integers(0, 9)) == 9,
        ground_truth=draw(st.booleans()),
        lead_time=None,
        parent_prediction=None,
        regions=tuple(regions),
    )
    version = draw(st.none() | st.text(min_size=1, max_size=4))
    prompts = [f"{number}/{count}/{position}" for position in range(len(regions))]
    known = [Provenance(number, annotation.id, annotator, "moved", version, prompt, 0.5) for prompt in prompts]
    return AttributedAnnotation(annotation, tuple(known))


@st.composite
def projects(draw: st.DrawFn) -> tuple[FakeProject, dict[int, bytes], ExportRequest]:
    """A project, the files of its images, and a request."""
    label_names = st.text(min_size=1, max_size=12).filter(str.strip) | st.sampled_from(["größer als" * 40, "Ampel 🚦"])
    names = draw(st.lists(label_names, min_size=1, max_size=4, unique=True))
    files: dict[int, bytes] = {}
    images = []
    pixels = st.integers(8, 40) | st.integers(1, 40)
    for number in sorted(draw(st.sets(st.integers(1, 2**31), min_size=2, max_size=5))):
        content = file_bytes(draw(pixels), draw(pixels), draw(st.sampled_from(KINDS)), draw(st.integers(1, 8)))
        files[number] = content
        facts = measure_picture(content, "a picture").facts
        width, height = (facts.width, facts.height) if draw(st.booleans()) else (None, None)
        task_id = draw(st.none() | st.just(number))
        made = tuple(draw(annotations(number, count, names)) for count in range(draw(st.sampled_from([1, 2, 3, 1, 0]))))
        images.append(AnnotatedImage(number, draw(references), width, height, None, task_id, made))
    request = ExportRequest(
        policy=draw(st.sampled_from(AnnotatorPolicy)),
        renamed=((names[0], names[-1]),) if draw(st.booleans()) and len(names) > 1 else (),
        include_unreviewed=draw(st.booleans()),
        splits=draw(st.none() | st.just(Splits(PARTS, (70, 15, 15)))),
    )
    labels = tuple(DatasetLabel(2 * number + 1, name) for number, name in enumerate(names))
    return FakeProject(images, labels), files, request


def export(folder: Path, project: FakeProject, files: dict[int, bytes], request: ExportRequest) -> list[Path]:
    def read(image: AnnotatedImage) -> ImageFile:
        return measure_picture(files[image.id], str(image.id))

    made = Export(project, request, read, copy=True)
    with CocoFolder(folder, made.labels, request.splits.names if request.splits else ()) as written:
        for image, content in made.images():
            written.add(image, content)
        paths = written.finish({})
    assert made.tally.failures == []
    return paths


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=PROJECTS, deadline=None, suppress_health_check=list(HealthCheck))
@given(projects())
def test_a_generated_project_is_exported_to_the_pixel_and_comes_back_byte_for_byte(
    made: tuple[FakeProject, dict[int, bytes], ExportRequest],
) -> None:
    project, files, request = made
    drawn = {
        str(known.prompt): region.value
        for image in project.stored
        for each in image.annotations
        for region, known in zip(each.annotation.regions, each.provenance, strict=True)
    }
    with scratch() as folder:
        paths = export(folder / "one", project, files, request)
        documents = [json.loads(path.read_text(encoding="ascii")) for path in paths]
        check_truth(documents, project, request, {number: upright_size(file) for number, file in files.items()})
        for path, document in zip(paths, documents, strict=True):
            check_files(folder / "one", document, files)
            check_pixels(document, drawn)
            check_average_precision(path, document)
        other = FakeProject()
        images = folder / "one/images"
        found = read_dataset(paths, lambda name: measure_picture((images / name).read_bytes(), name).facts)
        assert found.problems == []
        import_images(other, found.labels, found.images, START)
        again = ExportRequest(splits=request.splits, include_unreviewed=request.include_unreviewed)
        for before, after in zip(paths, export(folder / "two", other, files, again), strict=True):
            assert before.read_bytes() == after.read_bytes()


def check_files(folder: Path, document: Any, files: dict[int, bytes]) -> None:
    names = [image["file_name"] for image in document["images"]]
    assert len({name.casefold() for name in names}) == len(names)
    for image in document["images"]:
        assert (folder / "images" / image["file_name"]).read_bytes() == files[image["id"]]
        assert "pw@" not in json.dumps(image)
        assert upright_size(files[image["id"]]) == (image["width"], image["height"])


def upright_size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as opened:
        if opened.format == "WEBP":  # which browsers do not turn
            return opened.size
        return ImageOps.exif_transpose(opened).size


def check_truth(
    documents: Sequence[Any], project: FakeProject, request: ExportRequest, sizes: dict[int, tuple[int, int]]
) -> None:
    """Whose annotation counts, which boxes and labels come of it, and what is said of images without boxes."""
    known, renamed = {label.name for label in project.known}, dict(request.renamed)
    states = {image["id"]: image["state"] for document in documents for image in document["images"]}
    written: dict[str, set[str]] = {}
    for document in documents:
        names = {category["id"]: category["name"] for category in document["categories"]}
        for each in document["annotations"]:
            written.setdefault(each["prompt"], set()).add(names[each["category_id"]])
    for image in project.stored:
        reviewed = [each.annotation for each in image.annotations if not each.annotation.cancelled]
        if not reviewed:
            unseen = "never-reviewed" if request.include_unreviewed and not image.annotations else None
            assert states.get(image.id) == unseen
            continue
        if request.policy is AnnotatorPolicy.CONSENSUS:
            continue  # tests/backend/test_policies.py
        mine = {prompt.split("/")[1] for prompt in written if prompt.startswith(f"{image.id}/")}
        starred = [each for each in reviewed if each.ground_truth and request.policy is AnnotatorPolicy.GROUND_TRUTH]
        counts = max(starred or reviewed, key=lambda each: (each.updated_at, each.id))
        assert mine <= {str(counts.id - 10 * image.id)}  # nothing of the other annotations
        if not counts.regions:
            assert states[image.id] == "reviewed-empty"
        for position, region in enumerate(counts.regions):
            labels = {renamed.get(label, label) for label in region.labels if label in known}
            prompt = f"{image.id}/{counts.id - 10 * image.id}/{position}"
            if labels and is_plain(region.value, *sizes[image.id]):
                assert states[image.id] == "reviewed"
                assert written[prompt] == labels
            else:
                assert written.get(prompt, labels) == labels


def is_plain(value: PercentBox, width: int, height: int) -> bool:
    """Whether a box surely shows in the image: its middle does, and it is no sliver."""
    wide, high = value.width * width / 100, value.height * height / 100
    angle = math.radians(value.rotation)
    x = value.x * width / 100 + (wide * math.cos(angle) - high * math.sin(angle)) / 2
    y = value.y * height / 100 + (wide * math.sin(angle) + high * math.cos(angle)) / 2
    return min(wide, high) > 0.1 and 0.1 < x < width - 0.1 and 0.1 < y < height - 0.1


def check_pixels(document: Any, drawn: dict[str, PercentBox]) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    categories = {category["id"] for category in document["categories"]}
    for annotation in document["annotations"]:
        width, height = sizes[annotation["image_id"]]
        x, y, wide, high = annotation["bbox"]
        expected = visible_bounds(drawn[annotation["prompt"]], width, height)
        assert [x, y, x + wide, y + high] == pytest.approx(expected, abs=0.5)
        assert annotation["category_id"] in categories
        assert wide > 0
        assert high > 0
        assert annotation["area"] > 0
        assert 0 <= x <= x + wide <= width + 1e-9
        assert 0 <= y <= y + high <= height + 1e-9


def visible_bounds(value: PercentBox, width: int, height: int) -> list[float]:
    """Bounds of the visible part by plain reckoning: all points that can be corners of it, kept if they lie in both."""
    left, wide = (Fraction(each) * width / 100 for each in (value.x, value.width))
    top, high = (Fraction(each) * height / 100 for each in (value.y, value.height))
    if value.rotation == 0:
        right, bottom = min(left + wide, Fraction(width)), min(top + high, Fraction(height))
        return [max(float(left), 0.0), max(float(top), 0.0), float(right), float(bottom)]
    angle = math.radians(value.rotation)
    across, down = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    x0, y0, w, h = float(left), float(top), float(wide), float(high)
    box = [
        (x0 + a * across[0] + b * down[0], y0 + a * across[1] + b * down[1])
        for a, b in ((0.0, 0.0), (w, 0.0), (w, h), (0.0, h))
    ]
    image = [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]

    def inside(point: tuple[float, float]) -> bool:
        dx, dy = point[0] - x0, point[1] - y0
        a, b = dx * across[0] + dy * across[1], dx * down[0] + dy * down[1]
        slack = 1e-6
        in_image = -slack <= point[0] <= width + slack and -slack <= point[1] <= height + slack
        return in_image and -slack <= a <= w + slack and -slack <= b <= h + slack

    points = [point for point in (*box, *image, *crossings(box, image)) if inside(point)]
    xs, ys = zip(*points, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def crossings(
    box: Sequence[tuple[float, float]], image: Sequence[tuple[float, float]]
) -> Iterator[tuple[float, float]]:
    for number, (x1, y1) in enumerate(box):
        x2, y2 = box[(number + 1) % 4]
        for edge in {x for x, _ in image}:
            if x1 != x2:
                yield edge, y1 + (edge - x1) / (x2 - x1) * (y2 - y1)
        for edge in {y for _, y in image}:
            if y1 != y2:
                yield x1 + (edge - y1) / (y2 - y1) * (x2 - x1), edge


def check_average_precision(path: Path, document: Any) -> None:
    if not document["annotations"]:
        return
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        keys = ("image_id", "category_id", "bbox")
        found = truth.loadRes([{key: each[key] for key in keys} | {"score": 1.0} for each in document["annotations"]])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_supervision_reads_the_files_unmodified(tmp_path: Path) -> None:
    regions = tuple(
        AnnotatedRegion("r", "image", labels, PercentBox(10, 20, 30, 40, rotation), None, None)
        for labels, rotation in [(("cat",), 0.0), (("dog", "cat"), 30.0)]
    )
    annotation = Annotation(1, 1, 7, START, START, 1, False, False, None, None, regions)
    attributed = AttributedAnnotation(annotation, (Provenance(1, 1, 1, "moved", "v1", "kitten", 0.5),) * 2)
    images = [
        AnnotatedImage(1, "d/a.png", None, None, None, 1, (attributed,)),
        AnnotatedImage(2, "d/x/a.png", None, None, None, 2, (AttributedAnnotation(replaced_empty(annotation), ()),)),
    ]
    project = FakeProject(images, (DatasetLabel(1, "cat"), DatasetLabel(4, "dog")))
    files = {1: file_bytes(40, 20, "PNG", 1), 2: file_bytes(40, 20, "PNG", 1)}
    export(tmp_path, project, files, ExportRequest())
    found = supervision.DetectionDataset.from_coco(str(tmp_path / "images"), str(tmp_path / "annotations.json"))
    assert found.classes == ["cat", "dog"]
    boxes = {Path(path).relative_to(tmp_path / "images").as_posix(): each for path, _, each in found}
    assert boxes["d/a.png"].xyxy[0].tolist() == [4, 4, 16, 12]
    class_ids = boxes["d/a.png"].class_id
    assert class_ids is not None
    assert class_ids.tolist() == [0, 1, 0]
    assert len(boxes["d/x/a.png"]) == 0


def replaced_empty(annotation: Annotation) -> Annotation:
    return Annotation(2, 2, 7, START, START, annotation.annotator, False, False, None, None, ())
