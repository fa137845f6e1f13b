"""What runs beside the service and is killed as well: an upgrade of a copy of the database, and an export."""

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from time import sleep
from typing import Any

from alembic import command
from alembic.config import Config

from backend.db.schema import upgrade
from tests.torture.databases import Database, every_row, opened
from tests.torture.processes import BreachError, Command, frozen_when, kill

_WRITING_SECONDS = 0.1

OLDER = ("0001", "0002")  # without corrections at all, and without what imports tell


def kill_upgrade(commands: Command, copy: Database, random: Random) -> bool:
    """Take a copy back to an older schema, kill its upgrade, and upgrade it again.

    Returns:
        Whether the kill came while the upgrade was writing.

    Raises:
        BreachError: the killed upgrade was half done, or the second one failed or lost rows.
    """
    older = random.choice(OLDER)
    with opened(copy.url) as engine, engine.connect() as connection:
        newest = upgrade(engine)
        config = Config()
        config.set_main_option("script_location", "migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, older)
        connection.commit()
    before = every_row(copy.url)
    process = commands.start("db", "upgrade", database_url=copy.url)
    hit = frozen_when(process, copy.is_being_written, random, 60)
    kill(process)
    between = every_row(copy.url)
    ((revision,),) = (row.values() for row in between.pop("alembic_version"))
    if revision not in (older, newest):
        raise BreachError(f"a killed upgrade from {older} left the copy at {revision}")
    if revision == older and between != {name: rows for name, rows in before.items() if name != "alembic_version"}:
        raise BreachError(f"a killed upgrade from {older} left the copy changed")
    commands.finish("db", "upgrade", database_url=copy.url)
    after = every_row(copy.url)
    for name, rows in before.items():
        columns = rows[0].keys() if rows and name != "alembic_version" else ()
        told = [_as_older(name, row) for row in after[name]]
        if rows and columns and [{key: row[key] for key in columns} for row in told] != rows:
            raise BreachError(f"the upgrade from {older} after a kill lost or changed rows of {name}")
    return hit


def _as_older(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the columns, too, that its table had once; the beginning of a project's uid was one of predictions."""
    return {**row, "project_id": int(row["project_uid"].partition(".")[0])} if name == "predictions" else {**row}


class Exports:
    """Exports of one project to one folder, each over the one before."""

    def __init__(self, commands: Command, folder: Path) -> None:
        self._commands = commands
        self._folder = folder
        self._words = ("export", "coco", "--project", "7", "--predictions", "glip-nano-torture", str(folder))

    def kill_one(self, random: Random) -> bool:
        """Kill an export at a random moment after it begins to write.

        Returns:
            Whether it was still writing.

        Raises:
            BreachError: what is under the final names afterwards is neither whole nor marked as incomplete.
        """
        if not (self._folder / "manifest.json").exists():
            self.finish()
        while True:
            before = self._mark()
            process = self._commands.start(*self._words)
            frozen_when(process, partial(self._is_written_since, before), random, 60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            sleep(random.uniform(0, _WRITING_SECONDS))
            finished = process.poll() is not None
            kill(process)
            self.check()
            if not finished:
                return self._is_written_since(before)

    def _is_written_since(self, before: int | None) -> bool:
        """Whether another export than the one with this mark has begun to write, and not ended."""
        return self._mark() not in (None, before)

    def _mark(self) -> int | None:
        """When the export that is under way, or was killed, began to write."""
        try:
            return (self._folder / ".unfinished").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def finish(self) -> dict[str, int]:
        """Let one come to its end; returns how many images and annotations it tells.

        Raises:
            BreachError: it fails, or is not whole.
        """
        self._commands.run(*self._words)
        manifest = self.check()
        if not manifest["complete"]:
            raise BreachError(f"an export came to its end and is not complete: see {self._commands.other_log}")
        return {name: manifest[name] for name in ("images", "annotations")}

    def check(self) -> dict[str, Any]:
        """Hold the folder to what its manifest says; where that is not complete, each file is whole all the same."""
        manifest: dict[str, Any] = json.loads((self._folder / "manifest.json").read_bytes())
        there = {path.name: path.read_bytes() for path in self._folder.glob("*.json") if path.name != "manifest.json"}
        if not manifest["complete"]:
            for content in there.values():
                json.loads(content)
        elif {row["name"]: row["sha256"] for row in manifest["files"]} != {
            name: sha256(content).hexdigest() for name, content in there.items()
        }:
            raise BreachError(f"{self._folder}: the files are not those of the manifest")
        return manifest
