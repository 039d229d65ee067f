"""ResNet against transformers', its blocks against loops and identities, its sizes, and the rules."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import resnet
from readtrack.papers.resnet import ResNet, cases, networks
from readtrack.papers.resnet.networks import Block, Convolution, cifar, imagenet


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights, biases and averages that are nowhere 0, 1 or equal."""
    state = {}
    for name, tensor in network.state_dict().items():
        values = torch.randn(tensor.shape, dtype=torch.float64)
        if tensor.ndim > 1:
            state[name] = values * (2 / tensor[0].numel()) ** 0.5
        else:
            state[name] = values if name.endswith(("bias", "mean")) else values.abs() + 0.5
    return state


# Against transformers


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours under the names of ResNetForImageClassification."""

    def renamed(name: str) -> str:
        name = re.sub(r"^stem\.", "resnet.embedder.embedder.", name)
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.layers", r"resnet.encoder.stages.\1.layers.\2.layer", name)
        name = re.sub(
            r"^stages\.(\d+)\.(\d+)\.projection", r"resnet.encoder.stages.\1.layers.\2.shortcut", name
        )
        return re.sub(r"^classifier\.", "classifier.1.", name)

    return {renamed(name): tensor for name, tensor in state.items()}


def pair(kind: str, *, training: bool) -> tuple[ResNet, nn.Module, dict[str, Tensor]]:
    """Ours and transformers', with equal random averages, and random weights for both."""
    transformers = pytest.importorskip("transformers", reason="the parity extra is not installed")
    bottleneck = kind == "bottleneck"
    ours = ResNet((4, 6, 8), (1, 2, 1), stem=7, channels=2, classes=5, bottleneck=bottleneck)
    config = transformers.ResNetConfig(
        num_channels=2,
        embedding_size=4,
        hidden_sizes=[16, 24, 32] if bottleneck else [4, 6, 8],
        depths=[1, 2, 1],
        layer_type=kind,
        downsample_in_bottleneck=True,
        num_labels=5,
    )
    theirs = transformers.ResNetForImageClassification(config)
    ours, theirs = ours.double().train(training), theirs.double().train(training)
    state = random_state(ours)
    ours.load_state_dict(state)
    rest = theirs.load_state_dict(as_transformers(state), strict=False)
    assert rest.unexpected_keys == []
    assert all(name.endswith("num_batches_tracked") for name in rest.missing_keys)
    return ours, theirs, {name: state[name] for name, _ in ours.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_the_network_is_transformers(assert_parity, kind, training):
    ours, theirs, weights = pair(kind, training=training)
    assert_parity(
        lambda w, x: functional_call(ours, w, (x,)),
        lambda w, x: functional_call(theirs, as_transformers(w), (x,)).logits,
        (torch.randn(3, 2, 45, 37),),
        weights=weights,
    )
    found, expected = as_transformers(dict(ours.named_buffers())), dict(theirs.named_buffers())
    for name, average in found.items():
        assert_close(average, expected[name], rtol=1e-11, atol=1e-13, msg=name)


def test_features_are_the_last_hidden_state_of_transformers():
    ours, theirs, _ = pair("bottleneck", training=False)
    x = torch.randn(1, 2, 33, 50, dtype=torch.float64)
    assert_close(ours.features(x), theirs.resnet(x).last_hidden_state, rtol=1e-10, atol=1e-12)


# Blocks


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_with_a_last_scale_of_zero_is_the_identity(bottleneck):
    block = Block(8, 8, bottleneck=bottleneck)
    nn.init.zeros_(block.layers[-1].normalization.weight)
    x = torch.randn(2, 8, 5, 3)
    assert torch.equal(block(x), x.relu())
    assert torch.equal(block.eval()(x.relu()), x.relu())


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride"), [(8, 8, 1), (4, 8, 1), (4, 8, 2), (8, 8, 2)], ids=str
)
@pytest.mark.parametrize("bottleneck", [False, True])
def test_residual_is_plain_plus_the_shortcut(shortcut, inputs, outputs, stride, bottleneck):
    kinds = (shortcut, "none")
    residual, plain = (
        Block(inputs, outputs, stride=stride, bottleneck=bottleneck, shortcut=kind).double() for kind in kinds
    )
    plain.load_state_dict(residual.state_dict(), strict=False)
    x = torch.randn(2, inputs, 7, 5, dtype=torch.float64)
    assert torch.equal(residual(x), (plain.residual(x) + residual.carried(x)).relu())
    assert torch.equal(plain(x), plain.residual(x).relu())
    assert plain(x).shape == (2, outputs, -(-7 // stride), -(-5 // stride))


def test_option_a_takes_every_other_position_and_fills_with_zeros():
    x = torch.randn(2, 3, 7, 5)
    found = Block(3, 8, stride=2, shortcut="A").carried(x)
    expected = torch.zeros(2, 8, 4, 3)
    for i in range(4):
        for j in range(3):
            expected[:, :3, i, j] = x[:, :, 2 * i, 2 * j]
    assert torch.equal(found, expected)


def test_only_option_b_projects_and_only_where_the_shape_changes():
    def projections(shortcut: str) -> list[str]:
        network = ResNet((4, 8), (2, 2), stem=3, classes=3, shortcut=shortcut)
        return [name for name, module in network.named_modules() if name.endswith("projection")]

    assert (projections("A"), projections("none")) == ([], [])
    assert projections("B") == ["stages.1.0.projection"]


def test_without_a_change_of_shape_the_shortcut_is_free():
    x = torch.randn(1, 4, 3, 3)
    assert Block(4, 4).carried(x) is x


def test_a_gradient_passes_the_shortcut_untouched():
    """Equation 1: d(x + F)/dx is 1 where F's own gradient is cut off, however many blocks there are."""
    blocks = nn.Sequential(*(Block(4, 4) for _ in range(20)))
    for block in blocks:
        nn.init.zeros_(block.layers[-1].normalization.weight)
    x = torch.rand(2, 4, 3, 3, requires_grad=True)
    blocks(x).backward(gradient := torch.randn(2, 4, 3, 3))
    assert torch.equal(x.grad, gradient)


def test_a_bottleneck_strides_in_its_first_convolution():
    block = Block(16, 32, stride=2, bottleneck=True)
    assert [layer.convolution.stride for layer in block.layers] == [(2, 2), (1, 1), (1, 1)]
    assert [tuple(layer.convolution.weight.shape) for layer in block.layers] == [
        (8, 16, 1, 1),
        (8, 8, 3, 3),
        (32, 8, 1, 1),
    ]


def test_in_use_the_weights_carry_the_normalisation(assert_parity):
    """The same results and gradients as convolution and normalisation one after the other."""
    layer = Convolution(3, 5, 3, stride=2).double().eval()
    layer.load_state_dict(random_state(layer))

    def apart(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        maps = functional_call(layer.convolution, {"weight": weights["convolution.weight"]}, (x,))
        own = {name: weights[f"normalization.{name}"] for name in ("weight", "bias")}
        return functional_call(layer.normalization, own, (maps,))

    weights = dict(layer.named_parameters())
    x = torch.randn(2, 3, 7, 5)
    assert_parity(lambda w, x: functional_call(layer, w, (x,)), apart, (x,), weights=weights)


def test_weights_start_as_in_he_et_al():
    """Section 3.4: the variance is 2 over the number of a filter's connections."""
    weight = Convolution(64, 64, 3).convolution.weight
    assert_close(weight.var(), torch.tensor(2 / (9 * 64)), rtol=0.03, atol=0)


# Sizes


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameters_for_imagenet(layers, expected):
    with torch.device("meta"):
        network = imagenet(layers)
    assert networks.parameters(network) == expected
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()) == layers + sum(
        name.endswith("projection") for name, _ in network.named_modules()
    )


@pytest.mark.parametrize(
    ("layers", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_parameters_for_cifar_round_to_table_6(layers, millions):
    with torch.device("meta"):
        count = networks.parameters(cifar(layers))
        plain = networks.parameters(cifar(layers, shortcut="none"))
    digits = 2 if millions < 1 else 1
    assert round(count / 1e6, digits) == millions
    assert plain == count  # option A is free


def counted(network: ResNet, shape: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: imagenet(18), (1, 3, 224, 224)),
        (lambda: imagenet(50), (1, 3, 201, 77)),
        (lambda: imagenet(34, shortcut="A"), (1, 3, 33, 50)),
        (lambda: cifar(20), (1, 3, 32, 32)),
    ],
    ids=["18 layers", "50, odd", "34, option A", "CIFAR-10"],
)
def test_multiply_adds_are_those_that_torch_counts(make, shape):
    with torch.device("meta"):
        network = make()
    assert networks.multiply_adds(network, *shape[2:]) == counted(network, shape)


def test_multiply_adds_tell_the_papers_stride_from_the_later_one():
    with torch.device("meta"):
        network = imagenet(50)
    assert networks.multiply_adds(network, 224, 224) == pytest.approx(resnet.TABLE_1[50], rel=0.02)
    for block in network.modules():
        if isinstance(block, Block) and block.stride == 2:
            block.layers[0].convolution.stride, block.layers[1].convolution.stride = (1, 1), (2, 2)
    assert counted(network, (1, 3, 224, 224)) > 1.05 * resnet.TABLE_1[50]


@pytest.mark.parametrize("layers", [2, 34, 57])
def test_other_depths_are_refused_for_cifar(layers):
    with pytest.raises(ValueError, match="6n"):
        cifar(layers)


def test_other_depths_are_refused_for_imagenet():
    with pytest.raises(ValueError, match="20 layers"):
        imagenet(20)


def test_imagenet_images_come_to_7_by_7():
    with torch.device("meta"):
        network = imagenet(50)
        assert network.features(torch.empty(2, 3, 224, 224)).shape == (2, 2048, 7, 7)
        assert network(torch.empty(2, 3, 224, 224)).shape == (2, 1000)


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(resnet)
    arms = {"plain, 10 layers", "plain, 34 layers", "residual, 10 layers", "residual, 34 layers"}
    assert set(record.curves["loss"]) == arms
    loss = {arm: record.values["training loss", arm] for arm in arms}
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["the paper's sizes"]["verdict"] == "exact"
    for kind in ("plain", "residual"):
        found = claims["depth no longer hurts"]["values"][f"training loss of 34 layers over 10, {kind}"]
        assert found == pytest.approx(loss[f"{kind}, 34 layers"] / loss[f"{kind}, 10 layers"])


def test_plain_and_residual_start_from_the_same_weights():
    states = []
    for kind in ("plain", "residual"):
        torch.manual_seed(0)
        states.append(networks.small(34, kind).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("layers", [10, 34])
def test_small_networks_have_their_layers(layers):
    network = networks.small(layers, "plain")
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules()) == layers


@pytest.mark.parametrize(
    ("plain", "residual", "verdict"),
    [
        (20.0, 1.0, "reproduced"),
        (3.0, 1.0, "weak"),
        (0.9, 0.9, "not reproduced"),
        (20.0, 6.0, "not reproduced"),
    ],
)
def test_the_rule_can_fail(plain, residual, verdict):
    values = {
        "training loss of 34 layers over 10, plain": plain,
        "training loss of 34 layers over 10, residual": residual,
    }
    assert resnet.DEPTH.judge(values) == verdict


def test_every_variant_is_right(check_benchmark):
    found = check_benchmark(resnet)
    assert [case.name for case in found] == [
        "basic block, training",
        "bottleneck, in use",
        "4 digits learnt",
    ]


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_what_is_not_learnt_in_time_is_not_called_learnt(kind):
    """Noise for labels of equal images cannot be learnt."""
    weights = networks.small(10, "plain").parameters()
    x, y = torch.ones(4, 1, 8, 8), torch.arange(4)
    assert not cases.learn(x, y, *weights, layers=10, kind=kind)


def test_the_stated_work_of_a_block_is_that_of_its_convolutions():
    case = cases.block_case((2, 8, 5, 3), bottleneck=False, training=True, itemsize=4)
    assert case.cost["forward"].flops == 2 * 2 * (2 * 8 * 5 * 3) * 8 * 9
    assert case.cost["forward+backward"].flops == 3 * case.cost["forward"].flops
    x, *tensors = case.inputs(torch.Generator().manual_seed(0))
    assert case.cost["forward"].bytes == 2 * x.nbytes + sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("training", [True, False])
def test_the_benchmarks_bottleneck_is_right(training):
    """Every variant, also where the benchmark measures the other block."""
    case = cases.block_case((2, 8, 5, 3), bottleneck=True, training=training, itemsize=4)
    inputs = [tensor.double() for tensor in case.inputs(torch.Generator().manual_seed(0))]
    naive, *others = (variant.call(*inputs) for variant in case.variants)
    for found in others:
        assert_close(found, naive, rtol=1e-10, atol=1e-12)
    assert F.relu(naive).equal(naive)
