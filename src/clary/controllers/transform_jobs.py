"""Transform jobs: observe, plan, act. The plan is `core.transform_job`'s, the work the agent's; between them stands the
job's folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never, cast

from clary.controllers.agents import Agents, Hopeless, Means
from clary.controllers.desired import Refused, containers, network_of
from clary.controllers.endpoints import Grace
from clary.controllers.fleet import Fleet, Surroundings
from clary.controllers.health import Ask, Prober
from clary.controllers.loop import Loop
from clary.controllers.routes import Routes, key_of
from clary.core.deployment import Action, Launch, Observed, Remove, Stop, Variant
from clary.core.memory import attempts_of, with_attempts
from clary.core.ports import Engine, ListQuery, ResourceStore
from clary.core.resources import TRANSFORM_JOB, Resource
from clary.core.transform import Outcome, Work, environment_of
from clary.core.transform_job import Job, JobPlan, hops_of, is_ended, plan
from clary.jobfolder import Instances, JobFolder
from clary.telemetry import logger

INTERNAL = "InternalServerError: We encountered an internal error. Please try again."


class TransformJobController:
    """Makes transform jobs be done. Also the place to be told that something has changed."""

    def __init__(
        self,
        store: ResourceStore,
        engine: Engine,
        routes: Routes,
        means: Means,
        grace: Grace,
        ask: Ask | None = None,
    ) -> None:
        self._routes = routes
        self._store = store
        self._folders = means.folders
        self._role = means.role
        self._abandon = means.abandon
        self._grace = grace
        self._clock = time.time
        self._loop = Loop(self._reconcile, self._keys)
        around = Surroundings(time.time, self._loop.notify, _nobody_routes, TRANSFORM_JOB.name)
        self._fleet = Fleet(engine, Prober(self.container_changed, ask), around)
        self._agents = Agents(means, self._loop.notify)
        self._log = logger("transform")

    async def run(self) -> None:
        """Work until cancelled. Containers and agents run on."""
        try:
            await self._loop.run()
        finally:
            self._agents.close()
            await self._fleet.close()

    async def end_agents(self) -> None:
        """End all agents: their jobs go on with the next start."""
        found = self._folders.glob("*/job.json")
        folders = [JobFolder(file.parent) for file in found]
        await self._agents.end_all([(str(folder.job()["key"]), folder) for folder in folders])

    def notify(self, name: str) -> None:
        """Look at this job soon: it was created, or is to stop."""
        self._loop.notify(key_of(name))

    def container_changed(self, id: str) -> None:
        """Look at the job of this container soon. For the engine's `on_change` and the prober."""
        key = self._fleet.endpoint_of(id)
        if key is not None:
            self._loop.notify(key)

    async def _keys(self) -> set[str]:
        keys = await self._fleet.endpoints()
        keys |= {str(JobFolder(file.parent).job()["key"]) for file in self._folders.glob("*/job.json")}
        for status in ("InProgress", "Stopping"):
            after = None
            while True:
                query = ListQuery(sort_by="Name", limit=100, status_equals=status, after=after)
                page = await self._store.list(TRANSFORM_JOB, query)
                keys |= {key_of(resource.name) for resource in page.resources}
                after = page.next
                if after is None:
                    break
        return keys

    async def _reconcile(self, key: str) -> float | None:
        resource = await self._store.get(TRANSFORM_JOB, key)
        if resource is None:
            return None
        job, folder = job_of(resource), self._folder(resource)
        sightings = await self._fleet.sightings(key, _ready(resource), with_logs=True)
        observed = Observed(resource.status, sightings, attempts_of(resource.status))
        decided = plan(job, observed, folder.outcome(), self._clock())
        wake_at = decided.wake_at
        if decided.works:
            try:
                wake_at = await self._have_worked(key, resource, job, decided)
            except Hopeless as error:
                outcome = Outcome("Failed", f"{INTERNAL} ({error.message})")
                decided = plan(job, observed, outcome, self._clock())
        decided = replace(decided, status=with_attempts(decided.status, decided.attempts))
        return await self._carry_out(key, resource, decided, wake_at)

    async def _carry_out(self, key: str, resource: Resource, decided: JobPlan, wake_at: float | None) -> float | None:
        folder = self._folder(resource)
        if not decided.works:
            await self._agents.end(key, folder)
        instances = job_of(resource).instances if decided.works else ()
        self._routes.put_job(key, instances)  # before their containers are launched: then they ask for credentials
        if not await self._write(resource, decided.status):
            self._loop.notify(key)  # it was told to stop meanwhile: decide again, act then
            return None
        for action in decided.actions:
            self._act(action)
        if is_ended(decided.status):
            if decided.is_gone:
                await asyncio.to_thread(self._forget_uploads, resource, folder)
                folder.remove()
                self._fleet.forget(key)
            elif not decided.actions:
                self._loop.notify(key)
        return wake_at

    async def _have_worked(self, key: str, resource: Resource, job: Job, decided: JobPlan) -> float | None:
        """Give the agent what it needs, and see that there is one."""
        folder = self._folder(resource)
        request = {member: value for member, value in resource.spec.items() if not member.startswith("_")}
        folder.create(
            {
                "key": key,
                "name": resource.name,
                "since": int(resource.created_at),
                "instances": job.instances,
                "role": self._role(job.variant.role_arn) if job.variant and job.variant.role_arn else None,
                "request": request,
            }
        )
        started = cast("float", decided.status.get("TransformStartTime", 0.0))
        folder.offer(Instances(started, hops_of(decided.instances)))
        wait = await self._agents.ensure(key, folder)
        if wait is None:
            return decided.wake_at
        return min(each for each in (self._clock() + wait, decided.wake_at) if each is not None)

    async def _write(self, resource: Resource, status: Mapping[str, object]) -> bool:
        if status == resource.status:
            return True
        word = status.get("TransformJobStatus")
        touch = word != resource.status.get("TransformJobStatus")
        if not await self._store.set_status(resource, status, touch=touch):
            return False
        if touch:
            seconds = round(self._clock() - resource.created_at, 3)
            reason = {"reason": status["FailureReason"]} if "FailureReason" in status else {}
            self._log.info("transform job", job=resource.name, phase=word, seconds=seconds, **reason)
        return True

    def _act(self, action: Action) -> None:
        match action:
            case Launch(spec):
                self._fleet.launch(spec)
            case Stop(id, grace):
                self._fleet.stop(id, grace, self._grace.delete if grace == "delete" else self._grace.replace)
            case Remove():
                raise AssertionError("transform jobs stay for ever")
            case _:
                assert_never(action)

    def _forget_uploads(self, resource: Resource, folder: JobFolder) -> None:
        """Leave nothing of outputs that an agent was killed at."""
        work = Work(cast("Mapping[str, Any]", resource.spec))
        try:
            self._abandon(map(work.output_url, folder.keys()), resource.created_at)
        except OSError as error:  # nothing depends on it
            self._log.warning("unfinished uploads of a job are left", job=resource.name, reason=str(error))

    def _folder(self, resource: Resource) -> JobFolder:
        # The creation time keeps a job from taking over what a namesake in an older store has left.
        unique = hashlib.sha256(f"{resource.arn}\n{resource.created_at:.6f}".encode()).hexdigest()[:17]
        return JobFolder(self._folders / f"{resource.name[:40].lower()}-{unique}")


async def _nobody_routes() -> None:
    return


def _ready(resource: Resource) -> frozenset[str]:
    return frozenset(cast("Sequence[str]", resource.status.get("_Ready", ())))


def job_of(resource: Resource) -> Job:
    """Translate a job. Never raises: what is not understood is refused too."""
    variant, refusal, deployment = None, "", ""
    try:
        spec = cast("Mapping[str, Any]", resource.spec)
        variant = _variant(spec, spec["_Model"])
        deployment = hashlib.sha256(json.dumps(spec["_Model"], sort_keys=True).encode()).hexdigest()[:16]
    except Refused as reason:
        refusal = str(reason)
    except Exception as error:  # whatever is wrong with it, the job must end as Failed and not stay InProgress
        refusal = f"Clary does not understand the stored definition of this job ({type(error).__name__}: {error})."
    return Job(
        name=resource.name,
        arn=resource.arn,
        created_at=resource.created_at,
        deployment=deployment,
        variant=variant,
        refusal=refusal,
        stopping=bool(resource.spec.get("_Stop")),
    )


def _variant(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Variant:
    """Give what runs on each instance of a job."""
    resources, more = spec["TransformResources"], environment_of(spec)
    return Variant(
        name="transform",
        containers=tuple(replace(each, environment={**each.environment, **more}) for each in containers(model)),
        instance_type=resources["InstanceType"],
        count=int(resources["InstanceCount"]),
        role_arn=model.get("ExecutionRoleArn"),
        network=network_of(model),
    )
