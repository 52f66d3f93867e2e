"""The main job, with clients that know nothing of Clary: from create-model to an answer, and away again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.conftest import BIN, IMAGE, ROLE, Clary, model_archive

pytestmark = pytest.mark.acceptance


def test_the_aws_cli_takes_a_model_from_a_file_to_an_answer(clary: Clary, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(model_archive("cli"))
    bucket = "cli-models"

    def aws(*arguments: str) -> str:
        done = clary.aws(*arguments)
        assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    aws("s3", "mb", f"s3://{bucket}")
    aws("s3", "cp", str(tmp_path / "model.tar.gz"), f"s3://{bucket}/cli/model.tar.gz")
    container = f"Image={IMAGE},ModelDataUrl=s3://{bucket}/cli/model.tar.gz,Environment={{GREETING=hello}}"
    made = aws(
        "sagemaker", "create-model", "--model-name", "cli", "--primary-container", container,
        "--execution-role-arn", ROLE, "--tags", "Key=team,Value=a",
    )  # fmt: skip
    assert json.loads(made)["ModelArn"] == "arn:aws:sagemaker:us-east-1:000000000000:model/cli"
    variant = "VariantName=AllTraffic,ModelName=cli,InstanceType=ml.m5.large,InitialInstanceCount=1"
    aws("sagemaker", "create-endpoint-config", "--endpoint-config-name", "cli", "--production-variants", variant)
    aws("sagemaker", "create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli")
    clary.wait("cli")
    aws("sagemaker", "wait", "endpoint-in-service", "--endpoint-name", "cli")
    described = json.loads(aws("sagemaker", "describe-endpoint", "--endpoint-name", "cli"))
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert described["ProductionVariants"][0]["DeployedImages"][0]["SpecifiedImage"] == IMAGE
    out = tmp_path / "answer.json"
    (tmp_path / "body.csv").write_text("5.1,3.5,1.4,0.2")
    metadata = json.loads(
        aws(
            "sagemaker-runtime",
            "invoke-endpoint",
            "--endpoint-name",
            "cli",
            "--content-type",
            "text/csv",
            "--body",
            f"fileb://{tmp_path}/body.csv",
            str(out),
        )
    )
    assert metadata["InvokedProductionVariant"] == "AllTraffic"
    said = json.loads(out.read_text())
    assert (said["name"], said["got"], said["type"], said["env"]) == ("cli", "5.1,3.5,1.4,0.2", "text/csv", "hello")
    assert said["leaked"] == []
    tags = json.loads(aws("sagemaker", "list-tags", "--resource-arn", json.loads(made)["ModelArn"]))
    assert tags == {"Tags": [{"Key": "team", "Value": "a"}]}
    assert json.loads(aws("sts", "get-caller-identity"))["Account"] == "000000000000"
    aws("sagemaker", "delete-endpoint", "--endpoint-name", "cli")
    clary.client("sagemaker").get_waiter("endpoint_deleted").wait(
        EndpointName="cli", WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    aws("sagemaker", "wait", "endpoint-deleted", "--endpoint-name", "cli")
    aws("sagemaker", "delete-endpoint-config", "--endpoint-config-name", "cli")
    aws("sagemaker", "delete-model", "--model-name", "cli")
    gone = clary.aws("sagemaker", "describe-model", "--model-name", "cli")
    assert gone.returncode != 0
    assert (
        "An error occurred (ValidationException) when calling the DescribeModel operation: Could not find model "
        '"arn:aws:sagemaker:us-east-1:000000000000:model/cli".'
    ) in gone.stderr


def test_boto3_waiters_see_an_endpoint_come_and_go(clary: Clary) -> None:
    clary.create("boto")
    sagemaker = clary.client("sagemaker")
    quick = {"Delay": 1, "MaxAttempts": 300}
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="boto", WaiterConfig=quick)
    assert clary.invoke("boto", b"1,2")["got"] == "1,2"
    sagemaker.delete_endpoint(EndpointName="boto")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="boto", WaiterConfig=quick)
    with pytest.raises(ClientError, match=r"Endpoint boto of account 000000000000 not found\."):
        clary.invoke("boto")
    sagemaker.delete_endpoint_config(EndpointConfigName="boto")
    sagemaker.delete_model(ModelName="boto")


def test_describe_shows_creating_right_after_create(clary: Clary, tmp_path: Path) -> None:
    clary.create("slow", LOAD_UNTIL=str(tmp_path / "seen"))
    described = clary.client("sagemaker").describe_endpoint(EndpointName="slow")
    assert described["EndpointStatus"] == "Creating"
    assert "ProductionVariants" not in described
    with pytest.raises(ClientError) as caught:
        clary.client("sagemaker-runtime", config=None).invoke_endpoint(EndpointName="slow", Body=b"")
    assert caught.value.response["Error"]["Code"] == "ModelNotReadyException"
    (tmp_path / "seen").touch()
    clary.wait("slow")
    clary.delete("slow")


def test_instances_share_the_work_and_variants_split_it(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    for name in ("blue", "green"):
        url = clary.upload(f"{name}/model.tar.gz", model_archive(name))
        sagemaker.create_model(
            ModelName=name, PrimaryContainer={"Image": IMAGE, "ModelDataUrl": url}, ExecutionRoleArn=ROLE
        )
    variants = [
        {"VariantName": name, "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": count,
         "InitialVariantWeight": weight}
        for name, count, weight in (("blue", 2, 3.0), ("green", 1, 1.0))
    ]  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName="both", ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="both", EndpointConfigName="both")
    summary = {variant["VariantName"]: variant for variant in clary.wait("both")["ProductionVariants"]}
    assert (summary["blue"]["CurrentInstanceCount"], summary["blue"]["CurrentWeight"]) == (2, 3.0)
    runtime = clary.client("sagemaker-runtime")
    said = [runtime.invoke_endpoint(EndpointName="both", Body=b"")["Body"].read() for _ in range(120)]
    names = [json.loads(each)["name"] for each in said]
    assert 50 < names.count("blue") < 120  # 90 on average; outside once in a thousand billion runs
    answer = runtime.invoke_endpoint(EndpointName="both", Body=b"", TargetVariant="green")
    assert (answer["InvokedProductionVariant"], json.loads(answer["Body"].read())["name"]) == ("green", "green")
    sagemaker.delete_endpoint(EndpointName="both")
    sagemaker.delete_endpoint_config(EndpointConfigName="both")
    for name in ("blue", "green"):
        sagemaker.delete_model(ModelName=name)


def test_a_container_that_answers_an_error_is_a_model_error_in_full(clary: Clary) -> None:
    clary.create("errs")
    clary.wait("errs")
    with pytest.raises(ClientError) as caught:
        clary.invoke("errs", b"fail418")
    error = caught.value.response
    assert error["Error"]["Code"] == "ModelError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == 418
    assert json.loads(error["OriginalMessage"])["name"] == "errs"
    assert error["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/errs")
    clary.delete("errs")


def test_paginators_walk_through_everything(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    names = [f"page-{number:02}" for number in range(25)]
    for name in names:
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": IMAGE}, ExecutionRoleArn=ROLE)
    pages = sagemaker.get_paginator("list_models").paginate(
        NameContains="page-", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 7}
    )
    sizes, seen = [], []
    for page in pages:
        sizes.append(len(page["Models"]))
        seen += [model["ModelName"] for model in page["Models"]]
    assert (sizes, seen) == ([7, 7, 7, 4], names)
    assert [m["ModelName"] for m in sagemaker.list_models(NameContains="page-")["Models"]] == names[:14:-1]
    by_cli = clary.aws(
        "sagemaker", "list-models", "--name-contains", "page-", "--page-size", "3", "--max-items", "8",
        "--query", "length(Models)",
    )  # fmt: skip
    assert by_cli.stdout.strip() == "8"
    for name in names:
        sagemaker.delete_model(ModelName=name)


def test_errors_are_the_services_own(clary: Clary) -> None:
    sagemaker = clary.client("sagemaker")
    sagemaker.create_model(ModelName="taken", PrimaryContainer={"Image": IMAGE})
    arn = "arn:aws:sagemaker:us-east-1:000000000000:model/taken"
    with pytest.raises(ClientError, match=f'Cannot create already existing model "{arn}".'):
        sagemaker.create_model(ModelName="taken", PrimaryContainer={"Image": IMAGE})
    with pytest.raises(ClientError, match="1 validation error detected: Value 'bad name' at 'modelName' failed"):
        sagemaker.create_model(ModelName="bad name", PrimaryContainer={"Image": IMAGE})
    with pytest.raises(ClientError, match=r"UnknownOperationException.*does not implement CreateTrainingJob"):
        sagemaker.create_training_job(
            TrainingJobName="t", AlgorithmSpecification={"TrainingInputMode": "File"}, RoleArn=ROLE,
            OutputDataConfig={"S3OutputPath": "s3://b/"}, ResourceConfig={"VolumeSizeInGB": 1},
            StoppingCondition={},
        )  # fmt: skip
    sagemaker.delete_model(ModelName="taken")


def test_a_wrong_secret_an_unknown_key_and_no_key_are_told_apart(clary: Clary) -> None:
    secret = {**clary.environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    key = {**clary.environment, "AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}
    for environment, code in ((secret, "InvalidSignatureException"), (key, "UnrecognizedClientException")):
        done = subprocess.run(
            [str(BIN / "aws"), "sagemaker", "list-models"], env=environment, capture_output=True, text=True
        )
        assert code in done.stderr
    unsigned = clary.aws("sagemaker", "list-models", "--no-sign-request")
    assert "MissingAuthenticationTokenException" in unsigned.stderr
