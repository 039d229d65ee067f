"""The report's pages: their content, size, links, and omitted private data."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import wave
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest
from pageread import Page, digest, measurement, run
from PIL import Image

from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.library import Library
from readtrack.report.effects import found, said
from readtrack.report.gather import of_reader, of_shipped, shipped_table
from readtrack.report.markdown import html
from readtrack.report.papers import paper_view
from readtrack.report.privacy import Discretion
from readtrack.report.site import MANIFEST, Site, build, write
from readtrack.report.words import anchors, css_class, number

LIMIT = 100_000  # bytes of a paper's page
ALLOWED = ("default-src", "style-src", "script-src", "img-src", "media-src", "base-uri", "form-action")


def pages(site: Site) -> dict[str, Page]:
    return {path: page_of(body) for path, body in site.files.items() if path.endswith(".html")}


@lru_cache(maxsize=500)
def page_of(body: bytes) -> Page:
    return Page(body.decode())


def reader(home: Home, *, private: bool = False, papers: tuple[str, ...] = ()) -> Site:
    home.ensure()
    return build(of_reader(Library.open(home), private=private), papers)


@pytest.mark.slow
def test_each_paper_has_a_page_and_each_page_is_small(shipped_site: Site) -> None:
    listed = shipped_site.source.catalog.listed()
    assert {f"papers/{paper}.html" for paper in listed} < shipped_site.files.keys()
    sizes = {path: len(body) for path, body in shipped_site.files.items() if path.startswith("papers/")}
    assert max(sizes.values()) <= LIMIT
    others = {"index.html", "claims.html", "benchmarks.html", "lineage.html", "method.html"}
    assert shipped_site.files.keys() - sizes.keys() == {*others, "media/curve.svg"}


@pytest.mark.timing
def test_ninety_papers_take_less_than_five_seconds() -> None:
    def seconds() -> float:
        start = time.process_time()  # wall time would include other processes
        build(of_shipped())
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 5


def test_links_lead_somewhere(shipped_site: Site) -> None:
    known = pages(shipped_site)
    for path, page in known.items():
        for link in page.links:
            if link.startswith(("https://", "http://")):
                continue
            target, _, fragment = link.partition("#")
            there = normpath(join(dirname(path), target)) if target else path
            assert there in shipped_site.files, (path, link)
            assert not fragment or fragment in known[there].ids, (path, link)
        for file in page.files:
            assert normpath(join(dirname(path), file)) in shipped_site.files
        assert len(page.ids) == len(set(page.ids)), path


def test_a_page_runs_only_its_own_script_and_sends_no_request(shipped_site: Site) -> None:
    for path, page in pages(shipped_site).items():
        policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
        assert set(policy) <= set(ALLOWED)
        assert policy["default-src"] == "'none'"
        (style,) = page.styles
        assert policy["style-src"] == digest(style)
        assert [digest(script) for script in page.scripts] == policy.get("script-src", "").split()
        assert "unsafe" not in page.policy
        assert "url(" not in style
        for tag, named in page.tags:
            assert not [name for name in named if name.startswith("on") or name == "style"], (path, tag)
            assert tag not in ("iframe", "object", "embed", "link", "form") or path == "claims.html"
        assert not [file for file in page.files if ":" in file]


def test_the_paper_page_has_claims_code_and_lineage(shipped_site: Site) -> None:
    page = pages(shipped_site)["papers/bert.html"]
    for words in (
        "After 300 steps of pre-training and fine-tuning on the same labels",
        "Not specific",
        "mask dropped for tuning",
        "0.121 to 0.199",
        "required ≥ 0.08",
        "section 5.1, table 5",
        "What is different here",
        "The idea in code",
    ):
        assert words in page.text
    assert "../papers/longformer.html" in page.links
    assert sum("seed" in named.get("class", "").split() for _, named in page.tags) == 10


def test_earlier_verdicts_are_marked_and_counted_separately(shipped_site: Site) -> None:
    known = pages(shipped_site)
    measured = [row for row in shipped_table().rows if row.claim.kind == "measured"]
    earlier = {row.paper for row in measured if row.earlier}
    for paper in earlier:
        assert "judged by the earlier procedure" in known[f"papers/{paper}.html"].text
    said = "Judged by an earlier procedure, counted separately" in known["index.html"].text
    assert said == bool(earlier)
    rows = [named for tag, named in known["claims.html"].tags if "row" in named.get("class", "").split()]
    assert len(rows) == len(measured)
    assert sum("p-earlier" in row["class"] for row in rows) == sum(row.earlier for row in measured)


def test_every_bound_that_ships_has_its_numbers() -> None:
    for row in shipped_table().rows:
        for one in found(row):
            assert one.effect.mean is not None, (row.paper, row.claim.name, one.label)
            assert one.label
            assert one.asked in one.told


def test_a_benchmarks_bound_names_its_rival_and_its_setting() -> None:
    labels = [
        one.label for row in shipped_table().rows if row.paper == "flashattention" for one in found(row)
    ]
    setting = "dim 64, causal, spread of scores 1, forward+backward"
    assert f"speed over the naive version, attention (tokens 2,048, {setting})" in labels
    shared = "memory over tokens (dim 64, spread of scores 1, forward+backward)"
    assert f"attention: exponent of the naive version’s {shared}" in labels


@pytest.mark.parametrize(
    ("words", "metric", "expected"),
    [
        ("gain 0.3 (0.2 to 0.4)", "gain", (0.3, 0.2, 0.4, False)),
        ("loss a / b 1.5; gain -1e-05", "gain", (-1e-05, -1e-05, -1e-05, False)),
        ("steps ≥ 1,400 (400 to 2,000); x 1", "steps", (1400, 400, 2000, True)),
        ("a, b - c 2, gain ≥ 4", "gain", (4, 4, 4, True)),
        ("gain 0.5, no number with 2 seeds; b 1", "gain", (0.5, 0.5, 0.5, False)),
        ("again 3", "gain", None),
        ("gain (x) 3", "gain (x", None),
    ],
)
def test_numbers_in_words_are_taken_apart(
    words: str, metric: str, expected: tuple[float, ...] | None
) -> None:
    one = said(words, metric)
    assert (one and (one.mean, one.low, one.high, one.at_least)) == expected


def test_a_readers_report_shows_the_files_of_a_run(home: Home) -> None:
    run(home)
    site = reader(home, papers=("adam",))
    page = pages(site)["papers/adam.html"]
    for words in (
        "Arm against arm",
        "Sounds",
        "Pictures",
        "Curves",
        "Benchmark",
        "Runs recorded here",
        "nine",
    ):
        assert words in page.text
    assert "reading.html" not in site.files
    assert {named["class"] for tag, named in page.tags if tag == "polyline"} == {"arm0", "arm1"}
    with wave.open(io.BytesIO(site.files["media/adam/a.wav"])) as file:
        assert file.getnframes() == 4000
    widths = [named["width"] for tag, named in page.tags if tag == "image"]
    assert widths == ["100.0%", "50.0%"]  # of the longest sound


def test_arms_have_their_roles_colours_and_direction_from_the_record(home: Home) -> None:
    folder = run(home)
    page = pages(reader(home, papers=("adam",)))["papers/adam.html"]
    assert "Errors lower is better ours (the paper’s) control (control)" in page.text
    log = folder / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    meaning = next(line for line in lines if line["event"] == "meaning")
    meaning["roles"] = {"ours": "control", "control": "paper"}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = pages(reader(home, papers=("adam",)))["papers/adam.html"]
    assert "control (the paper’s) ours (control)" in page.text
    curve = [named for tag, named in page.tags if tag == "polyline"]
    assert [named["class"] for named in curve] == ["arm1", "arm0"]  # the paper's arm is drawn on top
    drawn = next(label for tag, named in page.tags if "loss" in (label := named.get("aria-label", "")))
    assert drawn.index("control from") < drawn.index("ours from")


@pytest.mark.slow
def test_contended_times_and_smoke_runs_are_not_counted(home: Home) -> None:
    run(home, "adam", 1)
    busy = [measurement(role, ns, flags=["contended"]) for role, ns in (("paper", 9e6), ("strong", 2e6))]
    run(home, "bert", 2, events=busy)
    run(home, "gru", 3, job={"budget": "smoke"})
    page = pages(reader(home))["benchmarks.html"]
    assert "1 of 1 paper is at least as fast as the strongest free rival" in page.text
    assert "1 more paper was measured while other programs used the machine." in page.text
    assert ("bert contended" in page.text, "gru" in page.text.split("Claims about time")[0]) == (True, False)
    shutil.rmtree(next(home.runs.glob("*adam*")))
    alone = pages(reader(home))["benchmarks.html"].text
    assert "Other programs used the machine during every measurement" in alone
    assert "at least as fast as the strongest free rival" not in alone


@pytest.mark.parametrize(
    ("more", "alt"),
    [
        ({}, "P. Two digits."),
        ({"rows": 1, "columns": 2}, "P, 1 row of 2 pictures. Two digits."),
        ({"rows": 1, "columns": 2, "caption": ""}, "P, 1 row of 2 pictures"),
        ({"rows": "9", "columns": 10**9, "caption": ""}, "P"),
        (
            {"rows": 3, "columns": 2, "alt": "two digits, and below them maps"},
            "Two digits, and below them maps",
        ),
    ],
)
def test_a_picture_has_a_caption(home: Home, more: dict[str, object], alt: str) -> None:
    picture = {"event": "artifact", "name": "p", "path": "artifacts/p.png", "kind": "image"}
    run(home, events=[{**picture, "caption": "Two digits.", **more}])
    page = pages(reader(home, papers=("adam",)))["papers/adam.html"]
    assert [named["alt"] for tag, named in page.tags if tag == "img"] == ["P. Two digits.", alt]


def test_a_picture_has_the_names_of_its_rows_and_columns(home: Home) -> None:
    picture = {"event": "artifact", "name": "q", "path": "artifacts/p.png", "kind": "image"}
    many = [str(at) for at in range(30)]  # a row is 2.7 pixels high
    grids = (
        {"row_names": ["digit", "map"], "column_names": ["0", "1"]},
        {"row_names": many, "column_names": many},
    )
    run(home, events=[{**picture, "caption": "Digits.", **grid} for grid in (*grids, {"row_names": [7]})])
    page = pages(reader(home, papers=("adam",)))["papers/adam.html"]
    lists = [named["class"] for tag, named in page.tags if tag == "ol"]
    assert lists == ["across", "down"]
    assert "0 1 digit map Q. Digits." in page.text
    assert f"Digits. Rows, from the top: {', '.join(many)}. Columns, from the left: 0, 1" in page.text


def test_a_bound_that_holds_without_the_idea_is_marked_as_a_guard() -> None:
    source = of_shipped()
    at, row = next((at, one) for at, one in enumerate(source.table.rows) if len(one.effects) > 1)
    first, last = found(row)[0], found(row)[-1]
    assert (first.guard, last.guard, first.holds) == ("", "", True)
    source.table.rows[at] = replace(row, guards={str(first.effect): "the untrained arm"})
    again = found(source.table.rows[at])
    assert (again[-1].label, again[-1].guard) == (first.label, "the untrained arm")
    page = pages(build(source, (row.paper,)))[f"papers/{row.paper}.html"]
    assert page.text.count("a guard, not counted: the untrained arm clears it") == 1
    assert page.text.count("It does not count: the untrained arm clears it.") == 1


def test_a_sound_appears_next_to_the_one_that_it_names(home: Home) -> None:
    sound = {"event": "artifact", "path": "artifacts/a.wav", "kind": "audio", "caption": "c"}
    more = [{**sound, "name": "alone"}, {**sound, "name": "wrong", "beside": "nobody"}]
    run(home, events=more)
    site = reader(home, papers=("adam",))
    view = paper_view(site.source, site.source.catalog.papers["adam"], "")
    assert view.media is not None
    groups = [(one and one.name, [sound.name for sound in others]) for one, others in view.media.compared]
    assert groups == [(None, ["Alone", "Wrong"]), ("A", ["B"])]
    assert "Compare with" in pages(site)["papers/adam.html"].text


def test_a_run_without_references_compares_no_sounds(home: Home) -> None:
    folder = run(home)
    log = folder / "events.jsonl"
    log.write_text(log.read_text().replace('"beside": "a"', '"beside": ""'))
    assert "Compare with" not in pages(reader(home, papers=("adam",)))["papers/adam.html"].text


def test_a_plugin_of_the_readers_shows_the_claims_of_its_run(home: Home) -> None:
    home.ensure()
    facts = "title: Mine\n    authors: [A]\n    year: 2020\n    sources: [{page: 'https://example.org'}]"
    head = "title: t\nchecklist:\n  - section: s\n    rows: [{text: x, papers: [mine]}]\npapers:\n"
    home.papers_yaml.write_text(f"{head}  mine:\n    {facts}\n")
    run(home, "mine")
    page = pages(reader(home))["papers/mine.html"]
    assert "checked and true; one run, seed 3" in page.text
    assert "It gains." in page.text


def test_a_seed_that_the_rule_was_chosen_on_is_not_evidence(home: Home) -> None:
    shipped = next(row for row in shipped_table().rows if row.paper == "bert" and row.claim.chosen_on)
    seed, metric = shipped.claim.chosen_on[0], shipped.claim.rule[0].metric
    for number_, of in ((1, seed), (2, 77)):
        event = {
            "event": "claim",
            "claim": shipped.claim.to_json(),
            "values": {metric: 0.5},
            "verdict": "held",
            "why": "",
            "ours": f"{metric} 0.5",
            "seed": of,
            "at_least": [],
            "edges": [],
        }
        run(home, "bert", number_, job={"seed": of}, events=[event])
    page = pages(reader(home, papers=("bert",)))["papers/bert.html"]
    assert "Open rings: 1 single run recorded here, with other seeds." in page.text


# Sweeps


def swept(home: Home, best: dict[str, float], **more: dict[str, float]) -> Page:
    """Two arms at two learning rates, with curves of `loss, rate X` and of arms `ours, rate X`."""
    events: list[dict[str, object]] = [{"event": "meaning", "roles": {"ours": "paper", "control": "control"}}]
    for arm in ("ours", "control"):
        for rate in (0.1, 0.2, 0.4, 0.8):
            events += [
                {"event": "metric", "name": "score over rate", "step": rate, "arm": arm, "value": rate}
            ]
            for step in range(5):
                both = {"event": "metric", "step": step, "value": rate + step}
                events += [{**both, "name": f"error, rate {rate}", "arm": arm}]
                events += [{**both, "name": "length", "arm": f"{arm}, rate {rate}"}]
    events += [
        {"event": "metric", "name": "best rate", "step": None, "arm": a, "value": v} for a, v in best.items()
    ]
    run(home, events=events)
    return pages(reader(home, papers=("adam",)))["papers/adam.html"]


def test_each_arm_of_a_sweep_is_drawn_at_its_best_setting(home: Home) -> None:
    page = swept(home, {"ours": 0.4, "control": 0.2})
    arms = "ours, rate 0.4 (the paper’s) 4.4 control, rate 0.2 (control) 4.2"
    assert f"Error at the best rate {arms}" in page.text
    assert f"Length {arms}" in page.text
    assert "4 values of the rate were tried. Each arm is drawn at its best value." in page.text
    assert "Each arm is drawn at its best setting. The others are left out." in page.text
    assert "Score ours (the paper’s) best 0.4 at 0.4 control (control) best 0.2 at 0.2" in page.text
    tried = [named["class"] for _, named in page.tags if named.get("class", "").startswith("tried")]
    assert tried == ["tried1"] * 4 + ["tried0"] * 4


def test_a_sweep_whose_choice_is_not_recorded_shows_all_settings(home: Home) -> None:
    page = swept(home, {"ours": 7.0, "control": 0.2})  # a later sweep with the same name chose 7
    assert "Error, rate 0.1 ours (the paper’s)" in page.text
    assert "at the best rate" not in page.text
    assert "4 more arms are not drawn." in page.text


def test_an_axis_without_a_name_is_marked(home: Home) -> None:
    run(
        home,
        events=[
            {"event": "metric", "name": "bytes", "step": 4**at, "arm": "ours@32", "value": at}
            for at in range(1, 6)
        ],
    )
    page = pages(reader(home, papers=("adam",)))["papers/adam.html"]
    assert "x (not named in this record), log scale" in page.text
    assert "ours at 32 (the paper’s)" in page.text  # an arm at one of its levels


def test_a_smoke_run_is_marked_as_not_evidence(home: Home) -> None:
    run(home, job={"budget": "smoke"})
    assert (
        "Its pictures, curves and values say nothing about the paper."
        in pages(reader(home, papers=("adam",)))["papers/adam.html"].text
    )


def test_a_line_of_the_lineage_passes_over_the_papers_that_it_does_not_join(shipped_site: Site) -> None:
    paths = {
        named["class"]: named["d"]
        for tag, named in pages(shipped_site)["lineage.html"].tags
        if tag == "path" and "class" in named
    }
    assert "Q" in paths["e f-newton t-bfgs"]  # over hessian, which lies between them
    assert "Q" not in paths["e f-bfgs t-lbfgs"]


# Omitted data


def secrets(home: Home) -> list[bytes]:
    library = Library.open(home)
    library.save_note("adam", "Ask Grace about this.")
    library.tag("adam", "confidential")
    library.rate("adam", 2)
    (home.root / "places.yaml").write_text(
        "bigiron:\n  kind: ssh\n  host: ada@gpu.example.org\n  python: py\n"
    )
    told = "saved by secretbox to /home/ada/runs/x.npz on bigiron, see ~/notes/plan.md at gpu.example.org"
    run(
        home,
        events=[
            {"event": "artifact", "name": told, "path": "artifacts/p.png", "kind": "image", "caption": told},
            measurement("vendor", 5e6, variant=told),
            *(
                {
                    "event": "metric",
                    "name": f"loss on bigiron {name}",
                    "step": step,
                    "arm": told,
                    "value": 1.0,
                }
                for name in ("a", "b, hum", "b, echo", "b, tea")
                for step in (0, 1, 2, 3, 4, None)
            ),
            {"event": "axes", "metric": "loss on bigiron a", "x": "step on bigiron", "y": "/home/ada/y"},
        ],
    )
    return [
        b"Grace",
        b"confidential",
        b"2 of 5 stars",
        b"secretbox",
        b"/home/ada",
        b"bigiron",
        b"gpu.example.org",
        b"~/notes",
    ]


@pytest.mark.slow
def test_notes_tags_paths_and_machines_are_left_out(home: Home) -> None:
    home.ensure()
    hidden = secrets(home)
    site = reader(home)
    for path, body in site.files.items():
        assert not [word for word in hidden if word.decode() in path]
        assert [word for word in hidden if word in body] == [], path
    assert "Left out: 1 note, tags, ratings, file paths, machine names" in pages(site)["index.html"].text
    assert "saved by (machine) to x.npz on (machine), see plan.md" in pages(site)["papers/adam.html"].text


def test_a_private_report_has_them_and_is_marked(home: Home) -> None:
    home.ensure()
    hidden = secrets(home)
    site = reader(home, private=True, papers=("adam",))
    page = site.files["papers/adam.html"]
    assert [word for word in hidden if word not in page] == []
    assert "This report contains notes, tags, ratings, file paths" in Page(page.decode()).text
    picture = site.files["media/adam/p.png"]
    assert b"/home/ada" not in picture  # not even with --private, because pictures are encoded again
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (40, 20)


def test_a_path_loses_its_folders_and_a_ratio_stays() -> None:
    tell = Discretion(private=False, hosts=["big"])
    for words, left in {
        "in /usr/lib/x.py": "in x.py",
        "~/a/b.txt and C:\\Users\\ada\\c.txt": "b.txt and c.txt",
        "loss a / b, forward/backward, 1/2, https://example.org/a/b": None,
        "the bigger of big, big.": "the bigger of (machine), (machine).",
    }.items():
        assert tell.line(words) == (words if left is None else left)
    tell.leave_out(["box"])
    assert tell.line("box big") == "(machine) (machine)"


# The output folder


def test_a_second_report_removes_stale_files(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(reader(home, papers=("adam", "bert")), folder)
    write(reader(home, papers=("adam",)), folder)
    assert not (folder / "papers" / "bert.html").exists()
    assert (folder / "papers" / "adam.html").exists()


def test_a_folder_of_something_else_is_left_alone(home: Home, tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "mine.txt"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(ReadtrackError, match="not a report"):
        write(reader(home, papers=("adam",)), folder)
    outside.write_text("x")
    (folder / MANIFEST).write_text('{"files": ["../mine.txt", 7]}')
    write(reader(home, papers=("adam",)), folder)
    assert outside.exists()
    assert (folder / "thesis.tex").exists()


def test_a_report_that_was_stopped_midway_is_written_again(home: Home, tmp_path: Path) -> None:
    folder, site = tmp_path / "out", reader(home, papers=("adam",))
    (folder / "claims.html").mkdir(parents=True)  # cannot be overwritten
    (folder / MANIFEST).write_text('{"files": ["old.html"]}')
    with pytest.raises(ReadtrackError, match="could not write the report"):
        write(site, folder)
    (folder / "claims.html").rmdir()
    (folder / "old.html").touch()
    write(site, folder)
    assert not (folder / "old.html").exists()


# Text and Markdown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.1590, "0.159"),
        (5.7e-7, "5.7 × 10⁻⁷"),
        (-0.5, "−0.5"),
        (2048.0, "2,048"),
        (92_300_000.0, "92.3M"),
        (0.0, "0"),
        (None, "no number"),
        (float("nan"), "no number"),
        (float("inf"), "∞"),
        (999.7, "1,000"),
        (9999.9, "10k"),
        (1e15, "1.00e+15"),
        (1e-3, "0.001"),
    ],
)
def test_numbers_have_three_digits(value: float | None, words: str) -> None:
    assert number(value) == words
    assert number(value, "×") == (words if words == "no number" else f"{words}×")


def test_a_word_of_a_record_is_not_a_class() -> None:
    assert css_class('held" onclick="x') == "not-judged"
    assert anchors(["A b", "a-b", "", "日本"]) == ["a-b", "a-b-2", "x", "x-2"]


def test_markdown_has_no_html_no_pictures_and_no_links_that_run() -> None:
    shown = html(
        "# A\n<script>x()</script>\n[a](javascript:x()) [b](https://example.org) ![c](https://example.org/c.png)\n\n"
        "[d](data:text/html,x) [e](//example.org/e.html) <b onclick=x>f</b>\n\n| a |\n| --: |\n| 1 |\n"
    )
    page = Page(f"<div>{shown}</div>")
    assert page.links == ["https://example.org", "https://example.org/c.png"]
    assert {tag for tag, _ in page.tags} <= {
        "div",
        "h1",
        "p",
        "a",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert re.search(r"<script>x\(\)</script>", page.text)
