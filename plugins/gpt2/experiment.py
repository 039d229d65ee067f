"""The claims: sizes counted, the residual path measured before training, and three sizes trained."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from readtrack import data
from readtrack.data.sources import DataSource
from readtrack.datasets.store import DataSets
from readtrack.home import Home
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..byte_bpe import ByteBPE
from ..byte_bpe import train as train_merges
from .model import GPT2, XL
from .weights import from_released, read_merges

SIZE = Claim(
    name="the paper's sizes",
    sentence="This folder's models have the parameters of the released ones.",
    paper=Figure(
        "117 and 1542 million; the released files hold 124,439,808 and 1,557,611,200",
        where="table 2",
        read="secondary",
    ),
    rule=(
        Bound("parameters, smallest", "==", 124_439_808),
        Bound("parameters, largest", "==", 1_557_611_200),
    ),
    kind="identity",
)

RESIDUAL = Claim(
    name="a quiet residual path",
    sentence="With the scaled initial weights, what the blocks add to the residual path does not grow with "
    "their number; without, it does.",
    paper=Figure(
        "it accounts for what accumulates on the residual path with depth; no figure",
        where="section 2.3",
        read="secondary",
    ),
    rule=(
        Bound("std added by 48 layers / by 3, scaled", "<=", 1.5),
        Bound("std added by 48 layers / by 3, unscaled", ">=", 2.5),
    ),
    kind="theorem",
    control="the same models, the layers that write to the path begun as all others",
    deviations="Untrained, width 64.",
)

LARGER = Claim(
    name="larger is better",
    sentence="The loss on held-out text keeps falling as the model grows, each size at a rate that suits it, "
    "after as many steps.",
    paper=Figure(
        "perplexity falls with each of four sizes, on training and on held-out text alike (figure 4)",
        where="table 3",
        read="secondary",
    ),
    rule=(
        Bound("bits a byte saved, token frequencies to small", ">=", 0.2, direction=0.0),
        Bound("bits a byte saved, small to medium", ">=", 0.1, direction=0.0),
        Bound("bits a byte saved, medium to large", ">=", 0.03, direction=0.0),
    ),
    control="the smallest, and how often each token stands in the text to train on; each size at the best of "
    "three rates, chosen on other text",
    breaks=(Break("shuffled text", "the tokens stand in no order: there is nothing for size to find"),),
    shortcuts=("bits a byte, token frequencies",),
    chosen_on=(0, 1, 2),
    deviations="3, 25 and 150 thousand parameters in blocks, 200 steps, windows of 64 tokens, no dropout "
    "(the paper names none, GPT had 0.1); Python's language reference in 256 merges; the weights begin as "
    "large beside their width as the paper's 0.02 is at 768.",
    headline=True,
)

SIZES = {"small": (16, 2, 1), "medium": (32, 2, 2), "large": (64, 4, 3)}  # width, heads, layers
WINDOW = 64  # tokens
PROMPT = "\n\nThe value of the "

Pieces = Sequence[Int[Tensor, " _"]]  # of a text, as tokens


@hookimpl
def experiment(run: Run) -> None:
    released = run.option("weights", "")
    merges = run.option("merges", "")
    if released:
        use_released(run, released_file(released), Path(merges) if merges else None)
    if run.wants(SIZE):
        count_parameters(run)
    if run.wants(RESIDUAL):
        measure_residual(run)
    if run.wants(LARGER):
        compare_sizes(run)


def count_parameters(run: Run) -> None:
    with torch.device("meta"):  # shapes alone: nothing is stored
        models = {"smallest": GPT2(), "largest": GPT2(**XL)}
    run.claim(SIZE, {f"parameters, {size}": parameters(model) for size, model in models.items()})


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@torch.no_grad()
def measure_residual(run: Run) -> None:
    """The standard deviation of what all blocks together add to the residual path, before training."""
    ids = torch.randint(100, (4, 32), generator=run.generator("tokens")).to(run.device)
    values = {}
    for arm, scaled in (("scaled", True), ("unscaled", False)):
        added = {}
        for layers in (3, 12, 48):
            torch.manual_seed(run.seed)
            network = GPT2(100, context=32, model=64, heads=4, layers=layers, scaled=scaled)
            network = network.to(run.device, run.dtype)
            x = start = network.tokens(ids) + network.positions.weight
            for block in network.blocks:
                x = block(x)
            added[layers] = (x - start).std().item()
            run.metric("std added over layers", added[layers], step=layers, arm=arm)
        values[f"std added by 48 layers / by 3, {arm}"] = added[48] / added[3]
    run.claim(RESIDUAL, values)


def compare_sizes(run: Run) -> None:
    run.phase("setup")
    bpe, (seen, choose, judge), judged = tokens_of(run)
    bytes_per_token = len(judged.encode()) / sum(map(len, judge))
    vocab = len(bpe)
    makes = {
        size: partial(
            # As large beside its width as the paper's 0.02 is at 768.
            GPT2,
            vocab,
            context=WINDOW,
            model=m,
            heads=h,
            layers=n,
            std=0.02 * math.sqrt(768 / m),
        )
        for size, (m, h, n) in SIZES.items()
    }
    arms = run.arms(makes, control="small")
    rates = run.pick(smoke=(0.018,), quick=(0.008, 0.018, 0.04), full=(0.004, 0.008, 0.018, 0.04))
    steps = run.pick(smoke=3, quick=200, full=5000)
    frequent = bits_of_frequencies(seen, judge, vocab) / bytes_per_token
    best: dict[str, Best[GPT2]] = {}
    bits: dict[str, float] = {}
    for arm, make in arms.items():

        def attempt(rate: float, arm: str = arm, make: partial[GPT2] = make) -> tuple[float, GPT2]:
            torch.manual_seed(run.seed)
            network = make().to(run.device, run.dtype)
            # What suits a model falls with its width: the grid is that of the smallest.
            own = rate * math.sqrt(SIZES["small"][0] / network.tokens.embedding_dim)
            train(run, network, seen, steps=steps, rate=own, arm=f"{arm}, rate {own:.2g}")
            return evaluate(run, network, choose, "windows to choose by"), network

        best[arm] = run.sweep(arm, rates, attempt, what="rate of the smallest", score="validation nats")
        nats = evaluate(run, best[arm].result, judge, "windows to judge by")
        bits[arm] = nats / math.log(2) / bytes_per_token
        run.metric("bits a byte over parameters", bits[arm], step=parameters(best[arm].result), arm="GPT-2")
        run.metric("held-out bits a byte", bits[arm], arm=arm)
    run.headline("bits a byte over parameters")
    values = {
        "bits a byte saved, token frequencies to small": frequent - bits["small"],
        "bits a byte saved, small to medium": bits["small"] - bits["medium"],
        "bits a byte saved, medium to large": bits["medium"] - bits["large"],
        "bits a byte, token frequencies": frequent,
    }
    run.claim(LARGER, values, tuned=list(best.values()))
    write(run, best["large"].result, bpe, "samples", "The largest model goes on after [...].")


def tokens_of(run: Run) -> tuple[ByteBPE, tuple[Pieces, Pieces, Pieces], str]:
    """Merges learned from the text to train on; the three parts as tokens; and the text to judge by."""
    source = run.source("text", at_most=run.pick(smoke=20_000, quick=None, full=None))
    parts = [written_out(source, part) for part in ("train", "choose", "judge")]
    bpe = ByteBPE(train_merges("\n".join(parts[0]), run.pick(smoke=20, quick=256, full=1000)))
    seen, choose, judge = ([torch.tensor(bpe.encode(piece)) for piece in part] for part in parts)
    if run.without("shuffled text"):
        seen, choose, judge = (
            [piece[torch.randperm(len(piece), generator=run.generator(name))] for piece in part]
            for name, part in (("shuffle seen", seen), ("shuffle choose", choose), ("shuffle judge", judge))
        )
    return bpe, (seen, choose, judge), "".join(parts[2])


def bits_of_frequencies(seen: Pieces, judge: Pieces, vocab: int) -> float:
    """Bits a token when each is predicted by how often it stood in the text to train on."""
    counts = torch.bincount(torch.cat(list(seen)), minlength=vocab).double() + 1
    return -(counts / counts.sum()).log2()[torch.cat(list(judge))].mean().item()


def train(
    run: Run, network: GPT2, seen: Pieces, *, steps: int, rate: float, arm: str, batch: int = 8
) -> list[float]:
    """AdamW on windows of text as long as the model reads, gradients clipped to 1; a rate that climbs for a
    tenth of the steps and falls to zero as a cosine. Returns the loss of each step, nats a token."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * step / steps)) / 2)
    )
    window, draw = network.positions.num_embeddings, run.generator("windows to train on")
    losses = []
    run.phase("train")
    for step in run.steps(steps, arm):
        loss = network.loss(data.windows(seen, window + 1, batch, draw).to(run.device))
        losses.append(run.descend(loss, optimizer, step=step, arm=arm, clip=1.0))
        schedule.step()
    return losses


@torch.no_grad()
def evaluate(run: Run, network: GPT2, pieces: Pieces, stream: str) -> float:
    """Nats a token on windows of `pieces`, the same for every model of a run."""
    run.phase("evaluate")
    window, count = network.positions.num_embeddings, run.pick(smoke=8, quick=128, full=1024)
    return network.loss(data.windows(pieces, window + 1, count, run.generator(stream)).to(run.device)).item()


def released_file(weights: str) -> Path:
    """The file of `--set weights=`: a path, or a name that `readtrack weights get` has fetched."""
    store = DataSets(Home())
    return store.path(weights) / "model.safetensors" if weights in store.names() else Path(weights)


def use_released(run: Run, weights: Path, merges: Path | None) -> None:
    """Text from a released model, and its perplexity on the text that `--data` names.

    Its merges lie beside it unless they are named. Of the part to judge by the beginning is read, in windows
    as long as the model's context, each without the one before.
    """
    run.phase("setup")
    network = from_released(weights).to(run.device, run.dtype).eval()
    beside = [weights.with_name(name) for name in ("merges.txt", "vocab.bpe")]
    bpe = read_merges(merges or next((path for path in beside if path.exists()), beside[0]))
    write(run, network, bpe, "samples of the released model", f"{weights.name} goes on after [...].")
    text = written_out(run.source("text"), "judge")[0]
    size = network.positions.num_embeddings
    tokens = bpe.encode(text[: run.pick(smoke=500, quick=50_000, full=1_000_000)])
    nats, read = 0.0, 0
    for first in run.steps(max(len(tokens) // size, 1), "perplexity"):
        ids = torch.tensor([tokens[first * size :][:size]], device=run.device)
        with torch.no_grad():
            nats, read = nats + network.loss(ids).item() * (ids.shape[1] - 1), read + ids.shape[1] - 1
    run.metric("perplexity of a token", math.exp(nats / read), arm=weights.name)


def written_out(source: DataSource, part: Literal["train", "choose", "judge"]) -> list[str]:
    """The pieces of that part as texts."""
    return ["".join(source.names[i] for i in piece.tolist()) for piece in getattr(source.parts, part)]


def write(run: Run, network: GPT2, bpe: ByteBPE, name: str, caption: str) -> None:
    """Go on from the same few words, several times."""
    run.phase("evaluate")
    prompt = bpe.encode(run.option("prompt", PROMPT))
    ids = torch.tensor([prompt], device=run.device)
    room = min(network.positions.num_embeddings, 2 * WINDOW)
    count = run.pick(smoke=4, quick=room - len(prompt), full=room - len(prompt))
    written = []
    for temperature, top_k in ((0.0, None), (0.7, 40), (1.0, 40), (1.0, None), (1.5, None)):
        ids_out = network.generate(ids, count, run.generator("text"), temperature=temperature, top_k=top_k)
        whole = "all tokens" if top_k is None else f"the likeliest {top_k}"
        what = "the likeliest token" if temperature == 0 else f"temperature {temperature:g}, {whole}"
        continued = bpe.decode(ids_out[0, len(prompt) :].tolist())
        written.append(f"{what}\n\n{bpe.decode(prompt)}[...]{continued}\n")
    run.text(name, "\n".join(written), caption=caption)
