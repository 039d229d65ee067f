"""Implements the RTRBM: energies, contrastive divergence, and the exact likelihood of small frames.

Dimensions: batch, time (frames), visible, hidden.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Frames = Float[Tensor, "batch time visible"]
HiddenStates = Float[Tensor, "batch time hidden"]


class RTRBM(nn.Module):
    """A sequence of RBMs. Frame t has the hidden biases b_h + U h'_{t-1}.

    h' are the expected hidden units given all frames so far. The first frame has its own biases. W connects
    visible and hidden units, as in the paper. U (W' in the paper) connects hidden units over time.

    std           standard deviation of the initial weights between visible and hidden units
    recurrent     the recurrent weights are initialised to this multiple of the identity
    temporal      True for a temporal RBM, which passes on samples without a gradient
    through_time  whether gradients flow through h'
    """

    def __init__(
        self,
        visible: int,
        hidden: int,
        *,
        std: float = 0.01,
        recurrent: float = 0.0,
        temporal: bool = False,
        through_time: bool = True,
    ) -> None:
        super().__init__()
        self.temporal, self.through_time = temporal, through_time
        self.W = nn.Parameter(std * torch.randn(visible, hidden))
        self.U = nn.Parameter(recurrent * torch.eye(hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.first_bias = nn.Parameter(torch.zeros(hidden))

    def biases(self, frames: Frames, generator: torch.Generator | None = None) -> HiddenStates:
        """The hidden biases of every frame, from the previous frames.

        With a generator, a temporal RBM passes on samples. Without one, it passes on expected values.
        """
        drive = frames @ self.W
        bias = self.first_bias.expand(len(frames), -1)
        found = []
        for seen in drive.unbind(1):
            found.append(bias)
            h = torch.sigmoid(seen + bias)
            if self.temporal and generator is not None:
                h = sample(h, generator)
            if self.temporal or not self.through_time:
                h = h.detach()
            bias = self.hidden_bias + h @ self.U.T
        return torch.stack(found, 1)

    def free_energy(
        self, frames: Float[Tensor, "*#some visible"], biases: Float[Tensor, "*#some hidden"]
    ) -> Float[Tensor, "*#some"]:
        """-log Σ_h e^-E(v, h) of every frame. Frames with a lower value are more likely."""
        return -(frames @ self.visible_bias) - F.softplus(frames @ self.W + biases).sum(-1)

    def gibbs(
        self, frames: Frames, biases: HiddenStates, steps: int, generator: torch.Generator | None
    ) -> Frames:
        """Gibbs sampling of all frames at once, starting at `frames`.

        Without a generator, units take their expected values (mean-field updates).
        """
        for _ in range(steps):
            h = torch.sigmoid(frames @ self.W + biases)
            h = h if generator is None else sample(h, generator)
            frames = torch.sigmoid(h @ self.W.T + self.visible_bias)
            frames = frames if generator is None else sample(frames, generator)
        return frames

    def loss(self, frames: Frames, steps: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """A loss with the gradient of contrastive divergence, including the path through the biases."""
        biases = self.biases(frames, generator)
        with torch.no_grad():
            dreamed = self.gibbs(frames, biases, steps, generator)
        return (self.free_energy(frames, biases) - self.free_energy(dreamed, biases)).sum(1).mean()

    def log_likelihood(self, frames: Frames) -> Float[Tensor, " batch"]:
        """Exact log-likelihood of binary films (equation 5).

        Each frame is normalised by a sum over its 2^visible states. Raises ValueError if a frame has more
        than 16 pixels.
        """
        visible = len(self.visible_bias)
        if visible > 16:
            raise ValueError(f"a frame has 2^{visible} states, which are too many to enumerate")
        bits = torch.arange(visible, device=frames.device)
        states = (torch.arange(2**visible, device=frames.device)[:, None] >> bits & 1).to(frames)
        biases = self.biases(frames)
        total = -self.free_energy(frames, biases).sum(1)
        for bias in biases.unbind(1):
            total = total - (-self.free_energy(states, bias[:, None])).logsumexp(1)
        return total


def sample(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(probabilities.shape, generator=generator).to(probabilities)
    return (drawn < probabilities).to(probabilities)
