"""Parsing of settings, and options found without importing a plugin."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins import find
from readtrack.runs import settings

EXPERIMENT = "def experiment(run):\n    "


@pytest.fixture
def options(home: Home):
    """Write plugins (file: source) and find the options of `toy`."""

    def found(folder: dict[str, str] | None = None, **sources: str) -> set[str] | None:
        for name, source in {**sources, **(folder or {})}.items():
            path = home.plugins / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("raise SystemExit('imported')\n" + textwrap.dedent(source))
        return settings.options("toy", find.find(home))

    return found


def test_pairs_and_lines() -> None:
    assert settings.parse(["steps=100", " note =a b", "x=y=z"]) == {"steps": "100", "note": "a b", "x": "y=z"}
    assert settings.parse(settings.words("""steps=1 'note=a b' other="c d" """)) == {
        "steps": "1",
        "note": "a b",
        "other": "c d",
    }
    for wrong in ("steps", "=1", " =1"):
        with pytest.raises(ReadtrackError, match="NAME=VALUE"):
            settings.parse([wrong])
    with pytest.raises(ReadtrackError, match="inside a quoted text"):
        settings.words("note='a")


def test_options_are_found_wherever_the_plugin_asks_for_them(options) -> None:
    assert options(toy=EXPERIMENT + "x = run.option('length', 3), run.option('keep', run.pick(quick=1))") == {
        "length",
        "keep",
    }
    helper = "def train(run):\n    if run.option('fast', True):\n        pass\n"
    assert options(toy=f"{helper}\n{EXPERIMENT}train(run)") == {"fast"}
    assert options(toy=EXPERIMENT + "pass") == set()
    known = "from functools import partial\nimport torch\n" + EXPERIMENT + "partial(torch.no_grad, run)"
    assert options(toy=known) == set()


def test_options_of_a_folder_and_of_the_papers_that_it_imports(options) -> None:
    assert options(
        {
            "toy/__init__": "from .experiment import experiment\nfrom ..other import train\n",
            "toy/experiment": EXPERIMENT + "run.option('width', 1)",
        },
        other="from . import third\ndef train(run):\n    run.option('rate', 0.1)\n",
        third="from readtrack.papers.fourth import x\n",
        fourth="def x(run):\n    run.option('deep', 1)\n",
        unrelated="def x(run):\n    run.option('elsewhere', 1)\n",
    ) == {"width", "rate", "deep"}


@pytest.mark.parametrize(
    "source",
    [
        EXPERIMENT + "[run.option(name, 1) for name in 'ab']",
        EXPERIMENT + "ask = run.option\n    ask('a', 1)",
        "from mine import train\n" + EXPERIMENT + "train(run)",
        "import mine.lab\n" + EXPERIMENT + "mine.lab.train(3, run)",
        "from mine import experiment\n",
    ],
)
def test_options_that_cannot_be_listed_are_not_refused(options, home: Home, source: str) -> None:
    assert options(toy=source) is None
    settings.check({"anything": "1"}, "toy", find.find(home))


def test_a_wrong_setting_is_reported_with_the_valid_ones(options, home: Home) -> None:
    options(toy=EXPERIMENT + "run.option('length', 3), run.option('keep', 1)", bare=EXPERIMENT + "pass")
    plugins = find.find(home)
    settings.check({"keep": "2", "length": "x"}, "toy", plugins)
    settings.check({}, "bare", plugins)
    with pytest.raises(ReadtrackError, match="toy has no option 'lenght'; did you mean 'length'"):
        settings.check({"lenght": "1"}, "toy", plugins)
    with pytest.raises(ReadtrackError, match="toy has no option 'foo'; it has keep, length"):
        settings.check({"foo": "1"}, "toy", plugins)
    with pytest.raises(ReadtrackError, match="bare has no option 'foo'; it has none"):
        settings.check({"foo": "1"}, "bare", plugins)


@pytest.mark.slow
def test_the_options_of_every_shipped_plugin_are_known() -> None:
    plugins = find.find(Home())
    told = {name: settings.options(name, plugins) for name in plugins}
    assert None not in told.values()
    assert told["byte_bpe"] == {"merges"}
    assert Path(plugins["byte_bpe"].location).name == "__init__.py"
