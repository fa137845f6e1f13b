"""``glip-label stats`` from the words typed to the table printed."""

import json
from pathlib import Path

import pytest

from backend.analysis.acceptance import acceptance_table
from backend.analysis.work_saved import SavedShare, WorkSaved
from backend.bootstrap import open_database
from backend.cli import run
from backend.commands.stats import lines, work_lines
from backend.domain.verdicts import VerdictKind
from backend.services.corrections import apply_fact
from backend.settings import Settings
from tests.backend.test_acceptance import moved, verdict
from tests.facts import annotated, make_annotation, make_region

TABLE = """\
label          model version  shown  accepted  moved  relabelled  deleted  added
cat            glip-1             3         2      1           0        0      0
cat            (none)             0         0      0           0        0      1
traffic light  glip-1             1         0      0           0        1      0
(all)          glip-1             4         2      1           0        1      0
(all)          (none)             0         0      0           0        0      1

label          model version  acceptance %     edit %  relabel %    deletion %    miss %   precision %      recall %
cat            glip-1           67 (21-94)  33 (6-79)   0 (0-56)      0 (0-56)  0 (0-56)  100 (44-100)  100 (44-100)
cat            (none)                    -          -          -             -         -             -             -
traffic light  glip-1             0 (0-79)   0 (0-79)   0 (0-79)  100 (21-100)         -      0 (0-79)             -
(all)          glip-1           50 (15-85)  25 (5-70)   0 (0-49)     25 (5-70)  0 (0-56)    75 (30-95)  100 (44-100)
(all)          (none)                    -          -          -             -         -             -             -

label          model version  IoU moved  left px  top px  right px  bottom px    s  s p90
cat            glip-1             0.800     -1.3    +0.0      +3.0       +0.0  2.4    2.4
cat            (none)                 -        -       -         -          -  2.4    2.4
traffic light  glip-1                 -        -       -         -          -  2.4    2.4
(all)          glip-1             0.800     -1.3    +0.0      +3.0       +0.0  2.4    2.4
(all)          (none)                 -        -       -         -          -  2.4    2.4

Annotations: 1. Overlap and edges: medians of the moved. s: seconds per verdict, median."""


def test_the_table_shows_counts_then_rates_then_what_was_moved() -> None:
    cats = [verdict(annotation_id=1, lead_time=12.0)] * 2 + [moved(0.8, -1.26, 0, 3, 0.04)]
    others = [verdict(VerdictKind.DELETED, "traffic light"), verdict(VerdictKind.ADDED, model_version=None)]
    assert "\n".join(lines(acceptance_table([*cats, *others]))) == TABLE


def test_without_verdicts_the_table_says_so() -> None:
    assert list(lines(acceptance_table([]))) == [
        "no verdicts yet: none of the annotations that are known answers a prediction or adds a region"
    ]


def test_a_label_of_several_lines_stays_in_its_row() -> None:
    text = list(lines(acceptance_table([verdict(label="a\nb")])))
    assert text[1].startswith("'a\\nb'  glip-1")


def test_the_command_reads_the_database_and_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))
    monkeypatch.delenv("GLIP_LABEL_DATABASE_URL", raising=False)
    with open_database(Settings.from_env())() as unit:
        apply_fact(unit, annotated(make_annotation(1, 0, make_region("hand", "cat"))))
        unit.commit()
    assert run(["stats", "--project", "7", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [(row["label"], row["added"]) for row in written["labels"]] == [("cat", 1)]
    assert run(["stats", "--project", "7"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("label  model version")
    assert "Seconds saved: 0 annotations on proposals tell their time (0 s, 0 do not); an estimate needs ten" in told


def test_what_was_saved_is_told_with_its_intervals_and_the_times_it_rests_on() -> None:
    work = WorkSaved(12, 3, 345.6, {"accepted": 0.5, "added": 6.96}, {"7 s per box": SavedShare(0.425, -0.1, 0.6)})
    assert list(work_lines(work)) == [
        "Seconds saved, of drawing every box; 12 annotations on proposals tell their time (346 s, 3 do not):",
        "  7 s per box  42 % (-10 to 60)",
        "Seconds per act, fitted where there are 20: accepted 0.5, added 7.0.",
    ]


def test_where_people_drew_little_their_own_pace_is_not_told_and_why() -> None:
    work = WorkSaved(12, 0, 345.6, {}, {"25.5 s per box": SavedShare(0.425, -0.1, 0.6)})
    assert list(work_lines(work))[1:] == [
        "  25.5 s per box  42 % (-10 to 60)",
        "  own pace        not told: people drew fewer than 20 boxes in annotations with a time",
    ]


def test_a_project_that_is_not_known_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLIP_LABEL_HOME", str(tmp_path))
    monkeypatch.delenv("GLIP_LABEL_DATABASE_URL", raising=False)
    assert run(["stats", "--project", "street"]) == 2
    error = "no project 'street' is known: none has sent anything to this database: run `glip-label connect`"
    assert capsys.readouterr().err == f"glip-label: {error}\n"
