"""File names of a data set's images."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.file_names import MAX_PART_BYTES, collision_key, readable_name, shown_reference, told_apart
from backend.services.file_names import FileNames

references = st.text() | st.builds(
    "{}{}{}".format,
    st.sampled_from(
        ["", "/", "d/", "/data/upload/7/0134dd4e-", "http://u:p@h/", "/data/local-files/?d=", "s3://bucket/", "data:"]
    ),
    st.text(max_size=300),
    st.sampled_from(["", ".png", ".jpg?X-Amz-Signature=secret", "#fragment"]),
)


@pytest.mark.parametrize(
    ("reference", "shown", "name"),
    [
        ("/data/upload/7/0134dd4e-e0.png", "/data/upload/7/0134dd4e-e0.png", "e0.png"),
        ("/sub/data/upload/7/0134dd4e-a%20b.png?x=1", "/sub/data/upload/7/0134dd4e-a%20b.png", "a b.png"),
        ("/data/local-files/?d=loc/d1/a%20b.png", "loc/d1/a b.png", "loc/d1/a b.png"),
        ("http://host:8080/data/local-files/?d=loc/d1/x.png", "loc/d1/x.png", "loc/d1/x.png"),
        ("http://me:secret@host/a/b.jpg?token=secret#x", "http://host/a/b.jpg", "a/b.jpg"),
        ("s3://bucket/key/100%25?.png", "s3://bucket/key/100%25?.png", "key/100%25_.png"),
        ("data:image/png;base64,AAAA", "data:image/png", "image"),
        ("100%25.png", "100%25.png", "100%25.png"),
        ("d\\x\\a.png", "d\\x\\a.png", "d/x/a.png"),
        ("../../etc/./a.png", "../../etc/./a.png", "etc/a.png"),
        ("Nul.png", "Nul.png", "_Nul.png"),
        ("größe\u0301.png", "größe\u0301.png", "größé.png"),
        ("", "", "image"),
    ],
)
def test_a_name_is_readable_and_leaks_nothing(reference: str, shown: str, name: str) -> None:
    assert (shown_reference(reference), readable_name(reference)) == (shown, name)


@settings(deadline=None)
@given(references)
def test_every_name_fits_every_file_system(reference: str) -> None:
    name = readable_name(reference)
    assert not PurePosixPath(name).is_absolute()
    assert not PureWindowsPath(name).drive
    for part in name.split("/"):
        assert part not in ("", ".", "..")
        assert len(part.encode()) <= MAX_PART_BYTES
    assert name.isprintable() or " " in name or not name.isascii()


@settings(deadline=None)
@given(references)
def test_what_is_shown_leads_to_the_same_name_again(reference: str) -> None:
    shown = shown_reference(reference)
    assert shown_reference(shown) == shown
    assert readable_name(shown) == readable_name(reference)


@settings(deadline=None)
@given(
    st.lists(
        references | st.sampled_from(["a.png", "A.PNG", "a-2.png", "a-3.png", "a.png/b", "A.png/b/c"]), max_size=12
    )
)
def test_no_two_images_share_a_name_and_none_is_the_folder_of_another(references: list[str]) -> None:
    with FileNames() as names:
        given_names = [names.give(reference, number) for number, reference in enumerate(references, start=1)]
    keys = {collision_key(name) for name in given_names}
    assert len(keys) == len(references)
    assert keys.isdisjoint(str(folder) for key in keys for folder in PurePosixPath(key).parents)


@pytest.mark.parametrize(
    ("references", "expected"),
    [(["d", "d/a.png", "D/a.png"], ["d", "d_a.png", "D_a-3.png"]), (["d/a.png", "d"], ["d/a.png", "d-2"])],
)
def test_a_file_named_like_a_folder_stands_beside_it(references: list[str], expected: list[str]) -> None:
    with FileNames() as names:
        assert [names.give(name, number) for number, name in enumerate(references, 1)] == expected


def test_folders_keep_equal_names_apart_and_ids_do_the_rest() -> None:
    with FileNames() as names:
        given_names = [names.give(name, number) for number, name in enumerate(["d/a.png", "d/x/a.png", "D/A.png"], 1)]
    assert given_names == ["d/a.png", "d/x/a.png", "D/A-3.png"]


def test_the_id_stands_before_the_ending() -> None:
    assert (told_apart("d.e/a", 4), told_apart("d/.png", 4), told_apart("a.tar.gz", 4)) == (
        "d.e/a-4",
        "d/.png-4",
        "a.tar-4.gz",
    )
