"""`clary demo`: the whole of Clary's work once, each step with its time and the aws command that does the same."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clary import settings
from clary.cli.connection import Connection, data_flag, data_folder, find, program
from clary.errors import ClaryError

if TYPE_CHECKING:
    from clary.cli.deployment import Deployment
    from clary.cli.progress import Steps

OWN_FOLDER = Path("~/.clary-demo")
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
NAME = "demo-iris"
# Sepal length, sepal width, petal length and petal width in cm of one flower of Fisher's data: a versicolor.
MEASUREMENT = [6.0, 2.9, 4.5, 1.5]
STARTS_WITHIN = 60.0
STOPS_WITHIN = 45.0


class DemoFailed(ClaryError):
    """The demonstration did not get to its end."""


@dataclass(frozen=True, slots=True)
class Show:
    """What the demonstration prints with, and where it works."""

    steps: Steps
    data: Path

    @property
    def folder(self) -> Path:
        """Holds the trained model, its archive and the request, for trying further."""
        return self.data / "demo"

    def command(self, *lines: str) -> None:
        """Print the commands that do by hand what the next step does."""
        for line in lines:
            self.steps.console.print(f"\n$ {line}", style="dim", markup=False, highlight=False, soft_wrap=True, end="")
        self.steps.console.print()


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder [default: that of the running Clary, else ~/.clary-demo; CLARY_DATA].",
)
def demo(data: Path | None) -> None:
    """Train, deploy and invoke a model, and show every step.

    Uses the Clary that runs on the data folder; where none runs, starts one on a free port and stops it at the end.
    The endpoint is deleted again. What stays is in the data folder: the trained model and the environments, so that
    the next time is quick.
    """
    from rich.console import Console

    from clary.cli.progress import Steps

    started = time.monotonic()
    folder = choose_folder(data)
    show = Show(Steps(Console(highlight=False)), folder)
    with _ends_well(), _clary(show) as (connection, own):
        _serve_once(show, connection)
    click.echo(_farewell(show, own=own, seconds=time.monotonic() - started))


def choose_folder(data: Path | None) -> Path:
    """Give the folder that was named, else that of a running Clary, else one for demonstrations."""
    named = data is not None or os.environ.get(settings.variable("data"))
    usual = data_folder(data)
    return usual if named or find(usual) else OWN_FOLDER.expanduser()


@contextmanager
def _ends_well() -> Iterator[None]:
    """Let these signals unwind the stack, as Ctrl-C does: what was started must be stopped."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _clary(show: Show) -> Iterator[tuple[Connection, bool]]:
    """Give a running Clary, and whether it was started here; what was started is stopped."""
    connection = find(show.data)
    if connection is not None:
        click.echo(f"Using the Clary at {connection.url}, data in {show.data}")
        yield connection, False
        return
    log = show.data / "logs" / "demo-clary.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    show.command(f"{program()} up --port 0 --data {shlex.quote(str(show.data))} &")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is for the demonstration, which then stops its Clary itself.
        process = subprocess.Popen(up_command(show.data), stdout=output, stderr=output, start_new_session=True)
    try:
        with show.steps.step("Start Clary") as step:
            connection = _wait_until_up(process, show.data, log)
            step.say(f"{connection.url}, data in {show.data}")
        yield connection, True
    finally:
        if process.poll() is None:
            with show.steps.step("Stop Clary"):
                _stop(process)


def up_command(data: Path) -> list[str]:
    """Give what starts a Clary on a free port, whatever the PATH holds."""
    return [sys.executable, "-m", "clary.cli.main", "up", "--port", "0", "--data", str(data)]


def _wait_until_up(process: subprocess.Popen[bytes], data: Path, log: Path) -> Connection:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        connection = find(data)
        if connection is not None:
            return connection
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailed(f"Clary ended with {process.returncode} at its start: {' | '.join(said)} (all in {log})")
        time.sleep(0.05)
    raise DemoFailed(f"Clary did not answer within {STARTS_WITHIN:.0f} s; its log is {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve_once(show: Show, connection: Connection) -> None:
    from clary.cli.deployment import Deployment, Wanted

    archive = _make_model(show)
    deployment = Deployment(connection, Wanted(NAME, archive, IMAGE), time.time())
    _remove_leftover(show, deployment)
    _deploy(show, deployment)
    _invoke(show, connection)
    show.command(f"aws sagemaker delete-endpoint --endpoint-name {NAME}")
    with show.steps.step("Delete the endpoint") as step:
        deployment.delete()
        step.say(f"config and model too; {deployment.url} stays")


def _make_model(show: Show) -> Path:
    from clary.cli.progress import size
    from clary.cli.training import pack, train, training_python

    model, archive = show.folder / "model", show.folder / "model.tar.gz"
    with show.steps.step("Prepare scikit-learn") as step:
        python = training_python(show.data / "environments", IMAGE, step.say)
        step.say("environment built by uv" if step.detail else "environment from an earlier time")
    with show.steps.step("Train on the iris data") as step:
        result = train(python, model)
        step.say(f"{result['accuracy']:.1%} right on {result['held_out']} flowers it has not seen")
    show.command(f"tar czf {shlex.quote(str(archive))} -C {shlex.quote(str(model))} .")
    with show.steps.step("Pack") as step:
        pack(model, archive)
        step.say(f"{archive}, {size(archive.stat().st_size)}")
    return archive


def _remove_leftover(show: Show, deployment: Deployment) -> None:
    """A demonstration that was interrupted may have left its endpoint."""
    if deployment.exists():
        with show.steps.step("Delete the last demo's"):
            deployment.delete_endpoint()


def _deploy(show: Show, deployment: Deployment) -> None:
    model, config = deployment.model_request(), deployment.config_request()
    bucket = deployment.wanted.bucket
    show.command(
        f'eval "$({program()} env{data_flag(show.data)})"',
        f"aws s3 mb s3://{bucket}",
        f"aws s3 cp {shlex.quote(str(deployment.wanted.archive))} {deployment.url}",
    )
    with show.steps.step("Upload") as step:
        deployment.upload(step)
    show.command(
        f"aws sagemaker create-model --model-name {model['ModelName']} "
        f"--primary-container {_json(model['PrimaryContainer'])}",
        f"aws sagemaker create-endpoint-config --endpoint-config-name {config['EndpointConfigName']} "
        f"--production-variants {_json(config['ProductionVariants'])}",
        f"aws sagemaker create-endpoint --endpoint-name {NAME} --endpoint-config-name {config['EndpointConfigName']}",
    )
    with show.steps.step("Create") as step:
        deployment.create()
        step.say(f"model, config, endpoint {NAME}")
    show.command(f"aws sagemaker wait endpoint-in-service --endpoint-name {NAME}")
    with show.steps.step("Wait until it serves") as step:
        deployment.wait(step)


def _invoke(show: Show, connection: Connection) -> None:
    from clary.cli.deployment import invoke_command

    request = json.dumps({"instances": [MEASUREMENT]})
    path = show.folder / "request.json"
    path.write_text(request)
    show.command(invoke_command(NAME, "application/json", shlex.quote(str(path))))
    runtime = connection.client("sagemaker-runtime")
    with show.steps.step("Invoke") as step:
        answer = runtime.invoke_endpoint(EndpointName=NAME, ContentType="application/json", Body=request.encode())
        body = answer["Body"].read().decode()
        step.say(f"by variant {answer['InvokedProductionVariant']}")
    show.steps.console.print(f"\n  Request  {request}\n  Answer   {body}", markup=False, soft_wrap=True)


def _json(value: Any) -> str:
    return shlex.quote(json.dumps(value))


def _farewell(show: Show, *, own: bool, seconds: float) -> str:
    folder, clary = data_flag(show.data), program()
    start = f"  {clary} up{folder}\n\nand in another terminal:\n\n" if own else ""
    return f"""
Done in {seconds:.1f} s. All that stays is in {show.data}

Next, serve it yourself:

{start}  {clary} deploy {show.folder / "model.tar.gz"} --name iris{folder} \\
    --image {IMAGE}"""
