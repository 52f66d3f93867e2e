"""May the caller do this? Asked before each operation of the hosting API, of everybody but the default key.

What an operation needs is derived from its name and its request: `sagemaker:<Operation>` on the ARN that the request
names (`*` for lists), `sagemaker:AddTags` where tags come with a Create, `iam:PassRole` on an execution role. Source:
the service authorization reference of Amazon SageMaker.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from clary.api.identities import Identities
from clary.api.world import locations
from clary.core.identities import HOSTING, trusts_hosting
from clary.core.policy import Inquiry
from clary.core.ports import TagStore
from clary.core.resources import ENDPOINT_CONFIG, KINDS, MODEL, MODEL_PACKAGE_GROUP, Partition
from clary.errors import ValidationException
from clary.wire.dispatch import Caller, Handler

Request = Mapping[str, Any]
Context = dict[str, Sequence[str]]

_NOUNS = {kind.name: kind for kind in KINDS}
_VERB = re.compile(r"(?:Create|Describe|Delete|Update|Put|Get)(\w+?)(?:Policy|WeightsAndCapacities)?")
_TAGGING = frozenset(("AddTags", "ListTags", "DeleteTags"))


class Guard:
    """Stands before the handlers of the hosting API."""

    def __init__(self, identities: Identities, tags: TagStore, partition: Partition) -> None:
        self._identities = identities
        self._tags = tags
        self._partition = partition

    def before(self, handlers: Mapping[tuple[str, str], Handler]) -> dict[tuple[str, str], Handler]:
        """Give the same handlers: all are told who calls, each of `sagemaker` has its check before it."""
        return {key: self._guarded(*key, handler) for key, handler in handlers.items()}

    def _guarded(self, service: str, operation: str, handler: Handler) -> Handler:
        async def checked(caller: Caller, request: dict[str, Any]) -> dict[str, Any] | None:
            principal = self._identities.principal(caller)
            if principal.policies is not None and service == "sagemaker":
                for inquiry in await self._inquiries(operation, request):
                    principal.require(inquiry, status=400)  # as JSON 1.1 services answer
            self._check_role(request)
            return await handler(replace(caller, arn=principal.arn, user_id=principal.id), request)

        return checked

    def _check_role(self, request: Request) -> None:
        """Raise ValidationException for an execution role that is not there; without any roles, none is asked for."""
        arn, directory = request.get("ExecutionRoleArn"), self._identities.directory
        if not arn or not directory.roles:
            return
        role = directory.role(arn)
        if role is None or not trusts_hosting(role, self._partition.account_id):
            raise ValidationException(
                f'The execution role ARN "{arn}" is invalid. Please ensure that the role exists and that its trust '
                'relationship policy allows the action "sts:AssumeRole" for the service principal '
                f'"{HOSTING}".'
            )

    async def _inquiries(self, operation: str, request: Request) -> list[Inquiry]:
        """Give all that must be allowed."""
        now = str(int(time.time()))
        context: Context = {"aws:currenttime": (now,), "aws:epochtime": (now,)}
        context |= request_context(request, self._partition)
        needed = []
        for arn in resources(operation, request, self._partition):
            # Names may differ from the stored ones in case: what is stored is what policies are about.
            stored = await self._tags.stored_arn(arn) or arn
            tags = await self._tags.tags(stored)
            tagged = {f"{service}:resourcetag/{k.lower()}": (v,) for k, v in tags.items() for service in _TAG_SERVICES}
            needed.append(Inquiry(f"sagemaker:{operation}", stored, {**context, **tagged}))
        if request.get("Tags") and operation not in _TAGGING:
            needed.append(Inquiry("sagemaker:AddTags", needed[0].resource, context))
        data = [self._identities.object_arn(url, is_prefix) for url, is_prefix in _model_data(request)]
        if role := request.get("ExecutionRoleArn"):
            needed.append(Inquiry("iam:PassRole", role, {**context, "iam:passedtoservice": (HOSTING,)}))
        else:  # nobody's permissions stand between the caller and the data but the caller's own
            needed += [Inquiry("s3:GetObject", arn, context) for arn in data]
        return needed


_TAG_SERVICES = ("aws", "sagemaker")


def _model_data(request: Request) -> Iterator[tuple[str, bool]]:
    primary = [request["PrimaryContainer"]] if "PrimaryContainer" in request else []
    for container in (*primary, *(request.get("Containers") or ())):
        yield from locations(container)


def resources(operation: str, request: Request, partition: Partition) -> list[str]:
    """Give the ARNs that an operation is about; `*` for one that is about none in particular.

    CreateEndpoint and UpdateEndpoint also are about the configuration that they name.
    """
    if operation in _TAGGING:
        return [request["ResourceArn"]]
    if operation == "BatchDescribeModelPackage":
        return list(request["ModelPackageArnList"])
    found = _VERB.fullmatch(operation)
    kind = _NOUNS.get(found[1]) if found else None
    if kind is None:
        return ["*"]
    name = request.get(kind.name_member) or request.get(kind.arn_member)
    if name is None and kind.name == "ModelPackage":
        # The version's number is not known yet. The group may be given by its ARN.
        name = f"{partition.name_of(MODEL_PACKAGE_GROUP, str(request.get('ModelPackageGroupName', '')))}/*"
    arns = [partition.arn(kind, partition.name_of(kind, str(name)))] if name else ["*"]
    if name and str(name).startswith("arn:"):
        arns = [str(name)]
    if kind.name == "Endpoint" and (config := request.get("EndpointConfigName")):
        arns.append(partition.arn(ENDPOINT_CONFIG, partition.name_of(ENDPOINT_CONFIG, config)))
    return arns


def request_context(request: Request, partition: Partition) -> Context:
    """Give the condition keys that the request itself sets."""
    context: Context = {}
    for tag in request.get("Tags") or ():
        # The names of condition keys disregard case, tags do not: of two that differ in it both count.
        key = f"aws:requesttag/{tag['Key'].lower()}"
        context[key] = (*context.get(key, ()), tag["Value"])
    vpc = request.get("VpcConfig") or {}
    variants = [*(request.get("ProductionVariants") or ()), *(request.get("ShadowProductionVariants") or ())]
    serverless = [variant["ServerlessConfig"] for variant in variants if "ServerlessConfig" in variant]
    found = {
        "aws:tagkeys": [tag["Key"] for tag in request.get("Tags") or ()] or request.get("TagKeys") or (),
        "sagemaker:vpcsubnets": vpc.get("Subnets", ()),
        "sagemaker:vpcsecuritygroupids": vpc.get("SecurityGroupIds", ()),
        "sagemaker:instancetypes": [v["InstanceType"] for v in variants if "InstanceType" in v],
        "sagemaker:modelarn": [
            partition.arn(MODEL, partition.name_of(MODEL, v["ModelName"])) for v in variants if "ModelName" in v
        ],
        "sagemaker:serverlessmaxconcurrency": [str(s["MaxConcurrency"]) for s in serverless],
        "sagemaker:serverlessmemorysize": [str(s["MemorySizeInMB"]) for s in serverless],
        "sagemaker:volumekmskey": list(_present(request, "KmsKeyId")),
        "sagemaker:networkisolation": [str(on).lower() for on in _present(request, "EnableNetworkIsolation")],
    }
    return context | {key: values for key, values in found.items() if values}


def _present(request: Request, member: str) -> Iterator[Any]:
    if member in request:
        yield request[member]
