"""Placement: never over capacity, nothing moves that need not, and what was placed once stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from clary.core.placement import Compute, Item, Node, place, surplus, used

GIB = 1024**3

COMPUTE = st.builds(
    Compute,
    st.sampled_from([0.0, 0.25, 0.1, 0.5, 1.0, 2.0, 4.0]),
    st.integers(0, 8).map(lambda n: n * GIB),
    st.sampled_from([0.0, 1.0, 2.0]),
)
NODES = st.lists(COMPUTE, max_size=5).map(lambda all: [Node(f"i-{n}", each) for n, each in enumerate(all)])


@st.composite
def items(draw: st.DrawFn, prefix: str = "") -> list[Item]:
    groups = draw(st.lists(st.tuples(COMPUTE, st.sampled_from(["SPREAD", "BINPACK"]), st.integers(1, 5)), max_size=5))
    return [
        Item(f"{prefix}{group}-{number}", f"{prefix}{group}", needs, strategy)  # type: ignore[arg-type]
        for group, (needs, strategy, copies) in enumerate(groups)
        for number in range(copies)
    ]


def together(placed: Mapping[str, str], wanted: Sequence[Item]) -> list[tuple[Item, str]]:
    return [(item, placed[item.id]) for item in wanted if item.id in placed]


@given(NODES, items("old"), items("new"))
def test_no_node_is_ever_over_capacity(nodes: list[Node], old: list[Item], new: list[Item]) -> None:
    there = together(place(nodes, (), old), old)
    there += together(place(nodes, there, new), new)
    taken = used(there)
    for node in nodes:
        assert taken.get(node.id, Compute()).fits(node.capacity)


@given(NODES, items("old"), items("new"))
def test_what_is_not_placed_fits_nowhere(nodes: list[Node], old: list[Item], new: list[Item]) -> None:
    there = together(place(nodes, (), old), old)
    placed = place(nodes, there, new)
    taken = used(there + together(placed, new))
    for item in new:
        if item.id not in placed:
            assert not any(item.needs.fits(node.capacity - taken.get(node.id, Compute())) for node in nodes)


@given(NODES, items())
def test_it_converges_at_once(nodes: list[Node], wanted: list[Item]) -> None:
    placed = place(nodes, (), wanted)
    left = [item for item in wanted if item.id not in placed]
    assert place(nodes, together(placed, wanted), left) == {}


@given(NODES, items(), st.integers(0, 4))
def test_when_an_instance_is_lost_its_copies_alone_move(nodes: list[Node], wanted: list[Item], lost: int) -> None:
    placed = place(nodes, (), wanted)
    rest = [node for node in nodes if node.id != f"i-{lost}"]
    there = [(item, node) for item, node in together(placed, wanted) if node != f"i-{lost}"]
    homeless = [item for item in wanted if placed.get(item.id) == f"i-{lost}"]
    moved = place(rest, there, homeless)
    assert moved.keys() <= {item.id for item in homeless}
    assert f"i-{lost}" not in moved.values()


@given(NODES, items(), items("full"))
def test_what_is_over_full_already_gets_no_more_and_loses_nothing(
    nodes: list[Node], wanted: list[Item], full: list[Item]
) -> None:
    there = [(item, "i-0") for item in full]
    taken = used(there).get("i-0", Compute())
    placed = place(nodes, there, wanted)
    if nodes and not taken.fits(nodes[0].capacity):
        gets = [item for item in wanted if placed.get(item.id) == "i-0"]
        # What needs nothing of that which is short may still come.
        assert all((taken + item.needs).share(nodes[0].capacity) >= taken.share(nodes[0].capacity) for item in gets)
        assert all(item.needs.fits(nodes[0].capacity - taken) for item in gets)


@given(st.integers(1, 5), st.integers(0, 20))
def test_copies_are_spread_evenly_over_equal_instances(nodes: int, copies: int) -> None:
    there = [Node(f"i-{n}", Compute(100, 100 * GIB)) for n in range(nodes)]
    wanted = [Item(f"c-{n}", "c", Compute(1, GIB), "SPREAD") for n in range(copies)]
    crowd = Counter(place(there, (), wanted).values())
    assert max(crowd.values(), default=0) - min((crowd[node.id] for node in there), default=0) <= 1


@given(st.integers(1, 5), st.integers(0, 20))
def test_packed_copies_take_as_few_instances_as_hold_them(nodes: int, copies: int) -> None:
    there = [Node(f"i-{n}", Compute(4, 100 * GIB)) for n in range(nodes)]
    wanted = [Item(f"c-{n}", "c", Compute(1, GIB), "BINPACK") for n in range(copies)]
    placed = place(there, (), wanted)
    assert len(placed) == min(copies, 4 * nodes)
    assert len(set(placed.values())) == -(-len(placed) // 4)


def test_tenths_of_a_core_add_up_to_cores() -> None:
    wanted = [Item(f"c-{n}", "c", Compute(0.1, 0)) for n in range(40)]
    assert len(place([Node("i-0", Compute(4.0, 0))], (), wanted)) == 40


def test_a_packed_copy_goes_where_least_is_left() -> None:
    nodes = [Node("i-0", Compute(4, 8 * GIB)), Node("i-1", Compute(4, 8 * GIB))]
    there = [(Item("a", "a", Compute(1, GIB)), "i-0"), (Item("b", "b", Compute(1, 5 * GIB)), "i-1")]
    assert place(nodes, there, [Item("c", "c", Compute(1, 2 * GIB), "BINPACK")]) == {"c": "i-1"}
    assert place(nodes, there, [Item("c", "c", Compute(1, 4 * GIB), "BINPACK")]) == {"c": "i-0"}
    assert place(nodes, there, [Item("c", "c", Compute(1, 2 * GIB), "SPREAD")]) == {"c": "i-0"}


def test_surplus_is_taken_from_the_crowd_or_where_an_instance_comes_free() -> None:
    def copies(strategy: str) -> list[tuple[Item, str]]:
        nodes = ["i-0", "i-0", "i-0", "i-1"]
        return [(Item(str(n), "c", Compute(), strategy), node) for n, node in enumerate(nodes)]  # type: ignore[arg-type]

    assert [item.id for item in surplus(copies("SPREAD"), 2)] == ["2", "1"]
    assert [item.id for item in surplus(copies("BINPACK"), 1)] == ["3"]
    assert surplus(copies("SPREAD"), -1) == []
