"""Fits in memory."""

from collections.abc import Sequence

from backend.domain.fits import Fit
from backend.domain.review import Judgement


class FakeFits:
    """``ports.Fits`` in a dictionary."""

    def __init__(self, fits: dict[str, Fit], rehearsals: dict[tuple[str, str], list[Judgement]]) -> None:
        self._fits = fits
        self._rehearsals = rehearsals

    def newest(self, project: str, model_version: str) -> Fit | None:
        found = [each for each in self._fits.values() if (each.project, each.model_version) == (project, model_version)]
        return max(found, key=lambda each: each.fitted_at, default=None)

    def find(self, fit: str) -> Fit | None:
        return self._fits.get(fit)

    def add(self, fit: Fit) -> None:
        self._fits[fit.id] = fit

    def rehearsed(self, project: str, model_version: str) -> Sequence[Judgement]:
        return self._rehearsals.get((project, model_version), [])

    def count_rehearsed(self, project: str, model_version: str) -> int:
        return len(self.rehearsed(project, model_version))

    def add_rehearsal(self, project: str, model_version: str, judgements: Sequence[Judgement]) -> None:
        self._rehearsals[project, model_version] = [*self.rehearsed(project, model_version), *judgements]
