"""`clary keys` and `clary roles`: who there is besides the default key, and what each may do.

They ask the control plane over a private path of the public port, signed with the default key, which alone is heard.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from clary.cli.connection import Connection, connect, data_option
from clary.errors import ClaryError

PATH = "/_clary/iam"

_policies = click.option(
    "--policy",
    "policies",
    type=click.File(),
    multiple=True,
    metavar="FILE",
    help="IAM policy document in JSON; repeatable. Without any nothing is allowed.",
)


_tags = click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="For policies with aws:PrincipalTag/KEY; repeatable."
)


class Refused(ClaryError):
    """Clary would not do it."""


@click.group()
def keys() -> None:
    """Make, list and delete access keys and what they may do."""


@keys.command("create")
@click.argument("name")
@_policies
@_tags
@data_option
def create_key(name: str, policies: tuple[IO[str], ...], tags: tuple[str, ...], data: Path | None) -> None:
    """Make a user with an access key, and print the exports that use it.

    The secret is shown this once. `eval "$(clary keys create ci --policy invoke.json)"` acts as the new user.
    """
    request: dict[str, object] = {"Do": "CreateKey", "Name": name, "Policies": [_document(file) for file in policies]}
    made = ask(connect(data), {**request, **_tagged(tags)})
    click.echo(f"export AWS_ACCESS_KEY_ID={made['AccessKeyId']}")
    click.echo(f"export AWS_SECRET_ACCESS_KEY={made['SecretAccessKey']}")


@keys.command("list")
@data_option
def list_keys(data: Path | None) -> None:
    """Print each user: name, access key, day of creation, policies."""
    for user in ask(connect(data), {"Do": "ListKeys"})["Keys"]:
        _print_row(user["Name"], user["AccessKeyId"], user)


@keys.command("delete")
@click.argument("name")
@data_option
def delete_key(name: str, data: Path | None) -> None:
    """Delete a user; its key is refused from the next request on."""
    ask(connect(data), {"Do": "DeleteKey", "Name": name})


@click.group()
def roles() -> None:
    """Make, list and delete roles.

    Models run as a role; sts:AssumeRole lets others act as one. From the first role on an ExecutionRoleArn must name
    one that is there, for good.
    """


@roles.command("create")
@click.argument("name")
@_policies
@click.option("--trust", type=click.File(), metavar="FILE", help="Who may assume it [default: SageMaker, the account].")
@click.option("--path", metavar="/PATH/", help="What stands before the name in its ARN [default: /].")
@_tags
@data_option
def create_role(
    name: str,
    policies: tuple[IO[str], ...],
    trust: IO[str] | None,
    path: str | None,
    tags: tuple[str, ...],
    data: Path | None,
) -> None:
    """Make a role and print its ARN."""
    request: dict[str, object] = {"Do": "CreateRole", "Name": name, "Policies": [_document(file) for file in policies]}
    request |= _tagged(tags)
    if path is not None:
        request["Path"] = path
    if trust is not None:
        request["Trust"] = _document(trust)
    click.echo(ask(connect(data), request)["Arn"])


@roles.command("list")
@data_option
def list_roles(data: Path | None) -> None:
    """Print each role: name, ARN, day of creation, policies."""
    for role in ask(connect(data), {"Do": "ListRoles"})["Roles"]:
        _print_row(role["Name"], role["Arn"], role)


@roles.command("delete")
@click.argument("name")
@data_option
def delete_role(name: str, data: Path | None) -> None:
    """Delete a role; who acts as it may do nothing any more."""
    ask(connect(data), {"Do": "DeleteRole", "Name": name})


def ask(connection: Connection, request: dict[str, object]) -> Any:
    """Send one signed request and give the answer. Raises Refused with the server's words."""
    import botocore.session
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.httpsession import URLLib3Session

    given = connection.credentials
    found = (
        Credentials(given.access_key_id, given.secret_access_key)
        if given
        else botocore.session.get_session().get_credentials()
    )
    if found is None:
        raise Refused("no credentials found; only the default key may manage keys and roles")
    message = AWSRequest(
        "POST", connection.url + PATH, {"Content-Type": "application/json"}, json.dumps(request).encode()
    )
    SigV4Auth(found, "iam", connection.region).add_auth(message)
    # A Clary that was found in a folder is on this machine: a proxy of the environment cannot reach it.
    answer = URLLib3Session(connection.ca_bundle or True, {} if connection.data else None).send(message.prepare())
    try:
        document = json.loads(answer.content)
    except ValueError:
        raise Refused(f"{connection.url} does not manage keys and roles (HTTP {answer.status_code})") from None
    if answer.status_code != 200:
        raise Refused(f"{document.get('message')} ({document.get('__type')})")
    return document


def _tagged(tags: tuple[str, ...]) -> dict[str, object]:
    if wrong := next((tag for tag in tags if not tag.partition("=")[0] or "=" not in tag), None):
        raise Refused(f"--tag {wrong}: a tag is KEY=VALUE")
    return {"Tags": {key: value for key, _, value in (tag.partition("=") for tag in tags)}} if tags else {}


def _document(file: IO[str]) -> object:
    try:
        return json.load(file)
    except ValueError as error:
        raise Refused(f"{file.name} is not JSON: {error}") from error


def _print_row(name: str, id: str, item: dict[str, Any]) -> None:
    made = datetime.fromtimestamp(item["CreateDate"], UTC).date().isoformat()
    policies = len(item["Policies"])
    click.echo(f"{name:<24} {id}  {made}  {policies} {'policy' if policies == 1 else 'policies'}")
