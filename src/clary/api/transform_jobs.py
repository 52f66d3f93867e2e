"""Batch transform: CreateTransformJob and StopTransformJob write what is wanted and wake the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from clary.api import definition, quota
from clary.api.crud import AmendableStore, Answer, Crud, Request
from clary.api.endpoints import DEPLOYMENT, Notify
from clary.api.models import Models, deployable
from clary.core.jsonpath import Path, PathRefused
from clary.core.resources import TRANSFORM_JOB, Partition, Resource
from clary.core.tabular import format_of
from clary.core.transform import PRODUCT
from clary.errors import ValidationException
from clary.wire.dispatch import Caller

STOP = "_Stop"
"""Private member of the spec: StopTransformJob was called."""


class TransformJobs(Crud):
    """CreateTransformJob, DescribeTransformJob, ListTransformJobs, StopTransformJob."""

    kind = TRANSFORM_JOB
    initial_status: ClassVar[Mapping[str, object]] = {"TransformJobStatus": "InProgress"}

    def __init__(self, store: AmendableStore, partition: Partition, models: Models, notify: Notify) -> None:
        super().__init__(store, partition)
        self._specs = store
        self._models = models
        self._notify = notify

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check what the model does not say, and fill in what the service shows of a minimal request."""
        model = deployable((await self._models.get(request["ModelName"])).spec)
        _check_model(model)
        _check_input(request)
        _check_sizes(request)
        _check_processing(request)
        await quota.check_job(self._store, request, model, DEPLOYMENT)
        given, output = request["TransformInput"], request["TransformOutput"]
        return {
            **request,
            "TransformInput": {"CompressionType": "None", "SplitType": "None", **given},
            "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **output},
            "DataProcessing": {
                "InputFilter": "$", "OutputFilter": "$", "JoinSource": "None", **request.get("DataProcessing", {})
            },
            quota.JOB_MODEL: model,
        }  # fmt: skip

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store the job as InProgress and wake the controller."""
        answer = await super().create(caller, request)
        self._notify(request["TransformJobName"])
        return answer

    async def stop(self, caller: Caller, request: Request) -> None:
        """Have a job stop. Raises ValidationException, as the service does, where it has ended or is stopping."""
        while True:
            resource = await self.get(request["TransformJobName"])
            status = resource.status["TransformJobStatus"]
            if status != "InProgress":
                raise ValidationException(f"The request was rejected because the transform job is in status {status}.")
            amended = await self._specs.replace(resource, {**resource.spec, STOP: True})
            if amended is not None:
                await self._store.set_status(amended, {**amended.status, "TransformJobStatus": "Stopping"})
                self._notify(resource.name)
                return

    def _summary(self, resource: Resource) -> Answer:
        shown = {m: resource.status[m] for m in ("TransformEndTime", "FailureReason") if m in resource.status}
        return {**super()._summary(resource), **shown}


def _check_model(model: Mapping[str, Any]) -> None:
    """Refuse what batch transform does not take. The service's words for it are not known."""
    for container in definition.containers(dict(model)):
        if container.get("Mode") == "MultiModel":
            raise ValidationException(
                f'Model "{model["ModelName"]}" cannot be used with a transform job: multi-model containers are not '
                "supported by batch transform."
            )
        if "ModelDataSource" in container:
            raise ValidationException(
                f'Model "{model["ModelName"]}" cannot be used with a transform job: ModelDataSource is not supported '
                "by batch transform. Specify ModelDataUrl."
            )
    if (model.get("InferenceExecutionConfig") or {}).get("Mode") == "Direct":
        raise ValidationException(
            f'Model "{model["ModelName"]}" cannot be used with a transform job: InferenceExecutionConfig mode Direct '
            "is not supported by batch transform."
        )


def _check_input(request: Request) -> None:
    kind = request["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"]
    if kind not in ("S3Prefix", "ManifestFile"):
        raise ValidationException(
            f"S3DataType {kind} is not supported by transform jobs. Specify S3Prefix or ManifestFile."
        )


def _check_sizes(request: Request) -> None:
    size, concurrency = request.get("MaxPayloadInMB", 0), request.get("MaxConcurrentTransforms", 0)
    if size > PRODUCT:
        raise ValidationException(f"MaxPayloadInMB must not be more than {PRODUCT}, and is {size}.")
    if size * concurrency > PRODUCT:
        raise ValidationException(
            f"MaxConcurrentTransforms * MaxPayloadInMB must not be more than {PRODUCT} MB, and is {size * concurrency}."
        )


def _check_processing(request: Request) -> None:
    given, output = request["TransformInput"], request["TransformOutput"]
    asked = request.get("DataProcessing") or {}
    filters = {member: asked[member] for member in ("InputFilter", "OutputFilter") if member in asked}
    try:
        paths = {member: Path(text) for member, text in filters.items()}
    except PathRefused as error:
        raise ValidationException(f"Invalid JSONPath in DataProcessing: {error.message}.") from error
    split, assemble = given.get("SplitType", "None"), output.get("AssembleWith", "None")
    join = asked.get("JoinSource", "None") == "Input"
    if join and split != assemble:
        raise ValidationException("JoinSource Input requires AssembleWith to be the same as SplitType.")
    if join and output.get("Accept", given.get("ContentType")) != given.get("ContentType"):
        raise ValidationException("JoinSource Input requires Accept to be the same as ContentType.")
    used = join or any(not path.is_whole for path in paths.values())
    known = format_of(given.get("ContentType") or output.get("Accept", ""), by_lines=split == "Line")
    if used and (known is None or split not in ("None", "Line")):
        raise ValidationException(
            "DataProcessing requires ContentType text/csv, application/json or application/jsonlines, and SplitType "
            "None or Line."
        )
    for member, path in paths.items():
        if known is not None and known.by_position and not path.by_position:
            raise ValidationException(f"{member} {path.text} asks for members, which text/csv does not have.")
