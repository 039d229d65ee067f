"""Compares MEGABYTE with a plain decoder at equal compute, by bits per byte and generation time."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack import data
from readtrack.data.sources import DataSource
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Break,
    Claim,
    Figure,
    Run,
    Speedup,
    Sweep,
    Trial,
    at_most,
    hookimpl,
)

from ..gpt2 import GPT2
from .model import BYTES, Megabyte

STEPS = 150

NO_GLOBAL = Break(
    "no global model",
    "The local model predicts each patch without the output of the global model.",
    "near miss",
)
RECURRENT = Break(
    "LSTM",
    "The model is a byte-level LSTM, which needs no more computation per byte than the plain decoder.",
    "rival",
)

CHEAPER = Claim(
    name="bits per byte, MEGABYTE and plain decoder at equal compute",
    sentence="After 150 steps, MEGABYTE needs fewer bits per byte on held-out source code than a plain "
    "decoder with the same number of operations per byte.",
    paper=Figure(
        "With equal compute, MEGABYTE outperforms plain byte models and PerceiverAR on five data sets",
        where="section 5, table 1",
        read="text",
    ),
    rule=(at_most("bits a byte", "MEGABYTE", -0.02, minus="plain", toward=0.0),),
    guards=(at_most("operations a byte", "MEGABYTE", 1.02, over="plain"),),
    control="a plain byte-level decoder, trained for the same number of steps, each model at its best "
    "learning rate from the same grid",
    control_arm="plain",
    control_reaches=(at_most("bits a byte", "plain", -0.5, minus="byte frequencies"),),
    after_steps=STEPS,
    breaks=(NO_GLOBAL, RECURRENT, UNTRAINED),
    chosen_on=(0, 1),
    headline=True,
    deviations="The data are windows of 256 bytes from the source code of Python's standard library. The "
    "paper's windows have 8,192 bytes or more. Ours are too short to need long context. Patches have "
    "8 bytes. The global model has three layers of hidden size 192, the local model one layer of hidden "
    "size 48, and the plain decoder two layers of hidden size 72. Training takes 150 AdamW steps with 2 "
    "windows each. After 84 steps, a local model that was trained without a global model predicted equally "
    "well. Each model uses the best of three standard deviations for the initial embeddings. Images and "
    "audio are left out.",
    history=(
        (
            'Until November 2026 the verdict was "not reproduced", with the same bound. The chosen sizes '
            "make the numbers of operations equal, so the bound on operations is now a guard. The sentence "
            "did not give the number of steps."
        ),
        (
            'Later in November 2026 the verdict was "not judged". Training took 84 steps, after which the '
            "plain decoder was barely better than byte frequencies on 1 of 5 seeds, and 64 test windows were "
            "too few. Now there are 150 steps and 1,280 test windows, because 256 were still too few. The "
            "bounds are unchanged. The claim was renamed, which gives it new seeds."
        ),
    ),
)

FASTER = Claim(
    name="generation time, MEGABYTE and plain decoder",
    sentence="MEGABYTE generates 64 bytes at least 1.4 times as fast as a plain decoder with the same "
    "computation per byte.",
    paper=Figure(
        "MEGABYTE generates 8,192 bytes in 93 s, and a plain model of about a quarter of its size in 132 s. "
        "MEGABYTE is 40 % faster.",
        where="section 8, table 5; in the preprint 9.1, table 9",
        read="table",
    ),
    rule=(Speedup("64 bytes written", over="a plain model", threshold=1.4, mode="until"),),
    control="the plain decoder with a KV cache",
    rival_variants=("a plain model of one layer",),
    deviations="The experiment's models generate 64 bytes on a CPU, both with a KV cache. The rival, a plain "
    "decoder with one layer of hidden size 104, needs slightly fewer operations per byte than MEGABYTE. The "
    "paper's models have 1.3 billion and 350 million parameters, and generate 8,192 bytes on a GPU. In the "
    "paper, the plain model is the smaller one. In our benchmark, both models need the same computation.",
    history=(
        (
            "Until 27 November 2026 there was no rival, and the plain decoder drew its bytes from "
            "probabilities, while MEGABYTE took the most likely byte. Now both take the most likely byte. "
            "The verdict was "
            '"weak" (1.39 times as fast, same bound).'
        ),
    ),
)

WINDOW, PATCH = 256, 8
GLOBAL: dict[str, Any] = {
    "patch": PATCH,
    "D_G": 192,
    "D_L": 48,
    "layers": (3, 1),
    "heads": (4, 3),
    "std": 0.3,
}
PLAIN: dict[str, Any] = {"model": 72, "heads": 4, "layers": 2, "std": 0.07}
ONE_LAYER = {**PLAIN, "model": 104, "layers": 1}  # the same computation per byte


class Unheard(Megabyte):
    """MEGABYTE with a local model that receives zeros instead of the global model's output."""

    def across_patches(self, x: Tensor, cache: Tensor | None = None, first: int = 0) -> Tensor:
        return super().across_patches(x, cache, first) * 0


class PlainBytes(GPT2):
    """GPT-2's decoder over bytes, with a zero byte as the start token."""

    def __init__(self, window: int) -> None:
        super().__init__(BYTES, context=window, **PLAIN)

    def loss(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, ""]:
        logits = self(F.pad(ids[:, :-1], (1, 0)))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


class RecurrentBytes(nn.Module):
    """Like `PlainBytes`, but with an LSTM instead of the Transformer decoder."""

    def __init__(self, width: int = 146) -> None:
        super().__init__()
        self.embed, self.readout = nn.Embedding(BYTES, width), nn.Linear(width, BYTES)
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, "batch bytes vocab"]:
        return self.readout(self.lstm(self.embed(ids))[0])

    def loss(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, ""]:
        logits = self(F.pad(ids[:, :-1], (1, 0)))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


class World(NamedTuple):
    """parts: byte sequences for training, validation and test; window: bytes per training sequence"""

    parts: data.Parts
    window: int


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(CHEAPER):
        compare(run)


def compare(run: Run) -> None:
    window = run.pick(smoke=32, quick=WINDOW, full=512)
    source = run.source("text", at_most=run.pick(smoke=20_000, quick=1_000_000, full=None), name="code")
    world = World(bytes_of(source), window)
    multiscale, alone = (partial(kind, patches=window // PATCH, **GLOBAL) for kind in (Megabyte, Unheard))
    table = run.compare(
        CHEAPER,
        arms={"MEGABYTE": Arm(multiscale), "plain": Arm(partial(PlainBytes, window))},
        attempt=train,
        read=judge,
        grid=run.pick(smoke=(5e-3,), quick=(2e-3, 5e-3, 1.2e-2, 3e-2), full=(5e-4, 1e-3, 2e-3, 5e-3)),
        score="validation nats",
        references={"byte frequencies": {"bits a byte": bits_of_frequencies(world.parts)}},
        breaks={
            NO_GLOBAL.name: {"MEGABYTE": Arm(alone)},
            RECURRENT.name: {"MEGABYTE": Arm(RecurrentBytes)},
        },
        world=world,
    )
    run.headline("bits over the place in a patch")
    if not run.null and not run.broken:
        show(run, {arm: sweep.chosen for arm, sweep in table.sweeps.items()}, world)


def bytes_of(source: DataSource) -> data.Parts:
    """The text as bytes, encoded in Latin-1 (as enwik8 is read) if possible, and otherwise in UTF-8."""
    encoding = "latin-1" if max(source.names) < "\u0100" else "utf-8"

    def encoded(piece: Int[Tensor, " characters"]) -> Int[Tensor, " bytes"]:
        text = "".join(source.names[i] for i in piece.tolist()).encode(encoding)
        return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()

    return data.Parts(*(tuple(encoded(piece) for piece in part) for part in source.parts))


def bits_of_frequencies(parts: data.Parts) -> float:
    """Bits per byte of a unigram model on the test part."""
    counts = torch.bincount(torch.cat(parts.train), minlength=BYTES).double() + 0.1
    return -(counts / counts.sum()).log2()[torch.cat(parts.judge)].mean().item()


def judge(at: Trial, found: Sweep[nn.Module]) -> dict[str, float | Tensor]:
    bits = losses(at.run, found.chosen, at.world, "judge") / math.log(2)
    work = operations(found.chosen, at.world.window)
    at.metric("held-out bits a byte", bits.mean().item())
    at.metric("operations a byte", work)
    for place, value in enumerate(bits.unflatten(1, (-1, PATCH)).mean((0, 1)).tolist()):
        at.metric("bits over the place in a patch", value, step=place)
    return {"bits a byte": bits.mean(1), "operations a byte": work}


def show(run: Run, networks: dict[str, nn.Module], world: World) -> None:
    """Report how each model continues the same prompt, and how fast. Also report MEGABYTE's loss when its
    global model's outputs are replaced by zeros.
    """
    network = networks["MEGABYTE"]
    silenced = Unheard(patches=world.window // PATCH, **GLOBAL).to(run.device, run.dtype)
    silenced.load_state_dict(network.state_dict())
    bits = losses(run, silenced, world, "judge").mean().item() / math.log(2)
    run.metric("held-out bits a byte", bits, arm="MEGABYTE, its global model silenced")
    given, count = run.pick(smoke=(8, 16), quick=(64, 128), full=(128, 256))
    ids = data.windows(world.parts.judge, given, 1, run.data("what to go on from", "judge"))
    ids = ids.to(run.device)
    lines = ["prompt", readable(ids[0])]
    for arm, writer in networks.items():
        draw, began = run.data("bytes that are written", "judge"), time.perf_counter()
        written = continued(writer, ids, count, draw)
        speed = count / (time.perf_counter() - began)
        lines += ["", f"{arm}: {count} bytes, {speed:,.0f} per second", readable(written)]
    run.text(
        "written",
        "\n".join(lines),
        caption=f"Texts sampled at a temperature of {TEMPERATURE}, after a few training steps. Each speed is "
        "a single measurement. The benchmark repeats the measurement.",
    )


TEMPERATURE = 0.7


def continued(
    network: nn.Module, ids: Int[Tensor, "1 bytes"], count: int, draw: torch.Generator
) -> Int[Tensor, " {count}"]:
    """The prompt continued by `count` bytes, a multiple of the patch size."""
    if isinstance(network, Megabyte):

        def choose(logits: Tensor) -> Tensor:
            probabilities = (logits.float() / TEMPERATURE).softmax(-1).cpu()
            return torch.multinomial(probabilities, 1, generator=draw)[:, 0].to(logits.device)

        return network.generate(ids, count // PATCH, choose)[0, -count:]
    return network.generate(F.pad(ids, (1, 0)), count, draw, temperature=TEMPERATURE)[0, -count:]


def readable(ids: Int[Tensor, " bytes"]) -> str:
    """The bytes as text, with a dot for every byte that is not printable."""
    signs = (chr(byte) for byte in ids.tolist())
    return "".join(sign if sign == "\n" or " " <= sign <= "~" else "·" for sign in signs)


def operations(network: nn.Module, window: int) -> float:
    """Matrix-multiplication FLOPs per byte, as counted by torch, which leaves out LSTMs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.loss(torch.zeros(1, window, dtype=torch.long, device=next(network.parameters()).device))
    recurrent = [
        weight
        for part in network.modules()
        if isinstance(part, nn.LSTM)
        for weight in part.parameters()
        if weight.ndim == 2
    ]
    return counter.get_total_flops() / window + 2 * sum(weight.numel() for weight in recurrent)


def train(at: Trial, make: Callable[[], nn.Module], rate: float) -> tuple[float, nn.Module]:
    run, (parts, window) = at.run, at.world
    steps = at.length(run.pick(smoke=3, quick=STEPS, full=3000))
    network = make().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches, label = at.generator("windows to train on"), f"{at.name}, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, label, state=(network, optimizer, schedule)):
        loss = network.loss(data.windows(parts.train, window, 2, batches).to(run.device))
        at.descend(loss, optimizer, step=step, arm=label, clip=1.0)
        schedule.step()
    return losses(run, network, at.world, "choose").mean().item(), network


@torch.no_grad()
def losses(
    run: Run, network: nn.Module, world: World, part: Literal["choose", "judge"]
) -> Float[Tensor, "windows window"]:
    """Loss of each byte in nats, on the same windows for every arm."""
    run.phase("evaluate")
    count = run.pick(smoke=4, quick={"choose": 64, "judge": 1280}[part], full=1280)
    ids = data.windows(getattr(world.parts, part), world.window, count, run.data(f"windows to {part}", part))
    found = []
    for some in ids.to(run.device).split(64):
        given = some if isinstance(network, Megabyte) else F.pad(some[:, :-1], (1, 0))
        found.append(F.cross_entropy(network(given).mT, some, reduction="none").double().cpu())
    return torch.cat(found)
