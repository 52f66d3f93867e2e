"""The packing of an endpoint's instances, drawn: as text for the terminal, as a picture for the documentation.

`python -m clary.cli.packing > docs/packing.svg` draws what the planner makes of an example.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from clary.core.occupancy import Occupant, Occupied, State
from clary.core.placement import Compute, Item, Node, Strategy, place

GIB = 1024**3
_WIDTH = 48
"""Characters of a bar."""
_STATES: Mapping[State, str] = {"starting": "starting", "leaving": "being stopped"}

Measure = Callable[[Compute], float]
_MEASURES: Sequence[tuple[str, str, Measure]] = (
    ("CPU", "CPU", lambda amount: amount.cpus),
    ("memory", "GiB", lambda amount: amount.memory / GIB),
    ("accelerators", "accelerators", lambda amount: amount.accelerators),
)


PATH = "/_clary/packing"
"""Where the control plane's socket, which is its user's alone, tells of an endpoint's instances."""


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, file: Path) -> None:
        super().__init__("control", timeout=5)
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._file))


def put(control_socket: Path, path: str, question: Mapping[str, object]) -> Any:
    """Put a question to the control plane; None where nobody can tell now."""
    connection = _OverSocket(control_socket)
    try:
        connection.request("POST", path, json.dumps(question))
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):  # a control plane that is away; the rest is still told
        return None
    finally:
        connection.close()


def ask(control_socket: Path, endpoint: str) -> list[Occupied]:
    """Ask what is on each instance of an endpoint; empty where it is not for components, or nobody can tell now."""
    return [Occupied.from_json(each) for each in put(control_socket, PATH, {"EndpointName": endpoint}) or ()]


def text(instances: Sequence[Occupied]) -> list[str]:
    """Draw instances as lines: a bar for each kind of what they have, a letter for each component.

    Capital and small letters take turns with the copies of one component.
    """
    names = dict.fromkeys(each.component for instance in instances for each in instance.occupants)
    letters = {name: ascii_uppercase[number % len(ascii_uppercase)] for number, name in enumerate(names)}
    lines = []
    for instance in instances:
        lines.append(f"{instance.id}  {instance.instance_type}, variant {instance.variant}")
        for title, unit, measure in _measures(instance):
            taken = sum(measure(each.needs) for each in instance.occupants)
            bar = _bar(instance, measure, letters)
            lines.append(f"  {title:<12} [{bar}] {taken:g} of {measure(instance.capacity):g} {unit}")
        lines += [f"  {letters[name]} {words}" for name, words in _legend(instance.occupants)]
        if not instance.occupants:
            lines.append("  empty")
    return lines


def _measures(instance: Occupied) -> Iterator[tuple[str, str, Measure]]:
    for title, unit, measure in _MEASURES:
        if measure(instance.capacity) > 0:
            yield title, unit, measure


def _bar(instance: Occupied, measure: Measure, letters: dict[str, str]) -> str:
    bar, seen, done = "", Counter[str](), 0.0
    for each in instance.occupants:
        letter = letters[each.component]
        done += measure(each.needs)
        end = round(_WIDTH * done / measure(instance.capacity))
        bar += (letter if seen[letter] % 2 == 0 else letter.lower()) * (end - len(bar))
        seen[letter] += 1
    return bar.ljust(_WIDTH, ".")


def _legend(occupants: Sequence[Occupant]) -> Iterator[tuple[str, str]]:
    """Give each component with a line on its copies."""
    for (name, needs), number in Counter((each.component, each.needs) for each in occupants).items():
        states = Counter(each.state for each in occupants if (each.component, each.needs) == (name, needs))
        doing = [f"{states[state]} {words}" for state, words in _STATES.items() if states[state]]
        copies = f"{number} {'copy' if number == 1 else 'copies'}"
        yield name, f"{name}: {copies} of {_amount(needs)}" + (f" ({', '.join(doing)})" if doing else "")


def _amount(needs: Compute) -> str:
    parts = [f"{measure(needs):g} {unit}" for _, unit, measure in _MEASURES if measure(needs) > 0]
    return ", ".join(parts) or "nothing"


# -- the picture -------------------------------------------------------------------------------------------------------

_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9c755f")
_COLUMN, _GAP, _BAR, _HEIGHT, _TOP = 210, 24, 84, 260, 56
"""Pixels: an instance's column, what is between two, a bar in it, and where bars begin."""


def svg(instances: Sequence[Occupied], title: str) -> str:
    """Draw instances as a picture: for each a bar of CPU and one of memory, filled by the copies on it."""
    names = list(dict.fromkeys(each.component for instance in instances for each in instance.occupants))
    width = _GAP + len(instances) * (_COLUMN + _GAP)
    height = _TOP + _HEIGHT + 56 + 20 * -(-len(names) // 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, instance in enumerate(instances):
        parts += _column(instance, _GAP + number * (_COLUMN + _GAP), names)
    for number, name in enumerate(names):
        x, y = _GAP + (number % 2) * (width // 2), _TOP + _HEIGHT + 48 + 20 * (number // 2)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        needs = next(o.needs for each in instances for o in each.occupants if o.component == name)
        parts.append(f'<text x="{x + 18}" y="{y + 10}">{escape(name)}: {_amount(needs)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _column(instance: Occupied, left: int, names: list[str]) -> Iterator[str]:
    yield f'<text x="{left}" y="20" font-weight="bold">{escape(instance.id)}</text>'
    yield f'<text x="{left}" y="38" fill="#555555">{escape(instance.instance_type)}</text>'
    for number, (title, unit, measure) in enumerate(list(_measures(instance))[:2]):
        x, whole, done = left + number * (_BAR + 42), measure(instance.capacity), 0.0
        yield f'<rect x="{x}" y="{_TOP}" width="{_BAR}" height="{_HEIGHT}" fill="#f2f2f2" stroke="#999999"/>'
        for each in instance.occupants:
            size = measure(each.needs)
            top = _TOP + _HEIGHT * (1 - (done + size) / whole)
            colour = _COLOURS[names.index(each.component) % len(_COLOURS)]
            yield (
                f'<rect x="{x}" y="{top:.1f}" width="{_BAR}" height="{_HEIGHT * size / whole:.1f}" fill="{colour}" '
                'stroke="#ffffff"/>'
            )
            done += size
        yield f'<text x="{x}" y="{_TOP + _HEIGHT + 18}">{title}</text>'
        yield f'<text x="{x}" y="{_TOP + _HEIGHT + 34}" fill="#555555">{done:g} of {whole:g} {unit}</text>'


def example() -> list[Occupied]:
    """Give two instances as placement packs them: two components that are spread, then two that are packed."""
    nodes = [Node(f"i-{number}", Compute(4.0, 16 * GIB)) for number in range(2)]
    wanted: Sequence[tuple[str, int, Compute, Strategy]] = (
        ("ranker, SPREAD", 2, Compute(1.0, 4 * GIB), "SPREAD"),
        ("classifier, SPREAD", 2, Compute(0.5, 2 * GIB), "SPREAD"),
        ("embedder, BINPACK", 3, Compute(0.5, 2 * GIB), "BINPACK"),
        ("summarizer, BINPACK", 1, Compute(1.0, 6 * GIB), "BINPACK"),
    )
    items = [
        Item(f"{name} {copy}", name, needs, strategy)
        for name, copies, needs, strategy in wanted
        for copy in range(copies)
    ]
    places = place(nodes, (), items)
    return [
        Occupied(
            node.id,
            "AllTraffic",
            "ml.m5.xlarge",
            node.capacity,
            tuple(Occupant(item.group, item.needs, "ready") for item in items if places.get(item.id) == node.id),
        )
        for node in nodes
    ]


if __name__ == "__main__":
    sys.stdout.write(svg(example(), "Copies of four inference components on two instances"))
