"""Databases of both kinds: whatever asks for ``engine`` runs once on SQLite and once on a real PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from backend.db.engine import open_engine
from tests.postgresql import create_database, postgresql_server


@pytest.fixture(scope="session")
def make_postgresql_database() -> Iterator[Callable[[], str]]:
    """Makes empty databases on one server, which starts with the first."""
    with ExitStack() as stack:
        server: list[str] = []

        def make() -> str:
            if not server:
                server.append(stack.enter_context(postgresql_server()))
            return create_database(server[0])

        yield make


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of one kind after the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'glip.sqlite3'}"
    make: Callable[[], str] = request.getfixturevalue("make_postgresql_database")
    return make()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()
