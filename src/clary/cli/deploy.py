"""`clary deploy`: one command for what CreateModel, CreateEndpointConfig and CreateEndpoint do in three."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clary.cli.connection import connect, data_option

if TYPE_CHECKING:
    from clary.cli.deployment import Deployment


class Assignment(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`; the value may be empty and may hold further equals signs."""

    name = "K=V"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, separator, content = str(value).partition("=")
        if not separator or not key:
            self.fail(f"{value!r} is not of the form KEY=VALUE", param, ctx)
        return key, content


@click.command()
@click.argument("archive", metavar="MODEL_TAR", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--image", required=True, help="Inference image; `clary` maps AWS's own to what this machine can run.")
@click.option("--name", required=True, help="Name of the endpoint.")
@click.option("--instance-type", default="ml.m5.large", show_default=True, help="Sets CPU and memory limits.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Number of instances.")
@click.option("--env", "environment", type=Assignment(), multiple=True, help="Variable of the container; repeatable.")
@click.option("--role", default="", metavar="ARN", help="ExecutionRoleArn of the model.")
@click.option("--bucket", default="clary-models", show_default=True, help="Where to upload to; made if missing.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Whether to wait until it serves.")
@data_option
def deploy(data: Path | None, wait: bool, environment: tuple[tuple[str, str], ...], **wanted: Any) -> None:
    """Upload a model.tar.gz and serve it as an endpoint.

    Does what `aws s3 cp`, `create-model`, `create-endpoint-config` and `create-endpoint` do, and waits. An endpoint
    that fails stays, so that `clary doctor NAME` can tell why; where none could be created, nothing stays.
    """
    from clary.cli.deployment import Deployment, Wanted

    connection = connect(data)
    deployment = Deployment(connection, Wanted(environment=dict(environment), **wanted), time.time())
    run(deployment, wait=wait)


def run(deployment: Deployment, *, wait: bool) -> None:
    """Carry out the deployment and show its steps. Raises DeployFailed."""
    from rich.console import Console

    from clary.cli.deployment import invoke_command
    from clary.cli.progress import Steps

    name = deployment.wanted.name
    steps = Steps(Console())
    deployment.refuse_existing()
    with steps.step("Upload") as step:
        deployment.upload(step)
    with steps.step("Create") as step:
        deployment.create()
        step.say(f"model and config {deployment.resource}, endpoint {name}")
    if not wait:
        click.echo(f"\nWait for it:  aws sagemaker wait endpoint-in-service --endpoint-name {name}")
        return
    with steps.step("Wait until it serves") as step:
        deployment.wait(step)
    click.echo(f"\nInvoke it:  {invoke_command(name)}")
