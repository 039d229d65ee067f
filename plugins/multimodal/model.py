"""Section 3's autoencoder, which computes a code from any of its modalities, and CCA, the baseline.

Dimensions: batch, features (of a modality), hidden, code, rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Present = Mapping[str, Float[Tensor, "batch _"]]  # the features of the modalities present, by name
Code = Float[Tensor, "batch code"]


class MultimodalAutoencoder(nn.Module):
    """Figure 3: an encoder for each input, a shared code, and a decoder for each output.

    With both modalities as inputs and outputs, it is the bimodal autoencoder (b). With one input and both
    outputs, it learns features of this input in the presence of the other modality (a).

    inputs, outputs  number of features of each modality, by name
    """

    def __init__(
        self, inputs: Mapping[str, int], outputs: Mapping[str, int], *, hidden: int, code: int
    ) -> None:
        super().__init__()
        self.features = dict(inputs)
        self.encoders = nn.ModuleDict({name: nn.Linear(size, hidden) for name, size in inputs.items()})
        self.shared = nn.Linear(hidden * len(inputs), code)
        self.unshared = nn.Linear(code, hidden)
        self.decoders = nn.ModuleDict({name: nn.Linear(hidden, size) for name, size in outputs.items()})

    def code(self, present: Present) -> Code:
        """The shared code of the modalities present. Zeros replace a missing modality (section 3).

        Raises ValueError if no modality is present, or if one is not among the inputs.
        """
        if not present or not present.keys() <= self.features.keys():
            raise ValueError(
                f"got inputs {sorted(present)}; expected a non-empty subset of {sorted(self.features)}"
            )
        rows = next(iter(present.values()))
        hidden = [self.hidden(name, present.get(name), rows) for name in self.encoders]
        return self.shared(torch.cat(hidden, 1)).tanh()

    def hidden(
        self, name: str, x: Float[Tensor, "batch features"] | None, like: Float[Tensor, "batch _"]
    ) -> Float[Tensor, "batch hidden"]:
        """Activations of one encoder. A missing modality has the same activations in all rows."""
        if x is None:
            x = like.new_zeros(1, self.features[name])
        return self.encoders[name](x).relu().expand(len(like), -1)

    def decode(self, code: Code) -> dict[str, Float[Tensor, "batch _"]]:
        hidden = self.unshared(code).relu()
        return {name: decoder(hidden) for name, decoder in self.decoders.items()}

    def forward(self, present: Present) -> dict[str, Float[Tensor, "batch _"]]:
        """Every output, whichever inputs are present."""
        return self.decode(self.code(present))

    def tripled(self, present: Present) -> Float[Tensor, "rows code"]:
        """Codes of all modalities together, then codes of each modality alone: section 3's augmented data.

        The output of each encoder, for its modality and for zeros, is computed only once.
        """
        there = {name: self.encoders[name](present[name]).relu() for name in self.encoders}
        missing = {name: self.hidden(name, None, present[name]) for name in self.encoders}
        kinds = [there, *(missing | {name: there[name]} for name in self.encoders)]
        return self.shared(torch.cat([torch.cat(list(kind.values()), 1) for kind in kinds])).tanh()


def reconstruction_loss(made: Mapping[str, Float[Tensor, "rows _"]], wanted: Present) -> Float[Tensor, ""]:
    """The squared error averaged over the features of each modality, then summed over modalities.

    If there are more rows than targets (tripled data), the targets are repeated. The targets always include
    all modalities.
    """
    losses = []
    for name, output in made.items():
        target = wanted[name]
        losses.append(F.mse_loss(output, target.repeat(len(output) // len(target), 1)))
    return torch.stack(losses).sum()


class CCA(NamedTuple):
    """Canonical correlation analysis: directions in both spaces with maximal correlation."""

    means: tuple[Float[Tensor, " first"], Float[Tensor, " second"]]
    directions: tuple[Float[Tensor, "first kept"], Float[Tensor, "second kept"]]
    correlations: Float[Tensor, " kept"]

    def project(self, x: Float[Tensor, "rows _"], side: int) -> Float[Tensor, "rows kept"]:
        return (x - self.means[side]) @ self.directions[side]


def fit_cca(
    x: Float[Tensor, "rows first"], y: Float[Tensor, "rows second"], kept: int, *, ridge: float = 1e-3
) -> CCA:
    """Whiten both sides, then compute the singular value decomposition of their cross-covariance.

    ridge  added to the variances, relative to their mean; it limits the gain in directions of low variance
    """
    centred = [side - side.mean(0) for side in (x, y)]
    white = []
    for side in centred:
        covariance = side.T @ side / len(side)
        least = ridge * covariance.diagonal().mean()
        values, vectors = torch.linalg.eigh(covariance)
        white.append(vectors * (values.clamp(min=0) + least).rsqrt())
    u, correlations, vh = torch.linalg.svd(white[0].T @ centred[0].T @ centred[1] @ white[1] / len(x))
    directions = (white[0] @ u[:, :kept], white[1] @ vh.T[:, :kept])
    return CCA((x.mean(0), y.mean(0)), directions, correlations[:kept])


class LinearReader(NamedTuple):
    """A linear classifier of codes: ridge regression to one-hot labels, on standardised codes."""

    mean: Float[Tensor, " code"]
    std: Float[Tensor, " code"]
    weight: Float[Tensor, "code classes"]
    bias: Float[Tensor, " classes"]

    def __call__(self, codes: Float[Tensor, "rows code"]) -> Float[Tensor, "rows classes"]:
        return (codes.double() - self.mean) / self.std @ self.weight + self.bias


def fit_reader(
    codes: Float[Tensor, "rows code"], labels: Tensor, classes: int, *, ridge: float
) -> LinearReader:
    """Fit a linear classifier in double precision. `ridge` is relative to the codes' variance, which is 1."""
    codes = codes.double()
    mean, std = codes.mean(0), codes.std(0).clamp(min=1e-6)
    x = (codes - mean) / std
    wanted = F.one_hot(labels, classes).double()
    bias = wanted.mean(0)
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return LinearReader(mean, std, torch.linalg.solve(gram, x.T @ (wanted - bias)), bias)
