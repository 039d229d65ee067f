"""Counts theorem 2's memory accesses: elements moved between slow memory (HBM) and fast memory (SRAM).

The counts are for the forward pass of one head. The tiled count follows the code's own schedule of tiles.
"""

import math

from .tiled import Schedule


def blocks_for(sram: int, dim: int) -> tuple[int, int]:
    """Block sizes of algorithm 1, line 1, for the second paper's loop order (queries outside, keys inside).

    Returns ⌈M / 4d⌉ for queries and min(⌈M / 4d⌉, d) for keys. `sram` is M, in elements.
    """
    stays = math.ceil(sram / (4 * dim))
    return stays, min(stays, dim)


def tiled_accesses(schedule: Schedule, dim: int) -> int:
    """Counts accesses to each block of queries, its output and log-sum, and the keys and values that it
    sees."""
    accesses = 0
    for rows in schedule.rows():
        accesses += (rows.stop - rows.start) * (2 * dim + 1)
        accesses += sum(2 * dim * (columns.stop - columns.start) for columns in schedule.columns(rows))
    return accesses


def standard_accesses(tokens: int, dim: int) -> int:
    """Counts algorithm 0: read Q and K, write S, read S, write P, read P and V, write O."""
    return 4 * tokens * dim + 4 * tokens**2
