"""The drawing of an endpoint's instances."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clary.cli.packing import GIB, ask, example, svg, text
from clary.core.occupancy import Occupant, Occupied
from clary.core.placement import Compute

PICTURE = Path(__file__).parents[2] / "docs" / "packing.svg"
NODE = Occupied(
    "i-0",
    "v",
    "ml.m5.xlarge",
    Compute(4.0, 16 * GIB),
    (
        Occupant("llm", Compute(1.0, 4 * GIB), "ready"),
        Occupant("llm", Compute(1.0, 4 * GIB), "starting"),
        Occupant("embed", Compute(0.0, 2 * GIB), "leaving"),
    ),
)


@contextmanager
def answering(file: Path, body: str) -> Iterator[list[str]]:
    """Stand in for the control plane: answer every request on its socket, and keep the bodies."""
    asked: list[str] = []

    def serve() -> None:
        client, _ = listening.accept()
        with client:
            request = client.recv(4096)
            while not request.endswith(b"}"):
                request += client.recv(4096)
            asked.append(request.rpartition(b"\r\n")[2].decode())
            client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(file))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(10)


def test_the_picture_is_what_the_code_draws() -> None:
    made = svg(example(), "Copies of four inference components on two instances")
    assert PICTURE.read_text() == made, "python -m clary.cli.packing > docs/packing.svg"


def test_an_instance_is_drawn_with_a_letter_for_each_component() -> None:
    assert text([NODE, Occupied("i-1", "v", "ml.clary.local", Compute(2.0, GIB, 1.0), ())]) == [
        "i-0  ml.m5.xlarge, variant v",
        f"  CPU          [{'A' * 12}{'a' * 12}{'.' * 24}] 2 of 4 CPU",
        f"  memory       [{'A' * 12}{'a' * 12}{'B' * 6}{'.' * 18}] 10 of 16 GiB",
        "  A llm: 2 copies of 1 CPU, 4 GiB (1 starting)",
        "  B embed: 1 copy of 2 GiB (1 being stopped)",
        "i-1  ml.clary.local, variant v",
        f"  CPU          [{'.' * 48}] 0 of 2 CPU",
        f"  memory       [{'.' * 48}] 0 of 1 GiB",
        f"  accelerators [{'.' * 48}] 0 of 1 accelerators",
        "  empty",
    ]


def test_what_is_drawn_comes_over_the_control_planes_socket(tmp_path: Path) -> None:
    with answering(tmp_path / "control.sock", json.dumps([NODE.to_json()])) as asked:
        assert ask(tmp_path / "control.sock", "ep") == [NODE]
    assert asked == ['{"EndpointName": "ep"}']
    with answering(tmp_path / "none.sock", "[]"):
        assert ask(tmp_path / "none.sock", "ep") == []
    assert ask(tmp_path / "nobody.sock", "ep") == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 2.0), st.integers(0, 4 * GIB)), max_size=12))
def test_bars_have_their_width_whatever_is_on_an_instance(copies: list[tuple[str, float, int]]) -> None:
    occupants = tuple(Occupant(name, Compute(cpus, memory), "ready") for name, cpus, memory in copies)
    lines = text([Occupied("i-0", "v", "t", Compute(64.0, 64 * GIB), occupants)])
    assert {len(line[line.index("[") + 1 : line.index("]")]) for line in lines if "[" in line} == {48}


def test_the_example_is_within_its_instances() -> None:
    for instance in example():
        taken = sum((each.needs for each in instance.occupants), Compute())
        assert taken.fits(instance.capacity)
