"""The split of samples among terms: least variance at the same cost, nobody left with nothing."""

from __future__ import annotations

import itertools

import pytest

from integrators.boundary.budget import LEAST, Pilot, shares


def variance(pilots: dict[str, Pilot], split: dict[str, float]) -> float:
    return sum(p.variance / split[name] for name, p in pilots.items())


def cost(pilots: dict[str, Pilot], split: dict[str, float]) -> float:
    return sum(p.cost * split[name] for name, p in pilots.items())


def test_no_other_split_of_the_same_cost_has_less_variance() -> None:
    pilots = {"a": Pilot(9.0, 1.0), "b": Pilot(1.0, 4.0), "c": Pilot(2.0, 0.5)}
    split = shares(pilots)
    assert cost(pilots, split) == pytest.approx(cost(pilots, dict.fromkeys(pilots, 1.0)))
    assert variance(pilots, split) < variance(pilots, dict.fromkeys(pilots, 1.0))
    for one, other in itertools.permutations(pilots, 2):
        step = 0.01 * cost(pilots, split)
        moved = {**split, one: split[one] + step / pilots[one].cost, other: split[other] - step / pilots[other].cost}
        assert variance(pilots, moved) > variance(pilots, split)


def test_a_term_in_which_nothing_was_found_keeps_the_least_share() -> None:
    pilots = {"still": Pilot(0.0, 2.0), "rare": Pilot(1e-9, 1.0), "shadow": Pilot(3.0, 1.0)}
    split = shares(pilots)
    assert split["still"] == split["rare"] == LEAST and split["shadow"] > 1
    assert cost(pilots, split) == pytest.approx(4.0)


def test_without_any_variance_the_split_stays_equal() -> None:
    assert shares({"a": Pilot(0.0, 1.0), "b": Pilot(0.0, 2.0)}) == {"a": 1.0, "b": 1.0}
