"""Files that appear whole or not at all."""

from contextlib import suppress
from pathlib import Path

from integrations.written_aside import written_aside


def test_a_file_appears_when_it_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "d/a.txt"
    with suppress(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "d").iterdir()) == []
    with written_aside(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert [each.read_text() for each in (tmp_path / "d").iterdir()] == ["whole"]


def test_a_name_may_be_as_long_as_file_systems_allow_and_two_files_are_written_at_once(tmp_path: Path) -> None:
    path, other = tmp_path / ("n" * 255), tmp_path / ("m" * 255)
    with written_aside(path) as aside, written_aside(other) as other_aside:
        aside.write_text("one")
        other_aside.write_text("two")
    assert (path.read_text(), other.read_text()) == ("one", "two")
