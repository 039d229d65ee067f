"""Mamba's scans compared with each other, its model with transformers', and its kernels in Triton's
interpreter.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import mamba
from readtrack.papers.mamba import (
    Config,
    Copier,
    Mamba,
    MambaBlock,
    SelectiveScan,
    SelectiveSSM,
    from_released,
    prefixes,
    scan_associative,
    scan_chunked,
    scan_loop,
    selective_copying,
    selective_scan,
)
from readtrack.papers.mamba.benchmark import Transformer, authors, in_room
from readtrack.papers.mamba.experiment import (
    NOISE,
    TOKENS,
    GatedSSM,
    RecurrentUnits,
    TimeInvariantSSM,
    blind,
)
from readtrack.papers.ssm import hippo_legs
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

experiment = importlib.import_module("readtrack.papers.mamba.experiment")  # the hook has the same name


def scan_inputs(batch=2, time=13, channels=5, order=4):
    generator = torch.Generator().manual_seed(0)
    inputs = mamba.scan_inputs(generator, batch, time, channels, order)
    return *inputs, torch.randn(batch, channels, order, generator=generator)


def in_chunks_of(size):
    return lambda *inputs: SelectiveScan.apply(*inputs, size)


# The scan


@pytest.mark.parametrize("time", [1, 2, 7, 16])
@pytest.mark.parametrize(
    "scan",
    [
        scan_chunked,
        partial(scan_chunked, size=3),
        scan_associative,
        selective_scan,
        in_chunks_of(1),
        in_chunks_of(3),
    ],
    ids=["chunked", "chunked by 3", "associative", "in use", "step by step", "in chunks of 3"],
)
def test_every_order_of_work_is_the_loop(assert_parity, scan, time):
    assert_parity(scan, scan_loop, scan_inputs(time=time))


def test_the_loop_is_algorithm_2():
    """Compares them for one sequence, one channel and one coefficient, with plain numbers."""
    x, delta, B, C = torch.rand(4, 6).double().tolist()
    A, h, expected = -0.7, 0.3, []
    for t in range(6):
        h = 2.718281828459045 ** (delta[t] * A) * h + delta[t] * B[t] * x[t]
        expected.append(C[t] * h)
    inputs = (torch.tensor(value).double().view(1, -1, 1) for value in (x, delta, B, C))
    x, delta, B, C = inputs
    y, last = scan_loop(x, delta, torch.tensor([[A]]).double(), B, C, torch.tensor([[[0.3]]]).double())
    assert_close(y.flatten().tolist(), expected)
    assert last.item() == pytest.approx(h)


def test_the_backward_pass_matches_finite_differences():
    inputs = [tensor.double().requires_grad_() for tensor in scan_inputs(1, 5, 2, 2)]
    assert torch.autograd.gradcheck(in_chunks_of(2), inputs)
    assert torch.autograd.gradgradcheck(in_chunks_of(2), inputs)


def test_half_precision_is_as_accurate_as_the_loop(assert_half_precision):
    def with_state_as_the_loop_has_it(*inputs):
        y, state = selective_scan(*inputs)
        assert state.dtype == torch.promote_types(inputs[0].dtype, torch.float32)
        return y, state.to(inputs[0].dtype)

    assert_half_precision(with_state_as_the_loop_has_it, scan_loop, scan_inputs(4, 24, 16, 8))


def test_a_scan_in_two_parts_equals_one_scan():
    x, delta, A, B, C, state = (tensor.double() for tensor in scan_inputs())
    whole, last = selective_scan(x, delta, A, B, C, state)
    first, between = selective_scan(x[:, :6], delta[:, :6], A, B[:, :6], C[:, :6], state)
    second, end = selective_scan(x[:, 6:], delta[:, 6:], A, B[:, 6:], C[:, 6:], between)
    assert_close(torch.cat((first, second), 1), whole)
    assert_close(end, last)


def test_large_steps_do_not_overflow():
    """A scan with cumulative exponents would overflow: e^{+300} on the way to a state that is forgotten
    immediately.
    """
    x, delta, A, B, C, state = scan_inputs(time=40)
    for scan in (selective_scan, scan_chunked, scan_associative):
        y, _ = scan(x, delta * 0 + 30, A, B, C, state)
        assert y.isfinite().all()


@pytest.mark.parametrize("time", [1, 5, 8])
def test_prefixes_are_the_states_of_the_recurrence(time):
    decay, drive = torch.rand(2, 1, time, 3, 2).double()
    state, states = torch.zeros(1, 3, 2).double(), []
    for t in range(time):
        state = decay[:, t] * state + drive[:, t]
        states.append(state)
    assert_close(prefixes(decay, drive), torch.stack(states, 1))


def test_the_backward_pass_keeps_one_state_a_chunk():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(time=12)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        in_chunks_of(4)(*inputs)
    states = inputs[-1].numel()
    assert sum(saved) == sum(tensor.numel() for tensor in inputs[:-1]) + 12 // 4 * states


# The kernels


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("triton"), reason="the kernels extra (triton) is not installed"
)
def test_the_kernels_are_the_loop():
    """Runs in a separate process, because Triton decides on import whether to use its interpreter."""
    script = Path(__file__).parent / "triton_scan.py"
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    child = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "equal"


# The model


@pytest.fixture
def transformers_model(monkeypatch):
    """Its slow path in float64. By default it casts step sizes and norms to float32."""
    transformers = pytest.importorskip("transformers", reason="the parity extra is not installed")
    from transformers.models.mamba import modeling_mamba

    config = transformers.MambaConfig(vocab_size=29, hidden_size=12, num_hidden_layers=2, use_cache=False)
    model = transformers.MambaForCausalLM(config).double().eval()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(
        modeling_mamba.MambaRMSNorm,
        "forward",
        lambda norm, x: F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon),
    )
    for block in model.backbone.layers:
        block.residual_in_fp32 = False
    return model


def under_their_names(weights, theirs):
    """The released model's parameters, filled with ours by the inverse mapping."""
    names = {id(tensor): name for name, tensor in theirs.items()}
    places = {ours: names[id(tensor)] for ours, tensor in from_released(theirs).items()}
    found = {places[name]: weight for name, weight in weights.items()}
    return found | {"lm_head.weight": weights["embedding.weight"]}


def test_the_model_matches_transformers_under_the_released_names(assert_parity, transformers_model):
    ours = Mamba(Config(layers=2, model=12, vocab=29)).double()
    weights = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in ours.named_parameters()}
    theirs = dict(transformers_model.state_dict())
    assert_parity(
        lambda weights, ids: functional_call(ours, weights, (ids,))[0],
        lambda weights, ids: (
            functional_call(transformers_model, under_their_names(weights, theirs), (ids,)).logits
        ),
        (torch.randint(29, (2, 11)),),
        weights=weights,
    )
    ours.load_state_dict(from_released(theirs))
    ids = torch.randint(29, (1, 5))
    assert_close(ours(ids)[0], transformers_model(ids).logits)


def test_weights_of_another_model_are_refused():
    assert list(from_released({"backbone.embedding.weight": torch.ones(1)})) == ["embedding.weight"]
    with pytest.raises(ValueError, match=r"transformer\.wte"):
        from_released({"transformer.wte.weight": torch.ones(1)})


def shaken(model):
    """The model in float64 with weights that differ from their initial values."""
    with torch.no_grad():
        for weight in model.double().parameters():
            weight += 0.2 * torch.randn_like(weight)
    return model


@pytest.mark.parametrize("cuts", [(5,), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10), (2, 9)])
def test_a_text_in_parts_equals_the_whole(cuts):
    """Compares scores, the last state, and the gradients of all weights, for prefill and single steps."""
    model, ids = shaken(Mamba(Config(layers=2, model=12, vocab=29))), torch.randint(29, (2, 11))
    whole, last = model(ids)
    parts, state = [], None
    for part in ids.tensor_split(cuts, 1):
        scores, state = model(part, state)
        parts.append(scores)
    assert_close(torch.cat(parts, 1), whole)
    for (recent, space), (recent_, space_) in zip(state, last, strict=True):
        assert_close(recent, recent_)
        assert_close(space, space_)
    arriving = torch.randn_like(whole)
    weights = list(model.parameters())
    for mine, exact in zip(
        torch.autograd.grad(torch.cat(parts, 1), weights, arriving),
        torch.autograd.grad(whole, weights, arriving),
        strict=True,
    ):
        assert_close(mine, exact)


def test_the_state_does_not_grow_with_the_text():
    model = Mamba(Config(layers=2, model=12, vocab=29))
    sizes = {
        length: [tensor.shape for both in model(torch.randint(29, (1, length)))[1] for tensor in both]
        for length in (1, 3, 20)
    }
    assert sizes[1] == sizes[3] == sizes[20] == [(1, 24, 3), (1, 24, 16)] * 2


def test_the_papers_models_have_the_papers_sizes():
    for config, parameters in ((mamba.MAMBA_130M, 129_135_360), (mamba.MAMBA_2_8B, 2_768_345_600)):
        with torch.device("meta"):
            model = Mamba(config)
        assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_the_future_has_no_influence():
    block, x = MambaBlock(6, order=4).double(), torch.randn(1, 9, 6).double()
    changed = x.clone()
    changed[:, 5:] = 3.0
    assert torch.equal(block(x)[0][:, :5], block(changed)[0][:, :5])


def test_hooks_see_the_parts_of_a_block():
    block, called = MambaBlock(6, order=4), []
    for name, part in block.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 3, 6))
    assert set(called) == {*("", "in_proj", "conv1d", "ssm", "ssm.x_proj", "ssm.dt_proj", "out_proj")}


def test_steps_and_eigenvalues_start_as_the_paper_says():
    space = SelectiveSSM(500, 8, rank=2)
    steps = F.softplus(space.dt_proj.bias)
    assert steps.min() > 0.00099
    assert steps.max() < 0.101
    assert 0.3 < (steps < 0.01).float().mean() < 0.7  # as many below the geometric mean as above
    assert_close(space.A_log.exp(), torch.arange(1.0, 9.0).expand(500, 8))
    assert torch.equal(space.D, torch.ones(500))
    assert 0.6 < space.dt_proj.weight.abs().max() <= 2**-0.5


def test_residual_outputs_start_smaller_with_depth():
    torch.manual_seed(0)
    one = Mamba(Config(layers=1, model=32, vocab=50))
    nine = Mamba(Config(layers=9, model=32, vocab=50))
    bound = 64**-0.5  # the bound of torch's uniform initialisation
    for model, scale in ((one, 1), (nine, 3)):
        for block in model.blocks:
            assert 0.95 * bound / scale < block.out_proj.weight.abs().max() <= bound / scale
            assert block.in_proj.weight.abs().max() > 0.95 * 32**-0.5
        assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_it_runs_under_autocast_and_in_half_precision():
    model, ids = Mamba(Config(layers=1, model=16, vocab=20)), torch.randint(20, (2, 9))
    exact = model(ids)[0]
    with torch.autocast("cpu", torch.bfloat16):
        scores, _ = model(ids)
    assert_close(scores.float(), exact, rtol=0, atol=0.02)
    scores, state = model.bfloat16()(ids[:, :-1])
    assert scores.dtype == torch.bfloat16
    assert state[0][1].dtype == torch.float32
    last, _ = model(ids[:, -1:], state)
    assert_close(torch.cat((scores, last), 1).float(), exact, rtol=0, atol=0.02)


def test_without_selection_the_scan_is_a_convolution(assert_parity):
    """The control, computed by convolution, equals the scan with constant parameters."""
    space = TimeInvariantSSM(3, 4, rank=2)

    def scanned(weights, x):
        dt, B, C = weights["constant"].expand(*x.shape[:2], -1).split((2, 4, 4), -1)
        delta = F.softplus(F.linear(dt, weights["dt_proj.weight"], weights["dt_proj.bias"]))
        y, _ = selective_scan(x, delta, -weights["A_log"].exp(), B, C)
        return y + weights["D"] * x

    assert_parity(
        lambda weights, x: functional_call(space, weights, (x,))[0],
        scanned,
        (torch.randn(2, 7, 3),),
        weights=dict(space.named_parameters()),
    )


def test_without_selection_the_space_is_linear_and_with_it_is_not():
    for kind in (TimeInvariantSSM, SelectiveSSM):
        space = kind(4, 3, rank=2).double()
        x, y = torch.randn(2, 1, 10, 4).double()
        linear = torch.allclose(space(x + 2 * y)[0], space(x)[0] + 2 * space(y)[0])
        assert linear == (kind is TimeInvariantSSM)


# The experiment's arms


def test_the_tokens_to_copy_are_in_the_sequence_in_order():
    ids, answers = selective_copying(200, 16, 4, torch.Generator().manual_seed(0))
    assert ids.shape == (200, 20)
    assert (ids[:, 16:] == TOKENS + 1).all()
    assert set(answers.unique().tolist()) == set(range(1, TOKENS + 1))
    for row, tokens in zip(ids[:, :16], answers, strict=True):
        assert torch.equal(row[row != NOISE], tokens)
    assert ((ids[:, :16] != NOISE).float().mean(0) > 0.1).all()  # any position may contain a token


def test_the_arms_differ_only_in_selection():
    with_, without = (Copier(space, 8, 4) for space in (SelectiveSSM, TimeInvariantSSM))
    assert with_.state_dict().keys() ^ without.state_dict().keys() == {
        *(f"spaces.{layer}.{name}" for layer in (0, 1) for name in ("x_proj.weight", "constant"))
    }
    for space in without.spaces:  # it starts with a signal, like the selective arm
        assert 0.5 < space.constant.std() < 2
        assert_close(space.A_log.exp()[0], hippo_legs(4)[0].diagonal().float())


def test_a_copier_is_a_residual_stream():
    copier, ids = Copier(SelectiveSSM, 8, 4), torch.randint(TOKENS + 2, (2, 6))
    x = copier.embedding(ids)
    for norm, space, project in zip(copier.norms, copier.spaces, copier.projections, strict=True):
        x = x + project(F.silu(space(norm(x))[0]))
    assert len(copier.spaces) == 2
    assert_close(copier(ids), copier.readout(x))


def test_a_blind_space_selects_by_another_sequence():
    space, x = blind(8, 4, 3), torch.randn(3, 6, 8)
    seeing = SelectiveSSM(8, 4, rank=3)
    seeing.load_state_dict(space.state_dict())
    dt, B, C = seeing.x_proj(x.roll(1, 0)).split((3, 4, 4), -1)
    y, _ = selective_scan(x, F.softplus(seeing.dt_proj(dt)), -seeing.A_log.exp(), B, C)
    assert_close(space(x)[0], y + seeing.D * x)
    assert not torch.allclose(space(x)[0], seeing(x)[0])


def values(record, claim):
    return next(one["values"] for one in record.claims if one["claim"]["name"] == claim.name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_experiment_runs(run_experiment, dtype):
    record = run_experiment(mamba, dtype=dtype)
    arms = {curve.partition(",")[0] for curve in record.curves["loss of copying"]}
    assert arms == {"selective", "time-invariant"}
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts["selection as a gate"] == "held"


def test_a_null_run_has_two_controls_of_their_own(run_experiment, monkeypatch):
    monkeypatch.setattr(experiment, "SelectiveSSM", None)  # only the control is built
    losses = run_experiment(mamba, null=True).curves["loss of copying"]
    assert losses["selective, rate 0.01"] != losses["time-invariant, rate 0.01"]


def test_the_break_leaves_the_control_alone(run_experiment):
    plain, broken = (
        run_experiment(mamba, broken=name).curves["loss of copying"] for name in ("", "blind selection")
    )
    for arm, points in plain.items():
        assert (points == broken[arm]) == arm.startswith("time-invariant")


# The benchmark


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(mamba)] == ["selective scan", "decoding", "generation"]


def test_the_authors_kernels_are_given_time_last(monkeypatch):
    """Checks the arguments without a GPU, in the layout that the authors' function documents."""
    x, delta, A, B, C, state = scan_inputs()

    def selective_scan_fn(u, delta, A, B, C):
        assert u.shape == delta.shape == (2, 5, 13)
        assert B.shape == C.shape == (2, 4, 13)
        assert u.is_contiguous()
        return scan_loop(u.mT, delta.mT, A, B.mT, C.mT, torch.zeros_like(state))[0].mT

    package = ModuleType("selective_scan_interface")
    package.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", package)
    assert_close(authors(x, delta, A, B, C), scan_loop(x, delta, A, B, C, torch.zeros_like(state))[0])


def test_models_that_are_compared_by_their_text_have_equal_size():
    sizes = [
        sum(weight.numel() for weight in model.parameters())
        for model in (Mamba(Config(layers=4, model=256, vocab=256)), Transformer(2, 256, 4, 256))
    ]
    assert 1 <= sizes[0] / sizes[1] < 1.15


def test_the_transformer_with_a_cache_is_causal_attention():
    """Compares with torch's layer with the same weights and the whole text at once."""
    model, ids = Transformer(1, 8, 2, 20).double(), torch.randint(20, (3, 6))
    cache = torch.zeros(1, 2, 3, 2, 6, 4).double()
    found = [
        model(ids[:, t : t + 1], cache, in_room(F.scaled_dot_product_attention, 0, t))[:, 0] for t in range(6)
    ]
    x = model.embedding(ids)
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True).double()
    attention.load_state_dict(
        {"in_proj_weight": model.qkv[0].weight, "out_proj.weight": model.output[0].weight}
    )
    normed = model.norms[0](x)
    mask = torch.ones(6, 6).triu(1).bool()
    x = x + attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
    x = x + model.narrow[0](F.gelu(model.widen[0](model.norms[1](x))))
    assert_close(torch.stack(found, 1), model.norms[2](x) @ model.embedding.weight.mT)


@pytest.mark.parametrize("space", [SelectiveSSM, TimeInvariantSSM, GatedSSM, RecurrentUnits])
def test_every_weight_of_every_arm_learns(space):
    copier, (ids, answers) = Copier(space, 8, 4), selective_copying(3, 9, 2, torch.Generator().manual_seed(0))
    F.cross_entropy(copier(ids)[:, -2:].flatten(0, 1), answers.flatten()).backward()
    for name, weight in copier.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_recurrent_rival_is_a_gru():
    space, x = RecurrentUnits(32, 16, 4), torch.randn(3, 7, 32)
    h, found = torch.zeros(3, 32), []
    w_in, w_back, b_in, b_back = space.parameters()
    for t in range(7):
        into, back = x[:, t] @ w_in.T + b_in, h @ w_back.T + b_back
        (r, z, n), (r_h, z_h, n_h) = into.chunk(3, 1), back.chunk(3, 1)
        z = (z + z_h).sigmoid()
        h = (1 - z) * (n + (r + r_h).sigmoid() * n_h).tanh() + z * h
        found.append(h)
    assert_close(space(x)[0], torch.stack(found, 1))
    sizes = [
        sum(w.numel() for w in Copier(one, 32, 16).parameters()) for one in (RecurrentUnits, SelectiveSSM)
    ]
    assert round(sizes[0] / sizes[1], 1) == 2.4


def test_the_set_up_is_the_stated_one():
    assert digest(experiment) == "f3a5fccfc408"


def test_accuracy_counts_the_requested_tokens(part_of_run):
    """A copier that knows all answers except those to the first request."""
    run = part_of_run()
    _, answers = selective_copying(8, 32, 4, run.data("sequences to judge by", "judge"))

    class Knows(Copier):
        def forward(self, ids):
            said = F.one_hot(answers, TOKENS + 1).float()
            said[:, 0] = said[:, 0].roll(1, 1)
            return torch.cat((torch.zeros(len(ids), 32, TOKENS + 1), said), 1)

    at = Trial(Workshop(run), Work(arm="selective"), arm="selective")
    found = experiment.judged(at, Sweep(Knows(SelectiveSSM, 8, 4), None, {}))["accuracy"]
    assert found.mean(0).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_the_rate_rises_and_decays(part_of_run):
    """The smoke run has two of the twenty steps of the warm-up, and the second is halved by the decay."""
    at = Trial(Workshop(part_of_run()), Work(arm="selective"), arm="selective")
    experiment.train_copier(at, SelectiveSSM, 0.1)
    assert at.work.rates == pytest.approx([0.1 / 20, 0.1 * 2 / 20 / 2])


def test_the_rate_that_copies_most_is_chosen(part_of_run, monkeypatch):
    """A copier whose accuracy is its learning rate."""
    read = []
    monkeypatch.setattr(experiment, "train_copier", lambda at, space, rate: (rate, rate))
    monkeypatch.setattr(
        experiment, "judged", lambda at, found: read.append(found.chosen) or {"accuracy": 0.5}
    )
    experiment.copy_selectively(part_of_run())
    assert min(read) >= max(experiment.RATES)
