"""Which pictures are meant, and what is in them."""

from pathlib import Path

import pytest

from backend.errors import ImageError, UsageError
from backend.local_images import LocalImages, find_images, relative_names
from tests.make import image_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.JPG", "notes.txt", ".hidden.png", "deep/er/c.tif", ".git/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_means_all_images_below_it_but_hidden_ones(folder: Path) -> None:
    assert names(find_images([str(folder)]), folder) == ["a.png", "b.JPG", "deep/er/c.tif"]


def test_linked_folders_are_looked_into_and_circles_of_links_end(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.jpg").touch()
    (folder / "linked").symlink_to(elsewhere)
    for circle, end in ((elsewhere / "back", folder), (folder / "round", folder), (folder / "self", Path("self"))):
        circle.symlink_to(end)
    assert names(find_images([str(folder)]), folder) == ["a.png", "b.JPG", "deep/er/c.tif", "linked/far.jpg"]


def test_a_pattern_means_the_images_it_matches(folder: Path) -> None:
    assert names(find_images([str(folder / "*")]), folder) == ["a.png", "b.JPG", "deep/er/c.tif"]
    assert names(find_images([str(folder / "**" / "*.tif")]), folder) == ["deep/er/c.tif"]


def test_a_file_counts_whatever_its_name(folder: Path) -> None:
    assert names(find_images([str(folder / "notes.txt")]), folder) == ["notes.txt"]


def test_a_file_named_twice_counts_once(folder: Path) -> None:
    again = folder / "deep" / ".." / "a.png"
    assert len(find_images([str(folder / "a.png"), str(again), str(folder)])) == 3


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(folder: Path) -> None:
    (folder / "x[1].png").touch()
    assert names(find_images([str(folder / "x[1].png")]), folder) == ["x[1].png"]


def test_the_folder_left_out_is_left_out(folder: Path) -> None:
    assert names(find_images([str(folder)], outside=folder / "deep"), folder) == ["a.png", "b.JPG"]


def test_a_folder_left_out_that_holds_all_images_is_said_to_be_the_cause(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"all images in .*deep lie in .*, where drawings go: give another folder"):
        find_images([str(folder / "deep")], outside=folder)


@pytest.mark.parametrize("outside", ["photos", "link"])
@pytest.mark.parametrize("typed", ["photos", "link", "link/a.png", "lin*", "one.png"])
def test_the_folder_left_out_is_left_out_by_whichever_link_it_is_called(
    typed: str, outside: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "one.png").symlink_to(tmp_path / "photos/a.png")
    with pytest.raises(UsageError, match="where drawings go: give another folder"):
        find_images([str(tmp_path / typed)], outside=tmp_path / outside)


def test_what_lies_elsewhere_behind_a_link_in_the_folder_left_out_is_left_out(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.jpg").touch()
    (folder / "deep/linked").symlink_to(elsewhere)
    assert names(find_images([str(folder)], outside=folder / "deep"), folder) == ["a.png", "b.JPG"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("none.png", "no such file"), (".git/none/", "no such file"), (300 * "x" + ".png", "no such file")],
)
def test_what_is_not_there_is_named(folder: Path, name: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        find_images([str(folder), str(folder / name)])


def test_a_folder_without_images_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no images in .*empty"):
        find_images([str(folder), str(folder / "empty")])


def test_names_are_relative_to_the_deepest_common_folder(folder: Path) -> None:
    assert relative_names([folder / "deep" / ".." / "a.png", folder / "deep" / "er" / "c.tif"]) == [
        "a.png",
        "deep/er/c.tif",
    ]
    assert relative_names([folder / "a.png"]) == ["a.png"]


def test_a_picture_is_upright_and_known_by_its_files_digest(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(image_bytes(8, 6, "JPEG", orientation=6))
    picture = LocalImages().fetch(str(file))
    assert (picture.width, picture.height, len(picture.rgb)) == (6, 8, 3 * 48)
    assert picture.source == str(file)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_picture_that_cannot_be_had_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.jpg: "):
        LocalImages().fetch(str(file))
