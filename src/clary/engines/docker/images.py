"""From the name of an image to one that is on Docker's disk, once for an endpoint and by its digest from then on.

An image that is present is used as it is, and one that is missing is pulled: so an image that was built here, and that
no registry knows, works, and so does a machine without a network. Who wants a tag anew pulls it with Docker before
creating the endpoint. The exception is an image with a RepositoryCredentialsProviderArn: its registry is asked each
time that an endpoint is created, as the service's new instances do; else a login that was withdrawn would go on
working wherever it had worked once. What is pinned already, and on the disk, needs nobody: a restart must not depend
on a registry.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from clary.core.containers import ContainerSpec, Progress, Repository
from clary.engines.docker import refusals
from clary.engines.docker.daemon import translated
from clary.engines.docker.logins import HelperFailed
from clary.engines.docker.provider import CredentialsProvider
from clary.engines.docker.pulling import Layers
from clary.engines.docker.references import HUB, Reference, parse, repository_of
from clary.engines.docker.registries import Registries
from clary.errors import ClaryError, LaunchFailure, Transient
from clary.telemetry import logger

_log = logger("images")

_NO_CONNECTION = 900
"""What aiodocker gives for a status where nobody answered."""
_LOOK_PATIENCE = 10.0
"""Seconds that CreateModel waits for a registry to say whether it has an image."""
_NARROWER = {"amd64": "386", "arm64": "arm"}
"""What processors run besides their own."""
_EMULATORS = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image that is present."""

    reference: str
    """What to create a container from: the image's id, which no pull moves."""
    resolved: str
    """`repository@sha256:...`, the repository as it was written; the id's where a registry never gave a digest."""
    labels: Mapping[str, str]
    volumes: tuple[str, ...] = ()
    """The paths at which it wants one (VOLUME)."""


@dataclass(slots=True)
class _Resolving:
    """A resolution that all who want the same image wait for."""

    task: asyncio.Task[ResolvedImage]
    listeners: list[Progress] = field(default_factory=list)


class Images:
    """The images of one Docker."""

    def __init__(
        self, docker: aiodocker.Docker, registries: Registries, provider: CredentialsProvider, *, podman: bool = False
    ) -> None:
        """`podman`: what was built here has `localhost/` before its name."""
        self._docker = docker
        self._podman = podman
        self._registries = registries
        self._provider = provider
        self._resolving: dict[tuple[str, str | None, Repository], _Resolving] = {}

    async def resolve(self, spec: ContainerSpec, progress: Progress) -> ResolvedImage:
        """Give the image of a container, pulled where it is missing. Cancelling the last who waits ends the pull.

        Raises LaunchFailure (image), each kind in words of its own, or Transient.
        """
        pin = spec.resolved_image
        if pin is not None and repository_of(pin) != repository_of(spec.image):
            pin = None  # of another engine, which has no digests
        key = (spec.image, pin, spec.repository)
        resolving = self._resolving.get(key)
        if resolving is None:
            told: list[Progress] = []
            work = self._resolve(spec.image, pin, spec.repository, lambda text: [tell(text) for tell in told])
            resolving = self._resolving[key] = _Resolving(asyncio.create_task(work), told)
            resolving.task.add_done_callback(lambda task: self._end(key, task))
        resolving.listeners.append(progress)
        try:
            return await asyncio.shield(resolving.task)
        finally:
            resolving.listeners.remove(progress)
            if not resolving.listeners and not resolving.task.done():
                self._end(key, resolving.task)  # first: who comes now begins anew
                resolving.task.cancel()
                await asyncio.wait({resolving.task})

    async def known(self, image: str, repository: Repository) -> bool | None:
        """Tell whether there is such an image, without pulling it; None where that cannot be found out now."""
        try:
            reference = parse(image)
        except LaunchFailure:
            return False
        try:
            async with asyncio.timeout(_LOOK_PATIENCE):
                if not repository.credentials_provider_arn and await self._present(reference):
                    return True
                answers = [await self._offered(attempt) for attempt in await self._attempts(reference, repository)]
        except (ClaryError, OSError, aiohttp.ClientError) as error:
            _log.info("whether there is an image cannot be told", image=image, reason=str(error) or "it took too long")
            return None
        return True if True in answers else None if None in answers else False

    def _end(self, key: tuple[str, str | None, Repository], task: asyncio.Task[ResolvedImage]) -> None:
        if (resolving := self._resolving.get(key)) is not None and resolving.task is task:
            del self._resolving[key]
        if task.done() and not task.cancelled():
            task.exception()  # seen, also where everybody has gone

    async def _resolve(
        self, image: str, pin: str | None, repository: Repository, progress: Callable[[str], object]
    ) -> ResolvedImage:
        reference = parse(pin or image)
        found = None
        if pin is not None:
            found = await self._present(reference) or await self._by_id(reference)
        elif not repository.credentials_provider_arn:
            found = await self._present(reference)
        if found is None:
            found = await self._pull(reference, repository, progress)
        await self._check_architecture(reference, found)
        config = found.get("Config") or {}
        return ResolvedImage(
            reference=found["Id"],
            resolved=f"{repository_of(image)}@{self._digest(reference, found)}",
            labels=config.get("Labels") or {},
            volumes=tuple(config.get("Volumes") or ()),
        )

    # -- what is here -------------------------------------------------------------------------------------------------

    async def _present(self, reference: Reference) -> dict[str, Any] | None:
        """Look for an image under its own name first: whoever gave it that name on this machine means it."""
        names = [str(name) for name in (reference, *self._registries.places(reference))]
        if self._podman and reference.registry == HUB:
            names.append(f"localhost/{reference.path.removeprefix('library/')}{reference.version}")
        for name in dict.fromkeys(names):
            if (found := await self._inspect(name)) is not None:
                return found
        return None

    async def _by_id(self, pin: Reference) -> dict[str, Any] | None:
        """Look for an image that never was in a registry: it is pinned to its id."""
        assert pin.digest is not None
        found = await self._inspect(pin.digest)
        return found if found is not None and found["Id"] == pin.digest else None

    async def _inspect(self, name: str) -> dict[str, Any] | None:
        with translated(f"looking for {name}"):
            try:
                return await self._docker.images.inspect(name)
            except aiodocker.DockerError as error:
                if error.status == 404:
                    return None
                raise

    def _digest(self, reference: Reference, found: Mapping[str, Any]) -> str:
        """Give the digest under which a registry has the image, else its id.

        Of those that the image has in several registries only the one counts that was asked.
        """
        repositories = {place.repository for place in (reference, *self._registries.places(reference))}
        named = (parse(name) for name in found.get("RepoDigests") or () if "<none>" not in name)
        digests = [name.digest for name in named if name.repository in repositories and name.digest]
        return reference.digest or (digests[0] if digests else found["Id"])

    async def _check_architecture(self, reference: Reference, found: Mapping[str, Any]) -> None:
        """Refuse an image that could only end with `exec format error`.

        Where Docker's kernel is not ours (Docker Desktop and the like) it may emulate others: the start will show.
        """
        architecture = str(found.get("Architecture") or "")
        image = f"{found.get('Os')}/{architecture}"
        with translated("asking for the version"):
            version = await self._docker.version()
        machine = f"{version['Os']}/{version['Arch']}"
        if not architecture or image == machine or architecture == _NARROWER.get(version["Arch"]):
            return
        if version.get("KernelVersion") == platform.release() and not _emulates(architecture):
            raise refusals.wrong_architecture(reference, image, machine)

    # -- what is elsewhere --------------------------------------------------------------------------------------------

    async def _attempts(self, reference: Reference, repository: Repository) -> list[refusals.Attempt]:
        """Give where to ask, and with what."""
        places = self._registries.places(reference)
        if arn := repository.credentials_provider_arn:
            # Meant for that one registry: a mirror is not shown them.
            return [refusals.Attempt(places[-1], await self._provider.login(arn))]
        return [await self._attempt(place) for place in places]

    async def _attempt(self, place: Reference) -> refusals.Attempt:
        try:
            return refusals.Attempt(place, await self._registries.login(place))
        except HelperFailed as error:  # the image may be public; if not, this is why
            _log.warning("a registry is asked without a login", registry=place.registry, reason=str(error))
            return refusals.Attempt(place, note=str(error))

    async def _pull(
        self, reference: Reference, repository: Repository, progress: Callable[[str], object]
    ) -> dict[str, Any]:
        """Pull from the first place that has it. Raises what the last said, the real one after its mirrors."""
        failed: ClaryError | None = None
        for attempt in await self._attempts(reference, repository):
            try:
                await self._pull_from(attempt, progress)
                found = await self._inspect(str(attempt.place))
                if found is not None:
                    return found
                failed = Transient(f"Docker ended the pull of {attempt.place} without a word")
            except (LaunchFailure, Transient) as error:
                _log.info("an image could not be pulled", image=str(attempt.place), reason=error.message)
                failed = error
        assert failed is not None
        raise failed

    async def _pull_from(self, attempt: refusals.Attempt, progress: Callable[[str], object]) -> None:
        progress("pull")
        layers = Layers()
        place = attempt.place
        query = self._docker._query(
            "images/create",
            "POST",
            params={"fromImage": place.repository, "tag": place.digest or place.tag},
            headers=_authorization(attempt),
            timeout=aiohttp.ClientTimeout(),  # of a registry that hangs Docker takes care
        )
        # Not images.pull: it leaves the connection open, and Docker at work, when it is cancelled; it takes a Docker
        # that dies for the end of the pull; and its address for Docker Hub is one that newer Dockers do not know.
        try:
            async with query as response:
                try:
                    async for line in response.content:
                        told = json.loads(line)
                        if "error" in told:
                            raise refusals.failure(attempt, str(told["error"]))
                        if text := layers.note(told):
                            progress(text)
                finally:
                    response.close()
        except aiodocker.DockerError as error:
            if error.status == _NO_CONNECTION:
                raise Transient(f"Docker does not answer: {error.message}", retry_after=5.0) from error
            raise refusals.failure(attempt, error.message) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Transient(f"Docker broke off the pull of {place}: {error or type(error).__name__}") from error

    async def _offered(self, attempt: refusals.Attempt) -> bool | None:
        """Ask the registry, through Docker: it knows of certificates and proxies that we do not."""
        try:
            await self._docker._query_json(f"distribution/{attempt.place}/json", headers=_authorization(attempt))
        except aiodocker.DockerError as error:
            # Its text, not only its 404: Podman has no such question and answers 404 to it.
            return False if error.status == 404 and refusals.is_missing(error.message) else None
        return True


def _authorization(attempt: refusals.Attempt) -> dict[str, str]:
    return {} if attempt.login is None else {"X-Registry-Auth": attempt.login.header(attempt.place.registry)}


def _emulates(architecture: str) -> bool:
    names = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386"}
    return (_EMULATORS / f"qemu-{names.get(architecture, architecture)}").exists()
