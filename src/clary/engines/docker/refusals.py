"""Why an image did not come, as a sentence that says what to do.

Docker passes the registry's words on as text, with status 404 or 500: here, and nowhere else, texts decide what kind
of failure it is. The words are those of dockerd 20.10 to 28, of its containerd image store, and of Podman.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from clary.engines.docker.logins import Login
from clary.engines.docker.references import HUB, Reference
from clary.errors import ClaryError, LaunchFailure, Transient

Kind = Literal["down", "disk", "platform", "authority", "plain", "refused", "missing", "unreachable", "name", "other"]

# The first that fits counts: a time-out while connecting is "down", not "unreachable".
_WORDS: tuple[tuple[Kind, str], ...] = (
    ("disk", r"no space left on device|disk quota exceeded"),
    ("platform", r"no matching manifest for|no match for platform|no image found in (image index|manifest list)"),
    ("authority", r"x509: |certificate (signed by|is not|has expired)|tls: failed to verify"),
    ("plain", r"server gave HTTP response to HTTPS client"),
    (
        "down",
        r": 5\d\d [A-Z]|\b429\b|toomanyrequests|timeout|deadline exceeded|unexpected EOF|: EOF\b"
        r"|connection reset|broken pipe|server misbehaving|temporary failure",
    ),
    ("refused", r"unauthorized|no basic auth|denied|authentication required|\b403\b|forbidden|failed to authorize"),
    ("missing", r"manifest unknown|name unknown|not found|repository name not known"),
    ("unreachable", r"dial tcp|dial udp|no such host|connection refused|no route to host|unreachable"),
    ("name", r"invalid reference format"),
)
_QUERY = re.compile(r"\?[^\s\"']*")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pull: of what, from where, and with what."""

    place: Reference
    login: Login | None = None
    note: str = ""
    """Why no login was found although one is configured."""


def kind_of(message: str) -> Kind:
    """Tell what kind of failure Docker's words stand for."""
    return next((kind for kind, words in _WORDS if re.search(words, message, re.IGNORECASE)), "other")


def is_missing(message: str) -> bool:
    """Tell whether these are a registry's own words for an image that it does not have."""
    return re.search(r"(manifest|name) unknown", message, re.IGNORECASE) is not None


def failure(attempt: Attempt, message: str) -> ClaryError:
    """Give the error to raise for a pull that Docker gave up with a message."""
    place = attempt.place
    registry = place.registry
    kind = kind_of(message)
    # Registries hand out layers by signed URLs: the signature is nobody's business.
    words = _QUERY.sub("", message.strip())
    if kind == "down":
        return Transient(f"The registry {registry} cannot serve {place} now: {words}", retry_after=5.0)
    sentences: dict[Kind, str] = {
        "disk": f"The disk of Docker is full: {place} does not fit. Make room on it, e.g. with docker image prune.",
        "platform": f"There is no {place} for the architecture of this machine: {words}. Build it for this one.",
        "authority": (
            f"The certificate of the registry {registry} is not one that Docker trusts: {words}. Put its authority's "
            f"certificate into /etc/docker/certs.d/{registry}/ca.crt on Docker's machine."
        ),
        "plain": (
            f"The registry {registry} speaks HTTP without TLS, which Docker takes from loopback addresses only. Give "
            "it a certificate, or name it under insecure-registries in Docker's daemon.json."
        ),
        "refused": _refused(attempt),
        "missing": _missing(place),
        "unreachable": (
            f"The registry {registry} cannot be reached: {words}. Check that it runs and that this machine can reach "
            "it; [registries] in the settings file can lead to another place."
        ),
        "name": f"Docker does not take {place} for the name of an image; correct the model's Image.",
        "other": f"Docker could not pull {place}: {words}",
    }
    return LaunchFailure("image", sentences[kind])


def _missing(place: Reference) -> str:
    there = f"The registry {place.registry} has no {place.path}{place.version}."
    if place.digest:
        return f"{there} A digest stands for this very image: bring it back, or update to a model with another Image."
    return f"{there} Push it there, or correct the model's Image."


def _refused(attempt: Attempt) -> str:
    place, registry = attempt.place, attempt.place.registry
    host = "" if registry == HUB else f" {registry}"
    if attempt.login is not None:
        return (
            f"The registry {registry} refused the login for {place} that {attempt.login.source} gave. Renew user name "
            "and password there, and see that this user may pull the image."
        )
    note = f" ({attempt.note})" if attempt.note else ""
    return (
        f"The registry {registry} refused {place} to somebody without a login{note}. Run docker login{host} as the "
        f'user that Clary runs as, or give username and password_file under [registries."{registry}"]. Many '
        "registries say the same of an image that does not exist."
    )


def wrong_architecture(place: Reference, image: str, machine: str) -> LaunchFailure:
    """Say that an image is there, and for another kind of machine."""
    return LaunchFailure(
        "image",
        f"{place} is for the architecture {image}, and this machine is {machine}. Build it for {machine}, or let the "
        "machine emulate it (binfmt_misc, qemu-user-static).",
    )
