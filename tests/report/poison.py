"""Hostile texts that try to run scripts, or to style or hide parts of a page, and a home full of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile import HUGE, NASTY
from pageread import complete_events, run

from readtrack.home import Home
from readtrack.library import Library

EVIL = (
    '"><script>pwned()</script><img src=x onerror=pwned()><svg/onload=pwned()>'
    "' onmouseover='pwned()' </style></title></textarea></script><!-- ]]> {{ 7 * 7 }} {% raw %} &lt;b&gt; "
    "<iframe src='https://example.org/'></iframe><link rel=stylesheet href=https://example.org/x.css> "
    "[a](javascript:pwned()) ![b](https://example.org/b.png) <a href='data:text/html,x'>c</a> "
    "`` ```json\n{}\n``` "
    f"=cmd|'/C' {NASTY} \x00 \u2028 \u2066 x"
)
SHOWN = "<script>pwned()</script>"  # escaped
WRONG = (
    EVIL,
    "",
    None,
    True,
    -1,
    0,
    HUGE,
    1e308,
    float("nan"),
    float("-inf"),
    [],
    [EVIL],
    {},
    {EVIL: EVIL},
    "\ud800",
)
_KEPT = {"event"}
_NAMED = (
    *(("image", "p.png"), ("image", "evil.svg"), ("audio", "a.wav"), ("audio", "b.wav")),
    *(("table", "evil.json"), ("text", "evil.txt"), ("text", "evil.html")),
)


def poisoned(fields: Any) -> Any:
    """The fields with hostile values for all texts except type names."""
    kept = {"event", "kind", "op", "path", "read", "verdict", "mode", "role", "metric"}
    if isinstance(fields, dict):
        return {key: value if key in kept else poisoned(value) for key, value in fields.items()}
    if isinstance(fields, list):
        return [poisoned(value) for value in fields]
    return EVIL if isinstance(fields, str) else fields


def damaged(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The event with one of its values, at any depth, replaced by an invalid one."""
    for path in _places(event):
        for wrong in WRONG:
            changed = copy.deepcopy(event)
            inside: Any = changed
            for key in path[:-1]:
                inside = inside[key]
            inside[path[-1]] = wrong
            yield changed


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        if key not in _KEPT:
            yield (*before, key)
            yield from _places(inside, (*before, key))


def fill(home: Home) -> None:
    """Write a list, metadata, notes, tags and runs with hostile texts."""
    home.ensure()
    said = json.dumps(EVIL)
    facts = (
        f"title: {said}\n    authors: [{said}]\n    year: 2020\n    sources: [{{page: 'https://example.org/'}}]\n"
        f"    problem: {said}\n    idea: {said}\n    result: {said}"
    )
    home.papers_yaml.write_text(
        f"title: {said}\nnote: {said}\nchecklist:\n  - section: {said}\n    note: {said}\n    rows:\n"
        f"      - text: {said}\n        papers: [adam, mine]\n      - text: {said}\n"
        f"papers:\n  adam:\n    {facts}\n  mine:\n    {facts}\n    builds_on: [adam]\n",
        encoding="utf-8",
    )
    library = Library.open(home)
    library.save_note("adam", EVIL)
    (home.notes / "mine.md").mkdir(parents=True)
    library.mark("adam", "read")
    with home.journal.open("a", encoding="utf-8") as file:
        tagged = {"v": 1, "at": "2026-01-01T00:00:00+00:00", "paper": "adam", "tag": ["+", EVIL]}
        file.write(json.dumps(tagged) + "\n")
    home.ensure(home.metadata)
    (home.metadata / "adam.json").write_text(json.dumps({"abstract": EVIL}))
    (home.metadata / "mine.json").write_text(json.dumps({"abstract": [EVIL]}))
    home.ensure(home.plugins)
    (home.plugins / "mine.py").write_text(
        f"# {EVIL.encode('ascii', 'replace').decode().splitlines()[0]}\n"
        "class Mine:\n    '''</code></pre><script>pwned()</script>'''\n\n\nimplementation = Mine\n"
    )
    for number, paper in enumerate(("adam", "mine")):
        events = list(complete_events(paper, "run"))
        kinds = {
            json.dumps([event["event"], event.get("kind"), event.get("role")]): event for event in events
        }
        machine = json.dumps(["environment", None, None])
        wrong = [changed for event in kinds.values() for changed in damaged(event)]
        artifacts = [
            {"event": "artifact", "name": EVIL, "path": f"artifacts/{name}", "kind": kind, "caption": EVIL}
            for kind, name in _NAMED
        ]
        folder = run(
            home,
            paper,
            number,
            job={"settings": {EVIL: EVIL}},
            events=[
                *(poisoned(event) for event in kinds.values()),
                *artifacts,
                *wrong,
                poisoned(kinds[machine]),
            ],
        )
        _files(folder / "artifacts")


def _files(folder: Path) -> None:
    cells = [[EVIL, HUGE, float("nan")], [None, {EVIL: EVIL}, [EVIL]]]
    (folder / "evil.json").write_text(json.dumps({"columns": [EVIL, EVIL, EVIL], "rows": cells}))
    for name in ("evil.txt", "evil.html", "evil.svg"):
        (folder / name).write_text(f"<svg xmlns='http://www.w3.org/2000/svg' onload='pwned()'>{EVIL}</svg>")
