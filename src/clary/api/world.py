"""What CreateModel checks beyond its request, at once as the service does: that the artifact is there and can be read,
and that the image is known.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from clary.api.definition import Container, data_sources
from clary.core.ports import Repository
from clary.errors import ValidationException
from clary.objects import ObjectNotFound, ObjectRefused

_REGION = re.compile(r"https://(?:[^/]+\.)?s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com(?:\.cn)?/.*")


class Artifacts(Protocol):
    """Looks at objects by URL. Both raise ObjectRefused and Transient."""

    async def head(self, url: str) -> object:
        """Look at one object. Raises ObjectNotFound."""
        ...

    async def any_below(self, url: str) -> bool:
        """Tell whether there is an object whose key begins with the URL's."""
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
        for container in containers:
            image = container.get("Image")
            if image is None:
                continue
            if await self.knows_image(image, Repository.of(container.get("ImageConfig"))) is False:
                raise ValidationException(f"Requested image {image} not found.")

    async def _check_data(self, url: str, is_prefix: bool, role: str) -> None:
        elsewhere = _REGION.fullmatch(url)
        if (elsewhere and elsewhere[1] != self.region) or not self.may_read(role, url, is_prefix):
            raise _no_access(url, role, self.region)
        try:
            if is_prefix:
                found = await self.artifacts.any_below(url)
            else:
                await self.artifacts.head(url)
                found = True
        except ObjectNotFound:
            found = False
        except ObjectRefused as error:
            if url.startswith("s3://"):
                raise _no_access(url, role, self.region) from error
            # The sentence about roles would not help with a file or a foreign host.
            raise ValidationException(f"Could not access model data at {error.message}.") from error
        if not found:
            raise ValidationException(f"Could not find model data at {url}.")


def locations(container: Container) -> Iterator[tuple[str, bool]]:
    """Give each URL that the container loads from, and whether it is a prefix of keys."""
    if "ModelDataUrl" in container:
        yield container["ModelDataUrl"], container.get("Mode") == "MultiModel"
    for s3 in data_sources(container):
        yield s3["S3Uri"], s3["S3DataType"] == "S3Prefix"
        if "ManifestS3Uri" in s3:
            yield s3["ManifestS3Uri"], False


def _no_access(url: str, role: str, region: str) -> ValidationException:
    return ValidationException(
        f'Could not access model data at {url}. Please ensure that the role "{role}" exists and that its trust '
        'relationship policy allows the action "sts:AssumeRole" for the service principal "sagemaker.amazonaws.com". '
        f'Also ensure that the role has "s3:GetObject" permissions and that the object is located in {region}. If your '
        "Model uses multiple models or uncompressed models, please ensure that the role has "
        '"s3:ListBucket" permission.'
    )
