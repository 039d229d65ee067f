"""Checks shift invariance, and trains character models with rotary, learned and sinusoidal positions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..attention import MultiHeadAttention, merge_heads, split_heads
from .model import RotaryAttention, phases, rotate, sines

DISTANCE = Claim(
    name="scores under a shift",
    seeded_as="distance alone",
    sentence="Shifting a whole sequence leaves all attention scores unchanged, because scores depend only "
    "on distances.",
    paper=Figure(
        "The paper proves ⟨f(q, m), f(k, n)⟩ = g(q, k, m - n)", where="equations 11 and 16", read="text"
    ),
    rule=(Bound("change of scores by moving, rotated", "<=", 1e-3),),
    kind="identity",
    control="the same vectors plus a random vector for each position, like learned positions at "
    "initialisation",
    control_reaches=(Bound("change of scores by moving, learned positions", ">=", 0.1),),
    deviations="A sequence of 64 tokens is shifted by 500. The equality holds up to the rounding of angles "
    "in float32.",
)

QUERIES_ALONE = Break(
    "queries alone", "Keys are not rotated, so scores depend on the query's position only.", "near miss"
)
ONE_SPEED = Break("one speed", "All pairs rotate at the speed of the first pair.", "near miss")
BIAS = Break(
    "a bias for each distance",
    "There is no rotation. Each head adds a learned bias to its scores for each distance, as in T5.",
    "rival",
)

CONVERGES = Claim(
    name="loss by kind of positions",
    seeded_as="learns sooner",
    sentence="After 250 steps, a language model with rotated queries and keys has a lower held-out loss than "
    "a model with learned position vectors or the Transformer's sinusoids added to its input.",
    paper=Figure(
        "Pre-training converges faster than that of BERT, whose positions the paper calls sinusoidal",
        where="section 4.2, figure 3",
        read="text",
    ),
    rule=(
        at_least(
            "loss saved",
            "rotated",
            0.1,
            minus="learned positions",
            toward=0.0,
            called="loss saved over learned positions",
        ),
        at_least("loss saved", "rotated", 0.1, minus="sines", toward=0.0, called="loss saved over sines"),
    ),
    control_arm="learned positions",
    control="learned position vectors, or sinusoids, added to the input of the same model. With learned "
    "vectors, the model's loss must be at least 0.1 nats lower than that of a bigram model",
    control_reaches=(
        at_most(
            "loss",
            "learned positions",
            -0.1,
            minus="bigram",
            called="loss over a bigram's, learned positions",
        ),
    ),
    breaks=(QUERIES_ALONE, ONE_SPEED, BIAS, UNTRAINED),
    chosen_on=(0, 1, 2, 5001, 5002),
    deviations="A causal character model with two layers of hidden size 48, with pre-norm and without "
    "dropout, is trained on windows of 48 characters. The paper trains a full-size BERT on masked words. "
    "Training uses AdamW with batches of 16 and a constant learning rate. Each model uses its best learning "
    "rate from the same grid. The loss is in nats per character on a held-out part of the text.",
    headline=True,
    history=(
        (
            "Until November 2026 batches had 8 windows. After the same number of steps, the control's loss "
            "was not lower than that of a bigram model. The control was accepted, because its loss "
            "was allowed to be up to 0.1 nats higher. Now its loss must be lower by 0.1 nats. The bounds of "
            "the rule are unchanged."
        ),
    ),
)

TOKENS = 48  # window length


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(DISTANCE):
        measure_moving(run)
    if run.wants(CONVERGES):
        compare(run)


def measure_moving(run: Run) -> None:
    """Compare the scores of 64 random queries and keys at positions 0 to 63 with those at 500 to 563."""
    tokens, dim, far = 64, 64, 500
    vectors = torch.randn(3 * tokens + far, dim, generator=run.generator("vectors"))
    q, k, learned = vectors.to(run.device, run.dtype).split((tokens, tokens, far + tokens))
    here = torch.arange(tokens, device=run.device)

    def rotated(positions: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens tokens"]:
        freqs_cis = phases(positions, dim)
        return rotate(q, freqs_cis) @ rotate(k, freqs_cis).mT / math.sqrt(dim)

    def added(positions: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens tokens"]:
        return (q + learned[positions]) @ (k + learned[positions]).mT / math.sqrt(dim)

    changes = {
        f"change of scores by moving, {arm}": (scores(here + far) - scores(here)).abs().max().item()
        for arm, scores in (("rotated", rotated), ("learned positions", added))
    }
    run.claim(DISTANCE, changes)
    # The score of two equal vectors as a function of distance: the decay of section 3.3.
    distances = torch.arange(256, device=run.device)
    for distance, similarity in enumerate(phases(distances, dim).real.mean(-1).tolist()):
        run.metric("score of equal vectors over distance", similarity, step=distance, arm="rotated")


class Block(nn.Module):
    def __init__(self, attention: MultiHeadAttention, model: int) -> None:
        super().__init__()
        self.attention = attention
        self.norms = nn.ModuleList(nn.LayerNorm(model) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(model, 4 * model), nn.GELU(), nn.Linear(4 * model, model))

    def forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        x = x + self.attention(self.norms[0](x), causal=True)
        return x + self.mlp(self.norms[1](x))


class Characters(nn.Module):
    """A causal character model.

    attention  class of the attention in every block
    positions  vectors that are added to the input, learned if a Parameter, or None
    """

    def __init__(
        self,
        vocab: int,
        attention: type[MultiHeadAttention],
        positions: Float[Tensor, "window model"] | None,
        *,
        model: int = 48,
        heads: int = 2,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, model)
        if isinstance(positions, nn.Parameter):
            self.positions = positions
        else:
            self.register_buffer("positions", positions)
        self.blocks = nn.Sequential(*(Block(attention(model, heads), model) for _ in range(layers)))
        self.readout = nn.Sequential(nn.LayerNorm(model), nn.Linear(model, vocab))

    def forward(self, text: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        x = self.embed(text)
        if self.positions is not None:
            x = x + self.positions[: text.shape[1]]
        return self.readout(self.blocks(x))

    def loss(self, text: Int[Tensor, "batch characters"]) -> Float[Tensor, ""]:
        """Mean loss in nats per character, excluding the first character."""
        return F.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class QueriesAlone(RotaryAttention):
    def turn(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return super().turn(q, k, positions)[0], k


class OneSpeed(RotaryAttention):
    def turn(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        dim = q.shape[-1]
        freqs_cis = phases(positions, dim)[:, :1].expand(-1, dim // 2)
        return rotate(q, freqs_cis), rotate(k, freqs_cis)


class DistanceBias(MultiHeadAttention):
    """Attention with a learned bias for each head and distance, instead of rotations."""

    def __init__(self, model: int, heads: int) -> None:
        super().__init__(model, heads)
        self.bias = nn.Parameter(torch.zeros(heads, TOKENS))

    def forward(
        self, x: Float[Tensor, "*batch tokens model"], *, causal: bool
    ) -> Float[Tensor, "*batch tokens model"]:
        q, k, v = (split_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        place = torch.arange(x.shape[-2], device=x.device)
        distance = place[:, None] - place
        bias = self.bias[:, distance.clamp(min=0)]
        if causal:
            bias = bias.masked_fill(distance < 0, -math.inf)
        return self.output(merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))


Make = Callable[[int, int], Characters]  # maps vocabulary size and model size to a model


def turning(attention: type[MultiHeadAttention]) -> Make:
    """A character model whose only position information is in its attention."""
    return lambda vocab, model: Characters(vocab, attention, None, model=model)


def learned(vocab: int, model: int) -> Characters:
    positions = nn.Parameter(torch.randn(TOKENS, model))  # like nn.Embedding
    return Characters(vocab, MultiHeadAttention, positions, model=model)


def with_sines(vocab: int, model: int) -> Characters:
    return Characters(vocab, MultiHeadAttention, sines(phases(torch.arange(TOKENS), model)), model=model)


@dataclass(frozen=True)
class Text:
    """parts: sequences of ids for training, validation and test; vocab: number of distinct characters"""

    parts: data.Parts
    vocab: int

    @classmethod
    def of(cls, run: Run) -> "Text":
        source = run.source("text")
        return cls(source.parts, len(source.names))

    def windows(self, run: Run, part: Literal["choose", "judge"]) -> Int[Tensor, "windows longer"]:
        name = {"choose": "windows to choose by", "judge": "windows to judge"}[part]
        return data.windows(getattr(self.parts, part), TOKENS + 1, 128, run.data(name, part))


class Trained(NamedTuple):
    """curve: training loss by step"""

    model: Characters
    curve: dict[int, float]


def compare(run: Run) -> None:
    text = Text.of(run)
    bigram = bigram_loss(text.parts, text.windows(run, "judge"), text.vocab)
    run.metric("held-out loss", bigram, arm="bigram")
    run.compare(
        CONVERGES,
        arms={
            "rotated": Arm(turning(RotaryAttention)),
            "learned positions": Arm(learned),
            "sines": Arm(with_sines),
        },
        attempt=train,
        read=judged,
        grid=run.pick(smoke=(3e-3,), quick=(1e-3, 3e-3, 1e-2, 3e-2), full=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
        score="validation loss",
        references={"bigram": {"loss": bigram}},
        breaks={
            QUERIES_ALONE.name: {"rotated": Arm(turning(QueriesAlone))},
            ONE_SPEED.name: {"rotated": Arm(turning(OneSpeed))},
            BIAS.name: {"rotated": Arm(turning(DistanceBias))},
        },
        world=text,
    )
    run.headline("training loss at the best rate")


def train(at: Trial, make: Make, rate: float) -> tuple[float, Trained]:
    """Train a model, and return its validation loss, and the model with its curve."""
    run, text = at.run, at.world
    steps, model_width = run.pick(smoke=3, quick=250, full=3000), run.pick(smoke=16, quick=48, full=64)
    model = make(text.vocab, model_width).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batches, curve = at.generator("batches"), {}
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(model, optimizer, curve)):
        loss = model.loss(data.windows(text.parts.train, TOKENS + 1, 16, batches).to(run.device))
        value = at.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}")
        if step % 10 == 0:
            curve[step] = value
    run.phase("evaluate")
    return held_out(at, model, "choose"), Trained(model, curve)


def judged(at: Trial, found: Sweep[Trained]) -> dict[str, float]:
    for step, value in found.chosen.curve.items():
        at.metric("training loss at the best rate", value, step=step)
    loss = held_out(at, found.chosen.model, "judge")
    at.metric("held-out loss", loss)
    return {"loss": loss, "loss saved": -loss}  # negated, so that a higher value is better


@torch.no_grad()
def held_out(at: Trial, model: Characters, part: Literal["choose", "judge"]) -> float:
    return model.loss(at.world.windows(at.run, part).to(at.run.device)).item()


def bigram_loss(text: data.Parts, windows: Int[Tensor, "windows longer"], vocab: int) -> float:
    """Loss of a bigram model in nats per character, from training counts smoothed by 0.1."""
    counts = torch.full((vocab, vocab), 0.1)
    for piece in text.train:
        counts.index_put_((piece[:-1], piece[1:]), torch.ones(len(piece) - 1), accumulate=True)
    log_probabilities = (counts / counts.sum(1, keepdim=True)).log()
    return -log_probabilities[windows[:, :-1], windows[:, 1:]].mean().item()
