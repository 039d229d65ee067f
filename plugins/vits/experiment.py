"""One made voice that speaks faster and slower: how long symbols last, drawn or predicted; text to waves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.data import speech
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..glow_tts import mask_of, pad_text
from .durations import Convolutions, StochasticDurations
from .model import MeanFlow, Sizes
from .spline import spline
from .voice import Said, end_to_end

NO_NOISE = Break("no noise", "The durations are drawn at temperature 0: every draw is the same.")

EXACT = Claim(
    name="the flows are exact",
    sentence="Both flows are undone by their inverses; the prior's keeps volumes, and the logarithm of the "
    "spline's derivative is autograd's.",
    paper=Figure("The couplings preserve volumes.", where="section 2.5.2", read="memory"),
    kind="identity",
    rule=(
        Bound("largest error of the inverses", "<=", 1e-8),
        Bound("largest error of the logarithms", "<=", 1e-8),
    ),
    control="autograd's Jacobian",
)

RHYTHM = Claim(
    name="rhythms are drawn",
    sentence="Durations drawn from the flow are nearer to how long unseen symbols last than one predicted "
    "duration is, and nearer than durations drawn without the sentence; most symbols last as long as most "
    "draws do.",
    paper=Figure(
        "A stochastic duration predictor synthesises speech with diverse rhythms from the same text.",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound("ranked probability score (frames), one / drawn", ">=", 1.15, direction=1.0, ratio=True),
        Bound("ranked probability score (frames), table / drawn", ">=", 1.05, direction=1.0, ratio=True),
        Bound("symbols within the middle 80 % of the draws", ">=", 0.6),
    ),
    control="one duration a symbol by the same convolutions, trained on the absolute error that it is judged "
    "by; equal data and rates, twice the steps, at its best. Beside it a table: a duration that the phoneme "
    "had in training, drawn blindly",
    control_reaches=(Bound("absolute error of one / of the same for all", "<=", 0.85),),
    breaks=(NO_NOISE,),
    chosen_on=(0, 1),
    deviations="A made voice says one to three digits, the faster the more they are, each utterance at a "
    "rate of its own; the number of digits stands in for what the text encoder knows of the sentence, and a "
    "table for each number would do as well. True durations, not those of a search. The paper asks "
    "listeners (4.43 with drawn durations) and shows lengths.",
)

RATES = (0.01, 0.03, 0.09)
RATE_DEVIATION = 0.15  # of the logarithm of an utterance's rate
PACES = (1.25, 1.0, 0.8)  # of durations, in sentences of one, two and three digits
DRAWS = 24
HIDDEN = 16
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the draws; the claim is on 1
OVER_TEMPERATURE = "ranked probability score over temperature"


class OneDuration(nn.Module):
    """The control: the predictor's own trunk, and one logarithm of a duration for each symbol."""

    ROUNDS = 2  # as many steps again: each costs a tenth

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(HIDDEN, HIDDEN, 1)
        self.conv_dds = Convolutions(HIDDEN, 3, 1, 0.0)
        self.out = nn.Conv1d(HIDDEN, 1, 1)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, _: Tensor) -> Tensor:
        # Half a frame less, for it is rounded up.
        return ((self.sample(text, mask, _).exp() - (durations - 0.5)).abs() * mask).sum((1, 2))

    def sample(self, text: Tensor, mask: Tensor, _: Tensor) -> Tensor:
        logs: Tensor = self.out(self.conv_dds(self.conv_pre(text), mask))
        return logs


class Drawn(StochasticDurations):
    """The paper's, at the size of the toy."""

    ROUNDS = 1

    def __init__(self) -> None:
        super().__init__(HIDDEN, 3, 1, 2, 0.0)

    def loss(self, text: Tensor, mask: Tensor, durations: Tensor, noise: Tensor) -> Tensor:
        bound: Tensor = self(text, mask, durations, noise)
        return bound


class Scores(NamedTuple):
    """Of draws: ranked probability score, absolute error of their median, what their middle 80 % holds."""

    score: float
    error: float
    within: float
    sentences: float


class Learned(NamedTuple):
    predictor: nn.Module
    judged: Scores


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(EXACT):
        undo(run)
    whole = not (run.null or run.broken)
    if not (run.wants(RHYTHM) or whole):
        return
    run.phase("setup")
    count, held = run.pick(smoke=(6, 4), quick=(160, 60), full=(2000, 300))
    train, choose, judge = (
        say(run, part, n) for part, n in (("train", count), ("choose", held), ("judge", held))
    )
    if run.wants(RHYTHM):
        compare(run, train, choose, judge)
    if whole:
        end_to_end(run, train, judge)


def say(run: Run, part: speech.Part, count: int) -> list[Said]:
    """Strings of one to three digits that are in no other part, each at a rate of its own."""
    generator, said = run.generator(f"{part} speech"), []
    while len(said) < count:
        words = torch.randint(10, (int(torch.randint(1, 4, (), generator=generator)),), generator=generator)
        if speech.part_of(words.tolist(), run.seed) == part:
            said.append(utter(words.tolist(), generator))
    return [Said(one, speech.add_noise(one.wave, 40, generator)) for one in said]


def utter(words: Sequence[speech.Word], generator: torch.Generator) -> speech.Utterance:
    """At a rate of its own, and the faster the more words there are."""
    rate = PACES[len(words) - 1] * (RATE_DEVIATION * torch.randn((), generator=generator)).exp().item()
    return speech.say(words, replace(speech.VOICE, rate=rate), generator, jitter=0.08)


def undo(run: Run) -> None:
    """Random weights; values on both sides of the spline's bounds."""
    generator = run.generator("flows")

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, shape = (3 * randn(200)).requires_grad_(), [randn(200, n) for n in (10, 10, 9)]
    y, logs = spline(x, *shape)
    back, minus = spline(y, *shape, inverse=True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    flow = MeanFlow(Sizes(latents=4, hidden=6, couplings=3, depth=2, kernel=3)).double()
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.3 * randn(*weight.shape))
    z, mask = randn(1, 4, 5), torch.ones(1, 1, 5, dtype=torch.float64)
    there = flow(z, mask)
    jacobian = torch.autograd.functional.jacobian(lambda flat: flow(flat.view_as(z), mask), z.flatten())
    volume = torch.linalg.slogdet(jacobian.reshape(z.numel(), -1))[1]
    undone = (back - x).abs().max(), (flow.inverse(there, mask) - z).abs().max()
    errors = (logs - slope.log()).abs().max(), (logs + minus).abs().max(), volume.abs()
    run.claim(
        EXACT,
        {
            "largest error of the inverses": max(one.item() for one in undone),
            "largest error of the logarithms": max(one.item() for one in errors),
        },
    )


def compare(run: Run, train: list[Said], choose: list[Said], judge: list[Said]) -> None:
    makers: dict[str, Callable[[], nn.Module]] = run.arms({"drawn": Drawn, "one": OneDuration}, control="one")
    rates = run.pick(smoke=(0.03,), quick=RATES, full=RATES)
    best: dict[str, Best[Learned]] = {}
    for arm, make in makers.items():
        best[arm] = run.sweep(
            arm, rates, partial(learn, run, arm, make, train, choose, judge), score="score on choose"
        )
    table = judged(*draw_from_table(run, train, judge))
    found = {arm: one.result.judged for arm, one in best.items()} | {"table": table}
    for arm, result in found.items():
        run.metric("ranked probability score on judge (frames)", result.score, arm=arm)
        run.metric("symbols within the middle 80 %", result.within, arm=arm)
        run.metric("sentences within the middle 80 %", result.sentences, arm=arm)
    known = torch.cat([one.spoken.durations for one in train]).double()
    wanted = torch.cat([one.spoken.durations for one in judge]).double()
    ours, theirs = (one.result.judged for one in best.values())
    run.claim(
        RHYTHM,
        {
            "ranked probability score (frames), one / drawn": theirs.score / ours.score,
            "ranked probability score (frames), table / drawn": table.score / ours.score,
            "symbols within the middle 80 % of the draws": ours.within,
            "absolute error of one / of the same for all": theirs.error
            / (wanted - known.median()).abs().mean().item(),
        },
        tuned=list(best.values()),
    )
    for temperature in TEMPERATURES:
        found["drawn"] = judged(*draw(run, best["drawn"].result.predictor, judge, temperature))
        for arm, result in found.items():
            run.metric(OVER_TEMPERATURE, result.score, step=temperature, arm=arm)
    run.axes(OVER_TEMPERATURE, y="frames")
    run.headline(OVER_TEMPERATURE)
    if not (run.null or run.broken):
        show_rhythms(run, {arm: one.result.predictor for arm, one in best.items()}, judge)


def batch(run: Run, said: list[Said]) -> tuple[Tensor, Tensor, Tensor]:
    """Features that name the phonemes and the number of words, the mask, and the durations."""
    text, symbols = pad_text([one.spoken.phonemes for one in said])
    durations, _ = pad_text([one.spoken.durations for one in said])
    names = torch.randn(len(speech.PHONEMES) + len(PACES), HIDDEN, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([len(one.spoken.words) for one in said]) + len(speech.PHONEMES) - 1
    features = (names[text] + names[counts].unsqueeze(1)).mT.to(run.device, run.dtype)
    return features, mask_of(symbols, text.shape[1], features), durations.to(features).unsqueeze(1)


def learn(
    run: Run,
    arm: str,
    make: Callable[[], nn.Module],
    train: list[Said],
    choose: list[Said],
    judge: list[Said],
    rate: float,
) -> tuple[float, Learned]:
    torch.manual_seed(run.seed)
    predictor = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=rate, betas=(0.8, 0.99))
    generator = run.generator("batches")
    steps = predictor.ROUNDS * run.pick(smoke=2, quick=60, full=2000)
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps)
        rows = torch.randint(len(train), (16,), generator=generator).tolist()
        features, mask, durations = batch(run, [train[row] for row in rows])
        noise = torch.randn(len(rows), 2, mask.shape[2], generator=generator).to(features)
        loss = predictor.loss(features, mask, durations, noise).sum() / mask.sum()
        run.descend(loss, optimizer, step=step, metric=f"loss, rate {rate:g}", arm=arm, clip=1.0)
    run.phase("evaluate")
    predictor.eval()
    chosen = judged(*draw(run, predictor, choose)).score
    return chosen, Learned(predictor, judged(*draw(run, predictor, judge)))


@torch.no_grad()
def draw(
    run: Run, predictor: nn.Module, said: list[Said], temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of all durations in whole frames, (draws, n, symbols); the mask; what they were."""
    features, mask, durations = batch(run, said)
    scale = 0.0 if run.without(NO_NOISE.name) else temperature
    generator, drawn = run.generator("draws"), []
    for _ in range(DRAWS):
        noise = scale * torch.randn(len(said), 2, mask.shape[2], generator=generator).to(features)
        logs = predictor.sample(features, mask, noise)
        drawn.append((logs.float().exp().ceil().clamp(1, 1000) * mask).squeeze(1))
    return torch.stack(drawn), mask[:, 0].bool(), durations.squeeze(1).float()


def draw_from_table(run: Run, train: list[Said], said: list[Said]) -> tuple[Tensor, Tensor, Tensor]:
    """The same for durations that each symbol's phoneme had in training, whatever the sentence."""
    phonemes, lasted = (
        torch.cat([getattr(one.spoken, name) for one in train]) for name in ("phonemes", "durations")
    )
    text, symbols = pad_text([one.spoken.phonemes for one in said])
    truth, _ = pad_text([one.spoken.durations for one in said])
    mask = torch.arange(text.shape[1]) < symbols.unsqueeze(1)
    drawn, generator = torch.zeros(DRAWS, *text.shape), run.generator("table")
    for phoneme in text.unique().tolist():
        known = lasted[phonemes == phoneme] if (phonemes == phoneme).any() else lasted
        picked = torch.randint(len(known), drawn.shape, generator=generator)
        drawn = torch.where(text == phoneme, known[picked].float(), drawn)
    return drawn * mask, mask, truth.float()


def judged(drawn: Tensor, mask: Tensor, truth: Tensor) -> Scores:
    symbols, totals = drawn[:, mask], drawn.sum(2)
    return Scores(
        ranked_probability(symbols, truth[mask]),
        (symbols.median(0).values - truth[mask]).abs().mean().item(),
        middle(symbols, truth[mask]),
        middle(totals, truth.sum(1)),
    )


def ranked_probability(drawn: Float[Tensor, "draws n"], truth: Float[Tensor, " n"]) -> float:
    """Mean |draw - truth| less half the mean |draw - other draw|: for equal draws it is the absolute error
    (Gneiting and Raftery 2007, doi 10.1198/016214506000001437, equation 21)."""
    apart = torch.stack([(drawn - one).abs().mean(0) for one in drawn]).sum(0) / (len(drawn) - 1)
    return ((drawn - truth).abs().mean(0) - 0.5 * apart).mean().item()


def middle(drawn: Float[Tensor, "draws n"], truth: Float[Tensor, " n"]) -> float:
    """The share of truths between the draws' deciles; equal ones half count as below."""
    rank = ((drawn < truth).float() + 0.5 * (drawn == truth)).mean(0)
    return ((rank >= 0.1) & (rank <= 0.9)).float().mean().item()


def show_rhythms(run: Run, predictors: dict[str, nn.Module], judge: list[Said]) -> None:
    """Ten draws of a sentence under one another, boundaries as ticks; the voice itself ten times."""
    said = judge[0]
    words, generator = said.spoken.words, run.generator("rhythms")
    rows: dict[str, list[Int[Tensor, " symbols"]]] = {"voice": []}
    while len(rows["voice"]) < 10:
        one = utter(words, generator)
        if len(one.phonemes) == len(said.spoken.phonemes):
            rows["voice"].append(one.durations)
    for arm, predictor in predictors.items():
        rows[arm] = list(draw(run, predictor, [said])[0][:10, 0].long().cpu())
    longest = max(int(one.sum()) for drawn in rows.values() for one in drawn) + 2
    panels = []
    for drawn in rows.values():
        panel = torch.ones(10, 8, longest)
        for line, one in zip(panel, drawn, strict=True):
            line[1:-1, : int(one.sum())] = 0.85
            line[1:-1, one.cumsum(0) - 1] = 0.0
        panels.append(F.pad(panel.flatten(0, 1).repeat_interleave(4, 1), (0, 0, 4, 4), value=0.6))
    run.image(
        "rhythms",
        torch.stack(panels)[:, None],
        columns=1,
        caption=f"{' '.join(speech.WORDS[word] for word in words)}: ten times by the voice; ten draws of the "
        "flow; ten of the control. A tick ends a phoneme.",
    )
