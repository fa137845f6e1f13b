"""Fits in memory."""

from backend.domain.fits import Fit


class FakeFits:
    """``ports.Fits`` in a dictionary."""

    def __init__(self, fits: dict[str, Fit]) -> None:
        self._fits = fits

    def newest(self, project: str, model_version: str) -> Fit | None:
        found = [each for each in self._fits.values() if (each.project, each.model_version) == (project, model_version)]
        return max(found, key=lambda each: each.fitted_at, default=None)

    def find(self, fit: str) -> Fit | None:
        return self._fits.get(fit)

    def add(self, fit: Fit) -> None:
        self._fits[fit.id] = fit
