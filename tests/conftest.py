"""What tests of several packages share."""

from tests.containers import docker_here

__all__ = ["docker_here"]
