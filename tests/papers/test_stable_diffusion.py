"""Latent diffusion compared with diffusers' autoencoders, U-Net, attention block, codebook and DDIM."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.errors import ReadtrackError
from readtrack.papers import stable_diffusion
from readtrack.papers.clip import TextTower
from readtrack.papers.stable_diffusion import (
    Autoencoder,
    Codebook,
    Diffusion,
    UNet,
    VQAutoencoder,
    denoise,
    guidance,
    guided,
    scaled_linear_schedule,
    toy,
)
from readtrack.papers.stable_diffusion.blocks import TransformerBlock
from readtrack.papers.stable_diffusion.experiment import RATES, UPDATES
from readtrack.papers.stable_diffusion.guidance import (
    SCALE,
    Way,
    guided_by_another,
    match_and_variance,
    shuffled_text_to_image,
    text_to_image,
)
from readtrack.papers.stable_diffusion.spaces import (
    BATCH,
    Space,
    Trained,
    attended,
    autoencoder_flops,
    autoencoder_steps,
    averages,
    latents,
    latents_of_untrained,
    make_network,
    noise_error,
    patches,
    pixels,
    train,
    update_cost,
    update_flops,
    updates,
)
from readtrack.papers.stable_diffusion.weights import autoencoder_from_released, from_released
from readtrack.plugin import Run
from readtrack.runs.trial import Trial, Work, Workshop

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")


def their_unet(widths, blocks, context, heads, groups, attention):
    stages = range(len(widths))
    down = ["CrossAttnDownBlock2D" if stage in attention else "DownBlock2D" for stage in stages]
    up = ["CrossAttnUpBlock2D" if stage in attention else "UpBlock2D" for stage in reversed(stages)]
    return diffusers.UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=blocks,
        cross_attention_dim=context,
        attention_head_dim=heads,
        norm_num_groups=groups,
        down_block_types=down,
        up_block_types=up,
    )


def their_autoencoder(widths, blocks, groups, latent):
    count = len(widths)
    return diffusers.AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=blocks,
        norm_num_groups=groups,
        latent_channels=latent,
        down_block_types=["DownEncoderBlock2D"] * count,
        up_block_types=["UpDecoderBlock2D"] * count,
    )


def shapes(network):
    return {name: weight.shape for name, weight in network.state_dict().items()}


def test_the_unet_matches_diffusers(assert_parity):
    sizes = {"widths": (8, 16), "blocks": 1, "context": 6, "heads": 2, "groups": 4, "attention": (0,)}
    ours, theirs = UNet(4, **sizes), their_unet(**sizes)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    t = torch.tensor([0, 999])
    assert_parity(
        lambda w, x, c: functional_call(ours, w, (x, t, c)),
        lambda w, x, c: functional_call(theirs, w, (x, t, c)).sample,
        (torch.randn(2, 4, 4, 6), torch.randn(2, 3, 6)),
        weights=dict(ours.named_parameters()),
        rtol=1e-7,
        atol=1e-8,
    )


def test_the_block_matches_diffusers(assert_parity):
    from diffusers.models.attention import BasicTransformerBlock

    ours, theirs = TransformerBlock(12, 5, 3), BasicTransformerBlock(12, 3, 4, cross_attention_dim=5)
    assert shapes(ours) == shapes(theirs)
    assert_parity(
        lambda w, x, c: functional_call(ours, w, (x, c)),
        lambda w, x, c: functional_call(theirs, w, (x,), {"encoder_hidden_states": c}),
        (torch.randn(2, 7, 12), torch.randn(2, 3, 5)),
        weights=dict(ours.named_parameters()),
        rtol=1e-9,
        atol=1e-10,
    )


def test_the_autoencoder_matches_diffusers(assert_parity):
    ours, theirs = Autoencoder(3, 2, (4, 8), 1, 2), their_autoencoder((4, 8), 1, 2, 2)
    assert ours.state_dict().keys() == theirs.state_dict().keys()

    def through_theirs(weights, x, noise):
        def both(x):
            q = theirs.encode(x).latent_dist
            return theirs.decode(q.mean + q.std * noise).sample, q.mean, q.logvar

        theirs.forward = both
        return functional_call(theirs, weights, (x,))

    assert_parity(
        lambda w, x, noise: functional_call(ours, w, (x, noise)),
        through_theirs,
        (torch.randn(2, 3, 6, 4), torch.randn(2, 2, 3, 2)),
        weights=dict(ours.named_parameters()),
        rtol=1e-7,
        atol=1e-8,
    )


def test_the_rounding_autoencoder_matches_diffusers():
    ours = VQAutoencoder(3, 2, (4, 8), 1, 2, codes=5).double()
    theirs = diffusers.VQModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=2,
        num_vq_embeddings=5,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
    ).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    found, loss = ours(x)
    z = theirs.encode(x).latents
    rounded, their_loss, _ = theirs.quantize(z)
    expected = theirs.decode(z).sample
    assert_close(ours.encode(x), z)
    assert_close(found, expected, rtol=1e-7, atol=1e-8)
    assert_close(ours.decode(z), expected, rtol=1e-7, atol=1e-8)
    # diffusers weights the two parts the other way round, as its documentation says.
    other = torch.nn.functional.mse_loss(rounded.detach(), z)
    assert_close(loss, their_loss)
    assert_close(loss, 1.25 * other)
    grads = [
        torch.autograd.grad(y.square().mean(), net.encoder.conv_in.weight)[0]
        for y, net in ((found, ours), (expected, theirs))
    ]
    assert_close(*grads, rtol=1e-7, atol=1e-9)


def test_a_codebook_takes_the_nearest_and_draws_both_together():
    book = Codebook(3, 2).double()
    with torch.no_grad():
        book.embedding.weight.copy_(torch.tensor([[0.0, 0], [1, 1], [-1, 0]]))
    z = torch.tensor([[0.8, 0.7], [-0.2, 0.1]], dtype=torch.float64).T.reshape(1, 2, 1, 2).requires_grad_()
    assert book.nearest(z).tolist() == [[[1, 0]]]
    rounded, loss = book(z)
    assert_close(rounded[0, :, 0].T, torch.tensor([[1.0, 1], [0, 0]], dtype=torch.float64))
    (through,) = torch.autograd.grad(rounded.sum(), z, retain_graph=True)
    assert_close(through, torch.ones_like(z))
    (drawn,) = torch.autograd.grad(loss, z)
    assert_close(drawn, 0.25 * 2 * (z - rounded).detach() / z.numel())


def test_the_released_sizes():
    """859.5 and 83.7 million parameters, and the names of the released weights."""
    with torch.device("meta"):
        unet, autoencoder = UNet(), Autoencoder()
        theirs = their_unet((320, 640, 1280, 1280), 2, 768, 8, 32, (0, 1, 2))
        their_first = their_autoencoder((128, 256, 512, 512), 2, 32, 4)
    counts = [sum(weight.numel() for weight in one.parameters()) for one in (unet, autoencoder)]
    assert counts == [859_520_964, 83_653_863]
    assert shapes(unet) == shapes(theirs)
    assert shapes(autoencoder) == shapes(their_first)


@pytest.mark.parametrize("limit", [0.7, 1e9])
def test_the_way_back_matches_diffusers_ddim(limit):
    schedule = scaled_linear_schedule()
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=limit < 1,
        clip_sample_range=limit,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    assert_close(schedule.beta.float(), theirs.betas)
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = schedule.alpha_bar, torch.tensor(1.0).double()
    theirs.set_timesteps(20)
    z = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found = denoise(schedule, lambda z, t: torch.tanh(z + t[0] / 500), z, 20, limit)
    expected = z
    for t in theirs.timesteps:
        noise = torch.tanh(expected + t / 500)
        # After clamping, the noise must be consistent with the clamped image.
        expected = theirs.step(noise, t, expected, use_clipped_model_output=limit < 1).prev_sample
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_guidance_goes_past_the_text():
    told, untold = torch.randn(2, 1, 2, 3, 3)
    assert_close(guided(told, untold, 1.0), told)
    assert_close(guided(told, untold, 0.0), untold)
    assert_close(guided(told, untold, 3.0), 3 * told - 2 * untold)


def test_one_pass_serves_both_texts():
    text = TextTower(6, context=3, width=8, heads=2, layers=1, dim=8)
    network = Diffusion(text, UNet(2, (4, 8), 1, 8, 2, (1,), 2)).double()
    z, t = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.tensor([7, 500])
    ids, empty = torch.tensor([[0, 1, 5], [3, 2, 5]]), torch.full((2, 3), 5)
    found = network.with_text(ids, empty, 2.5, guided)(z, t)
    assert_close(found, guided(network(z, t, ids), network(z, t, empty), 2.5))
    assert not torch.allclose(network(z, t, ids), network(z, t, empty))


def in_a_trial(run: Run, setting: toy.Setting) -> Trial:
    return Trial(Workshop(run, setting), Work(arm="latents"), arm="latents")


@pytest.fixture
def at(part_of_run):
    run = part_of_run()
    part = toy.pairs(run, 40, "train")
    return in_a_trial(run, toy.Setting(part, part, part, toy.Judge()))


def test_the_set_up_is_the_stated_one():
    assert digest(stable_diffusion) == "dddb9adac8b8"
    assert (RATES, UPDATES, BATCH, SCALE) == ((0.0015, 0.004, 0.01), 300, 32, 4.0)


def test_all_spaces_have_the_same_compute():
    run = Run.__new__(Run)
    run.budget = "quick"
    grid, picture, patch = (
        torch.zeros(1, *shape)
        for shape in ((toy.LATENT, toy.GRID, toy.GRID), (3, toy.SIDE, toy.SIDE), (12, toy.GRID, toy.GRID))
    )
    first = autoencoder_steps(run) * autoencoder_flops()
    spaces = (
        Space(grid, grid, torch.relu, 3.0, BATCH, first),
        Space(picture, picture, torch.relu, 1.0, BATCH // 4, 0.0, (32, 32)),
        Space(patch, patch, torch.relu, 1.0, BATCH, 0.0),
    )
    counts = [updates(run, space, UPDATES) for space in spaces]
    # The control and the rival have at least as many updates, which matter most in such a short training.
    assert counts[0] == UPDATES <= min(counts[1:])
    latent, *others = (
        space.spent + count * update_cost(run, space) for count, space in zip(counts, spaces, strict=True)
    )
    assert others == pytest.approx([latent, latent], rel=0.01)
    assert first > 0.02 * latent


def test_both_spaces_are_charged_their_cost(at):
    """The break uses the autoencoder with its initial weights, at the same cost."""
    ours, theirs, untrained = latents(at), pixels(at), latents_of_untrained(at)
    assert (ours.batch, theirs.batch) == (BATCH, BATCH // 4)
    assert (ours.widths, theirs.widths) == ((32,), (32, 32))
    assert (ours.spent, theirs.spent) == (autoencoder_steps(at.run) * autoencoder_flops(), 0.0)
    assert untrained.spent == ours.spent
    for space in (ours, untrained):
        assert_close(space.train.mean((0, 2, 3)), torch.zeros(toy.LATENT), atol=1e-5, rtol=0)
        assert_close(space.train.std((0, 2, 3)), torch.ones(toy.LATENT))
    assert not torch.allclose(untrained.train, ours.train)


def test_the_networks_have_the_stated_sizes():
    """183 and 292 thousand parameters, as the deviations say."""
    counts = [
        sum(weight.numel() for weight in make_network(channels, widths, ()).unet.parameters())
        for channels, widths in ((4, (32,)), (3, (32, 32)))
    ]
    assert counts == [182_820, 291_715]


def test_patches_are_the_pictures_in_another_order(at):
    space = patches(at)
    assert space.train.shape[1:] == (12, toy.GRID, toy.GRID)
    assert torch.equal(space.decode(space.train), at.world.train.x)


def test_averages_have_the_latents_resolution_and_lose_what_a_decoder_would_restore(at):
    space, x = averages(at), at.world.train.x
    assert space.train.shape[1:] == (3, toy.GRID, toy.GRID)
    assert_close(space.train[:, :, 1, 2], x[:, :, 2:4, 4:6].mean((2, 3)))
    assert_close(space.decode(torch.full((1, 3, 4, 4), 0.3).to(x)), torch.full((1, 3, 8, 8), 0.3).to(x))
    assert F.mse_loss(space.decode(space.train), x) > 0.01
    assert (space.batch, space.spent) == (BATCH, 0.0)


def test_the_error_to_choose_by_is_that_of_the_noise(at, monkeypatch):
    """A network that always predicts 0 has the variance of the noise as its error."""
    space = pixels(at)
    monkeypatch.setattr(Diffusion, "forward", lambda self, z, t, ids: torch.zeros_like(z))
    assert noise_error(at, space, make_network(3, (32,), ())) == pytest.approx(1.0, rel=0.05)


@pytest.fixture
def captions(monkeypatch):
    """The captions of all batches that a network of the test sees."""
    seen, forward = [], Diffusion.forward
    monkeypatch.setattr(
        Diffusion, "forward", lambda self, z, t, ids: seen.append(ids) or forward(self, z, t, ids)
    )
    return seen


def test_a_tenth_of_the_captions_is_empty_in_training(at, captions):
    train(at, pixels(at), at.world.train.ids, 0.001, 50)
    empty = (torch.cat(captions) == toy.END).all(1).double().mean().item()
    assert empty == pytest.approx(0.1, abs=0.05)


def test_shuffled_captions_are_the_same_captions(at, monkeypatch):
    given, trained = [], text_to_image(at)
    monkeypatch.setattr(guidance, "learn", lambda at, ids: given.append(ids) or trained)
    for stage in (text_to_image, shuffled_text_to_image):
        stage(at)
    kept, mixed = given
    assert torch.equal(kept, at.world.train.ids)
    assert not torch.equal(mixed, kept)
    assert sorted(mixed.tolist()) == sorted(kept.tolist())


def test_another_pictures_guidance_is_as_large():
    told, untold = torch.randn(2, 4, 1, 2, 2)
    added, usual = guided_by_another(told, untold, 3.0) - told, guided(told, untold, 3.0) - told
    assert_close(added.flip(0), usual)


def test_the_match_and_the_variance_are_per_picture_and_per_caption(at):
    trained = text_to_image(at)
    assert isinstance(trained, Trained)
    match, digits, variance = match_and_variance(at.run, at.world, trained, Way(guided), 2.0)
    assert (match.shape, digits.shape, variance.shape) == ((80,), (80,), (40,))
    told = match_and_variance(at.run, at.world, trained, Way(guided), 1.0)
    alone = match_and_variance(at.run, at.world, trained, Way(None), 5.0)
    assert_close(told, alone, rtol=1e-3, atol=1e-6)
    cold = match_and_variance(at.run, at.world, trained, Way(None, 0.0), 1.0)[2]
    assert_close(cold, torch.zeros(40), rtol=0, atol=1e-9)


def test_the_words_of_a_picture_are_its_captions(at, monkeypatch):
    """Pictures that show their captions have all colours and digits."""

    class Reader(toy.Judge):
        def forward(self, x):
            return F.one_hot(x[:, 1], 10), F.one_hot(x[:, 0], toy.COLOURS)

        def features(self, x):
            return x.double()

    def shown(run, trained, texts, *rest):
        words = [[toy.WORDS[word] for word in text[1:3].tolist()] for text in texts]
        return torch.tensor([[toy.scenes.COLOURS.index(c), toy.scenes.DIGITS.index(d)] for c, d in words])

    monkeypatch.setattr(guidance, "pictures", shown)
    setting, trained = at.world._replace(eye=Reader()), text_to_image(at)
    match, digits, _ = match_and_variance(at.run, setting, trained, Way(guided), 2.0)
    assert match.min() == digits.min() == 1
    monkeypatch.setattr(guidance, "pictures", lambda *given: shown(*given).flip(0))
    match, digits, _ = match_and_variance(at.run, setting, trained, Way(guided), 2.0)
    assert match.mean() == 0  # the colours in reverse order
    assert digits.mean() == 0


def test_only_the_full_budget_attends_in_every_block(part_of_run, monkeypatch):
    run = part_of_run()
    monkeypatch.setattr(run, "pick", lambda **values: values["full"])
    assert len(make_network(4, (32,), attended(run)).unet.up_blocks[0].attentions) == 2
    two = make_network(3, (32, 32), attended(run)).unet
    assert [len(stage.attentions) for stage in (*two.down_blocks, *two.up_blocks)] == [1, 1, 2, 2]
    assert update_flops((8, 4, 4, 4), (32,), (0, 1)) > 1.2 * update_flops((8, 4, 4, 4), (32,), ())


def test_a_latent_has_a_fourth_of_the_places():
    network, x = toy.SmallAutoencoder(), torch.randn(2, 3, toy.SIDE, toy.SIDE)
    mean, log_variance = network.encode(x)
    assert mean.shape == log_variance.shape == (2, toy.LATENT, 4, 4)
    decoded, again, _ = network(x, torch.zeros_like(mean))
    assert_close(decoded, network.decode(mean))
    assert_close(again, mean)


def test_captions_are_words_and_an_end():
    assert toy.encode("a red seven").tolist() == [0, 1, toy.WORDS.index("seven"), toy.END]
    assert toy.encode('"A red seven."').tolist() == toy.encode("a red seven").tolist()
    assert toy.encode("").tolist() == [toy.END] * 4
    for strange in ("a red cat", "a red seven seven"):
        with pytest.raises(ReadtrackError, match="up to 3 of these words: a, red"):
            toy.encode(strange)


def test_released_weights_run_in_these_lines():
    """The text tower, U-Net and autoencoder of diffusers and transformers, from tokens to an image."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"widths": (8, 16), "blocks": 1, "context": 12, "heads": 2, "groups": 4, "attention": (0,)}
    config = transformers.CLIPTextConfig(
        vocab_size=20,
        hidden_size=12,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=5,
        bos_token_id=18,
        eos_token_id=19,
    )
    text = transformers.CLIPTextModel(config).double().eval()
    unet, first = their_unet(**sizes).double().eval(), their_autoencoder((4, 8), 1, 2, 4).double().eval()
    z, t = torch.randn(2, 4, 4, 6, dtype=torch.float64), torch.tensor([3, 700])
    ids = torch.tensor([[18, 3, 7, 19, 19], [18, 4, 19, 19, 19]])
    noise = unet(z, t, text(ids).last_hidden_state).sample
    named = {f"text_model.{name.removeprefix('text_model.')}": w for name, w in text.state_dict().items()}
    ours = Diffusion(TextTower(20, context=5, width=12, heads=2, layers=2, dim=12), UNet(4, **sizes)).double()
    for words in (text.state_dict(), named):
        ours.load_state_dict(from_released(unet.state_dict(), words))
        assert_close(ours(z, t, ids), noise, rtol=1e-8, atol=1e-9)
    old = {was(name): tensor for name, tensor in first.state_dict().items()}
    assert sum("proj_attn" in name for name in old) == 4
    for released in (first.state_dict(), old):
        decoder = Autoencoder(3, 4, (4, 8), 1, 2).double()
        decoder.load_state_dict(autoencoder_from_released(released))
        assert_close(decoder.decode(z), first.decode(z).sample, rtol=1e-8, atol=1e-9)


def was(name: str) -> str:
    """The names of the attention projections in the published file of the autoencoder."""
    for new, old in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value.")):
        name = name.replace(new, old)
    return name.replace(".to_out.0.", ".proj_attn.")


def test_the_experiment_runs(run_experiment):
    record = run_experiment(stable_diffusion, prompt="a blue four")
    pictures = {artifact["name"]: artifact for artifact in record.artifacts}
    assert pictures.keys() == {"samples at equal compute", "compute of both arms", "prompt"}
    assert '"a blue four"' in pictures["prompt"]["caption"]


def test_both_claims_name_their_arms(comparisons):
    spaces, ways = comparisons(stable_diffusion)
    assert spaces.claims == (stable_diffusion.LATENTS,)
    assert ways.claims == (stable_diffusion.GUIDANCE,)
    assert {name: arm.make for name, arm in spaces.arms.items()} == {"latents": latents, "pixels": pixels}
    assert {name: arm.make for name, arm in ways.arms.items()} == {
        "guided": Way(guided),
        "unguided": Way(None),
    }
    assert {arm.before for arm in ways.arms.values()} == {text_to_image}


@pytest.mark.parametrize(
    "broken", [stable_diffusion.LATENTS, stable_diffusion.GUIDANCE], ids=lambda c: c.name
)
def test_a_break_is_judged_on_the_claims_that_it_should_fail(run_experiment, broken):
    (claim,) = run_experiment(stable_diffusion, broken=broken.breaks[0].name).claims
    assert claim["claim"]["name"] == broken.name


@pytest.mark.slow
def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(stable_diffusion)] == ["guided noise", "pictures"]
