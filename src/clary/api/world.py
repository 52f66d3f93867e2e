"""What CreateModel checks beyond its request, at once as the service does: that the artifact is there and can be read,
and that the image is known.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from clary.api.definition import Container, data_sources
from clary.core.containers import Repository
from clary.core.manifest import LARGEST, ManifestRefused, chosen
from clary.errors import LaunchFailure, ValidationException
from clary.objecterrors import AccessRefused, ObjectNotFound, ObjectRefused

_REGION = re.compile(r"https://(?:[^/]+\.)?s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com(?:\.cn)?/.*")


class Artifacts(Protocol):
    """Looks at objects by URL. All raise ObjectRefused, and but for `canonical` Transient."""

    def canonical(self, url: str) -> str:
        """Give the URL as policies know it."""
        ...

    async def head(self, url: str) -> object:
        """Look at one object. Raises ObjectNotFound."""
        ...

    async def any_below(self, url: str) -> bool:
        """Tell whether there is an object whose key begins with the URL's."""
        ...

    async def below(self, url: str) -> Sequence[tuple[str, str, object]]:
        """Give the objects whose keys begin with the URL's, each by its URL first."""
        ...

    async def read(self, url: str, limit: int) -> bytes:
        """Give an object of at most `limit` bytes whole. Raises ObjectNotFound."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """What lies outside the control plane, as far as CreateModel looks at it."""

    artifacts: Artifacts
    knows_image: Callable[[str, Repository], Awaitable[bool | None]]
    """Whether the engine can have it; None, where that cannot be told, is taken on trust."""
    region: str
    may_read: Callable[[str, str, bool], bool] = lambda role, url, is_prefix: True
    """Whether a role's policies let it read a URL, or what is below it."""

    async def check(self, containers: Iterable[Container], role: str) -> None:
        """Check data before images, which is the order that the service was seen to have.

        `role` is the execution role, or empty. Raises ValidationException, or Transient where the object store
        does not answer.
        """
        containers = list(containers)
        for container in containers:
            for url, is_prefix in locations(container):
                await self._check_data(url, is_prefix, role)
            for s3 in data_sources(container):
                if "ManifestS3Uri" in s3:
                    await self._check_manifest(s3, role)
        for container in containers:
            image = container.get("Image")
            if image is None:
                continue
            await self._check_image(image, Repository.of(container.get("ImageConfig")))

    async def _check_data(self, url: str, is_prefix: bool, role: str) -> None:
        elsewhere = _REGION.fullmatch(url)
        if elsewhere and elsewhere[1] != self.region:
            raise self._no_access(url, role)
        with self._wording(url, role):
            if not self.may_read(role, self.artifacts.canonical(url), is_prefix):
                raise self._no_access(url, role)
            if not is_prefix:
                await self.artifacts.head(url)
            elif not await self.artifacts.any_below(url):
                raise ObjectNotFound(url)

    async def _check_image(self, image: str, repository: Repository) -> None:
        try:
            known = await self.knows_image(image, repository)
        except LaunchFailure as refused:
            raise ValidationException(f"Requested image {image} not found. {refused.message}") from refused
        if known is False:
            raise ValidationException(f"Requested image {image} not found.")

    async def _check_manifest(self, s3: Mapping[str, Any], role: str) -> None:
        """Check that a manifest, which was found to be there, chooses among what is there."""
        url, prefix = s3["ManifestS3Uri"], s3["S3Uri"]
        with self._wording(url, role):
            manifest = await self.artifacts.read(url, LARGEST)
            there = {found for found, *_ in await self.artifacts.below(prefix)}
            chosen(manifest, url, prefix, there, self.artifacts.canonical)

    @contextmanager
    def _wording(self, url: str, role: str) -> Iterator[None]:
        """Say in the service's words what is wrong with the data at a URL."""
        try:
            yield
        except ObjectNotFound as error:
            raise ValidationException(f"Could not find model data at {url}.") from error
        except AccessRefused as error:
            raise self._no_access(url, role) from error
        except (ObjectRefused, ManifestRefused) as error:
            # The sentence about roles would not help with a file, a foreign host or a key that is none.
            raise ValidationException(f"Could not access model data at {error.message}.") from error

    def _no_access(self, url: str, role: str) -> ValidationException:
        return ValidationException(
            f'Could not access model data at {url}. Please ensure that the role "{role}" exists and that its trust '
            'relationship policy allows the action "sts:AssumeRole" for the service principal '
            '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the object '
            f"is located in {self.region}. If your Model uses multiple models or uncompressed models, please ensure "
            'that the role has "s3:ListBucket" permission.'
        )


def locations(container: Container) -> Iterator[tuple[str, bool]]:
    """Give each URL that the container loads from, and whether it is a prefix of keys."""
    if "ModelDataUrl" in container:
        yield container["ModelDataUrl"], container.get("Mode") == "MultiModel"
    for s3 in data_sources(container):
        yield s3["S3Uri"], s3["S3DataType"] == "S3Prefix"
        if "ManifestS3Uri" in s3:
            yield s3["ManifestS3Uri"], False
