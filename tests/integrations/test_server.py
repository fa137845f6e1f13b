"""A private Label Studio, as far as it can be held to without one."""

from pathlib import Path

import pytest

from integrations.label_studio.server import label_studio_server
from integrations.processes import ServerStartError


def test_only_the_owner_may_look_where_the_account_is_kept_also_where_the_pictures_came_first(tmp_path: Path) -> None:
    executable, data = tmp_path / "label-studio", tmp_path / "data"
    executable.write_text("#!/bin/sh\nexit 1\n")
    executable.chmod(0o755)
    (data / "files" / "scenes").mkdir(parents=True)
    data.chmod(0o755)
    with pytest.raises(ServerStartError), label_studio_server(executable, data):
        pytest.fail("the server cannot have started")
    assert (data / "account.json").is_file()
    assert data.stat().st_mode & 0o077 == 0
