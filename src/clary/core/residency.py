"""What gateways and the control plane tell each other about the models of multi-model containers.

The control plane feeds each gateway the models that are loaded (all at first, then what comes and goes), so that a
request for one of them costs no question. For one that is not, the gateway asks; the answer is a grant. A gateway that
is told of a model's leaving sends nothing new to it and says so as soon as nothing is under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Held(NamedTuple):
    """A model that is loaded: of which variant, where, and by which load."""

    endpoint: str
    variant: str
    instance: str
    container: str
    model: str
    """Its name in the container (`core.target_model`)."""
    number: int

    @property
    def key(self) -> HeldKey:
        return HeldKey(self.container, self.model, self.number)


class HeldKey(NamedTuple):
    """What tells one load of one model from any other."""

    container: str
    model: str
    number: int


class News(NamedTuple):
    """A line of the feed. `all`: what is in `add` is everything there is."""

    all: bool
    add: Sequence[Held] = ()
    drop: Sequence[HeldKey] = ()

    @classmethod
    def from_json(cls, document: Sequence[Any]) -> News:
        """Read what NamedTuples are as JSON. Raises TypeError or ValueError for anything else."""
        everything, add, drop = document
        return cls(bool(everything), [Held(*each) for each in add], [HeldKey(*each) for each in drop])


class Shelved(NamedTuple):
    """What one multi-model container has, as people are told. Size in bytes."""

    variant: str
    instance: str
    loaded: int
    loading: int
    placed: int
    """Models whose files are on the disk."""
    size: int
    """Of all those files."""
    recent: tuple[str, ...]
    """The loaded models that were used last, under the callers' names."""


class Wish(NamedTuple):
    """A gateway wants a model loaded on some instance, `avoid` if there is no other."""

    endpoint: str
    variant: str
    target_model: str
    avoid: tuple[str, ...] = ()


class Use(NamedTuple):
    """How a gateway has used a model since it last said so. `age`: seconds since the last request."""

    key: HeldKey
    target_model: str
    uses: int
    age: float


class Return(NamedTuple):
    """A gateway has nothing under way to a model, and gives back as many grants; `aware`: it knows that it leaves."""

    key: HeldKey
    grants: int
    aware: bool


class Report(NamedTuple):
    """What a gateway says by itself."""

    gateway: str
    uses: Sequence[Use]
    returns: Sequence[Return]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """Read what `_asdict` is as JSON. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            str(document["gateway"]),
            [Use(HeldKey(*key), *rest) for key, *rest in document["uses"]],
            [Return(HeldKey(*key), *rest) for key, *rest in document["returns"]],
        )
