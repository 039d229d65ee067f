"""The table of verdicts and the documents made from it."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from readtrack import verdicts
from readtrack.claims import Bound, Break, at_least, at_most
from readtrack.verdict_pages import documents, overview, page
from readtrack.verdict_table import VerdictRow, VerdictTable, caveats, error_rates, forecast, headline, wilson
from tests.test_verdicts import GAIN, over

FACTS = {"paper": {"budget": "quick"}}


def rows() -> list[VerdictRow]:
    identity = replace(GAIN, name="equal", kind="identity", rule=(Bound("gain", "<=", 1e-6),))
    return [
        VerdictRow.of(over([0.3, 0.31, 0.29, 0.3, 0.32]), "not reproduced", {"no gate": "not reproduced"}),
        VerdictRow.of(over([0.01] * 5), "reproduced", {"no gate": "reproduced"}),
        VerdictRow.of(over([0.0] * 5, identity)),
    ]


def test_the_head_counts_measured_claims_and_its_own_errors():
    assert headline(rows()) == "1 of 2 measured claims reproduced (1 not reproduced)"
    assert dict(error_rates(rows())) == {
        "null runs reproduced": "1 of 2 (95 % interval 9 to 91 %)",
        # The break of a claim that is not reproduced cannot be caught.
        "near misses caught, of the claims that are reproduced": "1 of 1 (95 % interval 21 to 100 %)",
    }
    assert dict(error_rates([VerdictRow.of(over([0.3] * 5))]))["null runs reproduced"] == "not run"
    # Runs that are not judged say nothing about error rates.
    (_, null), (_, broken) = error_rates(
        [*rows(), VerdictRow.of(over([0.3] * 5), "not judged", {"no gate": "not judged"})]
    )
    assert null == "1 of 2 (95 % interval 9 to 91 %); 1 not judged"
    assert broken == "1 of 1 (95 % interval 21 to 100 %); 1 not judged"


RIVALLED = replace(
    GAIN,
    breaks=(
        *GAIN.breaks,
        Break("a line", "A line is fitted.", "rival"),
        Break("nothing", "Nothing is left."),
    ),
)
CLEAR, NONE, SMALL = [0.3, 0.31, 0.29, 0.3, 0.32], [0.0, 0.01, 0.0, 0.01, 0.0], [0.1, 0.12, 0.11, 0.09, 0.1]


@pytest.mark.parametrize(
    ("ours", "rival", "verdict"),
    [
        (CLEAR, "reproduced", "not specific"),
        (CLEAR, "weak", "reproduced"),
        (CLEAR, "not reproduced", "reproduced"),
        (CLEAR, "not judged", "not judged"),
        (SMALL, "not judged", "weak"),
        (SMALL, "reproduced", "weak"),
        (NONE, "reproduced", "not reproduced"),
    ],
)
def test_a_claim_that_a_rival_wins_as_well_is_not_specific(ours, rival, verdict):
    row = VerdictRow.of(over(ours, RIVALLED), None, {"no gate": "not reproduced", "a line": rival})
    assert row.verdict == verdict
    why = {
        "not specific": "a line passes the rule, too",
        "not judged": "a rival could not be judged: a line",
    }
    assert row.why == why.get(verdict, row.why)
    first = {"not specific": "a rival passes the rule", "not judged": "a rival could not be judged"}
    left_out = f"nothing: not run; {first[verdict]}, so they cannot" if verdict in first else ""
    assert row.fell_first.startswith(left_out)
    assert headline([row]).startswith(f"{int(verdict == 'reproduced')} of 1 measured claims reproduced")
    assert verdict in overview(VerdictTable([row], FACTS))
    same = VerdictRow.of(over(ours, RIVALLED), None, {"no gate": "not reproduced"})
    # The procedure is the same.
    assert row.otherwise == (same.otherwise if verdict != "not judged" else None)


@pytest.mark.parametrize(
    ("near", "caught"), [("not reproduced", "1 of 1"), ("inconclusive", "1 of 1"), ("weak", "0 of 1")]
)
def test_near_misses_alone_count_as_caught_and_weak_evidence_is_none(near, caught):
    others = {"a line": "reproduced", "nothing": "reproduced"}
    rows = [VerdictRow.of(over(CLEAR, RIVALLED), None, {"no gate": near, **others})]
    assert dict(error_rates(rows))["near misses caught, of the claims that are reproduced"].startswith(caught)


def test_rows_of_an_earlier_procedure_are_counted_apart():
    now, earlier = rows()[0], replace(rows()[1], procedure=1, verdict="reproduced", held=5)
    both = VerdictTable([now, earlier, earlier], FACTS)
    assert headline(both.rows) == (
        "1 of 1 measured claims reproduced; 2 of 2 measured claims reproduced by the earlier procedure"
    )
    assert headline([earlier]) == "1 of 1 measured claims reproduced by the earlier procedure"
    assert dict(error_rates(both.rows)) == {
        "null runs reproduced": "0 of 1 (95 % interval 0 to 79 %)",
        "near misses caught, of the claims that are reproduced": "1 of 1 (95 % interval 21 to 100 %)",
        "null runs reproduced, by the earlier procedure": "2 of 2 (95 % interval 34 to 100 %)",
        "breaks caught, of the claims that are reproduced, by the earlier procedure": (
            "0 of 2 (95 % interval 0 to 66 %)"
        ),
    }
    told = page(both, "paper")
    assert told.count("**verdict**: reproduced: earlier; 5 of 5 seeds held") == 2
    assert "nine of ten had to agree" in overview(both)
    assert "*earlier*" not in overview(VerdictTable(rows(), FACTS))


def test_the_forecast_sums_this_procedures_values():
    one = replace(rows()[0], otherwise=0.25)
    found = [one, replace(one, otherwise=0.4), replace(one, otherwise=None)]
    assert forecast(found) == ["another verification is expected to change 0.7 of 2 verdicts"]
    assert forecast([*found, replace(one, otherwise=0.9, procedure=1)]) == forecast(found)
    assert forecast([replace(one, otherwise=None)]) == []
    assert forecast(found)[0] in overview(VerdictTable(found, FACTS))


def test_reproduced_with_fewer_than_three_in_four_seeds_is_unsteady():
    gains = [0.21, 0.9, 0.19, 0.6, 0.15, 0.7, 0.19, 0.8, 0.5, 0.6]
    one = over(gains)
    assert (one.verdict, one.held) == ("reproduced", 7)
    assert "| reproduced: unsteady | 7 of 10 |" in overview(VerdictTable([VerdictRow.of(one)], FACTS))
    assert "unsteady" not in overview(VerdictTable([VerdictRow.of(over([0.01] * 5))], FACTS))


def test_runs_that_cannot_tell_are_not_judged():
    vague = over(CLEAR, vague=["gain: standard error 0.2, where 0.05 is allowed"])
    assert vague.verdict == "not judged"
    assert vague.why.startswith("too few judged items: gain: standard error 0.2")
    assert over(CLEAR, vague=[]).verdict == "reproduced"


def test_papers_are_counted_by_their_headline_claims():
    one, other, _ = rows()
    one = replace(one, claim=replace(one.claim, headline=True))
    assert headline([one, other]) == (
        "1 of 1 paper: headline claim reproduced; 1 of 2 measured claims reproduced (1 not reproduced)"
    )
    beaten = replace(one, verdict="not specific")
    assert headline([beaten, other]).startswith(
        "0 of 1 paper: headline claim reproduced (1 not specific); 0 of 2"
    )


def test_wilsons_interval():
    low, high = wilson(0, 40)
    assert low == 0
    assert high == pytest.approx(0.0876, abs=1e-3)


def test_the_overview_has_a_line_for_each_paper_and_escapes_markdown():
    odd = replace(rows()[0], claim=replace(GAIN, name="gain | a < b"))
    text = overview(VerdictTable([odd, *rows()[1:]], FACTS, [("paper", "seed 3: it <b>failed</b>")]))
    (line,) = [line for line in text.splitlines() if line.startswith("| [paper]")]
    assert line == (
        "| [paper](verdicts/paper.md) | gain \\| a \\< b | gain 0.304 (0.2898 to 0.3182) | ≥ 0.2 "
        "| reproduced | 5 of 5 | 1 not reproduced, 1 held |"
    )
    assert "it \\<b>failed\\</b>" in text


def test_the_headline_claim_represents_the_paper():
    one, other, _ = rows()
    other = replace(other, claim=replace(other.claim, name="the abstract's", headline=True))
    assert "| the abstract's |" in overview(VerdictTable([one, other], FACTS))


def test_a_papers_page_has_the_claim_its_runs_and_every_seed():
    claim = replace(RIVALLED, deviations="Smaller.", history=("Until now it said more.",), no_rival="")
    tried = {"no gate": "not reproduced", "a line": "weak"}
    row = replace(
        VerdictRow.of(over([0.3, 0.31, 0.29, 0.3, 0.32], claim), "not reproduced", tried),
        numbers={"null run": "gain 0 (0 to 0.01)", "a line": "gain 0.1"},
    )
    text = page(VerdictTable([row], {"paper": {"machine": "two | cores"}}), "paper")
    assert "- machine: two \\| cores" in text
    assert "`readtrack verify paper --null --breaks`" in text
    assert "| gain 0.304 (0.2898 to 0.3182) | ≥ 0.2 |" in text
    assert "| null run |  | Every arm is the control. | fails the rule | gain 0 (0 to 0.01) |" in text
    assert (
        "| a line | rival | A line is fitted. | an effect, not clearly as large as required | gain 0.1 |"
        in text
    )
    assert "- **history**: Until now it said more." in text
    assert f"| {row.seeds[1]} | 0.31 |" in text
    assert "the same \\| without" in text
    assert "0.4 (table 1)" in text


def test_a_best_value_at_the_edge_is_marked():
    edged = over([0.3] * 5, edges=["plain: rate 0.3"])
    told = page(VerdictTable([VerdictRow.of(edged)], {}), "paper")
    assert "best at the edge of the grid: plain: rate 0.3" in told


def test_an_effect_is_placed_between_equal_arms_and_the_threshold():
    above = replace(GAIN, rule=(Bound("gain", ">=", 0.2, 0.1),))
    (effect,) = over([0.3, 0.31, 0.29, 0.3, 0.32], above).effects
    mean, low, high = effect.scaled
    assert mean == pytest.approx((0.304 - 0.1) / 0.1)
    assert low == pytest.approx((effect.low - 0.1) / 0.1)
    assert low < mean < high
    # A ratio has a logarithmic scale, and an upper bound reverses it.
    less = replace(GAIN, rule=(Bound("gain", "<=", 0.5, 1.0, ratio=True),))
    (effect,) = over([0.25, 0.25, 0.25, 0.25, 0.2501], less).effects
    assert effect.scaled[0] == pytest.approx(2, abs=1e-3)
    assert effect.scaled[1] < 2 < effect.scaled[2]
    for open_ in (Bound("gain", ">=", 0.2), Bound("gain", ">=", 0.2, 0.2)):
        assert over([0.3] * 5, replace(GAIN, rule=(open_,))).effects[0].scaled is None
    without = over([0.3, math.nan, 0.3, 0.3, 0.3], above)
    assert without.effects[0].mean is None
    assert without.effects[0].scaled is None


def test_the_plot_has_a_mark_for_each_effect_and_takes_names_as_text():
    claim = replace(GAIN, rule=(Bound("gain", ">=", 0.2, 0.0),))
    near, far = VerdictRow.of(over(CLEAR, claim)), VerdictRow.of(over([9.0, 9.1, 9.2, 9.0, 9.1], claim))
    files = documents(VerdictTable([replace(near, paper="<a&b>"), far], {"<a&b>": {}, "paper": {}}))
    picture = ElementTree.fromstring(files["verdicts.svg"])
    assert len(picture.findall("{*}circle")) == 1  # the other one is outside the scale and has an arrow
    assert len(picture.findall("{*}path")) == 1
    assert "<a&b>" in [text.text for text in picture.findall("{*}text")]


def test_the_values_are_a_table_that_others_can_read():
    row = replace(
        VerdictRow.of(over([0.3, 0.31, math.nan, 0.3, 0.32] * 4)), runs=("r",) * 20, seconds=(2.5,) * 20
    )
    lines = list(csv.DictReader(io.StringIO(documents(VerdictTable([row], FACTS))["verdicts.csv"])))
    assert len(lines) == 20
    assert (lines[1]["value"], lines[2]["value"], lines[1]["run"], lines[1]["seconds"]) == (
        "0.31",
        "",
        "r",
        "2.5",
    )
    assert [line["seed"] for line in lines] == list(map(str, row.seeds))


def test_the_json_has_the_same_content_and_is_valid():
    body = json.loads(VerdictTable([*rows(), VerdictRow.of(over([math.nan] * 5))], FACTS).to_json())
    assert body["headline"].startswith("1 of 3 measured claims")
    assert [claim["verdict"] for claim in body["claims"][:3]] == ["reproduced", "not reproduced", "held"]
    assert body["claims"][0]["breaks"] == {"no gate": "not reproduced"}


def test_the_json_keeps_the_values_of_every_seed():
    table = VerdictTable([VerdictRow.of(over([0.3, 0.31, 0.29, 0.3, math.nan] * 4))], FACTS)
    body = json.loads(table.to_json())
    (claim,) = body["claims"]
    assert claim["values"] == {"gain": [0.3, 0.31, 0.29, 0.3, None] * 4}
    assert claim["procedure"] == body["procedure"]
    assert VerdictTable.from_json(table.to_json()).to_json() == table.to_json()
    del claim["values"], claim["procedure"]
    (old,) = VerdictTable.from_json(json.dumps(body)).rows
    assert (old.values, old.procedure, old.earlier) == ({}, 1, True)


def test_a_table_keeps_an_earlier_ones_rows_of_other_papers():
    one, other = VerdictRow.of(over([0.3] * 5)), VerdictRow.of(over([0.01] * 5))
    earlier = VerdictTable(
        [replace(other, paper="first"), other, replace(other, paper="gone")],
        {paper: {"date": "2026-01-01"} for paper in ("first", "paper", "gone")},
        [("first", "seed 3: killed"), ("paper", "seed 3: killed")],
    )
    read = VerdictTable.from_json(earlier.to_json())
    assert read.runs() == [(["first", "paper", "gone"], {"date": "2026-01-01"})]
    table = VerdictTable([one], {"paper": {"date": "2026-02-02"}}).joined(read, ["first", "paper", "last"])
    assert [(row.paper, row.verdict) for row in table.rows] == [
        ("first", "not reproduced"),
        ("paper", "reproduced"),
    ]
    assert table.remarks == [("first", "seed 3: killed")]
    assert "- date: 2026-01-01" in page(table, "first")
    assert "- date: 2026-02-02" in page(table, "paper")
    with pytest.raises(ValueError, match="not a table of verdicts"):
        VerdictTable.from_json('{"claims": [{}]}')


def test_the_shipped_documents_match_the_shipped_table():
    docs = Path(__file__).parents[1] / "docs"
    table = VerdictTable.from_json((docs / "verdicts.json").read_text(encoding="utf-8"))
    files = documents(table)
    assert {path.stem for path in (docs / "verdicts").iterdir()} == set(table.facts)
    for name, text in files.items():
        assert (docs / name).read_text(encoding="utf-8") == text, name


def test_the_shipped_table_fits_its_schema():
    docs = Path(__file__).parents[1] / "docs"
    schema = json.loads((docs / "verdicts.schema.json").read_text(encoding="utf-8"))
    body = json.loads((docs / "verdicts.json").read_text(encoding="utf-8"))
    jsonschema.validate(body, schema)
    assert body["procedure"] == verdicts.PROCEDURE
    spoilt = [{**body, "schema": 1}, {**body, "claims": [{**body["claims"][0], "verdict": "splendid"}]}]
    for bad in spoilt:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


def test_null_runs_that_vary_less_than_half_as_much_are_named():
    compares = replace(GAIN, rule=(at_least("nats", "ours", 0.2, minus="theirs"),), control_arm="theirs")
    plain = over([0.3, 0.5, 0.4, 0.3, 0.5], compares, compares.rule[0].metric)
    wide, narrow = (
        over([scale * value for value in (-1.0, 1.0, 0.0, -1.0, 1.0)], compares, compares.rule[0].metric)
        for scale in (0.1, 0.01)
    )
    row = VerdictRow.of(plain, narrow)
    assert row.narrow == ["nats, ours - theirs"]
    assert row.deviations["nats, ours - theirs"] == pytest.approx((0.1, 0.01))
    assert "its null runs vary less than half as much as it does: nats, ours - theirs" in caveats(row)
    assert VerdictRow.of(plain, wide).narrow == []
    assert VerdictRow.of(plain, replace(narrow, null_kind="items")).narrow == []
    text = page(VerdictTable([row], {"paper": {}}), "paper")
    assert "| nats, ours - theirs | 0.1 | 0.01 | less than half |" in text
    table = VerdictTable([row], {"paper": {}})
    assert VerdictTable.from_json(table.to_json()).rows[0].deviations == row.deviations


@pytest.mark.parametrize(
    ("rule", "null", "kind"),
    [
        (at_least("nats", "ours", 0.2, minus="theirs"), "pipeline", "pipelines"),
        (at_least("nats", "ours", 0.2, minus="theirs"), "items", "items"),
        (at_least("nats", "ours", -0.2, minus="theirs"), "pipeline", "as good as"),
        (at_most("nats", "ours", 1.05, over="theirs"), "pipeline", "as good as"),
    ],
)
def test_false_positives_are_counted_by_the_redrawn_part(rule, null, kind):
    claim = replace(GAIN, rule=(rule,), control_arm="theirs")
    alike = over([9.0, 9.1, 9.0, 9.1, 9.0], claim, rule.metric, null=null)
    assert alike.null_kind == kind
    labels = dict(error_rates([VerdictRow.of(over([0.3] * 5), alike)]))
    assert len(labels) == (2 if kind == "pipelines" else 3)


def test_a_rival_with_a_weak_effect_is_named_beside_a_reproduced_claim():
    rival = Break("a line", "A line is fitted.", "rival")
    claim = replace(GAIN, breaks=(rival, Break("half", "Half of it.", "near miss")))
    plain = over([0.3, 0.5, 0.4, 0.3, 0.5], claim, claim.rule[0].metric)
    row = VerdictRow.of(plain, breaks={"a line": "weak", "half": "weak"})
    assert row.verdict == "reproduced"
    assert "a rival has an effect, too: a line" in caveats(row)
    assert not caveats(VerdictRow.of(plain, breaks={"a line": "inconclusive", "half": "weak"}))
