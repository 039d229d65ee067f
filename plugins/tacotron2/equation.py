"""Compares the attention weights with the equation, computed in loops."""

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bound, Claim, Figure, Run

from .model import LocationSensitiveAttention

EQUATION = Claim(
    name="location-sensitive attention weights",
    sentence="The attention weights equal those computed symbol by symbol from the equation.",
    paper=Figure(
        "The attention of Chorowski et al. 2015, extended to the sum of past weights.",
        where="section 2.2",
        read="text",
    ),
    kind="identity",
    rule=(Bound("largest difference of weights", "<=", 1e-12),),
    control="the equation, computed in loops",
    deviations="The location features are computed from the previous weights and from the sum of all past "
    "weights, as in common implementations. Section 2.2 mentions only the sum.",
)


def follow_the_equation(run: Run) -> None:
    """Compare attention with explicit loops for three consecutive queries, each with its past weights."""
    torch.manual_seed(run.seed)
    layer = LocationSensitiveAttention(6, 5, 4, 3, 5).double()
    generator = run.generator("attention")
    memory, queries = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((1, 7, 5), (3, 1, 6))
    )
    past, mask, worst = torch.zeros(1, 2, 7, dtype=torch.float64), torch.ones(1, 7, dtype=torch.bool), 0.0
    for query in queries:
        weights = layer(query, layer.memory_layer(memory), past, mask)
        worst = max(worst, (weights[0] - by_loops(layer, query[0], memory[0], past[0])).abs().max().item())
        past = torch.stack((weights, past[:, 1] + weights), 1)
    run.claim(EQUATION, {"largest difference of weights": worst})


@torch.no_grad()
def by_loops(
    layer: LocationSensitiveAttention,
    query: Float[Tensor, " query"],
    memory: Float[Tensor, "symbols memory"],
    past: Float[Tensor, "2 symbols"],
) -> Float[Tensor, " symbols"]:
    assert layer.location_layer is not None
    kernel, count = layer.location_layer.location_conv.weight, len(memory)
    half, energies = kernel.shape[2] // 2, []
    for symbol in range(count):
        f = torch.zeros_like(kernel[:, 0, 0])
        for tap in range(kernel.shape[2]):
            place = symbol + tap - half
            if 0 <= place < count:
                f = f + kernel[:, :, tap] @ past[:, place]
        hidden = layer.query_layer.weight @ query + layer.memory_layer.weight @ memory[symbol]
        hidden = hidden + layer.location_layer.location_dense.weight @ f
        energies.append(layer.v.weight[0] @ hidden.tanh())
    exponentials = torch.stack(energies).exp()
    return exponentials / exponentials.sum()
