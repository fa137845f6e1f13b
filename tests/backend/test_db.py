"""The database: migrations, the stores in it, and what is said when it cannot be used."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, event, inspect, select, text
from sqlalchemy.orm import Session

from backend.db.engine import open_engine
from backend.db.letterbox import open_letterbox
from backend.db.schema import check, open_prepared, prepare, upgrade
from backend.db.tables import Base, PredictionRegionRow
from backend.db.unit_of_work import SqlUnitOfWork
from backend.domain.geometry import Box
from backend.domain.records import Prediction, Proposal, Region
from backend.errors import StorageError
from backend.settings import Settings
from tests.facts import UID


def make_prediction(identity: str = "p1", task_id: int = 1, regions: int = 2) -> Prediction:
    return Prediction(
        task_id,
        "nano-1",
        64,
        48,
        tuple(
            Region(f"{identity}-{index}", Proposal(Box(0.125, 1, 2.5, 3), "cat", 0.5 - index / 10, "kitten"))
            for index in range(regions)
        ),
        identity,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "glip.sqlite3"


@pytest.fixture
def sqlite(file: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{file}")
    yield engine
    engine.dispose()


def store(engine: Engine, *predictions: Prediction) -> None:
    with SqlUnitOfWork(engine) as unit:
        for prediction in predictions:
            unit.predictions.add(UID, "key", prediction)
        unit.commit()


def test_the_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    assert upgrade(engine) == upgrade(engine) == check(engine)


def test_an_empty_database_is_made_ready_and_one_with_data_stays(engine: Engine) -> None:
    prepare(engine)
    store(engine, make_prediction())
    prepare(engine)
    with SqlUnitOfWork(engine) as unit:
        assert unit.predictions.find(UID, 1, "nano-1", "key") == make_prediction()


def test_an_older_schema_is_refused_with_the_command_to_run(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE predictions (id INTEGER)"))
    with pytest.raises(StorageError, match="glip-label db upgrade"):
        prepare(engine)


def test_a_newer_schema_is_refused_and_left_alone(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (prepare, check, upgrade):
        with pytest.raises(StorageError, match="newer glip-label"):
            use(engine)


def test_predictions_come_back_as_they_were_with_their_regions_in_order(engine: Engine) -> None:
    upgrade(engine)
    empty = make_prediction("p2", task_id=2, regions=0)
    store(engine, make_prediction(), empty)
    with SqlUnitOfWork(engine) as unit:
        assert unit.predictions.find(UID, 1, "nano-1", "key") == make_prediction()
        assert unit.predictions.find(UID, 2, "nano-1", "key") == empty
        others = (
            ("7.1", 1, "nano-1", "key"),
            (UID, 3, "nano-1", "key"),
            (UID, 1, "nano-2", "key"),
            (UID, 1, "nano-1", "k"),
        )
        assert not any(unit.predictions.find(*other) for other in others)


def test_a_prediction_that_another_process_stored_first_stays(engine: Engine) -> None:
    upgrade(engine)
    store(engine, make_prediction())
    store(engine, make_prediction(regions=1), make_prediction("p2", task_id=2))
    with SqlUnitOfWork(engine) as unit:
        assert unit.predictions.find(UID, 1, "nano-1", "key") == make_prediction()
        assert unit.predictions.find(UID, 2, "nano-1", "key") is not None


def test_what_is_not_committed_is_forgotten(engine: Engine) -> None:
    upgrade(engine)
    with SqlUnitOfWork(engine) as unit:
        unit.predictions.add(UID, "key", make_prediction())
    with Session(engine) as session:
        assert session.scalars(select(PredictionRegionRow)).all() == []


def test_threads_may_write_at_once(engine: Engine) -> None:
    upgrade(engine)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store(engine, make_prediction(f"p{number}", number)), range(24)))
    with Session(engine) as session:
        assert len(session.scalars(select(PredictionRegionRow)).all()) == 48


def test_two_that_open_an_empty_database_at_once_make_its_tables_once(engine: Engine) -> None:
    other = open_engine(engine.url.render_as_string(hide_password=False))
    with ThreadPoolExecutor(1) as threads:
        opened: list[Future[None]] = []

        def meanwhile(_connection: Connection) -> None:
            opened.append(threads.submit(prepare, other))
            sleep(0.5)  # it waits by then

        event.listen(engine, "commit", meanwhile, once=True)
        prepare(engine)
        opened[0].result()
    other.dispose()


def test_a_projects_threshold_is_kept_changed_and_taken_back(engine: Engine) -> None:
    upgrade(engine)
    for value in (0.25, 0.5, None):
        with SqlUnitOfWork(engine) as unit:
            unit.projects.set_score_threshold("7.1", value)
            unit.commit()
        with SqlUnitOfWork(engine) as unit:
            assert unit.projects.score_threshold("7.1") == value
            assert unit.projects.score_threshold("8.1") is None


def test_sqlite_writes_ahead(sqlite: Engine) -> None:
    upgrade(sqlite)
    with sqlite.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert inspect(sqlite).has_table("predictions")


def test_the_default_database_and_its_letterbox_lie_in_the_home_whatever_that_is_called(tmp_path: Path) -> None:
    home = tmp_path / "feature%2Fx @y:z? #1%41"
    engine = open_prepared(Settings.from_env({"GLIP_LABEL_HOME": str(home)}).database_url)
    assert open_letterbox(engine) is not None
    assert {file.name for file in home.glob("*.sqlite3*") if not file.name.endswith(("-wal", "-shm"))} == {
        "glip-label.sqlite3",
        "glip-label.sqlite3-letterbox",
    }
    engine.dispose()


def test_a_read_only_database_is_said_in_one_line(sqlite: Engine) -> None:
    upgrade(sqlite)
    sqlite.dispose()
    read_only = open_engine(f"sqlite:///file:{sqlite.url.database}?mode=ro&uri=true")
    with pytest.raises(StorageError, match="readonly") as refused:
        store(read_only, make_prediction())
    assert "\n" not in str(refused.value)
    assert "INSERT" not in str(refused.value)
    read_only.dispose()


def test_a_file_that_is_no_database_is_said_in_one_line(file: Path) -> None:
    file.write_bytes(b"not a database" * 100)
    engine = open_engine(f"sqlite:///{file}")
    with pytest.raises(StorageError, match="not a database"):
        prepare(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "URL"),
        ("nosuch://x", "URL"),
        (f"sqlite:///{os.devnull}/x/glip.sqlite3", "folder"),
        ("postgresql://me:s3cret@127.0.0.1:9/glip", "failed"),
    ],
)
def test_a_database_that_cannot_be_opened_is_said_without_its_password(url: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as refused:
        prepare(open_engine(url))
    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)
