"""Compares diffusion in latents and in pixels at equal compute, and sampling with and without guidance."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores import frechet_distance

from ..clip import TextTower
from ..ddpm import Schedule
from ..ddpm.model import Times
from ..vae import divergence
from . import toy
from .autoencoder import Latents
from .benchmark import forward_flops
from .model import Diffusion, Guide, Predict, denoise, guided, scaled_linear_schedule, unguided
from .toy import Judge, Pairs, Pictures, SmallAutoencoder
from .unet import UNet

UNTRAINED = Break("untrained autoencoder", "The autoencoder has its initial, random weights.")
SHUFFLED = Break("shuffled captions", "In training, every picture has the caption of another picture.")

DEVIATIONS = (
    "The pictures are scenes of 8 × 8 pixels with one digit, and captions have three words. The autoencoder "
    "has four convolutions, f = 2, and no adversarial loss. The U-Net has one resolution and 32 channels. "
    "It is trained by Adam together with a text tower of one layer. Sampling takes 10 DDIM steps (50 in a "
    "full run), in which the predicted data are clamped. No network is trained to convergence."
)

LATENTS = Claim(
    name="latents against pixels at equal compute",
    sentence="At equal compute, including the autoencoder's, pictures generated in latents have a smaller "
    "Fréchet distance to real ones than pictures generated in pixels.",
    paper=Figure(
        "On ImageNet, LDM-8 has a FID 38 points lower than LDM-1, which uses pixels, after 2M steps.",
        where="section 4.1",
        read="text",
    ),
    rule=(Bound("Fréchet distance, pixels' / latents'", ">=", 1.2, direction=1.0, ratio=True),),
    control="the same U-Net on pixels, with at least as many updates, each on as many pictures as the "
    "compute allows. Each arm uses its best learning rate from the same grid",
    control_reaches=(Bound("Fréchet distance, independent pixels' / pixels'", ">=", 1.05),),
    breaks=(UNTRAINED,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + " The learning rate is chosen by the error of short runs. The paper's "
    "comparison does not count the compute of its autoencoder.",
)

GUIDANCE = Claim(
    name="caption match and diversity with guidance",
    sentence="With guidance, more pictures match the caption, and the pictures are less diverse.",
    paper=Figure(
        "Precision 0.71 without and 0.87 with guidance, recall 0.62 and 0.48 (LDM-4 on ImageNet).",
        where="table 3",
        read="secondary",
    ),
    rule=(
        Bound("share with the caption's colours, guided - unguided", ">=", 0.1, direction=0.0),
        Bound("variance within a caption, guided / unguided", "<=", 0.9, direction=1.0, ratio=True),
    ),
    control="the same network without guidance (the noise predicted with the text), from the same initial "
    "noise",
    breaks=(SHUFFLED,),
    chosen_on=(0, 1),
    deviations=DEVIATIONS + " A judge trained on real scenes classifies the colours, and the variance is "
    "that of its features.",
)

STEPS = 10  # DDIM steps
RATES = (0.0015, 0.003, 0.006, 0.012)
SCALES = (1.0, 2.0, 4.0)
SCALE = 4.0  # guidance scale of the claim
BATCH = 32  # latents in an update
FIRST_STEPS, FIRST_BATCH = {"smoke": 3, "quick": 500, "full": 2000}, 32  # of the autoencoder


class Space(NamedTuple):
    """The space in which noise is added: its data, the map to pictures, and its cost."""

    train: Latents
    choose: Latents
    decode: Callable[[Latents], Pictures]
    limit: float  # for the data that a denoising step predicts
    batch: int  # size of a batch
    spent: float  # FLOPs before the first update


class Trained(NamedTuple):
    space: Space
    network: Diffusion


class Setting(NamedTuple):
    train: Pairs
    choose: Pairs
    judge: Pairs
    eye: Judge

    @torch.no_grad()
    def distance(self, x: Pictures) -> float:
        """The Fréchet distance to as many test pictures, in the judge's features."""
        return frechet_distance(self.eye.features(x), self.eye.features(self.judge.x[: len(x)]))


Make = Callable[[Run, Setting], Space]


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    asked = toy.encode(run.option("prompt", "a red seven"))  # rejects an invalid prompt before the training
    count = run.pick(smoke=40, quick=2000, full=10_000)
    train, choose, judge = (
        toy.pairs(run, size, part)
        for size, part in ((count, "train"), (count // 5, "choose"), (count // 5, "judge"))
    )
    eye = toy.judge(run, train)
    if run.without(SHUFFLED.name):
        order = torch.randperm(count, generator=run.generator("captions"))
        train = train._replace(ids=train.ids[order])
    setting = Setting(train, choose, judge, eye)
    makers: dict[str, Make] = run.arms({"latents": latents, "pixels": pixels}, control="pixels")
    if not run.wants(LATENTS):
        del makers["pixels"]
    found = {arm: tuned(run, arm, setting, make(run, setting)) for arm, make in makers.items()}
    if run.wants(LATENTS):
        compare(run, setting, found)
    if run.wants(GUIDANCE):
        guide(run, setting, found["latents"][1])
    if not (run.null or run.broken):
        draw(run, setting, {arm: trained for arm, (_, trained) in found.items()}, asked)


def pixels(run: Run, setting: Setting) -> Space:
    """The pictures themselves. A quarter of the batch costs about as much as a batch of latents."""
    return Space(setting.train.x, setting.choose.x, lambda x: x, 1.0, BATCH // 4, 0.0)


def latents(run: Run, setting: Setting) -> Space:
    """The means of the autoencoder's latents, each channel with mean 0 and variance 1."""
    untrained = run.without(UNTRAINED.name)
    trained = run.trained(
        "stable_diffusion.autoencoder",
        SmallAutoencoder,
        lambda network: train_autoencoder(run, network, setting.train.x),
    )
    network = (trained.untrained if untrained else trained.network).requires_grad_(False)
    z = network.encode(setting.train.x)[0]
    mean, std = z.mean((0, 2, 3), keepdim=True), z.std((0, 2, 3), keepdim=True)
    choose = (network.encode(setting.choose.x)[0] - mean) / std
    again = network.decode(network.encode(setting.judge.x)[0])
    run.metric("Fréchet distance on judge", setting.distance(again), arm="reconstructions")
    spent = FIRST_STEPS[run.budget] * first_flops()
    return Space((z - mean) / std, choose, lambda z: network.decode(z * std + mean), 3.0, BATCH, spent)


def train_autoencoder(run: Run, network: nn.Module, x: Pictures) -> None:
    """Section 3.1: the reconstruction error of a sampled latent, and a small KL penalty."""
    generator, steps = run.generator("autoencoder"), FIRST_STEPS[run.budget]
    optimizer = torch.optim.Adam(network.parameters(), 0.005, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in run.steps(steps, "autoencoder"):
        some = x[torch.randint(len(x), (FIRST_BATCH,), generator=generator)]
        noise = torch.randn(len(some), toy.LATENT, toy.GRID, toy.GRID, generator=generator).to(some)
        decoded, mean, log_variance = network(some, noise)
        penalty = divergence(mean.flatten(1), log_variance.flatten(1)).mean() / mean[0].numel()
        loss = F.mse_loss(decoded, some) + 1e-4 * penalty
        run.descend(loss, optimizer, step=step, metric="autoencoder's loss")
        decay.step()


def make_network(channels: int) -> Diffusion:
    text = TextTower(toy.END + 1, context=toy.LENGTH, width=32, heads=2, layers=1, dim=32)
    return Diffusion(text, UNet(channels, (32,), 1, context=32, heads=2, attention=(), groups=4))


@cache
def update_flops(shape: tuple[int, ...]) -> float:
    """FLOPs of one update on data of this shape: three times those of the forward pass."""
    t, ids = torch.zeros(shape[0]).long(), torch.zeros(shape[0], toy.LENGTH).long()
    return 3 * forward_flops(partial(make_network, shape[1]), torch.zeros(shape), t, ids)


@cache
def first_flops() -> float:
    """FLOPs of one update of the autoencoder."""
    x = torch.zeros(FIRST_BATCH, 3, toy.SIDE, toy.SIDE)
    return 3 * forward_flops(SmallAutoencoder, x, torch.zeros(FIRST_BATCH, toy.LATENT, toy.GRID, toy.GRID))


def updates(run: Run, space: Space) -> int:
    """The number of updates that the compute budget allows in this space. All arms have the same budget."""
    in_latents = update_flops((BATCH, toy.LATENT, toy.GRID, toy.GRID))
    total = FIRST_STEPS[run.budget] * first_flops() + run.pick(smoke=2, quick=160, full=3000) * in_latents
    return round((total - space.spent) / update_flops((space.batch, *space.train.shape[1:])))


def tuned(run: Run, arm: str, setting: Setting, space: Space) -> tuple[Best[float], Trained]:
    """Choose the learning rate by runs of a fifth of the updates, then train for all updates."""
    steps = updates(run, space)
    run.metric("updates", steps, arm=arm)

    def short(rate: float) -> tuple[float, float]:
        error = noise_error(run, train(run, arm, setting, space, rate, max(steps // 5, 1)), setting, space)
        return error, error

    rates = run.pick(smoke=RATES[2:3], quick=RATES, full=RATES)
    best = run.sweep(arm, rates, short, score="error on choose")
    return best, Trained(space, train(run, arm, setting, space, best.value, steps))


def train(run: Run, arm: str, setting: Setting, space: Space, rate: float, steps: int) -> Diffusion:
    """Train by equation 3. A tenth of the captions are empty, to train the prediction without text."""
    torch.manual_seed(run.seed)
    network = make_network(space.train.shape[1]).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), rate, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator, schedule = run.generator("batches"), scaled_linear_schedule()
    run.phase("train")
    for step in run.steps(steps, f"{arm}, {steps} updates, rate {rate:g}"):
        rows = torch.randint(len(space.train), (space.batch,), generator=generator)
        silent = torch.rand(space.batch, 1, generator=generator) < 0.1
        ids = setting.train.ids[rows].masked_fill(silent.to(run.device), toy.END)
        z, t, noise = noisy(schedule, space.train[rows], generator)
        loss = F.mse_loss(network(z, t, ids), noise)
        run.descend(loss, optimizer, step=step, metric=f"loss, {steps} updates, rate {rate:g}", arm=arm)
        decay.step()
    return network.eval()


def noisy(schedule: Schedule, z: Latents, generator: torch.Generator) -> tuple[Latents, Times, Latents]:
    """Data with noise added at random times, the times, and the noise."""
    t = torch.randint(len(schedule.beta), (len(z),), generator=generator)
    noise = torch.randn(z.shape, generator=generator).to(z)
    schedule = Schedule(schedule.beta.to(z.device))
    return schedule.add_noise(z, t.to(z.device), noise), t.to(z.device), noise


@torch.no_grad()
def noise_error(run: Run, network: Diffusion, setting: Setting, space: Space) -> float:
    """The validation loss, with the same times and noise for all arms."""
    z, t, noise = noisy(scaled_linear_schedule(), space.choose, run.generator("choose"))
    return F.mse_loss(network(z, t, setting.choose.ids), noise).item()


@torch.no_grad()
def pictures(
    run: Run, trained: Trained, ids: Int64[Tensor, "n 4"], scale: float = 1.0, how: Guide | None = None
) -> Pictures:
    """One picture for every caption, in [-1, 1], from the same noise in every call."""
    space, network = trained
    noise = torch.randn(len(ids), *space.train.shape[1:], generator=run.generator("samples")).to(space.train)
    schedule = Schedule(scaled_linear_schedule().beta.to(run.device))
    if how is None:
        predict: Predict = lambda z, t: network(z, t, ids)  # noqa: E731
    else:
        predict = network.with_text(ids, torch.full_like(ids, toy.END), scale, how)
    steps = run.pick(smoke=2, quick=STEPS, full=50)
    return space.decode(denoise(schedule, predict, noise, steps, space.limit)).clamp(-1, 1)


def compare(run: Run, setting: Setting, found: dict[str, tuple[Best[float], Trained]]) -> None:
    run.phase("evaluate")
    ids = setting.judge.ids[: run.pick(smoke=20, quick=200, full=2000)]
    made = {arm: pictures(run, trained, ids) for arm, (_, trained) in found.items()}
    noise = torch.randn(made["pixels"].shape, generator=run.generator("independent"))
    x, apart = setting.train.x, "independent pixels"
    made[apart] = (x.mean(0) + x.std(0) * noise.to(x)).clamp(-1, 1)
    made["training pictures"] = x[: len(ids)]
    distance = {arm: setting.distance(one) for arm, one in made.items()}
    for arm, value in distance.items():
        run.metric("Fréchet distance on judge", value, arm=arm)
    values = {
        "Fréchet distance, pixels' / latents'": distance["pixels"] / distance["latents"],
        "Fréchet distance, independent pixels' / pixels'": distance["independent pixels"]
        / distance["pixels"],
    }
    run.claim(LATENTS, values, tuned=[best for best, _ in found.values()])
    if not (run.null or run.broken):
        tell(run, {arm: trained.space for arm, (_, trained) in found.items()}, distance)


def tell(run: Run, spaces: dict[str, Space], distance: dict[str, float]) -> None:
    """Show how each arm spent its compute, and its results."""
    rows = []
    for arm, space in spaces.items():
        steps, shape = updates(run, space), tuple(space.train.shape[1:])
        one = update_flops((space.batch, *shape))
        rows.append(
            (
                arm,
                " × ".join(map(str, shape)),
                round(space.spent / 1e9, 1),
                f"{steps} of {space.batch}",
                round((space.spent + steps * one) / 1e9, 1),
                round(distance[arm], 2),
            )
        )
    run.table(
        "compute of both arms",
        ("arm", "shape of the data", "autoencoder (GFLOPs)", "updates", "total (GFLOPs)", "Fréchet distance"),
        rows,
        caption="The Fréchet distance compares a judge's features of generated and of held-out pictures. "
        f"The same number of training pictures has {distance['training pictures']:.2f}.",
    )


@torch.no_grad()
def guide(run: Run, setting: Setting, trained: Trained) -> None:
    """Generate pictures for all captions equally often, and measure their colours and their variance."""
    run.phase("evaluate")
    each = run.pick(smoke=2, quick=4, full=25)
    asked = torch.cartesian_prod(torch.arange(toy.COLOURS), torch.arange(10))
    ids = torch.stack([toy.encode(toy.caption(*one)) for one in asked.tolist()]).to(run.device)
    ids, colours = ids.repeat_interleave(each, 0), asked[:, 0].repeat_interleave(each).to(run.device)

    def fidelity_and_variance(scale: float, how: Guide) -> tuple[float, float]:
        x = pictures(run, trained, ids, scale, how)
        right = (setting.eye(x)[1].argmax(1) == colours).double().mean().item()
        return right, setting.eye.features(x).unflatten(0, (-1, each)).var(1).mean().item()

    guides: dict[str, Guide] = run.arms({"guided": guided, "unguided": unguided}, control="unguided")
    reached = {arm: fidelity_and_variance(SCALE, how) for arm, how in guides.items()}
    if not (run.null or run.broken):
        for scale in SCALES:
            right, variance = fidelity_and_variance(scale, guided) if scale != SCALE else reached["guided"]
            run.metric("share with the caption's colours over scale", right, step=scale)
            run.metric("variance within a caption over scale", variance, step=scale)
        run.axes(
            "share with the caption's colours over scale",
            x="guidance scale",
            y="share of pictures, by the judge",
        )
        run.axes(
            "variance within a caption over scale",
            x="guidance scale",
            y="variance of the judge's features",
        )
        run.headline("share with the caption's colours over scale")
    (right, variance), (control, wide) = reached["guided"], reached["unguided"]
    values = {
        "share with the caption's colours, guided - unguided": right - control,
        "variance within a caption, guided / unguided": variance / wide,
        "share with the caption's colours, unguided": control,
    }
    run.claim(GUIDANCE, values)


def draw(run: Run, setting: Setting, found: dict[str, Trained], asked: Int64[Tensor, " 4"]) -> None:
    """Show the arms' pictures below real ones, and pictures for the reader's prompt by guidance scale."""
    count = run.pick(smoke=2, quick=8, full=8)
    ids = setting.judge.ids[:count]
    rows = [setting.judge.x[:count], *(pictures(run, one, ids) for one in found.values())]
    run.image(
        "samples at equal compute",
        large(torch.cat(rows)),
        columns=count,
        rows=["real", *(f"diffusion in {arm}" for arm in found)],
        caption="Real pictures, and pictures generated without guidance for the same captions, at equal "
        "compute including the autoencoder's.",
    )
    prompt = " ".join(toy.WORDS[word] for word in asked.tolist() if word != toy.END)
    ids = asked.to(run.device).expand(count, -1)
    scales = [pictures(run, found["latents"], ids, scale, guided) for scale in SCALES]
    run.image(
        "prompt",
        large(torch.cat(scales)),
        columns=count,
        rows=[f"guidance {scale:g}" for scale in SCALES],
        caption=f'"{prompt}" from the same {count} noise samples. With more guidance, more pictures match '
        "the prompt, and they are less diverse (see the curves over its scale).",
    )


def large(x: Pictures) -> Float[Tensor, "n 3 52 52"]:
    """Enlarge each pixel to 6 × 6, and add frames between the pictures."""
    grown = ((x.float() + 1) / 2).repeat_interleave(6, 2).repeat_interleave(6, 3)
    return F.pad(grown, (2, 2, 2, 2), value=0.8)
