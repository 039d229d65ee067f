"""Noise predicted from a time and a text, guidance, and the way from noise to a picture."""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..clip import TextTower
from ..ddpm import Schedule
from ..ddpm.model import Times, like
from .autoencoder import Latents
from .unet import UNet

Ids = Int[Tensor, "batch words"]
Predict = Callable[[Latents, Times], Latents]
Guide = Callable[[Latents, Latents, float], Latents]


class Diffusion(nn.Module):
    """Section 3.3: the text tower tau_theta and the U-Net epsilon_theta, trained together by equation 3.

    The tower's last, projected vector is not used: the U-Net looks at the vector of every word. (The released
    Stable Diffusion takes CLIP's tower as it is and trains the U-Net alone.)
    """

    def __init__(self, text: TextTower, unet: UNet) -> None:
        super().__init__()
        self.text, self.unet = text, unet

    def forward(self, z: Latents, t: Times, ids: Ids) -> Latents:
        return self.unet(z, t, self.text.hidden(ids))

    def with_text(self, ids: Ids, empty: Ids, scale: float, guide: Guide) -> Predict:
        """Noise under guidance, as a function of latents and times. The words are read once for all steps,
        and one pass through the U-Net serves both texts.

        empty  the same number of texts that say nothing
        """
        context = self.text.hidden(torch.cat((ids, empty)))

        def predict(z: Latents, t: Times) -> Latents:
            told, untold = self.unet(torch.cat((z, z)), torch.cat((t, t)), context).chunk(2)
            return guide(told, untold, scale)

        return predict


def guided(told: Latents, untold: Latents, scale: float) -> Latents:
    """Classifier-free guidance: a scale of 0 ignores the text, 1 is no guidance.

    Appendix C's s. Ho and Salimans 2022 (arXiv 2207.12598, equation 6) have w = s - 1.
    """
    return untold + scale * (told - untold)


def unguided(told: Latents, untold: Latents, scale: float) -> Latents:
    """The control: the noise of the text, whatever the scale."""
    return told


def scaled_linear_schedule(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> Schedule:
    """The square roots of beta in a straight line: the released Stable Diffusion's. float64."""
    return Schedule(torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64).square())


@torch.no_grad()
def denoise(schedule: Schedule, predict: Predict, z: Latents, steps: int, limit: float) -> Latents:
    """From noise to a latent in equal steps of DDIM, the last one of which ends at the data.

    limit  the data that each step expects is clamped to so much either way
    """
    times = torch.linspace(len(schedule.beta) - 1, -1, steps + 1).round().long().tolist()
    for now, before in pairwise(times):
        t, then = (torch.full((len(z),), one, device=z.device) for one in (now, before))
        z0 = schedule.predict_x0(z, t, predict(z, t)).clamp(-limit, limit)
        kept = schedule.alpha_bar[t]
        noise = (z - like(kept.sqrt(), z) * z0) / like((1 - kept).sqrt(), z)
        z = schedule.ddim_step(z, t, then, noise)
    return z
