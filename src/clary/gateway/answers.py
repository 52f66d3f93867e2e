"""What the runtime says when it does not pass an answer on: every error of InvokeEndpoint, word for word where the
real service's words are known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from clary.core import model_error as words
from clary.core.model_error import Owner
from clary.core.resources import Partition
from clary.core.routing import EndpointRoute, VariantRoute
from clary.errors import AwsError
from clary.gateway.connection import status_line

# Member path and largest length of the headers that the runtime's model bounds, and those that may not be empty.
_BOUNDS: Mapping[bytes, tuple[str, int]] = {
    b"content-type": ("contentType", 1024),
    b"accept": ("accept", 1024),
    b"x-amzn-sagemaker-accept": ("accept", 1024),
    b"x-amzn-sagemaker-custom-attributes": ("customAttributes", 1024),
    b"x-amzn-sagemaker-target-model": ("targetModel", 1024),
    b"x-amzn-sagemaker-target-variant": ("targetVariant", 63),
    b"x-amzn-sagemaker-target-container-hostname": ("targetContainerHostname", 63),
    b"x-amzn-sagemaker-inference-id": ("inferenceId", 64),
    b"x-amzn-sagemaker-enable-explanations": ("enableExplanations", 64),
    b"x-amzn-sagemaker-inference-component": ("inferenceComponentName", 63),
    b"x-amzn-sagemaker-session-id": ("sessionId", 256),
}
_NOT_EMPTY = frozenset(
    (b"x-amzn-sagemaker-target-model", b"x-amzn-sagemaker-inference-id", b"x-amzn-sagemaker-enable-explanations")
)
_SESSION_ID = "^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"
_NEW_OR_SESSION_ID = f"^(NEW_SESSION)$|{_SESSION_ID}"


class RuntimeFailure(AwsError):
    """An error of the runtime: its body has an ErrorCode of its own and sometimes more members."""

    def __init__(self, code: str, status: int, message: str, **members: object) -> None:
        super().__init__(message, code=code, status=status)
        self.members = members


def check_headers(headers: Mapping[bytes, bytes]) -> None:
    """Refuse headers of a length that the service model does not allow. Raises AwsError (ValidationError)."""
    items = []
    for name, value in headers.items():
        bound = _BOUNDS.get(name)
        if bound is None:
            continue
        if len(value) > bound[1]:
            items.append(
                f"Value '{value.decode('latin-1')}' at '{bound[0]}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {bound[1]}"
            )
        elif not value and name in _NOT_EMPTY:
            items.append(
                f"Value '' at '{bound[0]}' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            )
    if items:
        plural = "error" if len(items) == 1 else "errors"
        raise validation_error(f"{len(items)} validation {plural} detected: {'; '.join(items)}")


def check_session(session: str, *, may_be_new: bool) -> None:
    """Refuse a session id that the service model does not allow. Raises AwsError (ValidationError)."""
    pattern = _NEW_OR_SESSION_ID if may_be_new else _SESSION_ID
    if re.match(pattern, session) is None:
        raise validation_error(
            f"1 validation error detected: Value '{session}' at 'sessionId' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {pattern}"
        )


def validation_error(message: str, **members: object) -> AwsError:
    """Give the runtime's ValidationError (the control plane says ValidationException)."""
    return RuntimeFailure("ValidationError", 400, message, **members)


def no_such_endpoint(name: str, partition: Partition) -> AwsError:
    return validation_error(
        f"Endpoint {name} of account {partition.account_id} not found.", ErrorCode="NO_SUCH_ENDPOINT"
    )


def not_ready(name: str) -> AwsError:
    return RuntimeFailure(
        "ModelNotReadyException", 429, f"Endpoint {name} is being created. Try again when its status is InService."
    )


def no_multi_model(endpoint: str) -> AwsError:
    """Refuse an invocation that names a model where there is but one."""
    return validation_error(
        f"Endpoint {endpoint} is not a multi-model endpoint and does not support target model header."
    )


def no_target_model(request_id: str) -> AwsError:
    """Refuse an invocation that names no model where there are many. Of the service's words the first are known."""
    return validation_error(
        f"Request {request_id} is missing a target model header. This is a multi-model endpoint: name one of its "
        "models with TargetModel."
    )


def model_not_ready(target_model: str) -> AwsError:
    """Say that a model was not loaded in time; it may still be loading. The service's words are not known."""
    return RuntimeFailure(
        "ModelNotReadyException", 429, f"Model {target_model} is not ready: it is still being loaded. Try again."
    )


def foreign_component() -> AwsError:
    """Refuse the name of an inference component for an endpoint that has models of its own."""
    return validation_error(
        "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference "
        "components. Please remove the Inference Component Name header and try again."
    )


def no_component(route: EndpointRoute, header: bytes | None, partition: Partition) -> AwsError:
    """Say that an invocation names no inference component, or none that serves, of an endpoint that is for them."""
    if header is None:
        return validation_error(
            "Inference Component Name header is required for endpoints to which you plan to deploy inference "
            "components. Please include Inference Component Name header or consider using SageMaker models.",
            ErrorCode="INFERENCE_COMPONENT_NAME_MISSING",
        )
    name = header.decode("latin-1")
    component = (route.components or {}).get(name)
    if component is not None and component.status == "Creating":
        text = f"Inference Component {name} is being created. Try again when its status is InService."
        return RuntimeFailure("ModelNotReadyException", 429, text)
    status = f" Its status is {component.status}; `clary doctor {route.name}` says why." if component else ""
    return validation_error(
        f"Inference Component {name} of endpoint {route.name} of account {partition.account_id} not found.{status}",
        ErrorCode="NO_SUCH_INFERENCE_COMPONENT",
    )


def wrong_mode(endpoint: str, variant: VariantRoute) -> AwsError:
    """Refuse an invocation that names no container where it must (Direct mode), or one where it cannot."""
    if not variant.direct:
        return validation_error(
            f"Endpoint {endpoint} does not run its containers in Direct mode and does not support target container "
            "hostname header."
        )
    return validation_error(
        f"Endpoint {endpoint} runs its containers in Direct mode and requires the target container hostname "
        f"header. Its containers are: {', '.join(variant.direct)}."
    )


def asynchronous_only(name: str) -> AwsError:
    """Refuse to answer at once where the endpoint's configuration says that requests are queued."""
    return validation_error(
        f"Endpoint {name} is an asynchronous endpoint (AsyncInferenceConfig). Invoke it with InvokeEndpointAsync."
    )


def not_asynchronous(name: str) -> AwsError:
    """Refuse to queue a request for an endpoint whose configuration has no AsyncInferenceConfig."""
    return validation_error(
        f"Endpoint {name} is not an asynchronous endpoint: its configuration has no AsyncInferenceConfig. Invoke it "
        "with InvokeEndpoint."
    )


def not_invokable(route: EndpointRoute, partition: Partition) -> AwsError:
    """Refuse an endpoint that will not be ready however long one waits: to the service it does not exist."""
    return validation_error(
        f"Endpoint {route.name} of account {partition.account_id} not found. Its status is {route.status}; "
        f"`clary doctor {route.name}` says why.",
        ErrorCode="NO_SUCH_ENDPOINT",
    )


def nothing_ready(route: EndpointRoute, wanted: bytes | None, container: bytes | None) -> AwsError:
    """Say why nothing was picked: unknown names are the caller's mistake, everything down is ours."""
    if not route.has_capacity:
        return validation_error(
            "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
            "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
        )
    if wanted is not None and wanted.decode("latin-1") not in {variant.name for variant in route.variants}:
        return validation_error(
            f"Variant {wanted.decode('latin-1')} not found for endpoint {route.name}. "
            f"Its variants are: {', '.join(variant.name for variant in route.variants)}."
        )
    name = None if container is None else container.decode("latin-1")
    known = dict.fromkeys(each for variant in route.variants for each in variant.direct)
    if name is not None and known and name not in known:
        return validation_error(
            f"Container {name} not found for endpoint {route.name}. Its containers are: {', '.join(known)}."
        )
    if wanted is None and any(variant.targets for variant in route.variants):
        return validation_error(
            f"Every variant of endpoint {route.name} that could answer has weight 0. Name one with TargetVariant: "
            f"{', '.join(variant.name for variant in route.variants)}."
        )
    what = "instance" if name is None else f"container {name}"
    if route.component:
        what = f"copy of inference component {route.component}"
    return RuntimeFailure(
        "ServiceUnavailable",
        503,
        f"No {what} of endpoint {route.name} is ready; it is being restarted. `clary doctor {route.name}` says why.",
    )


def _model_error(owner: Owner, status: int, original: str, message: str, *, client: bool = False) -> AwsError:
    return RuntimeFailure(
        "ModelError",
        424,
        words.with_pointer(owner, message),
        ErrorCode="CLIENT_ERROR_FROM_MODEL" if client else "INTERNAL_FAILURE_FROM_MODEL",
        LogStreamArn=owner.partition.log_group_arn(owner.log_group),
        OriginalMessage=original,
        OriginalStatusCode=status,
    )


def model_error(owner: Owner, container: str, status: int, body: bytes | None) -> AwsError:
    """Give the ModelError for a container's answer that is not 2xx; without a body, one too large or cut short."""
    original = "" if body is None else body.decode("utf-8", "replace")
    text = words.refused(container, status, body)
    return _model_error(owner, status, original, text, client=words.is_client_error(status))


def hop_too_large(owner: Owner, status: int, message: str) -> AwsError:
    """Give the ModelError for an answer that the next container of a pipeline cannot be given."""
    return _model_error(owner, status, "", message.removesuffix("."))


def not_admitted() -> AwsError:
    """Say that a request has stood in line for as long as a model may take to answer it."""
    return RuntimeFailure(
        "ServiceUnavailable", 503, "No instance had room for this request in time. Try again, or add instances."
    )


def out_of_connections() -> AwsError:
    """Say that this machine has no descriptor, port or memory left for a connection to an instance."""
    return RuntimeFailure(
        "ServiceUnavailable", 503, "This machine has no room for another connection to an instance. Try again."
    )


def timed_out(owner: Owner, container: str) -> AwsError:
    original = words.timed_out(container)
    return _model_error(owner, 0, original, words.refused(container, 0, original.encode()))


def no_answer(owner: Owner, container: str) -> AwsError:
    original = words.no_answer(owner.endpoint)
    return _model_error(owner, 0, original, words.refused(container, 0, original.encode()))


def too_large(limit: int, request_id: str) -> bytes:
    """Give the 413 answer, plain text as the service's front end gives it; the connection is closed after it."""
    text = b"HTTP content length exceeded %d bytes." % limit
    return (
        b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
        b"x-amzn-RequestId: %b\r\nConnection: close\r\n\r\n%b" % (len(text), request_id.encode(), text)
    )


def runtime_error(error: AwsError, request_id: str, *, keep_alive: bool, more: bytes = b"") -> bytes:
    """Give the whole answer for an error: REST-JSON reads the code from the header, raw clients from the body.

    `more`: further headers, each after the end of a line.
    """
    members: dict[str, object] = {"Message": error.message, "message": error.message}
    if isinstance(error, RuntimeFailure):
        members |= error.members
    body = json.dumps(dict(sorted(members.items()))).encode()
    return (
        b"%b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-amzn-RequestId: %b\r\n"
        b"x-amzn-ErrorType: %b%b%b\r\n\r\n%b"
        % (
            status_line(error.status),
            len(body),
            request_id.encode(),
            error.code.encode(),
            more,
            b"" if keep_alive else b"\r\nConnection: close",
            body,
        )
    )
