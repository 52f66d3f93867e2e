"""From a model.tar.gz to an endpoint that serves, through the public API only: what `deploy` and `demo` share."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from clary.cli.connection import Connection, program
from clary.cli.progress import Step, size
from clary.errors import ClaryError

POLL = 0.2
PART = 16 * 1024 * 1024
MOST_PARTS = 10_000  # S3's limit
LONGEST_NAME = 63  # of a model, a config and an endpoint alike


class DeployFailed(ClaryError):
    """The endpoint does not serve; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to deploy."""

    name: str
    archive: Path
    image: str
    instance_type: str = "ml.m5.large"
    count: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    bucket: str = "clary-models"


class Deployment:
    """One deployment. Model and config get the endpoint's name with a time, as nothing may be created twice."""

    def __init__(self, connection: Connection, wanted: Wanted, now: float) -> None:
        stamp = time.strftime("-%Y%m%d-%H%M%S", time.gmtime(now))
        self.wanted = wanted
        self.resource = wanted.name[: LONGEST_NAME - len(stamp)].rstrip("-") + stamp
        self.key = f"{self.resource}/model.tar.gz"
        self.url = f"s3://{wanted.bucket}/{self.key}"
        self._region = connection.region
        self._s3 = connection.client("s3")
        self._sagemaker = connection.client("sagemaker")

    def refuse_existing(self) -> None:
        """Raise DeployFailed where an endpoint of this name exists."""
        name = self.wanted.name
        status = self._status(name)
        if status is not None:
            raise DeployFailed(
                f"endpoint {name} exists already ({status['EndpointStatus']}); choose another --name, or delete it "
                f"first: aws sagemaker delete-endpoint --endpoint-name {name}"
            )

    def upload(self, step: Step) -> None:
        """Put the archive into the bucket, which is made where it does not exist. Holds one part in memory."""
        self._make_bucket()
        total = self.wanted.archive.stat().st_size
        target = {"Bucket": self.wanted.bucket, "Key": self.key}
        step.say(f"{size(total)} to {self.url}", 0.0)
        if total <= PART:
            self._s3.put_object(**target, Body=self.wanted.archive.read_bytes())
            return
        upload = {**target, "UploadId": self._s3.create_multipart_upload(**target)["UploadId"]}
        try:
            parts = []
            for number, sent, body in _parts(self.wanted.archive, max(PART, -(-total // MOST_PARTS))):
                etag = self._s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]
                parts.append({"PartNumber": number, "ETag": etag})
                step.say(f"{size(sent)} of {size(total)} to {self.url}", sent / total)
            self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with suppress(ClientError, BotoCoreError):
                self._s3.abort_multipart_upload(**upload)
            raise
        step.say(f"{size(total)} to {self.url}", 1.0)

    def create(self) -> None:
        """Create model, config and endpoint. Where that fails, what was made until then is removed."""
        api, wanted = self._sagemaker, self.wanted
        with self._undo(self._s3.delete_object, Bucket=wanted.bucket, Key=self.key):
            api.create_model(**self.model_request())
            with self._undo(api.delete_model, ModelName=self.resource):
                api.create_endpoint_config(**self.config_request())
                with self._undo(api.delete_endpoint_config, EndpointConfigName=self.resource):
                    api.create_endpoint(EndpointName=wanted.name, EndpointConfigName=self.resource)

    def wait(self, step: Step) -> dict[str, Any]:
        """Poll until the endpoint serves and give its description. Raises DeployFailed with the FailureReason."""
        name = self.wanted.name
        while True:
            description = self._status(name)
            if description is None:
                raise DeployFailed(f"endpoint {name} was deleted while it was waited for")
            status = description["EndpointStatus"]
            step.say(progress_of(description))
            if status == "InService":
                return description
            if status not in ("Creating", "Updating", "SystemUpdating"):
                raise DeployFailed(_failure(name, description))
            time.sleep(POLL)

    def exists(self) -> bool:
        """Tell whether there is an endpoint of the wanted name."""
        return self._status(self.wanted.name) is not None

    def delete_endpoint(self) -> None:
        """Delete the endpoint of the wanted name and wait until it is gone."""
        self._sagemaker.delete_endpoint(EndpointName=self.wanted.name)
        while self.exists():
            time.sleep(POLL)

    def delete(self) -> None:
        """Delete endpoint, config and model."""
        self.delete_endpoint()
        self._sagemaker.delete_endpoint_config(EndpointConfigName=self.resource)
        self._sagemaker.delete_model(ModelName=self.resource)

    def model_request(self) -> dict[str, Any]:
        """Give the members of CreateModel."""
        container: dict[str, Any] = {"Image": self.wanted.image, "ModelDataUrl": self.url}
        if self.wanted.environment:
            container["Environment"] = dict(self.wanted.environment)
        request: dict[str, Any] = {"ModelName": self.resource, "PrimaryContainer": container}
        return request | ({"ExecutionRoleArn": self.wanted.role} if self.wanted.role else {})

    def config_request(self) -> dict[str, Any]:
        """Give the members of CreateEndpointConfig: one variant that takes all traffic."""
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": self.resource,
            "InstanceType": self.wanted.instance_type,
            "InitialInstanceCount": self.wanted.count,
        }
        return {"EndpointConfigName": self.resource, "ProductionVariants": [variant]}

    def _status(self, name: str) -> dict[str, Any] | None:
        return describe_endpoint(self._sagemaker, name)

    def _make_bucket(self) -> None:
        # S3 refuses the constraint in its first region, and demands it everywhere else.
        constraint = {"LocationConstraint": self._region}
        extra = {} if self._region == "us-east-1" else {"CreateBucketConfiguration": constraint}
        try:
            self._s3.create_bucket(Bucket=self.wanted.bucket, **extra)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    @contextmanager
    def _undo(self, action: Any, **arguments: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(ClientError, BotoCoreError):  # the first error is the one to tell
                action(**arguments)
            raise


def describe_endpoint(sagemaker: Any, name: str) -> dict[str, Any] | None:
    """Describe an endpoint; None where there is none (the hosting API has no 404: the message tells)."""
    try:
        description: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if "could not find" in str(error).lower():
            return None
        raise
    return description


def _parts(archive: Path, length: int) -> Iterator[tuple[int, int, bytes]]:
    sent = 0
    with archive.open("rb") as file:
        for number in range(1, MOST_PARTS + 1):
            body = file.read(length)
            if not body:
                return
            sent += len(body)
            yield number, sent, body


def progress_of(description: Mapping[str, Any]) -> str:
    """Put status and, where the service tells, what each variant is doing into a few words."""
    said = [
        status["StatusMessage"]
        for variant in variants_of(description)
        for status in variant.get("VariantStatus", ())
        if status.get("StatusMessage")
    ]
    return ", ".join([description["EndpointStatus"], *said])


def variants_of(description: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Give what an endpoint says of its variants: until it serves first, that is in the pending deployment."""
    pending = description.get("PendingDeploymentSummary", {})
    found: Sequence[Mapping[str, Any]] = description.get("ProductionVariants") or pending.get("ProductionVariants", ())
    return found


def _failure(name: str, description: Mapping[str, Any]) -> str:
    """Say why, and where to find out more, which a FailureReason of Clary says itself."""
    reason = description.get("FailureReason", f"it is {description['EndpointStatus']}")
    pointer = "" if f"clary doctor {name}" in reason else f"\nNext: {program()} doctor {name}"
    return f"endpoint {name} failed: {reason}{pointer}"


def invoke_command(name: str, content_type: str = "text/csv", body: str = "BODY-FILE") -> str:
    """Give the aws command that invokes the endpoint with a file and prints the answer.

    By way of a file: aws would truncate what /dev/stdout is redirected to.
    """
    return (
        f"aws sagemaker-runtime invoke-endpoint --endpoint-name {shlex.quote(name)} --content-type {content_type} "
        f"--body fileb://{body} answer.json && cat answer.json"
    )
