"""A model that is a script: AWS's toolkit runs its functions, in the toolkit's own order and with its defaults."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sagemaker_inference import content_types
from sagemaker_inference.transformer import Transformer

from .adapters import Hooks
from .context import Context
from .frameworks import handlers
from .layout import Layout
from .messages import Headers, Request, Response


class ScriptModel:
    """A loaded script. Not for several threads at once: the toolkit keeps one context per transformer."""

    def __init__(self, layout: Layout, framework: str) -> None:
        """Import the script and load its model; what either raises is left to the caller.

        Raises LayoutError where a script is needed, or was named, and is not there.
        """
        defaults = handlers(framework, layout)
        if not layout.has_script and (layout.named or defaults.needs_script):
            raise layout.missing_script()
        sys.path.insert(0, str(layout.code_dir))
        script = importlib.import_module(layout.module) if layout.has_script else None
        self._execution_parameters_fn: Callable[[], Any] | None = getattr(script, "execution_parameters_fn", None)
        self._context = Context(str(layout.model_dir))
        self._transformer = _Transformer(defaults)
        self._transformer.validate_and_initialize(str(layout.model_dir), self._context)
        load, unload = (getattr(script, name, None) for name in ("load_adapter_fn", "unload_adapter_fn"))
        self.adapter_hooks = Hooks(self._transformer.model, load, unload) if load and unload else None

    def invoke(self, request: Request) -> Response:
        """Answer one request; the script's exceptions become the toolkit's own error answer."""
        request = _with_content_type(request)
        self._context.begin(request)
        parts = self._transformer.transform([{"body": request.body}], self._context)
        status, _ = self._context.get_response_status(0)
        # The toolkit names a content type for all that a script returned, whatever its status, and for no exception.
        if self._context.get_response_content_type(0) is None:
            print(parts[0], file=sys.stderr, flush=True)  # noqa: T201 - the model's log is this process's stderr
            return Response.text(status, str(parts[0]))
        return Response(status, _to_bytes(parts[0]), self._context.get_response_headers(0))

    def execution_parameters(self) -> Mapping[str, Any] | None:
        """Give what `GET /execution-parameters` answers, or None where the script does not say."""
        if self._execution_parameters_fn is None:
            return None
        answer = self._execution_parameters_fn()
        # sagemaker-containers wants a JSON text from the function; a plain mapping is what people write.
        parsed: Mapping[str, Any] = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        return parsed


class _Transformer(Transformer):  # type: ignore[misc]  # the toolkit has no types
    """The toolkit's, which makes an error answer of all that a script raises; here but of a lack of memory."""

    @property
    def model(self) -> Any:
        """What `model_fn` gave."""
        return self._model

    def handle_error(self, context: Context, inference_exception: Exception, trace: str) -> Any:
        raised = sys.exc_info()[1]
        if raised is not None and is_out_of_memory(raised):
            raise raised
        return super().handle_error(context, inference_exception, trace)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the memory of the machine or of its accelerator was too small (torch has an error of its own)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _with_content_type(request: Request) -> Request:
    """Take a body without a Content-Type for JSON, as sagemaker-containers does."""
    if request.headers.get("Content-Type"):
        return request
    return Request(Headers({**request.headers, "Content-Type": content_types.JSON}), request.body)


def _to_bytes(part: object) -> bytes:
    """Encode what a script returned; like multi-model-server, anything but text and bytes as JSON."""
    if part is None:
        return b""
    if isinstance(part, str):
        return part.encode("utf-8")
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    return json.dumps(part).encode("utf-8")
