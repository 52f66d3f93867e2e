"""Object keys as file names, and back.

A key is its own path wherever a file system can say it. What it cannot say is escaped, always with `%`:

    %25 %2E %00   a percent sign, the dots of `.` and `..`, a NUL
    %e            an empty segment: the key `a//b`, or the folder marker `a/`
    name%-        a segment too long for a file name goes on in the folder of this name
    name%o        the object `name`, where a folder of that name exists too
"""

from __future__ import annotations

from clary.errors import AwsError

EMPTY = "%e"
CONTINUED = "%-"
DISPLACED = "%o"

_MAX_KEY = 1024
_MAX_NAME = 200  # bytes: leaves room for the suffix of a metadata file under the usual limit of 255


def to_path(key: str) -> list[str]:
    """Give the file names, outermost first, under which a key is kept. Raises AwsError KeyTooLongError (400)."""
    if not 0 < len(key.encode()) <= _MAX_KEY:
        raise AwsError("Your key is too long", code="KeyTooLongError", status=400)
    names: list[str] = []
    for segment in key.split("/"):
        pieces = _split(segment)
        names += [piece + CONTINUED for piece in pieces[:-1]]
        names.append(pieces[-1])
    return names


def from_name(name: str) -> str | None:
    """Give the part of a key that a file name, without `CONTINUED` and `DISPLACED`, stands for.

    None for a name that no key leads to: such a file is somebody else's and stays out of listings.
    """
    text = "" if name == EMPTY else name.replace("%00", "\0").replace("%2E", ".").replace("%25", "%")
    try:
        return text if _split(text) == [name] else None
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return None


def _split(segment: str) -> list[str]:
    if segment in ("", ".", ".."):
        return [segment.replace(".", "%2E") or EMPTY]
    escaped = segment.replace("%", "%25").replace("\0", "%00")
    if len(escaped.encode()) <= _MAX_NAME:
        return [escaped]
    pieces, size = [""], 0
    for character in segment:
        written = {"%": "%25", "\0": "%00"}.get(character, character)
        size += len(written.encode())
        if size > _MAX_NAME:
            pieces.append("")
            size = len(written.encode())
        pieces[-1] += written
    return pieces
