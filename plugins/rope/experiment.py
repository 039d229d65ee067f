"""Moving a sequence, and a character model with rotations, learned positions, and added sines."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..attention import MultiHeadAttention
from .model import RotaryAttention, phases, rotate, sines

DISTANCE = Claim(
    name="distance alone",
    sentence="Moving a whole sequence changes no score: only distances count.",
    paper=Figure("⟨f(q, m), f(k, n)⟩ = g(q, k, m - n), a proof", where="equations 11 and 16", read="text"),
    rule=(Bound("change of scores by moving, rotated", "<=", 1e-3),),
    kind="identity",
    control="the same vectors with a random vector added for each position, as learned ones start",
    control_reaches=(Bound("change of scores by moving, learned positions", ">=", 0.1),),
    deviations="Up to the rounding of angles in single precision; 64 tokens moved by 500.",
)

QUERIES_ALONE = Break("queries alone", "Keys are not turned: what counts is where a query stands.")
ONE_SPEED = Break("one speed", "All pairs turn as fast as the first.")

CONVERGES = Claim(
    name="learns sooner",
    sentence="After as many steps a language model that turns its queries and keys predicts better than one "
    "that adds vectors to its input, learned ones or the Transformer's sines.",
    paper=Figure(
        "Faster convergence in pre-training than BERT, whose positions the paper calls sinusoidal",
        where="section 4.2, figure 3",
        read="text",
    ),
    rule=(
        Bound("loss saved over learned positions", ">=", 0.1, direction=0.0),
        Bound("loss saved over sines", ">=", 0.1, direction=0.0),
    ),
    control="a learned vector for each position, or sines, added to the input of the same model",
    control_reaches=(Bound("loss over a bigram's, learned positions", "<=", 0.1),),
    breaks=(QUERIES_ALONE, ONE_SPEED),
    chosen_on=(0, 1, 2),
    deviations="A causal character model of two layers and width 48, windows of 48, 250 steps; nats a "
    "character on another part of the text; each arm at the best of four rates. The paper masks words.",
)

TOKENS = 48  # of a window


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(DISTANCE):
        measure_moving(run)
    if run.wants(CONVERGES):
        compare(run)


def measure_moving(run: Run) -> None:
    """Scores of 64 random queries and keys at positions 0 to 63, and at 500 to 563."""
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
    # What the rotation alone does to two equal vectors at a distance: section 3.3's decay.
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
    """A causal model of characters.

    attention  of every block
    positions  what is added to the input, or None: a Parameter is learned
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
        """Mean nats a character, of all but the first."""
        return F.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class QueriesAlone(RotaryAttention):
    def turn(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return super().turn(q, k, positions)[0], k


class OneSpeed(RotaryAttention):
    def turn(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        dim = q.shape[-1]
        freqs_cis = phases(positions, dim)[:, :1].expand(-1, dim // 2)
        return rotate(q, freqs_cis), rotate(k, freqs_cis)


Make = Callable[[int, int], Characters]  # size of the vocabulary, width


def arms_of(run: Run) -> dict[str, Make]:
    rotary: type[RotaryAttention] = RotaryAttention
    if run.without(QUERIES_ALONE.name):
        rotary = QueriesAlone
    if run.without(ONE_SPEED.name):
        rotary = OneSpeed

    def rotated(vocab: int, model: int) -> Characters:
        return Characters(vocab, rotary, None, model=model)

    def learned(vocab: int, model: int) -> Characters:
        positions = nn.Parameter(torch.randn(TOKENS, model))  # as nn.Embedding's
        return Characters(vocab, MultiHeadAttention, positions, model=model)

    def with_sines(vocab: int, model: int) -> Characters:
        positions = sines(phases(torch.arange(TOKENS), model))
        return Characters(vocab, MultiHeadAttention, positions, model=model)

    builders = {"rotated": rotated, "learned positions": learned, "sines": with_sines}
    return run.arms(builders, control="learned positions")


class Trained(NamedTuple):
    """loss: on the part of the text that nothing was chosen by; curve: step to training loss."""

    loss: float
    curve: dict[int, float]


def compare(run: Run) -> None:
    ids, alphabet = data.characters(data.text())
    text = data.stretches(ids, run.seed)
    rates = run.pick(smoke=(3e-3,), quick=(1e-3, 3e-3, 1e-2, 3e-2), full=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2))
    best: dict[str, Best[Trained]] = {
        arm: run.sweep(
            arm,
            rates,
            lambda rate, arm=arm, make=make: train(run, arm, make, rate, text, len(alphabet)),
            score="validation loss",
        )
        for arm, make in arms_of(run).items()
    }
    for arm, found in best.items():
        for step, value in found.result.curve.items():
            run.metric("training loss at the best rate", value, step=step, arm=arm)
    run.headline("training loss at the best rate")
    loss = {arm: found.result.loss for arm, found in best.items()}
    loss["bigram"] = bigram_loss(text, len(alphabet))
    for arm, value in loss.items():
        run.metric("held-out loss", value, arm=arm)
    run.claim(
        CONVERGES,
        {
            "loss saved over learned positions": loss["learned positions"] - loss["rotated"],
            "loss saved over sines": loss["sines"] - loss["rotated"],
            "loss over a bigram's, learned positions": loss["learned positions"] - loss["bigram"],
        },
        tuned=list(best.values()),
    )


def train(run: Run, arm: str, make: Make, rate: float, text: data.Parts, vocab: int) -> tuple[float, Trained]:
    """Train one arm at one rate: the loss to choose by, and what came of it."""
    steps, model_width = run.pick(smoke=3, quick=250, full=3000), run.pick(smoke=16, quick=48, full=64)
    torch.manual_seed(run.seed)
    model = make(vocab, model_width).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    batches, curve = run.generator("batches"), {}
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        loss = model.loss(data.windows(text.train, TOKENS + 1, 8, batches).to(run.device))
        value = run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
        if step % 10 == 0:
            curve[step] = value

    run.phase("evaluate")
    with torch.no_grad():
        to_choose_by, to_judge = (
            model.loss(data.windows(part, TOKENS + 1, 128, run.generator(name)).to(run.device)).item()
            for name, part in (("windows to choose by", text.choose), ("windows to judge", text.judge))
        )
    return to_choose_by, Trained(to_judge, curve)


def bigram_loss(text: data.Parts, vocab: int) -> float:
    """Nats a character when only the last one is looked at: counts of the text to train on, a tenth added."""
    counts = torch.full((vocab, vocab), 0.1)
    for piece in text.train:
        counts.index_put_((piece[:-1], piece[1:]), torch.ones(len(piece) - 1), accumulate=True)
    log_probabilities = (counts / counts.sum(1, keepdim=True)).log()
    (judge,) = text.judge
    return -log_probabilities[judge[:-1], judge[1:]].mean().item()
