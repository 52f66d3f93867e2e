"""Every operation of the control plane, sent raw over HTTP to a server on a real socket: the smallest and the largest
request that the service model allows, each of its constraints broken, and all of them broken together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from botocore.model import Shape

from clary.api.app import App, operations
from clary.api.coverage import implemented
from clary.api.world import World
from clary.core.containers import Repository
from clary.core.resources import KINDS, Partition
from clary.objects import Objects
from clary.wire import model
from clary.wire.dispatch import Dispatcher
from tests.test_objects import HOSTILE

from .conftest import ACCOUNT, ARN, Api, opened, served, variant
from .samples import OMIT, Given, all_broken, each_broken, largest, message, smallest

Send = Callable[[str, Any], Awaitable[tuple[int, dict[str, Any]]]]

OPERATIONS = sorted(name for service, name in implemented() if service == "sagemaker")
FOLDER = "s3://bucket/prefix/"
ARCHIVE = "s3://bucket/model.tar.gz"

# What the model cannot say: names of what is there, and members that exclude each other.
SMALLEST: dict[str, Given] = {
    "CreateModel": {"ModelName": "new", "PrimaryContainer": {"Image": "image"}},
    "CreateEndpointConfig": {"EndpointConfigName": "new", "ProductionVariants": [variant(ModelName="a")]},
    "CreateEndpoint": {"EndpointName": "new"},
    "CreateModelPackageGroup": {"ModelPackageGroupName": "new"},
    "CreateModelPackage": {"ModelPackageName": "new", "SourceUri": "s3://bucket/key"},
    "DescribeModelPackage": {"ModelPackageName": "a/1"},
    "DeleteModelPackage": {"ModelPackageName": "a/1"},
    "DeleteModelPackageGroup": {"ModelPackageGroupName": "empty"},
    "PutModelPackageGroupPolicy": {"ResourcePolicy": "{}"},
    "UpdateModelPackage": {"ModelPackageArn": f"{ARN}:model-package/a/1"},
    "CreateInferenceComponent": {
        "InferenceComponentName": "new",
        "EndpointName": "h",
        "Specification": {
            "Container": {"Image": "image"},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128},
        },
    },
    "UpdateInferenceComponent": {"RuntimeConfig": {"CopyCount": 2}},
    "AddTags": {"ResourceArn": f"{ARN}:model/a"},
    "ListTags": {"ResourceArn": f"{ARN}:model/a", "NextToken": OMIT},
    "DeleteTags": {"ResourceArn": f"{ARN}:model/a"},
    **{f"List{kind.plural}": {"NextToken": OMIT} for kind in KINDS},
    "CreateTransformJob": {"TransformJobName": "new"},
}


def container(path: str, *, by_url: bool) -> Given:
    """Give the choices that make a container whole: one place for its data, no package."""
    return {
        f"{path}.ModelDataSource": OMIT if by_url else lambda sample: sample,
        f"{path}.ModelDataUrl": ARCHIVE if by_url else OMIT,
        f"{path}.ModelDataSource.S3DataSource.S3Uri": FOLDER,
        f"{path}.AdditionalModelDataSources.S3DataSource.S3Uri": FOLDER,
        f"{path}.ImageConfig.RepositoryAccessMode": "Vpc",
        f"{path}.MultiModelConfig": OMIT,
        f"{path}.ModelPackageName": OMIT,
        f"{path}.InferenceSpecificationName": OMIT,
        f"{path}.ContainerMetricsConfig.MetricsEndpoints.MetricPublishFrequencyInSeconds": 30,
    }


def _package(omitted: str) -> Given:
    """Leave out one of a package's two places for data."""
    return {f"{specification}.Containers.{omitted}": OMIT for specification in _SPECIFICATIONS}


def _two(sample: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**sample[0], "ContainerHostname": name} for name in ("first", "second")]


_MODEL = {"ModelName": "new"}
_CONFIG = {"EndpointConfigName": "new", "MetricsConfig.MetricPublishFrequencyInSeconds": 60}
_VARIANTS = {f"{each}ProductionVariants.ManagedInstanceScaling": OMIT for each in ("", "Shadow")}
_SHADOW = {"ShadowProductionVariants.VariantName": "shadow"}
_ON_INSTANCES = {f"{each}ProductionVariants.ServerlessConfig": OMIT for each in ("", "Shadow")}
_SERVERLESS = {
    f"{each}ProductionVariants.{member}": OMIT
    for each in ("", "Shadow")
    for member in ("InstanceType", "InitialInstanceCount", "InstancePools")
}
_SPECIFICATIONS = (
    "InferenceSpecification",
    "AdditionalInferenceSpecifications",
    "AdditionalInferenceSpecificationsToAdd",
)
_NO_ENVIRONMENT = {
    f"{each}Specification{s}.Containers.Environment": OMIT
    for each, s in (("Inference", ""), ("AdditionalInference", "s"))
}
_ENDPOINT = {"EndpointName": "new"}


def _specification(path: str, *, of_model: bool = False) -> Given:
    """Give the choices that make a component's specification whole; the other way to give it is left out."""
    paths = ("Specification", "Specifications")
    return {
        **{each: OMIT for each in paths if each != path},
        f"{path}.InstanceType": "ml.m5.large",
        f"{path}.ModelName": "a" if of_model else OMIT,
        f"{path}.Container": OMIT if of_model else lambda sample: sample,
        f"{path}.Container.ArtifactUrl": ARCHIVE,
        f"{path}.BaseInferenceComponentName": OMIT,
    }


_COMPONENT = {"InferenceComponentName": "new", "EndpointName": "h", "VariantName": "AllTraffic"}

LARGEST: dict[str, Given] = {
    **SMALLEST,
    "CreateModel": {
        **_MODEL, "Containers": OMIT, "InferenceExecutionConfig": OMIT, **container("PrimaryContainer", by_url=True)
    },
    "CreateModel, several containers": {
        **_MODEL, "PrimaryContainer": OMIT, "Containers": _two, **container("Containers", by_url=False)
    },
    "CreateModel, of many models": {
        **_MODEL,
        "Containers": OMIT,
        "InferenceExecutionConfig": OMIT,
        **container("PrimaryContainer", by_url=True),
        "PrimaryContainer.ModelDataUrl": FOLDER,
        "PrimaryContainer.Mode": "MultiModel",
        "PrimaryContainer.MultiModelConfig": lambda sample: sample,
    },
    "CreateModel, of a package": {
        **_MODEL,
        "PrimaryContainer": {"ModelPackageName": "a/1", "InferenceSpecificationName": "s", "Mode": "SingleModel"},
        "Containers": OMIT,
        "InferenceExecutionConfig": OMIT,
    },
    "CreateEndpointConfig": {**_CONFIG, **_VARIANTS, **_SHADOW, **_ON_INSTANCES},
    "CreateEndpointConfig, serverless": {
        **_CONFIG,
        **_VARIANTS,
        **_SHADOW,
        **_SERVERLESS,
        "AsyncInferenceConfig": OMIT,
        "DataCaptureConfig": OMIT,
    },
    "CreateEndpoint": {**_ENDPOINT, "DeploymentConfig.RollingUpdatePolicy": OMIT},
    "CreateEndpoint, rolling": {**_ENDPOINT, "DeploymentConfig.BlueGreenUpdatePolicy": OMIT},
    "CreateInferenceComponent": {**_COMPONENT, **_specification("Specification")},
    "CreateInferenceComponent, of a model": {**_COMPONENT, **_specification("Specification", of_model=True)},
    "CreateInferenceComponent, by instance type": {**_COMPONENT, **_specification("Specifications")},
    "UpdateInferenceComponent": _specification("Specification"),
    "UpdateInferenceComponent, by instance type": _specification("Specifications"),
    "CreateTransformJob": {
        "TransformJobName": "new",
        "MaxConcurrentTransforms": 2,
        "MaxPayloadInMB": 50,
        "TransformInput.ContentType": "text/csv",
        "TransformOutput.Accept": "text/csv",
        "TransformInput.DataSource.S3DataSource.S3DataType": "ManifestFile",
        "DataProcessing": {"InputFilter": "$[0]", "OutputFilter": "$[-1]", "JoinSource": "Input"},
    },
    "CreateModelPackage": {"ModelPackageName": OMIT, "Tags": OMIT, **_package("ModelDataSource")},
    "CreateModelPackage, outside groups": {
        "ModelPackageName": "new", "ModelPackageGroupName": OMIT, "ModelApprovalStatus": OMIT,
        **_NO_ENVIRONMENT, **_package("ModelDataUrl"),
    },
    "UpdateModelPackage": {
        **SMALLEST["UpdateModelPackage"], **_package("ModelDataUrl"), "CustomerMetadataPropertiesToRemove": OMIT
    },
}  # fmt: skip


async def no_routes() -> AsyncGenerator[bytes, None]:
    yield b""


async def _furnish(api: Api) -> None:
    """Make one `a` of each kind."""
    await api.model("a")
    await api.config("a", ProductionVariants=[variant(ModelName="a")])
    await api.endpoint("a", EndpointConfigName="a")
    await api.host()
    await api.component("a")
    await api.serves("a")
    specification = {"Containers": [{"Image": "image"}]}
    for name in ("a", "empty"):
        await api("CreateModelPackageGroup", ModelPackageGroupName=name)
    await api(
        "CreateModelPackage",
        ModelPackageGroupName="a",
        ModelApprovalStatus="Approved",
        InferenceSpecification=specification,
        AdditionalInferenceSpecifications=[{"Name": "s", **specification}],
    )
    await api("CreateTransformJob", **smallest(input_of("CreateTransformJob"), {"TransformJobName": "a"}))
    await api("PutModelPackageGroupPolicy", ModelPackageGroupName="a", ResourcePolicy="{}")


@contextlib.asynccontextmanager
async def _sending(api: Api) -> AsyncIterator[Send]:
    """Send an operation with a body, whatever it is; give status and answer."""
    app = App(Dispatcher(api.handlers), Partition(ACCOUNT, "us-east-1"), no_routes)
    timeout = aiohttp.ClientTimeout(total=300)
    async with served(app) as url, aiohttp.ClientSession(url, timeout=timeout) as session:

        async def call(operation: str, body: Any) -> tuple[int, dict[str, Any]]:
            headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
            async with session.post("/", data=json.dumps(body), headers=headers) as answer:
                text = await answer.text()
                return answer.status, json.loads(text) if text else {}

        yield call


@pytest.fixture
async def send(api: Api) -> AsyncIterator[Send]:
    """A server of this test's own, for requests that change something."""
    await _furnish(api)
    async with _sending(api) as call:
        yield call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def send_in_vain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Send]:
    """A server for all the requests that change nothing."""
    async with opened(tmp_path_factory.mktemp("store")) as api, _sending(api) as call:
        yield call


def input_of(case: str) -> Shape:
    return model.operation("sagemaker", case.partition(",")[0]).input_shape


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_smallest_request_is_served(send: Send, operation: str) -> None:
    status, answer = await send(operation, smallest(input_of(operation), SMALLEST.get(operation, {})))
    assert status == 200, answer


@pytest.mark.parametrize("case", sorted({*OPERATIONS, *LARGEST}))
async def test_the_largest_request_is_served(send: Send, case: str) -> None:
    request = largest(input_of(case), LARGEST.get(case, {}))
    status, answer = await send(case.partition(",")[0], request)
    assert status == 200, answer


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_constraint_is_kept_and_reported_in_the_services_words(send_in_vain: Send, operation: str) -> None:
    shape = input_of(operation)
    for label, request in each_broken(shape, largest(shape, {})):
        expected = message(shape, request)
        assert expected is not None, label
        status, answer = await send_in_vain(operation, request)
        assert (status, answer) == (400, refusal(expected)), label


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_all_that_is_wrong_is_reported_at_once(send_in_vain: Send, operation: str) -> None:
    shape = input_of(operation)
    request = all_broken(shape, largest(shape, {}))
    expected = message(shape, request)
    if expected is None:
        pytest.skip("the model constrains nothing")
    assert await send_in_vain(operation, request) == (400, refusal(expected))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_empty_request_is_told_what_it_lacks(send_in_vain: Send, operation: str) -> None:
    shape = input_of(operation)
    status, answer = await send_in_vain(operation, {})
    expected = message(shape, {})
    if expected is None:
        # CreateModelPackage requires one of two, which the model does not say.
        assert status == (400 if operation == "CreateModelPackage" else 200)
    else:
        assert (status, answer) == (400, refusal(expected))


def refusal(text: str) -> dict[str, str]:
    return {"__type": "ValidationException", "message": text, "Message": text}


# Describe gives back what was created

NOT_DESCRIBED = frozenset({"Tags", "ClientToken", "DeploymentConfig"})
"""ListTags has the tags, the token is the client's own, and DescribeEndpoint has no such member."""


def as_described(value: Any) -> Any:
    """Give what Describe has for a member: components have a container's image and their copies in another shape."""
    match value:
        case {"CopyCount": number}:
            return {"DesiredCopyCount": number, "CurrentCopyCount": 0}
        case {"Container": {"Image": image, **rest}, **others}:
            return {**others, "Container": {"DeployedImage": {"SpecifiedImage": image}, **rest}}
        case [{"Container": _}, *_]:
            return [as_described(each) for each in value]
    return value


@pytest.mark.parametrize("case", sorted(case for case in LARGEST if case.startswith("Create")))
async def test_describe_gives_back_exactly_what_was_created(send: Send, case: str) -> None:
    create = case.partition(",")[0]
    kind = create.removeprefix("Create")
    request = largest(input_of(create), LARGEST[case])
    _, made = await send(create, request)
    name = made["ModelPackageArn"] if kind == "ModelPackage" else request[f"{kind}Name"]
    status, described = await send(f"Describe{kind}", {f"{kind}Name": name})
    assert status == 200, described
    shown = {member: as_described(value) for member, value in request.items() if member not in NOT_DESCRIBED}
    assert {member: described.get(member) for member in shown} == shown
    assert described[f"{kind}Arn"] == made[f"{kind}Arn"]
    assert not [member for member in described if member.startswith("_")]
    _, tags = await send("ListTags", {"ResourceArn": made[f"{kind}Arn"]})
    assert tags == {"Tags": request.get("Tags", [])}


async def test_no_url_of_model_data_is_a_failure_of_the_service(api: Api) -> None:
    async def takes_any(image: str, repository: Repository) -> bool | None:
        return None

    # Nobody is there to be asked: what has no one spelling is refused before that.
    world = World(Objects("http://127.0.0.1:1", "", "", "us-east-1", ()), takes_any, "us-east-1")
    api.handlers = operations(api.store, Partition(ACCOUNT, "us-east-1"), api.notified.append, world)
    objects = {"S3DataType": "S3Object", "CompressionType": "Gzip"}
    folders = {"S3DataType": "S3Prefix", "CompressionType": "None"}
    async with _sending(api) as send:
        for url in HOSTILE:
            for data in (
                {"ModelDataUrl": f"{url}.tar.gz"},
                {"ModelDataUrl": f"{url}/", "Mode": "MultiModel"},
                {"ModelDataSource": {"S3DataSource": {**objects, "S3Uri": url}}},
                {"ModelDataSource": {"S3DataSource": {**folders, "S3Uri": f"{url}/"}}},
            ):
                request = {"ModelName": "new", "PrimaryContainer": {"Image": "image", **data}}
                status, answer = await send("CreateModel", request)
                assert status == 400, (data, answer)
