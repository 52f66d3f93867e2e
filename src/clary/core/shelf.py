"""What one multi-model container holds: which models are loaded, who is using them, which goes when room is needed.

Pure bookkeeping: it is told what happened, and says what may be done next. A gateway that was told where a model is
holds a grant until it gives it back, and is told when a model is about to go: a model is unloaded only when it is in
nobody's hands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["absent", "loading", "loaded", "leaving"]

MEMORY_SHARE = 0.7
"""How full a container's memory may be before models are unloaded although it never said 507 (seen at the service)."""
LARGEST_SHARE = 0.25
"""Of the loaded models, what one look at the memory may unload: what that gains shows at the next."""
REFUSAL = 60.0
"""Seconds for which a container that had no memory for a model is taken to have none for as much again."""


@dataclass(slots=True)
class Model:
    """One model of one container. Times in seconds, sizes in bytes."""

    phase: Phase = "absent"
    number: int = 0
    """Of the load that it is from: another one than that of any other load of any model."""
    target: str = ""
    """As callers name it; empty where none has since this process began."""
    size: int = 0
    """Of its files on the disk; 0: there are none."""
    published: bool = False
    """Gateways were told of it without having asked; otherwise only those that have a grant know it."""
    used_at: float = 0.0
    waiting: int = 0
    """Callers in this process that have not been told yet where it is."""
    grants: dict[str, int] = field(default_factory=dict)
    """How often each gateway was told and has not given it back, by the gateway."""
    unaware: set[str] = field(default_factory=set)
    """Gateways that may still send requests, for they have not said that they know of its leaving."""

    @property
    def in_hands(self) -> bool:
        """A gateway may be sending requests to it, or be about to."""
        return bool(self.unaware or any(self.grants.values()))

    @property
    def is_idle(self) -> bool:
        """It is loaded, and nobody has it in hands or waits for it."""
        return self.phase == "loaded" and not self.waiting and not self.in_hands


class Shelf:
    """The models of one container. `disk_limit`: bytes that the files of all may have; the newest is kept anyway."""

    def __init__(self, numbers: Callable[[], int], disk_limit: int) -> None:
        self._numbers = numbers
        self._disk_limit = disk_limit
        self._models: dict[str, Model] = {}
        self._loaded: dict[str, Model] = {}
        self._bytes = self._loaded_bytes = 0
        """Of all files, and of those of the models that serve."""
        self._refused = (0, 0.0)
        """Bytes of the files of the models that were too many at once, and until when that counts."""

    def __getitem__(self, model: str) -> Model:
        return self._models.setdefault(model, Model())

    def phase(self, model: str) -> Phase:
        """Tell how a model is that there may be nothing to say of."""
        found = self._models.get(model)
        return "absent" if found is None else found.phase

    def get(self, model: str, number: int) -> Model | None:
        """Give a model if it is still the one of this load."""
        found = self._models.get(model)
        return found if found is not None and found.number == number and found.phase != "absent" else None

    @property
    def loaded(self) -> Mapping[str, Model]:
        """The models that serve."""
        return self._loaded

    @property
    def is_empty(self) -> bool:
        """Nothing is loaded, nor being unloaded: there is no room to be had by waiting."""
        return not any(model.phase in ("loaded", "leaving") for model in self._models.values())

    def size(self, model: str) -> int:
        """Give the bytes of a model's files; 0: it has none."""
        found = self._models.get(model)
        return found.size if found is not None else 0

    # -- what happens ------------------------------------------------------------------------------------------------

    def adopt(self, loaded: Iterable[str], sizes: Mapping[str, int], now: float) -> None:
        """Take over what an earlier life has loaded and placed. Of use nothing is known: any gateway may be at it."""
        for name, size in sizes.items():
            self.has_placed(name, size)
        for name in loaded:
            self.has_loaded(name, now, published=True)

    def wait(self, name: str) -> None:
        """Somebody wants it and has not been told yet where it is: it does not go."""
        self[name].waiting += 1

    def leave(self, name: str) -> None:
        """That somebody waits no more."""
        self._models[name].waiting -= 1
        self._forget(name)

    def is_loading(self, name: str) -> None:
        """A load begins. The model is not there."""
        model = self[name]
        assert model.phase == "absent", f"a load of a model that is {model.phase}"
        model.phase = "loading"

    def has_loaded(self, name: str, now: float, *, published: bool) -> None:
        """It serves."""
        model = self[name]
        assert model.phase in ("absent", "loading"), f"loaded while it was {model.phase}"
        model.phase, model.number, model.used_at, model.published = "loaded", self._numbers(), now, published
        self._loaded[name] = model
        self._loaded_bytes += model.size

    def has_gone(self, name: str) -> None:
        """It is not loaded: a load failed, or it was unloaded, or its container has lost it."""
        model = self._models[name]
        model.phase = "absent"
        self._serves_no_more(name)
        model.grants.clear()
        model.unaware.clear()
        self._forget(name)

    def has_placed(self, name: str, size: int) -> None:
        """Its files are on the disk, or with size 0 they are not any more."""
        model = self[name]
        self._bytes += size - model.size
        if name in self._loaded:
            self._loaded_bytes += size - model.size
        model.size = size
        self._forget(name)

    def was_refused(self, name: str, now: float) -> None:
        """The container has no memory for it beside what it has."""
        self._refused = (self._with(name), now + REFUSAL)

    def is_outsize(self) -> None:
        """What was refused would not have fit alone: that says nothing of how much fits together."""
        self._refused = (0, 0.0)

    def grant(self, name: str, gateway: str, now: float) -> int:
        """Tell a gateway where the model is; give the load's number."""
        model = self._models[name]
        assert model.phase == "loaded", f"granted while it was {model.phase}"
        model.grants[gateway] = model.grants.get(gateway, 0) + 1
        model.used_at = max(model.used_at, now)
        return model.number

    def retire(self, name: str, gateways: Iterable[str]) -> None:
        """It is about to go, as soon as it is in nobody's hands, and these gateways know if it was published."""
        model = self._models[name]
        assert model.phase == "loaded", f"retired while it was {model.phase}"
        model.phase = "leaving"
        self._serves_no_more(name)
        model.unaware = set(gateways) if model.published else set()

    def give_back(self, name: str, number: int, gateway: str, grants: int, *, aware: bool) -> None:
        """A gateway gives grants back, having nothing under way; `aware`: it knows that the model is leaving."""
        model = self.get(name, number)
        if model is None:
            return
        model.grants[gateway] = max(0, model.grants.get(gateway, 0) - grants)
        if aware:
            model.unaware.discard(gateway)

    def lose(self, gateway: str) -> None:
        """A gateway is gone, and with it what it had in its hands."""
        for model in self._models.values():
            model.grants.pop(gateway, None)
            model.unaware.discard(gateway)

    def use(self, name: str, number: int, at: float, target: str = "") -> None:
        """A gateway has used it."""
        model = self.get(name, number)
        if model is not None:
            model.target = target or model.target
            model.used_at = max(model.used_at, at)

    # -- what may be done ----------------------------------------------------------------------------------------------

    def victim(self) -> str | None:
        """Give the least recently used model that nobody is about to be told of."""
        able = [(model.used_at, name) for name, model in self.loaded.items() if not model.waiting]
        return min(able, default=(0.0, None))[1]

    def is_too_much(self, name: str, now: float) -> bool:
        """Tell whether the container has lately refused as much as it would have with this model, by their files."""
        refused, until = self._refused
        return now < until and self._with(name) >= refused

    def _with(self, name: str) -> int:
        return self._loaded_bytes + self.size(name)

    def _serves_no_more(self, name: str) -> None:
        if (model := self._loaded.pop(name, None)) is not None:
            self._loaded_bytes -= model.size

    def recent(self, number: int) -> list[str]:
        """Give the callers' names of the loaded models that were used last, as far as they are known."""
        last = sorted(self._loaded.values(), key=lambda model: model.used_at, reverse=True)
        return [model.target for model in last[:number] if model.target]

    def count(self) -> tuple[int, int, int]:
        """Give how many models are being loaded, how many have files, and the bytes of those."""
        models = self._models.values()
        return sum(each.phase == "loading" for each in models), sum(each.size > 0 for each in models), self._bytes

    def beyond_memory(self, memory: int, limit: int) -> Collection[str]:
        """Give the models to unload because the container uses too much of its memory: the least recently used."""
        loaded = self.loaded
        if not loaded or memory <= MEMORY_SHARE * limit:
            return ()
        number = max(1, int(LARGEST_SHARE * len(loaded)))
        able = sorted((model.used_at, name) for name, model in loaded.items() if not model.waiting)
        return [name for _, name in able[:number]]

    def beyond_disk(self, keep: str, *, full: bool = False) -> Collection[str]:
        """Give the models whose files go so that the rest fits: unloaded ones, the least recently used first.

        `keep` stays. `full`: the disk itself is full, so at least one goes if there is any.
        """
        total = self._bytes
        if total <= self._disk_limit and not full:
            return ()
        able = sorted(
            (model.used_at, name, model.size)
            for name, model in self._models.items()
            if model.size and model.phase == "absent" and not model.waiting and name != keep
        )
        gone: list[str] = []
        for _, name, size in able:
            if total <= self._disk_limit and not (full and not gone):
                break
            gone.append(name)
            total -= size
        return gone

    def _forget(self, name: str) -> None:
        """Drop what there is nothing to say of: keys are the callers' words, and there may be any number of them."""
        model = self._models[name]
        if model.phase == "absent" and not model.size and not model.waiting:
            del self._models[name]
