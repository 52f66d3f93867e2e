"""What tests of several packages share."""

from hypothesis import HealthCheck, settings

from tests.containers import docker_here

__all__ = ["docker_here"]

# How long an example takes says something of the machine's other work and nothing of the code.
settings.register_profile("clary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clary")
