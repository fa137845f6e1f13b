"""``glip-label prelabel`` from the words typed to the files written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from backend.cli import run
from backend.commands import prelabel
from backend.commands.prelabel import Options
from backend.domain.records import Label
from backend.errors import ModelError
from backend.services.prelabel import PrelabelSettings
from glip_model.image import read_image
from integrations.coco import read_coco
from integrations.label_studio.import_json import default_target
from tests.fakes import FakeDetector
from tests.glip_model.tiny import noise, tiny_model, tiny_processor
from tests.make import CONFIG, image_bytes, pictures_held
from tests.signals import listen_to_control_c


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path / "home"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "day two").mkdir(parents=True)
    Image.fromarray(noise(60, 80)).save(folder / "a.png")
    Image.fromarray(noise(50, 90, seed=1)).save(folder / "day two" / "b.jpg")
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_a_folder_becomes_a_coco_data_set_and_results(model: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    assert run(["prelabel", str(photos), "--labels", "cat,dog", "--model", model, "--out", str(out)]) == 0
    dataset = read_coco(out)
    assert [image.file_name for image in dataset.images] == ["a.png", "day two/b.jpg"]
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "cat"), (2, "dog")]
    assert {image.id for image in dataset.images if image.boxes} == {1, 2}
    annotations = read(out)["annotations"]
    results = read(tmp_path / "boxes.results.json")
    assert [(row["image_id"], row["category_id"], row["bbox"], row["score"]) for row in annotations] == [
        (row["image_id"], row["category_id"], row["bbox"], row["score"]) for row in results
    ]
    assert min(row["score"] for row in results) >= 0.3


def test_the_same_run_twice_writes_the_same_bytes(model: str, photos: Path, tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        run(["prelabel", str(photos), "--labels", "cat", "--model", model, "--out", str(tmp_path / name)])
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_sentence_is_answered_with_its_phrases(model: str, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    sentence = "a [red car] behind [two dogs]"
    assert run(["prelabel", str(photos), "--caption", sentence, "--model", model, "--out", str(out)]) == 0
    assert [category.name for category in read_coco(out).categories] == ["red car", "two dogs"]


def test_label_studio_gets_tasks_with_unique_regions_under_the_configs_names(
    model: str, photos: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "tasks.json", tmp_path / "config.xml"
    config.write_text(CONFIG.replace('name="label"', 'name="classes"').replace("$image", "$photo"))
    words = ["--label-config", str(config), "--format", "label-studio", "--image-url-prefix", "/data/local-files/?d=x/"]
    assert run(["prelabel", str(photos), *words, "--model", model, "--out", str(out)]) == 0
    tasks = read(out)
    assert [task["data"] for task in tasks] == [
        {"photo": "/data/local-files/?d=x/a.png"},
        {"photo": "/data/local-files/?d=x/day%20two/b.jpg"},
    ]
    predictions = [prediction for task in tasks for prediction in task["predictions"]]
    assert all(prediction["model_version"].startswith("tiny-") for prediction in predictions)
    regions = [region for prediction in predictions for region in prediction["result"]]
    assert {region["from_name"] for region in regions} == {"classes"}
    assert len({region["id"] for region in regions}) == len(regions) > 2


def test_drawings_keep_names_and_folders_and_are_not_read_again(model: str, photos: Path) -> None:
    drawn = photos / "drawn"
    words = ["prelabel", str(photos), "--labels", "cat", "--model", model, "--draw", str(drawn)]
    assert run(words) == 0
    first = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    assert first == ["a.png", "day two/b.jpg"]
    picture = read_image(drawn / "a.png")
    assert picture.shape == (60, 80, 3)
    assert (picture != read_image(photos / "a.png")).any()
    assert run(words) == 0
    assert sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*")) == first


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--labels", "cat", "--draw", "drawn"], "drawn/day two/b.jpg"),
        (["--labels", "cat", "--out", "drawn/day two/b.jpg"], "drawn/day two/b.jpg"),
        (["--labels", "cat", "--prompts", "words.json", "--out", "words.json"], "words.json"),
        (["--label-config", "config.results.json", "--out", "config.json"], "config.results.json"),
    ],
)
def test_what_is_read_is_not_written_over_also_where_links_lead_to_it(
    words: list[str],
    named: str,
    model: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos.parent / "drawn").mkdir()
    (photos.parent / "drawn/day two").symlink_to(photos / "day two")
    (photos.parent / "words.json").write_text("cat=kitten")
    (photos.parent / "config.results.json").write_text(CONFIG)
    before = Path(named).read_bytes()
    assert run(["prelabel", "photos", "--model", model, *words]) == 2
    error = capsys.readouterr().err
    assert error == f"glip-label: {named} is read, and would be overwritten: write to another place\n"
    assert Path(named).read_bytes() == before


def test_without_a_file_to_write_boxes_are_printed(
    model: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["prelabel", str(photos / "a.png"), "--labels", "cat", "--model", model]) == 0
    captured = capsys.readouterr()
    file, label, score, *corners = captured.out.splitlines()[0].split("\t")
    assert (file, label) == (str(photos / "a.png"), "cat")
    assert 0.3 <= float(score) <= 1
    assert len(corners) == 4
    assert "glip-label: model tiny-" in captured.err


def test_boxes_are_of_the_upright_picture(model: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(image_bytes(80, 40, "JPEG", orientation=6))
    out = tmp_path / "boxes.json"
    run(["prelabel", str(tmp_path / "photo.jpg"), "--labels", "cat", "--model", model, "--out", str(out)])
    (image,) = read_coco(out).images
    assert (image.width, image.height) == (40, 80)


def test_damaged_pictures_are_listed_and_skipped_and_the_rest_is_written(
    model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "aa_empty.png").touch()
    (photos / "cut.jpg").write_bytes((photos / "day two" / "b.jpg").read_bytes()[:-900])
    out = tmp_path / "boxes.json"
    words = ["prelabel", str(photos), "--labels", "cat", "--model", model, "--out", str(out), "--json"]
    assert run(words) == 1
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-2:]
    assert last[0].startswith(f"glip-label: skipped {photos / 'aa_empty.png'}: ")
    assert last[1].startswith(f"glip-label: skipped {photos / 'cut.jpg'}: ")
    figures = json.loads(captured.out)
    assert (figures["images"], len(figures["skipped"])) == (2, 2)
    assert [(image.id, image.file_name) for image in read_coco(out).images] == [(1, "a.png"), (4, "day two/b.jpg")]


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_a_picture_whose_name_is_no_text_is_skipped_like_a_damaged_one(
    form: str, model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = os.fsdecode(b"caf\xe9.png")
    (photos / latin).write_bytes((photos / "a.png").read_bytes())
    out = tmp_path / "boxes.json"
    words = ["prelabel", str(photos), "--labels", "cat", "--model", model, "--out", str(out), "--format", form]
    assert run([*words, "--json"]) == 1
    (skipped,) = json.loads(capsys.readouterr().out)["skipped"]
    file = f"{photos}/caf\ufffd.png"
    assert skipped == {"file": file, "reason": f"{file}: its name is no UTF-8: rename it"}
    assert len(read(out) if form == "label-studio" else read(out)["images"]) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["PHOTOS", "--labels", ""], "no labels"),
        (["PHOTOS", "--labels", "cat,,dog"], "an empty label"),
        (["PHOTOS", "--labels", "cat,dog,cat"], "label 'cat' comes twice"),
        (["PHOTOS", "--labels", "cat=", "--model", "MODEL"], "an empty prompt"),
        (["PHOTOS", "--caption", "a [cat", "--model", "MODEL"], "a '[' without its ']'"),
        (["PHOTOS", "--caption", ""], "--caption: the sentence is empty"),
        (["PHOTOS"], "say what to find"),
        (["PHOTOS", "--labels", "cat", "--caption", "[cat]"], "say what to find"),
        (["PHOTOS/none", "--labels", "cat"], "no such file or folder"),
        (["PHOTOS/*.tif", "--labels", "cat"], "no such file or folder"),
        (["EMPTY", "--labels", "cat"], "no images in"),
        (["PHOTOS", "--labels", "!!!", "--model", "MODEL"], "!!!"),
        (["PHOTOS", "--labels", "cat", "--prompts", "EMPTY/none"], "cannot read"),
        (["PHOTOS", "--labels", "cat", "--out", "PHOTOS/a.png/x.json"], "cannot write"),
        (["PHOTOS", "--label-config", "PHOTOS/a.png"], "no UTF-8 text"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_exit_code_2(
    words: list[str], complaint: str, model: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = photos.parent / "empty"
    empty.mkdir()
    places = {"PHOTOS": str(photos), "EMPTY": str(empty), "MODEL": model}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert run(["prelabel", *words]) == 2
    error = capsys.readouterr().err.splitlines()
    assert complaint in error[-1]
    assert all(line.startswith("glip-label: ") for line in error)
    assert not any("Traceback" in line for line in error)


def test_an_unknown_model_is_one_line_and_exit_code_1(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prelabel", str(photos), "--labels", "cat", "--model", "glip-xxl"]) == 1
    assert capsys.readouterr().err.startswith("glip-label: no model 'glip-xxl'")


def test_an_interrupted_run_writes_what_was_found_so_far(photos: Path, tmp_path: Path) -> None:
    class Interrupted(FakeDetector):
        def detect(self, *args: Any, **kwargs: Any) -> Any:
            if self.asked:
                raise KeyboardInterrupt
            return super().detect(*args, **kwargs)

    out = tmp_path / "boxes.json"
    with pytest.raises(KeyboardInterrupt):
        run_on(Interrupted(), photos, out)
    assert [image.file_name for image in read_coco(out).images] == ["a.png"]
    assert len(read(tmp_path / "boxes.results.json")) == 1


def test_a_model_that_fails_at_once_leaves_the_old_file_alone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    out.write_text("mine")
    with pytest.raises(ModelError):
        run_on(FakeDetector(error=ModelError("weights are damaged")), photos, out)
    assert out.read_text() == "mine"


def test_a_long_run_keeps_no_pixels(tmp_path: Path) -> None:
    held = []

    class Counting(FakeDetector):
        def detect(self, *args: Any, **kwargs: Any) -> Any:
            self.asked.clear()
            held.append(pictures_held())
            return super().detect(*args, **kwargs)

    photos, before = tmp_path / "photos", pictures_held()
    photos.mkdir()
    for number in range(6):
        Image.fromarray(noise(60, 80, seed=number)).save(photos / f"{number}.png")
    run_on(Counting(), photos, tmp_path / "boxes.json", draw=tmp_path / "drawn")
    assert len(held) == 6
    assert max(held) - before <= 3  # the one that is looked at, and those before it that the loop still names


def run_on(detector: FakeDetector, photos: Path, out: Path, draw: Path | None = None) -> None:
    options = Options(
        paths=(str(photos),),
        labels="cat",
        caption=None,
        label_config=None,
        prompts=None,
        model=None,
        out=out,
        format="coco",
        image_url_prefix="",
        draw=draw,
        threshold=None,
        batch_size=1,
        as_json=False,
    )
    images = sorted(path for path in photos.rglob("*.*"))
    settings = PrelabelSettings(score_threshold=0.3, batch_size=1)
    target = default_target(["cat"])
    prelabel.run(options, images, (Label("cat"),), target, detector=detector, settings=settings)


def test_control_c_ends_with_130_and_files_that_agree(model: str, tmp_path: Path) -> None:
    photos, drawn, out = tmp_path / "many", tmp_path / "drawn", tmp_path / "boxes.json"
    photos.mkdir()
    for number in range(400):
        Image.fromarray(noise(64, 96, seed=number)).save(photos / f"{number:03}.png")
    words = [str(photos), "--labels", "cat", "--model", model, "--draw", str(drawn), "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "backend.cli", "prelabel", *words],
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        preexec_fn=listen_to_control_c,
    ) as process:
        while process.poll() is None and not list(drawn.glob("*.png")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "glip-label: interrupted"
    names = {image.file_name for image in read_coco(out).images}
    assert 0 < len(names) < 400
    assert names <= {path.name for path in drawn.glob("*.png")}
    assert list(tmp_path.glob(".*")) == []
