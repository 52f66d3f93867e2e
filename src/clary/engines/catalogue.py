"""Image name -> how a process stands in for it: data in `image_catalogue.toml`, and the user's own file before it."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from clary.errors import LaunchFailure, SettingsError

SHIPPED = Path(__file__).with_name("image_catalogue.toml")

_MEMBERS = {
    "name": str, "pattern": str, "tag": str, "command": list, "runtime": str, "packages": list,
    "requirements": list, "python": str, "environment": dict, "uv": dict,
}  # fmt: skip
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_LATER = ("model_dir", "port", "python")
"""Known only once a container is started."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to run an image: all of it is known but what differs from container to container."""

    name: str
    runtime: Literal["script", "serve", "command"]
    command: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    python: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    uv: Mapping[str, str] = field(default_factory=dict)

    def require_many(self, image: str) -> None:
        """Refuse a multi-model container of what serves one model. Raises LaunchFailure in AWS's words, and ours.

        A command that is given the folder of a model serves that; so does what the model data itself brings.
        """
        one = any("{model_dir}" in word for word in self.command) or self.runtime == "serve"
        if one:
            raise LaunchFailure(
                "image",
                f"Your Ecr Image {image} does not contain required com.amazonaws.sagemaker.capabilities."
                f"multi-models=true Docker label(s). (Its entry in the catalogue, {self.name}, serves one model.)",
            )

    @property
    def resolved(self) -> str:
        """What stands where Docker has a digest: it changes when the image would be run in another way."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"clary-process/{self.name}@sha256:{digest}"


@dataclass(frozen=True, slots=True)
class _Entry:
    source: str
    pattern: re.Pattern[str]
    tag: re.Pattern[str]
    table: Mapping[str, Any]


class Catalogue:
    """The entries, the user's first. Raises SettingsError for a file that cannot be used."""

    def __init__(self, user_file: Path | None = None) -> None:
        self._user_file = user_file
        self._entries = [*(_load(user_file) if user_file else ()), *_load(SHIPPED)]

    def resolve(self, image: str) -> Recipe:
        """Find out how to run an image. Raises LaunchFailure that says what is known and how to add to it."""
        repository, tag = _split(image)
        for entry in self._entries:
            if entry.pattern.fullmatch(repository) and (match := entry.tag.match(tag)):
                return _recipe(entry, {name: value for name, value in match.groupdict().items() if value})
        known = ", ".join(dict.fromkeys(str(entry.table["name"]) for entry in self._entries))
        where = self._user_file or "a TOML file that --catalogue names"
        raise LaunchFailure(
            "image",
            f"The process engine has no entry for {image} (repository {repository!r}, tag {tag!r}). It knows: {known}. "
            f"To add one, write in {where}: [[image]] name = 'mine', pattern = '{re.escape(repository)}', "
            "command = ['my-server', '--port', '{port}'], packages = ['my-server']. Or run images as they are: "
            "clary up --engine docker.",
        )


def _split(image: str) -> tuple[str, str]:
    """Split an image into its repository (without the registry) and its tag."""
    name, _, _ = image.partition("@")
    head, slash, rest = name.partition("/")
    if slash and (any(mark in head for mark in ".:") or head == "localhost"):
        name = rest
    repository, _, tag = name.partition(":")
    return repository, tag or "latest"


def _load(path: Path) -> list[_Entry]:
    try:
        tables = tomllib.loads(path.read_text()).get("image", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"--catalogue: {path} cannot be read: {error}") from error
    return [_entry(table, f"{path}, entry {number}") for number, table in enumerate(tables, 1)]


def _entry(table: Mapping[str, Any], source: str) -> _Entry:
    for name, value in table.items():
        if name not in _MEMBERS:
            raise SettingsError(f"--catalogue: {source}: {name} is not known; there are {', '.join(_MEMBERS)}")
        if not isinstance(value, _MEMBERS[name]):
            raise SettingsError(f"--catalogue: {source}: {name} must be a {_MEMBERS[name].__name__}")
    if not {"name", "pattern"} <= table.keys() or ("command" in table) == ("runtime" in table):
        raise SettingsError(f"--catalogue: {source}: needs name, pattern, and either command or runtime")
    if table.get("runtime", "script") not in ("script", "serve"):
        raise SettingsError(f"--catalogue: {source}: runtime must be script or serve")
    if not re.fullmatch(r"[\w.-]+", table["name"]):
        raise SettingsError(f"--catalogue: {source}: name must be letters, digits, '.', '_' and '-'")
    try:
        return _Entry(source, re.compile(table["pattern"]), re.compile(table.get("tag", "")), table)
    except re.error as error:
        raise SettingsError(f"--catalogue: {source}: not a regular expression: {error}") from error


def _recipe(entry: _Entry, groups: Mapping[str, str]) -> Recipe:
    def fill(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] in _LATER:
                return match[0]
            if match[1] not in groups:
                raise LaunchFailure("image", f"{entry.source}: {{{match[1]}}} is not a group that the tag has")
            return groups[match[1]]

        return _PLACEHOLDER.sub(value, text)

    table = entry.table
    return Recipe(
        name=table["name"],
        runtime=table.get("runtime", "command"),
        command=tuple(fill(str(word)) for word in table.get("command", ())),
        packages=tuple(fill(str(package)) for package in table.get("packages", ())),
        requirements=tuple(map(str, table.get("requirements", ()))),
        python=table.get("python") or _python(groups.get("py")),
        environment={name: fill(str(value)) for name, value in table.get("environment", {}).items()},
        uv={name: str(value) for name, value in table.get("uv", {}).items()},
    )


def _python(tag: str | None) -> str | None:
    """Give the version that a tag's `py312` or `3.12` stands for."""
    if tag is None:
        return None
    return f"3.{tag[3:]}" if tag.startswith("py3") else tag


def fill_in(word: str, values: Mapping[str, str]) -> str:
    """Put a container's own values into a word of a recipe's command."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], word)
