"""Where a group and a stream lie: folders and files that a human can read, whatever their names are.

`/aws/sagemaker/Endpoints/iris`, `AllTraffic/i-01` is `aws/sagemaker/Endpoints/iris/AllTraffic:i-01.log`. Groups may
nest (`/app`, `/app/web`), so a slash of a stream's name must not look like one of a group's: it is written as a colon,
which no stream's name has. The mapping goes both ways; what would break it is percent-encoded.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from clary.errors import AwsError

SUFFIX = ".log"
_RELATIVE = "~"
"""The first folder of a group whose name does not begin with a slash."""
_EMPTY = "%"
"""Between two slashes."""
_LONGEST = 255 - len("..times")
"""Bytes of an encoded name: the longest that Linux takes for a file, and room for the index's."""


def group_folder(root: Path, group: str) -> Path:
    """Give a group's folder. Raises AwsError InvalidParameterException for names that no file can have."""
    first, *others = map(_group_part, group.split("/"))
    # Before the first slash of most names there is nothing.
    return root.joinpath(*others) if first == _EMPTY and others else root.joinpath(_RELATIVE, first, *others)


def stream_file(root: Path, group: str, stream: str) -> Path:
    """Give a stream's file. Raises as `group_folder` does."""
    return group_folder(root, group) / (_checked(_escape(stream).replace("%2F", ":")) + SUFFIX)


def times_file(file: Path) -> Path:
    """Give the index of a stream's file."""
    return file.with_name(f".{file.name.removesuffix(SUFFIX)}.times")


def group_name(root: Path, folder: Path) -> str:
    """Give the group that a folder is of."""
    first, *others = folder.relative_to(root).parts
    parts = others if first == _RELATIVE else ["", first, *others]
    return "/".join("" if part == _EMPTY else unquote(part) for part in parts)


def stream_name(file: Path) -> str:
    """Give the stream that a file is of."""
    return unquote(file.name.removesuffix(SUFFIX).replace(":", "/"))


def _group_part(part: str) -> str:
    escaped = _escape(part) or _EMPTY
    # A folder that looks like a stream's file would be in the way of that file.
    return _checked(escaped[: -len(SUFFIX)] + "%2Elog" if escaped.endswith(SUFFIX) else escaped)


def _escape(text: str) -> str:
    if text.startswith((".", "~")):  # hidden files are ours; `~` begins the relative
        return f"%{ord(text[0]):02X}" + _escape_rest(text[1:])
    return _escape_rest(text)


def _escape_rest(text: str) -> str:
    return "".join(c if c.isprintable() and c not in "%:/" else _percent(c) for c in text)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="replace"))


def _checked(name: str) -> str:
    if len(name.encode(errors="replace")) > _LONGEST:
        message = f"A log is a file here, and this name is too long for one: {name[:64]}..."
        raise AwsError(message, code="InvalidParameterException", status=400)
    return name
