"""Makes the networks of the control and of the break without couplings."""

import torch

from readtrack.data import speech

from .flow import ChannelMixing, Coupling, Frames, Mask
from .model import GlowTTS, Sizes

SIZES = Sizes(
    symbols=len(speech.PHONEMES),
    bands=speech.MELS,
    hidden=32,
    ffn=64,
    heads=2,
    layers=1,
    prenet=1,
    durations=32,
    channels=32,
    blocks=2,
    depth=2,
    kernel=3,
    dropout=0.0,
)
LINEAR = Sizes(**{**{name: getattr(SIZES, name) for name in SIZES.__dataclass_fields__}, "couples": False})


class Blind(Coupling):
    """A coupling whose network gets zeros instead of the first half."""

    def affine(self, first: Frames, mask: Mask) -> tuple[Frames, Frames]:
        return super().affine(torch.zeros_like(first), mask)


def uncoupled() -> GlowTTS:
    model = GlowTTS(SIZES)
    for index, step in enumerate(model.flow.steps):
        if isinstance(step, Coupling):
            model.flow.steps[index] = Blind(2 * SIZES.bands, SIZES.channels, SIZES.depth, SIZES.kernel, 0.0)
    return model


def linear() -> GlowTTS:
    """A flow without couplings whose matrices mix all channels instead of groups of four."""
    model = GlowTTS(LINEAR)
    for index, step in enumerate(model.flow.steps):
        if isinstance(step, ChannelMixing):
            model.flow.steps[index] = ChannelMixing(2 * SIZES.bands, 2 * SIZES.bands)
    return model
