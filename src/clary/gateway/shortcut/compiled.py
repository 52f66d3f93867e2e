"""The compiled part of the gateway, where this installation has it."""

from __future__ import annotations

from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType


def compiled() -> ModuleType | None:
    """Give the compiled part; None where it is absent, not for this machine, or made of another source than is here."""
    try:
        module = import_module("clary.gateway.shortcut.way")
    except ImportError:
        return None
    return module if getattr(module, "SOURCE", "") == _source() else None


def _source() -> str:
    """Give the hash of the source, as `hatch_build.py` does."""
    folder = Path(__file__).parent
    files = sorted((*folder.glob("*.pyx"), *folder.glob("*.pxi")))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
