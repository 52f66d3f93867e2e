"""From a request to a handler and back: the flat list of steps that every control-plane call takes.

Find the operation, decode, check the constraints, call the handler, encode. Handlers see plain dicts under the wire's
own names and raise `clary.errors`; how an answer or an error looks on the wire is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from botocore.model import OperationModel

from clary.errors import AwsError, InternalFailure, SerializationException, Transient, UnknownOperationException
from clary.telemetry import logger
from clary.wire import cbor, codec, constraints, model, query
from clary.wire.failures import (
    CBOR_CONTENT_TYPE,
    FORM_CONTENT_TYPE,
    JSON_CONTENT_TYPE,
    XML_CONTENT_TYPE,
    WireResponse,
    error_response,
    media_type,
)
from clary.wire.failures import headers as answer_headers

_JSON_CONTENT_TYPES = frozenset({JSON_CONTENT_TYPE, "application/x-amz-json-1.0", "application/json", ""})
_SPOKEN = frozenset({"json", "query", "smithy-rpc-v2-cbor"})
_COVERAGE = "docs/coverage.md lists what it does."
_WORDS = {"logs": "InvalidParameterException"}
"""What services call a broken constraint that have a word of their own for it."""


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
    source_ip: str = ""
    secure: bool = False
    user_agent: str = ""
    """Whence, whether over TLS, and by which program, as policies may ask."""


Handler = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any] | None]]
"""Takes the decoded input, which satisfies the model's constraints; gives the output, None where there is none."""


class _Call(NamedTuple):
    operation: OperationModel
    handler: Handler

    async def answer(self, caller: Caller, parameters: dict[str, Any]) -> dict[str, Any]:
        """Check the decoded input and ask the handler."""
        if (shape := self.operation.input_shape) is not None:
            # What speaks or once spoke the query protocol has its word for it.
            by_query = "query" in _protocols(self.operation.service_model.metadata)
            word = "ValidationError" if by_query else "ValidationException"
            constraints.check(shape, parameters, _WORDS.get(self.operation.service_model.service_name, word))
        return await self.handler(caller, parameters) or {}


class Dispatcher:
    """Answers the operations that it has handlers for, and explains itself about all others."""

    def __init__(self, handlers: Mapping[tuple[str, str], Handler]) -> None:
        """Take handlers by (service, operation), in botocore's names: ("sagemaker", "CreateModel").

        A service that speaks several protocols is answered in each. Raises LookupError for a key that is not in the
        model, ValueError for one none of whose protocols is spoken here.
        """
        self._by_target: dict[str, _Call] = {}
        self._by_path: dict[tuple[str, str], _Call] = {}
        self._by_action: dict[tuple[str, str], _Call] = {}
        self._service_of_prefix: dict[str, str] = {}
        for (service, name), handler in handlers.items():
            call = _Call(model.operation(service, name), handler)
            metadata = model.service(service).metadata
            prefix = metadata.get("targetPrefix", "")
            protocols = _protocols(metadata)
            if not protocols & _SPOKEN:
                raise ValueError(f"{service} {name}: {metadata['protocol']} is not spoken here, or not in full")
            if "json" in protocols:
                self._service_of_prefix[prefix] = service
                self._by_target[f"{prefix}.{name}"] = call
            if "query" in protocols:
                # By the name that requests are signed for, which is what a request says of its service.
                self._by_action[metadata.get("signingName", metadata["endpointPrefix"]), name] = call
            if "smithy-rpc-v2-cbor" in protocols:
                self._service_of_prefix[prefix] = service
                self._by_path[prefix, name] = call

    async def handle(
        self, service_hint: str, headers: Mapping[str, str], body: bytes, caller: Caller, path: str = "/"
    ) -> WireResponse:
        """Answer one POST, to `/` or to a path that names service and operation; never raises.

        `service_hint` is the service of the credential scope (`sagemaker`, `sts`, `iam`; empty where unsigned). Header
        names are lower case.
        """
        content_type = headers.get("content-type", "")
        call: _Call | None = None
        try:
            if headers.get("smithy-protocol") == cbor.PROTOCOL:
                content_type = content_type or CBOR_CONTENT_TYPE  # an operation without input has no body
                call = self._call_of(path)
                return await self._answer_cbor(call, content_type, body, caller)
            if media_type(content_type) == FORM_CONTENT_TYPE:
                return await self._answer_query(service_hint, body, caller)
            target = headers.get("x-amz-target", "")
            call = self._by_target.get(target)
            return await self._answer_json(target, content_type, body, caller)
        except Exception as raised:
            error = _as_aws_error(raised, caller)
            if call is not None and "awsQueryCompatible" in call.operation.service_model.metadata:
                return _query_compatible(call.operation, error, content_type, caller.request_id)
            return error_response(error, content_type, caller.request_id)

    async def _answer_json(self, target: str, content_type: str, body: bytes, caller: Caller) -> WireResponse:
        call = self._by_target.get(target)
        if call is None:
            raise self._unknown_target(target)
        if media_type(content_type) not in _JSON_CONTENT_TYPES:
            raise SerializationException(f"The Content-Type must be {JSON_CONTENT_TYPE}.")
        input_shape, output_shape = call.operation.input_shape, call.operation.output_shape
        parameters = {} if input_shape is None else codec.decode(input_shape, codec.parse(body))
        result = await call.answer(caller, parameters)
        answer = b"" if output_shape is None else codec.dump(codec.encode(output_shape, result))
        version = call.operation.service_model.metadata["jsonVersion"]
        return WireResponse(200, answer_headers(f"application/x-amz-json-{version}", caller.request_id), answer)

    def _call_of(self, path: str) -> _Call:
        found = cbor.target(path)
        if found is None:
            raise UnknownOperationException("The path must be /service/<service>/operation/<operation>.")
        call = self._by_path.get(found)
        if call is None:
            raise self._unknown_target(".".join(found))
        return call

    async def _answer_cbor(self, call: _Call, content_type: str, body: bytes, caller: Caller) -> WireResponse:
        if media_type(content_type) != CBOR_CONTENT_TYPE:
            raise SerializationException(f"The Content-Type must be {CBOR_CONTENT_TYPE}.")
        input_shape, output_shape = call.operation.input_shape, call.operation.output_shape
        parameters = {} if input_shape is None else cbor.decode(input_shape, cbor.parse(body))
        result = await call.answer(caller, parameters)
        answer = b"" if output_shape is None else cbor.dump(cbor.encode(output_shape, result))
        return WireResponse(200, answer_headers(CBOR_CONTENT_TYPE, caller.request_id), answer)

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
        shape = call.operation.input_shape
        parameters = {} if shape is None else query.decode(shape, form)
        result = await call.answer(caller, parameters)
        answer = query.result_document(call.operation, result, caller.request_id)
        return WireResponse(200, answer_headers(XML_CONTENT_TYPE, caller.request_id), answer)

    def _service_of(self, form: Mapping[str, str]) -> str:
        # An unsigned request has no credential scope; action and version say enough.
        for (service, action), call in self._by_action.items():
            if action == form["Action"] and call.operation.service_model.api_version == form.get("Version"):
                return service
        return ""


def _protocols(metadata: Mapping[str, Any]) -> set[str]:
    return {*metadata.get("protocols", ()), metadata["protocol"]}


def _query_compatible(operation: OperationModel, error: AwsError, content_type: str, request_id: str) -> WireResponse:
    """Write an error of a service that once spoke the query protocol alone.

    Its errors have two names: that of the shape, and the older one of the query protocol, by which handlers raise them
    and which old programs look for. It goes into a header of its own.
    """
    by_code = {shape.error_code: shape.name for shape in operation.error_shapes}
    named = AwsError(error.message, code=by_code.get(error.code, error.code), status=error.status)
    response = error_response(named, content_type, request_id)
    fault = "Sender" if error.status < 500 else "Receiver"
    return replace(response, headers={**response.headers, "x-amzn-query-error": f"{error.code};{fault}"})


def _as_aws_error(error: Exception, caller: Caller) -> AwsError:
    """Translate whatever was raised into what the caller is told. What nobody meant to raise is logged."""
    match error:
        case AwsError():
            return error
        case Transient():
            return AwsError(error.message, code="ServiceUnavailable", status=503)
    logger("wire").error("request failed", request_id=caller.request_id, exc_info=error)
    return InternalFailure(f"An internal error has occurred; the log has it under {caller.request_id}.")
