"""The child that trains: what the service that started it owes to people who wait for answers."""

import os
from pathlib import Path

from backend.settings import child_environment
from backend.training_process import TrainingProcess


def test_the_child_is_in_our_session_where_its_low_priority_counts_and_spared_by_ctrl_c(tmp_path: Path) -> None:
    process = TrainingProcess(lambda: True, child_environment(HOME=str(tmp_path), DATABASE_URL=""))
    process()
    try:
        pid = process.pid
        assert pid is not None
        assert os.getsid(pid) == os.getsid(0)
        assert os.getpgid(pid) == pid
    finally:
        process.close()


def test_without_a_job_no_child_is_started(tmp_path: Path) -> None:
    process = TrainingProcess(lambda: False, child_environment(HOME=str(tmp_path), DATABASE_URL=""))
    process()
    assert process.pid is None
    process.close()
