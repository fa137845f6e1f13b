"""Tabs of Label Studio's Data Manager."""

from collections.abc import Sequence
from typing import Any

from label_studio_sdk import LabelStudio


def write_view(api: LabelStudio, project_id: int, title: str, task_ids: Sequence[int]) -> int:
    """Make a tab that shows exactly these tasks, those of low prediction score first; one of this title is replaced.

    Each task is one condition; a Label Studio on SQLite makes a tab of a thousand, but cannot open it.

    Returns:
        The tab's id.
    """
    items = [
        {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task_id}
        for task_id in task_ids or (0,)  # no task has this id, but a tab without filters shows all
    ]
    data: Any = {
        "title": title,
        "type": "list",
        "target": "tasks",
        "filters": {"conjunction": "or", "items": items},
        "ordering": ["tasks:predictions_score"],
    }
    found = [view for view in api.views.list(project=project_id) if (view.data or {}).get("title") == title]
    if found:
        view = api.views.update(str(found[0].id), project=project_id, data=data)
    else:
        view = api.views.create(project=project_id, data=data)
    return int(view.id or 0)
