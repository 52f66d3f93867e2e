"""The `context` that a script's functions may take as their last argument.

Its methods are those of AWS's multi-model-server and of TorchServe, which the toolkit and published scripts call. As
there, one context lives as long as the worker, and `idx` is a position in a batch; batches are of one request here.
"""

from __future__ import annotations

from typing import Any

from .messages import Headers, Request


class RequestProcessor:
    """The request's header fields, and the status and header fields of its answer."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._status = 200
        self._phrase = ""
        self._fields: dict[str, str] = {}

    def get_request_properties(self) -> Headers:
        return self._request.headers

    def get_request_property(self, key: str) -> str | None:
        return self._request.headers.get(key)

    def report_status(self, code: int, reason_phrase: str = "") -> None:
        self._status, self._phrase = int(code), reason_phrase

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str:
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        # The toolkit writes `content-type` where scripts write `Content-Type`: the last one wins, whatever its case.
        self._fields = {name: kept for name, kept in self._fields.items() if name.lower() != key.lower()}
        self._fields[key] = str(value)

    def get_response_headers(self) -> dict[str, str]:
        return dict(self._fields)

    def get_response_header(self, key: str) -> str | None:
        return Headers(self._fields).get(key)


class Context:
    """What a worker serves, and the request that it is serving."""

    def __init__(self, model_dir: str) -> None:
        self.model_name = "model"
        self.manifest: dict[str, Any] = {}
        self.metrics = None
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "clary",
        }
        self.request_ids: dict[int, str] = {}
        self.request_processor: list[RequestProcessor] = []
        self.begin(Request(Headers({}), b""))

    def begin(self, request: Request) -> None:
        """Turn to the next request."""
        self.request_ids = {0: request.headers.get("X-Amzn-SageMaker-Inference-Id", "")}
        self.request_processor = [RequestProcessor(request)]

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        return dict(self.request_processor[idx].get_request_properties())

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.request_processor[idx].add_response_property("Content-Type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.request_processor[idx].get_response_header("Content-Type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self.request_processor[idx].get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()
