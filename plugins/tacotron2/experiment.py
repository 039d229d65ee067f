"""Counts attention's alignment errors on digit strings longer than those in training."""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.data import speech
from readtrack.plugin import (
    UNTRAINED,
    Arm,
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

from .equation import EQUATION, follow_the_equation
from .model import LocationLayer, Sizes, Tacotron2

NO_LOCATION = Break(
    "no location features",
    "The past weights are replaced by zeros, so attention gets no information about its previous position.",
    "near miss",
)
PREVIOUS = Break(
    "previous weights only",
    "The location features are computed from the previous step's weights, without the sum over all steps, as "
    "in Chorowski et al. 2015.",
    "rival",
)
SLIPS = "slips per symbol"
PLACES = "distance of the attended symbol"
ERROR = "teacher-forced error"

FORWARD = Claim(
    name="alignment errors, location features against content alone",
    sentence="After 400 steps, on texts longer than those in training, attention with features of its "
    "previous weights and of their sum skips symbols or moves backward less often than attention by content "
    "alone.",
    paper=Figure(
        "Cumulative weights encourage moving forward and mitigate repeated or ignored subsequences.",
        where="section 2.2",
        read="text",
    ),
    rule=(
        at_least(SLIPS, "content", 0.3, minus="location", toward=0.0),
        at_most(PLACES, "location", 1.0, toward=2.0),
    ),
    control="attention by content alone, with the same data, batches and steps. Each network uses its best "
    "learning rate from the same grid",
    control_arm="content",
    control_reaches=(at_most(ERROR, "content", 0.33),),
    after_steps=400,
    breaks=(NO_LOCATION, PREVIOUS, UNTRAINED),
    chosen_on=(0, 1),
    deviations="The text consists of phonemes instead of letters. A synthetic voice speaks it, sampled at 8 "
    "kHz. The decoder generates five frames per step, and its layers have sizes from 32 to 64. Training "
    "takes 400 steps with batches of 12 utterances, short ones first, without dropout except in the pre-net. "
    "Location features are computed from the previous weights and from the sum of all past weights. The last "
    "step has a weight of 5 in the stop loss. Training texts have one or two digits, and test texts have "
    "four. The paper does not make this "
    "comparison. A test of its headline result, naturalness compared with recordings, would need "
    "listeners.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "inconclusive" (3 of 5 seeds), with the same bounds and 8 '
            "filters with 15 taps. On some seeds, attention did not learn to align. Now there are 32 filters "
            "with 31 taps, as in the paper. The control's error had to be at most 1.6 times that of the "
            "other network, so the control failed where location features help most (1.74 on seed 0). Now "
            "the control must explain half of the variance of the frames. This variance is about 1, so the "
            "error must be at most 0.5."
        ),
        (
            "Until 27 November 2026 both networks had one learning rate, and 20 long texts were judged, too "
            "few for the bound. Copying the last frame has an error of 0.47, and a linear map of it 0.33, so "
            "the control's error must now be at most 0.33. The window, which feeds past weights back, is no "
            "longer a break. No verdict was published."
        ),
    ),
)

RATES = (0.002, 0.004, 0.008)  # the quick budget leaves out the first
GROUP = 5
OFF = "distance of the attended symbol (symbols)"
SIZES = Sizes(
    symbols=len(speech.PHONEMES),
    bands=speech.MELS,
    encoder=64,
    convolutions=1,
    prenet=32,
    rnn=64,
    attention=32,
    filters=32,
    taps=31,
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


class LastStep(LocationLayer):
    """The features of the previous weights, with zeros for their sum."""

    def forward(self, past: Float[Tensor, "batch 2 symbols"]) -> Float[Tensor, "batch symbols dim"]:
        return super().forward(past * past.new_tensor([1.0, 0.0])[:, None])


def told(layer: type[LocationLayer]) -> Tacotron2:
    """A network whose location features come from `layer`."""
    model = network(True)
    model.decoder.attention_layer.location_layer = layer(SIZES.filters, SIZES.taps, SIZES.attention)
    return model


class Corpus(NamedTuple):
    """Phonemes, log-mel spectrograms of whole groups of frames, and the phoneme of each group."""

    texts: list[Int[Tensor, " _"]]
    mels: list[Float[Tensor, "_ 40"]]
    owners: list[Int[Tensor, " _"]]


class World(NamedTuple):
    train: Corpus
    choose: Corpus
    judge: Corpus
    longer: Corpus


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(EQUATION):
        follow_the_equation(run)
    run.phase("setup")
    count, held = run.pick(smoke=(4, 2), quick=(200, 20), full=(3000, 200))
    train, choose, judge = (
        corpus(run, part, n, (1, 2)) for part, n in (("train", count), ("choose", held), ("judge", 5 * held))
    )
    longer = corpus(run, "judge", run.pick(smoke=1, quick=100, full=100), (4, 4))
    table = run.compare(
        FORWARD,
        arms={"location": Arm(partial(network, True)), "content": Arm(partial(network, False))},
        attempt=learn,
        read=judged,
        grid=run.pick(smoke=RATES[1:2], quick=RATES[1:], full=RATES),
        widen=False,
        score="validation error",
        breaks={
            NO_LOCATION.name: {"location": Arm(partial(told, NoPast))},
            PREVIOUS.name: {"location": Arm(partial(told, LastStep))},
        },
        world=World(train, choose, judge, longer),
    )
    run.headline(OFF)
    if not (run.null or run.broken):
        show(run, {arm: sweep.chosen for arm, sweep in table.sweeps.items()}, longer)


def corpus(run: Run, part: speech.Part, count: int, digits: tuple[int, int]) -> Corpus:
    """Strings of digits that occur in no other part, with noise at 40 dB."""
    generator, texts, mels, owners = run.data(f"noise of {digits} to {part}", part), [], [], []
    for index in range(count):
        said = speech.recite(index, part, digits, run.data_seed(part))
        mel = speech.log_mel(speech.add_noise(said.wave, 40, generator))
        mel = (mel - speech.MEL_MEAN) / speech.MEL_DEVIATION
        texts.append(said.phonemes)
        mels.append(mel[: len(mel) // GROUP * GROUP])
        owner = torch.arange(len(said.phonemes)).repeat_interleave(said.durations)
        owners.append(owner[GROUP // 2 :: GROUP][: len(mel) // GROUP])
    return Corpus(texts, mels, owners)


def batch(run: Run, given: Corpus, rows: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of texts and their lengths, and of spectrograms and their numbers of frames."""
    texts, mels = [given.texts[row] for row in rows], [given.mels[row] for row in rows]
    padded = nn.utils.rnn.pad_sequence(mels, batch_first=True).mT
    text = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    symbols, frames = (torch.tensor([len(one) for one in part]) for part in (texts, mels))
    return text.to(run.device), symbols, padded.to(run.device, run.dtype), frames


def learn(at: Trial, make: Callable[[], Tacotron2], rate: float) -> tuple[float, Tacotron2]:
    """Train a network, and return its teacher-forced error on validation texts and the network."""
    run, train, choose = at.run, at.world.train, at.world.choose
    model = make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-6)
    generator, steps = at.generator("batches"), at.length(run.pick(smoke=2, quick=400, full=2000))
    by_length = sorted(range(len(train.mels)), key=lambda row: len(train.mels[row]))
    size, name = min(12, len(by_length)), f"{at.name}, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, name, state=(model, optimizer)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10)
        # Utterances of similar length, to reduce padding. In the first half of the steps they are short.
        longest = max(size, round(len(by_length) * min(1.0, 2 * (step + 1) / steps)))
        first = int(torch.randint(longest - size + 1, (), generator=generator))
        rows = by_length[first : first + size]
        before, after, stop = losses(run, model, train, rows)
        at.descend(before + after + stop, optimizer, step=step, metric="loss", arm=name, clip=1.0)
        if (step + 1) % 40 == 0 or step + 1 == steps:
            off = off_by(run, model, choose).mean().item()
            at.metric(OFF, off, step=step, arm=name)
    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        return losses(run, model, choose, list(range(len(choose.texts))))[1].item(), model


@torch.no_grad()
def judged(at: Trial, found: Sweep[Tacotron2]) -> dict[str, float | Tensor]:
    """Slips on texts longer than those in training, and teacher-forced errors of frames and attention."""
    run, model, judge = at.run, found.chosen, at.world.judge
    skipped, back, stopped = stumble(run, model, at.world.longer)
    error = losses(run, model, judge, list(range(len(judge.texts))))[1].item()
    off = off_by(run, model, judge)
    at.metric("teacher-forced test error", error)
    at.metric("test distance of the attended symbol (symbols)", off.mean().item())
    at.metric("texts that stopped by themselves", stopped)
    at.metric("skips per symbol", skipped.mean().item())
    at.metric("steps back per symbol", back.mean().item())
    return {SLIPS: skipped + back, PLACES: off, ERROR: error}


@torch.no_grad()
def off_by(run: Run, model: Tacotron2, given: Corpus) -> Float[Tensor, " texts"]:
    """Mean distance in symbols between the most attended and the spoken symbol, with teacher forcing."""
    training = model.training
    model.eval()
    text, symbols, mel, _ = batch(run, given, list(range(len(given.texts))))
    looked = model(text, symbols, mel).weights.argmax(-1).cpu()
    model.train(training)
    apart = [(row[: len(said)] - said).abs() for row, said in zip(looked, given.owners, strict=True)]
    return torch.stack([steps.double().mean() for steps in apart])


def losses(run: Run, model: Tacotron2, given: Corpus, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Squared errors before and after the post-net, and the loss on the stop logits."""
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
def stumble(run: Run, model: Tacotron2, given: Corpus) -> tuple[Tensor, Tensor, float]:
    """Skips and backward steps per text in generated speech, and the fraction of texts that stopped."""
    text, symbols, _, _ = batch(run, given, list(range(len(given.texts))))
    most = 6 * text.shape[1]
    spoken, lengths = model.speak(text, symbols, most)
    looked = spoken.weights.argmax(-1).tolist()
    paths = [row[:length] for row, length in zip(looked, lengths.tolist(), strict=True)]
    return *slips_of(paths, symbols.tolist()), (lengths < most).double().mean().item()


def slips_of(paths: list[list[int]], symbols: list[int]) -> tuple[Tensor, Tensor]:
    """Symbols that no step attends to, and steps to an earlier symbol, for each text. Both are divided by
    the mean length of the texts, so their means are per symbol."""
    whole = sum(symbols) / len(symbols)
    skipped = [count - len(set(path)) for path, count in zip(paths, symbols, strict=True)]
    back = [sum(after < before for before, after in itertools.pairwise(path)) for path in paths]
    return torch.tensor(skipped).double() / whole, torch.tensor(back).double() / whole


@torch.no_grad()
def show(run: Run, models: Mapping[str, Tacotron2], given: Corpus) -> None:
    """Show one long text spoken by each model: attention, spectrogram and sound."""
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
        caption=f"Generated speech, {said!r}: attention (symbols from top to bottom) and spectrogram, for "
        + ", then ".join(models),
    )
