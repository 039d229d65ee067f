"""Common fixtures for the tests of papers.

Importing this file makes jaxtyping and beartype check the shape of every argument and result in
`readtrack.papers`. The fixtures are functions:

    assert_parity(ours, reference, inputs)   equal results and equal gradients, in float64
    assert_half_precision(ours, reference, inputs)   errors in half precision compared with the reference's
    run_experiment(module)                   the record of a smoke run after common checks; made once for all
                                             tests of a paper
    comparisons(module)                      the `Comparison` (`.arms`, `.breaks`, ...) of each `Run.compare`
                                             in a smoke run
    silent_parts(module, *inputs)            the sub-modules whose forward hooks are not called
    part_of_run()                            a smoke run for calling a part of an experiment
    check_benchmark(module)                  compares every variant of every case with the oracle
    tones                                    a home with a data set of twenty sounds
    assert_same_walk(ours, reference)        two optimisers have equal weights after each of 100 random steps,
                                             with late and missing gradients, two groups and a checkpoint
"""

from __future__ import annotations

import math
import sys
import wave
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor
from torch.testing import assert_close

import readtrack.papers
from readtrack.bench.case import Bench, Case, Mode, Variant
from readtrack.bench.correctness import twice
from readtrack.bench.nests import leaves, mapped, tensors
from readtrack.checks import experiment
from readtrack.checks.experiment import Watched
from readtrack.claims import Claim
from readtrack.data import scenes
from readtrack.datasets.store import DataSets
from readtrack.home import Home
from readtrack.runs.comparing import Comparison
from readtrack.runs.events import EventWriter
from readtrack.runs.record import Record
from readtrack.runs.run import Run

install_import_hook("readtrack.papers", "beartype.beartype")

# Use the checkout's plugins, regardless of the plugins in the tester's home.
readtrack.papers.__path__ = [str(Path(__file__).parents[2] / "plugins")]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """Make numbers deterministic, on one thread because the suite has a process for each core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def assert_parity() -> Callable[..., None]:
    return _assert_parity


@pytest.fixture
def assert_half_precision() -> Callable[..., None]:
    return _assert_half_precision


@pytest.fixture
def assert_same_walk() -> Callable[..., tuple[torch.optim.Optimizer, torch.optim.Optimizer]]:
    return _assert_same_walk


@pytest.fixture
def shapes_unchecked() -> Callable[[], AbstractContextManager[None]]:
    return _shapes_unchecked


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """The import hook also decorates nested functions, each time that the outer function is called."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with mock.patch.object(jaxtyping, "jaxtyped", return_value=lambda function: function):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def remembered(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Record, Watched]]:
    """A version of `readtrack.checks.experiment.run_experiment` that makes a run once for all tests of a
    paper, without checks of shapes (`test_every_plugin` has a run with them).

    A test that has replaced something, or has files in its home, gets its own run.
    """

    def run(module: ModuleType, folder: Path, **options: Any) -> tuple[Record, Watched]:
        usual = {
            "seed": 0,
            "null": False,
            "broken": "",
            "dtype": torch.float32,
            "budget": "smoke",
            "traced": False,
        }
        asked = usual | options
        own = monkeypatch._setattr or Home().root.exists() or sys.modules.get(module.__name__) is not module
        if own or asked.pop("settings", None):
            with _shapes_unchecked():
                return experiment.run_experiment(module, folder, **options)
        key = module.__name__, *sorted((name, str(value)) for name, value in asked.items())
        if key not in _made:
            kept = tmp_path_factory.mktemp("run")
            with _shapes_unchecked():
                made = experiment.run_experiment(module, kept, **options)
            _made[key] = kept, *made, torch.get_rng_state()
        kept, record, watched, state = _made[key]
        folder.symlink_to(kept)
        torch.set_rng_state(state)
        return deepcopy(record), watched

    return run


_made: dict[tuple[Any, ...], tuple[Path, Record, Watched, Tensor]] = {}


@pytest.fixture
def drawn_parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of the data for which scenes are drawn from now on."""
    parts, draw = [], scenes.draw

    def noted(count: int, seed: int, part: scenes.Part, *given: Any, **named: Any) -> scenes.Scenes:
        parts.append(part)
        return draw(count, seed, part, *given, **named)

    monkeypatch.setattr(scenes, "draw", noted)
    return parts


@pytest.fixture
def run_experiment(
    tmp_path: Path, remembered: Callable[..., tuple[Record, Watched]]
) -> Callable[..., Record]:
    def run(module: ModuleType, *, unreached: Collection[str] = (), **options: Any) -> Record:
        known = {
            name: options.pop(name)
            for name in ("budget", "seed", "dtype", "null", "broken")
            if name in options
        }
        folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        record, made = remembered(module, folder, settings=options, **known)
        _check_record(module, record, made, unreached)
        return record

    return run


@pytest.fixture
def comparisons(
    tmp_path: Path, remembered: Callable[..., tuple[Record, Watched]]
) -> Callable[..., list[Comparison]]:
    def of_run(module: ModuleType, **settings: str) -> list[Comparison]:
        _, run = remembered(module, tmp_path / "compared", settings=settings)
        return [comparison for comparison, _ in run.compared]

    return of_run


@pytest.fixture
def silent_parts() -> Callable[..., set[str]]:
    return _silent_parts


def _silent_parts(module: torch.nn.Module, *inputs: Any) -> set[str]:
    """The names of the sub-modules whose forward hooks are not called for these inputs."""
    called: set[str] = set()
    for name, part in module.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    module(*inputs)
    return {name for name, _ in module.named_modules()} - called


@pytest.fixture
def part_of_run(tmp_path: Path) -> Callable[..., Run]:
    def run(*, null: bool = False, broken: str = "") -> Run:
        folder = tmp_path / f"part-{null}-{broken}"
        folder.mkdir()
        return Run(
            folder=folder,
            events=EventWriter(folder),
            device=torch.device("cpu"),
            dtype=torch.float32,
            seed=0,
            budget="smoke",
            settings={},
            null=null,
            broken=broken,
        )

    return run


@pytest.fixture
def torchvision() -> ModuleType:
    """torchvision is not installed, because its wheels require the torch with which they were built."""
    try:
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchvision is not there: {error}")
    return torchvision


@pytest.fixture
def check_benchmark() -> Callable[..., list[Case]]:
    return _check_benchmark


def _assert_parity(
    ours: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Tensor],
    *,
    weights: Mapping[str, Tensor] | None = None,
    rtol: float = 1e-9,
    atol: float = 1e-11,
) -> None:
    """Check that both functions return the same tensors and gradients, in float64.

    inputs   positional arguments; floating-point ones are cast to float64 and must get equal gradients
    weights  a module's parameters by name. Then both functions take such a mapping as their first argument,
             and the gradients of all parameters must be equal, too. Use `torch.func.functional_call` on both
             sides, and convert names and shapes on the reference's side
    """
    ours_out, ours_grads = _results_and_gradients(ours, inputs, weights)
    their_out, their_grads = _results_and_gradients(reference, inputs, weights)
    assert len(ours_out) == len(their_out), "another number of results"
    for index, (mine, theirs) in enumerate(zip(ours_out, their_out, strict=True)):
        assert_close(mine, theirs, rtol=rtol, atol=atol, msg=_named(f"result {index}"))
    for name, mine in ours_grads.items():
        assert_close(mine, their_grads[name], rtol=rtol, atol=atol, msg=_named(f"the gradient of {name}"))


def _assert_half_precision(
    ours: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    weights: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]] | None = None,
    dtypes: Sequence[torch.dtype] = (torch.bfloat16, torch.float16),
) -> None:
    """Check that in half precision our largest error is at most twice the reference's in every result and
    three times in every gradient, and that results have the reference's dtypes.

    The exact values are those of the reference in float64 with the same rounded inputs. Half a unit in the
    last place of the largest number is always allowed, because no code can store it better. Pass inputs of a
    few thousand numbers; with fewer, the reference's largest error depends on chance. If one rounding
    affects every number (such as the norm in a cosine), pass several draws of the weights; then the mean over
    them counts. `inputs` and `weights` are as in `assert_parity`.
    """
    draws = weights if isinstance(weights, Sequence) else [weights]
    for dtype in dtypes:
        rounded = mapped(lambda t, to=dtype: t.to(to) if t.is_floating_point() else t, inputs)
        errors: dict[str, list[tuple[float, float, float]]] = {}
        for drawn in draws:
            held = {name: tensor.to(dtype) for name, tensor in drawn.items()} if drawn is not None else None
            exact, their, our = (
                _results_and_gradients(function, rounded, held, dtype=precision)
                for function, precision in ((reference, torch.float64), (reference, dtype), (ours, dtype))
            )
            assert [t.dtype for t in our[0]] == [t.dtype for t in their[0]], (
                f"other dtypes of results in {dtype}"
            )
            results = {
                f"result {i}": each for i, each in enumerate(zip(exact[0], their[0], our[0], strict=True))
            }
            gradients = {f"the gradient of {n}": (exact[1][n], their[1][n], our[1][n]) for n in exact[1]}
            for name, (right, theirs, mine) in {**results, **gradients}.items():
                if not right.is_floating_point():
                    assert torch.equal(mine, theirs), f"{name} in {dtype}: another result"
                    continue
                error, allowed = ((found.double() - right).abs().max().item() for found in (mine, theirs))
                smallest = right.abs().max().item() * torch.finfo(dtype).eps / 2
                errors.setdefault(name, []).append((error, allowed, smallest))
        for name, found in errors.items():
            error, allowed, smallest = (sum(each) / len(found) for each in zip(*found, strict=True))
            times = 2 if name.startswith("result") else 3
            assert error <= max(times * allowed, smallest), (
                f"{name} in {dtype}: errs by {error:.3g}, the reference by {allowed:.3g}"
            )


def _assert_same_walk(
    ours: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    reference: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    *,
    steps: int = 100,
    schedule: Callable[[int], float] = lambda step: 1.0,
    rtol: float = 1e-9,
    atol: float = 1e-11,
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Check that both optimisers have equal float64 weights after every step. Returns both.

    They are made from two groups of weights of odd shapes and get the same random gradients, whose sizes
    differ by orders of magnitude. The second group's learning rate is half the first's, and `schedule`
    multiplies both. In a fifth of the steps a weight has no gradient, and one weight gets its first gradient
    at step 10. Halfway, ours is restored from a checkpoint.
    """
    shapes, late = ((3, 5), (7,), (), (2, 1, 4)), 2

    def grouped(weights: list[Tensor]) -> list[dict[str, Any]]:
        return [{"params": weights[:2]}, {"params": weights[2:]}]

    def groups(walker: torch.optim.Optimizer, weights: list[Tensor]) -> list[tuple[dict[str, Any], float]]:
        second = {id(w) for w in weights[2:]}
        return [(g, 0.5 if id(g["params"][0]) in second else 1.0) for g in walker.param_groups]

    mine = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    theirs = [w.detach().clone().requires_grad_() for w in mine]
    walker, other = ours(grouped(mine)), reference(grouped(theirs))
    lr = walker.param_groups[0]["lr"]
    assert lr == other.param_groups[0]["lr"]
    for step in range(steps):
        if step == steps // 2:
            kept = deepcopy(walker.state_dict())
            mine = [w.detach().clone().requires_grad_() for w in mine]
            walker = ours(grouped(mine))
            walker.load_state_dict(kept)
        for index, (w, same) in enumerate(zip(mine, theirs, strict=True)):
            gradient = torch.randn_like(w) * 10 ** torch.randn(())
            idle = torch.rand(()) < 0.2 or (index == late and step < 10)
            w.grad, same.grad = (None, None) if idle else (gradient, gradient.clone())
        for optimizer, weights in ((walker, mine), (other, theirs)):
            for group, factor in groups(optimizer, weights):
                group["lr"] = lr * factor * schedule(step)
            optimizer.step()
        for w, same in zip(mine, theirs, strict=True):
            message = _named(f"step {step}, weights of shape {tuple(w.shape)}")
            assert_close(w, same, rtol=rtol, atol=atol, msg=message)
    return walker, other


def _named(what: str) -> Callable[[str], str]:
    return lambda message: f"{what}: {message}"


def _results_and_gradients(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    weights: Mapping[str, Tensor] | None,
    only: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Inputs may be nests of tensors. `only` selects the inputs whose gradients are taken."""
    leaf = partial(_leaf, dtype=dtype)
    wanted: dict[str, Tensor] = {}
    arguments: list[Any] = []
    for index, nest in enumerate(inputs):
        argument = mapped(leaf, nest)
        if only is not None and index not in only:
            argument = mapped(Tensor.detach, argument)
        arguments.append(argument)
        parts = tensors(argument)
        names = [f"input {index}" + (f", tensor {i}" if len(parts) > 1 else "") for i in range(len(parts))]
        wanted |= {name: part for name, part in zip(names, parts, strict=True) if part.requires_grad}
    if weights is not None:
        own = {name: leaf(tensor) for name, tensor in weights.items()}
        wanted |= own
        arguments.insert(0, own)
    results = leaves(function(*arguments))
    differentiable = [result for result in results if result.requires_grad]
    # Random cotangents, equal for both sides. Ones, or numbers equal to the inputs (hence the separate seed),
    # have a zero gradient through a normalisation. They are rounded, so that they are the same in every
    # precision.
    generator = torch.Generator().manual_seed(1706_03762)
    backward = [
        torch.randn(out.shape, generator=generator).bfloat16().to(out.dtype) for out in differentiable
    ]
    gradients = torch.autograd.grad(
        differentiable, list(wanted.values()), backward, allow_unused=True, materialize_grads=True
    )
    return [result.detach() for result in results], dict(zip(wanted, gradients, strict=True))


def _leaf(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor.detach().to(dtype, copy=True).requires_grad_()


def _check_record(module: ModuleType, record: Record, run: Run, unreached: Collection[str]) -> None:
    """Check that the run logged a curve, an evaluation metric and the claims defined at the module's top
    level, all with finite values. (A null run or a break needs only some claims, and the benchmark judges
    others.)

    unreached  metrics of claims that are NaN in such a short run
    """
    assert record.curves, "no training curve"
    assert record.values, "no evaluation metric"
    numbers = [value for arms in record.curves.values() for curve in arms.values() for _, value in curve]
    assert all(map(math.isfinite, [*numbers, *record.values.values()]))
    stated = [value for value in vars(module).values() if isinstance(value, Claim)]
    assert stated, "no claim stands at the module's top level"
    claimed = [claim["claim"]["name"] for claim in record.claims]
    assert sorted(claimed) == sorted(one.name for one in stated if run.wants(one) and not one.timed)
    values = {name: value for claim in record.claims for name, value in claim["values"].items()}
    assert {n for n, v in values.items() if v is None or not math.isfinite(v)} == set(unreached)
    if run.budget == "smoke":
        assert all(c["verdict"] == "not judged" for c in record.claims if c["claim"]["kind"] == "measured")
    return record


def _check_benchmark(module: ModuleType, *, budget: str = "smoke", tolerance: float = 1e-9) -> list[Case]:
    """Check that every variant equals its case's oracle in float64: results, and gradients if they are
    measured.

    tolerance  relative to the largest magnitude in a tensor; a case's own tolerance takes precedence
    """
    cpu = torch.device("cpu")
    for larger in ("quick", "full"):  # declared, but too large to compute here
        declared = list(module.benchmark(Bench(device=cpu, dtype=torch.float32, budget=larger)))
        assert declared, f"no cases at the {larger} budget"
        points = [(case.name, *case.axes.items()) for case in declared]
        assert len(set(points)) == len(points), f"two cases at the same point: {points}"
    cases = list(module.benchmark(Bench(device=cpu, dtype=torch.float32, budget=budget)))
    assert cases, "no cases"
    for case in cases:
        assert {"naive", "strong", "paper"} <= {variant.role for variant in case.variants}
        assert all(cost.flops >= 0 and cost.bytes > 0 for cost in case.cost.values() if cost)
        inputs, again = (case.inputs(torch.Generator().manual_seed(1)) for _ in range(2))
        for tensor, same in zip(tensors(inputs), tensors(again), strict=True):
            assert tensor.device.type == "cpu"
            assert tensor.dtype == torch.float32 or not tensor.is_floating_point()
            assert torch.equal(tensor, same), "inputs do not follow the generator"
        naive = next(variant for variant in case.variants if variant.role == "naive")
        oracle = naive if case.oracle is None else Variant(name="oracle", role="naive", call=case.oracle)
        for mode in case.cost:
            if mode == "until":
                for variant in case.variants:
                    if not variant.needs:
                        _check_until(variant, inputs, f"{case.name} {dict(case.axes)}, {variant.name}")
                continue
            expected = _call(oracle, case, mode, inputs)
            sizes = [exact.abs().max().item() if exact.is_floating_point() else 0.0 for exact in expected]
            for variant in case.variants:
                if variant.needs:
                    continue
                found = _call(variant, case, mode, inputs)
                assert len(found) == len(expected), f"{variant.name}: another number of results"
                for index, (mine, exact) in enumerate(zip(found, expected, strict=True)):
                    what = f"{case.name} {dict(case.axes)}, {variant.name}, {mode}, tensor {index}"
                    # A gradient that is only rounding error, such as that of a key's bias, has no scale of
                    # its own.
                    size = sizes[index] if sizes[index] > 1e-14 * max(sizes) else max(sizes)
                    allowed = (case.tolerance or tolerance) * size
                    assert_close(mine, exact, rtol=0, atol=allowed, msg=_named(what))
    return cases


def _check_until(variant: Variant, inputs: Sequence[Any], what: str) -> None:
    own = _in_float64(inputs)
    found = variant.call(*(variant.prepare(*own) if variant.prepare else own))
    assert found["reached"], f"{what}: did not reach the required value"
    assert all(math.isfinite(value) for value in found.values()), f"{what}: {found}"
    _assert_unchanged(own, inputs)


def _call(variant: Variant, case: Case, mode: Mode, inputs: Sequence[Any]) -> list[Tensor]:
    def call(*given: Any) -> Any:
        once = twice(variant.call, case.state) if mode == "decode" else variant.call
        return once(*(variant.prepare(*given) if variant.prepare else given))

    if mode == "forward+backward":
        results, gradients = _results_and_gradients(call, inputs, None, case.gradients)
        return [*results, *gradients.values()]
    own = _in_float64(inputs)
    with torch.no_grad():
        results = leaves(call(*own))
    if mode in ("forward", "decode"):
        changeable = case.state if mode == "decode" else None
        for index, (mine, given) in enumerate(zip(own, inputs, strict=True)):
            if index != changeable:
                _assert_unchanged(mine, given)
    return results


def _in_float64(inputs: Sequence[Any]) -> Sequence[Any]:
    return mapped(lambda t: t.to(torch.float64 if t.is_floating_point() else t.dtype, copy=True), inputs)


def _assert_unchanged(own: Any, inputs: Any) -> None:
    for mine, given in zip(tensors(own), tensors(inputs), strict=True):
        assert torch.equal(mine, given.to(mine.dtype)), "a variant changes its inputs"


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The data set `tones`, half seconds at 16 kHz: `low` is a tone of 200 Hz, `high` one of 1,000 Hz."""
    monkeypatch.setenv("READTRACK_HOME", str(tmp_path / "home"))
    for word, hertz in (("low", 200), ("high", 1000)):
        (tmp_path / "words" / word).mkdir(parents=True)
        for i in range(10):
            tone = (torch.arange(8000) * 2 * math.pi * hertz / 16_000).sin() * 2000 * (i + 1)
            with wave.open(str(tmp_path / f"words/{word}/{i}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes(tone.short().numpy().tobytes())
    DataSets(Home()).add_own("tones", tmp_path / "words", None)
