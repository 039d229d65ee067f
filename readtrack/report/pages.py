"""Renders templates to pages. Each page is one file with inline style, whose hash is in the content security
policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readtrack.errors import ReadtrackError
from readtrack.report.effects import asked, label
from readtrack.report.words import ORDER, VERDICTS, css_class, known, number
from readtrack.svg import Drawn
from readtrack.text import in_markdown
from readtrack.verdicts import OUTCOMES

if TYPE_CHECKING:
    from jinja2 import Environment

    from readtrack.report.card import Card, CardClaim

_TEMPLATES = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The Jinja2 environment. It escapes everything except `Drawn`, and undefined names are errors."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        VERDICTS=VERDICTS,
        OUTCOMES=OUTCOMES,
        ORDER=ORDER,
        css=css_class,
        known=known,
        number=number,
        written=frozenset(),
    )
    return made


@lru_cache(maxsize=4)
def part(name: str) -> str:
    """The text of a file next to the templates, without line breaks."""
    return "".join((_TEMPLATES / name).read_text(encoding="utf-8").splitlines())


def render(
    template: str,
    *,
    page: str,
    root: str = "",
    menu: Sequence[tuple[str, str]] = (),
    script: bool = False,
    rules: str = "",
    media: bool = False,
    **values: Any,
) -> str:
    """Render a page.

    page    its path in the site, as in the menu
    root    relative path from the page to the site's root
    script  whether it includes the script for sorting and filtering
    rules   additional CSS for this page
    media   whether it shows pictures or sounds from the site's files
    """
    css = part("style.css") + rules
    code = part("page.js") if script else ""
    policy = ["default-src 'none'", f"style-src '{_hash(css)}'"]
    policy += [f"script-src '{_hash(code)}'"] if code else []
    policy += ["img-src 'self'", "media-src 'self'"] if media else []
    policy += ["base-uri 'none'", "form-action 'none'"]
    return (
        environment()
        .get_template(template)
        .render(
            page=page,
            root=root,
            menu=menu,
            sheet=Drawn(css),
            script=Drawn(code),
            policy="; ".join(policy),
            **values,
        )
    )


def card_pages(card: Card) -> tuple[str, str]:
    """A replication card as HTML and as Markdown."""
    from readtrack.report.card import as_json
    from readtrack.report.replay import RULE

    left = "file paths, machine names and the reader’s note"
    values: dict[str, Any] = {
        "c": card,
        "rows": [_values(one) for one in card.claims],
        "facts": _setting(card),
        "replay_rule": RULE,
        "footer": f"Written by readtrack. {'This card has' if card.private else 'Left out:'} {left}.",
        "data": Drawn(as_json(card)),
        "title": card.title,
    }
    page = render("card.html", page="card", **values)
    made = environment().overlay(autoescape=False)
    return page, made.get_template("card.md").render(md=in_markdown, **values) + "\n"


def write_card(card: Card, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write the card as HTML and as Markdown, and return the two paths. Raises ReadtrackError."""
    page, text = card_pages(card)
    files = folder / f"{stem}.html", folder / f"{stem}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, body in zip(files, (page, text), strict=True):
            file.write_text(body, encoding="utf-8")
    except OSError as error:
        raise ReadtrackError(f"could not write the card: {error.filename}: {error.strerror}.") from error
    return files


def _values(one: CardClaim) -> list[tuple[str, str, str]]:
    """Every value of a claim with its bound in the rule."""
    bounds = (*one.claim.rule, *one.claim.guards, *one.claim.conditions)
    limits_of: dict[str, list[str]] = {}
    for bound in bounds:
        limits_of.setdefault(bound.metric, []).append(asked(bound.op, bound.threshold))
    names = {bound.metric: label(bound) for bound in bounds}
    found = {**one.values, **{name: time.value for name, time in one.timed.items()}}
    limits = dict.fromkeys(one.at_least, "≥ ")
    return [
        (names.get(name, name), f"{limits.get(name, '')}{number(value)}", ", ".join(limits_of.get(name, ())))
        for name, value in found.items()
    ]


def _setting(card: Card) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items() if version)
    facts_of = {name: fact for name, fact in card.machine.items() if fact}
    if facts_of.get("cpu") == facts_of.get("device_name"):
        facts_of.pop("cpu", None)
    units = {"cores": "{} cores", "threads": "threads: {}"}
    machine = ", ".join(units.get(name, "{}").format(fact) for name, fact in facts_of.items())
    settings = ", ".join(f"{name}={text}" for name, text in (card.job.get("settings") or {}).items())
    facts = [
        ("Seed", str(card.job["seed"])),
        ("Budget", str(card.job["budget"])),
        ("Settings", settings),
        ("Versions", versions),
        ("Machine", machine),
        *((name.capitalize(), text) for name, text in card.private.items()),
    ]
    return [(name, words) for name, words in facts if words]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def hidden(switch: str, rows: str) -> str:
    """CSS that hides rows while a box is not ticked, a filter that needs no script."""
    return f"body:has({switch}:not(:checked)) {rows}{{display:none}}"


def only(switch: str, rows: str, kept: str) -> str:
    """CSS that hides all rows except the kept ones while a switch is on."""
    return f"body:has({switch}:checked) {rows}:not({kept}){{display:none}}"


def filters(sections: Iterable[str]) -> str:
    """The filters for the table of all claims."""
    found = [hidden(f"#v-{css_class(word)}", f".v-{css_class(word)}") for word in ORDER]
    found += [hidden(f"#p-{which}", f".row.p-{which}") for which in ("now", "earlier")]
    found += [only(f"#s-{at}", ".row", f".s-{at}") for at, _ in enumerate(sections)]
    return "".join(found)
