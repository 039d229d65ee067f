"""ResNet compared with transformers', its blocks with loops and identities, its sizes, and the rules."""

from __future__ import annotations

import importlib
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.checks.constants import digest
from readtrack.papers import resnet
from readtrack.papers.resnet import ResNet, model, pictures
from readtrack.papers.resnet.benchmark import block_case, learn, new_weights
from readtrack.papers.resnet.experiment import LENGTH, Marker, as_printed, strips
from readtrack.papers.resnet.model import Block, Convolution, cifar, imagenet

experiment_module = importlib.import_module("readtrack.papers.resnet.experiment")


def random_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights, biases and averages that are not 0, 1 or equal."""
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
    """Our weights with the names of ResNetForImageClassification."""

    def renamed(name: str) -> str:
        name = re.sub(r"^stem\.", "resnet.embedder.embedder.", name)
        name = re.sub(r"^stages\.(\d+)\.(\d+)\.layers", r"resnet.encoder.stages.\1.layers.\2.layer", name)
        name = re.sub(
            r"^stages\.(\d+)\.(\d+)\.projection", r"resnet.encoder.stages.\1.layers.\2.shortcut", name
        )
        return re.sub(r"^classifier\.", "classifier.1.", name)

    return {renamed(name): tensor for name, tensor in state.items()}


def pair(kind: str, *, training: bool) -> tuple[ResNet, nn.Module, dict[str, Tensor]]:
    """Our network and transformers', with equal random averages, and random weights for both."""
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
def test_the_network_matches_transformers(assert_parity, kind, training):
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
    """Equation 1: d(x + F)/dx is 1 if F's own gradient is cut off, for any number of blocks."""
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


@pytest.mark.parametrize("training", [True, False])
def test_every_sub_module_is_called(training):
    """Hooks on convolutions and normalisations therefore see every activation."""
    network = ResNet((4, 8), (1, 1), stem=7, channels=2, classes=3).train(training)
    called = []
    for name, module in network.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    network(torch.randn(2, 2, 16, 16))
    apart = {"stages", "stages.0.0.layers", "stages.1.0.layers"}  # lists of modules, called one by one
    assert set(called) == {name for name, _ in network.named_modules()} - apart


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
    assert model.parameters(network) == expected
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules()) == layers + sum(
        name.endswith("projection") for name, _ in network.named_modules()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)]
)
def test_parameters_for_cifar_round_to_table_6(layers, millions):
    with torch.device("meta"):
        count = model.parameters(cifar(layers))
        plain = model.parameters(cifar(layers, shortcut="none"))
    digits = 2 if millions < 1 else 1
    assert round(count / 1e6, digits) == millions
    assert plain == count  # option A has no parameters


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
    assert model.multiply_adds(network, *shape[2:]) == counted(network, shape)


def test_multiply_adds_tell_the_papers_stride_from_the_later_one():
    with torch.device("meta"):
        network = imagenet(50)
    assert model.multiply_adds(network, 224, 224) == pytest.approx(3.858e9, rel=1e-4)
    for block in network.modules():
        if isinstance(block, Block) and block.stride == 2:
            block.layers[0].convolution.stride, block.layers[1].convolution.stride = (1, 1), (2, 2)
    assert counted(network, (1, 3, 224, 224)) > 4e9


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


def reachable(walls: list[bool], start: int) -> list[float]:
    """Computed by flooding, one cell at a time."""
    found, last = {start}, set()
    while found != last:
        last = set(found)
        found |= {n for c in last for n in (c - 1, c + 1) if 0 <= n < len(walls) and not walls[n]}
    return [float(cell in found) for cell in range(len(walls))]


def test_strips_are_flooded():
    x, reached = strips(300, torch.Generator().manual_seed(0))
    assert x.shape == (300, 2, 1, LENGTH)
    walls, marked = x[:, 0, 0].bool(), x[:, 1, 0]
    assert torch.equal(marked.sum(1), torch.ones(300))
    for wall, mark, row in zip(walls.tolist(), marked, reached.tolist(), strict=True):
        assert row == reachable(wall, int(mark.argmax()))
    assert walls.float().mean().item() == pytest.approx(experiment_module.WALLS, abs=0.01)


@pytest.mark.parametrize("shortcut", ["A", "none"])
@pytest.mark.parametrize("layers", [10, 34])
def test_markers_have_their_layers_and_see_one_cell_more_with_each(layers, shortcut):
    network = Marker(layers, shortcut).double().eval()
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in network.modules()) == layers
    assert [block.shortcut for block in network.blocks] == [shortcut] * ((layers - 2) // 2)
    x = torch.rand(1, 2, 1, 81, dtype=torch.float64, requires_grad=True)
    network(x)[0, 40].backward()
    seen = x.grad.abs().sum((0, 1, 2)).nonzero()[:, 0].tolist()
    assert seen == list(range(40 - layers + 1, 40 + layers))


def test_plain_and_residual_start_from_the_same_weights():
    states = []
    for shortcut in ("none", "A"):
        torch.manual_seed(0)
        states.append(Marker(34, shortcut).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_arms_and_their_constants():
    arms = {arm: (make.func, *make.args) for arm, make in experiment_module.ARMS.items()}
    assert arms == {
        "residual, 34 layers": (Marker, 34, "A"),
        "plain, 34 layers": (Marker, 34, "none"),
        "residual, 10 layers": (Marker, 10, "A"),
        "plain, 10 layers": (Marker, 10, "none"),
    }
    assert (digest(experiment_module), digest(pictures)) == ("a723339ebcd4", "73430ea80fac")


@pytest.mark.slow
def test_with_data_the_networks_of_section_4_2_label_images(run_experiment):
    record = run_experiment(resnet, images="digits", layers="14", mixed="1")
    unjudged = [event["claim"]["name"] for event in record.claims if "--data" in event["why"]]
    assert unjudged == [experiment_module.DEPTH_COSTS.name, experiment_module.DEPTH_GAINS.name]
    for arm in ("residual", "plain"):
        assert 50 <= record.values["test error, %", arm] <= 100  # after two steps
        assert record.values["training images per second", arm] > 0


def test_images_are_moved_and_mirrored_one_by_one():
    x = torch.randn(100, 2, 5, 7)
    found = pictures.augmented(x, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(0)
    down, across = torch.randint(9, (2, 100, 1), generator=draws)
    mirrored = torch.randint(2, (100, 1), generator=draws)
    seen = set()
    for image, ours, i, j, mirror in zip(x, found, down, across, mirrored, strict=True):
        crop = F.pad(image, [4] * 4)[:, i : i + 5, j : j + 7]
        assert torch.equal(ours, crop.flip(2) if mirror else crop)
        seen |= {("down", int(i)), ("across", int(j)), ("mirrored", int(mirror))}
    assert len(seen) == 9 + 9 + 2


def test_halved_shortcuts_carry_half():
    block, x = experiment_module.Halved(4, 4, shortcut="A"), torch.randn(2, 4, 1, 7)
    assert_close(block(x), (block.residual(x) + x / 2).relu())


def test_dilated_networks_see_the_whole_strip():
    network = experiment_module.dilated().eval()
    assert network.state_dict().keys() == Marker(10, "none").state_dict().keys()
    x = torch.randn(1, 2, 1, 71, requires_grad=True)
    (seen,) = torch.autograd.grad(network(x)[0, 35], x)
    assert seen[0, :, 0].abs().amax(0).nonzero().flatten().tolist() == list(range(4, 67))


def test_the_rival_is_a_plain_network_with_identities_added():
    networks = []
    for make in (experiment_module.from_identity, experiment_module.ARMS["plain, 34 layers"]):
        torch.manual_seed(0)
        networks.append(make())
    ours, plain = (network.blocks[3].layers[1].convolution.weight for network in networks)
    x = torch.randn(2, 16, 1, 9)
    added = F.conv2d(x, ours, padding=1) - F.conv2d(x, plain, padding=1)
    assert_close(added, x, rtol=1e-4, atol=1e-4)


def test_the_experiment_runs(run_experiment, comparisons):
    record = run_experiment(resnet)
    (compared,) = comparisons(resnet)
    deep = "residual, 34 layers"
    makes = {name: change[deep].make for name, change in compared.breaks.items() if deep in change}
    halved = makes.pop("halved shortcuts")
    assert (halved.func, halved.args) == (Marker, (34, "A", experiment_module.Halved))
    assert makes == {
        "dilated convolutions": experiment_module.dilated,
        "identity initialisation": experiment_module.from_identity,
    }
    assert set(record.curves["loss at rate 0.1"]) == set(experiment_module.ARMS)
    training, new = (
        {arm: record.values[name, arm] for arm in experiment_module.ARMS}
        for name in ("training loss", "loss on new strips")
    )
    sizes, costs, gains = record.claims
    assert sizes["verdict"] == "held"
    assert list(costs["values"].values()) == pytest.approx(
        [training["plain, 10 layers"] / training["plain, 34 layers"], training["plain, 10 layers"]]
    )
    assert list(gains["values"].values()) == pytest.approx(
        [
            new["residual, 34 layers"] / new["residual, 10 layers"],
            new["residual, 34 layers"] / new["plain, 34 layers"],
            new["residual, 10 layers"],
        ],
        rel=1e-4,
    )


def test_networks_learn_to_mark_near_objects():
    """Forty steps bring ten residual layers far below the loss of predicting only the frequency."""
    _, reached = strips(2000, torch.Generator().manual_seed(1))
    share = reached.mean().item()
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    weights = new_weights(10, torch.Generator().manual_seed(0))
    found = learn(weights, torch.tensor(0), shortcut="A", layers=10, target=0.75 * entropy)
    assert found["reached"]


def test_numbers_are_rounded_as_they_are_printed():
    assert as_printed(3.644, "3.6") == "3.6"
    assert as_printed(3.858, "3.8") == "3.9"
    assert as_printed(0.853018, "0.85") == "0.85"


def test_every_variant_is_right(check_benchmark):
    found = check_benchmark(resnet)
    assert [case.name for case in found] == [
        "ResNet-8, training",
        "basic block, training",
        "bottleneck, in use",
        "strips marked",
    ]


@pytest.mark.parametrize("shortcut", ["none", "A"])
def test_a_task_that_is_not_learnt_in_time_is_not_reached(shortcut):
    weights = new_weights(4, torch.Generator().manual_seed(0))
    found = learn(weights, torch.tensor(0), shortcut=shortcut, layers=4, target=0.0, limit=12)
    assert found == {"reached": False, "steps": 12}


def test_the_stated_work_of_a_block_is_the_work_of_its_convolutions():
    case = block_case((2, 8, 5, 3), bottleneck=False, training=True, itemsize=4)
    assert case.cost["forward"].flops == 2 * 2 * (2 * 8 * 5 * 3) * 8 * 9
    assert case.cost["forward+backward"].flops == 3 * case.cost["forward"].flops
    weights, x = case.inputs(torch.Generator().manual_seed(0))
    assert case.cost["forward"].bytes == 2 * x.nbytes + sum(w.nbytes for w in weights.values())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bottleneck", [True, False])
def test_the_benchmarks_blocks_are_right(training, bottleneck):
    """Every variant, including the block that the benchmark does not measure in this mode."""
    case = block_case((2, 8, 5, 3), bottleneck=bottleneck, training=training, itemsize=4)
    weights, x = case.inputs(torch.Generator().manual_seed(0))
    weights = {name: weight.double() for name, weight in weights.items()}
    naive, *others = (variant.call(weights, x.double()) for variant in case.variants)
    for found in others:
        assert_close(found, naive, rtol=1e-10, atol=1e-12)
    assert F.relu(naive).equal(naive)
