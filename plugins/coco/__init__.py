"""COCO: a data set of everyday scenes with every object segmented, and the standard evaluation of detectors.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv 1405.0312.

The problem. Earlier data sets were collected by searching for object names. Their images are iconic: each
shows one large object alone. A detector that is trained and evaluated on such images may fail in a kitchen or
on a street.

The idea. Search for pairs of objects and for scenes, keep images that are not iconic, and segment every
instance of 91 categories in 328,000 images. On these images, detectors lost almost half of their average
precision (AP). The file format and the evaluation (AP over ten overlap thresholds) became the standard of the
field. The twelve numbers that the evaluation prints come from the challenges that followed.

This folder. `dataset` reads COCO's files and writes generated scenes in their format, `masks` has run-length
encoding, `model` has a small detector, and `drawing` draws detections. `experiment` trains the detector on
iconic images and on scenes, or on COCO itself with `--set coco=FOLDER`. `pasting` makes scenes out of iconic
images, as a rival to real scenes.
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
