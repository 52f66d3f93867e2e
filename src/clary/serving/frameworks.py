"""What each framework does for a function that the script leaves out, as AWS's image of that framework does.

The toolkit's transformer calls the `default_*_fn` methods. A framework is imported only where it is used.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
from sagemaker_inference import content_types, decoder, encoder, errors
from sagemaker_inference.utils import parse_accept

from .layout import Layout


def decode(data: Any, content_type: str) -> Any:
    """Decode JSON, CSV, NPY or NPZ into an array."""
    if content_type == content_types.NPY:
        # The toolkit allows pickles here, which would let a caller run code. AWS's images forbid them, and so do we.
        return numpy.load(io.BytesIO(data), allow_pickle=False)
    return decoder.decode(data, content_type)


class Handlers:
    """No framework: the toolkit's bare defaults. Loading and predicting are the script's."""

    needs_script = True

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def default_model_fn(self, model_dir: str) -> Any:
        raise self.layout.missing_function("model_fn(model_dir)")

    def default_input_fn(self, data: Any, content_type: str) -> Any:
        return decode(data, content_type)

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        raise self.layout.missing_function("predict_fn(data, model)")

    def default_output_fn(self, prediction: Any, accept: str) -> Any:
        for content_type in parse_accept(accept):
            if content_type in encoder.SUPPORTED_CONTENT_TYPES:
                return encoder.encode(prediction, content_type), content_type
        raise errors.UnsupportedFormatError(accept)


class ScikitLearn(Handlers):
    def default_input_fn(self, data: Any, content_type: str) -> Any:
        array = decode(data, content_type)
        return array.astype(numpy.float32) if content_type in content_types.UTF8_TYPES else array

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        return model.predict(data)


class XGBoost(Handlers):
    def default_input_fn(self, data: Any, content_type: str) -> Any:
        from .xgboost_algorithm import to_dmatrix

        return to_dmatrix(data.encode() if isinstance(data, str) else data, content_type)

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        return model.predict(data, validate_features=False)


class PyTorch(Handlers):
    needs_script = False

    def default_model_fn(self, model_dir: str) -> Any:
        import torch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.jit.load(str(self._file(Path(model_dir))), map_location=device).eval()

    def _file(self, folder: Path) -> Path:
        for name in ("model.pth", "model.pt"):
            if (folder / name).is_file():
                return folder / name
        files = [path for path in folder.iterdir() if path.suffix in (".pt", ".pth")]
        if len(files) != 1:
            raise self.layout.missing_model("model.pth (TorchScript), nor exactly one other .pth or .pt file")
        return files[0]

    def default_input_fn(self, data: Any, content_type: str) -> Any:
        import torch

        array = decode(data, content_type)
        if content_type in content_types.UTF8_TYPES:
            array = array.astype(numpy.float32)
        return torch.from_numpy(array).to("cuda" if torch.cuda.is_available() else "cpu")

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model(data)

    def default_output_fn(self, prediction: Any, accept: str) -> Any:
        if hasattr(prediction, "detach"):
            prediction = prediction.detach().cpu().numpy()
        return super().default_output_fn(prediction, accept)


# By the end of the class name in the model's config.json, which is all that a folder tells of its task.
TASKS: Mapping[str, str] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "translation",
    "ForImageClassification": "image-classification",
    "ForObjectDetection": "object-detection",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
}


class HuggingFace(Handlers):
    """A transformers pipeline: `HF_TASK` and `HF_MODEL_ID`, else the model's own files."""

    needs_script = False

    def default_model_fn(self, model_dir: str) -> Any:
        import torch
        import transformers

        source = os.environ.get("HF_MODEL_ID") or model_dir
        task = os.environ.get("HF_TASK")
        if not task and source == model_dir:
            task = self._task(Path(model_dir))
        return transformers.pipeline(task=task, model=source, device=0 if torch.cuda.is_available() else -1)

    def _task(self, folder: Path) -> str:
        if not (folder / "config.json").is_file():
            raise self.layout.missing_model("config.json, so HF_MODEL_ID or a model in Hugging Face's format is needed")
        architecture = (json.loads((folder / "config.json").read_text()).get("architectures") or ["none"])[0]
        for ending, task in TASKS.items():
            if architecture.endswith(ending):
                return task
        raise self.layout.missing_model(f"hint of the task (architecture {architecture}); set HF_TASK")

    def default_input_fn(self, data: Any, content_type: str) -> Any:
        if content_type == content_types.JSON:
            return json.loads(data)
        if content_type.startswith("image/"):
            from PIL import Image

            return {"inputs": Image.open(io.BytesIO(data))}
        if content_type.startswith("audio/"):
            return {"inputs": data}
        return {"inputs": decode(data, content_type).tolist()}

    def default_predict_fn(self, data: Any, model: Any) -> Any:
        if not isinstance(data, dict):
            return model(data)
        inputs = data.get("inputs", data)
        parameters = data.get("parameters") or {}
        # Pipelines of several inputs (question-answering) take them by name.
        return model(**inputs, **parameters) if isinstance(inputs, dict) else model(inputs, **parameters)


FRAMEWORKS: Mapping[str, Callable[[Layout], Handlers]] = {
    "none": Handlers,
    "sklearn": ScikitLearn,
    "xgboost": XGBoost,
    "pytorch": PyTorch,
    "huggingface": HuggingFace,
}


def handlers(framework: str, layout: Layout) -> Handlers:
    """Give a framework's defaults. Raises ValueError for a name that is none of ours."""
    if framework not in FRAMEWORKS:
        raise ValueError(f"CLARY_SERVING_FRAMEWORK is {framework!r}; it is one of {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[framework](layout)
