"""Image names: what `nginx`, `host:5000/team/model:3` and `repository@sha256:...` stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clary.errors import LaunchFailure

HUB = "docker.io"
"""Where a name without a registry is looked up."""

# The grammar of the OCI distribution specification, as far as Docker has it.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
_NAME = re.compile(
    rf"(?:(?P<registry>{_HOST}(?::\d+)?)/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in full: registry and path always, and a tag, a digest or both."""

    registry: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    @property
    def version(self) -> str:
        """Give what tells one image of the repository from the others, as it is appended to the repository."""
        return f"@{self.digest}" if self.digest else f":{self.tag}"

    def __str__(self) -> str:
        return self.repository + self.version


def parse(image: str) -> Reference:
    """Read a name as Docker does: registry docker.io and tag latest where none is given, the digest before the tag.

    Raises LaunchFailure for what is no name.
    """
    registry, slash, rest = image.partition("/")
    if not slash or not (any(mark in registry for mark in ".:") or registry == "localhost"):
        registry, rest = HUB, image
    if registry in ("index.docker.io", "registry-1.docker.io"):
        registry = HUB
    match = _NAME.fullmatch(f"{registry}/{rest}")
    if match is None or match["registry"] != registry:
        raise LaunchFailure(
            "image",
            f"{image} is not the name of an image. Names are registry/repository:tag or registry/repository@sha256:"
            "digest, the repository in lower case; correct the model's Image.",
        )
    path = match["path"]
    if registry == HUB and "/" not in path:
        path = f"library/{path}"
    tag = match["tag"] or (None if match["digest"] else "latest")
    return Reference(registry, path, tag, match["digest"])


def repository_of(image: str) -> str:
    """Give a name as it was written, without tag and digest."""
    name = image.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name
