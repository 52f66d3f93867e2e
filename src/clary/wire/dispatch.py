"""From a request to a handler and back: the flat list of steps that every control-plane call takes.

Find the operation, decode, check the constraints, call the handler, encode. Handlers see plain dicts under the wire's
own names and raise `clary.errors`; how an answer or an error looks on the wire is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from botocore.model import OperationModel

from clary.errors import AwsError, InternalFailure, SerializationException, Transient, UnknownOperationException
from clary.telemetry import logger
from clary.wire import codec, constraints, model, query
from clary.wire.failures import (
    FORM_CONTENT_TYPE,
    JSON_CONTENT_TYPE,
    XML_CONTENT_TYPE,
    WireResponse,
    error_response,
    media_type,
)
from clary.wire.failures import headers as answer_headers

_JSON_CONTENT_TYPES = frozenset({JSON_CONTENT_TYPE, "application/x-amz-json-1.0", "application/json", ""})
_COVERAGE = "docs/coverage.md lists what it does."


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, and under which request id the answer and the log speak of it."""

    account_id: str
    region: str
    access_key_id: str
    request_id: str
    session_token: str = ""
    """Of temporary credentials; verified, as the signature is."""
    arn: str = ""
    user_id: str = ""
    """Who that is, once somebody has looked it up."""


Handler = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any] | None]]
"""Takes the decoded input, which satisfies the model's constraints; gives the output, None where there is none."""


class _Call(NamedTuple):
    operation: OperationModel
    handler: Handler


class Dispatcher:
    """Answers the operations that it has handlers for, and explains itself about all others."""

    def __init__(self, handlers: Mapping[tuple[str, str], Handler]) -> None:
        """Take handlers by (service, operation), in botocore's names: ("sagemaker", "CreateModel").

        Raises LookupError for a key that is not in the model, ValueError for one whose protocol is not spoken here.
        """
        self._by_target: dict[str, _Call] = {}
        self._by_action: dict[tuple[str, str], _Call] = {}
        self._service_of_prefix: dict[str, str] = {}
        for (service, name), handler in handlers.items():
            call = _Call(model.operation(service, name), handler)
            metadata = model.service(service).metadata
            match metadata["protocol"]:
                case "json":
                    self._service_of_prefix[metadata["targetPrefix"]] = service
                    self._by_target[f"{metadata['targetPrefix']}.{name}"] = call
                case "query":
                    self._by_action[service, name] = call
                case protocol:
                    raise ValueError(f"{service} {name}: the {protocol} protocol is not spoken here, or not in full")

    async def handle(self, service_hint: str, headers: Mapping[str, str], body: bytes, caller: Caller) -> WireResponse:
        """Answer one POST to `/`; never raises.

        `service_hint` is the service of the credential scope (`sagemaker`, `sts`, `iam`; empty where unsigned). Header
        names are lower case.
        """
        content_type = headers.get("content-type", "")
        try:
            if media_type(content_type) == FORM_CONTENT_TYPE:
                return await self._answer_query(service_hint, body, caller)
            return await self._answer_json(headers.get("x-amz-target", ""), content_type, body, caller)
        except Exception as raised:
            return error_response(_as_aws_error(raised, caller), content_type, caller.request_id)

    async def _answer_json(self, target: str, content_type: str, body: bytes, caller: Caller) -> WireResponse:
        call = self._by_target.get(target)
        if call is None:
            raise self._unknown_target(target)
        if media_type(content_type) not in _JSON_CONTENT_TYPES:
            raise SerializationException(f"The Content-Type must be {JSON_CONTENT_TYPE}.")
        input_shape, output_shape = call.operation.input_shape, call.operation.output_shape
        parameters: dict[str, Any] = {}
        if input_shape is not None:
            parameters = codec.decode(input_shape, codec.parse(body))
            constraints.check(input_shape, parameters)
        result = await call.handler(caller, parameters)
        answer = b"" if output_shape is None else codec.dump(codec.encode(output_shape, result or {}))
        return WireResponse(200, answer_headers(JSON_CONTENT_TYPE, caller.request_id), answer)

    def _unknown_target(self, target: str) -> UnknownOperationException:
        prefix, dot, name = target.rpartition(".")
        if not dot or not prefix or not name:
            return UnknownOperationException("The X-Amz-Target header must name an operation: SageMaker.ListModels.")
        service = self._service_of_prefix.get(prefix)
        if service is None:
            return UnknownOperationException(f"Clary does not implement {target}; {_COVERAGE}")
        if name in model.service(service).operation_names:
            return UnknownOperationException(f"Clary does not implement {name} yet; {_COVERAGE}")
        return UnknownOperationException(f"{prefix} has no operation {name}.")

    async def _answer_query(self, service_hint: str, body: bytes, caller: Caller) -> WireResponse:
        form = query.read_form(body)
        call = self._by_action.get((service_hint or self._service_of(form), form["Action"]))
        if call is None:
            raise query.refusal(service_hint, form)
        parameters: dict[str, Any] = {}
        if (shape := call.operation.input_shape) is not None:
            parameters = query.decode(shape, form)
            constraints.check(shape, parameters, "ValidationError")  # the query protocol's word for it
        result = await call.handler(caller, parameters) or {}
        answer = query.result_document(call.operation, result, caller.request_id)
        return WireResponse(200, answer_headers(XML_CONTENT_TYPE, caller.request_id), answer)

    def _service_of(self, form: Mapping[str, str]) -> str:
        # An unsigned request has no credential scope; action and version say enough.
        for (service, action), call in self._by_action.items():
            if action == form["Action"] and call.operation.service_model.api_version == form.get("Version"):
                return service
        return ""


def _as_aws_error(error: Exception, caller: Caller) -> AwsError:
    """Translate whatever was raised into what the caller is told. What nobody meant to raise is logged."""
    match error:
        case AwsError():
            return error
        case Transient():
            return AwsError(error.message, code="ServiceUnavailable", status=503)
    logger("wire").error("request failed", request_id=caller.request_id, exc_info=error)
    return InternalFailure(f"An internal error has occurred; the log has it under {caller.request_id}.")
