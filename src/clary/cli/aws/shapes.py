"""The service model as the command line sees it, read without importing botocore.

Its data files are read from where botocore is installed. The whole model of `sagemaker` is five megabytes; what one
operation needs of it is kept, without the documentation, in `$XDG_CACHE_HOME/clary/models`, under the size and time of
the file that it came from. Where nothing can be kept the model is read each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FORMAT = 1
"""Part of the cache's key: raise it with the form of what is kept."""

# The aws CLI's global --version shadows the members of that name.
RENAMED = {"version": "version-number"}

Document = dict[str, Any]


class Shape:
    """A shape as it is referred to: the shape's own traits, overlaid with those of the reference."""

    __slots__ = ("_shapes", "name", "traits")

    def __init__(self, reference: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
        self.name: str = reference["shape"]
        self.traits: Mapping[str, Any] = {**shapes[self.name], **reference}
        self._shapes = shapes

    @property
    def type(self) -> str:
        kind: str = self.traits["type"]
        return kind

    @property
    def members(self) -> dict[str, Shape]:
        return {name: Shape(reference, self._shapes) for name, reference in self.traits.get("members", {}).items()}

    @property
    def required(self) -> list[str]:
        return list(self.traits.get("required", ()))

    @property
    def member(self) -> Shape:
        return Shape(self.traits["member"], self._shapes)

    @property
    def key(self) -> Shape:
        return Shape(self.traits["key"], self._shapes)

    @property
    def value(self) -> Shape:
        return Shape(self.traits["value"], self._shapes)

    @property
    def enum(self) -> list[str]:
        return list(self.traits.get("enum", ()))

    @property
    def documentation(self) -> str:
        return str(self.traits.get("documentation", ""))

    @property
    def is_scalar(self) -> bool:
        return self.type not in ("structure", "list", "map")

    @property
    def takes_shorthand(self) -> bool:
        """Tell whether a value is written in shorthand: structures, maps, and lists of anything but scalars."""
        return not self.is_scalar and not (self.type == "list" and self.member.is_scalar)


@dataclass(frozen=True)
class Operation:
    """One operation: its shapes, its options' names and how it pages."""

    service: str
    name: str
    cli_name: str
    model: Mapping[str, Any] = field(repr=False)
    """`metadata`, `operation`, `shapes`, `names` (of the options, by member) and `paginator`."""

    @cached_property
    def input(self) -> Shape | None:
        return self._shape("input")

    @cached_property
    def output(self) -> Shape | None:
        return self._shape("output")

    @property
    def names(self) -> Mapping[str, str]:
        """Option names without dashes, by the name of the member."""
        names: Mapping[str, str] = self.model["names"]
        return names

    @property
    def paginator(self) -> Mapping[str, Any] | None:
        paginator: Mapping[str, Any] | None = self.model["paginator"]
        return paginator

    @property
    def metadata(self) -> Mapping[str, Any]:
        metadata: Mapping[str, Any] = self.model["metadata"]
        return metadata

    @property
    def documentation(self) -> str:
        return str(self.model["operation"].get("documentation", ""))

    @cached_property
    def payload(self) -> tuple[str, Shape] | None:
        """The member of the answer that is the body and not part of a document: a blob or a stream of events."""
        name = self.output.traits.get("payload") if self.output else None
        if self.output is None or name is None:
            return None
        shape = self.output.members[name]
        return (name, shape) if shape.type == "blob" or shape.traits.get("eventstream") else None

    def _shape(self, direction: str) -> Shape | None:
        reference = self.model["operation"].get(direction)
        return Shape(reference, self.model["shapes"]) if reference else None


def index(service: str) -> dict[str, str]:
    """Give the operations of a service by their name on the command line."""
    return _kept(service, "index", lambda: {option_name(name): name for name in _whole(service)["operations"]})


def operation(service: str, cli_name: str, *, documented: bool = False) -> Operation:
    """Give an operation that `index` lists; its documentation only where it is asked for."""
    name = index(service)[cli_name]
    model = _slice(service, name) if documented else _kept(service, name, lambda: _bare(_slice(service, name)))
    return Operation(service, name, cli_name, model)


def waiters(service: str) -> Document:
    """Give the waiters of a service by their name on the command line, each with its `name` in the model."""
    return _kept(service, "waiters", lambda: _waiters(service))


def option_name(name: str) -> str:
    """Give a name of the model as the command line writes it: `VPCConfig2Ids` is vpc-config2-ids."""
    from botocore import xform_name

    return str(xform_name(name, "-"))


@lru_cache
def _folder(service: str) -> Path:
    found = find_spec("botocore")
    assert found is not None and found.submodule_search_locations is not None
    return max((Path(found.submodule_search_locations[0]) / "data" / service).iterdir())


def _waiters(service: str) -> Document:
    path = _folder(service) / "waiters-2.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text())["waiters"]
    return {option_name(name): {**facts, "name": name} for name, facts in found.items()}


@lru_cache
def _whole(service: str) -> Document:
    import gzip

    document: Document = json.loads(gzip.decompress((_folder(service) / "service-2.json.gz").read_bytes()))
    return document


def _slice(service: str, name: str) -> Document:
    whole = _whole(service)
    found = whole["operations"][name]
    shapes: Document = {}
    pending = [reference["shape"] for reference in _references(found)]
    while pending:
        shape = pending.pop()
        if shape not in shapes:
            shapes[shape] = whole["shapes"][shape]
            pending.extend(reference["shape"] for reference in _references(shapes[shape]))
    members = shapes[found["input"]["shape"]].get("members", {}) if "input" in found else {}
    names = {member: option_name(member) for member in members}
    pages = json.loads((_folder(service) / "paginators-1.json").read_text())["pagination"]
    return {
        "metadata": whole["metadata"],
        "operation": found,
        "shapes": shapes,
        "names": {member: RENAMED.get(option, option) for member, option in names.items()},
        "paginator": pages.get(name),
    }


def _references(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give what an operation or a shape refers to."""
    for key in ("input", "output", "member", "key", "value"):
        if isinstance(document.get(key), dict):
            yield document[key]
    yield from document.get("members", {}).values()
    yield from document.get("errors", ())


def _bare(document: Any) -> Any:
    if isinstance(document, list):
        return [_bare(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        key: _bare(value)
        for key, value in document.items()
        # A member may be called documentation: then it is a reference, and stays.
        if not (key == "documentation" and isinstance(value, str))
    }


def _kept(service: str, name: str, make: Callable[[], Document]) -> Document:
    source = (_folder(service) / "service-2.json.gz").stat()
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "clary" / "models" / f"{service}-{source.st_size}-{source.st_mtime_ns}-{FORMAT}"
    path = folder / f"{name}.json"
    with suppress(OSError, ValueError):
        kept: Document = json.loads(path.read_bytes())
        return kept
    made: Document = make()
    # A home that cannot be written to costs time and nothing else.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(made, separators=(",", ":")))
        temporary.rename(path)
    return made
