"""Inference components: models that share the instances of an endpoint whose variants have none of their own.

What is asked for is written down, and the controller is woken: requests wait for nothing. A component keeps its
definition by revisions: an update makes a new one, and the old one stays until it is replaced, or is gone back to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from clary.api import component_specs, quota
from clary.api.crud import AmendableStore, Answer, Crud, Request
from clary.api.endpoints import DEPLOYMENT, Endpoints, Notify
from clary.api.models import Models, deployable
from clary.api.world import World
from clary.core.component import BASE, ENDPOINT_KEY, REVISION, REVISIONS
from clary.core.ports import ListQuery
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, Partition, Resource
from clary.errors import ValidationException
from clary.wire.dispatch import Caller

_NOT_SUPPORTED = (
    "Invalid request provided: Inference Components are not supported in this Endpoint. Please make sure this endpoint "
    "can deploy inference components."
)


class InferenceComponents(Crud):
    """The six operations. Without a `world` the checks beyond the request are left to the deployment."""

    kind = INFERENCE_COMPONENT
    initial_status: ClassVar[Mapping[str, object]] = {"InferenceComponentStatus": "Creating"}

    def __init__(
        self,
        store: AmendableStore,
        partition: Partition,
        models: Models,
        endpoints: Endpoints,
        notify: Notify,
        world: World | None = None,
    ) -> None:
        super().__init__(store, partition)
        self._specs = store
        self._models = models
        self._endpoints = endpoints
        self._notify = notify
        self._world = world

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check the endpoint, the variant and the specification; take a copy of the model."""
        endpoint = await self._endpoints.get(request["EndpointName"])
        variant = _variant(endpoint, request.get("VariantName"))
        state = endpoint.status["EndpointStatus"]
        if state != "InService":
            raise ValidationException(
                f'Cannot create an inference component on endpoint "{endpoint.arn}": its status is {state}, and must '
                "be InService."
            )
        copies = request.get("RuntimeConfig", {}).get("CopyCount", 1)
        if copies < 1:
            raise ValidationException("Please make Inference components copy count an integer larger than 0.")
        definition = await self._definition(request, endpoint, variant)
        if definition is None:
            raise ValidationException("Specify either Specification or Specifications.")
        base = definition["Specification"].get("BaseInferenceComponentName")
        if base is not None:
            await self._check_base(base, endpoint, variant)
            copies = 0  # of its own: it is loaded into those of its base
        await quota.check_copies(self._store, copies, str(variant.get("InstanceType", "")), DEPLOYMENT)
        return {
            **({} if base is None else {BASE: base}),
            "InferenceComponentName": request["InferenceComponentName"],
            "EndpointName": endpoint.name,
            "VariantName": variant["VariantName"],
            ENDPOINT_KEY: endpoint.name.lower(),
            REVISION: 1,
            REVISIONS: {"1": {**definition, "CopyCount": copies}},
        }

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store the component as Creating and wake the controller."""
        answer = await super().create(caller, request)
        self._notify(request["EndpointName"])
        return answer

    async def describe(self, caller: Caller, request: Request) -> Answer:
        """Give what serves, or is to serve first, and how far that is."""
        resource = await self.get(request["InferenceComponentName"])
        spec: Any = resource.spec
        status: Any = resource.status
        number = str(status.get("_Shown", spec[REVISION]))
        shown = spec[REVISIONS].get(number) or spec[REVISIONS][str(spec[REVISION])]
        image = status.get("_Images", {}).get(number)
        answer: Answer = {**spec, **self._summary(resource), **status}
        if "Specifications" in shown:
            answer["Specifications"] = [
                component_specs.summary(each, shown["Model"], image if each == shown["Specification"] else None)
                for each in shown["Specifications"]
            ]
        else:
            answer["Specification"] = component_specs.summary(shown["Specification"], shown["Model"], image)
        if "DeploymentConfig" in spec:
            answer["LastDeploymentConfig"] = spec["DeploymentConfig"]
        answer["RuntimeConfig"] = {
            "DesiredCopyCount": quota.copies(spec),
            "CurrentCopyCount": 0,
            **status.get("RuntimeConfig", {}),
        }
        return answer

    def query(self, request: Request) -> ListQuery:
        """Filter by endpoint and variant too."""
        query = super().query(request)
        members = []
        if (endpoint := request.get("EndpointNameEquals")) is not None:
            members.append((ENDPOINT_KEY, endpoint.lower()))
        if (variant := request.get("VariantNameEquals")) is not None:
            members.append(("VariantName", variant))
        return replace(query, members=tuple(members))

    async def update(self, caller: Caller, request: Request) -> Answer:
        """Make a new revision, or change the number of copies."""
        resource = await self._at_rest(request["InferenceComponentName"])
        spec: Any = resource.spec
        endpoint = await self._endpoints.get(spec["EndpointName"])
        definition = await self._definition(request, endpoint, _variant(endpoint, spec["VariantName"]))
        copies = None if BASE in spec else request.get("RuntimeConfig", {}).get("CopyCount")
        base = None if definition is None else definition["Specification"].get("BaseInferenceComponentName")
        if definition is not None and base != spec.get(BASE):
            raise ValidationException("An update cannot change BaseInferenceComponentName.")
        if definition is None and copies is None:
            raise ValidationException("Specify at least one of Specification, Specifications and RuntimeConfig.")
        changed = _changed(resource, definition, copies)
        if "DeploymentConfig" in request:
            changed["DeploymentConfig"] = request["DeploymentConfig"]
        return await self._amend(resource, changed)

    async def update_runtime_config(self, caller: Caller, request: Request) -> Answer:
        """Change the number of copies."""
        resource = await self._at_rest(request["InferenceComponentName"])
        if BASE in resource.spec:
            raise ValidationException("An adapter inference component has as many copies as its base.")
        return await self._amend(resource, _changed(resource, None, request["DesiredRuntimeConfig"]["CopyCount"]))

    async def delete(self, caller: Caller, request: Request) -> None:
        """Mark the component for deletion, whatever its state, and wake the controller.

        The service refuses while one is Creating or Updating; Clary deliberately does not, as for endpoints.
        """
        resource = await self.get(request["InferenceComponentName"])
        if resource.deleting:
            raise ValidationException(
                f'Cannot delete inference component "{resource.arn}": its status is DELETE_IN_PROGRESS.'
            )
        query = ListQuery(limit=100, members=((BASE, resource.name),))
        if any(not each.deleting for each in (await self._store.list(self.kind, query)).resources):
            raise ValidationException(
                f'Cannot delete inference component "{resource.arn}": it is a base inference component for one or more '
                "associated adapter inference components. Delete them first."
            )
        status = {**resource.status, "InferenceComponentStatus": "Deleting"}
        if await self._store.mark_deleting(self.kind, resource.name, status) is None:
            raise self.not_found(resource.name)
        self._notify(str(resource.spec["EndpointName"]))

    def _summary(self, resource: Resource) -> Answer:
        endpoint = str(resource.spec["EndpointName"])
        return {
            **super()._summary(resource),
            "EndpointName": endpoint,
            "EndpointArn": self._partition.arn(ENDPOINT, endpoint),
            "VariantName": resource.spec["VariantName"],
        }

    async def _at_rest(self, name: str) -> Resource:
        """Give a component that may be updated. Raises ValidationException."""
        resource = await self.get(name)
        state = resource.status["InferenceComponentStatus"]
        if state == "Failed":
            raise ValidationException(
                f'Cannot update inference component "{resource.arn}": its status is Failed, so it can only be deleted.'
            )
        if state != "InService" or resource.deleting:
            raise ValidationException(f'Cannot update in-progress inference component "{resource.arn}".')
        return resource

    async def _amend(self, resource: Resource, spec: Mapping[str, Any]) -> Answer:
        if (more := quota.copies(spec) - quota.copies(resource.spec)) > 0:
            await quota.check_copies(self._store, more, "inference component", DEPLOYMENT)
        amended = await self._specs.replace(resource, spec)
        if amended is None:  # somebody else was faster
            raise ValidationException(f'Cannot update in-progress inference component "{resource.arn}".')
        await self._store.set_status(amended, {**amended.status, "InferenceComponentStatus": "Updating"})
        self._notify(str(spec["EndpointName"]))
        return {"InferenceComponentArn": resource.arn}

    async def _definition(
        self, request: Request, endpoint: Resource, variant: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Check what a request specifies and give what is kept of it; None where it specifies nothing."""
        specification = component_specs.chosen(request, variant.get("InstanceType", ""))
        if specification is None:
            return None
        if "BaseInferenceComponentName" in specification:
            component_specs.check_adapter(specification)
        else:
            component_specs.check(specification)
        if (name := specification.get("ModelName")) is not None:
            model = deployable((await self._models.get(name)).spec)
            component_specs.check_model(name, model)
        else:
            model = component_specs.model_of(specification["Container"])
            if self._world is not None:
                config: Any = endpoint.spec[DEPLOYMENT]
                role = config["EndpointConfig"].get("ExecutionRoleArn", "")
                await self._world.check([model["PrimaryContainer"]], role)
        definition: dict[str, Any] = {"Specification": specification, "Model": model}
        if "Specifications" in request:
            definition["Specifications"] = request["Specifications"]
        return definition

    async def _check_base(self, name: str, endpoint: Resource, variant: Mapping[str, Any]) -> None:
        """Check that there is such a base for an adapter. Raises ValidationException."""
        base = await self.get(name)
        place = (endpoint.name, variant["VariantName"])
        if BASE in base.spec or (base.spec["EndpointName"], base.spec["VariantName"]) != place:
            raise ValidationException(
                f'Inference component "{base.arn}" is no base inference component on variant {place[1]} of endpoint '
                f'"{endpoint.arn}".'
            )
        state = base.status["InferenceComponentStatus"]
        if state not in ("InService", "Updating"):
            raise ValidationException(
                f'Base inference component "{base.arn}" must be InService; its status is {state}.'
            )


def _variant(endpoint: Resource, name: str | None) -> Mapping[str, Any]:
    """Give the variant that a component is to be on. Raises ValidationException."""
    deployment: Any = endpoint.spec[DEPLOYMENT]
    variants: list[Mapping[str, Any]] = deployment["EndpointConfig"]["ProductionVariants"]
    if any("ModelName" in each for each in variants):
        raise ValidationException(_NOT_SUPPORTED)
    names = [each["VariantName"] for each in variants]
    if name is None and len(names) > 1:
        raise ValidationException(f"Specify VariantName: the endpoint has several variants, {', '.join(names)}.")
    if name is not None and name not in names:
        raise ValidationException(f'Endpoint "{endpoint.arn}" has no variant "{name}". It has: {", ".join(names)}.')
    return variants[names.index(name) if name else 0]


def _changed(resource: Resource, definition: Mapping[str, Any] | None, copies: int | None) -> dict[str, Any]:
    """Give the spec with a new revision, or another number of copies of the one that serves."""
    spec: Any = resource.spec
    progress: Any = resource.status.get("_Progress", {})
    serving = str(progress["serving"])
    current = spec[REVISIONS][serving]
    number = current["CopyCount"] if copies is None else copies
    kept = {member: value for member, value in current.items() if member != "CopyCount"}
    if definition is None or definition == kept:
        return {**spec, REVISION: int(serving), REVISIONS: {serving: {**current, "CopyCount": number}}}
    # The number of a revision that failed is not given again: its copies may still be going.
    new = max(spec[REVISION], progress["abandoned"], *map(int, spec[REVISIONS])) + 1
    revisions = {serving: current, str(new): {**definition, "CopyCount": number}}
    return {**spec, REVISION: new, REVISIONS: revisions}
