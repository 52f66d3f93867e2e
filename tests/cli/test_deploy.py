"""deploy: upload, three creations, waiting, and what is left when one of them fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from clary.cli import deployment
from tests.cli.conftest import ABSENT, FakeClary, refused

Run = Callable[..., Result]
ROLE = "arn:aws:iam::111111111111:role/service-role/models"


def described(status: str, **more: object) -> tuple[int, dict[str, object]]:
    return 200, {"EndpointName": "tide", "EndpointConfigName": "c", "EndpointStatus": status, **more}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "model.tar.gz"
    path.write_bytes(b"not really an archive")
    return path


@pytest.fixture
def deploy(clary: FakeClary, run: Run, archive: Path) -> Run:
    clary.operations["DescribeEndpoint"] = [ABSENT, described("Creating"), described("InService")]
    return lambda *more: run("deploy", archive, "--image", "img", "--name", "tide", "--data", clary.data, *more)


def test_it_uploads_creates_waits_and_says_how_to_invoke(clary: FakeClary, deploy: Run) -> None:
    result = deploy()
    assert result.exit_code == 0, result.stderr
    assert clary.names() == [
        "DescribeEndpoint",
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "DescribeEndpoint",
        "DescribeEndpoint",
    ]
    requests = dict(clary.calls)
    name = requests["CreateModel"]["ModelName"]
    assert name.startswith("tide-")
    assert requests["CreateModel"] == {
        "ModelName": name,
        "PrimaryContainer": {
            "Image": "img",
            "ModelDataUrl": f"s3://clary-models/{name}/model.tar.gz",
        },
    }
    assert requests["CreateEndpointConfig"] == {
        "EndpointConfigName": name,
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "ModelName": name,
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
            }
        ],
    }
    assert requests["CreateEndpoint"] == {"EndpointName": "tide", "EndpointConfigName": name}
    assert clary.objects[f"clary-models/{name}/model.tar.gz"] == b"not really an archive"
    assert "aws sagemaker-runtime invoke-endpoint --endpoint-name tide" in result.stdout
    assert [line.split()[1] for line in result.stdout.splitlines()[:3]] == ["Upload", "Create", "Wait"]


def test_every_option_reaches_its_request(clary: FakeClary, deploy: Run) -> None:
    deploy("--env", "A=b=c", "--env", "D=", "--role", ROLE, "--count", 3, "--instance-type", "ml.c5.xlarge")
    requests = dict(clary.calls)
    assert requests["CreateModel"]["PrimaryContainer"]["Environment"] == {"A": "b=c", "D": ""}
    assert requests["CreateModel"]["ExecutionRoleArn"] == ROLE
    variant = requests["CreateEndpointConfig"]["ProductionVariants"][0]
    assert (variant["InitialInstanceCount"], variant["InstanceType"]) == (3, "ml.c5.xlarge")


def test_no_wait_returns_after_creation(clary: FakeClary, deploy: Run) -> None:
    result = deploy("--no-wait")
    assert clary.names()[-1] == "CreateEndpoint"
    assert "aws sagemaker wait endpoint-in-service --endpoint-name tide" in result.stdout


def test_a_name_in_use_is_refused_before_anything_is_made(clary: FakeClary, deploy: Run) -> None:
    clary.operations["DescribeEndpoint"] = [described("InService")]
    result = deploy()
    assert result.exit_code == 1
    assert "endpoint tide exists already (InService)" in result.stderr
    assert "aws sagemaker delete-endpoint --endpoint-name tide" in result.stderr
    assert (clary.names(), clary.objects) == (["DescribeEndpoint"], {})


@pytest.mark.parametrize(
    ("operation", "undone"),
    [
        ("CreateModel", []),
        ("CreateEndpointConfig", ["DeleteModel"]),
        ("CreateEndpoint", ["DeleteEndpointConfig", "DeleteModel"]),
    ],
)
def test_where_no_endpoint_could_be_created_nothing_stays(
    clary: FakeClary, deploy: Run, operation: str, undone: list[str]
) -> None:
    clary.operations[operation] = [refused("it may not be")]
    result = deploy()
    assert result.exit_code == 1
    assert f"clary: {operation}: it may not be (ValidationException)\n" == result.stderr
    assert clary.names()[clary.names().index(operation) + 1 :] == undone
    assert not any(key.endswith("model.tar.gz") for key in clary.objects)


def test_of_a_long_enumeration_the_values_are_said_that_are_close(clary: FakeClary, deploy: Run) -> None:
    words = "Value 'ml.m5.huge' at 'x' failed to satisfy constraint: Member must satisfy enum value set: "
    types = [f"ml.{kind}.{size}" for kind in ("t2", "m5", "c5") for size in ("large", "xlarge", "2xlarge")]
    clary.operations["CreateEndpointConfig"] = [refused(f"{words}[{', '.join(types)}]; {words}[short, one]")]
    said = deploy().stderr
    assert said.startswith(f"clary: CreateEndpointConfig: {words}[ml.m5.large, ")
    assert said.endswith(f", ... 4 more]; {words}[short, one] (ValidationException)\n")


def test_what_the_variants_are_doing_is_shown_while_it_waits() -> None:
    variant = {"VariantName": "v", "VariantStatus": [{"Status": "Creating", "StatusMessage": "download 3 of 9 MB"}]}
    pending = {"EndpointStatus": "Creating", "PendingDeploymentSummary": {"ProductionVariants": [variant]}}
    assert deployment.progress_of(pending) == "Creating, download 3 of 9 MB"
    assert deployment.progress_of({"EndpointStatus": "InService", "ProductionVariants": [{}]}) == "InService"


@pytest.mark.parametrize("pointer", ["", "\nNext: clary doctor tide"])
def test_a_failed_endpoint_stays_and_its_reason_is_printed(clary: FakeClary, deploy: Run, pointer: str) -> None:
    reason = f"exited with 3\nlast: boom{pointer}"
    clary.operations["DescribeEndpoint"] = [ABSENT, described("Failed", FailureReason=reason)]
    result = deploy()
    assert result.exit_code == 1
    assert "endpoint tide failed: exited with 3\nlast: boom\n" in result.stderr
    assert result.stderr.count("Next: clary doctor tide") == 1
    assert not [name for name in clary.names() if name.startswith("Delete")]
    assert "✗ Wait until it serves" in result.stdout


def test_an_endpoint_deleted_by_somebody_else_ends_the_wait(clary: FakeClary, deploy: Run) -> None:
    clary.operations["DescribeEndpoint"] = [ABSENT, described("Creating"), ABSENT]
    result = deploy()
    assert result.exit_code == 1
    assert "was deleted while" in result.stderr


def test_a_large_archive_goes_up_in_parts(
    clary: FakeClary, deploy: Run, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "PART", 1000)
    content = bytes(range(256)) * 10
    archive.write_bytes(content)
    assert deploy().exit_code == 0
    assert [len(part) for _, part in sorted(clary.parts.items())] == [1000, 1000, 560]
    assert content in clary.objects.values()


def test_environment_without_an_equals_sign_is_wrong_usage(deploy: Run) -> None:
    result = deploy("--env", "A")
    assert result.exit_code == 2
    assert "'A' is not of the form KEY=VALUE" in result.stderr


def test_long_names_leave_room_for_the_time(clary: FakeClary, archive: Path) -> None:
    from clary.cli.connection import connect

    wanted = deployment.Wanted("a" * 46 + "-" + "b" * 16, archive, "img")
    made = deployment.Deployment(connect(clary.data), wanted, now=0.0)
    assert made.resource == "a" * 46 + "-19700101-000000"
    assert len(made.resource) <= 63
