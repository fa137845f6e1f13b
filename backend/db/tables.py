"""The tables, typed. Predicted boxes are in pixels of the upright image, annotated ones in percent as they were given.

Ids of Label Studio are unique within one of its installations only, so tasks and annotations hang on a project's
``uid``. All moments are UTC.
"""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from backend.db.base import Base as Base
from backend.db.base import now


class ProjectRow(Base):
    """A Label Studio project: ``uid`` is ``ID.CREATED`` as Label Studio sends it, unique over its installations.

    ``updated_at`` is Label Studio's time of what the title and the labelling config say; None before anything was said.
    """

    __tablename__ = "projects"

    uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    score_threshold: Mapped[float | None]
    label_studio_id: Mapped[int] = mapped_column(BigInteger, index=True)
    title: Mapped[str]
    label_config: Mapped[str | None]
    updated_at: Mapped[datetime | None]


class LabelRow(Base):
    """A label's name that was seen in a project; its number, from 1, stays with it for ever.

    ``since`` is when a label was added to a project whose labelling config was known; None for those it began with.
    """

    __tablename__ = "labels"
    __table_args__ = (UniqueConstraint("project_uid", "name"),)

    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    since: Mapped[datetime | None]


class TaskRow(Base):
    """A task, also one of which only the deletion is known."""

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("project_uid", "label_studio_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"))
    label_studio_id: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime | None]
    deleted: Mapped[bool]
    images: Mapped[list["ImageRow"]] = relationship(
        order_by="ImageRow.data_key", cascade="all, delete-orphan", lazy="selectin"
    )


class ImageRow(Base):
    """A picture that a task's data refers to, under its key; size (upright) and hash once it was looked at."""

    __tablename__ = "images"

    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    data_key: Mapped[str] = mapped_column(primary_key=True)
    reference: Mapped[str]
    width: Mapped[int | None]
    height: Mapped[int | None]
    sha256: Mapped[str | None] = mapped_column(String(64))


class AnnotationRow(Base):
    """An annotation, also one of which only the deletion is known; what it says is in its versions."""

    __tablename__ = "annotations"
    __table_args__ = (UniqueConstraint("project_uid", "label_studio_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"))
    label_studio_id: Mapped[int] = mapped_column(BigInteger)
    deleted: Mapped[bool]


class AnnotationVersionRow(Base):
    """An annotation as it stood at ``updated_at``; the newest is the current one, none is thrown away."""

    __tablename__ = "annotation_versions"
    __table_args__ = (UniqueConstraint("annotation_id", "updated_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id", ondelete="CASCADE"))
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    annotator: Mapped[int | None] = mapped_column(BigInteger)
    cancelled: Mapped[bool]
    ground_truth: Mapped[bool]
    lead_time: Mapped[float | None]
    parent_prediction: Mapped[int | None] = mapped_column(BigInteger)
    regions: Mapped[list["AnnotationRegionRow"]] = relationship(
        order_by="AnnotationRegionRow.position", cascade="all, delete-orphan", lazy="selectin"
    )


class AnnotationRegionRow(Base):
    """One region of an annotation's version, in percent of the upright image; ``labels`` is a JSON list."""

    __tablename__ = "annotation_regions"

    version_id: Mapped[int] = mapped_column(ForeignKey("annotation_versions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    region_id: Mapped[str]
    image: Mapped[str]
    labels: Mapped[str]
    x: Mapped[float]
    y: Mapped[float]
    width: Mapped[float]
    height: Mapped[float]
    rotation: Mapped[float]
    image_width: Mapped[int | None]
    image_height: Mapped[int | None]
    origin: Mapped[str | None]
    prediction: Mapped[str | None]
    score: Mapped[float | None]
    tool: Mapped[str | None]


class VerdictRow(Base):
    """What became of one emitted or final region; derived from an annotation's version and the predictions."""

    __tablename__ = "verdicts"

    version_id: Mapped[int] = mapped_column(ForeignKey("annotation_versions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    emitted_region: Mapped[str | None]
    final_region: Mapped[str | None]
    label_before: Mapped[str | None]
    label_after: Mapped[str | None]
    iou: Mapped[float | None]
    dx1: Mapped[float | None]
    dy1: Mapped[float | None]
    dx2: Mapped[float | None]
    dy2: Mapped[float | None]
    model_version: Mapped[str | None]
    prompt: Mapped[str | None]
    score: Mapped[float | None]
    annotator: Mapped[int | None] = mapped_column(BigInteger)
    lead_time: Mapped[float | None]


class InboxRow(Base):
    """A fact as it was told, reduced to what is needed; waits until ``applied_at`` or ``error`` is set."""

    __tablename__ = "inbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(default=now)
    action: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[int | None] = mapped_column(BigInteger)
    payload: Mapped[str]
    applied_at: Mapped[datetime | None] = mapped_column(index=True)
    error: Mapped[str | None]


class PredictionRow(Base):
    """One prediction, also where it found nothing; at most one per task, model version and query.

    ``project_uid`` refers to no row of ``projects``: predictions may be asked for before anything is told of a project.

    ``image``, ``reference`` and ``sha256`` tell which picture was looked at; None where an earlier release did not.
    ``hidden`` are the proposals that people do not see, as a JSON list.
    """

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("project_uid", "task_id", "model_version", "query_key"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    project_uid: Mapped[str] = mapped_column(String(64))
    task_id: Mapped[int]
    model_version: Mapped[str] = mapped_column(String(200))
    query_key: Mapped[str] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    image: Mapped[str | None]
    reference: Mapped[str | None]
    sha256: Mapped[str | None] = mapped_column(String(64))
    prompted: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)
    hidden: Mapped[str]
    fit_id: Mapped[str | None] = mapped_column(String(16))
    order: Mapped[float | None]
    regions: Mapped[list["PredictionRegionRow"]] = relationship(
        order_by="PredictionRegionRow.position", cascade="all, delete-orphan", lazy="selectin"
    )


class PredictionRegionRow(Base):
    """One emitted box, under the id that Label Studio sends back in annotations."""

    __tablename__ = "prediction_regions"

    id: Mapped[str] = mapped_column(String(48), primary_key=True)
    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    label: Mapped[str]
    prompt: Mapped[str]
    score: Mapped[float]
    x1: Mapped[float]
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]
    probability: Mapped[float | None]
    weight: Mapped[float]


class ImportedImageRow(Base):
    """What an imported data set said of a task's image, beyond the image itself."""

    __tablename__ = "imported_images"

    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True)
    file_name: Mapped[str]
    original_task: Mapped[int | None] = mapped_column(BigInteger)


class ImportedRegionRow(Base):
    """Where an imported region came from, as its data set told; ``provenance`` is a JSON object."""

    __tablename__ = "imported_regions"

    version_id: Mapped[int] = mapped_column(ForeignKey("annotation_versions.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    provenance: Mapped[str]


class ModelVersionRow(Base):
    """One immutable set of weights or adapter; ``files`` and ``metrics`` are JSON objects."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("project_uid", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    parent: Mapped[str]
    base: Mapped[str]
    mode: Mapped[str] = mapped_column(String(16))
    fingerprint: Mapped[str] = mapped_column(String(64))
    files: Mapped[str]
    metrics: Mapped[str]
    created_at: Mapped[datetime]


class AliasRow(Base):
    """One move of an alias: the newest one holds, none is thrown away. No version: the configured base model."""

    __tablename__ = "aliases"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"), index=True)
    alias: Mapped[str] = mapped_column(String(64))
    version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    moved_at: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str]
    numbers: Mapped[str]


class TrainingJobRow(Base):
    """One request to fine-tune; at most one of a project is not finished. ``data`` are the frozen ones, as JSON.

    ``seen`` is the highest id of an annotation's version that it knows of; ``data`` have ``learnt`` annotations.
    """

    __tablename__ = "training_jobs"
    __table_args__ = (
        Index(
            "uq_training_jobs_open",
            "project_uid",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"), index=True)
    request: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    requested_at: Mapped[datetime]
    worker: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempts: Mapped[int]
    seen: Mapped[int]
    learnt: Mapped[int]
    progress: Mapped[str | None]
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    data: Mapped[str | None] = mapped_column(deferred=True)
    version: Mapped[str | None]
    outcome: Mapped[str | None]


class FitRow(Base):
    """What verdicts taught about a model version's scores; the newest one holds. ``fitted`` is a JSON object."""

    __tablename__ = "fits"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"), index=True)
    model_version: Mapped[str] = mapped_column(String(200))
    judgements: Mapped[int]
    fitted_at: Mapped[datetime]
    fitted: Mapped[str]


class RehearsalRow(Base):
    """What became of one proposal of a version on an image that it was not trained on, before anybody saw it."""

    __tablename__ = "rehearsals"
    __table_args__ = (Index("ix_rehearsals_version", "project_uid", "model_version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_uid: Mapped[str] = mapped_column(ForeignKey("projects.uid", ondelete="CASCADE"))
    model_version: Mapped[str] = mapped_column(String(200))
    image: Mapped[str] = mapped_column(String(64))
    label: Mapped[str]
    score: Mapped[float]
    kind: Mapped[str] = mapped_column(String(16))
    iou: Mapped[float]
