"""Why a container does not serve, and the sentence that DescribeEndpoint gives for it.

FailureReason starts with the words that AWS has for the case, because people and tools search for them, and goes on
with what those words leave out: the step, the image, the time, the end of the log, and what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

LONGEST = 1024
"""Characters of FailureReason in the service model."""

Severity = Literal["final", "counted", "transient"]
"""What it means for an endpoint that never served: the end at once, at the third time, or after a while."""

_PING = (
    "The {container} container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)
_CANNOT_START = (
    "CannotStartContainerError. Please ensure the model container for variant {variant} starts correctly when invoked "
    "with 'docker run {image} serve'."
)
_WORDS = {
    "image": (
        "Please make sure all images included in the model for the production variant {variant} exist, and that the "
        "execution role used to create the model has permissions to access them."
    ),
    "download": (
        'Failed to download model data for container "container_{position}" from URL: "{url}". Please ensure that '
        "there is an object located at the URL and that the role passed to CreateModel has permissions to download "
        "the object."
    ),
    "unpack": (
        'Failed to extract model data archive from URL "{url}". Please ensure that the object located at the URL is a '
        "valid tar.gz archive."
    ),
    "size": (
        "The model data archive is too large. Please reduce the size of the model data archive or move to an instance "
        "type with more memory."
    ),
    "environment": _CANNOT_START,
    "create": _CANNOT_START,
    "launch": _CANNOT_START,
}
"""AWS's words by step (live quotes); what happens once the process runs is all one ping failure to AWS."""


_RAN = frozenset({"exit", "ping", "unhealthy"})
"""The steps at which a container's process is there."""
_LOG = "Last lines of the log:"
_SAME = "Last lines of the log, the same at each start:"
_IMAGE = re.compile(r" Image: (\S+)\. Elapsed: [\d.]+ s\.")
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")
_ENOUGH = 3
"""Lines that are there again: fewer may be chance, where what is written each time is longer."""
_LEAST_LOG = 200
"""Characters that the log gets, however much there is to say about the step."""


_CONTROLS = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One end of one run of a container."""

    step: str
    """The launch step as in LaunchFailure, or `launch` (took too long), `exit`, `ping` (never ready), `unhealthy`."""
    detail: str
    """In words: `exited with 3`, `download: no such key`."""
    run: float
    """What tells this run from the others of its container, so that seeing it twice counts once."""
    at: float
    severity: Severity
    log: tuple[str, ...] = ()
    """The last lines that it wrote."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a failure happened."""

    endpoint: str
    variant: str
    container: str
    """What errors call it: `primary`, or its name in a pipeline."""
    position: int
    """In the pipeline, from 1."""
    image: str
    model_data_url: str | None
    starts: int
    """How often the container was started."""
    elapsed: float
    """Seconds since the endpoint, or the transform job, was created."""


def failure_reason(failure: Failure, scene: Scene) -> str:
    """Explain a failed endpoint in at most 1024 characters; what does not fit is cut from the log's older end."""
    words = _WORDS.get(failure.step, _PING).format(
        variant=scene.variant,
        container=scene.container,
        position=scene.position,
        image=_image(scene),
        url=printable(shorten(scene.model_data_url or "", 200)),
    )
    return explained(words, failure, scene, f"Next: clary doctor {scene.endpoint}")


def explained(words: str, failure: Failure, scene: Scene, advice: str) -> str:
    """Go on from the service's words with what they leave out, as far as 1024 characters go."""
    times = f" ({scene.starts} starts)" if scene.starts > 1 else ""
    facts = f"{times}. Image: {_image(scene)}. Elapsed: {scene.elapsed:.1f} s."
    room = LONGEST - len(f"{words} Step: {facts}\n{_LOG}\n\n{advice}")
    detail = shorten(
        printable(failure.detail.strip().removesuffix(".")), room - min(_LEAST_LOG, sum(map(len, failure.log)))
    )
    lines = folded(failure.log) if scene.starts > 1 else failure.log
    heading = _LOG if lines == failure.log else _SAME
    log = _tail(tuple(map(printable, lines)), room - len(detail) - len(heading) + len(_LOG))
    empty = " The log is empty." if failure.step in _RAN else ""  # where nothing ran that is no news
    ending = f"\n{heading}\n{log}" if log else empty
    return f"{words} Step: {detail}{facts}{ending}\n{advice}"


def _image(scene: Scene) -> str:
    return printable(shorten(scene.image, 120))


def printable(text: str) -> str:
    """Replace the control characters but newline and tab: a model's words are not to steer who reads them's terminal.

    The length stays the same.
    """
    return text.translate(_CONTROLS)


def shorten(text: str, longest: int) -> str:
    """Cut the middle out of a text that is too long: the ends say most."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def is_same_at_each_start(reason: str) -> bool:
    """Tell whether a FailureReason says so of the log."""
    return _SAME in reason


def without_log(reason: str, shown: Collection[str]) -> str:
    """Cut the log off a FailureReason, where all lines of it are among those that are shown anyway."""
    for heading in (_LOG, _SAME):
        words, found, log = reason.partition(f"\n{heading}\n")
        if found and all(line in shown for line in log.splitlines()):
            return words
    return reason


def told(reason: str) -> tuple[str, str | None]:
    """Give what a FailureReason says in words of ours and of the service, and the image that it is about.

    The words of the container and the name of its image, in which anything may stand, are not among them.
    """
    words = re.split(rf"\n(?:{re.escape(_LOG)}|{re.escape(_SAME)})\n", reason, maxsplit=1)[0]
    found = list(_IMAGE.finditer(words))
    return (words[: found[-1].start()], found[-1][1]) if found else (words, None)


def folded(lines: Sequence[str]) -> tuple[str, ...]:
    """Give what is written over and over but once, as by a container that fails at each start in the same way.

    Lines that differ in numbers only are the same. Of what came before the last time, the end alone need be there.
    """
    same = [_NUMBERS.sub("0", shorten(line, LONGEST)) for line in lines]
    for size in range(1, len(lines)):
        if len(lines) - size < min(size, _ENOUGH):
            break
        if same[size:] == same[:-size]:
            return tuple(lines[-size:])
    return tuple(lines)


def _tail(lines: tuple[str, ...], room: int) -> str:
    kept: list[str] = []
    for line in reversed([line.rstrip() for line in lines if line.strip()]):
        if len(line) + 1 > room:
            if not kept and room > 20:
                kept.append(shorten(line, room))
            break
        kept.append(line)
        room -= len(line) + 1
    return "\n".join(reversed(kept))
