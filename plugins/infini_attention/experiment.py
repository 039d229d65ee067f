"""The claims: streaming is the formula, and how far back a value is found."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Growth, Run, hookimpl

from ..attention import MultiHeadAttention, merge_heads, scaled_dot_product_attention, split_heads
from ..rope import phases, rotate
from .model import InfiniAttention, Memory

SEGMENT = 16
TRAINED = (2, 3, 4)  # segments of the texts to train on
LENGTHS = (2, 4, 8, 16, 32)
CACHED = 8  # tokens whose keys and values are as many numbers as M and z of heads 16 wide
VALUES, CYCLE = 16, 12

STREAM = Claim(
    name="streaming is one formula",
    sentence="Read segment by segment, the memory gives what kernel attention over all earlier ones gives.",
    paper=Figure("the memory is linear attention's", where="section 2.1", read="text"),
    rule=(Bound("largest change of a result by streaming", "<=", 1e-4),),
    kind="identity",
    control="the same with a memory that is written before it is read",
    control_reaches=(Bound("largest change if written first", ">=", 1e-3),),
)

COUNT = Claim(
    name="a gate, and a memory of d (d + 1) numbers, a head",
    sentence="All that a head has beside ordinary attention is one parameter, and a memory of d_key times "
    "d_value and d_key numbers.",
    paper=Figure("d_key · (d_value + 1) numbers for each head and layer; a scalar gate", where="table 1"),
    rule=(
        Bound("parameters more than multi-head attention, a head", "==", 1),
        Bound("numbers in the memory of a head 64 wide", "==", 64 * 65),
    ),
    kind="identity",
    control="multi-head attention of the same width",
)

WIPED = Break("wiped", "Each segment finds an empty memory.")

INSIDE = Claim(
    name="finds what a cache of its size has lost",
    sentence="Within the lengths of training a memory of constant size finds a value that a cache of as many "
    "numbers has dropped.",
    paper=Figure(
        "passkeys at 32K tokens and more after 400 steps on 5K; 114 times less memory than the best baseline",
        where="tables 2 and 3",
        read="table",
    ),
    rule=(
        Bound("accuracy at four segments", ">=", 0.8, direction=0.4),
        Bound("accuracy over that of a cache as large, four segments", ">=", 0.4, direction=0.1),
    ),
    guards=(Bound("accuracy of a cache as large, four segments", "<=", 0.3),),
    control="keys and values of the newest 8 tokens before the segment; each at the best of the same rates",
    control_reaches=(Bound("accuracy of the cache within its reach", ">=", 0.9),),
    breaks=(WIPED,),
    chosen_on=(0, 1),
    deviations="One layer of width 32, segments of 16, one of 16 values in a cycle of 12 tokens; trained on "
    "2 to 4 segments, where half of the values stand within what the cache holds; those judged by stand "
    "before it.",
)

BEYOND = Claim(
    name="eight times the length of training",
    sentence="Trained on short texts, it finds the value in texts eight times as long.",
    paper=Figure(
        "tuned on 5K tokens, at 1M: linear 96, 94 and 100 % (start, middle, end), with delta 100 %; "
        "untuned 8, 6 and 98 %",
        where="table 3",
        read="table",
    ),
    rule=(Bound("accuracy at 32 segments", ">=", 0.9, direction=0.3),),
    control="the cache of as many numbers, as above",
    control_reaches=(Bound("accuracy of the cache within its reach", ">=", 0.9),),
    breaks=(WIPED,),
    chosen_on=(0, 1),
    deviations="As above; the best of linear memory and delta rule on the lengths of training.",
)

CONSTANT = Claim(
    name="constant however long the text",
    sentence="The time of a token and the memory it takes do not grow with the text before it.",
    paper=Figure("bounded memory", where="abstract", read="abstract"),
    rule=(
        Growth("one token", what="time", axis="tokens before", threshold=0.2, mode="decode"),
        Growth("one token", what="memory", axis="tokens before", threshold=0.2, mode="decode"),
    ),
    control="kernel attention over a cache of all tokens",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(STREAM):
        compare_formulas(run)
    if run.wants(COUNT):
        count(run)
    if run.wants(INSIDE, BEYOND):
        find_values(run)


def count(run: Run) -> None:
    heads = 8
    with torch.device("meta"):
        ours, plain = InfiniAttention(512, heads, SEGMENT), MultiHeadAttention(512, heads)
        memory = ours.empty(1)
    more = sum(w.numel() for w in ours.parameters()) - sum(w.numel() for w in plain.parameters())
    values = {
        "parameters more than multi-head attention, a head": more / heads,
        "numbers in the memory of a head 64 wide": sum(each.numel() for each in memory) / heads,
    }
    run.claim(COUNT, values)


@torch.no_grad()
def compare_formulas(run: Run) -> None:
    """A random attention over five segments and a half."""
    torch.manual_seed(run.seed)
    attention = InfiniAttention(32, 2, SEGMENT).to(run.device, run.dtype)
    x = torch.randn(2, 5 * SEGMENT + 8, 32, generator=run.generator("text")).to(run.device, run.dtype)
    memory, streamed, late = attention.empty(2), [], []
    for part in x.split(SEGMENT, 1):
        q, k, v = attention.project(part)
        result, after = attention.stream(part, memory)
        streamed.append(result)
        late.append(attention.mixed(q, k, v, after))
        memory = after
    whole = one_shot(attention, x)
    run.claim(
        STREAM,
        {
            "largest change of a result by streaming": (torch.cat(streamed, 1) - whole).abs().max().item(),
            "largest change if written first": (torch.cat(late, 1) - whole).abs().max().item(),
        },
    )


def one_shot(
    attention: InfiniAttention, x: Float[Tensor, "batch tokens model"]
) -> Float[Tensor, "batch tokens model"]:
    """Kernel attention over all tokens of earlier segments, softmax over those of the own, as two matrices of
    weights for each head."""
    q, k, v = attention.project(x)
    place = torch.arange(x.shape[1], device=x.device)
    segment = place // attention.segment
    kernel = ((F.elu(q) + 1) @ (F.elu(k) + 1).mT) * (segment[:, None] > segment)
    freqs_cis = phases(place, q.shape[-1])
    scores = rotate(q, freqs_cis) @ rotate(k, freqs_cis).mT / q.shape[-1] ** 0.5
    own = (segment[:, None] == segment) & (place[:, None] >= place)
    local = scores.masked_fill(~own, -torch.inf).softmax(-1)
    gate = attention.gate.sigmoid()[:, None, None]
    weights = gate * kernel / kernel.sum(-1, keepdim=True).clamp(min=1e-6) + (1 - gate) * local
    return attention.output(merge_heads(weights @ v))


class CachedTokens(nn.Module):
    """Attention within the segment and to the newest tokens before it, as many as fill the memory's room."""

    def __init__(self, model: int, heads: int, segment: int) -> None:
        super().__init__()
        self.heads = heads
        self.segment = segment
        self.qkv = nn.Linear(model, 3 * model, bias=False)
        self.output = nn.Linear(model, model, bias=False)

    def forward(self, x: Float[Tensor, "batch tokens model"]) -> Float[Tensor, "batch tokens model"]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        freqs_cis = phases(torch.arange(x.shape[1], device=x.device), q.shape[-1])
        q, k = rotate(q, freqs_cis), rotate(k, freqs_cis)
        size = self.segment

        def parted(each: Tensor, before: int) -> Tensor:
            """batch segments heads (before + segment) dim"""
            return F.pad(each, (0, 0, before, 0)).unfold(2, before + size, size).permute(0, 2, 1, 4, 3)

        key = torch.arange(-CACHED, size, device=x.device)
        seen = key <= torch.arange(size, device=x.device)[:, None]
        mask = seen.repeat(x.shape[1] // size, 1, 1)
        mask[0] &= key >= 0
        found = scaled_dot_product_attention(
            parted(q, 0), parted(k, CACHED), parted(v, CACHED), mask=mask[:, None]
        )
        return self.output(merge_heads(found).flatten(1, 2))


class Wiped(InfiniAttention):
    """Nothing is ever read from the memory but that it is empty."""

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, memory: Memory) -> Tensor:
        return super().mixed(q, k, v, Memory(*(torch.zeros_like(each) for each in memory)))


class Finder(nn.Module):
    """One block: attention and a feed-forward layer, each after its norm."""

    def __init__(self, attention: nn.Module, model: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VALUES + CYCLE + 1, model)
        self.attention = attention
        self.norms = nn.ModuleList(nn.LayerNorm(model) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(model, 4 * model), nn.GELU(), nn.Linear(4 * model, model))
        self.readout = nn.Linear(model, VALUES)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch values"]:
        """What the question, the last token, is answered with."""
        x = self.embed(ids)
        x = (x + self.attention(self.norms[0](x)))[:, -1]
        return self.readout(self.norms[2](x + self.mlp(self.norms[1](x))))


def draw(
    segments: int, count: int, generator: torch.Generator, *, near: bool = False
) -> tuple[Int[Tensor, "count tokens"], Int[Tensor, " count"]]:
    """Texts of one cycle again and again, a value somewhere before what a cache holds (or within: `near`), a
    question at the end."""
    tokens = segments * SEGMENT
    held = (segments - 1) * SEGMENT - CACHED
    start = torch.randint(CYCLE, (count, 1), generator=generator)
    ids = VALUES + (start + torch.arange(tokens)) % CYCLE
    ids[:, -1] = VALUES + CYCLE
    value = torch.randint(VALUES, (count,), generator=generator)
    place = torch.randint(held, tokens - 1, (count,), generator=generator) if near else None
    if place is None:
        place = torch.randint(held, (count,), generator=generator)
    ids[torch.arange(count), place] = value
    return ids, value


Make = Callable[[], nn.Module]


def find_values(run: Run) -> None:
    """Train each arm on short texts, then ask in longer ones."""
    infini = Wiped if run.without(WIPED.name) else InfiniAttention
    makes: dict[str, Make] = run.arms(
        {
            "linear memory": partial(infini, 32, 2, SEGMENT),
            "delta rule": partial(infini, 32, 2, SEGMENT, delta=True),
            "a cache as large": partial(CachedTokens, 32, 2, SEGMENT),
        },
        control="a cache as large",
    )
    rates = run.pick(smoke=(1e-2,), quick=(3e-3, 1e-2, 3e-2), full=(1e-3, 3e-3, 1e-2, 3e-2))
    best: dict[str, Best[nn.Module]] = {}
    right: dict[str, dict[int, float]] = {}
    for arm, make in makes.items():
        best[arm] = run.sweep(
            arm, rates, partial(train, run, arm, make), score="validation accuracy", keep="highest"
        )
        right[arm] = {}
        for segments in run.pick(smoke=LENGTHS[:2], quick=LENGTHS, full=(*LENGTHS, 64, 128)):
            right[arm][segments] = accuracy(run, best[arm].result, segments, "texts to judge by")
            run.metric("accuracy over segments", right[arm][segments], step=segments, arm=arm)
    run.headline("accuracy over segments")
    near = accuracy(run, best["a cache as large"].result, 4, "texts to judge by", near=True)
    run.metric("accuracy within the cache's reach", near, arm="a cache as large")
    cache, linear = right["a cache as large"][4], right["linear memory"][4]
    if run.wants(INSIDE):
        values = {
            "accuracy at four segments": linear,
            "accuracy over that of a cache as large, four segments": linear - cache,
            "accuracy of a cache as large, four segments": cache,
            "accuracy of the cache within its reach": near,
        }
        run.claim(INSIDE, values, tuned=[best["linear memory"], best["a cache as large"]])
    if run.wants(BEYOND):
        chosen = max(("linear memory", "delta rule"), key=lambda arm: best[arm].score)
        longest = max(right[chosen]) if run.budget == "smoke" else 32
        values = {
            "accuracy at 32 segments": right[chosen][longest],
            "accuracy of the cache within its reach": near,
        }
        run.claim(BEYOND, values, tuned=list(best.values()))


def train(run: Run, arm: str, make: Make, rate: float) -> tuple[float, nn.Module]:
    steps = run.pick(smoke=3, quick=200, full=2000)
    torch.manual_seed(run.seed)
    network = Finder(make()).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    texts = run.generator("texts to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        segments = TRAINED[int(torch.randint(len(TRAINED), (), generator=texts))]
        near = bool(torch.rand((), generator=texts) < 0.5)
        ids, value = draw(segments, 64, texts, near=near)
        loss = F.cross_entropy(network(ids.to(run.device)), value.to(run.device))
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}", clip=1.0)
        schedule.step()
    chosen_by = [accuracy(run, network, segments, "texts to choose by") for segments in TRAINED]
    chosen_by.append(accuracy(run, network, TRAINED[-1], "near texts to choose by", near=True))
    return sum(chosen_by) / len(chosen_by), network


@torch.no_grad()
def accuracy(run: Run, network: nn.Module, segments: int, stream: str, *, near: bool = False) -> float:
    run.phase("evaluate")
    count = run.pick(smoke=16, quick=256, full=1024)
    ids, value = draw(segments, count, run.generator(f"{stream}, {segments}"), near=near)
    found = torch.cat([network(part.to(run.device)).argmax(-1).cpu() for part in ids.split(128)])
    return (found == value).double().mean().item()
