"""Every setting: one table of name, default and help, from which flags, `CLARY_*` variables, the TOML file and the
documentation come.

Precedence: flag, then environment variable, then the file, then the default. A key that is not in the table is an
error at start. The result is a frozen value that is passed down; nothing below the composition root imports it.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clary.errors import SettingsError

ENVIRONMENT_PREFIX = "CLARY_"
_INHERITED = "CLARY_SETTINGS"
"""All settings in one variable: between a supervisor and its children, never from a user."""
MIB = 1024 * 1024
GIB = 1024 * MIB
DAY = 86_400


def _setting(default: Any, help: str, metavar: str = "") -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar})


def _table(help: str) -> Any:
    """A setting that is a table of the file: neither a flag nor a variable could be read by anybody."""
    return field(default_factory=dict, metadata={"help": help, "metavar": ""})


@dataclass(frozen=True, slots=True)
class Settings:
    """What one Clary was told. Sizes in the unit that the name gives, times in seconds."""

    host: str = _setting("127.0.0.1", "Address to listen on.", "ADDRESS")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", "PORT")
    data: Path = _setting(
        Path("~/.clary"), "Folder for everything that Clary keeps: state, objects, artifacts, logs, keys.", "DIR"
    )
    engine: str = _setting(
        "process", "What runs the models: process, docker, or auto (Docker where one answers, else process).", "ENGINE"
    )
    tls_cert: str = _setting(
        "", "PEM file with the certificate, and its chain, for https on the port; together with --tls-key.", "FILE"
    )
    tls_key: str = _setting("", "PEM file with the certificate's unencrypted key.", "FILE")
    region: str = _setting("us-east-1", "Region that appears in ARNs and that requests are signed for.", "REGION")
    account_id: str = _setting("000000000000", "Twelve-digit account number that appears in ARNs.", "ID")
    auth: str = _setting(
        "sigv4", "Whether requests must be signed: `sigv4`, or `off` (only when listening on loopback).", "sigv4|off"
    )
    access_key_id: str = _setting("", "Access key; a pair is made at first start where none is given.", "KEY")
    secret_access_key: str = _setting(
        "", "Secret of the access key. `ps` shows flags to every user: rather use the variable or the file.", "SECRET"
    )
    workers: int = _setting(1, "Gateway processes; they share the port.", "N")
    max_payload: int = _setting(25, "Largest invocation body in MiB.", "MIB")
    model_timeout: float = _setting(60.0, "Seconds that a model may take to answer an invocation.", "SECONDS")
    stream_timeout: float = _setting(
        480.0, "Seconds that a model may take to complete an answer that it streams.", "SECONDS"
    )
    instance_concurrency: int = _setting(
        0, "Requests that an instance is given at once, divided among the workers; 0 gives it all that come.", "N"
    )
    instance_queue: int = _setting(
        100, "Requests that may wait for an instance that has as many as --instance-concurrency allows.", "N"
    )
    async_queue: int = _setting(
        100_000, "Requests that may wait at an asynchronous endpoint; those beyond it are refused.", "N"
    )
    async_queue_size: int = _setting(
        1024, "MiB that the bodies may have which wait there, of requests that bring them along.", "MIB"
    )
    async_payload: int = _setting(1024, "Largest input of an asynchronous request in MiB.", "MIB")
    metrics_retention: int = _setting(15, "Days that metrics are kept.", "DAYS")
    metrics_token: str = _setting(
        "",
        "Bearer token that `GET /metrics` asks for; without one only this machine is answered, and only while Clary "
        "listens on loopback. `ps` shows flags to every user: rather use the variable or the file.",
        "TOKEN",
    )
    s3_endpoint: str = _setting("", "URL of your own S3; without it Clary brings one, in the data folder.", "URL")
    s3_access_key_id: str = _setting("", "Access key for your own S3.", "KEY")
    s3_secret_access_key: str = _setting(
        "", "Secret for your own S3. `ps` shows flags to every user: rather use the variable or the file.", "SECRET"
    )
    file_roots: tuple[Path, ...] = _setting((), "Folders that file:// model URLs may point into.", "DIR[:DIR]")
    catalogue: str = _setting("", "TOML file with your own entries for the image catalogue.", "FILE")
    artifact_cache: int = _setting(20, "GiB of unpacked model artifacts to keep.", "GIB")
    max_artifact: int = _setting(64, "Largest unpacked model artifact in GiB.", "GIB")
    stop_grace: float = _setting(30.0, "Seconds between SIGTERM and SIGKILL when an instance is replaced.", "SECONDS")
    delete_grace: float = _setting(3.0, "The same when its endpoint is deleted.", "SECONDS")
    defer_checks: bool = _setting(
        False, "Let CreateModel take artifacts and images on trust, for models that are made before their artifacts."
    )
    lambda_endpoint: str = _setting(
        "", "URL of the Lambda API that has the functions which RepositoryCredentialsProviderArn names.", "URL"
    )
    sns_endpoint: str = _setting(
        "", "URL of the SNS API that has the topics which asynchronous endpoints tell of their results.", "URL"
    )
    sns_access_key_id: str = _setting("", "Access key for that SNS; without one, Clary's own.", "KEY")
    sns_secret_access_key: str = _setting(
        "", "Secret for that SNS. `ps` shows flags to every user: rather use the variable or the file.", "SECRET"
    )
    notifications: str = _setting(
        "",
        "Without --sns-endpoint: where notifications go, an http(s) URL or a file; without either, into "
        "`notifications.jsonl` in the data folder.",
        "URL|FILE",
    )
    networks: Mapping[str, Any] = _table(
        "The Docker network that each subnet and security group of a VpcConfig stands for."
    )
    ignore_vpc: bool = _setting(
        False, "Let the process engine, which has no networks, run models with a VpcConfig in the machine's own."
    )
    shm_size: int = _setting(64, "Size of a container's /dev/shm in MiB (Docker engine); the service has 64.", "MIB")
    registries: Mapping[str, Any] = _table("Where the images of a registry really are, and how to log in there.")
    log_size: int = _setting(64, "MiB of each container's log to keep; the oldest lines go first.", "MIB")
    log_retention: int = _setting(14, "Days to keep lines of logs, where their log group says nothing else.", "DAYS")
    log_level: str = _setting("info", "Least severity that is logged: debug, info, warning, error.", "LEVEL")

    @property
    def database(self) -> Path:
        return self.data / "state" / "clary.db"

    @property
    def run(self) -> Path:
        """Sockets, the last route table, what the engine remembers of its containers."""
        return self.data / "run"

    @property
    def transforms(self) -> Path:
        """The folders of transform jobs that are under way."""
        return self.run / "transforms"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def objects(self) -> Path:
        """The buckets of the bundled S3, one folder each."""
        return self.data / "s3"

    @property
    def credentials(self) -> Path:
        return self.data / "credentials"


TABLE: Mapping[str, Field[Any]] = {f.name: f for f in fields(Settings)}
TABLES = frozenset(name for name, f in TABLE.items() if f.type == "Mapping[str, Any]")
"""The settings that are given in the file alone."""


def flag(name: str) -> str:
    """Give a setting's command-line flag: `--account-id`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Give a setting's environment variable: `CLARY_ACCOUNT_ID`."""
    return ENVIRONMENT_PREFIX + name.upper()


def load(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge the three sources into settings.

    `file` defaults to `CLARY_CONFIG`, else to `config.toml` in the data folder where that exists.
    Raises SettingsError with the name of the source, the setting and what would be right.
    """
    environment = os.environ if environment is None else environment
    single = [name for name in TABLE if name not in TABLES]
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_environment = {
        name: environment[variable(name)] for name in single if environment.get(variable(name), "") != ""
    }
    _refuse_unknown_variables(environment)
    data = Path(given.get("data") or from_environment.get("data") or _defaults()["data"]).expanduser()
    chosen = file or (Path(environment["CLARY_CONFIG"]) if environment.get("CLARY_CONFIG") else None)
    from_file = _read(chosen or data / "config.toml", required=chosen is not None)
    sources = (("default", _defaults()), (str(chosen or data / "config.toml"), from_file))
    values: dict[str, Any] = {}
    for source, table in (*sources, ("environment", from_environment), ("command line", given)):
        for name, value in table.items():
            values[name] = _convert(name, value, source)
    settings = Settings(**values)
    _check(settings)
    return settings


def to_environment(settings: Settings) -> dict[str, str]:
    """Give the variables that `inherited` turns into the same settings again: how child processes get them.

    Not those that `load` reads: to it an empty one is as good as none, and it would look into the file again, which
    may have changed since.
    """
    values = {name: getattr(settings, name) for name in TABLE}
    plain = {
        n: list(map(str, v)) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v
        for n, v in values.items()
    }
    return {_INHERITED: json.dumps(plain)}


def inherited(environment: Mapping[str, str]) -> Settings:
    """Give the settings of the parent process, to the letter. Raises SettingsError where there is no such parent."""
    if _INHERITED not in environment:
        raise SettingsError(f"{_INHERITED} is missing: only `clary up` starts this")
    return Settings(**{n: _convert(n, value, _INHERITED) for n, value in json.loads(environment[_INHERITED]).items()})


def _defaults() -> dict[str, Any]:
    return {name: {} if name in TABLES else f.default for name, f in TABLE.items()}


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {variable(name) for name in TABLE if name not in TABLES} | {"CLARY_CONFIG"}
    unknown = sorted(name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"environment variable {unknown[0]} is not a setting; `clary up --help` lists them")


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        if required:
            raise SettingsError(f"the settings file {path} does not exist") from error
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    named = {name.replace("-", "_"): value for name, value in table.items()}
    unknown = sorted(set(named) - set(TABLE))
    if unknown:
        raise SettingsError(f"{path}: {unknown[0]} is not a setting; `clary up --help` lists them")
    return named


def _paths(value: Any) -> tuple[Path, ...]:
    parts = value.split(os.pathsep) if isinstance(value, str) else value
    return tuple(Path(part).expanduser().resolve() for part in parts if str(part))


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    text = str(value).lower()
    if text not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[text]


def _as_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("not a table")
    return dict(value)


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": _boolean,
    "Path": lambda value: Path(value).expanduser().absolute(),
    "tuple[Path, ...]": _paths,
    "Mapping[str, Any]": _as_table,
}


def _convert(name: str, value: Any, source: str) -> Any:
    kind = str(TABLE[name].type)
    try:
        if isinstance(value, bool) and kind != "bool":
            raise ValueError("not a boolean setting")
        return _CONVERTERS[kind](value)
    except (TypeError, ValueError) as error:
        if name in TABLES:
            raise SettingsError(f"[{name}] ({source}): must be a table") from error
        raise SettingsError(f"{flag(name)} ({source}): {value!r} is not valid: expected {kind}") from error


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(s: Settings) -> None:
    rules = (
        (0 <= s.port <= 65535, "port", "0 to 65535"),
        (len(s.account_id) == 12 and s.account_id.isascii() and s.account_id.isdigit(), "account_id", "twelve digits"),
        (s.auth in ("sigv4", "off"), "auth", "sigv4 or off"),
        (s.auth != "off" or is_loopback(s.host), "auth", "sigv4 when --host is not a loopback address"),
        (
            bool(s.access_key_id) == bool(s.secret_access_key),
            "access_key_id",
            "given together with --secret-access-key",
        ),
        (bool(s.tls_cert) == bool(s.tls_key), "tls_cert", "given together with --tls-key"),
        (1 <= s.workers <= 256, "workers", "1 to 256"),
        (s.max_payload >= 1, "max_payload", "at least 1 MiB"),
        (s.model_timeout > 0, "model_timeout", "more than 0 seconds"),
        (s.stream_timeout > 0, "stream_timeout", "more than 0 seconds"),
        (s.instance_concurrency >= 0, "instance_concurrency", "at least 0"),
        (s.instance_queue >= 0, "instance_queue", "at least 0"),
        (s.async_queue >= 1, "async_queue", "at least 1"),
        (s.async_queue_size >= 1, "async_queue_size", "at least 1 MiB"),
        (s.async_payload >= 1, "async_payload", "at least 1 MiB"),
        (s.stop_grace >= 0 and s.delete_grace >= 0, "stop_grace", "not negative"),
        (s.artifact_cache >= 1 and s.max_artifact >= 1, "artifact_cache", "at least 1 GiB"),
        (not s.s3_endpoint or urlsplit(s.s3_endpoint).scheme in ("http", "https"), "s3_endpoint", "an http(s) URL"),
        (
            not s.lambda_endpoint or urlsplit(s.lambda_endpoint).scheme in ("http", "https"),
            "lambda_endpoint",
            "an http(s) URL",
        ),
        (not s.sns_endpoint or urlsplit(s.sns_endpoint).scheme in ("http", "https"), "sns_endpoint", "an http(s) URL"),
        (
            bool(s.sns_access_key_id) == bool(s.sns_secret_access_key),
            "sns_access_key_id",
            "given together with --sns-secret-access-key",
        ),
        (s.shm_size >= 1, "shm_size", "at least 1 MiB"),
        (s.log_size >= 1, "log_size", "at least 1 MiB"),
        (s.log_retention >= 1, "log_retention", "at least 1 day"),
        (s.metrics_retention >= 1, "metrics_retention", "at least 1 day"),
        (s.log_level in ("debug", "info", "warning", "error"), "log_level", "debug, info, warning or error"),
        (bool(s.region) and s.region.replace("-", "").isalnum(), "region", "a region's name such as us-east-1"),
    )
    for id, network in s.networks.items():
        if not isinstance(network, str):
            raise SettingsError(f"[networks]: {id} must be the name of a Docker network, not {network!r}")
    for holds, name, expected in rules:
        if not holds:
            raise SettingsError(f"{flag(name)}: must be {expected}, not {getattr(s, name)!r}")
