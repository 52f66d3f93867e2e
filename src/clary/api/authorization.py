"""May the caller do this? Asked before each operation of the hosting API, of everybody but the default key.

What an operation needs is derived from its name and its request: `sagemaker:<Operation>` on the ARN that the request
names (`*` for lists), `sagemaker:AddTags` where tags come with a Create, `iam:PassRole` on a role. Source: the service
authorization reference of Amazon SageMaker. CreateModel is also about the model package that it names: the developer
guide's policies for deploying from another account allow `sagemaker:CreateModel` on the package.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from clary.api.cloudwatch import logs
from clary.api.conditions import of_request
from clary.api.definition import Container
from clary.api.identities import Identities
from clary.api.packages import packaged, stored_name
from clary.api.world import locations
from clary.core.conditions import circumstances
from clary.core.identities import HOSTING, trusts_hosting
from clary.core.policy import Inquiry
from clary.core.ports import ResourceStore, TagStore
from clary.core.resources import ENDPOINT_CONFIG, KINDS, MODEL_PACKAGE, MODEL_PACKAGE_GROUP, Kind, Partition
from clary.errors import ValidationException
from clary.wire.dispatch import Caller, Handler

Request = Mapping[str, Any]


class Store(TagStore, ResourceStore, Protocol):
    """Where the guard looks up tags and model packages."""


def _around(caller: Caller) -> dict[str, tuple[str, ...]]:
    return circumstances(time.time(), caller.source_ip, caller.user_agent, secure=caller.secure)


def _metrics_inquiry(caller: Caller, operation: str, request: Request) -> Inquiry:
    """Give what an operation on metrics needs. No metric has an ARN; policies may name PutMetricData's namespace."""
    context = _around(caller)
    if operation == "PutMetricData":
        context = {**context, "cloudwatch:namespace": (request["Namespace"],)}
    return Inquiry(f"cloudwatch:{operation}", "*", context)


_NOUNS = {kind.name: kind for kind in KINDS}
_VERB = re.compile(
    r"(?:Create|Describe|Delete|Update|Put|Get|Stop)(\w+?)(?:Policy|WeightsAndCapacities|RuntimeConfig)?"
)
_TAGGING = frozenset(("AddTags", "ListTags", "DeleteTags"))


class Guard:
    """Stands before the handlers of the hosting API."""

    def __init__(self, identities: Identities, store: Store, partition: Partition) -> None:
        self._identities = identities
        self._store = store
        self._partition = partition

    def before(self, handlers: Mapping[tuple[str, str], Handler]) -> dict[tuple[str, str], Handler]:
        """Give the same handlers: all are told who calls, and but for `sts` a check is before them."""
        return {key: self._guarded(*key, handler) for key, handler in handlers.items()}

    def _guarded(self, service: str, operation: str, handler: Handler) -> Handler:
        async def checked(caller: Caller, request: dict[str, Any]) -> dict[str, Any] | None:
            principal = self._identities.principal(caller)
            if principal.policies is not None and service == "sagemaker":
                async for inquiry in self._inquiries(caller, operation, request):
                    principal.require(inquiry, status=400)  # as JSON 1.1 services answer
            if principal.policies is not None and service == "logs":
                around = _around(caller)
                principal.require(logs.inquiry(operation, request, self._partition, around), status=400)
            if principal.policies is not None and service == "cloudwatch":
                principal.require(_metrics_inquiry(caller, operation, request), code="AccessDenied")
            for role in _roles(request):
                self._check_role(role, resources(operation, request, self._partition)[0])
            return await handler(replace(caller, arn=principal.arn, user_id=principal.id), request)

        return checked

    def _check_role(self, arn: str, resource: str) -> None:
        """Raise ValidationException for a role that is not there; none need be before there has been a role."""
        if not self._identities.roles_are_configured:
            return
        role = self._identities.directory.role(arn)
        if role is None or not trusts_hosting(role, self._partition.account_id, resource):
            raise ValidationException(
                f'The execution role ARN "{arn}" is invalid. Please ensure that the role exists and that its trust '
                'relationship policy allows the action "sts:AssumeRole" for the service principal '
                f'"{HOSTING}".'
            )

    async def _inquiries(self, caller: Caller, operation: str, request: Request) -> AsyncIterator[Inquiry]:
        """Give what must be allowed, in turn: for whom one thing is refused, nothing further is looked at."""
        around = _around(caller)
        context = {**around, **of_request(operation, request, self._partition)}
        arns = []
        for arn in resources(operation, request, self._partition):
            stored, tags = await self._known(arn, operation)
            tagged = {f"{service}:resourcetag/{k.lower()}": (v,) for k, v in tags.items() for service in _TAG_SERVICES}
            arns.append(stored)
            yield Inquiry(f"sagemaker:{operation}", stored, {**context, **tagged})
        if request.get("Tags") and operation not in _TAGGING:
            yield Inquiry("sagemaker:AddTags", arns[0], context)
        for role in _roles(request):
            yield Inquiry("iam:PassRole", role, {**context, "iam:passedtoservice": (HOSTING,)})
        if self._identities.directory.role(request.get("ExecutionRoleArn", "")) is None:
            # Nobody's permissions stand between the caller and the data but the caller's own.
            for arn, is_prefix in await self._model_data(request):
                yield Inquiry("s3:GetObject", arn, context, all_below=is_prefix)

    async def _known(self, arn: str, operation: str) -> tuple[str, Mapping[str, str]]:
        """Give an ARN as policies are asked about it, and the tags of what it names.

        The operations on tags, and all on endpoints, disregard the case of names: what is stored is what policies are
        about. Everywhere else names that differ in case are two names.
        """
        stored = await self._store.stored_arn(arn)
        if stored is None or (stored != arn and operation not in _TAGGING and ":endpoint/" not in stored):
            return arn, {}
        return stored, await self._store.tags(stored)

    async def _model_data(self, request: Request) -> list[tuple[str, bool]]:
        """Give the ARNs of the data of a model's containers, those of its packages included; and which are prefixes."""
        data = []
        for container in _containers(request):
            for each in (container, *await self._packaged(container)):
                data += [(self._identities.object_arn(url, below), below) for url, below in locations(each)]
        return data

    async def _packaged(self, container: Container) -> Sequence[Container]:
        if "ModelPackageName" not in container:
            return ()
        name = stored_name(self._partition, container["ModelPackageName"])
        package = await self._store.get(MODEL_PACKAGE, name)
        return () if package is None else packaged(package, container.get("InferenceSpecificationName"))


_TAG_SERVICES = ("aws", "sagemaker")


def _containers(request: Request) -> list[Container]:
    primary = [request["PrimaryContainer"]] if "PrimaryContainer" in request else []
    return [*primary, *(request.get("Containers") or ())]


def _roles(request: Request) -> Iterator[str]:
    """Give the roles that the request hands to SageMaker."""
    validation = request.get("ValidationSpecification") or {}
    yield from filter(None, (request.get("ExecutionRoleArn"), validation.get("ValidationRole")))


def resources(operation: str, request: Request, partition: Partition) -> list[str]:
    """Give the ARNs that an operation is about; `*` for one that is about none in particular.

    CreateEndpoint and UpdateEndpoint also are about the configuration that they name, CreateModel about packages.
    """
    if operation in _TAGGING:
        return [request["ResourceArn"]]
    if operation == "BatchDescribeModelPackage":
        return [_arn(partition, MODEL_PACKAGE, arn) for arn in request["ModelPackageArnList"]]
    if operation == "ListModelPackages" and (group := request.get("ModelPackageGroupName")):
        return [_arn(partition, MODEL_PACKAGE_GROUP, group)]
    found = _VERB.fullmatch(operation)
    kind = _NOUNS.get(found[1]) if found else None
    if kind is None:
        return ["*"]
    name = request.get(kind.name_member) or request.get(kind.arn_member)
    if name is None and kind is MODEL_PACKAGE:
        # The version's number is not known yet. The group may be given by its ARN.
        name = f"{partition.name_of(MODEL_PACKAGE_GROUP, str(request.get('ModelPackageGroupName', '')))}/*"
    arns = [_arn(partition, kind, str(name)) if name else "*"]
    if kind.name == "Endpoint" and (config := request.get("EndpointConfigName")):
        arns.append(_arn(partition, ENDPOINT_CONFIG, config))
    packages = (each["ModelPackageName"] for each in _containers(request) if "ModelPackageName" in each)
    return [*arns, *(_arn(partition, MODEL_PACKAGE, package) for package in packages)]


def _arn(partition: Partition, kind: Kind, name_or_arn: str) -> str:
    """Give the one spelling of an ARN that policies are asked about; one from elsewhere is left as it is."""
    name = partition.name_of(kind, name_or_arn)
    return name if name.startswith("arn:") else partition.arn(kind, name)
