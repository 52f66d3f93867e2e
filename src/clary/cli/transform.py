"""`clary transform`: transform jobs, how far they are, and what was written about them.

States come from the API. How far a job is comes from its folder, which only the Clary on this machine has; everybody
else sees the state alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from clary.cli.connection import Connection, connect, data_folder, data_option
from clary.core.failure import printable
from clary.core.resources import TRANSFORM_LOGS
from clary.core.transform import Progress
from clary.errors import ClaryError
from clary.jobfolder import find
from clary.logs.folder import LogFolder

POLL = 0.5
UNDER_WAY = ("InProgress", "Stopping")
_STATUS_WIDTH, _NAME_WIDTH = 12, 40


class JobFailed(ClaryError):
    """A job that was waited for has failed, or there are no logs of it."""


@click.group()
def transform() -> None:
    """List transform jobs, wait for them, and show how far they are."""


@transform.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that ended before the last twenty.")
@data_option
def list_jobs(data: Path | None, everything: bool) -> None:
    """Print the newest jobs and how far they are."""
    connection = connect(data)
    for job in _jobs(connection, everything=everything):
        name, status = job["TransformJobName"], job["TransformJobStatus"]
        if status in UNDER_WAY:
            progress = _progress(connection, name)
            detail = progress.words if progress else ""
        else:
            detail = printable(job.get("FailureReason", "")).partition("\n")[0] or _ended(job)
        click.echo(f"{name:<{_NAME_WIDTH}} {status:<{_STATUS_WIDTH}} {detail}".rstrip())


@transform.command()
@click.argument("name")
@data_option
def wait(name: str, data: Path | None) -> None:
    """Show how far a job is until it has ended. Leaves with 1 where it failed."""
    from rich.console import Console

    from clary.cli.progress import Steps

    connection = connect(data)
    sagemaker = connection.client("sagemaker")
    with Steps(Console()).step(name) as step:
        while True:
            job = sagemaker.describe_transform_job(TransformJobName=name)
            if job["TransformJobStatus"] not in UNDER_WAY:
                break
            if (progress := _progress(connection, name)) is None:
                step.say(job["TransformJobStatus"])
            else:
                step.say(progress.words, progress.size / progress.size_total if progress.size_total else None)
            time.sleep(POLL)
        step.say(f"{job['TransformJobStatus']}  {step.detail}")
    if job["TransformJobStatus"] == "Failed":
        raise JobFailed(printable(job.get("FailureReason", "it failed")))


@transform.command()
@click.argument("name")
@data_option
def logs(name: str, data: Path | None) -> None:
    """Print what a job's containers wrote.

    With it comes the job's data log, which tells of every object that failed.
    """
    folder = LogFolder(data_folder(data) / "logs")
    streams = folder.streams(TRANSFORM_LOGS, f"{name}/")
    if not streams:
        raise JobFailed(f"no logs of transform job {name} under {folder.path(TRANSFORM_LOGS, '').parent}")
    for stream in streams:
        for event in stream.events(stream.head):
            prefix = click.style(stream.name.removeprefix(f"{name}/"), fg="cyan")
            click.echo(f"{prefix}  {printable(event.message)}")


def _jobs(connection: Connection, *, everything: bool) -> Iterator[dict[str, Any]]:
    sagemaker = connection.client("sagemaker")
    page = sagemaker.list_transform_jobs(MaxResults=100 if everything else 20)
    while True:
        yield from page["TransformJobSummaries"]
        if not everything or "NextToken" not in page:
            return
        page = sagemaker.list_transform_jobs(MaxResults=100, NextToken=page["NextToken"])


def _progress(connection: Connection, name: str) -> Progress | None:
    if connection.data is None:
        return None
    folder = find(connection.data / "run" / "transforms", name)
    return None if folder is None else folder.progress()


def _ended(job: dict[str, Any]) -> str:
    ended: datetime | None = job.get("TransformEndTime")
    return "" if ended is None else f"after {(ended - job['CreationTime']).total_seconds():.1f} s"
