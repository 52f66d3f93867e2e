"""XGBoost in algorithm mode: a Booster and no script, answering as AWS's xgboost image does.

The statuses are the image's: 204 for an empty body, 415 for one that cannot be read, 400 for one that cannot be
evaluated, 406 for an Accept that it does not write.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import xgboost
from scipy.sparse import csr_matrix

from .layout import Layout
from .messages import Request, Response

CSV = "text/csv"
LIBSVM = ("text/libsvm", "text/x-libsvm")
JSON = "application/json"
JSON_LINES = "application/jsonlines"
# The first byte of every pickle since protocol 2; XGBoost's own formats begin otherwise.
PICKLE = b"\x80"


class XGBoostModel:
    """The model's one file, or `xgboost-model` where there are several."""

    adapter_hooks = None

    def __init__(self, layout: Layout) -> None:
        self._booster = _load(_model_file(layout))
        # Every worker is a process of its own; the workers share the CPUs out among themselves.
        self._booster.set_param({"nthread": int(os.environ.get("OMP_NUM_THREADS") or 1)})
        self._batch = bool(os.environ.get("SAGEMAKER_BATCH"))
        self._default_accept = os.environ.get("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT") or CSV

    def invoke(self, request: Request) -> Response:
        if not request.body:
            return Response(204)
        try:
            rows = to_dmatrix(request.body, request.headers.get("Content-Type") or LIBSVM[0])
        except Exception as error:  # whatever the parser finds wrong is the caller's format
            return Response.text(415, f"Unable to read the payload: {error}")
        accept = (request.headers.get("Accept") or "*/*").split(";")[0].strip().lower()
        accept = self._default_accept if accept == "*/*" else accept
        if accept not in (CSV, JSON, JSON_LINES):
            return Response.text(406, f"Accept type {accept} is not supported; {CSV}, {JSON} and {JSON_LINES} are.")
        try:
            scores = self._booster.predict(rows, validate_features=False).tolist()
        except Exception as error:  # the image blames the payload for whatever predict raises
            return Response.text(400, f"Unable to evaluate payload provided: {error}")
        return Response(200, self._encode(scores, accept).encode(), {"Content-Type": accept})

    def execution_parameters(self) -> Mapping[str, Any] | None:
        workers = int(os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS") or os.cpu_count() or 1)
        return {"MaxConcurrentTransforms": workers, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}

    def _encode(self, scores: list[Any], accept: str) -> str:
        if accept == JSON:
            return json.dumps({"predictions": [{"score": score} for score in scores]})
        if accept == JSON_LINES:
            return "".join(json.dumps({"score": score}) + "\n" for score in scores)
        rows = [",".join(map(str, score)) if isinstance(score, list) else str(score) for score in scores]
        # A transform job wants one record per line; the real-time answer of the image is a single line.
        return "".join(row + "\n" for row in rows) if self._batch else ("\n" if "," in rows[0] else ",").join(rows)


def to_dmatrix(body: bytes, content_type: str) -> xgboost.DMatrix:
    """Read CSV without a header, or LIBSVM with labels. Raises ValueError for other types and for bad rows."""
    media_type = content_type.split(";")[0].strip().lower()
    lines = [line for line in body.decode("utf-8").splitlines() if line.strip()]
    if media_type == CSV:
        rows = [[float(cell) if cell.strip() else numpy.nan for cell in line.split(",")] for line in lines]
        return xgboost.DMatrix(numpy.array(rows, dtype=numpy.float32))
    if media_type in LIBSVM:
        return xgboost.DMatrix(_libsvm(lines))
    raise ValueError(f"Content-type {media_type} not supported. Supported: {', '.join((CSV, *LIBSVM))}")


def _libsvm(lines: list[str]) -> csr_matrix:
    places: list[tuple[int, int]] = []
    values: list[float] = []
    for row, line in enumerate(lines):
        for item in line.split():
            column, colon, value = item.partition(":")
            if colon:
                places.append((row, int(column)))
                values.append(float(value))
    rows, columns = [place[0] for place in places], [place[1] for place in places]
    return csr_matrix((values, (rows, columns)), shape=(len(lines), max(columns, default=0) + 1))


def _model_file(layout: Layout) -> Path:
    files = [path for path in layout.model_dir.iterdir() if path.is_file()] if layout.model_dir.is_dir() else []
    for path in files:
        if path.name == "xgboost-model" or len(files) == 1:
            return path
    raise layout.missing_model("file named xgboost-model, nor exactly one file")


def _load(path: Path) -> xgboost.Booster:
    """Load a Booster in one of XGBoost's own formats, or a pickle as older images wrote."""
    with path.open("rb") as file:
        if file.read(1) == PICKLE:
            file.seek(0)
            model = pickle.load(file)  # noqa: S301 - a model's owner runs code on purpose, here as in a script
            # XGBClassifier and XGBRegressor hold a Booster.
            return model.get_booster() if hasattr(model, "get_booster") else model
    booster = xgboost.Booster()
    booster.load_model(path)
    return booster
