"""Compares sampled with predicted durations of a synthetic voice, and trains a text-to-waveform model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.data import speech
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

from ..glow_tts import mask_of, pad_text
from .arms import HIDDEN, Blind, Drawn, LogNormal, OneDuration, Still
from .model import MeanFlow, Sizes
from .spline import spline
from .voice import Said, end_to_end

NO_NOISE = Break("no noise", "Durations are sampled at temperature 0, so all samples are equal.")
BLIND = Break(
    "without the sentence",
    "The flow does not see the symbols, so all texts have the same rhythm.",
    "near miss",
)
LOG_NORMAL = Break(
    "a log-normal",
    "The predictor is the control's trunk with two outputs per symbol, the mean and standard deviation of "
    "a log-normal distribution.",
    "rival",
)

EXACT = Claim(
    name="inverses and determinants of the flows",
    seeded_as="the flows are exact",
    sentence="The inverses of both flows are exact, the prior's flow preserves volume, and the logarithm "
    "of the spline's derivative equals autograd's.",
    paper=Figure("The couplings preserve volume.", where="section 2.5.2", read="text"),
    kind="identity",
    rule=(
        Bound("largest error of the inverses", "<=", 1e-8),
        Bound("largest error of the logarithms", "<=", 1e-8),
    ),
    control="autograd's Jacobian",
)

RHYTHM = Claim(
    name="sampled and predicted durations",
    seeded_as="rhythms are drawn",
    sentence="Durations sampled from the flow are closer to the true durations of unseen sentences than a "
    "single predicted duration, and closer than durations that are sampled without seeing the sentence. Most "
    "true durations lie within the middle 80 % of the samples.",
    paper=Figure(
        "A stochastic duration predictor synthesises speech with diverse rhythms from the same text.",
        where="abstract",
        read="abstract",
    ),
    rule=(
        at_least(
            "score",
            "one",
            1.15,
            over="drawn",
            toward=1.0,
            called="ranked probability score (frames), one / drawn",
        ),
        at_least(
            "score",
            "table",
            1.05,
            over="drawn",
            toward=1.0,
            called="ranked probability score (frames), table / drawn",
        ),
        at_least("within", "drawn", 0.6, called="symbols within the middle 80 % of the draws"),
    ),
    control="one duration per symbol, predicted by the same convolutions and trained on the absolute "
    "error by which it is judged, with the same data and learning rates and twice as many steps. "
    "A second control samples a training duration of the same phoneme at random",
    control_arm="one",
    control_reaches=(
        at_most(
            "error",
            "one",
            0.85,
            over="the same for all",
            called="absolute error of one / of the same for all",
        ),
    ),
    breaks=(NO_NOISE, BLIND, LOG_NORMAL, UNTRAINED),
    chosen_on=(0, 1),
    deviations="A synthetic voice says one to three digits. Each utterance has its own speaking rate, which "
    "is higher if there are more digits. The predictors get the number of digits instead of a text encoder's "
    "features of the sentence. A table of durations for each number of digits would be equally good. The "
    "predictors are trained on true durations, not on those that the alignment search finds. The paper "
    "reports listening tests (4.43 with sampled durations, 4.39 with one predicted duration) and plots the "
    "lengths of samples.",
    headline=True,
)

RATES = (0.01, 0.03, 0.09)
RATE_DEVIATION = 0.15  # standard deviation of the log of an utterance's speaking rate
PACES = (1.25, 1.0, 0.8)  # duration factors for sentences of one, two and three digits
DRAWS = 24
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the samples; the claim uses 1
OVER_TEMPERATURE = "ranked probability score over temperature"


class Scores(NamedTuple):
    """Scores of samples: ranked probability score, median's absolute error, coverage of the middle 80 %."""

    score: float
    error: float
    within: float
    sentences: float


class Parts(NamedTuple):
    train: list[Said]
    choose: list[Said]
    judge: list[Said]


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(EXACT):
        undo(run)
    whole = not (run.null or run.broken)
    if not (run.wants(RHYTHM) or whole):
        return
    run.phase("setup")
    count, held = run.pick(smoke=(6, 4), quick=(160, 60), full=(2000, 300))
    parts = Parts(say(run, "train", count), say(run, "choose", held), say(run, "judge", held))
    if run.wants(RHYTHM):
        compare(run, parts)
    if whole:
        end_to_end(run, parts.train, parts.judge)


def say(run: Run, part: speech.Part, count: int) -> list[Said]:
    """Strings of one to three digits that occur in no other part, each with its own speaking rate."""
    generator, said = run.data(f"{part} speech", part), []
    while len(said) < count:
        words = torch.randint(10, (int(torch.randint(1, 4, (), generator=generator)),), generator=generator)
        if speech.part_of(words.tolist(), run.data_seed(part)) == part:
            said.append(utter(words.tolist(), generator))
    return [Said(one, speech.add_noise(one.wave, 40, generator)) for one in said]


def utter(words: Sequence[speech.Word], generator: torch.Generator) -> speech.Utterance:
    """Speak at a random rate, which is higher if there are more words."""
    rate = PACES[len(words) - 1] * (RATE_DEVIATION * torch.randn((), generator=generator)).exp().item()
    return speech.say(words, replace(speech.VOICE, rate=rate), generator, jitter=0.08)


def undo(run: Run) -> None:
    """Check both flows with random weights, on values within and beyond the spline's bounds."""
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


def compare(run: Run, parts: Parts) -> None:
    table = judged(*draw_from_table(run, parts.train, parts.judge))
    log(run, table, "table")
    known = torch.cat([one.spoken.durations for one in parts.train]).double()
    wanted = torch.cat([one.spoken.durations for one in parts.judge]).double()
    found = run.compare(
        RHYTHM,
        arms={"drawn": Arm(Drawn), "one": Arm(OneDuration)},
        attempt=learn,
        read=read_off,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation score",
        references={
            "table": {"score": table.score},
            "the same for all": {"error": (wanted - known.median()).abs().mean().item()},
        },
        breaks={
            NO_NOISE.name: {"drawn": Arm(Still)},
            BLIND.name: {"drawn": Arm(Blind)},
            LOG_NORMAL.name: {"drawn": Arm(LogNormal)},
        },
        world=parts,
        unequal={
            "one": "loop lengths, step counts, number of updates, learning rates at the last step, how "
            "much they draw: this arm takes twice as many steps, each at a tenth of the cost, which "
            "favours it"
        },
    )
    predictors = {arm: sweep.chosen for arm, sweep in found.sweeps.items()}
    for temperature in TEMPERATURES:
        scores = {arm: found[arm, "score"] for arm in ("drawn", "one", "table")}
        scores["drawn"] = judged(*draw(run, predictors["drawn"], parts.judge, "judge", temperature)).score
        for arm, score in scores.items():
            run.metric(OVER_TEMPERATURE, score, step=temperature, arm=arm)
    run.axes(OVER_TEMPERATURE, y="frames")
    run.headline(OVER_TEMPERATURE)
    if not (run.null or run.broken):
        show_rhythms(run, predictors, parts.judge)


def log(at: Run | Trial, found: Scores, arm: str) -> None:
    at.metric("test ranked probability score (frames)", found.score, arm=arm)
    at.metric("symbols within the middle 80 %", found.within, arm=arm)
    at.metric("sentences within the middle 80 %", found.sentences, arm=arm)


def read_off(at: Trial, found: Sweep[nn.Module]) -> dict[str, float]:
    scores = judged(*draw(at.run, found.chosen, at.world.judge, "judge"))
    log(at, scores, at.name)
    return {"score": scores.score, "within": scores.within, "error": scores.error}


def batch(run: Run, said: list[Said]) -> tuple[Tensor, Tensor, Tensor]:
    """Features that encode the phonemes and the number of words, the mask, and the durations."""
    text, symbols = pad_text([one.spoken.phonemes for one in said])
    durations, _ = pad_text([one.spoken.durations for one in said])
    names = torch.randn(len(speech.PHONEMES) + len(PACES), HIDDEN, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([len(one.spoken.words) for one in said]) + len(speech.PHONEMES) - 1
    features = (names[text] + names[counts].unsqueeze(1)).mT.to(run.device, run.dtype)
    return features, mask_of(symbols, text.shape[1], features), durations.to(features).unsqueeze(1)


def learn(at: Trial, make: Callable[[], nn.Module], rate: float) -> tuple[float, nn.Module]:
    """Train a predictor, and return its validation score and the predictor."""
    run, train = at.run, at.world.train
    predictor = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=rate, betas=(0.8, 0.99))
    generator = at.generator("batches")
    steps = predictor.ROUNDS * run.pick(smoke=2, quick=60, full=2000)
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(predictor, optimizer)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps)
        rows = torch.randint(len(train), (16,), generator=generator).tolist()
        features, mask, durations = batch(run, [train[row] for row in rows])
        noise = torch.randn(len(rows), 2, mask.shape[2], generator=generator).to(features)
        loss = predictor.loss(features, mask, durations, noise).sum() / mask.sum()
        at.descend(loss, optimizer, step=step, metric=f"loss, rate {rate:g}", clip=1.0)
    run.phase("evaluate")
    predictor.eval()
    return judged(*draw(run, predictor, at.world.choose, "choose")).score, predictor


@torch.no_grad()
def draw(
    run: Run,
    predictor: nn.Module,
    said: list[Said],
    part: Literal["choose", "judge"],
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of all durations in whole frames, (draws, n, symbols), the mask, and the true durations."""
    features, mask, durations = batch(run, said)
    generator, drawn = run.data(f"draws to {part} by", part), []
    for _ in range(DRAWS):
        noise = temperature * torch.randn(len(said), 2, mask.shape[2], generator=generator).to(features)
        logs = predictor.sample(features, mask, noise)
        drawn.append((logs.float().exp().ceil().clamp(1, 1000) * mask).squeeze(1))
    return torch.stack(drawn), mask[:, 0].bool(), durations.squeeze(1).float()


def draw_from_table(run: Run, train: list[Said], said: list[Said]) -> tuple[Tensor, Tensor, Tensor]:
    """The result of `draw`, with samples from the training durations of each symbol's phoneme."""
    phonemes, lasted = (
        torch.cat([getattr(one.spoken, name) for one in train]) for name in ("phonemes", "durations")
    )
    text, symbols = pad_text([one.spoken.phonemes for one in said])
    truth, _ = pad_text([one.spoken.durations for one in said])
    mask = torch.arange(text.shape[1]) < symbols.unsqueeze(1)
    drawn, generator = torch.zeros(DRAWS, *text.shape), run.data("table", "judge")
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
    """Mean |draw - truth| minus half the mean |draw - other draw|.

    For equal draws it is the absolute error (Gneiting and Raftery 2007, doi 10.1198/016214506000001437,
    equation 21).
    """
    apart = torch.stack([(drawn - one).abs().mean(0) for one in drawn]).sum(0) / (len(drawn) - 1)
    return ((drawn - truth).abs().mean(0) - 0.5 * apart).mean().item()


def middle(drawn: Float[Tensor, "draws n"], truth: Float[Tensor, " n"]) -> float:
    """Share of true values between the samples' 10 % and 90 % quantiles. Half of each tie counts as below."""
    rank = ((drawn < truth).float() + 0.5 * (drawn == truth)).mean(0)
    return ((rank >= 0.1) & (rank <= 0.9)).float().mean().item()


def show_rhythms(run: Run, predictors: dict[str, nn.Module], judge: list[Said]) -> None:
    """Show ten sampled rhythms of a sentence as rows with ticks, and ten utterances of the voice."""
    said = judge[0]
    words, generator = said.spoken.words, run.generator("rhythms")
    rows: dict[str, list[Int[Tensor, " symbols"]]] = {"voice": []}
    while len(rows["voice"]) < 10:
        one = utter(words, generator)
        if len(one.phonemes) == len(said.spoken.phonemes):
            rows["voice"].append(one.durations)
    for arm, predictor in predictors.items():
        rows[arm] = list(draw(run, predictor, [said], "judge")[0][:10, 0].long().cpu())
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
        rows=list(rows),
        caption=f"'{' '.join(speech.WORDS[word] for word in words)}': ten utterances by the voice, and ten "
        "samples from each predictor. Time runs to the right. A tick marks the end of each phoneme.",
    )
