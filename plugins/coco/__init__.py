"""COCO: everyday scenes with an outline for every object, and how detectors are judged on them.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv 1405.0312.

The problem. Data sets had been gathered by asking for objects by name: one, large and in the middle. A
detector that is trained and judged on such iconic views says little of a kitchen or a street.

The idea. Search for pairs of things and for places, keep the pictures that are not iconic, and have every
object of 91 kinds outlined, one by one, in 328,000 images. Detectors lost almost half of their precision.
The files' form and their evaluation (average precision over ten thresholds of overlap) became those of the
field; the numbers that it prints are of the competition that followed.

This folder. `dataset` reads COCO's files as they are and writes made scenes as such; `masks` has run lengths
and their overlap; `model` a small detector; `drawing` draws what it finds. `experiment` trains it on iconic
pictures and on scenes, or with `--set coco=FOLDER` on COCO itself.
"""

from torch import nn

from readtrack.plugin import hookimpl

from .benchmark import benchmark
from .dataset import Coco, read, write
from .experiment import GENERALISES, experiment
from .masks import compress, decode, encode, overlap, uncompress
from .model import Detector, detect


@hookimpl
def implementation() -> type[nn.Module]:
    return Detector
