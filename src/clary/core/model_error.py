"""What is said of a model that did not answer well, in the service's words (live quotes): to whoever waits for an
invocation, and in the failure of an asynchronous one.
"""

from __future__ import annotations

from typing import NamedTuple

from clary.core.resources import Partition, component_log_group, log_group

LARGEST_BODY = 64 * 1024
"""Bytes of a container's error that are passed on."""
HOP_LIMIT = 5 * 1024 * 1024
"""Bytes that one container of a pipeline may hand to the next ("5 MB")."""


def refused(container: str, status: int, body: bytes | None) -> str:
    """Tell of an answer that is not 2xx; without a body, of one that is too large or was cut short."""
    start = f"Received {'client' if is_client_error(status) else 'server'} error ({status}) from {container}"
    if body is None:
        return f"{start} and could not load the entire response body"
    return f'{start} with message "{body.decode("utf-8", "replace")}"'


def is_client_error(status: int) -> bool:
    """Tell whether it is the request that a model's answer complains of."""
    return 400 <= status < 500


def timed_out(container: str) -> str:
    """Tell of a model that took too long."""
    return (
        f"Your invocation timed out while waiting for a response from container {container}. Review the latency "
        "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
    )


def no_answer(endpoint: str) -> str:
    """Tell of a connection that ended before the answer was whole."""
    return (
        f"Amazon SageMaker could not get a response from the {endpoint} endpoint. This can occur when CPU or memory "
        "utilization is high. To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance "
        "type with more CPU capacity or memory."
    )


def hop_too_large(giver: str, status: int, taker: str, size: int) -> str:
    """Tell of an answer of `size` bytes that the next container of a pipeline cannot be given."""
    return (
        f"Received response from {giver} with status code {status}. However, the request payload from {giver} to "
        f"{taker} is {size} bytes, which has exceeded the maximum limit of 5 MB."
    )


class Owner(NamedTuple):
    """Whose model did not answer well."""

    partition: Partition
    endpoint: str
    component: str = ""
    """The inference component, where it was one's."""

    @property
    def log_group(self) -> str:
        return component_log_group(self.component) if self.component else log_group(self.endpoint)


def with_pointer(owner: Owner, message: str) -> str:
    """Add where the log is: at the service, and here."""
    region, account = owner.partition.region, owner.partition.account_id
    return (
        f"{message}. See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:"
        f"group={owner.log_group} in account {account} for more information. "
        f"Here: clary logs {owner.component or owner.endpoint}"
    )
