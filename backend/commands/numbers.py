"""Numbers on the command line."""

import math
from typing import Any

import click


class RealRange(click.FloatRange):
    """A ``FloatRange`` that NaN is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As ``click.ParamType``."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def percent(share: float | None) -> str:
    """Show a share of one; a dash where there was nothing to measure."""
    return "-" if share is None else f"{100 * share:.1f}"
