"""Everything that a plugin imports from readtrack.

A plugin is a module with a docstring, an implementation, and three hooks (see `readtrack.plugins.hookspecs`).
Write `from readtrack.plugin import Bound, Case, Claim, Figure, Run, hookimpl` and so on. Small data sets are
in `readtrack.data`, scores in `readtrack.scores`.
"""

import pluggy

from readtrack.bench.case import Bench, Case, Cost, Variant
from readtrack.bench.judge import Growth, Speedup
from readtrack.claims import UNTRAINED, AtLeast, Bound, Break, Claim, Figure, at_least, at_most, flat
from readtrack.practice.exercise import Draw, Exercise, Try
from readtrack.runs.comparing import NoNull
from readtrack.runs.run import Run
from readtrack.runs.table import Sweep, Table
from readtrack.runs.trained import Trained
from readtrack.runs.trial import Arm, Best, Trial

__all__ = [
    "UNTRAINED",
    "Arm",
    "AtLeast",
    "Bench",
    "Best",
    "Bound",
    "Break",
    "Case",
    "Claim",
    "Cost",
    "Draw",
    "Exercise",
    "Figure",
    "Growth",
    "NoNull",
    "Run",
    "Speedup",
    "Sweep",
    "Table",
    "Trained",
    "Trial",
    "Try",
    "Variant",
    "at_least",
    "at_most",
    "flat",
    "hookimpl",
]

hookimpl = pluggy.HookimplMarker("readtrack")
