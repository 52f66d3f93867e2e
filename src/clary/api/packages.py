"""Model packages: numbered versions of a group, or packages outside groups under names of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from clary.api import definition
from clary.api.crud import Amendable, AmendableStore, Answer, Request, Spec
from clary.api.definition import Container
from clary.api.identity import user_context
from clary.api.package_groups import ModelPackageGroups
from clary.api.tags import UNTAGGED, from_list
from clary.core.ports import ListQuery
from clary.core.resources import MODEL_PACKAGE, MODEL_PACKAGE_GROUP, Partition, Resource
from clary.errors import ValidationException
from clary.wire import constraints, model
from clary.wire.dispatch import Caller

_TYPE = "_Type"
"""Private member of the spec: `Versioned` or `Unversioned`."""

_SOURCES = ("InferenceSpecification", "SourceAlgorithmSpecification", "SourceUri")
_DEPLOYED = ("ContainerHostname", "Image", "ModelDataUrl", "ModelDataSource", "AdditionalModelDataSources")
"""Members of a package's container that mean the same in a model's; Environment is merged."""
_REPLACED = (
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
)
"""Members that UpdateModelPackage sets as they are."""
_GROWING = ("CustomerMetadataProperties", "AdditionalInferenceSpecifications")
_IN_SUMMARY = (
    "ModelPackageName",
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageDescription",
    "ModelApprovalStatus",
    "ModelLifeCycle",
    "ModelPackageRegistrationType",
)
_IN_BATCH = (*_IN_SUMMARY, "InferenceSpecification")


class ModelPackages(Amendable):
    """Create, Describe, BatchDescribe, List, Update and Delete ModelPackage."""

    kind = MODEL_PACKAGE
    initial_status: ClassVar[Mapping[str, object]] = {
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
    }

    def __init__(self, store: AmendableStore, partition: Partition, groups: ModelPackageGroups) -> None:
        super().__init__(store, partition)
        self._groups = groups
        self._tokens: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store a new version of a group, or a package outside groups. Repeating a ClientToken gives the first one."""
        _check(request)
        if (token := request.get("ClientToken")) is None:
            return await self._create(caller, request)
        # Whoever repeats a request before it was answered waits for that answer.
        async with self._tokens.setdefault(token, asyncio.Lock()):
            return await self._create(caller, request)

    async def _create(self, caller: Caller, request: Request) -> Answer:
        if (group := request.get("ModelPackageGroupName")) is not None:
            request = {**request, "ModelPackageGroupName": await self._group(group)}
        if (earlier := await self._repeated(request)) is not None:
            return {"ModelPackageArn": earlier.arn}
        members = {member: value for member, value in request.items() if member != "Tags"}
        spec = {"CertifyForMarketplace": False, **members, "CreatedBy": await user_context(caller)}
        name = request.get("ModelPackageName", "")
        if group is None:
            spec[_TYPE] = "Unversioned"
            # Outside groups it means nothing, and SageMaker's own SDK sends it there too.
            spec.pop("ModelApprovalStatus", None)
        else:
            group, version = await self._groups.next_version(request["ModelPackageGroupName"])
            name = f"{group}/{version}"
            numbered = {"ModelPackageName": group, "ModelPackageVersion": version, _TYPE: "Versioned"}
            spec = {"ModelApprovalStatus": "PendingManualApproval", **spec, **numbered}
        arn = self._partition.arn(self.kind, name)
        package = Resource(self.kind.name, self.stored_name(name), arn, spec, self.initial_status)
        if await self._store.insert(package, from_list(request.get("Tags", []))) is None:
            raise self._taken(arn)
        return {"ModelPackageArn": arn}

    async def batch_describe(self, caller: Caller, request: Request) -> Answer:
        """Describe those that there are, and say of each other one why not."""
        found: dict[str, Answer] = {}
        failed: dict[str, Answer] = {}
        for arn in request["ModelPackageArnList"]:
            try:
                found[arn] = self._shown(await self.get(arn), _IN_BATCH)
            except ValidationException as error:
                failed[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
        return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": failed}

    async def list(self, caller: Caller, request: Request) -> Answer:
        """Give a page of summaries: of one group, or of the packages outside groups, or whatever the type says."""
        if (group := request.get("ModelPackageGroupName")) is not None:
            request = {**request, "ModelPackageGroupName": (await self._groups.get(group)).name}
        return await super().list(caller, request)

    async def update(self, caller: Caller, request: Request) -> Answer:
        """Change the approval, the metadata and what else may change; models made before stay as they are."""
        changed = {"LastModifiedBy": await user_context(caller)}
        package = await self.amend(request["ModelPackageArn"], lambda spec: {**_updated(spec, request), **changed})
        return {"ModelPackageArn": package.arn}

    async def deployable(self, container: Container) -> Sequence[Container]:
        """Give the containers that a model's container with a ModelPackageName stands for.

        Raises ValidationException for a package that is not there, not approved, or has nothing to run.
        """
        package = await self.get(container["ModelPackageName"])
        spec: Spec = package.spec
        if spec[_TYPE] == "Versioned" and spec["ModelApprovalStatus"] != "Approved":
            raise ValidationException(
                f"ModelPackage {package.arn} is not approved for deployment: its ModelApprovalStatus is "
                f"{spec['ModelApprovalStatus']}."
            )
        containers = packaged(package, container.get("InferenceSpecificationName"))
        if any("Image" not in each for each in containers):
            raise ValidationException(f"ModelPackage {package.arn} has a container without an Image.")
        return [_deployed(each, container) for each in containers]

    def stored_name(self, name_or_arn: str) -> str:
        """Give the name under which the store has a package: a version's number with all its digits."""
        return stored_name(self._partition, name_or_arn)

    def query(self, request: Request) -> ListQuery:
        """Add the registry's own filters. A group implies Versioned; without one the default is Unversioned."""
        group, approval = request.get("ModelPackageGroupName"), request.get("ModelApprovalStatus")
        kind = request.get("ModelPackageType", "Unversioned" if group is None else "Versioned")
        wanted = ((_TYPE, None if kind == "Both" else kind), ("ModelPackageGroupName", group))
        members = (*wanted, ("ModelApprovalStatus", approval))
        return replace(super().query(request), members=tuple((m, value) for m, value in members if value is not None))

    def _summary(self, resource: Resource) -> Answer:
        return self._shown(resource, _IN_SUMMARY)

    def _shown(self, resource: Resource, members: tuple[str, ...]) -> Answer:
        shown = {member: resource.spec[member] for member in members if member in resource.spec}
        return {**super()._summary(resource), **shown}

    async def _group(self, name: str) -> str:
        found = await self._store.get(MODEL_PACKAGE_GROUP, self._partition.name_of(MODEL_PACKAGE_GROUP, name))
        if found is None:
            raise ValidationException("Model Package Group does not exist.")
        return found.name

    async def _repeated(self, request: Request) -> Resource | None:
        """Find what the same request has made before: clients send a token with it and its repetitions."""
        if "ClientToken" not in request:
            return None
        place = "ModelPackageGroupName" if "ModelPackageGroupName" in request else "ModelPackageName"
        same = (("ClientToken", request["ClientToken"]), (place, request[place]))
        return next(iter((await self._store.list(self.kind, ListQuery(limit=1, members=same))).resources), None)


def stored_name(partition: Partition, name_or_arn: str) -> str:
    """Give the name under which the store has a package: a version's number has all nine digits there.

    So no other spelling of a number names a version, that of the store included: no ARN is written so.
    """
    group, slash, number = partition.name_of(MODEL_PACKAGE, name_or_arn).partition("/")
    if number.isdecimal():
        number = f"/{number}" if number[0] == "0" else f"{number:0>9}"
    return f"{group}{slash}{number}"


def packaged(package: Resource, specification: str | None) -> list[Container]:
    """Give the containers of a package's inference specification of that name; None: its first. Raises
    ValidationException where it has none.
    """
    spec: Spec = package.spec
    if specification is None:
        found = spec.get("InferenceSpecification")
    else:
        additional = spec.get("AdditionalInferenceSpecifications", [])
        found = next((each for each in additional if each["Name"] == specification), None)
    if found is None:
        which = "InferenceSpecification" if specification is None else f'inference specification "{specification}"'
        raise ValidationException(f"ModelPackage {package.arn} has no {which}.")
    return list(found["Containers"])


def _check(request: Request) -> None:
    named, grouped = "ModelPackageName" in request, "ModelPackageGroupName" in request
    if named and grouped:
        raise ValidationException(
            "Both ModelPackageName and ModelPackageGroupName are provided in the input. Cannot determine which one to "
            "use."
        )
    if not named and not grouped:
        raise ValidationException("Missing ARN.")
    if grouped and request.get("Tags"):
        raise ValidationException(UNTAGGED)
    if request.get("ModelPackageRegistrationType") != "Logged" and not any(each in request for each in _SOURCES):
        raise ValidationException(f"Specify one of {', '.join(_SOURCES)}.")
    _check_specifications(request, versioned=grouped)


def _check_specifications(spec: Spec, *, versioned: bool) -> None:
    containers = [container for each in _specifications(spec) for container in each["Containers"]]
    for container in containers:
        definition.check_data_choice(container)
    if not versioned and any(container.get("Environment") for container in containers):
        # The grammar is the service's.
        raise ValidationException(
            "1 validation errors detected:Environment variable map cannot be specified when using non-versioned "
            "ModelPackages"
        )
    names = [each["Name"] for each in spec.get("AdditionalInferenceSpecifications", [])]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValidationException(f'The inference specification name "{repeated}" is used more than once.')


def _specifications(request: Spec) -> list[dict[str, Any]]:
    first = request.get("InferenceSpecification")
    return [*([first] if first else []), *request.get("AdditionalInferenceSpecifications", [])]


def _deployed(packaged: Container, container: Container) -> Container:
    own = {m: v for m, v in container.items() if m not in ("ModelPackageName", "InferenceSpecificationName")}
    environment = {**packaged.get("Environment", {}), **container.get("Environment", {})}
    taken = {member: packaged[member] for member in _DEPLOYED if member in packaged}
    return {"Mode": "SingleModel", **own, **taken, "Environment": environment}


def _updated(spec: Spec, request: Request) -> dict[str, Any]:
    if "ModelApprovalStatus" in request and spec[_TYPE] != "Versioned":
        raise ValidationException("ModelApprovalStatus applies to versions of a model package group only.")
    updated = {**spec, **{member: request[member] for member in _REPLACED if member in request}}
    properties = {**spec.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    removed = request.get("CustomerMetadataPropertiesToRemove", [])
    updated["CustomerMetadataProperties"] = {key: properties[key] for key in properties if key not in removed}
    if not updated["CustomerMetadataProperties"]:
        del updated["CustomerMetadataProperties"]
    if added := request.get("AdditionalInferenceSpecificationsToAdd"):
        there = spec.get("AdditionalInferenceSpecifications", [])
        # A client that repeats its request has them added already.
        updated["AdditionalInferenceSpecifications"] = [*there, *(each for each in added if each not in there)]
    _check_specifications(updated, versioned=spec[_TYPE] == "Versioned")
    # What may be given at once is also what there may be: what came bit by bit is measured together.
    grown = {member: updated[member] for member in _GROWING if member in updated}
    constraints.check(model.operation("sagemaker", "CreateModelPackage").input_shape, grown)
    return updated
