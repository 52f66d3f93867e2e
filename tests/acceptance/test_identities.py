"""Keys with policies, roles and temporary credentials, through the command line and boto3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.credentials import ContainerProvider
from botocore.exceptions import ClientError, CredentialRetrievalError

from clary.cli.connection import Connection
from clary.cli.identities import Refused, ask
from clary.credentials import Credentials

from .conftest import IMAGE, SERVE, Clary, model_archive, running

pytestmark = pytest.mark.acceptance

ARN = "arn:aws:sagemaker:us-east-1:000000000000"


def allow(action: str | list[str], resource: str) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": resource}}


def acting(clary: Clary, access_key_id: str, secret: str, token: str | None = None) -> boto3.Session:
    return boto3.Session(access_key_id, secret, token, region_name="us-east-1")


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def made_key(clary: Clary, name: str, *policies: dict[str, Any]) -> boto3.Session:
    files = []
    for number, policy in enumerate(policies):
        file = Path(clary.data.parent / f"{name}-{number}.json")
        file.write_text(json.dumps(policy))
        files += ["--policy", str(file)]
    done = clary.clary("keys", "create", name, *files)
    assert done.returncode == 0, done.stderr
    exported = dict(line.removeprefix("export ").split("=", 1) for line in done.stdout.splitlines())
    return acting(clary, exported["AWS_ACCESS_KEY_ID"], exported["AWS_SECRET_ACCESS_KEY"])


def test_keys_and_roles_do_what_their_policies_say(own_clary: Clary) -> None:
    clary, url = own_clary, own_clary.url
    for name in ("open-door", "shut-door"):
        clary.create(name)
    for name in ("open-door", "shut-door"):
        clary.wait(name)
    invoke = made_key(clary, "door", allow("sagemaker:InvokeEndpoint", f"{ARN}:endpoint/open-door"))
    runtime = invoke.client("sagemaker-runtime", endpoint_url=url)
    assert runtime.invoke_endpoint(EndpointName="open-door", Body=b"x")["ResponseMetadata"]["HTTPStatusCode"] == 200
    arn = "arn:aws:iam::000000000000:user/door"
    assert invoke.client("sts", endpoint_url=url).get_caller_identity()["Arn"] == arn

    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="shut-door", Body=b"x")
    assert refused.value.response["Error"] == {
        "Code": "AccessDeniedException",
        "Message": f"User: {arn} is not authorized to perform: sagemaker:InvokeEndpoint on resource: "
        f"{ARN}:endpoint/shut-door because no identity-based policy allows the sagemaker:InvokeEndpoint action",
    }
    sagemaker = invoke.client("sagemaker", endpoint_url=url)
    for call in (sagemaker.list_models, lambda: sagemaker.describe_endpoint(EndpointName="open-door")):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "AccessDeniedException"
    s3 = invoke.client("s3", endpoint_url=url)
    for call in (s3.list_buckets, lambda: s3.get_object(Bucket="models", Key="open-door/model.tar.gz")):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "AccessDenied"

    # a second role of the same person: what the role may do, for as long as the credentials last
    role_policy = allow("sagemaker:InvokeEndpoint", f"{ARN}:endpoint/shut-door")
    file = clary.data.parent / "role.json"
    file.write_text(json.dumps(role_policy))
    made = clary.clary("roles", "create", "caller", "--policy", str(file))
    role = made.stdout.strip()
    assert role == "arn:aws:iam::000000000000:role/caller"
    with pytest.raises(ClientError) as refused:
        invoke.client("sts", endpoint_url=url).assume_role(RoleArn=role, RoleSessionName="me")
    assert code(refused) == "AccessDenied"
    trusted = made_key(clary, "trusted", allow("sts:AssumeRole", role))
    granted = trusted.client("sts", endpoint_url=url).assume_role(
        RoleArn=role, RoleSessionName="night", DurationSeconds=900
    )
    keys = granted["Credentials"]
    assert keys["AccessKeyId"].startswith("ASIA")
    session = acting(clary, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    who = session.client("sts", endpoint_url=url).get_caller_identity()
    assert who["Arn"] == granted["AssumedRoleUser"]["Arn"] == "arn:aws:sts::000000000000:assumed-role/caller/night"
    assert who["UserId"] == granted["AssumedRoleUser"]["AssumedRoleId"]
    runtime = session.client("sagemaker-runtime", endpoint_url=url)
    runtime.invoke_endpoint(EndpointName="shut-door", Body=b"x")
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="open-door", Body=b"x")
    assert code(refused) == "AccessDeniedException"
    forged = acting(clary, keys["AccessKeyId"], keys["SecretAccessKey"], "A" * len(keys["SessionToken"]))
    with pytest.raises(ClientError) as refused:
        forged.client("sts", endpoint_url=url).get_caller_identity()
    assert code(refused) == "InvalidClientTokenId"

    # roles are configured now, so that an execution role must be one
    with pytest.raises(ClientError) as refused:
        clary.client("sagemaker").create_model(
            ModelName="m", PrimaryContainer={"Image": "python:3.11"}, ExecutionRoleArn=role + "-not"
        )
    assert 'The execution role ARN "' in str(refused.value)

    # the control plane's death changes nothing; taking a key away does, at once
    clary.kill_control()
    invoke.client("sagemaker-runtime", endpoint_url=url).invoke_endpoint(EndpointName="open-door", Body=b"x")
    assert "door " in clary.clary("keys", "list").stdout
    for kind, name in (("roles", "caller"), ("keys", "door"), ("keys", "trusted")):
        assert clary.clary(kind, "delete", name).returncode == 0
    with pytest.raises(ClientError) as refused:
        invoke.client("sagemaker-runtime", endpoint_url=url).invoke_endpoint(EndpointName="open-door", Body=b"x")
    assert code(refused) == "UnrecognizedClientException"
    with pytest.raises(ClientError) as refused:
        session.client("sagemaker-runtime", endpoint_url=url).invoke_endpoint(EndpointName="shut-door", Body=b"x")
    assert code(refused) == "AccessDeniedException"
    assert clary.clary("keys", "delete", "door").returncode == 1


def test_s3_asks_the_policies_too_object_by_object(clary: Clary) -> None:
    for key in ("mine/a", "mine/b", "yours/a"):
        clary.upload(key, b"x", bucket="shared")
    mine = made_key(
        clary,
        "mine",
        allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "arn:aws:s3:::shared/mine/*"),
        allow("s3:ListBucket", "arn:aws:s3:::shared"),
    )
    s3 = mine.client("s3", endpoint_url=clary.url)
    s3.put_object(Bucket="shared", Key="mine/c", Body=b"y")
    assert s3.get_object(Bucket="shared", Key="mine/c")["Body"].read() == b"y"
    for call in (
        lambda: s3.get_object(Bucket="shared", Key="yours/a"),
        lambda: s3.copy_object(Bucket="shared", Key="mine/d", CopySource="shared/yours/a"),
        lambda: s3.create_bucket(Bucket="another"),
        lambda: s3.put_bucket_policy(Bucket="shared", Policy="{}"),
    ):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "AccessDenied"
    deleted = s3.delete_objects(
        Bucket="shared", Delete={"Objects": [{"Key": key} for key in ("mine/a", "mine/b", "yours/a")]}
    )
    assert {each["Key"] for each in deleted["Deleted"]} == {"mine/a", "mine/b"}
    assert [(each["Key"], each["Code"]) for each in deleted["Errors"]] == [("yours/a", "AccessDenied")]
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="shared")["Contents"]] == ["mine/c", "yours/a"]
    assert clary.clary("keys", "delete", "mine").returncode == 0


def test_only_the_default_key_manages_identities(clary: Clary) -> None:
    admin = made_key(clary, "admin", allow("*", "*")).get_credentials()
    connection = Connection(clary.url, "us-east-1", Credentials(admin.access_key, admin.secret_key))
    with pytest.raises(Refused, match="user/admin is not authorized to manage keys and roles"):
        ask(connection, {"Do": "ListKeys"})
    done = clary.clary("keys", "list")
    assert "admin" in done.stdout
    listed = clary.clary("keys", "create", "admin")
    assert (listed.returncode, "EntityAlreadyExists" in listed.stderr) == (1, True)
    assert clary.clary("keys", "delete", "admin").returncode == 0
    secrets = [clary.data / "run" / "keys.json", clary.data / "session-key"]
    assert [file.stat().st_mode & 0o077 for file in secrets] == [0, 0]


def test_a_container_has_the_credentials_of_its_role_and_an_isolated_one_has_none(own_clary: Clary) -> None:
    clary = own_clary
    file = clary.data.parent / "model-role.json"
    objects = "arn:aws:s3:::models/*"
    file.write_text(json.dumps(allow("s3:GetObject", objects)))
    role = clary.clary("roles", "create", "model", "--policy", str(file)).stdout.strip()
    url = clary.upload("role/model.tar.gz", model_archive("role"))
    sagemaker = clary.client("sagemaker")
    for name, isolated in (("with-role", False), ("isolated", True)):
        container = {"Image": IMAGE, "ModelDataUrl": url}
        sagemaker.create_model(
            ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role, EnableNetworkIsolation=isolated
        )
        variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        clary.wait(name)
    assert clary.invoke("isolated")["role"] == {}

    # As boto3 inside of the container finds them, from the variables that it has there.
    variables = clary.invoke("with-role")["role"]
    here = variables["AWS_ENDPOINT_URL"]
    found = ContainerProvider(environ=variables).load()
    assert found is not None
    frozen = found.get_frozen_credentials()
    session = acting(clary, frozen.access_key, frozen.secret_key, frozen.token)
    who = session.client("sts", endpoint_url=here).get_caller_identity()["Arn"]
    assert who.startswith("arn:aws:sts::000000000000:assumed-role/model/i-")
    s3 = session.client("s3", endpoint_url=here)
    assert s3.get_object(Bucket="models", Key="role/model.tar.gz")["ContentLength"] > 0
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="models", Key="role/other", Body=b"")
    assert code(refused) == "AccessDenied"
    with pytest.raises(ClientError) as refused:
        session.client("sagemaker", endpoint_url=clary.url).list_models()
    assert code(refused) == "AccessDeniedException"

    forged = {**variables, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "forged"}
    with pytest.raises(CredentialRetrievalError):
        ContainerProvider(environ=forged).load()

    # Another port, and the model that runs on does not know it.
    before = clary.port
    clary.process.kill()
    clary.process.wait()
    (clary.data / "run" / "clary.json").unlink()
    clary.port = 0
    clary.start()
    assert clary.port != before
    assert ContainerProvider(environ=variables).load() is not None
    clary.delete("with-role")
    with pytest.raises(CredentialRetrievalError):
        ContainerProvider(environ=variables).load()


def test_a_role_is_asked_when_data_is_downloaded_and_policies_know_whence_requests_come() -> None:
    with running("--defer-checks") as clary:
        read = {"Statement": {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}}
        (file := clary.data.parent / "read.json").write_text(json.dumps(read))
        roles = {}
        for name, policies in (("reader", ("--policy", str(file))), ("nobody", ())):
            made = clary.clary("roles", "create", name, *policies)
            roles[name] = made.stdout.strip()
        clary.upload("tree/serve.py", SERVE.encode())
        clary.upload("tree/name.txt", b"chosen")
        clary.upload("tree/other.txt", b"not chosen")
        manifest = clary.upload("list", json.dumps([{"prefix": "s3://models/tree/"}, "serve.py", "name.txt"]).encode())
        source = {"S3Uri": "s3://models/tree/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        source["ManifestS3Uri"] = manifest
        sagemaker = clary.client("sagemaker")
        for name, role in roles.items():
            container = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}}
            sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
            variant = {"VariantName": "A", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
            sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        clary.wait("reader")
        assert clary.invoke("reader")["name"] == "chosen"
        clary.wait("nobody", "Failed")
        reason = sagemaker.describe_endpoint(EndpointName="nobody")["FailureReason"]
        assert reason.startswith(
            'Failed to download model data for container "container_1" from URL: "s3://models/tree/". Please ensure '
            "that there is an object located at the URL and that the role passed to CreateModel has permissions to "
            f"download the object. Step: download: The role {roles['nobody']} may not list s3://models/tree/"
        )

        for name, addresses in (("near", "127.0.0.0/8"), ("far", "10.0.0.0/8")):
            policy = allow(["sagemaker:*", "s3:*"], "*")
            policy["Statement"]["Condition"] = {"IpAddress": {"aws:SourceIp": addresses}}
            session = made_key(clary, name, policy)
            calls = (
                session.client("sagemaker", endpoint_url=clary.url).list_models,
                session.client("s3", endpoint_url=clary.url).list_buckets,
                lambda session=session: session.client("sagemaker-runtime", endpoint_url=clary.url).invoke_endpoint(
                    EndpointName="reader", Body=b"x"
                ),
            )
            for call in calls:
                if name == "near":
                    call()
                else:
                    with pytest.raises(ClientError) as refused:
                        call()
                    assert code(refused).startswith("AccessDenied")


def test_a_deny_holds_however_the_data_is_spelled(own_clary: Clary) -> None:
    clary = own_clary
    for key in ("pre/f", "open/f", "secret/sec.tar.gz"):
        clary.upload(key, model_archive() if key.endswith("gz") else b"x", bucket="mmm")
    deny = {"Effect": "Deny", "Action": "s3:GetObject"}
    bars = [{**deny, "Resource": f"arn:aws:s3:::mmm/{folder}/*"} for folder in ("secret", "pre")]
    file = clary.data.parent / "barred.json"
    file.write_text(json.dumps({"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}, *bars]}))
    role = clary.clary("roles", "create", "barred", "--policy", str(file), "--path", "/service-role/").stdout.strip()
    assert role == "arn:aws:iam::000000000000:role/service-role/barred"
    sagemaker = clary.client("sagemaker")

    def create(data: dict[str, Any]) -> None:
        sagemaker.create_model(ModelName="barred", PrimaryContainer={"Image": IMAGE, **data}, ExecutionRoleArn=role)

    def prefix(url: str) -> dict[str, Any]:
        source = {"S3DataType": "S3Prefix", "CompressionType": "None", "S3Uri": url}
        return {"ModelDataSource": {"S3DataSource": source}}

    refused_data = [
        *({"ModelDataUrl": f"s3://mmm/{key}sec.tar.gz"} for key in ("secret/", "/secret/", "secret//", "a/../secret/")),
        {"ModelDataUrl": "https://mmm.s3.amazonaws.com//secret/sec.tar.gz"},
        {"ModelDataUrl": "https://mmm.s3.amazonaws.com/secret%2Fsec.tar.gz"},
        {"ModelDataUrl": f"{clary.url.replace('http://', 'https://')}/mmm/secret/sec.tar.gz"},
        *(prefix(f"s3://mmm/{key}") for key in ("", "pre/", "/", "open/../pre/")),
    ]
    for data in refused_data:
        with pytest.raises(ClientError) as refused:
            create(data)
        assert code(refused) == "ValidationException", data
        assert "Could not access model data at " in str(refused.value)
    create(prefix("s3://mmm/open/"))
