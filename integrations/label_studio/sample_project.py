"""A project with pictures from this machine, pre-annotated through Label Studio's own "Retrieve Predictions"."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from backend.domain.records import Label

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

_CHUNK = 8  # tasks per request: Label Studio hangs up after 100 s, and people see the first boxes soon


@dataclass(frozen=True, slots=True)
class SampleProject:
    """What a project is to show. ``folder`` lies directly below the document root of Label Studio's local files."""

    title: str
    labels: tuple[Label, ...]
    folder: Path
    pictures: tuple[Path, ...]

    @property
    def addresses(self) -> list[str]:
        """Address of each picture as tasks carry it."""
        root = self.folder.parent
        return [f"/data/local-files/?d={quote(path.relative_to(root).as_posix())}" for path in self.pictures]


def labeling_config(labels: Iterable[Label]) -> str:
    """Write a labelling config for boxes, with a field for prompts about the open task."""
    listed = "\n".join(f"    <Label {_attributes(label)}/>" for label in labels)
    return f"""<View>
  <TextArea name="prompt" toName="image" editable="true" rows="1" maxSubmissions="1" showSubmitButton="true"
            placeholder="With Auto-Annotation on: other names or a sentence, then Add"/>
  <RectangleLabels name="label" toName="image">
{listed}
  </RectangleLabels>
  <Image name="image" value="$image" zoom="true"/>
</View>
"""


def _attributes(label: Label) -> str:
    prompt = f" prompt={quoteattr('|'.join(label.prompts))}" if label.prompts else ""
    return f"value={quoteattr(label.name)}{prompt}"


def open_project(api: "LabelStudio", sample: SampleProject) -> int:
    """Return the id of the project with the sample's title, made or brought up to date; work done in it is kept."""
    config = labeling_config(sample.labels)
    rows: Iterable[Any] = api.projects.list(title=sample.title)
    project = next((int(row.id) for row in rows if row.title == sample.title), None)
    if project is None:
        project = int(api.projects.create(title=sample.title, label_config=config).id or 0)
        # Label Studio hands out local files only where a storage of the project covers them.
        api.import_storage.local.create(project=project, path=str(sample.folder.resolve()), use_blob_urls=True)
    else:
        api.projects.update(project, label_config=config)
    known = {task.data.get("image") for task in _tasks(api, project)}
    missing: list[Any] = [{"image": address} for address in sample.addresses if address not in known]
    if missing:
        api.projects.import_tasks(project, request=missing)
    return project


def retrieve_predictions(api: "LabelStudio", project_id: int) -> Iterator[int]:
    """Have the project's ML backend predict all tasks, in chunks; yields the size of each one that is done.

    Tasks that have a prediction of the current model version already are not asked for again.
    """
    tasks = iter([task.id for task in _tasks(api, project_id)])
    while chunk := list(islice(tasks, _CHUNK)):
        api.actions.create(
            id="retrieve_tasks_predictions",
            project=project_id,
            selected_items={"all": False, "included": chunk},
        )
        yield len(chunk)


def unpredicted_tasks(api: "LabelStudio", project_id: int) -> list[int]:
    """Return the ids of the tasks that have no prediction."""
    return [task.id for task in _tasks(api, project_id) if not task.total_predictions]


def _tasks(api: "LabelStudio", project_id: int) -> Iterable[Any]:
    tasks: Iterable[Any] = api.tasks.list(project=project_id, page_size=500)
    return tasks
