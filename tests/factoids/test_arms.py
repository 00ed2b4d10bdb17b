"""How arms are written, and the tree of runs that they make."""

import dataclasses

import pytest

from forget_jax.errors import UserError
from forget_jax.factoids import verdict
from forget_jax.factoids.mitigations import PARTS, Mitigation, Mix, parse
from forget_jax.factoids.tree import RECOVERY, Axes, forests, grid

AB = ("a", "b")
NOTHING = Mitigation()


@pytest.mark.parametrize(
    ("arm", "in_a", "in_b"),
    [
        ("naive", NOTHING, NOTHING),
        ("mix in A", Mitigation(mixes=(Mix("random", 2.0),)), NOTHING),
        ("random/25:0.5 in B", NOTHING, Mitigation(mixes=(Mix("random", 0.5, 25),))),
        (
            "random in A + generic:1 in B",
            Mitigation(mixes=(Mix("random", 2.0),)),
            Mitigation(mixes=(Mix("generic", 1.0),)),
        ),
        ("steps in A", Mitigation(steps=2.0), NOTHING),
        ("redraw:10", NOTHING, Mitigation(replay=0.1, redrawn=True)),
        ("joint", NOTHING, Mitigation(replay=1.0)),
        ("ewc:3e2 + l2", NOTHING, Mitigation(ewc=300.0, l2=1.0)),
        ("kl:0.5", NOTHING, Mitigation(kl=0.5)),
        ("lora:4 in B", NOTHING, Mitigation(lora=4)),
        ("freeze:0.75", NOTHING, Mitigation(frozen=0.75)),
    ],
)
def test_what_an_arm_does(arm, in_a, in_b):
    assert parse(arm, 2, 2.0) == (in_a, in_b)


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ("ewk", "did you mean ewc"),
        ("mix in C", "there are AB"),
        ("ewc in A", "needs an earlier stage"),
        ("kl:0", "above 0"),
        ("kl:--1", "must be a number"),
        ("replay:101", "at most 100"),
        ("ewc/3", "has no length"),
        ("", "is no part"),
        ("mix in A, ewc", "is no part"),
    ],
)
def test_an_arm_that_is_not_understood(arm, said):
    with pytest.raises(UserError, match=said) as e:
        parse(arm, 2, 2.0)
    assert "\n" not in str(e.value)


def test_every_part_makes_some_difference_by_default():
    for name in PARTS:
        assert parse(name, 2, 1.0) != (NOTHING, NOTHING)


def test_arms_share_runs_until_they_part():
    axes = Axes((AB, ("a", "c")), ("naive", "mix in A", "mix in B", "mix in both"), 2, 2.0)
    made = grid(axes, 0)
    first = [node for node in made.nodes.values() if not node.parent]
    assert len(first) == 2 * 2  # seeds x (mix in A or not); both sequences begin with a
    assert len(made.nodes) == 4 + 2 * 2 * 4  # seeds x second sets x arms
    assert len(made.paths) == 2 * 2 * 4
    for path in made.paths:
        nodes = [made.nodes[name] for name in path.nodes]
        assert nodes[1].parent == nodes[0].name and nodes[1].sets == path.sequence
        assert tuple(n.what for n in nodes) == parse(path.arm, 2, 2.0)


def test_seeds_depend_on_repetition_and_stage_alone():
    few, many = (
        grid(Axes((AB,), arms, 2, 2.0), 7) for arms in (("naive",), ("ewc", "naive", "joint"))
    )

    def seeds(made):
        return {
            (path.seed, k): made.nodes[name].seed
            for path in made.paths
            if path.arm == "naive"
            for k, name in enumerate(path.nodes)
        }

    assert seeds(few) == seeds(many) and len(set(seeds(few).values())) == 4


def test_three_stages_and_a_recovery_are_trained_parents_first():
    made = grid(Axes((("a", "b", "c"),), ("naive", "random in B"), 1, 1.0, True), 0)
    for apart in (True, False):
        seen = set()
        for levels in forests(made, apart):
            for level in levels:
                for node in level:
                    assert not node.parent or node.parent in seen
                    seen.add(node.name)
        assert seen == set(made.nodes)
    last = made.nodes[made.paths[0].nodes[-1]]
    assert last.what is None and last.name.endswith(RECOVERY) and len(made.paths[0].nodes) == 4
    assert [n.stage for n in made.below(made.paths[0].nodes[0])].count(2) == 4


def test_controls_are_found_and_families_hold_what_they_say():
    arms = ("naive", "random in A", "steps in A", "redraw:10", "ewc", "random in A + ewc", "joint")
    found = verdict.comparisons(arms, 2, 2.0)
    assert found["naive"] == [(a, "naive") for a in arms[1:]]
    assert found["control"] == [("random in A", "steps in A")]
    assert found["replay"] == [("random in A", "redraw:10")]
    done = parse("random:0.5 in A + generic:1 in A", 2, 2.0)
    assert verdict.control(done)[0] == dataclasses.replace(NOTHING, steps=1.5)
