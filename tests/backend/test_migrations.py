"""Migrations keep what is in the tables, up and down, on both kinds of database."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, text

from backend.db.schema import check, upgrade
from backend.db.tables import Base
from backend.errors import StorageError

MOMENT = datetime(2026, 11, 23, 8, 46, 43, 63427, UTC)
BEFORE: dict[str, list[dict[str, Any]]] = {
    "projects": [
        {"uid": "7.1795423412", "score_threshold": 0.25},
        {"uid": "12", "score_threshold": None},
    ],
    "predictions": [
        {
            "id": "p1",
            "project_id": 7,
            "task_id": 3,
            "model_version": "nano-1",
            "query_key": "key",
            "width": 64,
            "height": 48,
            "created_at": MOMENT,
        }
    ],
    "prediction_regions": [
        {
            "id": "p1-0",
            "prediction_id": "p1",
            "position": 0,
            "label": "cat",
            "prompt": "kitten",
            "score": 0.5,
            "x1": 1.0,
            "y1": 2.0,
            "x2": 3.0,
            "y2": 4.0,
        }
    ],
}
ADDED: dict[str, list[dict[str, Any]]] = {
    "labels": [{"project_uid": "12", "number": 1, "name": "Schiff 🚢"}],
    "tasks": [{"id": 1, "project_uid": "12", "label_studio_id": 2**33, "updated_at": None, "deleted": False}],
    "images": [{"task_id": 1, "data_key": "image", "reference": "/data/a.png"}],
    "annotations": [{"id": 1, "project_uid": "12", "label_studio_id": 5, "deleted": False}],
    "annotation_versions": [
        {
            "id": 1,
            "annotation_id": 1,
            "task_id": 1,
            "created_at": MOMENT,
            "updated_at": MOMENT,
            "cancelled": False,
            "ground_truth": True,
        }
    ],
    "annotation_regions": [
        {
            "version_id": 1,
            "position": 0,
            "region_id": "r",
            "image": "image",
            "labels": "[]",
            **dict.fromkeys(("x", "y", "width", "height", "rotation"), 1.5),
        }
    ],
    "verdicts": [{"version_id": 1, "position": 0, "kind": "added"}],
    "model_versions": [
        {
            "id": 1,
            "project_uid": "12",
            "name": "glip-nano-0001",
            "parent": "glip-nano-3f9a12cd",
            "base": "glip-nano-3f9a12cd",
            "mode": "prompt",
            "fingerprint": "0" * 64,
            "files": "{}",
            "metrics": "{}",
            "created_at": MOMENT,
        }
    ],
    "aliases": [
        {
            "id": 1,
            "project_uid": "12",
            "alias": "production",
            "version_id": 1,
            "kind": "promotion",
            "moved_at": MOMENT,
            "actor": "gate",
            "reason": "better",
            "numbers": "{}",
        }
    ],
    "training_jobs": [
        {"id": 1, "project_uid": "12", "request": "{}", "state": "queued", "requested_at": MOMENT, "attempts": 0}
    ],
    "fits": [
        {
            "id": "f",
            "project_uid": "12",
            "model_version": "nano-1",
            "judgements": 3,
            "fitted_at": MOMENT,
            "fitted": "{}",
        }
    ],
    "rehearsals": [
        {
            "id": 1,
            "project_uid": "12",
            "model_version": "glip-nano-0001",
            "image": "0" * 64,
            "label": "Schiff 🚢",
            "score": 0.5,
            "kind": "accepted",
            "iou": 1.0,
        }
    ],
    "inbox": [{"id": 1, "received_at": MOMENT, "action": "TASKS_CREATED", "payload": "{}"}],
}


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection
        connection.commit()


def migrate(engine: Engine, revision: str) -> None:
    with connected(engine) as connection:
        config = Config()
        config.set_main_option("script_location", "migrations")
        config.attributes["connection"] = connection
        (command.downgrade if revision == "0001" and tables(connection) else command.upgrade)(config, revision)


def tables(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but Alembic's, by name."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {
        table.name: [dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()]
        for table in metadata.sorted_tables
        if table.name != "alembic_version"
    }


def fill(engine: Engine, rows: dict[str, list[dict[str, Any]]]) -> None:
    with connected(engine) as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        for name, records in rows.items():
            connection.execute(metadata.tables[name].insert(), records)


def test_corrections_come_and_go_and_what_was_there_before_stays(engine: Engine) -> None:
    migrate(engine, "0001")
    fill(engine, BEFORE)
    with connected(engine) as connection:
        before = tables(connection)
    upgrade(engine)
    fill(engine, ADDED)
    with connected(engine) as connection:
        filled = tables(connection)
    migrate(engine, "0001")
    with connected(engine) as connection:
        again = tables(connection)

    assert again == before
    seen: dict[str, dict[str, Any]] = {
        "predictions": {
            "project_uid": "7.1795423412",
            **dict.fromkeys(("image", "reference", "sha256", "fit_id", "order")),
            "prompted": False,
            "hidden": "[]",
        },
        "prediction_regions": {"probability": None, "weight": 1.0},
    }
    expected = {name: [{**row, **added} for row in before[name]] for name, added in seen.items()}
    del expected["predictions"][0]["project_id"]
    assert {name: filled[name] for name in seen} == expected
    assert [tuple(row.values()) for row in filled["projects"]] == [
        ("12", None, 12, "", None, None),
        ("7.1795423412", 0.25, 7, "", None, None),
    ]
    assert {name for name, rows in filled.items() if rows} == {*BEFORE, *ADDED}
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_to_a_job_of_an_earlier_release_what_was_annotated_until_then_is_known(engine: Engine) -> None:
    migrate(engine, "0007")
    rows = {**ADDED, "annotation_versions": [{**ADDED["annotation_versions"][0], "id": 41}]}
    rows = {"projects": [{"uid": "12", "label_studio_id": 12, "title": ""}], **rows}
    del rows["annotation_regions"], rows["verdicts"]
    rows["training_jobs"] = [{**ADDED["training_jobs"][0], "progress": '{"stage": "train", "epochs": null}'}]
    fill(engine, rows)
    upgrade(engine)
    with connected(engine) as connection:
        (job,) = tables(connection)["training_jobs"]
    assert (job["seen"], job["learnt"], job["progress"]) == (41, 0, None)


def test_predictions_of_earlier_releases_go_to_the_project_that_was_new_when_they_were_made(engine: Engine) -> None:
    migrate(engine, "0009")
    second = datetime(2026, 12, 24, tzinfo=UTC)
    uids = ["7.1795423412", f"7.{int(second.timestamp())}", "12"]
    projects = [{"uid": uid, "label_studio_id": int(uid.partition(".")[0]), "title": ""} for uid in uids]
    before = second - timedelta(days=1)
    made = {"early": (7, datetime(2020, 1, 1, tzinfo=UTC)), "first": (7, before), "second": (7, second)}
    made |= {"other": (12, before), "unknown": (3, before)}
    plain = {**BEFORE["predictions"][0], "prompted": False, "hidden": "[]"}
    predictions = [
        {**plain, "id": name, "project_id": at[0], "query_key": name, "created_at": at[1]} for name, at in made.items()
    ]
    regions = [{**BEFORE["prediction_regions"][0], "id": name, "prediction_id": name, "weight": 1.0} for name in made]
    fill(engine, {"projects": projects, "predictions": predictions, "prediction_regions": regions})
    with connected(engine) as connection:
        kept = tables(connection)["prediction_regions"]
    upgrade(engine)
    with connected(engine) as connection:
        found = tables(connection)
    assert {row["id"]: row["project_uid"] for row in found["predictions"]} == {
        "early": uids[0],
        "first": uids[0],
        "second": uids[1],
        "other": "12",
        "unknown": "3",
    }
    assert found["prediction_regions"] == kept


@pytest.mark.parametrize("uid", ["0.d95fa331ff2f3f39", "0.1234567890123456", f"7.{'9' * 20}"])
def test_imported_projects_and_absurd_moments_do_not_stand_in_the_way_of_an_upgrade(engine: Engine, uid: str) -> None:
    migrate(engine, "0009")
    projects = [{"uid": each, "label_studio_id": int(each.partition(".")[0]), "title": each} for each in (uid, "12.5")]
    prediction = {**BEFORE["predictions"][0], "project_id": 12, "prompted": False, "hidden": "[]"}
    fill(engine, {"projects": projects, "predictions": [prediction]})
    upgrade(engine)
    with connected(engine) as connection:
        assert [row["project_uid"] for row in tables(connection)["predictions"]] == ["12.5"]


def test_the_service_refuses_the_schema_before_corrections(engine: Engine) -> None:
    migrate(engine, "0001")
    with pytest.raises(StorageError, match=r"has schema 0001, this version needs .*glip-label db upgrade"):
        check(engine)


def test_deleting_a_project_leaves_no_orphans(engine: Engine) -> None:
    upgrade(engine)
    fill(engine, {"projects": [{"uid": "12", "label_studio_id": 12, "title": ""}], **ADDED})
    with connected(engine) as connection:
        connection.execute(text("DELETE FROM projects"))
        left = tables(connection)
    assert [name for name, rows in left.items() if rows] == ["inbox"]
