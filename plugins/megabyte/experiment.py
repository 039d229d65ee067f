"""The claims: bits a byte for as much work, and how fast bytes are written."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from ..gpt2 import GPT2
from .model import BYTES, Megabyte

NO_GLOBAL = Break("patches alone", "Each patch is spelled without a word from the global model.")

CHEAPER = Claim(
    name="better for as much work",
    sentence="With as many operations a byte it predicts bytes better than a plain model does.",
    paper=Figure(
        "with equal compute better than plain byte models and PerceiverAR on five data sets",
        where="section 5, table 1",
        read="text",
    ),
    rule=(
        Bound("bits a byte, plain - MEGABYTE", ">=", 0.02, direction=0.0),
        Bound("operations a byte, MEGABYTE / plain", "<=", 1.02),
    ),
    control="a plain decoder of bytes, in as many steps; each at the best of the same rates",
    control_reaches=(Bound("bits a byte saved by the plain model over byte frequencies", ">=", 0.5),),
    breaks=(NO_GLOBAL,),
    chosen_on=(0, 1),
    deviations="Source code of Python's library in windows of 256 bytes, patches of 8: a global model of "
    "width 192 in 3 layers, a local one of width 48 in one, against two layers of width 72; 84 steps of 2, "
    "after which a local model that was trained without the global one does as well.",
)

FASTER = Claim(
    name="writes faster",
    sentence="It writes bytes faster than the plain model of as much work a byte does.",
    paper=Figure(
        "8192 bytes in 93 s against 132 s, 40 % faster than a plain model of less than a quarter of its size",
        where="section 8, table 5; in the preprint 9.1, table 9",
        read="table",
    ),
    rule=(Speedup("64 bytes written", over="a plain model", threshold=1.4, mode="until"),),
    control="the plain model with a cache",
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


class Unheard(Megabyte):
    """The local model alone."""

    def across_patches(self, x: Tensor, cache: Tensor | None = None, first: int = 0) -> Tensor:
        return super().across_patches(x, cache, first) * 0


class PlainBytes(GPT2):
    """GPT-2's decoder over bytes; before the first stands a zero byte."""

    def __init__(self, window: int) -> None:
        super().__init__(BYTES, context=window, **PLAIN)

    def loss(self, ids: Int[Tensor, "batch bytes"]) -> Float[Tensor, ""]:
        logits = self(F.pad(ids[:, :-1], (1, 0)))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(CHEAPER):
        compare(run)


def compare(run: Run) -> None:
    window = run.pick(smoke=32, quick=WINDOW, full=512)
    multiscale = Unheard if run.without(NO_GLOBAL.name) else Megabyte
    makes: dict[str, Callable[[], nn.Module]] = run.arms(
        {
            "MEGABYTE": partial(multiscale, patches=window // PATCH, **GLOBAL),
            "plain": partial(PlainBytes, window),
        },
        control="plain",
    )
    text = data.code()[: run.pick(smoke=20_000, quick=1_000_000, full=None)].encode()
    parts = data.stretches(torch.frombuffer(bytearray(text), dtype=torch.uint8).long(), run.seed)
    rates = run.pick(smoke=(5e-3,), quick=(2e-3, 5e-3, 1.2e-2, 3e-2), full=(5e-4, 1e-3, 2e-3, 5e-3))
    best: dict[str, Best[nn.Module]] = {}
    bits: dict[str, float] = {}
    work: dict[str, float] = {}
    for arm, make in makes.items():
        best[arm] = run.sweep(
            arm, rates, partial(train, run, arm, make, parts, window), score="validation nats"
        )
        network = best[arm].result
        found = losses(run, network, parts.judge, window, "windows to judge by") / math.log(2)
        bits[arm] = found.mean().item()
        work[arm] = operations(network, window)
        run.metric("held-out bits a byte", bits[arm], arm=arm)
        run.metric("operations a byte", work[arm], arm=arm)
        for place, value in enumerate(found.unflatten(0, (-1, PATCH)).mean(0).tolist()):
            run.metric("bits over the place in a patch", value, step=place, arm=arm)
    run.headline("bits over the place in a patch")
    counts = torch.bincount(torch.cat(parts.train), minlength=BYTES).double() + 0.1
    frequencies = -(counts / counts.sum()).log2()[torch.cat(parts.judge)].mean().item()
    values = {
        "bits a byte, plain - MEGABYTE": bits["plain"] - bits["MEGABYTE"],
        "operations a byte, MEGABYTE / plain": work["MEGABYTE"] / work["plain"],
        "bits a byte saved by the plain model over byte frequencies": frequencies - bits["plain"],
    }
    run.claim(CHEAPER, values, tuned=list(best.values()))
    if not run.null and not run.broken:
        show(run, {arm: found.result for arm, found in best.items()}, parts)


def show(run: Run, networks: dict[str, nn.Module], parts: data.Parts) -> None:
    """What each arm writes after the same beginning, and how fast; and what MEGABYTE is without its global
    model, which it was trained with."""
    network = networks["MEGABYTE"]
    window = network.positions.shape[0]
    silenced = Unheard(patches=window // PATCH, **GLOBAL).to(run.device, run.dtype)
    silenced.load_state_dict(network.state_dict())
    bits = losses(run, silenced, parts.judge, window, "windows to judge by").mean().item() / math.log(2)
    run.metric("held-out bits a byte", bits, arm="MEGABYTE, its global model silenced")
    given, count = run.pick(smoke=(8, 8), quick=(64, 128), full=(128, 256))
    ids = data.windows(parts.judge, given, 1, run.generator("what to go on from")).to(run.device)
    lines = ["beginning", readable(ids[0])]
    for arm, writer in networks.items():
        draw, began = run.generator("bytes that are written"), time.perf_counter()
        written = continued(writer, ids, count, draw)
        speed = count / (time.perf_counter() - began)
        lines += ["", f"{arm}: {count} bytes, {speed:,.0f} a second", readable(written)]
    run.text(
        "written",
        "\n".join(lines),
        caption=f"Drawn at a temperature of {TEMPERATURE}, after a few steps of training. The speed is that "
        "of one try; the benchmark measures it.",
    )


TEMPERATURE = 0.7


def continued(
    network: nn.Module, ids: Int[Tensor, "1 bytes"], count: int, draw: torch.Generator
) -> Int[Tensor, " {count}"]:
    """`count` more bytes, a multiple of the patch."""
    if isinstance(network, Megabyte):

        def choose(logits: Tensor) -> Tensor:
            probabilities = (logits.float() / TEMPERATURE).softmax(-1).cpu()
            return torch.multinomial(probabilities, 1, generator=draw)[:, 0].to(logits.device)

        return network.generate(ids, count // PATCH, choose)[0, -count:]
    return network.generate(F.pad(ids, (1, 0)), count, draw, temperature=TEMPERATURE)[0, -count:]


def readable(ids: Int[Tensor, " bytes"]) -> str:
    """As text; a dot for what cannot be printed."""
    signs = (chr(byte) for byte in ids.tolist())
    return "".join(sign if sign == "\n" or " " <= sign <= "~" else "·" for sign in signs)


def operations(network: nn.Module, window: int) -> float:
    """Operations of products a byte, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.loss(torch.zeros(1, window, dtype=torch.long, device=next(network.parameters()).device))
    return counter.get_total_flops() / window


def train(
    run: Run, arm: str, make: Callable[[], nn.Module], parts: data.Parts, window: int, rate: float
) -> tuple[float, nn.Module]:
    steps = run.pick(smoke=3, quick=84, full=3000)
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches = run.generator("windows to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        loss = network.loss(data.windows(parts.train, window, 2, batches).to(run.device))
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}", clip=1.0)
        schedule.step()
    return losses(run, network, parts.choose, window, "windows to choose by").mean().item(), network


@torch.no_grad()
def losses(
    run: Run, network: nn.Module, pieces: tuple[Tensor, ...], window: int, stream: str
) -> Float[Tensor, " {window}"]:
    """Nats of each byte of a window, on average over windows that are the same for every arm."""
    run.phase("evaluate")
    ids = data.windows(pieces, window, run.pick(smoke=4, quick=64, full=512), run.generator(stream)).to(
        run.device
    )
    given = ids if isinstance(network, Megabyte) else F.pad(ids[:, :-1], (1, 0))
    return F.cross_entropy(network(given).mT, ids, reduction="none").double().mean(0).cpu()
