"""Endpoints: CreateEndpoint and DeleteEndpoint write what is wanted and wake the controller; they wait for nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from clary.api import quota
from clary.api.crud import Answer, Crud, Request
from clary.api.endpoint_configs import EndpointConfigs, model_names
from clary.api.models import Models, deployable
from clary.core.component import ENDPOINT_KEY
from clary.core.ports import ListQuery, ResourceStore
from clary.core.resources import ENDPOINT, INFERENCE_COMPONENT, Partition, Resource
from clary.errors import ValidationException
from clary.wire.dispatch import Caller

Notify = Callable[[str], None]
"""Told the name of an endpoint of which something else is wanted now."""

DEPLOYMENT = "_Deployment"
"""Private member of the spec: the configuration and the models as they were when the endpoint was created, so that
deleting those breaks nothing that runs. `{"EndpointConfig": {...}, "Models": {name: {...}}}`"""

_FROM_CONFIG = ("AsyncInferenceConfig", "ExplainerConfig", "MetricsConfig", "CrossRegionTrafficConfig")
"""Members of the configuration that DescribeEndpoint repeats as they are."""
_FROM_VARIANT = ("ManagedInstanceScaling", "RoutingConfig")
"""The same for a variant."""


class Endpoints(Crud):
    """CreateEndpoint, DescribeEndpoint, ListEndpoints, DeleteEndpoint."""

    kind = ENDPOINT
    initial_status: ClassVar[Mapping[str, object]] = {"EndpointStatus": "Creating"}

    def __init__(
        self,
        store: ResourceStore,
        partition: Partition,
        models: Models,
        configs: EndpointConfigs,
        notify: Notify,
    ) -> None:
        super().__init__(store, partition)
        self._models = models
        self._configs = configs
        self._notify = notify

    async def prepare(self, request: Request) -> dict[str, object]:
        """Check the deployment policy and that the configuration and its models exist, and keep a copy of them."""
        if {"BlueGreenUpdatePolicy", "RollingUpdatePolicy"} <= request.get("DeploymentConfig", {}).keys():
            raise ValidationException("Specify either BlueGreenUpdatePolicy or RollingUpdatePolicy, not both.")
        config = (await self._configs.get(request["EndpointConfigName"])).spec
        models = {name: deployable((await self._models.get(name)).spec) for name in model_names(config)}
        deployment = {"EndpointConfig": config, "Models": models}
        await quota.check(self._store, deployment, DEPLOYMENT)
        return {**request, DEPLOYMENT: deployment}

    async def create(self, caller: Caller, request: Request) -> Answer:
        """Store the endpoint as Creating and wake the controller."""
        answer = await super().create(caller, request)
        self._notify(request["EndpointName"])
        return answer

    async def describe(self, caller: Caller, request: Request) -> Answer:
        """Give what was created, what its configuration says of the whole endpoint, and the status."""
        resource = await self.get(request["EndpointName"])
        deployment: Any = resource.spec[DEPLOYMENT]
        config = deployment["EndpointConfig"]
        answer: Answer = {member: config[member] for member in _FROM_CONFIG if member in config}
        if capture := config.get("DataCaptureConfig"):
            answer["DataCaptureConfig"] = _capture_summary(capture)
        policy = resource.spec.get("DeploymentConfig")
        if policy is not None and resource.status["EndpointStatus"] != "Creating":
            answer["LastDeploymentConfig"] = policy
        status = {**resource.status, **_with_routing(resource.status, config)}
        return {**answer, **resource.spec, **self._summary(resource), **status}

    async def delete(self, caller: Caller, request: Request) -> None:
        """Mark the endpoint for deletion, whatever its state, and wake the controller.

        The service refuses while an endpoint is Creating, Updating or Deleting, which leaves people waiting for
        something that they no longer want. Clary deliberately does not; but inference components go first.
        """
        resource = await self.get(request["EndpointName"])
        await self._check_components(resource)
        if not resource.deleting:
            status = {**resource.status, "EndpointStatus": "Deleting"}
            if await self._store.mark_deleting(self.kind, resource.name, status) is None:
                raise self.not_found(resource.name)
        self._notify(resource.name)

    async def _check_components(self, endpoint: Resource) -> None:
        """Refuse to delete what inference components are on, but for those that are being deleted themselves."""
        query = ListQuery(sort_by="Name", descending=False, limit=100, members=((ENDPOINT_KEY, endpoint.name.lower()),))
        found = (await self._store.list(INFERENCE_COMPONENT, query)).resources
        if names := [each.name for each in found if not each.deleting]:
            raise ValidationException(
                f'Cannot delete endpoint "{endpoint.arn}": delete its inference components first: {", ".join(names)}.'
            )


def _with_routing(status: Mapping[str, Any], config: Mapping[str, Any]) -> Answer:
    """Give the status's variants, with what their configuration says and DescribeEndpoint repeats."""
    told: Answer = {}
    for member in ("ProductionVariants", "ShadowProductionVariants"):
        given = {each["VariantName"]: each for each in config.get(member) or ()}
        if member in status:
            told[member] = [
                {**each, **{m: v for m, v in given.get(each["VariantName"], {}).items() if m in _FROM_VARIANT}}
                for each in status[member]
            ]
    return told


def _capture_summary(config: Mapping[str, Any]) -> Answer:
    """Give the summary shape, all of whose members are required: a key that is not set is an empty string."""
    enabled = config.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
