"""Serve the iris model: flowers in, species out.

JSON is a list of flowers, or {"instances": [...]}; CSV is one flower a line. A flower is four lengths in cm:
sepal length, sepal width, petal length, petal width.
"""

import json
from pathlib import Path

import joblib


def model_fn(model_dir):
    return joblib.load(Path(model_dir) / "model.joblib")


def input_fn(data, content_type):
    if content_type == "application/json":
        body = json.loads(data)
        return body["instances"] if isinstance(body, dict) else body
    if content_type == "text/csv":
        return [[float(cell) for cell in line.split(",")] for line in data.splitlines() if line.strip()]
    raise ValueError(f"send application/json or text/csv, not {content_type}")


def predict_fn(flowers, model):
    return [
        {"species": str(model.classes_[row.argmax()]), "probability": round(float(row.max()), 3)}
        for row in model.predict_proba(flowers)
    ]


def output_fn(predictions, accept):
    if accept == "text/csv":
        return "".join(f"{p['species']},{p['probability']}\n" for p in predictions), accept
    return json.dumps({"predictions": predictions}), "application/json"
