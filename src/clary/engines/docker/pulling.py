"""What a pull is doing now, in a few words, from the many that Docker tells of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MB = 1_000_000


class Layers:
    """The layers of one image. Docker learns their sizes as it gets to them: the total may grow."""

    def __init__(self) -> None:
        self._totals: dict[str, int] = {}
        self._loaded: dict[str, int] = {}
        self._unpacked: dict[str, int] = {}
        self._text = "pull"

    def note(self, told: Mapping[str, Any]) -> str | None:
        """Take in one line of Docker's; give the new text where it changes anything that a person would see."""
        layer = str(told.get("id", ""))
        detail = told.get("progressDetail") or {}
        current = int(detail.get("current") or 0)
        match told.get("status"):
            case "Downloading":
                self._totals[layer] = int(detail.get("total") or self._totals.get(layer, 0))
                self._loaded[layer] = current
            case "Download complete":
                self._loaded[layer] = self._totals.get(layer, 0)
            case "Extracting":
                self._loaded[layer] = self._totals.get(layer, 0)
                self._unpacked[layer] = current
            case "Pull complete":
                self._unpacked[layer] = self._totals.get(layer, 0)
        text = self._say()
        if text == self._text:
            return None
        self._text = text
        return text

    def _say(self) -> str:
        total = sum(self._totals.values())
        loaded = sum(self._loaded.values())
        if total < MB:
            return "pull"
        if loaded < total:
            return f"pull {loaded // MB} of {total / MB:.0f} MB"
        return f"pull: unpack {sum(self._unpacked.values()) // MB} of {total / MB:.0f} MB"
