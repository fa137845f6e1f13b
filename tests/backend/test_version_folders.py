"""Folders of jobs and of versions, which need not be on one file system."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.domain.learning import JobState, TrainingJob, TrainingRequest
from backend.errors import StorageError
from backend.version_folders import VersionFolders
from tests.full_disk import largest_file

JOB = TrainingJob(1, "7.1795423412", TrainingRequest("command"), JobState.RUNNING, datetime.now(UTC), attempts=1)


def staged_in(home: Path, *jobs: TrainingJob) -> VersionFolders:
    folders = VersionFolders(home)
    for job in jobs:
        (folders.work(job.id) / "adapter.json").write_text("[]")
        folders.stage(job, {})
    return folders


def test_a_version_is_put_together_beside_the_others_so_that_a_rename_suffices_where_these_are_shared(
    tmp_path: Path,
) -> None:
    folders = staged_in(tmp_path, JOB)
    assert [path.name for path in (tmp_path / "jobs" / "1").iterdir()] == ["adapter.json"]
    (beside,) = (tmp_path / "versions" / JOB.project).iterdir()
    assert beside.name.startswith(".")  # no version yet
    folders.reveal(JOB, "glip-nano-0001")
    (version,) = (tmp_path / "versions" / JOB.project).iterdir()
    assert version.name == "glip-nano-0001"
    assert sorted(path.name for path in version.iterdir()) == ["adapter.json", "version.json"]


def test_what_claims_of_a_job_put_together_in_vain_is_discarded_with_it_and_that_of_others_stays(
    tmp_path: Path,
) -> None:
    other = replace(JOB, id=11)
    folders = staged_in(tmp_path, JOB, replace(JOB, attempts=2), other)
    folders.discard(JOB.id)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["11"]
    assert len(list((tmp_path / "versions" / JOB.project).iterdir())) == 1
    folders.reveal(other, "glip-nano-0001")


def test_what_had_no_room_is_not_left_to_take_more(tmp_path: Path) -> None:
    folders = VersionFolders(tmp_path)
    (folders.work(JOB.id) / "model.safetensors").write_bytes(bytes(8192))
    with largest_file(4096), pytest.raises(StorageError, match="cannot be written"):
        folders.stage(JOB, {})
    assert list((tmp_path / "versions" / JOB.project).iterdir()) == []
