"""What tests of several packages share."""

from hypothesis import HealthCheck, settings

from tests.containers import docker_here

__all__ = ["docker_here"]

# How long an example takes says something of the machine's other work, and how many are drawn in vain is chance.
BY_CHANCE = [check for check in HealthCheck if check is not HealthCheck.function_scoped_fixture]
settings.register_profile("clary", deadline=None, suppress_health_check=BY_CHANCE)
settings.load_profile("clary")
