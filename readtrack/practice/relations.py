"""Describe how a wrong tensor relates to the right one: a factor, a transpose, a mask off by one.

Each function returns a sentence that names the likely mistake, or "".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from readtrack.practice.shown import number

Factors = Mapping[str, float]  # candidates for a factor, by name: {"√8 (the size of dimension 1 of q)": 2.83}

_CLOSE = 1e-6
_FEW = 4  # maximum size of an argument whose entries are candidates
_NAMED = 3e-5  # relative tolerance for named factors, which allows for eps and rounding


def relation(expected: Tensor, found: Tensor, factors: Factors) -> str:
    """The first relation of shape, device, dtype or values that fits."""
    if found.device != expected.device:
        return (
            f"the result is on {found.device}, expected {expected.device}: new tensors take the device of "
            "the inputs (x.new_zeros, device=x.device)"
        )
    if found.shape != expected.shape:
        return _shape(expected, found)
    if found.dtype != expected.dtype:
        return _dtype(expected, found)
    if not expected.numel():
        return ""
    if not expected.dtype.is_floating_point:
        return _whole(expected, found)
    return (
        _hidden(expected, found)
        or _not_finite(expected, found)
        or _zeros(expected, found)
        or _affine(expected, found, factors)
        or _nearly(expected, found)
        or _moved(expected, found)
        or _elementwise(expected, found)
        or _before_squashing(expected, found, factors)
        or _by_slice(expected, found)
        or _sums(expected, found)
    )


def summand(expected: Tensor, found: Tensor, arguments: Mapping[str, object]) -> str:
    """An argument that is missing in a sum or a product, or occurs once too often."""
    if not expected.is_floating_point() or not found.is_floating_point():
        return ""
    if expected.shape != found.shape or expected.device != found.device:
        return ""
    a, b = expected.double(), found.double()
    for name, value in arguments.items():
        if not isinstance(value, Tensor) or value.shape != a.shape or not value.is_floating_point():
            continue
        x = value.detach().double()
        if close(b + x, a):
            return f"{name} is missing in a sum"
        if close(b - x, a):
            return f"{name} is added once too often"
        if close(b - 2 * x, a) or close(b + 2 * x, a):
            return f"{name} has the opposite sign in a sum"
        if close(b * x, a):
            return f"a factor {name} is missing"
        if close(b, a * x):
            return f"{name} occurs once too often as a factor"
        if close(b, x):
            return f"it is {name} itself"
    return ""


def region(expected: Tensor, found: Tensor) -> str:
    """Where two tensors of the same shape differ."""
    alike = expected.shape == found.shape and expected.device == found.device and expected.numel()
    return _region(expected, found) if alike else ""


def close(a: Tensor, b: Tensor, tolerance: float = _CLOSE) -> bool:
    """Whether two tensors are equal up to rounding, including infinities and NaN."""
    if a.shape != b.shape:
        return False
    return bool(right(a, b, tolerance).all())


def right(expected: Tensor, found: Tensor, tolerance: float, noise: float = 0.0) -> Tensor:
    """Elementwise equality up to `tolerance` times the number plus `tolerance` / 100 times the largest one.

    noise  rounding error where numbers cancel
    """
    if not expected.dtype.is_floating_point and not expected.dtype.is_complex:
        return expected == found
    a, b = (x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in (expected, found))
    allowed = tolerance * a.abs() + 0.01 * tolerance * largest(a) + noise
    same = (a == b) | (torch.isnan(a) & torch.isnan(b))
    return same | (torch.isfinite(a) & ((a - b).abs() <= allowed))


def largest(tensor: Tensor) -> float:
    """The largest finite absolute value; 0 if there is none."""
    finite = tensor.abs()[torch.isfinite(tensor)]
    return float(finite.max().item()) if finite.numel() else 0.0


# Shapes and dtypes


def _size(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _shape(expected: Tensor, found: Tensor) -> str:
    have, want = found.shape, expected.shape
    head = f"the shape is {_size(have)}, expected {_size(want)}"
    if len(have) == len(want):
        for i in range(len(want)):
            for j in range(i + 1, len(want)):
                if have == expected.transpose(i, j).shape:
                    same = close(expected.transpose(i, j), found)
                    return f"{head}: dimensions {i} and {j} are swapped" + (
                        ", else it is right" if same else ""
                    )
        wrong = [i for i in range(len(want)) if have[i] != want[i]]
        if len(wrong) == 1 and min(have[wrong[0]], want[wrong[0]]) > 0:
            i = wrong[0]
            by = have[i] - want[i]
            where = f"dimension {i} has {have[i]} entries, expected {want[i]}"
            if have[i] == 1:
                return f"{head}: dimension {i} was summed over or never expanded"
            if abs(by) == 1:
                return f"{where}: {'one too many' if by > 0 else 'one is missing'} at its start or end"
            return f"{where}: it is cut, padded or concatenated at the wrong place"
    if [n for n in have if n != 1] == [n for n in want if n != 1]:
        return (
            f"{head}: a dimension of size 1 is {'left over' if len(have) > len(want) else 'missing'} "
            "(keepdim, unsqueeze)"
        )
    if found.numel() == 1:
        return f"{head}: it was reduced over all dimensions"
    if said := _unreduced(expected, found):
        return f"{head}: {said}"
    if len(have) < len(want):
        return f"{head}: {len(want) - len(have)} dimension(s) are gone (one sum, index or flatten too many)"
    if found.numel() == expected.numel():
        return f"{head}: it has the right number of entries, but the last reshape is missing or wrong"
    return f"{head}: a sum or an index is missing"


def _unreduced(expected: Tensor, found: Tensor) -> str:
    """A missing mean or sum over one or all dimensions."""
    if not found.is_floating_point() or found.ndim <= expected.ndim:
        return ""
    for name, reduce in (("mean", torch.mean), ("sum", torch.sum)):
        if expected.numel() == 1 and close(reduce(found).reshape(expected.shape), expected):
            return f"its {name} is the expected result: the {name} is missing"
        for i in range(found.ndim):
            if close(reduce(found, i), expected):
                return f"its {name} over dimension {i} is the expected result: the {name} is missing"
    return ""


def _dtype(expected: Tensor, found: Tensor) -> str:
    have, want = (str(x.dtype).removeprefix("torch.") for x in (found, expected))
    return (
        f"the dtype is {have}, expected {want}: a cast is wrong, or a new tensor was made without the "
        "dtype of the "
        "inputs (x.new_zeros, torch.zeros_like)"
    )


def _whole(expected: Tensor, found: Tensor) -> str:
    if expected.dtype == torch.bool:
        if bool((expected != found).all()):
            return "every entry is negated"
        return _moved(expected.double(), found.double())
    difference = torch.unique(found - expected)
    if difference.numel() == 1:
        return (
            f"every number is {'too large' if difference.item() > 0 else 'too small'} by "
            f"{abs(difference.item())}"
        )
    return _moved(expected.double(), found.double())


# Values


def _hidden(expected: Tensor, found: Tensor) -> str:
    """Zeros or infinities in the wrong places, as from a mask."""
    if expected.ndim < 2 or min(expected.shape[-2:]) < 2:
        return ""
    a, b = ((x == 0) | torch.isinf(x) | torch.isnan(x) for x in (expected, found))
    if not a.any() or a.all() or bool((a == b).all()):
        return ""
    if not b.any():
        if torch.isinf(expected).any():
            return ""
        if not right(expected, found, _CLOSE)[~a].all():
            return "entries are not 0 where the expected result is masked: mask with -inf, before the softmax"
        if bool((found[a] < 0).all()):
            return "entries are negative where the expected result has zeros: a relu is missing"
        return (
            "entries are not 0 where the expected result has zeros, but the rest is right: mask or clamp them"
        )
    for by in range(1, a.shape[-1]):
        if torch.equal(a[..., by:], b[..., :-by]) and not torch.equal(a, b):
            return f"the mask is off by {by}: it hides {by} {'position' if by == 1 else 'positions'} too many"
        if torch.equal(a[..., :-by], b[..., by:]):
            return f"the mask is off by {by}: it shows {by} {'position' if by == 1 else 'positions'} too many"
    return ""


def _not_finite(expected: Tensor, found: Tensor) -> str:
    nan = torch.isnan(found) & ~torch.isnan(expected)
    if nan.any():
        all_hidden = expected[nan].eq(0).all()
        whole_rows = found.ndim > 1 and bool((nan.all(-1) == nan.any(-1)).all())
        why = (
            "a softmax over -inf only"
            if all_hidden
            else "a softmax over a row that is fully masked, or in one block: 0/0, or inf - inf"
            if whole_rows
            else "0/0, inf - inf, or a root or log of a negative number"
        )
        return f"{_count(nan)} NaN where the paper's code is finite: {why}"
    infinite = torch.isinf(found) & torch.isfinite(expected)
    if infinite.any():
        return (
            f"{_count(infinite)} infinite where the paper's code is finite: a division by 0, log(0), or an "
            "overflow of exp"
        )
    missing = torch.isinf(expected) & torch.isfinite(found)
    if missing.any():
        return f"{_count(missing)} finite where the paper's code has ±inf: a mask of -inf is missing"
    return ""


def _count(where: Tensor) -> str:
    count, total = int(where.sum()), where.numel()
    return f"{count} of {total} numbers are" if count != 1 else f"1 of {total} numbers is"


def _zeros(expected: Tensor, found: Tensor) -> str:
    if found.eq(0).all():
        return "everything is 0: nothing was added, or the sum was multiplied by 0"
    if expected.eq(0).all():
        return "everything should be 0 here: a value is not cleared, masked or subtracted"
    return ""


def _affine(expected: Tensor, found: Tensor, factors: Factors) -> str:
    """found = a · expected + b."""
    a, b = expected.flatten().double(), found.flatten().double()
    finite = torch.isfinite(a) & torch.isfinite(b)
    a, b = a[finite], b[finite]
    if a.numel() < 2 or a.std() <= _CLOSE * a.abs().max():
        return _of_one(a, b, factors)
    square = a.square().sum()
    if b.std() <= _CLOSE * b.abs().max():
        return (
            f"every number is {number(b.mean().item())}: normalised over a dimension of size 1, or a constant"
        )
    factor = ((a * b).sum() / square).item()
    if close(factor * a, b) and abs(factor - 1) > _NAMED:
        if abs(factor + 1) < _CLOSE:
            return "the sign is wrong: it is −1 times the expected result"
        return f"it is {number(factor)} times the expected result: {named(factor, factors)}"
    offset = (b - a).mean().item()
    if close(a + offset, b) and (b - a - offset).abs().max() <= 0.01 * abs(offset):
        return (
            f"it is the expected result {'+' if offset > 0 else '−'} {number(abs(offset))}: "
            f"{_added(offset, factors)}"
        )
    if a.numel() < 4:
        return ""
    slope = ((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum()
    rest = (b.mean() - slope * a.mean()).item()
    if close(slope * a + rest, b) and abs(slope - 1) > _NAMED:
        return (
            f"it is {number(rest)} {'+' if slope > 0 else '−'} {number(abs(slope.item()))} · the expected "
            "result"
        )
    return ""


def _of_one(expected: Tensor, found: Tensor, factors: Factors) -> str:
    """Like `_affine` for one number or several equal ones. Tries named factors only."""
    if not expected.numel() or not close(found, found.mean().expand_as(found)) or expected[0] == 0:
        return ""
    factor = (found[0] / expected[0]).item()
    if abs(factor + 1) < _CLOSE:
        return "the sign is wrong: it is −1 times the expected result"
    known = _known(factor, factors)
    if known:
        return f"it is {number(factor)} times the expected result: {named(factor, factors)}"
    offset = (found[0] - expected[0]).item()
    return f"it differs by {number(offset)}: {_added(offset, factors)}" if _known(offset, factors) else ""


def named(factor: float, factors: Factors) -> str:
    """A message about a factor, with its name if known."""
    known = _known(factor, factors)
    return (
        f"a factor is missing or superfluous; {number(factor)} = {known}"
        if known
        else "a factor is missing or superfluous"
    )


def _added(offset: float, factors: Factors) -> str:
    known = _known(offset, factors)
    return "a term is missing or superfluous" + (f"; {number(abs(offset))} = {known}" if known else "")


def _known(value: float, factors: Factors) -> str:
    candidates = {
        **factors,
        "2": 2.0,
        "1/2": 0.5,
        "π": math.pi,
        "2π": 2 * math.pi,
        "ln 2": math.log(2),
        "1/ln 2": 1 / math.log(2),
    }
    for name, one in candidates.items():
        if one and abs(abs(value) - abs(one)) < _NAMED * abs(one):
            return name
    for name, one in candidates.items():
        if one and abs(abs(value) * abs(one) - 1) < _NAMED and not name.startswith("1/"):
            return f"1/{name}" if " " not in name else f"1/({name})"
    return ""


def _moved(expected: Tensor, found: Tensor) -> str:
    """The right numbers in the wrong places."""
    dims = range(expected.ndim)
    for i in dims:
        for j in range(i + 1, expected.ndim):
            if expected.shape[i] == expected.shape[j] and close(expected.transpose(i, j), found):
                return f"it is transposed: dimensions {i} and {j} are swapped"
    for i in dims:
        if close(expected.flip(i), found):
            return f"it is reversed along dimension {i}"
        for shift in range(1, expected.shape[i]):
            if close(expected.roll(shift, i), found):
                by = shift if shift <= expected.shape[i] / 2 else shift - expected.shape[i]
                return f"it is shifted by {by} along dimension {i}"
    for i in dims:
        size = expected.shape[i]
        for by in (1, -1):
            kept, moved = (expected, found) if by > 0 else (found, expected)
            if size > 2 and close(kept.narrow(i, 0, size - 1), moved.narrow(i, 1, size - 1)):
                return (
                    f"it is {'one step late' if by > 0 else 'one step early'} along dimension {i}: an index "
                    "is off by one"
                )
    a, b = (x.flatten().double().sort().values for x in (expected, found))
    if expected.numel() > 2 and close(a, b):
        return "the numbers are right but in a different order: a transpose, reshape or index is wrong"
    return ""


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "the square of the expected result: a square root is missing": torch.square,
    "the root of the expected result: a square is missing": torch.sqrt,
    "the exponential of the expected result: a log is missing": torch.exp,
    "the log of the expected result: an exponential is missing": torch.log,
    "1 over the expected result": torch.reciprocal,
    "the absolute value of the expected result": torch.abs,
    "the sigmoid of the expected result: it was applied once too often": torch.sigmoid,
    "the tanh of the expected result: it was applied once too often": torch.tanh,
    "the ReLU of the expected result: it was applied once too often": torch.relu,
    "the softmax of the expected result: it was applied once too often": lambda x: x.softmax(-1),
    "the logits whose softmax is the expected result": lambda x: x,  # compared by its softmax below
}


def _elementwise(expected: Tensor, found: Tensor) -> str:
    a, b = expected.double(), found.double()
    for name, function in _FUNCTIONS.items():
        if close(function(a), b):
            return f"it is {name}"
    for name, function in (("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("ReLU", torch.relu)):
        if close(a, function(b)):
            return f"its {name} is the expected result: the {name} is missing"
    for i in range(a.ndim):
        if a.shape[i] > 1 and close(a, b.softmax(i)):
            return f"its softmax over dimension {i} is the expected result: the softmax is missing"
        if a.shape[i] > 1 and close(a, b / b.sum(i, keepdim=True)):
            return f"divided by its sum over dimension {i} it is the expected result: it is not normalised"
        if a.shape[i] > 1 and close(a, b - b.mean(i, keepdim=True)):
            return f"minus its mean over dimension {i} it is the expected result: it is not centred"
    return ""


def _before_squashing(expected: Tensor, found: Tensor, factors: Factors) -> str:
    """A factor or term by which the argument of a softmax, sigmoid, tanh or exponential differs."""
    a, b = expected.double(), found.double()
    for i in range(a.ndim):
        if a.shape[i] > 1 and all(
            (x > 0).all() and close(x.sum(i), torch.ones_like(x.sum(i))) for x in (a, b)
        ):
            before, after = (x.log() - x.log().mean(i, keepdim=True) for x in (a, b))
            said = _affine(before, after, factors)
            return f"before the softmax over dimension {i}, {said}" if said else ""
    inverses = (("sigmoid", torch.logit, 0.0), ("tanh", torch.atanh, -1.0))
    for name, inverse, low in inverses:
        if all(((x > low) & (x < 1)).all() for x in (a, b)):
            said = _affine(inverse(a), inverse(b), factors)
            if said:
                return f"before a {name}, {said}"
    if (a > 0).all() and (b > 0).all():
        power = _affine(a.log(), b.log(), factors)
        if "times" in power:
            return f"its log {power.removeprefix('it ')}"
    return ""


def _by_slice(expected: Tensor, found: Tensor) -> str:
    """A different factor or term for each index along one dimension."""
    a, b = expected.double(), found.double()
    if a.ndim < 2 or not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return ""
    for i in range(a.ndim):
        others = [j for j in range(a.ndim) if j != i]
        if math.prod(a.shape[j] for j in others) < 2:
            continue
        factor = (a * b).sum(others, keepdim=True) / a.square().sum(others, keepdim=True)
        if close(a * factor, b):
            return (
                f"each index of dimension {i} has a different factor ({_some(factor)}): a "
                "normalisation, scale or "
                "weight is missing or applied along the wrong dimension"
            )
        term = (b - a).mean(others, keepdim=True)
        if close(a + term, b):
            return (
                f"each index of dimension {i} has a different term ({_some(term)}): a bias or mean is missing"
            )
    return ""


def _some(values: Tensor) -> str:
    shown = [number(value) for value in values.flatten()[:4].tolist()]
    return ", ".join(shown) + (", …" if values.numel() > 4 else "")


def _region(expected: Tensor, found: Tensor) -> str:
    """The only region in which the numbers differ."""
    wrong = ~right(expected, found, _CLOSE)
    if wrong.all() or not wrong.any():
        return ""
    if expected.ndim >= 2 and min(expected.shape[-2:]) > 1:
        said = _triangle(wrong.reshape(-1, *wrong.shape[-2:]).any(0))
        if said:
            return said
    for i in range(expected.ndim):
        others = [j for j in range(expected.ndim) if j != i]
        bad = wrong.any(dim=others) if others else wrong
        if said := _along(i, bad):
            return said
    return (
        f"{_count(wrong).removesuffix(' are').removesuffix(' is')} "
        f"differ{'s' if int(wrong.sum()) == 1 else ''}, the rest is right"
    )


def _triangle(wrong: Tensor) -> str:
    rows, columns = wrong.shape
    for shift in (columns - rows, 0):
        upper = torch.ones_like(wrong).triu(shift + 1)
        lower = torch.ones_like(wrong).tril(shift - 1)
        diagonal = ~(upper | lower)
        beside = torch.ones_like(wrong).triu(shift + 1) & torch.ones_like(wrong).tril(shift + 1)
        if diagonal.any() and not (wrong & ~diagonal).any():
            return "only the diagonal is wrong: a mask is off by one"
        if beside.any() and (wrong & beside).any() and not (wrong & ~beside).any():
            return "only the entries next to the diagonal are wrong: a mask is off by one"
        if upper.any() and lower.any() and not (wrong & ~upper).any():
            return "only entries above the diagonal are wrong: check the causal mask"
        if upper.any() and lower.any() and not (wrong & ~lower).any():
            return "only entries below the diagonal are wrong: check the mask and its direction"
    return ""


def _along(dimension: int, bad: Tensor) -> str:
    size = len(bad)
    indices = bad.nonzero().flatten().tolist()
    if size < 3 or len(indices) in (0, size):
        return ""
    if indices == [0]:
        return (
            f"only the first entry of dimension {dimension} is wrong: check the start (an initial state, "
            "padding, an edge)"
        )
    if indices == [size - 1]:
        return (
            f"only the last entry of dimension {dimension} is wrong: check the end (a last step, a remainder "
            "that does not fill a block)"
        )
    if indices == list(range(1, size)):
        return f"only the first entry of dimension {dimension} is right: is a state carried forward from it?"
    if indices == list(range(size - 1)):
        return f"only the last entry of dimension {dimension} is right: is a state carried backward from it?"
    if indices == list(range(indices[0], indices[-1] + 1)):
        return (
            f"entries {indices[0]} to {indices[-1]} of dimension {dimension} are wrong, but the rest is right"
        )
    if len({index % 2 for index in indices}) == 1 and len(indices) > 1:
        return (
            f"only the {'odd' if indices[0] % 2 else 'even'} entries of dimension {dimension} are wrong: "
            "pairs or halves are mixed up"
        )
    return ""


def _nearly(expected: Tensor, found: Tensor) -> str:
    a, b = expected.double(), found.double()
    finite = torch.isfinite(a) & torch.isfinite(b)
    if not finite.any():
        return ""
    error = ((a - b).abs()[finite].max() / a[finite].abs().max().clamp_min(1e-300)).item()
    if error < 2e-3:
        why = "a constant such as eps is missing or in the wrong place"
        if error < 1e-6:
            why = "an intermediate number was rounded to float32, or eps is in the wrong place"
        return f"it is nearly right (off by {number(error)} times the largest number): {why}"
    return ""


def _sums(expected: Tensor, found: Tensor) -> str:
    """Sums that should be 1, as for probabilities, or 0, as for differences from a mean, but are not."""
    a, b = expected.double(), found.double()
    for i in range(a.ndim):
        if a.shape[i] < 2:
            continue
        sums, others = a.sum(i), b.sum(i)
        for total in (0.0, 1.0):
            if close(sums + 1, torch.full_like(sums, total + 1)) and not close(sums + 1, others + 1):
                return (
                    f"its sums over dimension {i} should be {total:.0f} and are {_some(others)}: a mean is "
                    "not subtracted, or a normalisation is missing"
                )
    return ""


def factors_of(arguments: Mapping[str, object]) -> dict[str, float]:
    """Candidates for a wrong factor: sizes of the arguments, the roots of sizes, and numeric arguments."""
    return dict(_factors_of(arguments))


def _factors_of(arguments: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in arguments.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float) and value not in (0, 1):
            yield name, float(value)
            yield f"1 − {name}", 1.0 - value
            if value > 0:
                yield f"√{name}", math.sqrt(value)
        elif isinstance(value, Tensor):
            yield from _entries(name, value)
            for index, size in reversed(list(enumerate(value.shape))):
                if size > 1:
                    where = f"the size of dimension {index} of {name}"
                    yield f"{size} ({where})", float(size)
                    yield f"√{size} ({where})", math.sqrt(size)
                    if size > 2:
                        ratio = size / (size - 1)
                        yield f"{size}/{size - 1} ({where}; n or n − 1)", ratio
                        yield f"√({size}/{size - 1}) ({where}; n or n − 1)", math.sqrt(ratio)
        elif is_dataclass(value) and not isinstance(value, type):
            for field in fields(value):
                if isinstance(part := getattr(value, field.name), Tensor):
                    yield from _entries(f"{name}.{field.name}", part)
        elif isinstance(value, tuple) and all(isinstance(one, float) for one in value):
            for index, one in enumerate(value):
                yield f"{name}[{index}]", float(one)
                yield f"1 − {name}[{index}]", 1.0 - float(one)


def _entries(name: str, value: Tensor) -> Iterator[tuple[str, float]]:
    """The entries of a short argument, 1 minus each entry, and the roots of all these."""
    if value.numel() > _FEW or value.ndim > 1 or not value.is_floating_point():
        return
    for index, one in enumerate(value.flatten().tolist()):
        where = f"{name}[{index}]" if value.ndim else name
        for said, number_ in ((where, one), (f"1 − {where}", 1.0 - one)):
            if number_ not in (0, 1):
                yield said, number_
            if 0 < number_ != 1:
                yield f"√({said})" if " " in said else f"√{said}", math.sqrt(number_)
