"""Strings of digits, longer than in training: does attention move through them symbol by symbol?"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.data import speech
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import LocationLayer, LocationSensitiveAttention, Sizes, Tacotron2

NO_LOCATION = Break(
    "no location", "The location features are zero, so attention does not know its previous position."
)

EQUATION = Claim(
    name="attention by content and place",
    sentence="The attention energies equal those of the equation, symbol by symbol.",
    paper=Figure(
        "The attention of Chorowski et al. 2015, over the sum of past weights.",
        where="section 2.2",
        read="text",
    ),
    kind="identity",
    rule=(Bound("largest difference of weights", "<=", 1e-12),),
    control="the equation, computed by loops",
    deviations="The location features see the previous weights and their sum, as in common "
    "implementations. Section 2.2 names only the sum.",
)

FORWARD = Claim(
    name="attention moves forward",
    sentence="On texts longer than those of training, attention with location features skips fewer symbols "
    "and steps back less than attention by content alone.",
    paper=Figure(
        "Cumulative weights encourage moving forward and mitigate repeated or ignored subsequences.",
        where="section 2.2",
        read="text",
    ),
    rule=(
        Bound("slips a symbol, content - location", ">=", 0.3, direction=0.0),
        Bound("attended symbol off by, location", "<=", 1.0),
    ),
    control="attention by content alone, with the same data, batches, steps and learning rates",
    control_reaches=(Bound("error told the true frames, content / location", "<=", 1.6),),
    breaks=(NO_LOCATION,),
    chosen_on=(0, 1),
    deviations="A synthetic voice at 8 kHz speaks phonemes instead of letters. The decoder has five frames "
    "per step and layers of size 32 to 64. Training takes 400 steps of 12 utterances, short ones first, "
    "with no dropout except in the pre-net. Location features see the previous weights and their sum. The "
    "last step counts five times in the stop loss. Training texts have one or two digits, and test texts "
    "have four. The quick budget has one learning rate for both arms. On some seeds attention does not "
    "learn to align, even with twice the steps, and then the second bound fails. The paper has no such "
    "comparison.",
)

RATES = (0.002, 0.004, 0.008)  # the quick budget uses the middle one
GROUP = 5
OFF = "attended symbol off by (symbols)"
SIZES = Sizes(
    symbols=len(speech.PHONEMES),
    bands=speech.MELS,
    encoder=64,
    convolutions=1,
    prenet=32,
    rnn=64,
    attention=32,
    filters=8,
    taps=15,
    postnet=32,
    refinements=2,
    group=GROUP,
    prenet_dropout=0.5,
    dropout=0.0,
    zoneout=0.0,
)


def network(location: bool) -> Tacotron2:
    fields = {name: getattr(SIZES, name) for name in SIZES.__dataclass_fields__}
    return Tacotron2(Sizes(**{**fields, "location": location}))


class NoPast(LocationLayer):
    """The location features of weights that are all zero."""

    def forward(self, past: Float[Tensor, "batch 2 symbols"]) -> Float[Tensor, "batch symbols dim"]:
        return super().forward(torch.zeros_like(past))


def forgetful() -> Tacotron2:
    model = network(True)
    model.decoder.attention_layer.location_layer = NoPast(SIZES.filters, SIZES.taps, SIZES.attention)
    return model


class Corpus(NamedTuple):
    """Phonemes, log-mel spectrograms of whole groups of frames, and the phoneme of each group."""

    texts: list[Int[Tensor, " _"]]
    mels: list[Float[Tensor, "_ 40"]]
    owners: list[Int[Tensor, " _"]]


class Trained(NamedTuple):
    """The test errors of frames and of attended positions under teacher forcing."""

    model: Tacotron2
    error: float
    off: float


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(EQUATION):
        follow_the_equation(run)
    if not run.wants(FORWARD):
        return
    run.phase("setup")
    count, held = run.pick(smoke=(4, 2), quick=(200, 20), full=(3000, 200))
    train, choose, judge = (
        corpus(run, part, n, (1, 2)) for part, n in (("train", count), ("choose", held), ("judge", held))
    )
    longer = corpus(run, "judge", run.pick(smoke=1, quick=20, full=100), (4, 4))
    makers: dict[str, Callable[[], Tacotron2]] = run.arms(
        {"location": partial(network, True), "content": partial(network, False)}, control="content"
    )
    if run.without(NO_LOCATION.name):
        makers["location"] = forgetful
    rates = run.pick(smoke=RATES[1:2], quick=RATES[1:2], full=RATES)
    best: dict[str, Best[Trained]] = {}
    slips = {}
    for arm, make in makers.items():
        best[arm] = run.sweep(
            arm, rates, partial(learn, run, arm, make, train, choose, judge), score="error on choose"
        )
        run.metric("error on judge, told the true frames", best[arm].result.error, arm=arm)
        run.metric("attended symbol off by on judge (symbols)", best[arm].result.off, arm=arm)
        skipped, back, stopped = stumble(run, best[arm].result.model, longer)
        run.metric("texts that stopped by themselves", stopped, arm=arm)
        run.metric("skipped, of a symbol", skipped, arm=arm)
        run.metric("steps back, of a symbol", back, arm=arm)
        slips[arm] = skipped + back
    ours, theirs = (one.result for one in best.values())
    run.claim(
        FORWARD,
        {
            "slips a symbol, content - location": slips["content"] - slips["location"],
            "attended symbol off by, location": ours.off,
            "error told the true frames, content / location": theirs.error / ours.error,
        },
        tuned=list(best.values()),
    )
    run.headline(f"{OFF}, rate {best['location'].value:g}")
    if not (run.null or run.broken):
        show(run, {arm: one.result.model for arm, one in best.items()}, longer)


def follow_the_equation(run: Run) -> None:
    """Compare three consecutive queries, each with its past weights, with explicit loops."""
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


def corpus(run: Run, part: speech.Part, count: int, digits: tuple[int, int]) -> Corpus:
    """Strings of digits that occur in no other part, with noise at 40 dB."""
    generator, texts, mels, owners = run.generator(f"{part} noise {digits}"), [], [], []
    for index in range(count):
        said = speech.recite(index, part, digits, run.seed)
        mel = speech.log_mel(speech.add_noise(said.wave, 40, generator))
        mel = (mel - speech.MEL_MEAN) / speech.MEL_DEVIATION
        texts.append(said.phonemes)
        mels.append(mel[: len(mel) // GROUP * GROUP])
        owner = torch.arange(len(said.phonemes)).repeat_interleave(said.durations)
        owners.append(owner[GROUP // 2 :: GROUP][: len(mel) // GROUP])
    return Corpus(texts, mels, owners)


def batch(run: Run, given: Corpus, rows: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts and their lengths, spectrograms and their numbers of frames."""
    texts, mels = [given.texts[row] for row in rows], [given.mels[row] for row in rows]
    padded = nn.utils.rnn.pad_sequence(mels, batch_first=True).mT
    text = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    symbols, frames = (torch.tensor([len(one) for one in part]) for part in (texts, mels))
    return text.to(run.device), symbols, padded.to(run.device, run.dtype), frames


def learn(
    run: Run,
    arm: str,
    make: Callable[[], Tacotron2],
    train: Corpus,
    choose: Corpus,
    judge: Corpus,
    rate: float,
) -> tuple[float, Trained]:
    torch.manual_seed(run.seed)
    model = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-6)
    generator, steps = run.generator("batches"), run.pick(smoke=2, quick=400, full=2000)
    by_length = sorted(range(len(train.mels)), key=lambda row: len(train.mels[row]))
    size = min(12, len(by_length))
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10)
        # Utterances of similar length, to reduce padding. In the first half of the steps they are short.
        longest = max(size, round(len(by_length) * min(1.0, 2 * (step + 1) / steps)))
        first = int(torch.randint(longest - size + 1, (), generator=generator))
        rows = by_length[first : first + size]
        before, after, stop = losses(run, model, train, rows)
        run.descend(
            before + after + stop,
            optimizer,
            step=step,
            metric=f"loss, rate {rate:g}",
            arm=arm,
            clip=1.0,
        )
        if (step + 1) % 40 == 0 or step + 1 == steps:
            run.metric(f"{OFF}, rate {rate:g}", off_by(run, model, choose), step=step, arm=arm)
    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        chosen, judged = (
            losses(run, model, part, list(range(len(part.texts))))[1].item() for part in (choose, judge)
        )
    return chosen, Trained(model, judged, off_by(run, model, judge))


@torch.no_grad()
def off_by(run: Run, model: Tacotron2, given: Corpus) -> float:
    """Mean distance in symbols of the most attended symbol from the spoken one, under teacher forcing."""
    training = model.training
    model.eval()
    text, symbols, mel, _ = batch(run, given, list(range(len(given.texts))))
    looked = model(text, symbols, mel).weights.argmax(-1).cpu()
    model.train(training)
    apart = [(row[: len(said)] - said).abs() for row, said in zip(looked, given.owners, strict=True)]
    return torch.cat(apart).double().mean().item()


def losses(run: Run, model: Tacotron2, given: Corpus, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors before and after the post-net, and the loss of the stop logits."""
    text, symbols, mel, frames = batch(run, given, rows)
    spoken = model(text, symbols, mel)
    inside = (torch.arange(mel.shape[-1]) < frames.unsqueeze(1)).to(mel)
    before, after = (
        ((found - mel).square().mean(1) * inside).sum() / inside.sum()
        for found in (spoken.mel, spoken.refined)
    )
    last = F.one_hot(frames // GROUP - 1, mel.shape[-1] // GROUP).to(mel)
    counted = inside[:, ::GROUP]
    stop = F.binary_cross_entropy_with_logits(
        spoken.stop, last, reduction="none", pos_weight=mel.new_tensor(5.0)
    )
    return before, after, (stop * counted).sum() / counted.sum()


@torch.no_grad()
def stumble(run: Run, model: Tacotron2, given: Corpus) -> tuple[float, float, float]:
    """Skipped symbols and steps back per symbol in generated speech, and the share of texts that stopped."""
    torch.manual_seed(run.seed)  # the pre-net's dropout
    text, symbols, _, _ = batch(run, given, list(range(len(given.texts))))
    most = 6 * text.shape[1]
    spoken, lengths = model.speak(text, symbols, most)
    looked = spoken.weights.argmax(-1).tolist()
    paths = [row[:length] for row, length in zip(looked, lengths.tolist(), strict=True)]
    return *slips_of(paths, symbols.tolist()), (lengths < most).double().mean().item()


def slips_of(paths: list[list[int]], symbols: list[int]) -> tuple[float, float]:
    """Symbols that no step attends to, and steps to an earlier symbol, per symbol of text."""
    skipped = sum(count - len(set(path)) for path, count in zip(paths, symbols, strict=True))
    back = sum(after < before for path in paths for before, after in itertools.pairwise(path))
    return skipped / sum(symbols), back / sum(symbols)


@torch.no_grad()
def show(run: Run, models: dict[str, Tacotron2], given: Corpus) -> None:
    """Show one long text spoken by each model: its attention, its spectrogram, and its sound."""
    generator = run.generator("sound")
    text, symbols, mel, _ = batch(run, given, [0])
    said = " ".join(speech.PHONEMES[i] for i in given.texts[0].tolist())
    width, maps, pictures = mel.shape[-1], [], []
    for arm, model in models.items():
        torch.manual_seed(run.seed)
        spoken, lengths = model.speak(text, symbols, 6 * text.shape[1])
        steps = int(lengths[0])
        logs = spoken.refined[0, :, : GROUP * steps].float().cpu() * speech.MEL_DEVIATION + speech.MEL_MEAN
        seen = spoken.weights[0, :steps].T.float().cpu().repeat_interleave(4, 0).repeat_interleave(GROUP, 1)
        maps.append(F.pad(seen, (0, width))[:, :width])
        pictures.append(F.pad((logs.flip(0) + 7) / 10, (0, width))[:, :width])
        wave = speech.wave_of(logs.T.clamp(max=4.0), generator)
        wave = wave / wave.abs().max().clamp(min=1e-6) * 0.5
        beside = "content" if arm == "location" else ""
        run.audio(arm, wave, speech.RATE, caption=f"{said!r}, {arm}", beside=beside)
    line = torch.full((2, width), 0.6)
    panels = [part for pair in zip(maps, pictures, strict=True) for one in pair for part in (one, line)]
    run.image(
        "attention",
        torch.cat(panels).repeat_interleave(2, 0).repeat_interleave(2, 1),
        caption=f"{said!r}, generated: attention (symbols from top to bottom) and spectrogram, of "
        + ", then ".join(models),
    )
