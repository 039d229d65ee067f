"""The decoder compared with transformers' Mixtral, sorted tokens with a loop over them, and the control
arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.testing import assert_close
from transformers import MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from readtrack.papers import mixtral
from readtrack.papers.mixtral import (
    Mixtral,
    SparseExperts,
    active_parameters,
    balance_loss,
    from_released,
    loads,
)
from readtrack.papers.mixtral.benchmark import side_by_side, token_by_token
from readtrack.papers.sliding_window import SwiGLU

its = importlib.import_module("readtrack.papers.mixtral.experiment")


def reference() -> MixtralForCausalLM:
    config = MixtralConfig(
        vocab_size=17,
        hidden_size=24,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        num_hidden_layers=2,
        intermediate_size=20,
        num_local_experts=5,
        num_experts_per_tok=2,
        sliding_window=None,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        attn_implementation="eager",
        experts_implementation="eager",
        use_cache=False,
    )
    theirs = MixtralForCausalLM(config).double()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return theirs


def test_released_weights_speak_as_in_transformers(assert_parity):
    """Compares outputs and all gradients; the mapping of the weights is differentiable."""
    theirs = reference()
    ours = Mixtral(17, experts=5, model=24, hidden=20, heads=6, groups=2, layers=2).double()
    ids = torch.randint(17, (2, 11))
    weights = dict(theirs.named_parameters())
    assert from_released(weights, dim=4).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w: functional_call(ours, from_released(w, dim=4), (ids,)),
        lambda w: functional_call(theirs, w, (ids,)).logits,
        (),
        weights=weights,
        rtol=1e-6,  # the reference computes angles, norms and the router's softmax in single precision
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["model.layers.0.mlp.experts.bias", "model.layers.0.mlp.other.weight"])
def test_names_of_other_models_are_refused(name):
    with pytest.raises(ValueError, match=r"Mi[sx]tral has no parameter"):
        from_released({name: torch.zeros(1)})


@pytest.mark.parametrize(
    ("tokens", "experts", "active"), [(1, 4, 2), (7, 4, 1), (13, 5, 3), (3, 8, 2), (4, 2, 2)]
)
def test_sorting_is_the_loop_over_tokens(assert_parity, tokens, experts, active):
    layer = SparseExperts(6, 9, experts=experts, active=active).double()
    assert_parity(
        lambda weights, x: functional_call(layer, weights, (x,)),
        lambda weights, x: token_by_token(weights, x, active=active),
        (torch.randn(tokens, 6),),
        weights=dict(layer.named_parameters()),
    )


def test_half_precision_is_as_accurate_as_the_loop(assert_half_precision):
    """All experts are active, so that the selection does not depend on rounding."""
    layer = SparseExperts(16, 24, experts=3, active=3)
    assert_half_precision(
        lambda weights, x: functional_call(layer, weights, (x,)),
        lambda weights, x: token_by_token(weights, x, active=3),
        (torch.randn(60, 16),),
        weights=dict(layer.named_parameters()),
    )


def test_leading_axes_are_kept():
    layer, x = SparseExperts(6, 9), torch.randn(2, 3, 6)
    assert_close(layer(x), layer(x.flatten(0, 1)).view(2, 3, 6))


def test_an_expert_without_tokens_has_a_gradient_of_zero():
    layer = SparseExperts(6, 9, experts=4, active=1)
    with torch.no_grad():
        layer.router.gate.weight.zero_()
        layer.router.gate.weight[2] = 1.0
    layer(torch.rand(5, 6)).sum().backward()
    for weight in (layer.w1, layer.w2, layer.w3):
        assert weight.grad[2].any()
        assert not weight.grad[[0, 1, 3]].any()


def test_the_weights_of_the_chosen_are_a_softmax_over_them():
    layer, x = SparseExperts(6, 9, experts=5, active=2), torch.randn(7, 6)
    weights, chosen, logits = layer.router(x)
    whole = logits.softmax(-1)
    kept = whole.gather(-1, chosen)
    assert_close(weights, kept / kept.sum(-1, keepdim=True))
    assert torch.equal(chosen, whole.topk(2).indices)


def test_loads_add_up_to_one():
    layer, x = SparseExperts(6, 9, experts=5, active=2), torch.randn(7, 6)
    _, chosen, logits = layer.router(x)
    found = loads(chosen, logits)
    assert found.sum().item() == pytest.approx(1)
    assert found[0].item() == pytest.approx((chosen == 0).sum().item() / 14)


def test_the_balance_loss_matches_transformers(assert_parity):
    def ours(logits: Tensor) -> Tensor:
        return balance_loss(logits.topk(2, -1).indices, logits)

    assert_parity(
        ours,
        lambda logits: load_balancing_loss_func((logits,), num_experts=5, top_k=2).double(),
        (torch.randn(7, 5),),
        rtol=1e-6,  # the reference sums in single precision
        atol=1e-7,
    )
    even = torch.zeros(5, 5)
    everywhere = torch.stack((torch.arange(5), torch.arange(5).roll(1)), 1)
    assert balance_loss(everywhere, even).item() == pytest.approx(2)


def test_more_active_experts_than_there_are_are_refused():
    with pytest.raises(ValueError, match="9 active experts of 8"):
        SparseExperts(6, 9, active=9)


def test_experts_begin_as_linear_layers_do():
    layer = SparseExperts(64, 100)
    for weight, width in ((layer.w1, 64), (layer.w3, 64), (layer.w2, 100)):
        assert weight.abs().max() <= width**-0.5
        assert weight.std().item() == pytest.approx((3 * width) ** -0.5, rel=0.05)


def test_the_defaults_are_the_papers():
    with torch.device("meta"):
        model = Mixtral()
    assert sum(weight.numel() for weight in model.parameters()) == 46_702_792_704
    assert active_parameters(model) == 12_879_925_248
    attention = model.blocks[0].attention
    assert (attention.window, attention.heads, attention.groups, attention.base) == (None, 32, 8, 1e6)
    assert model.blocks[0].feed_forward.router.active == 2


def test_costs_of_the_three_layers():
    """Experts cost the same as the small dense layer plus the router. The large dense layer costs four times
    as much as the small one.
    """
    small = its.operations(its.Recall(SwiGLU(its.WIDTH, 2 * its.HIDDEN)))
    large = its.operations(its.Recall(SwiGLU(its.WIDTH, 8 * its.HIDDEN)))
    sparse = its.operations(its.Recall(SparseExperts(its.WIDTH, its.HIDDEN)))
    assert (small, large, sparse) == (6144, 24_576, 6144 + 8 * its.WIDTH)


KINDS = {
    "": SparseExperts,
    "one expert for all": its.SameForAll,
    "experts at random": its.AtRandom,
    "a router that does not learn": its.Frozen,
}


@pytest.mark.parametrize("case", [*KINDS, "null"])
def test_the_arms_match_their_names(run_experiment, monkeypatch, case):
    made, balances = {}, {}
    train = its.train

    def watched(at, arm, make, rate, table, **options):
        made[arm.split(",")[0]] = make()
        balances[arm] = options
        return train(at, arm, make, rate, table, **options)

    monkeypatch.setattr(its, "train", watched)
    run_experiment(mixtral, null=case == "null", broken="" if case == "null" else case)
    assert made["small dense"].w1.weight.shape == (2 * its.HIDDEN, its.WIDTH)
    assert made["large dense"].w1.weight.shape == (8 * its.HIDDEN, its.WIDTH)  # in a null run, too
    if case == "null":
        assert made["experts"].w1.weight.shape == (2 * its.HIDDEN, its.WIDTH)
    else:
        assert type(made["experts"]) is KINDS[case]
        assert made["experts"].w1.shape == (8, its.HIDDEN, its.WIDTH)
    balanced = {arm: options["balance"] for arm, options in balances.items() if options}
    assert balanced == ({} if case else {"experts, balanced": 0.02})


def test_one_half_of_the_facts_chooses_and_the_other_judges(part_of_run):
    table = its.draw_table(part_of_run())
    assert len(table.pairs) == its.NAMES**2
    assert torch.cat((table.choose, table.judge)).sort().values.equal(torch.arange(its.NAMES**2))


def test_the_experiment_shows_loads_and_learning(run_experiment):
    record = run_experiment(mixtral)
    assert [artifact["name"] for artifact in record.artifacts] == ["load of each expert"]
    assert set(record.curves["facts right at the best rate"]) == {"experts", "small dense", "large dense"}


def test_without_looking_all_tokens_get_the_same_experts():
    layer = its.SameForAll(6, 9)
    chosen: list[Tensor] = []
    layer.router.register_forward_hook(lambda *hooked: chosen.append(hooked[2][1]))
    layer(torch.randn(7, 6))
    assert (chosen[0] == chosen[0][0]).all()


def test_a_frozen_router_and_one_that_draws_lots():
    frozen, x = its.Frozen(6, 9, experts=8, active=2), torch.randn(7, 6)
    assert [name for name, weight in frozen.named_parameters() if not weight.requires_grad] == [
        "router.gate.weight"
    ]
    lots = its.AtRandom(6, 9, experts=8, active=2)
    every = torch.stack([torch.stack([lots.expert(e, one) for e in range(8)]) for one in x])
    found = lots(x)
    pairs = [(every[:, a] + every[:, b]) / 2 for a in range(8) for b in range(a)]
    nearest = torch.stack([(pair - found).abs().amax(-1) for pair in pairs]).amin(0)
    assert_close(nearest, torch.zeros(7), rtol=0, atol=1e-6)
    assert not torch.equal(lots(x), found)


def test_the_dense_layer_moves_no_matrix_while_it_is_timed():
    """Its arguments are views or copies made before timing, and its operands are contiguous."""
    layer, x = SparseExperts(6, 9), torch.randn(3, 6)
    prepared, _ = side_by_side(dict(layer.named_parameters()), x)
    shapes = {name: tuple(prepared[name].shape) for name in ("w1", "w2", "w3")}
    assert shapes == {"w1": (72, 6), "w2": (6, 72), "w3": (72, 6)}
    assert all(weight.is_contiguous() for weight in prepared.values())


def test_every_variant_is_right(check_benchmark):
    assert {case.name for case in check_benchmark(mixtral)} == {"a layer"}
