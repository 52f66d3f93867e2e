"""`clary doctor`: what this machine has and lacks; with a name, why an endpoint failed."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Any, Literal

import click

from clary import settings
from clary.cli import connection, machine
from clary.cli.connection import data_option
from clary.errors import ClaryError, SettingsError
from clary.settings import GIB, Settings

if TYPE_CHECKING:
    from clary.cli.diagnosis import Diagnosis

LOG_LINES, LEAST_LINES, LONGEST_LINE = 20, 5, 500
LEAST_DISK, GOOD_DISK = 1 * GIB, 10 * GIB
GOOD_MEMORY = 2 * GIB
STYLES: Mapping[str, Mapping[str, Any]] = {"ok": {"fg": "green"}, "warn": {"fg": "yellow"}, "fail": {"fg": "red"}}


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question about this machine."""

    topic: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


@click.command()
@click.argument("endpoint", required=False)
@data_option
def doctor(endpoint: str | None, data: Path | None) -> None:
    """Say what this machine lacks, or why an endpoint failed.

    Without a name, looks at this machine; exit code 1 where something that Clary needs is missing. With the name of
    an endpoint, shows its state, the full FailureReason, the last log lines and what to try; exit code 1 where it
    does not serve as it should.
    """
    healthy = _examine_endpoint(endpoint, data) if endpoint else _examine_machine(data)
    raise click.exceptions.Exit(0 if healthy else 1)


def _examine_machine(data: Path | None) -> bool:
    findings = examine(data)
    for finding in findings:
        click.echo(
            f"{click.style(f'{finding.state:<4}', **STYLES[finding.state])}  {finding.topic:<10}  {finding.found}"
        )
        if finding.advice:
            click.echo(" " * 18 + click.style(finding.advice, dim=True))
    return all(finding.state != "fail" for finding in findings)


def examine(data: Path | None) -> list[Finding]:
    """Ask every question. A wrong setting is a finding too; the rest is then asked of the defaults."""
    try:
        current = settings.load({"data": data})
        findings = [Finding("Settings", "ok", f"data folder {current.data}")]
    except SettingsError as error:
        current = settings.load({"data": data}, environment={}, file=Path(os.devnull))
        findings = [Finding("Settings", "fail", str(error), "correct it: `clary up` refuses to start with it")]
    return findings + [check(current) for check in CHECKS]


def _pythons(_: Settings) -> Finding:
    uv = machine.uv_binary()
    found = machine.pythons(uv) if uv else []
    if not found:
        return Finding("Python", "warn", "uv finds no Python to build environments with", "uv python install 3.11")
    return Finding("Python", "ok", ", ".join(found))


def _uv(_: Settings) -> Finding:
    uv = machine.uv_binary()
    version = machine.version_of(uv, "--version") if uv else None
    if version is None:
        return Finding("uv", "fail", "not found: script-mode models cannot be served", "pip install uv")
    return Finding("uv", "ok", f"{version} at {uv}")


def _disk(current: Settings) -> Finding:
    free = machine.free_bytes(current.data)
    found = f"{free / GIB:.1f} GiB free for {current.data}"
    if not machine.can_write(current.data):
        return Finding("Disk", "fail", f"{current.data} cannot be written to", "choose another folder with --data")
    if free < LEAST_DISK:
        return Finding("Disk", "fail", found, "free some space, or choose another folder with --data")
    return Finding("Disk", "ok" if free >= GOOD_DISK else "warn", found)


def _port(current: Settings) -> Finding:
    place = f"{current.host}:{current.port}"
    if current.port == 0 or machine.can_bind(current.host, current.port):
        return Finding("Port", "ok", f"{place} is free")
    clary = connection.find(current.data)
    if clary is not None and clary.url.endswith(f":{current.port}"):
        return Finding("Port", "ok", f"{place} is this Clary's")
    owner = machine.listener(current.port) or "a process that is not yours to see"
    return Finding("Port", "fail", f"{place} is taken ({owner})", "choose another with --port, or 0 for a free one")


def _gateway(_: Settings) -> Finding:
    if machine.has_short_way():
        return Finding("Gateway", "ok", "invocations go the compiled short way")
    advice = "install Clary again where there is a C compiler: plain invocations then take a third of the CPU time"
    return Finding("Gateway", "warn", "the short way of invocations is not compiled", advice)


def _docker(current: Settings) -> Finding:
    version = machine.docker_version()
    if version is not None:
        return Finding("Docker", "ok", version)
    state: Literal["fail", "warn"] = "fail" if current.engine == "docker" else "warn"
    if machine.docker_is_shut():
        advice = "add the user to the group docker, and log in anew"
        return Finding("Docker", state, "it is here, and this user may not speak with it", advice)
    return Finding("Docker", state, "no daemon answers; only the docker engine needs it", "systemctl start docker")


def _registries(current: Settings) -> Finding:
    from clary.engines.docker.registries import Registries

    try:
        hosts: Sequence[str] = Registries(current.registries).hosts()
        if (clary := connection.find(current.data)) is not None and clary.registries is not None:
            hosts = clary.registries  # it may have other settings than these
    except SettingsError as error:
        return Finding("Registries", "fail", str(error), "correct it: `clary up` refuses to start with it")
    away = [host for host in hosts if not machine.can_connect(host)]
    if away:
        advice = "their images cannot be pulled until they do; correct [registries] where the place is wrong"
        return Finding("Registries", "warn", f"{', '.join(away)} cannot be connected to", advice)
    return Finding("Registries", "ok", ", ".join(hosts) or "images come from where their names say")


def _networks(current: Settings) -> Finding:
    if not current.networks:
        return Finding("Networks", "ok", "no VpcConfig stands for a network of Docker's")
    names = sorted(set(current.networks.values()))
    there = machine.docker_networks()
    if missing := [name for name in names if there is not None and name not in there]:
        advice = f"models in these networks fail: docker network create {missing[0]}"
        return Finding(
            "Networks", "warn", f"Docker has no network {', '.join(missing)}, which [networks] names", advice
        )
    return Finding("Networks", "ok", ", ".join(names))


def _namespaces(_: Settings) -> Finding:
    if machine.can_mount():
        return Finding("Namespaces", "ok", "models see their files at /opt/ml/model, read-only")
    advice = "allow unprivileged user namespaces, e.g. sysctl kernel.unprivileged_userns_clone=1"
    return Finding("Namespaces", "warn", "models find their files by SM_MODEL_DIR only", advice)


def _isolation(_: Settings) -> Finding:
    if (obstacle := machine.isolation_obstacle()) is not None:
        return Finding("Isolation", "warn", obstacle)
    return Finding("Isolation", "ok", "models with EnableNetworkIsolation have a network namespace of their own")


def _cgroups(current: Settings) -> Finding:
    clary = connection.find(current.data)
    if (clary.engine if clary else current.engine) == "docker":
        if machine.docker_limits_memory():
            return Finding("Limits", "ok", "Docker holds containers to the CPU and memory of their instance types")
        return Finding("Limits", "warn", "this Docker engine cannot limit memory: models may use all that there is")
    notes = machine.limit_notes()
    if notes:
        return Finding("Limits", "warn", " ".join(notes))
    return Finding("Limits", "ok", "CPU and memory limits of instance types are enforced by control groups")


def _memory(_: Settings) -> Finding:
    total, available = machine.memory_bytes()
    found = f"{machine.cpus()} CPUs, {available / GIB:.1f} of {total / GIB:.1f} GiB memory available"
    return Finding("Machine", "ok" if available >= GOOD_MEMORY else "warn", found)


def _clock(_: Settings) -> Finding:
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < machine.newest_source():
        advice = "set the clock: signatures are valid within a few minutes only"
        return Finding("Clock", "fail", f"{found} is earlier than Clary was installed", advice)
    return Finding("Clock", "ok", found)


def _answers(current: Settings) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        clary = connection.find(current.data)
        if clary is None:
            return Finding("Clary", "warn", f"none is running on {current.data}", "clary up")
        sagemaker = clary.client("sagemaker")
        started = time.monotonic()
        sagemaker.list_endpoints(MaxResults=1)
    except (ClaryError, BotoCoreError, ClientError) as error:
        return Finding("Clary", "fail", str(error), f"its log is in {current.logs}")
    return Finding("Clary", "ok", f"answers at {clary.url} in {(time.monotonic() - started) * 1000:.0f} ms")


CHECKS: Sequence[Callable[[Settings], Finding]] = (
    _pythons,
    _uv,
    _disk,
    _port,
    _gateway,
    _docker,
    _registries,
    _networks,
    _namespaces,
    _isolation,
    _cgroups,
    _memory,
    _clock,
    _answers,
)


def _examine_endpoint(name: str, data: Path | None) -> bool:
    from clary.cli import packing, shelves
    from clary.cli.diagnosis import advice, diagnose
    from clary.core.failure import is_same_at_each_start

    clary = connection.connect(data)
    diagnosis = diagnose(clary, name)
    click.echo(_summary(diagnosis))
    if clary.data is not None and (instances := packing.ask(clary.data / "run" / "control.sock", diagnosis.name)):
        click.echo("\nWhat its instances are set aside for:")
        for line in packing.text(instances):
            click.echo(f"  {line}")
    if clary.data is not None and (told := shelves.ask(clary.data / "run" / "control.sock", diagnosis.name)):
        click.echo("\nThe models that its containers have:")
        for line in shelves.text(told):
            click.echo(f"  {line}")
    logs = _logs((clary.data or connection.data_folder(data)) / "logs", diagnosis.name)
    shown = [line for lines in logs.values() for line in lines]
    if diagnosis.reason:
        click.echo("\nWhy:")
        _print_reason(diagnosis.reason, shown)
    for component in diagnosis.components:
        if component.reason:
            click.echo(f"\nWhy, of {component.name}:")
            _print_reason(component.reason, shown)
    _print_logs(logs, over_and_over=is_same_at_each_start(diagnosis.reason))
    suggestions = advice(diagnosis)
    if not diagnosis.healthy and clary.engine == "docker" and machine.docker_version() is None:
        suggestions.insert(0, "No Docker engine answers, and without it nothing goes on:  systemctl start docker")
    if suggestions:
        click.echo("\nWhat to try:")
        for line in suggestions:
            click.echo(f"  {line}")
    return diagnosis.healthy


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 120)


def _summary(diagnosis: Diagnosis) -> str:
    lines = [f"Endpoint {diagnosis.name}: {diagnosis.status}, config {diagnosis.config}"]
    for variant in diagnosis.variants:
        lines.append(
            f"  Variant {variant.name}: {variant.current} of {variant.desired} instances"
            f" ({variant.instance_type}), {f'model {variant.model}' if variant.model else 'for inference components'}"
        )
        if variant.doing:
            lines.append(f"    doing  {variant.doing}")
        for container in variant.containers:
            if container.package:
                lines.append(f"    package  {container.package}")
            else:
                lines += [f"    image  {container.image}", f"    data   {container.model_data_url or 'none'}"]
    if diagnosis.backlog is not None:
        lines.append(f"  {diagnosis.backlog.words}")
    for each in diagnosis.components:
        lines.append(f"  Component {each.name}: {each.status}, {each.current} of {each.desired} copies")
    return "\n".join(lines)


def _print_reason(reason: str, shown: Sequence[str]) -> None:
    """Print a FailureReason, without the log that it ends with where that is shown anyway."""
    from clary.core.failure import without_log

    # Names and flags have hyphens, and are there to be copied.
    wrapper = TextWrapper(
        _width(), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
    )
    for paragraph in without_log(reason, shown).splitlines():
        click.echo(wrapper.fill(paragraph))


def _logs(folder: Path, endpoint: str) -> dict[Path, list[str]]:
    """Give the last lines of the endpoint's newest logs, printable, by file."""
    from clary.cli.logs import containers
    from clary.core.failure import printable
    from clary.logs.folder import LogFolder
    from clary.logs.stream import last_texts

    written = [each for each in containers(LogFolder(folder), endpoint) if not each.name.endswith("/data-log")]
    shown = written[-2:]
    if written and (pipeline := re.fullmatch(r"(.+/.+/).+", written[-1].name)):
        # A request passes through all containers of an instance: any of them may be what it failed in.
        shown = [each for each in written if each.name.startswith(pipeline[1])]
    count = max(LEAST_LINES, LOG_LINES * 2 // max(2, len(shown)))
    return {each.file: [printable(line.rstrip()) for line in last_texts(each.file, count)] for each in shown}


def _print_logs(logs: Mapping[Path, Sequence[str]], *, over_and_over: bool) -> None:
    from clary.core.failure import folded, shorten

    for file, lines in logs.items():  # a line may be any length
        same = ", the same at each start" if lines and over_and_over else ""
        click.echo(f"\n{'Last lines of' if lines else 'Nothing in'} {file}{same}")
        for line in folded(lines) if over_and_over else lines:
            click.echo(f"  {shorten(line, LONGEST_LINE)}")
