"""Compares coupling layers with a linear flow on a synthetic voice, and tests the alignment search."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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

from .arms import SIZES, linear, uncoupled
from .flow import Flow, mask_of
from .model import GlowTTS, pad_mels, pad_text
from .search import divide, search

NO_COUPLINGS = Break(
    "no couplings",
    "The coupling networks get zeros as input, so the scale and shift of one half of the channels do not "
    "depend on the other half.",
    "near miss",
)
NO_SEARCH = Break(
    "no search", "Throughout training the frames are divided equally among the symbols.", "rival"
)

BEST_PATH = Claim(
    name="alignment search against all paths",
    seeded_as="the search finds the best path",
    sentence="Monotonic alignment search finds the monotonic path with the highest score.",
    paper=Figure(
        "Algorithm 1: dynamic programming over symbols and frames.", where="section 3.2", read="secondary"
    ),
    kind="identity",
    rule=(Bound("largest loss against all paths (nats)", "<=", 1e-9),),
    control="an exhaustive search over all paths",
)

INVERSE = Claim(
    name="inverse and determinant of the flow",
    seeded_as="the flow is exact",
    sentence="The inverse restores the flow's input, and the computed log-determinant equals that of the "
    "Jacobian.",
    paper=Figure("The likelihood is exact, by the change of variables.", where="section 3.1", read="text"),
    kind="identity",
    rule=(
        Bound("largest error of the inverse", "<=", 1e-9),
        Bound("largest error of the log determinant", "<=", 1e-8),
    ),
    control="autograd's Jacobian",
)

COUPLINGS = Claim(
    name="likelihood and alignment of the flow",
    seeded_as="a flow with its own aligner",
    sentence=(
        "After 300 steps, the model finds the symbol boundaries without given durations. With coupling "
        "layers it assigns a higher likelihood to unseen speech than with a linear flow."
    ),
    paper=Figure(
        "The flow is trained without an external aligner. Its speech quality is comparable to Tacotron 2's.",
        where="abstract",
        read="abstract",
    ),
    rule=(
        at_least(
            "nats a frame on judge",
            "couplings",
            3.0,
            minus="linear",
            toward=0.0,
            called="nats a frame on judge, couplings - linear",
        ),
        at_least(
            "boundary error (frames)",
            "equal division",
            1.1,
            over="couplings",
            toward=1.0,
            called="boundary error, equal division / search",
        ),
    ),
    control="the same encoder and search with a linear flow instead of couplings. The flow's matrices mix "
    "all bands of two frames. The control is trained on the same data for the same number of steps, at its "
    "best learning rate from the same grid",
    control_arm="linear",
    control_reaches=(
        at_most("boundary error (frames)", "linear", 2.0, called="boundary error of linear (frames)"),
    ),
    after_steps=300,
    breaks=(NO_COUPLINGS, NO_SEARCH, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations=(
        "A synthetic voice speaks one to three digits. Its speech is sampled at 8 kHz and converted to "
        "spectrograms with 40 bands. The flow has two blocks of 32 channels, and the encoder has one layer. "
        "Training takes 300 steps with 8 utterances each. In the first 30 steps the frames are divided "
        "equally among the symbols. The learning rate falls linearly to 0, and there is no dropout. Standard "
        "deviations are learned. There is no listening test."
    ),
    headline=True,
    history=(
        (
            "Until November 2026 the linear flow mixed fixed groups of four channels, so the couplings were "
            "compared with 40 separate maps, and the claim was reproduced with a difference of about 14 "
            "nats. The linear flow's matrices now mix all bands. The bounds are unchanged."
        ),
        (
            'Until 27 November 2026 the verdict was "not judged" (same bounds): after 110 steps, the linear '
            "flow's boundaries were more than 2 frames off on 2 of 5 seeds. A model that never searches "
            "for alignments was a near miss. It can have smaller boundary errors than one that does, so it "
            "is now a rival."
        ),
    ),
)

RATES = (0.006, 0.018, 0.054)
EVENLY = 30  # steps with equal durations before the search starts; 1 in smoke runs
ALIGNMENT = "path of an unseen sentence"
WITHIN = "phonemes' ends found"
WORST = 10  # largest error in frames on the plot


class Recipe(NamedTuple):
    """How to build a model and whether training searches for alignments after the first steps."""

    make: Callable[[], GlowTTS]
    searches: bool = True


class Corpus(NamedTuple):
    """Phonemes, log-mel spectrograms with an even number of frames, and true durations of the phonemes."""

    texts: list[Int[Tensor, " symbols"]]
    mels: list[Float[Tensor, "frames 40"]]
    durations: list[Int[Tensor, " symbols"]]


class Parts(NamedTuple):
    train: Corpus
    choose: Corpus
    judge: Corpus


class Trained(NamedTuple):
    """A model, and its alignments of the first test sentence, by training step."""

    model: GlowTTS
    paths: dict[int, Bool[Tensor, "symbols frames"]]


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(BEST_PATH):
        try_all_paths(run)
    if run.wants(INVERSE):
        undo(run)
    if run.wants(COUPLINGS):
        compare(run)


def compare(run: Run) -> None:
    run.phase("setup")
    count, held = run.pick(smoke=(4, 2), quick=(200, 40), full=(2000, 200))
    parts = Parts(corpus(run, "train", count), corpus(run, "choose", held), corpus(run, "judge", held))
    divided = divide(*lengths(parts.judge))
    evenly = boundary_errors(divided, parts.judge)
    table = run.compare(
        COUPLINGS,
        arms={
            "couplings": Arm(Recipe(partial(GlowTTS, SIZES))),
            "linear": Arm(Recipe(linear)),
        },
        attempt=learn,
        read=read_off,
        grid=run.pick(smoke=RATES[:1], quick=RATES, full=RATES),
        score="validation nats a frame",
        keep="highest",
        references={"equal division": {"boundary error (frames)": evenly.double().mean().item()}},
        breaks={
            NO_COUPLINGS.name: {"couplings": Arm(Recipe(uncoupled))},
            NO_SEARCH.name: {"couplings": Arm(Recipe(partial(GlowTTS, SIZES), searches=False))},
        },
        world=parts,
    )
    run.metric("boundary error (frames)", evenly.double().mean().item(), arm="equal division")
    trained = {arm: sweep.chosen for arm, sweep in table.sweeps.items()}
    show_claim(run, trained, divided, parts.judge)
    if not (run.null or run.broken):
        show(run, trained["couplings"], parts.judge)


def try_all_paths(run: Run) -> None:
    """Compare the search with all paths of six symbols and nine frames, twenty times."""
    generator, worst = run.generator("paths"), 0.0
    for _ in range(20):
        scores = torch.randn(1, 6, 9, generator=generator, dtype=torch.float64)
        found = (scores * search(scores, torch.tensor([6]), torch.tensor([9]))).sum().item()
        sums = []
        for starts in itertools.combinations(range(1, 9), 5):
            owner = [sum(start <= frame for start in starts) for frame in range(9)]
            sums.append(sum(scores[0, symbol, frame].item() for frame, symbol in enumerate(owner)))
        worst = max(worst, abs(max(sums) - found))
    run.claim(BEST_PATH, {"largest loss against all paths (nats)": worst})


def undo(run: Run) -> None:
    """Check the inverse of a small random flow, and compare the log-determinant with autograd's."""
    flow = Flow(4, 8, 2, 2, 3).double()
    generator = run.generator("flow")
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(1, 4, 6, generator=generator, dtype=torch.float64)
    mask = torch.ones_like(x[:, :1])
    z, log = flow(x, mask)
    jacobian = torch.autograd.functional.jacobian(lambda flat: flow(flat.view_as(x), mask)[0], x.flatten())
    wanted = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]
    run.claim(
        INVERSE,
        {
            "largest error of the inverse": (flow.inverse(z, mask) - x).abs().max().item(),
            "largest error of the log determinant": (log - wanted).abs().max().item(),
        },
    )


def corpus(run: Run, part: speech.Part, count: int) -> Corpus:
    """Spoken strings of digits that occur in no other part, at a signal-to-noise ratio of 40 dB."""
    generator, texts, mels, durations = run.data(f"{part} noise", part), [], [], []
    for index in range(count):
        said = speech.recite(index, part, (1, 3), run.data_seed(part))
        mel = speech.log_mel(speech.add_noise(said.wave, 40, generator))
        mel = (mel - speech.MEL_MEAN) / speech.MEL_DEVIATION
        odd = len(mel) % 2
        lasts = said.durations.clone()
        lasts[-1] -= odd
        texts.append(said.phonemes)
        mels.append(mel[: len(mel) - odd])
        durations.append(lasts)
    return Corpus(texts, mels, durations)


def lengths(given: Corpus) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    return torch.tensor([len(text) for text in given.texts]), torch.tensor([len(mel) for mel in given.mels])


def batch(run: Run, given: Corpus, rows: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    text, symbols = pad_text([given.texts[row] for row in rows])
    mel, frames = pad_mels([given.mels[row] for row in rows])
    return text.to(run.device), symbols, mel.to(run.device, run.dtype), frames


def learn(at: Trial, recipe: Recipe, rate: float) -> tuple[float, Trained]:
    """Train one model, and return its validation log-likelihood per frame and the model."""
    run, parts = at.run, at.world
    model = recipe.make().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    generator, steps = at.generator("batches"), at.length(run.pick(smoke=2, quick=300, full=3000))
    evenly = run.pick(smoke=1, quick=EVENLY, full=EVENLY)
    model.flow.fit(*fitting(run, parts.train))
    paths = {}
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(model, optimizer, paths)):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps)
        if step in (0, evenly):
            paths[step] = first_path(run, model, parts.judge)
        rows = torch.randint(len(parts.train.texts), (8,), generator=generator).tolist()
        text, symbols, mel, frames = batch(run, parts.train, rows)
        along = divide(symbols, frames).to(run.device) if step < evenly or not recipe.searches else None
        likelihood, missed, _ = model(text, symbols, mel, frames, along)
        nats = -likelihood.sum() / frames.sum()
        loss = nats / speech.MELS + missed.mean()
        at.descend(loss, optimizer, step=step, metric=f"loss, rate {rate:g}", clip=1.0)
    run.phase("evaluate")
    model.eval()
    paths[steps] = first_path(run, model, parts.judge)
    return judged(run, model, parts.choose)[0], Trained(model, paths)


def read_off(at: Trial, found: Sweep[Trained]) -> dict[str, float]:
    nats, errors = judged(at.run, found.chosen.model, at.world.judge)
    numbers = {
        "nats a frame on judge": nats,
        "boundary error (frames)": errors.double().mean().item(),
    }
    for name, value in numbers.items():
        at.metric(name, value)
    return numbers


def fitting(run: Run, train: Corpus) -> tuple[Tensor, Tensor]:
    _, _, mel, frames = batch(run, train, list(range(min(16, len(train.texts)))))
    return mel, mask_of(frames, mel.shape[-1], mel)


@torch.no_grad()
def judged(run: Run, model: GlowTTS, given: Corpus) -> tuple[float, Int[Tensor, " ends"]]:
    """Log-likelihood per frame in nats, and distances between the aligned and the true boundaries."""
    text, symbols, mel, frames = batch(run, given, list(range(len(given.texts))))
    likelihood, _, path = model(text, symbols, mel, frames)
    return (likelihood.sum() / frames.sum()).item(), boundary_errors(path.cpu(), given)


def boundary_errors(path: Tensor, given: Corpus) -> Int[Tensor, " ends"]:
    """Distances in frames between found and true ends of symbols, excluding the last symbol of each row."""
    errors = []
    for row, wanted in enumerate(given.durations):
        found = path[row, : len(wanted)].sum(-1)
        errors.append((found.cumsum(0) - wanted.cumsum(0))[:-1].abs())
    return torch.cat(errors)


@torch.no_grad()
def first_path(run: Run, model: GlowTTS, given: Corpus) -> Tensor:
    return model(*batch(run, given, [0]))[2][0].cpu()


def show_claim(run: Run, trained: dict[str, Trained], divided: Tensor, judge: Corpus) -> None:
    """Plot the first sentence's alignment, and the share of symbol ends found within each tolerance."""
    wanted, frames = judge.durations[0], len(judge.mels[0])
    paths = {arm: list(one.paths.values())[-1] for arm, one in trained.items()}
    paths["equal division"] = divided[0, : len(wanted), :frames]
    owners = {"truth": torch.arange(len(wanted)).repeat_interleave(wanted)}
    owners |= {arm: path.int().argmax(0) for arm, path in paths.items()}
    for arm, owner in owners.items():
        for frame, symbol in enumerate(owner.tolist()):
            run.metric(ALIGNMENT, symbol + 1, step=frame, arm=arm)
    errors = {arm: judged(run, one.model, judge)[1] for arm, one in trained.items()}
    errors["equal division"] = boundary_errors(divided, judge)
    for arm, distances in errors.items():
        for allowed in range(WORST + 1):
            run.metric(WITHIN, (distances <= allowed).double().mean().item(), step=allowed, arm=arm)
    run.axes(ALIGNMENT, x="frames", y="phoneme")
    run.axes(WITHIN, x="allowed error (frames)", y="share")
    run.headline(ALIGNMENT)


def show(run: Run, ours: Trained, judge: Corpus) -> None:
    """Save a spectrogram with its alignment at three steps, and speech at several temperatures."""
    mel, wanted = judge.mels[0], judge.durations[0]
    picture = [((mel.T.flip(0) * speech.MEL_DEVIATION + speech.MEL_MEAN + 7) / 10).repeat_interleave(2, 0)]
    ends = torch.zeros(1, len(mel), dtype=torch.bool)
    ends[0, wanted.cumsum(0)[:-1]] = True
    for path in ours.paths.values():
        panel = path.float().repeat_interleave(4, 0)
        picture += [torch.full((3, len(mel)), 0.6), torch.where(ends & (panel == 0), 0.35, panel)]
    said = " ".join(speech.PHONEMES[i] for i in judge.texts[0].tolist())
    run.image(
        "alignment",
        torch.cat(picture).repeat_interleave(4, 1),
        caption=f"The spectrogram of {said!r} and, below it, the best path before training steps "
        f"{', '.join(map(str, ours.paths))}. Each phoneme is a row, the first at the top. True ends are "
        "grey.",
    )
    generator, text = run.generator("sound"), judge.texts[0].to(run.device)
    sounds = {"the corpus": mel.T}
    for temperature, length in ((0.0, 1.0), (0.333, 1.0), (1.0, 1.0), (0.333, 0.7), (0.333, 1.3)):
        name = f"temperature {temperature:g}, length {length:g}"
        sounds[name], _ = ours.model.speak(text, generator, temperature, length)
    for name, made in sounds.items():
        logs = made.T.float().cpu() * speech.MEL_DEVIATION + speech.MEL_MEAN
        wave = speech.wave_of(logs.clamp(max=4.0), generator)
        wave = wave / wave.abs().max().clamp(min=1e-6) * 0.5
        beside = "" if name == "the corpus" else "the corpus"
        run.audio(name, wave, speech.RATE, caption=f"{said!r}, with phases from Griffin-Lim", beside=beside)
