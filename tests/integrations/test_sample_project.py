"""What the demo shows: its labelling config, its tasks' addresses and its pictures."""

from pathlib import Path

import pytest

from backend.demo_pictures import copy_pictures, write_scenes
from backend.domain.records import Label
from backend.errors import GlipLabelError
from backend.local_images import find_images
from integrations.label_studio.labels import parse_labeling_config
from integrations.label_studio.sample_project import SampleProject, labeling_config
from tests.full_disk import largest_file


def test_the_labelling_config_brings_labels_prompts_and_a_prompt_field_back() -> None:
    labels = (Label("cat & <dog>"), Label('"RBC"', ("red blood cell", "erythrocyte")))

    config = parse_labeling_config(labeling_config(labels))

    (target,) = config.targets
    assert target.labels == labels
    assert (target.name, target.data_key) == ("image", "image")
    assert config.prompt_controls == {"prompt"}


def test_a_task_names_its_picture_below_the_document_root() -> None:
    folder = Path("/srv/files/photos-1a2b")
    sample = SampleProject("Photos", (), folder, (folder / "a b" / "ü&1.jpg",))
    assert sample.addresses == ["/data/local-files/?d=photos-1a2b/a%20b/%C3%BC%261.jpg"]


def test_scenes_are_drawn_once_and_the_same_everywhere(tmp_path: Path) -> None:
    first = write_scenes(tmp_path / "one", 2)
    again = write_scenes(tmp_path / "two", 2)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]

    first[0].write_bytes(b"kept")
    write_scenes(tmp_path / "one", 2)
    assert first[0].read_bytes() == b"kept"


def test_copies_keep_their_relative_names_and_follow_changes(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    picture = source / "day 1" / "a.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"first")

    folder, (copy,) = copy_pictures([picture], source, tmp_path / "files")
    assert copy == folder / "day 1" / "a.jpg"
    assert folder.parent == tmp_path / "files"

    picture.write_bytes(b"changed")
    copy_pictures([picture], source, tmp_path / "files")
    assert copy.read_bytes() == b"changed"


def test_linked_pictures_and_folders_are_copied_under_the_names_of_the_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/1.jpg").write_bytes(b"far")
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.jpg").symlink_to(tmp_path / "store/1.jpg")
    (tmp_path / "real/day").symlink_to(tmp_path / "store")
    (tmp_path / "photos").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "store")
    source = Path("../photos")

    folder, copies = copy_pictures(find_images([str(source)]), source, tmp_path / "files")

    assert [copy.relative_to(folder).as_posix() for copy in copies] == ["a.jpg", "day/1.jpg"]
    assert [copy.read_bytes() for copy in copies if not copy.is_symlink()] == [b"far", b"far"]


def test_a_picture_that_cannot_be_copied_is_one_error(tmp_path: Path) -> None:
    source, files = tmp_path / "photos", tmp_path / "files"
    source.mkdir()
    gone, large = source / "gone.jpg", source / "large.jpg"
    gone.symlink_to("nowhere.jpg")
    large.write_bytes(bytes(8192))
    with pytest.raises(GlipLabelError, match=rf"^cannot copy {gone} to {files}/.*: No such file or directory$"):
        copy_pictures([gone], source, files)
    with largest_file(4096), pytest.raises(GlipLabelError, match=rf"^cannot copy {large} to .*: File too large$"):
        copy_pictures([large], source, files)
    _, (copy,) = copy_pictures([large], source, files)
    assert copy.read_bytes() == bytes(8192)


def test_a_scene_that_cannot_be_written_is_one_error_and_drawn_the_next_time(tmp_path: Path) -> None:
    with largest_file(4096), pytest.raises(GlipLabelError, match=r"^cannot write .*scene-001\.png: File too large$"):
        write_scenes(tmp_path, 1)
    (path,) = write_scenes(tmp_path, 1)
    assert path.stat().st_size > 4096


def test_folders_of_one_name_do_not_mix(tmp_path: Path) -> None:
    folders = set()
    for parent in ("a", "b"):
        picture = tmp_path / parent / "photos" / "1.jpg"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"")
        folders.add(copy_pictures([picture], picture.parent, tmp_path / "files")[0])
    assert len(folders) == 2
