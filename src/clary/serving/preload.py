"""What is imported before there is a model. Also a script, which a new environment runs once: what Python compiles
then, the first model that is served from it need not wait for.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

ALWAYS = ("sagemaker_inference.transformer", "gunicorn.app.base", "gunicorn.workers.gthread")
FRAMEWORKS = {
    "sklearn": ("joblib", "sklearn.ensemble", "sklearn.pipeline"),
    "xgboost": ("xgboost",),
    "pytorch": ("torch",),
    "huggingface": ("torch", "transformers"),
}


def preload(framework: str) -> None:
    """Import the toolkit and the framework. What is missing is for the model to report, if it needs it at all."""
    for module in (*ALWAYS, *FRAMEWORKS.get(framework, ())):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


if __name__ == "__main__":
    preload(*sys.argv[1:])
