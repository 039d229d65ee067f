"""`Run.compare`: its table, claims, null runs and breaks, and wiring mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from readtrack.checks.experiment import Watched, run_experiment
from readtrack.claims import SHUFFLED, UNTRAINED, AtLeast, Bound, Claim, at_least, at_most, flat
from readtrack.plugin import Arm
from readtrack.runs.shuffling import ShuffledTargets
from readtrack.runs.table import fall as falls
from readtrack.runs.table import related
from readtrack.verdicts import rule_seeds

from .toys import ARMS, BLIND, BREAK, LEAD, RATES, SHAPES, accuracy, attempt, claim, fit, plugin


@pytest.fixture
def carry_out(tmp_path) -> Callable:
    """Run a comparison; returns the record and the table."""

    def run(compare, **options):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        record, made = run_experiment(plugin(compare), folder, **options)
        return record, made.compared[0][1] if hasattr(made, "compared") else None

    return run


def values(record) -> dict[str, float]:
    return record.claims[0]["values"]


def compared(*claims, **more):
    """A simple comparison with some changed arguments."""
    given = {"arms": ARMS, "attempt": attempt(""), "read": accuracy, "grid": RATES, "breaks": BLIND} | more
    return lambda run, flaw: run.compare(*(claims or (LEAD,)), **given)


# Bounds


def test_a_bounds_name_states_the_comparison():
    assert at_least("accuracy", "ours", 0.1, minus="theirs").metric == "accuracy, ours - theirs"
    assert at_most("steps", "ours", 0.5, over="theirs").metric == "steps, ours / theirs"
    assert at_least("accuracy", "ours", 0.5).metric == "accuracy, ours"
    assert at_most("steps", "ours", 0.5, over="theirs").ratio


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arm": "a", "minus": "a"}, "'a' cannot be compared with 'a'"),
        ({"arm": "a", "minus": "b", "over": "c"}, "minus or over"),
        ({"arm": ""}, "arm '' cannot"),
    ],
)
def test_a_bound_without_a_comparison_is_an_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        at_least("accuracy", threshold=0.1, **wrong)


def test_a_claim_that_compares_arms_names_its_control():
    with pytest.raises(TypeError, match=r"'sees more'.*control_arm"):
        claim(at_least("accuracy", "all", 0.1), control="")


def test_seeds_of_a_claim_match_the_plain_bound():
    plain = claim(Bound("accuracy, all - half", ">=", 0.1, direction=0.0))
    assert rule_seeds([plain], 10) == rule_seeds([LEAD], 10)
    assert plain.rule == LEAD.rule
    assert Claim.from_json(LEAD.to_json()).rule[0].of == LEAD.rule[0].of
    assert "of" not in plain.to_json()["rule"][0]


@pytest.mark.parametrize(
    ("ours", "theirs", "how", "op", "result"),
    [
        (3.0, 2.0, "-", ">=", 1.0),
        (3.0, 2.0, "/", ">=", 1.5),
        (AtLeast(3.0), 2.0, "-", ">=", AtLeast(1.0)),
        (3.0, AtLeast(2.0), "/", "<=", 1.5),
        (3.0, AtLeast(2.0), "/", ">=", math.nan),
        (AtLeast(3.0), AtLeast(2.0), "-", "<=", math.nan),
        (3.0, 0.0, "/", "<=", math.nan),
    ],
)
def test_values_that_were_not_reached_are_compared_as_limits(ours, theirs, how, op, result):
    found = related(ours, theirs, how, op)
    assert found == result or (math.isnan(found) and math.isnan(result))


# Plain runs


def test_claims_are_judged_on_the_table(carry_out):
    record, table = carry_out(SHAPES["simple"], budget="quick")
    assert values(record) == {"accuracy, all - half": table["all", "accuracy"] - table["half", "accuracy"]}
    assert table.of("accuracy").keys() == {"all", "half"}
    assert {tuple(work.loops) for work in table.works if not work.stage} == {(8,)}


def scored(scores):
    """An attempt with the given score for each point, and 0 for other points."""

    def look_up(at, width, rate):
        return scores.get((at.name, rate), 0.0), attempt("")(at, width, rate)[1]

    return look_up


@pytest.mark.parametrize(
    ("scores", "grid", "edges"),
    [
        ({("all", 0.3): 1.0, ("half", 0.3): 1.0}, [0.1, 0.3, 0.9], []),
        ({("all", 0.1): 1.0, ("half", 0.3): 1.0}, [0.0333, 0.1, 0.3, 0.9], []),
        ({("all", 0.1): 1.0, ("half", 0.3): 1.0, ("half", 0.9): 2.0}, [0.0333, 0.1, 0.3, 0.9], ["half"]),
        (
            {(arm, rate): rate for arm in ARMS for rate in (0.3, 0.9, 2.7)},
            [0.1, 0.3, 0.9, 2.7],
            ["all", "half"],
        ),
    ],
    ids=["one side", "both sides", "still at the edge", "twice on one side"],
)
def test_a_best_value_at_the_edge_widens_the_grid_of_all_arms(carry_out, scores, grid, edges):
    record, table = carry_out(compared(attempt=scored(scores), keep="highest"), budget="quick")
    for row in ("all", "half"):
        assert list(table.best[row].grid) == pytest.approx(grid)
        assert sorted(table.sweeps[row].points) == pytest.approx(grid)
    assert [text.partition(":")[0] for text in record.claims[0]["edges"]] == edges
    assert table.best["all"].value == table.sweeps["all"].point


def test_a_grid_that_the_claim_is_about_is_not_widened(carry_out):
    _, table = carry_out(compared(widen=False), budget="quick")
    assert table.best["all"].grid == RATES


def test_rows_of_levels_have_the_levels_name(carry_out):
    _, table = carry_out(SHAPES["series"], budget="quick")
    assert table.rows.keys() == {"all@4", "all@8", "half@4", "half@8"}


def test_arms_with_one_stage_share_its_result(carry_out):
    _, table = carry_out(SHAPES["shared stage"], budget="quick")
    assert [work.arm for work in table.works if work.stage == "before"] == ["all"]
    _, table = carry_out(SHAPES["shared stage"], budget="quick", null=True)
    assert [work.arm for work in table.works if work.stage == "before"] == ["all", "half"]


def test_a_point_can_be_anything(carry_out):
    _, table = carry_out(SHAPES["points"], budget="quick")
    assert table.sweeps["all"].points.keys() == {(0.1, 4), (0.1, 8), (0.3, 8)}
    assert table.sweeps["all"].point in table.sweeps["all"].points


def test_the_second_training_is_used(carry_out):
    _, table = carry_out(SHAPES["twice"], budget="quick")
    works = [work for work in table.works if work.arm == "all" and not work.stage]
    assert {tuple(work.loops) for work in works if not work.again} == {(4,)}
    assert [work.loops for work in works if work.again] == [[8]]
    sweep = table.sweeps["all"]
    assert sweep.chosen is not sweep.points[sweep.point]


# Null runs and breaks


def test_a_null_run_copies_the_control_under_every_name(carry_out):
    made = []

    def counted(at, width, rate):
        made.append((at.name, width))
        return attempt("")(at, width, rate)

    record, _ = carry_out(compared(attempt=counted, yardsticks={"five": Arm(5)}), null=True)
    assert set(made) == {("all", 3), ("half", 3), ("five", 5)}
    assert values(record)["accuracy, all - half"] != 0


def test_each_control_has_its_own_copies(carry_out):
    other = Claim(
        **{
            **{name: getattr(LEAD, name) for name in LEAD.__dataclass_fields__},
            "name": "as much",
            "rule": (at_least("accuracy", "all", 0.0, minus="five"),),
            "control_arm": "five",
        }
    )
    record, table = carry_out(compared(LEAD, other, arms={**ARMS, "five": Arm(5)}), null=True)
    assert [one["claim"]["name"] for one in record.claims] == ["sees more", "as much"]
    assert {work.arm for work in table.works} == {"all", "half", "all, as five", "five, as five"}


def test_a_coin_for_each_item_makes_the_null_of_read_outs(carry_out):
    differences = []
    for seed in range(4):
        record, _ = carry_out(SHAPES["read-out"], budget="quick", null=True, seed=seed)
        differences.append(abs(values(record)["accuracy, all - half"]))
    plain, _ = carry_out(SHAPES["read-out"], budget="quick")
    assert 0 < max(differences) < 0.15
    assert abs(values(plain)["accuracy, all - half"]) > max(differences)


def test_without_a_null_run_the_claim_is_left_unjudged(carry_out):
    record, _ = carry_out(SHAPES["no training"], null=True)
    judged = record.claims[0]
    assert (judged["verdict"], judged["why"]) == ("not judged", "no null run: nothing is trained")


def test_a_break_replaces_an_arm(carry_out):
    record, _ = carry_out(SHAPES["simple"], broken="blind", budget="quick")
    assert values(record) == {"accuracy, all - half": 0.0}


def test_a_break_replaces_the_world(carry_out):
    seen = []

    def worldly(at, width, rate):
        seen.append(at.world)
        return attempt("")(at, width, rate)

    broken = compared(attempt=worldly, world="order", breaks={"blind": lambda world: f"no {world}"})
    _, table = carry_out(broken, broken="blind")
    assert set(seen) == {"no order"}
    assert table.world == "no order"


def test_a_run_without_wanted_claims_trains_nothing(carry_out):
    record, table = carry_out(SHAPES["simple"], broken="of another claim")
    assert not record.curves
    assert not table.rows


def test_the_papers_arm_can_be_left_untrained(carry_out):
    untrained = replace(LEAD, breaks=(BREAK, UNTRAINED))
    _, table = carry_out(compared(untrained), broken="untrained", budget="quick")
    assert {work.taken for work in table.works if work.arm == "all"} == {0}
    assert {work.taken for work in table.works if work.arm == "half" and not work.stage} == {8}


def test_every_measured_claim_on_arms_can_be_run_with_shuffled_targets(carry_out):
    assert SHUFFLED in LEAD.breaks
    plain, _ = carry_out(SHAPES["own stage"], budget="quick")
    record, table = carry_out(SHAPES["own stage"], broken=SHUFFLED.name, budget="quick")
    ours = [work for work in table.works if work.updates and work.arm == "all"]
    theirs = [work for work in table.works if work.updates and work.arm == "half"]
    assert {work.stage for work in ours} == {"", "long"}
    assert all(work.shuffled == work.updates == 8 for work in ours)
    assert {work.shuffled for work in theirs} == {0}
    assert values(record)["accuracy, all - half"] < values(plain)["accuracy, all - half"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"attempt": lambda at, width, rate: (0.0, torch.nn.Linear(width, 1))}, "is trained without targets"),
        ({"attempt": None}, "all has losses whose targets readtrack cannot shuffle"),
    ],
)
def test_where_no_target_can_be_shuffled_the_claim_is_not_judged(carry_out, given, why):
    def by_hand(at, width, rate):
        model = torch.nn.Linear(width, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for step in at.steps(2):
            at.descend(model.weight.square().sum(), optimizer, step=step)
        return 0.0, model

    given = {**given, "attempt": given.get("attempt", attempt("")) or by_hand}
    record, _ = carry_out(compared(**given), broken=SHUFFLED.name, budget="quick")
    (said,) = record.claims
    assert (said["verdict"], said["values"]) == ("not judged", {})
    assert why in said["why"]


def test_targets_are_shuffled_where_gradients_are_recorded():
    shuffling = ShuffledTargets(torch.Generator().manual_seed(0))
    logits, classes = torch.randn(50, 3, requires_grad=True), torch.randint(3, (50,))
    exact = F.cross_entropy(logits, classes)
    with shuffling:
        assert F.cross_entropy(logits, target=classes) != exact
        assert F.mse_loss(logits, torch.ones(50, 3)) == F.mse_loss(logits.detach(), torch.ones(50, 3))
        with torch.no_grad():
            assert F.cross_entropy(logits, classes) == exact
    assert shuffling.done == 1  # targets that are all equal cannot be shuffled
    assert F.cross_entropy(logits, classes) == exact


def test_a_break_that_makes_arms_equal_is_reported(carry_out):
    record, _ = carry_out(SHAPES["simple"], broken=BREAK.name, budget="quick")
    assert record.claims[0]["alike"] == ["all and half"]
    assert "alike" not in carry_out(SHAPES["simple"], budget="quick")[0].claims[0]
    other = carry_out(compared(breaks={BREAK.name: {"all": Arm(4)}}), broken=BREAK.name, budget="quick")
    assert "alike" not in other[0].claims[0]


def test_as_good_as_has_a_null_run_that_must_not_hold(carry_out):
    as_good = claim(
        at_least("accuracy", "all", -0.02, minus="half"), at_least("accuracy", "all", 0.9, over="half")
    )
    leading = claim(
        at_least("accuracy", "all", 0.02, minus="half"), at_least("accuracy", "all", 1.1, over="half")
    )
    worse, equal = (values(carry_out(compared(one), null=True)[0]) for one in (as_good, leading))
    difference, ratio = "accuracy, all - half", "accuracy, all / half"
    assert worse[difference] == pytest.approx(equal[difference] - 0.02)
    assert worse[ratio] == pytest.approx(equal[ratio] * 0.9)
    perfect = carry_out(compared(as_good, read=lambda at, found: {"accuracy": 1.0}), null=True)
    assert values(perfect[0])[difference] == pytest.approx(-0.02)
    assert not any(bound.holds(values(perfect[0])[bound.metric]) for bound in as_good.bounds)


# Loops shortened by readtrack


@pytest.mark.parametrize(("share", "taken"), [(0.0, 0), (0.5, 4), (1.0, 8)])
def test_the_core_cuts_steps(tmp_path, share, taken):
    class Cut(Watched):
        def share_of_steps(self, arm: str) -> float:
            return share if arm == "all" else 1.0

    _, made = run_experiment(plugin(SHAPES["own stage"]), tmp_path, kind=Cut, budget="quick")
    works = made.compared[0][1].works
    assert {work.taken for work in works if work.arm == "all" and work.stage in ("", "long")} == {taken}
    assert {work.taken for work in works if work.arm == "half" and work.stage == "long"} <= {8}
    assert {work.taken for work in works if work.arm == "half" and not work.stage} == {8}


def test_early_stopping_keeps_the_best_and_is_defined_without_a_check(carry_out):
    kept = {}

    def stopped(at, width, rate):
        scores = iter([0.1, 0.5, 0.5, 0.3])
        stopping = at.early_stopping(lambda: (next(scores), len(kept)))
        for _ in at.steps(3):
            kept[len(kept)] = 0
            stopping.check()
        kept["best"] = stopping.best()
        kept["alone"] = at.early_stopping(lambda: (0.2, "start")).best()
        return attempt("")(at, width, rate)

    carry_out(compared(attempt=stopped, grid=(0.1,)))
    assert kept["alone"] == (0.2, "start")
    assert kept["best"][0] == 0.5


# Wiring mistakes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"arms": {"all": Arm(6), "third": Arm(2)}},
            "claim 'sees more': no arm 'half'; there are 'all', 'third'",
        ),
        ({"breaks": {}}, "claim 'sees more': the comparison has no break 'blind'"),
        ({"breaks": {**BLIND, "other": {}}}, "break 'other': no claim"),
        ({"breaks": {"blind": {"none": Arm(3)}}}, "break 'blind': no arm 'none'"),
        ({"levels": {"none": (1,)}}, "levels: no arm 'none'"),
        ({"unequal": {"none": "?"}}, "unequal: no arm 'none'"),
        ({"yardsticks": {"all": Arm(3)}}, "'all': an arm cannot be a yardstick"),
        (
            {"read": lambda at, found: {"nats": 0.0}},
            "claim 'sees more': arm 'all' has no 'accuracy'; there are 'nats'",
        ),
        ({"derive": lambda table: {"slope": {}}}, "derive: no row 'slope'"),
    ],
)
def test_a_mistake_names_the_claim_and_the_arm(carry_out, more, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        carry_out(compared(**more))


def test_a_control_must_be_an_arm(carry_out):
    with pytest.raises(ValueError, match="control_arm 'nobody' is not one of the arms"):
        carry_out(compared(claim(at_least("accuracy", "all", 0.1), control="nobody")))


def test_items_need_a_tensor(carry_out):
    with pytest.raises(
        ValueError, match="claim 'sees more': null='items' needs tensors of 'accuracy' for 'all' and 'half'"
    ):
        carry_out(compared(null="items"), null=True)


@pytest.mark.parametrize(
    ("bound", "items", "said"),
    [
        (
            at_least("accuracy", "all", 0.3, minus="half"),
            4,
            "accuracy, all - half: standard error 0.29, but only 0.1",
        ),
        (at_least("accuracy", "all", 0.3, minus="half"), 400, ""),
        (
            at_least("accuracy", "all", 0.7, toward=0.6),
            100,
            "accuracy, all: standard error 0.044, but only 0.033",
        ),
        (at_least("accuracy", "all", 0.7, toward=0.6), 400, ""),
        (at_least("accuracy", "all", 0.6, toward=0.5), 100, ""),  # 0.75 is far enough from 0.6
        (at_least("accuracy", "all", 0.6), 4, ""),  # there is no value for equal arms to tell it from
        (
            at_least("accuracy", "all", 2.0, over="half"),
            16,
            "accuracy, all / half: standard error 1.3, but only 0.33",
        ),
        (at_least("accuracy", "all", 2.0, over="half"), 400, ""),
    ],
)
def test_a_run_that_judges_too_few_items_cannot_tell(carry_out, bound, items, said):
    right = {"all": torch.tensor([1.0, 1.0, 0.0, 1.0]), "half": torch.tensor([0.0, 1.0, 0.0, 0.0])}
    read = {name: one.repeat(items // 4) for name, one in right.items()}
    record, _ = carry_out(
        compared(
            claim(bound, control="half"), read=lambda at, found: {"accuracy": read[at.name]}, breaks=BLIND
        )
    )
    (vague,) = record.claims[0]["vague"] or [""]
    assert vague.startswith(said)
    assert bool(vague) == bool(said)


def test_the_precision_of_a_ratio_matches_resampled_items(carry_out):
    torch.manual_seed(0)
    a, b = torch.rand(60) + 1, torch.rand(60) + 2
    b += a  # items that are hard for one arm are hard for the other
    read = {"all": a, "half": b}
    bound = at_most("nats", "all", 0.38, over="half", toward=0.3801)
    record, _ = carry_out(
        compared(claim(bound, control="half"), read=lambda at, found: {"nats": read[at.name]}, breaks=BLIND)
    )
    rows = torch.randint(60, (20_000, 60))
    wanted = (a[rows].mean(1) / b[rows].mean(1)).std().item()
    found = float(record.claims[0]["vague"][0].split("error ")[1].split(",")[0])
    assert found == pytest.approx(wanted, rel=0.1)


def test_data_have_one_of_four_parts(carry_out):
    with pytest.raises(ValueError, match="'held out' is not a part"):
        carry_out(lambda run, flaw: run.data("inputs", "held out"))


# Controls that have learned


@pytest.mark.parametrize(
    ("losses", "fall"),
    [
        ([1.0] * 5 + [0.0] * 95, 0.0),  # it has decreased and is flat
        ([1 - step / 100 for step in range(100)], 0.2),  # a straight line: a fifth in a fifth of the steps
        ([step / 100 for step in range(100)], math.nan),  # it increases
        ([1.0, 0.0], math.nan),  # too few steps
    ],
)
def test_the_share_of_a_decrease_at_the_end(losses, fall):
    assert falls(losses) == pytest.approx(fall, abs=0.03, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "verdict"), [(40, "not judged"), (4000, "held")])
def test_a_control_that_still_learns_is_not_judged(carry_out, steps, verdict):
    def train(at, width, rate):
        model = torch.nn.Linear(width, 1)
        fit(at, model, 0.02, "", steps)
        return 0.0, model

    learned = replace(LEAD, learned=(flat("half"),))
    record, _ = carry_out(compared(learned, attempt=train, grid=()), budget="quick")
    assert record.claims[0]["verdict"] == verdict


def test_the_ceiling_of_a_control_is_a_row_of_the_table(carry_out):
    learned = replace(LEAD, learned=(at_least("accuracy", "half", 0.9, over="the law"),))
    given = {"references": {"the law": {"accuracy": 1.0}}}
    record, _ = carry_out(compared(learned, **given), budget="quick")
    assert record.claims[0]["verdict"] == "not judged"
    assert record.claims[0]["why"].startswith("the control failed: accuracy, half / the law ≥ 0.9")
    with pytest.raises(ValueError, match="'accuracy, all' is not about the control"):
        carry_out(compared(replace(LEAD, learned=(at_least("accuracy", "all", 0.9),))))


def test_more_steps_are_for_claims_that_state_their_number(carry_out):
    def train(at, width, rate):
        model = torch.nn.Linear(width, 1)
        fit(at, model, rate, "", at.length(8))
        return 0.0, model

    stated = replace(LEAD, after_steps=8)
    _, table = carry_out(compared(stated, attempt=train), budget="quick", times=4)
    assert {work.loops[0] for work in table.works if not work.stage} == {32}
    _, table = carry_out(compared(attempt=train), budget="quick", times=4)
    assert not table.works
    with pytest.raises(TypeError, match="set either learned or after_steps, not both"):
        replace(stated, learned=(flat("half"),))
