"""Picking a target: weights, names, load, and what is not ready."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clary.core.routing import (
    DataCapture,
    EndpointRoute,
    Hop,
    RouteTable,
    Target,
    VariantRoute,
    copies,
    find,
    narrowed,
    pick,
)


def route(*variants: tuple[str, float, int]) -> EndpointRoute:
    """Give a route from (name, weight, number of targets)."""
    made = tuple(
        VariantRoute(name, weight, tuple(Target(f"{name}{number}", ()) for number in range(count)))
        for name, weight, count in variants
    )
    return EndpointRoute("demo", "InService", made)


def shares(made: EndpointRoute, steps: int = 1200) -> Counter[str]:
    picked = (pick(made, None, step / steps, {}) for step in range(steps))
    return Counter(found[1].id for found in picked if found)


def test_traffic_follows_the_weights_and_is_even_between_idle_targets() -> None:
    assert shares(route(("a", 3, 2), ("b", 1, 1))) == {"a0": 450, "a1": 450, "b0": 300}


def test_a_variant_of_weight_0_gets_only_what_names_it() -> None:
    made = route(("a", 1, 1), ("b", 0, 1))
    assert shares(made) == {"a0": 1200}
    found = pick(made, "b", 0.5, {})
    assert found is not None and found[1].id == "b0"


def test_traffic_moves_away_from_a_variant_that_is_down() -> None:
    assert shares(route(("a", 1, 0), ("b", 1, 1))) == {"b0": 1200}


def test_nothing_ready_is_none() -> None:
    assert pick(route(), None, 0.5, {}) is None
    assert pick(route(("a", 1, 0)), None, 0.5, {}) is None
    assert pick(route(("a", 1, 0)), "a", 0.5, {}) is None
    assert pick(route(("a", 1, 1)), "unknown", 0.5, {}) is None


@given(chance=st.floats(0, 1, exclude_max=True), loads=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_target_with_the_fewest_requests_under_way_is_chosen(chance: float, loads: list[int]) -> None:
    found = pick(route(("a", 1, len(loads))), None, chance, {f"a{number}": load for number, load in enumerate(loads)})
    assert found is not None
    assert loads[int(found[1].id[1:])] == min(loads)


def test_a_random_strategy_looks_at_no_load() -> None:
    targets = (Target("a", ()), Target("b", ()))
    made = EndpointRoute("demo", "InService", (VariantRoute("v", 1, targets, strategy="RANDOM"),))
    picked = Counter(
        found[1].id for step in range(100) if (found := pick(made, None, step / 100, {"a": 1000})) is not None
    )
    assert picked == {"a": 50, "b": 50}


def test_a_table_survives_json() -> None:
    target = Target("i-1", (Hop("c-1", "127.0.0.1", 1, "first"), Hop("c-2", "127.0.0.1", 2, "second")))
    made = EndpointRoute(
        "demo",
        "InService",
        (VariantRoute("v", 0.5, (target,), direct=("first", "second"), strategy="RANDOM"),),
        (VariantRoute("dark", 1.0, ()),),
        DataCapture("s3://b/p", 20, True, False, ("text/csv",), ("application/json",)),
        ("i-1", "i-2"),
    )
    table = RouteTable(3, {"demo": made})
    assert table.has_instance("i-2") and not table.has_instance("i-3")
    assert RouteTable.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_a_target_is_found_by_its_id_in_the_wanted_variant() -> None:
    made = route(("a", 1, 2), ("b", 1, 1))
    found = find(made, None, "a1")
    assert found is not None and (found[0].name, found[1].id) == ("a", "a1")
    assert find(made, "b", "a1") is None
    assert find(made, None, "gone") is None


def test_naming_a_container_leaves_the_instances_of_direct_mode_on_which_it_is_ready() -> None:
    one, two = (Hop(name, "127.0.0.1", 1, name) for name in ("one", "two"))
    direct = VariantRoute("d", 1, (Target("whole", (one, two)), Target("half", (one,))), ("one", "two"))
    serial = VariantRoute("s", 1, (Target("chain", (one, two)),))
    left = narrowed(EndpointRoute("demo", "InService", (direct, serial)), "two")
    assert [each.targets for each in left.variants] == [(Target("whole", (two,)),), serial.targets]
    assert left.variants[0].direct == ("one", "two")
    assert narrowed(left, "nobody").variants[0].targets == ()


def test_a_shadow_gets_its_weights_share_of_the_requests() -> None:
    variants = route(("a", 3, 1), ("b", 1, 1)).variants
    shadows = (VariantRoute("dark", 1, (Target("s", ()),)), VariantRoute("down", 4, ()))
    made = EndpointRoute("demo", "InService", variants, shadows)
    got = [shadow.name for step in range(400) for shadow in copies(made, iter([step / 400] * 2))]
    assert Counter(got) == {"dark": 100}
