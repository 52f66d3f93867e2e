"""Multi-model endpoints with real clients on the process engine: loads, evictions, failures, restarts."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import re
import signal
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from clary.core.routing import RouteTable
from tests.acceptance.conftest import IMAGE as PLAIN
from tests.acceptance.conftest import ROLE, Clary, model_archive, running, running_on_docker, wait_until
from tests.acceptance.multi_model import SERVER
from tests.containers import build, needs_docker

pytestmark = pytest.mark.acceptance

IMAGE = "many:1"
CATALOGUE = """\
[[image]]
name = "many"
pattern = 'many'
command = ["{{python}}", "{server}"]
"""


def packed(weight: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("weight.txt")
        member.size = len(weight)
        archive.addfile(member, io.BytesIO(weight.encode()))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def clary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clary]:
    folder = tmp_path_factory.mktemp("many")
    (folder / "server.py").write_text(SERVER)
    (folder / "catalogue.toml").write_text(CATALOGUE.format(server=folder / "server.py"))
    with running("--catalogue", str(folder / "catalogue.toml")) as started:
        yield started


def create(
    clary: Clary,
    name: str,
    models: dict[str, str],
    *,
    count: int = 1,
    cache: bool = True,
    image: str = IMAGE,
    **env: str,
) -> None:
    """Create a multi-model endpoint, and its models: weights by key."""
    sagemaker = clary.client("sagemaker")
    for key, weight in {"first.tar.gz": "1", **models}.items():
        clary.upload(f"{name}/{key}", packed(weight))
    container = {
        "Image": image, "Mode": "MultiModel", "ModelDataUrl": f"s3://models/{name}/", "Environment": env,
        "MultiModelConfig": {"ModelCacheSetting": "Enabled" if cache else "Disabled"},
    }  # fmt: skip
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    serve(clary, name, count)


def serve(clary: Clary, name: str, count: int) -> None:
    sagemaker = clary.client("sagemaker")
    variant = {
        "VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.clary.local", "InitialInstanceCount": count,
    }  # fmt: skip
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    clary.wait(name)


def invoke(clary: Clary, name: str, target: str, body: bytes = b"x") -> dict[str, Any]:
    runtime = clary.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=name, TargetModel=target, Body=body)
    return dict(json.loads(answer["Body"].read()))


def test_each_request_is_answered_by_the_model_that_it_names(clary: Clary, tmp_path: Path) -> None:
    create(clary, "many", {"a.tar.gz": "10", "deep/er/b.tar.gz": "20"})
    said = invoke(clary, "many", "a.tar.gz")
    assert (said["weight"], said["target"], said["multi"]) == ("10", "a.tar.gz", "true")
    assert invoke(clary, "many", "deep/er/b.tar.gz")["weight"] == "20"
    assert invoke(clary, "many", "a.tar.gz")["loads"] == 1
    clary.upload("many/late.tar.gz", packed("30"))
    assert invoke(clary, "many", "late.tar.gz")["weight"] == "30"
    out = tmp_path / "out"
    done = clary.aws(
        "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "many", "--target-model", "a.tar.gz",
        "--body", "eA==", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["weight"] == "10"


def refused(clary: Clary, name: str, code: str, status: int, **more: Any) -> dict[str, Any]:
    runtime = clary.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=name, **{"Body": b"x", **more})
    answer = dict(caught.value.response)
    assert answer["Error"]["Code"] == code
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    return answer


def test_what_is_no_model_is_refused_in_the_services_words(clary: Clary) -> None:
    create(clary, "picky", {"bad.tar.gz": "broken"})
    for target in ("../picky/first.tar.gz", "/first.tar.gz", "a/../first.tar.gz", "a//first.tar.gz"):
        refused(clary, "picky", "ValidationError", 400, TargetModel=target)
    words = refused(clary, "picky", "ValidationError", 400, TargetModel="none.tar.gz")["Error"]["Message"]
    assert words.startswith("Failed to download model data(bucket: models, key: picky/none.tar.gz)")
    words = refused(clary, "picky", "ValidationError", 400)["Error"]["Message"]
    assert re.match(r"Request [0-9a-f-]{36} is missing a target model header", words)
    clary.upload("picky/text.tar.gz", b"no archive")
    words = refused(clary, "picky", "ValidationError", 400, TargetModel="text.tar.gz")["Error"]["Message"]
    assert words.startswith('Failed to extract model data archive from URL "s3://models/picky/text.tar.gz"')
    failed = refused(clary, "picky", "ModelError", 424, TargetModel="bad.tar.gz")
    assert (failed["OriginalStatusCode"], json.loads(failed["OriginalMessage"])["message"]) == (
        500,
        "the model is broken",
    )
    clary.upload("picky/bad.tar.gz", packed("mended"))
    assert invoke(clary, "picky", "bad.tar.gz")["weight"] == "mended"
    own = refused(clary, "picky", "ModelError", 424, TargetModel="first.tar.gz", Body=b"no such row")
    assert (own["OriginalStatusCode"], json.loads(own["OriginalMessage"])["message"]) == (404, "no such row")
    assert invoke(clary, "picky", "first.tar.gz")["loads"] == 1


def test_with_memory_for_two_models_many_are_served_and_the_least_recently_used_goes(clary: Clary) -> None:
    create(clary, "small", {f"{n}.tar.gz": str(n) for n in range(6)}, MODELS="2")
    for number in range(6):
        said = invoke(clary, "small", f"{number}.tar.gz")
        assert said["weight"] == str(number)
        assert said["loaded"] <= 2
    with ThreadPoolExecutor(8) as pool:
        numbers = [n % 6 for n in range(48)]
        answers = list(pool.map(lambda n: invoke(clary, "small", f"{n}.tar.gz")["weight"], numbers))
    assert answers == [str(number) for number in numbers]
    said = invoke(clary, "small", "5.tar.gz")
    assert invoke(clary, "small", "5.tar.gz")["loads"] == said["loads"]
    # What runs out of memory while it answers is unloaded, and its answer is its own.
    refused(clary, "small", "ModelError", 424, TargetModel="5.tar.gz", Body=b"no memory")
    assert invoke(clary, "small", "5.tar.gz")["loads"] == said["loads"] + 1
    invoke(clary, "small", "5.tar.gz", b"forget")
    assert invoke(clary, "small", "5.tar.gz")["loads"] == said["loads"] + 2


def test_without_caching_nothing_stays(clary: Clary) -> None:
    create(clary, "fleeting", {"a.tar.gz": "1"}, cache=False)
    assert [invoke(clary, "fleeting", "a.tar.gz")["loads"] for _ in range(3)] == [1, 2, 3]
    placed = clary.data / "models"
    shown = [file for folder in placed.glob("fleeting-*") for file in (folder / "shown").iterdir()]
    wait_until(lambda: not any(file.exists() for file in shown), "the files are gone", clary.output)


def test_loaded_models_serve_without_the_control_plane_and_are_found_again(clary: Clary) -> None:
    create(clary, "lasting", {"a.tar.gz": "1", "b.tar.gz": "2"})
    before = invoke(clary, "lasting", "a.tar.gz")
    control = clary.child("clary.server control")
    os.kill(control, signal.SIGSTOP)
    try:
        assert invoke(clary, "lasting", "a.tar.gz")["pid"] == before["pid"]
    finally:
        os.kill(control, signal.SIGCONT)
    clary.kill_control()
    assert invoke(clary, "lasting", "b.tar.gz")["weight"] == "2"  # asked for while it begins anew
    after = invoke(clary, "lasting", "a.tar.gz")
    assert (after["pid"], after["loads"]) == (before["pid"], 1)
    os.kill(before["pid"], signal.SIGKILL)  # with all that it had loaded

    def again() -> bool:
        with contextlib.suppress(ClientError):
            return bool(invoke(clary, "lasting", "a.tar.gz")["pid"] != before["pid"])
        return False

    wait_until(again, "the model is loaded in the next container", clary.output)


def test_models_spread_over_instances_and_each_is_loaded_once(clary: Clary) -> None:
    create(clary, "spread", {f"{n}.tar.gz": str(n) for n in range(12)}, count=2)
    answers = [invoke(clary, "spread", f"{n % 12}.tar.gz") for n in range(36)]
    assert [each["weight"] for each in answers] == [str(n % 12) for n in range(36)]
    assert len({each["pid"] for each in answers}) == 2
    assert all(each["loads"] == 1 for each in answers)
    assert max(each["loaded"] for each in answers) < 12


@pytest.mark.parametrize("mode", ["Serial", "Direct"])
def test_one_container_of_a_pipeline_serves_many_models(clary: Clary, mode: str) -> None:
    name = f"chain-{mode.lower()}"
    clary.upload(f"{name}/models/a.tar.gz", packed("10"))
    sagemaker = clary.client("sagemaker")
    url = clary.upload(f"{name}/model.tar.gz", model_archive("before"))
    containers = [
        {"ContainerHostname": "before", "Image": PLAIN, "ModelDataUrl": url},
        {
            "ContainerHostname": "many", "Image": IMAGE, "Mode": "MultiModel",
            "ModelDataUrl": f"s3://models/{name}/models",
        },
    ]  # fmt: skip
    sagemaker.create_model(
        ModelName=name, Containers=containers, ExecutionRoleArn=ROLE, InferenceExecutionConfig={"Mode": mode}
    )
    serve(clary, name, 1)
    runtime = clary.client("sagemaker-runtime")
    more = {"TargetContainerHostname": "many"} if mode == "Direct" else {}
    answer = runtime.invoke_endpoint(EndpointName=name, Body=b"x", TargetModel="a.tar.gz", **more)
    said = json.loads(answer["Body"].read())
    assert said["weight"] == "10"
    assert said["path"].endswith("/invoke")
    if mode == "Serial":
        assert json.loads(said["got"])["name"] == "before"
        assert "missing a target model" in refused(clary, name, "ValidationError", 400)["Error"]["Message"]
    else:
        answer = runtime.invoke_endpoint(EndpointName=name, Body=b"x", TargetContainerHostname="before")
        assert json.loads(answer["Body"].read())["name"] == "before"
        more = {"TargetContainerHostname": "before", "TargetModel": "a.tar.gz"}
        assert "is not a multi-model" in refused(clary, name, "ValidationError", 400, **more)["Error"]["Message"]


def test_the_metrics_of_many_models_are_cloudwatchs(clary: Clary) -> None:
    create(clary, "counted", {"a.tar.gz": "1", "b.tar.gz": "2"}, MODELS="1")
    for target in ("a.tar.gz", "a.tar.gz", "b.tar.gz", "b.tar.gz"):
        invoke(clary, "counted", target)

    def found(namespace: str, metric: str) -> tuple[float, float]:
        now = dt.datetime.now(dt.UTC)
        answer = clary.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": "EndpointName", "Value": "counted"}, {"Name": "VariantName", "Value": "AllTraffic"}],
            StartTime=now - dt.timedelta(minutes=10),
            EndTime=now + dt.timedelta(minutes=1),
            Period=3600,
            Statistics=["SampleCount", "Sum"],
        )
        points = answer["Datapoints"]
        return sum(point["SampleCount"] for point in points), sum(point["Sum"] for point in points)

    wait_until(lambda: found("AWS/SageMaker", "ModelUnloadingTime")[0] == 1, "numbers are there", clary.output)
    wait_until(lambda: found("AWS/SageMaker", "ModelCacheHit") == (4, 2), "hits are counted", clary.output)
    for metric in ("ModelLoadingWaitTime", "ModelDownloadingTime", "ModelLoadingTime"):
        wait_until(lambda metric=metric: found("AWS/SageMaker", metric)[0] == 2, metric, clary.output)  # type: ignore[misc]
        assert found("AWS/SageMaker", metric)[1] > 2 * 100
    wait_until(
        lambda: found("/aws/sagemaker/Endpoints", "LoadedModelCount")[1] >= 1, "models are counted", clary.output
    )


def test_doctor_says_which_models_are_loaded(clary: Clary) -> None:
    create(clary, "told", {f"{n}.tar.gz": str(n) for n in range(3)}, MODELS="2")
    for target in ("0.tar.gz", "1.tar.gz", "2.tar.gz"):
        invoke(clary, "told", target)
    found = clary.clary("doctor", "told").stdout
    assert re.search(r"variant AllTraffic: 2 loaded, files of 3 on the disk", found), found
    assert re.search(r"used last: 2\.tar\.gz, 1\.tar\.gz", found), found


@needs_docker
def test_on_docker_models_are_evicted_spread_and_found_again() -> None:
    image = build(
        "clary/test-many-models", {"serve": SERVER}, "ENV HOST=0.0.0.0", 'ENTRYPOINT ["/serve"]',
        "LABEL com.amazonaws.sagemaker.capabilities.multi-models=true",
    )  # fmt: skip
    with running_on_docker() as clary:
        models = {f"{n}.tar.gz": str(n) for n in range(8)}
        create(clary, "spread", models, count=2, image=image, MODELS="2")
        for _ in range(2):
            for target, weight in models.items():
                said = invoke(clary, "spread", target)
                assert (said["weight"], said["path"][-7:]) == (weight, "/invoke")
                assert said["loaded"] <= 2
        assert len(clary.containers("spread")) == 2
        again = [invoke(clary, "spread", "7.tar.gz")["loads"] for _ in range(5)]
        assert len(set(again)) == 1, "a model that is loaded is not loaded again"
        clary.upload("spread/late.tar.gz", packed("late"))
        assert invoke(clary, "spread", "late.tar.gz")["weight"] == "late"
        with contextlib.suppress(ClientError):
            invoke(clary, "spread", "late.tar.gz", b"die")
        wait_until(lambda: len(ready(clary, "spread")) == 2, "the container is back", clary.output)
        for target, weight in models.items():
            assert invoke(clary, "spread", target)["weight"] == weight
        clary.delete("spread")
        assert not clary.containers("spread")


def ready(clary: Clary, name: str) -> list[str]:
    """Give the instances that answer."""
    table = RouteTable.from_json(json.loads((clary.data / "run" / "routes.json").read_bytes()))
    return [target.id for variant in table.endpoints[name].variants for target in variant.targets]
