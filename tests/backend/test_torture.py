"""The short form of ``make torture``: a real service, killed while events pour in, on both kinds of database."""

from pathlib import Path

import pytest

from tests.torture.checks import breaches
from tests.torture.databases import PostgresqlDatabase, SqliteFile
from tests.torture.deliveries import make_stream
from tests.torture.rounds import Torture

PLAN = {"any moment": 2, "kept, not answered": 2, "applying": 1, "starting": 1, "export": 1, "migration": 1}


@pytest.mark.end_to_end
def test_killed_at_any_moment_the_service_loses_nothing_and_applies_everything_once(
    database_url: str, tmp_path: Path
) -> None:
    is_sqlite = database_url.startswith("sqlite")
    database = SqliteFile(tmp_path / "torture.sqlite3") if is_sqlite else PostgresqlDatabase(database_url)
    torture = Torture(database, tmp_path, make_stream(500, seed=1), seed=1)
    torture.run(PLAN, print)
    assert breaches(torture) == []
    assert torture.kills.total() >= 10
    assert torture.hits["unanswered"]
