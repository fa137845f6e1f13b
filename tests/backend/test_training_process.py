"""The child that trains: what the service that started it owes to people who wait for answers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from backend.commands.train import watch
from backend.domain.learning import JobState
from backend.errors import TrainingError
from backend.services.training import Training
from backend.settings import child_environment
from backend.training_process import TrainingProcess
from tests.backend.test_killed_training import prepare
from tests.facts import UID
from tests.slow_ending_child import ANNOUNCED
from tests.training_child import learn_in


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads from /proc what the child has loaded")
def test_a_child_that_is_stopped_before_it_has_a_job_ends_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process = TrainingProcess(lambda: True, child_environment(HOME=str(tmp_path), DATABASE_URL=""))
    process()
    try:
        _wait_for(lambda: b"sklearn" in Path(f"/proc/{process.pid}/maps").read_bytes(), seconds=60)  # amid its imports
    finally:
        process.close()
    assert capfd.readouterr() == ("", "")


def test_a_child_whose_job_is_closed_is_waited_for_until_label_studio_was_told(tmp_path: Path) -> None:
    training = Training(prepare(tmp_path))
    (job,) = training.of(UID)
    environment = child_environment(HOME=str(tmp_path), DATABASE_URL="")
    waits = lambda: job.id in training.claimable()  # noqa: E731
    done = watch(training, job, TrainingProcess(waits, environment, job.id, "tests.slow_ending_child"))
    assert done.state is JobState.DONE
    assert (tmp_path / ANNOUNCED).exists()
    assert list((tmp_path / "jobs").iterdir()) == []


def test_what_ends_before_it_takes_the_job_is_not_tried_again_by_who_waits_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training = Training(prepare(tmp_path))
    (job,) = training.of(UID)
    environment = child_environment(HOME=str(tmp_path), DATABASE_URL="", MODEL="glip-x")
    with pytest.raises(TrainingError, match=f"^job {job.id} waits, since training could not begin: cure"):
        watch(training, job, TrainingProcess(lambda: True, environment, job.id))
    assert "no model 'glip-x'" in capfd.readouterr().err
    assert training.of(UID) == [job]


def test_a_child_that_is_stopped_as_soon_as_it_has_the_job_gives_it_back(tmp_path: Path) -> None:
    training = Training(prepare(tmp_path))
    (job,) = training.of(UID)
    command = [sys.executable, "-m", "tests.stopped_child", str(job.id)]
    done = subprocess.run(command, env=child_environment(HOME=str(tmp_path), DATABASE_URL=""), capture_output=True)
    assert done.returncode == 0
    assert b"job=1 stopped" in done.stderr
    assert training.of(UID)[0].attempts == 1
    assert training.claimable() == [job.id]


def test_what_ends_with_the_job_in_hand_is_followed_by_another(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training = Training(prepare(tmp_path))
    (job,) = training.of(UID)
    in_the_way = tmp_path / "jobs"
    in_the_way.touch()

    def waits() -> bool:
        if training.of(UID)[0].attempts and in_the_way.is_file():
            in_the_way.unlink()
        return job.id in training.claimable()

    environment = child_environment(HOME=str(tmp_path), DATABASE_URL="")
    fast = lambda: 100 * time.monotonic()  # noqa: E731
    done = watch(training, job, TrainingProcess(waits, environment, job.id, "tests.slow_ending_child", fast))
    assert (done.state, done.attempts) == (JobState.DONE, 2)
    told = capfd.readouterr().err
    assert "jobs/1: cannot be made" in told
    assert told.count("training: its process ended with exit code 1; the next one starts in 5 s at the earliest") == 1


def test_after_children_that_ended_badly_the_next_waits_longer_each_time(tmp_path: Path) -> None:
    now, waiting, script = [0.0], [True], tmp_path / "child.py"
    environment = {**child_environment(), "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    process = TrainingProcess(lambda: waiting[0], environment, module="child", clock=lambda: now[0])

    def run() -> None:
        process()
        while process.pid is not None:
            time.sleep(0.01)
            process()

    script.write_text("raise SystemExit(3)")
    for pause in (5, 10, 20, 40, 80, 160, 320, 600, 600):
        with pytest.raises(TrainingError, match=f"exit code 3; the next one starts in {pause} s"):
            run()
        now[0] += pause - 1
        process()
        assert process.pid is None
        now[0] += 1
    script.write_text("")
    process()
    waiting[0] = False
    run()
    waiting[0] = True
    script.write_text("raise SystemExit(3)")
    with pytest.raises(TrainingError, match="the next one starts in 5 s"):
        run()


def test_a_child_that_does_not_end_is_stopped_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = TrainingProcess(lambda: True, child_environment(HOME=str(tmp_path), DATABASE_URL=""))
    process()
    process.finish(f"{socket.gethostname()}:{process.pid}", 0.01)
    process.close()
    assert "does not end within 0.01 s and is stopped" in caplog.text


def test_a_child_that_came_too_late_for_the_job_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(prepare(tmp_path))
    (job,) = training.of(UID)

    def waits() -> bool:  # another worker takes the job while our child comes up
        if process.pid is None and (claim := training.claim("faster")) is not None:
            _, learn = learn_in(tmp_path, 0.0, lambda project: None)
            learn(claim)
        return True

    process = TrainingProcess(waits, child_environment(HOME=str(tmp_path), DATABASE_URL=""), module="tests.idle_child")
    begun = time.monotonic()
    assert watch(training, job, process).worker == "faster"
    assert time.monotonic() - begun < 30
    assert "does not end" not in caplog.text


def test_without_a_job_no_child_is_started(tmp_path: Path) -> None:
    process = TrainingProcess(lambda: False, child_environment(HOME=str(tmp_path), DATABASE_URL=""))
    process()
    assert process.pid is None
    process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the child's environment from /proc")
@pytest.mark.parametrize(("own", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_its_threads_sleep_while_they_wait_unless_told_otherwise(
    tmp_path: Path, own: Mapping[str, str], policy: str
) -> None:
    environment = {**child_environment(HOME=str(tmp_path), DATABASE_URL=""), **own}
    process = TrainingProcess(lambda: True, environment)
    process()
    try:
        assert f"OMP_WAIT_POLICY={policy}".encode() in _environment(process.pid)
    finally:
        process.close()


def _environment(pid: int | None) -> list[bytes]:
    """Of a process that was just started, which has none for its first moment."""
    given = Path(f"/proc/{pid}/environ")
    _wait_for(given.read_bytes)
    return given.read_bytes().split(b"\0")


def _wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)
