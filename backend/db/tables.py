"""The tables, typed. Boxes are in pixels of the upright image."""

from datetime import UTC, datetime
from typing import ClassVar

from sqlalchemy import DateTime, Double, ForeignKey, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Parent of the tables; constraints get the same names on every database, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {float: Double}


class ProjectRow(Base):
    """A Label Studio project: ``uid`` is ``ID.CREATED`` as Label Studio sends it, unique over its installations."""

    __tablename__ = "projects"

    uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    score_threshold: Mapped[float | None]


class PredictionRow(Base):
    """One prediction, also where it found nothing; at most one per task, model version and query."""

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("project_id", "task_id", "model_version", "query_key"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    project_id: Mapped[int]
    task_id: Mapped[int]
    model_version: Mapped[str] = mapped_column(String(200))
    query_key: Mapped[str] = mapped_column(String(64))
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    regions: Mapped[list["PredictionRegionRow"]] = relationship(
        order_by="PredictionRegionRow.position", cascade="all, delete-orphan", lazy="selectin"
    )


class PredictionRegionRow(Base):
    """One emitted box, under the id that Label Studio sends back in annotations."""

    __tablename__ = "prediction_regions"

    id: Mapped[str] = mapped_column(String(48), primary_key=True)
    prediction_id: Mapped[str] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    label: Mapped[str] = mapped_column(Text)
    prompt: Mapped[str] = mapped_column(Text)
    score: Mapped[float]
    x1: Mapped[float]
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]
