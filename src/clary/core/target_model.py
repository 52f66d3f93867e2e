"""TargetModel: a key below a multi-model container's prefix, and the name by which that container knows the model."""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote

from clary.core.containers import ModelData, ModelPrefix

PATTERN = r"\A\S[\p{Print}]*\z"
"""The service model's, in Java's words: printable ASCII, no blank at the start."""
_PRINTABLE = re.compile(r"[!-~][ -~]*")
_NO_SEGMENT = frozenset(("", ".", ".."))


@lru_cache(maxsize=16_384)
def model_id(target_model: str) -> str:
    """Give the name that the container gets: opaque, a safe name of a file, and never that of another model."""
    return sha256(target_model.encode()).hexdigest()[:32]


def refusal(target_model: str) -> str | None:
    """Say why this cannot be the key of a model; None: it can. Nothing may lead out of the prefix."""
    if not _PRINTABLE.fullmatch(target_model):
        return (
            f"1 validation error detected: Value '{target_model}' at 'targetModel' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {PATTERN}"
        )
    if not _NO_SEGMENT.isdisjoint(target_model.split("/")):
        return (
            f"TargetModel {target_model} is not a key below the ModelDataUrl of the model: it must not begin or end "
            "with '/', and no part of it may be empty, '.' or '..'."
        )
    return None


def data_of(prefix: ModelPrefix, target_model: str) -> ModelData:
    """Say where a model is downloaded from. A prefix is a folder, also where it is written without its last slash.

    A key means itself: where URLs are escaped, so is it, or `%2e%2e` would lead out of the prefix.
    """
    key = target_model if prefix.url.startswith("s3://") else quote(target_model)
    return ModelData(f"{prefix.url.removesuffix('/')}/{key}")
