"""Model package groups: a name for the versions of a model, the number of the newest, and a policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from clary.api.crud import Amendable, Answer, Request, Spec
from clary.api.identity import user_context
from clary.core.ports import ListQuery
from clary.core.resources import MODEL_PACKAGE, MODEL_PACKAGE_GROUP, Resource
from clary.errors import AwsError, ValidationException
from clary.wire.dispatch import Caller

_POLICY = "_ResourcePolicy"
_NEWEST = "_NewestVersion"
"""Private members of the spec."""


class ModelPackageGroups(Amendable):
    """Create, Describe, List and Delete ModelPackageGroup; Put, Get and Delete ModelPackageGroupPolicy."""

    kind = MODEL_PACKAGE_GROUP
    initial_status: ClassVar[Mapping[str, object]] = {"ModelPackageGroupStatus": "Completed"}

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store the group. It is Completed at once, and who made it is part of its description."""
        return await super().create(caller, {**request, "CreatedBy": await user_context(caller)})

    async def list(self, caller: Caller, request: Request) -> Answer:
        """Give a page of summaries; no other account shares groups with this one."""
        if request.get("CrossAccountFilterOption") == "CrossAccount":
            return {"ModelPackageGroupSummaryList": []}
        return await super().list(caller, request)

    async def delete(self, caller: Caller, request: Request) -> None:
        """Remove the group at once. Raises ConflictException while it has versions."""
        group = await self.get(request["ModelPackageGroupName"])
        of_group = ListQuery(limit=1, members=(("ModelPackageGroupName", group.name),))
        if (await self._store.list(MODEL_PACKAGE, of_group)).resources:
            raise AwsError(
                f"{group.arn} cannot be deleted because it still contains Model Packages",
                code="ConflictException",
                status=400,
            )
        await super().delete(caller, request)

    async def next_version(self, name: str) -> tuple[str, int]:
        """Take a group's next version number, which nobody gets again, and give it with the group's name."""
        group = await self.amend(name, lambda spec: {**spec, _NEWEST: spec.get(_NEWEST, 0) + 1})
        newest: Any = group.spec[_NEWEST]
        return group.name, newest

    async def put_policy(self, caller: Caller, request: Request) -> Answer:
        """Keep a resource policy, which must be a JSON object."""
        policy = request["ResourcePolicy"]
        if not _is_object(policy):
            raise ValidationException("ResourcePolicy must be a JSON object.")
        await self._known(request)
        group = await self.amend(request["ModelPackageGroupName"], lambda spec: {**spec, _POLICY: policy})
        return {"ModelPackageGroupArn": group.arn}

    async def get_policy(self, caller: Caller, request: Request) -> Answer:
        """Give the policy as it was put. Raises ValidationException where there is none."""
        group = await self._known(request)
        if _POLICY not in group.spec:
            raise ValidationException(f"Cannot find resource policy for: {group.arn}")
        return {"ResourcePolicy": group.spec[_POLICY]}

    async def delete_policy(self, caller: Caller, request: Request) -> None:
        """Forget the policy. Raises ValidationException where there is none."""
        await self.get_policy(caller, request)
        await self.amend(request["ModelPackageGroupName"], _without_policy)

    async def _known(self, request: Request) -> Resource:
        # The policy operations have a text of their own for a group that is not there.
        name = self._partition.name_of(self.kind, request["ModelPackageGroupName"])
        group = await self._store.get(self.kind, name)
        if group is None:
            arn = name if name.startswith("arn:") else self._partition.arn(self.kind, name)
            raise ValidationException(f"Cannot find Model Package Group: {arn}")
        return group

    def _summary(self, resource: Resource) -> Answer:
        shown = ("ModelPackageGroupDescription", "ManagedConfiguration")
        return {**super()._summary(resource), **{m: resource.spec[m] for m in shown if m in resource.spec}}


def _without_policy(spec: Spec) -> Spec:
    return {member: value for member, value in spec.items() if member != _POLICY}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
