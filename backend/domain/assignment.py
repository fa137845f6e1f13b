"""Pairing two sets so that the sum of weights is greatest (Kuhn 1955, Munkres 1957)."""

import math
from collections.abc import Sequence


def best_assignment(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, so that the paired weights sum to the most.

    Args:
        weights: one row per left item; a pair of weight 0 is never made, none is below 0.

    Returns:
        ``(row, column)`` by row. Equal inputs give equal pairs; a lone row takes the first of equally good columns.
    """
    columns = len(weights[0]) if weights else 0
    if len(weights) <= columns:
        pairs = _assign_rows([[-weight for weight in row] for row in weights])
    else:
        flipped = _assign_rows([[-row[column] for row in weights] for column in range(columns)])
        pairs = sorted((row, column) for column, row in flipped)
    return [(row, column) for row, column in pairs if weights[row][column] > 0]


def _assign_rows(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Give every row its own column at the least total cost; there are at least as many columns, O(rows² columns).

    Rows join one at a time along the cheapest augmenting path over reduced costs; column and row 0 stand for "none".
    """
    columns = len(costs[0]) if costs else 0
    row_price, column_price = [0.0] * (len(costs) + 1), [0.0] * (columns + 1)
    owner, previous = [0] * (columns + 1), [0] * (columns + 1)
    for row in range(1, len(costs) + 1):
        owner[0], column = row, 0
        slack, visited = [math.inf] * (columns + 1), [False] * (columns + 1)
        while owner[column]:
            visited[column] = True
            at, nearest = owner[column], 0
            for other in range(1, columns + 1):
                if visited[other]:
                    continue
                reduced = costs[at - 1][other - 1] - row_price[at] - column_price[other]
                if reduced < slack[other]:
                    slack[other], previous[other] = reduced, column
                if slack[other] < slack[nearest]:
                    nearest = other
            step = slack[nearest]
            for other in range(columns + 1):
                if visited[other]:
                    row_price[owner[other]] += step
                    column_price[other] -= step
                else:
                    slack[other] -= step
            column = nearest
        while column:
            owner[column] = owner[previous[column]]
            column = previous[column]
    return sorted((row - 1, column - 1) for column, row in enumerate(owner) if column and row)
