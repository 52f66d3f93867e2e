"""Framework defaults. PyTorch and transformers weigh gigabytes; stand-ins with the calls we make take their place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import PATIENCE, ROOT, Launch

TORCH = b"""
import contextlib, types
import numpy

def device(name): return name

class Tensor:
    def __init__(self, array): self.array = array
    def to(self, device): assert device == "cpu"; return self
    def detach(self): return self
    def cpu(self): return self
    def numpy(self): return self.array

def from_numpy(array): return Tensor(array)
no_grad = contextlib.nullcontext
cuda = types.SimpleNamespace(is_available=lambda: False)

class Module:
    def __init__(self, path): self.path, self.evaluating = path, False
    def eval(self): self.evaluating = True; return self
    def __call__(self, tensor):
        assert self.evaluating and open(self.path).read() == "weights"
        assert tensor.array.dtype == numpy.float32
        return Tensor(tensor.array + 1)

jit = types.SimpleNamespace(load=lambda path, map_location: Module(path))
"""

TRANSFORMERS = b"""
def pipeline(task, model, device):
    assert device == -1
    def run(inputs=None, **parameters): return [{"task": task, "inputs": inputs, **parameters}]
    return run
"""


@pytest.fixture
def standins(tmp_path: Path, pythonpath: Path) -> str:
    (tmp_path / "torch.py").write_bytes(TORCH)
    (tmp_path / "transformers.py").write_bytes(TRANSFORMERS)
    return f"{pythonpath}:{tmp_path}"


@pytest.mark.parametrize("name", ["model.pth", "other.pt"])
def test_pytorch_loads_torchscript(launch: Launch, standins: str, name: str) -> None:
    server = launch(files={name: b"weights"}, CLARY_SERVING_FRAMEWORK="pytorch", PYTHONPATH=standins)
    assert server.invoke("[[1, 2]]")[:2] == (200, b"[[2.0, 3.0]]")
    server.stop()


def test_pytorch_without_a_model_is_explained(launch: Launch, standins: str) -> None:
    files = {"a.pt": b"", "b.pt": b""}
    server = launch(files=files, wait=False, CLARY_SERVING_FRAMEWORK="pytorch", PYTHONPATH=standins)
    assert server.process.wait(PATIENCE) == 3
    assert "model.pth (TorchScript), nor exactly one other" in server.log


@pytest.mark.parametrize(
    ("environment", "task"),
    [({}, "text-classification"), ({"HF_TASK": "fill-mask"}, "fill-mask"), ({"HF_MODEL_ID": "org/model"}, None)],
)
def test_huggingface_makes_a_pipeline(
    launch: Launch, standins: str, environment: dict[str, str], task: str | None
) -> None:
    files = {"config.json": json.dumps({"architectures": ["DistilBertForSequenceClassification"]}).encode()}
    server = launch(files=files, CLARY_SERVING_FRAMEWORK="huggingface", PYTHONPATH=standins, **environment)
    body = json.dumps({"inputs": ["I like it"], "parameters": {"top_k": 2}})
    assert json.loads(server.invoke(body)[1]) == [{"task": task, "inputs": ["I like it"], "top_k": 2}]
    server.stop()


def test_sklearn_predicts_on_floats(launch: Launch) -> None:
    script = (
        "class M:\n    def predict(self, x): return [str(x.dtype), x.sum()]\n" + "def model_fn(model_dir): return M()\n"
    )
    server = launch(script, CLARY_SERVING_FRAMEWORK="sklearn")
    assert server.invoke("1,2\n3,4", Content_Type="text/csv")[:2] == (200, b'["float32", 10.0]')
    server.stop()


def test_a_script_without_predict_fn_is_told_so(launch: Launch) -> None:
    server = launch("def model_fn(model_dir): return 1", CLARY_SERVING_FRAMEWORK="none")
    status, body, _ = server.invoke("[]")
    assert status == 500
    assert b"does not define predict_fn(data, model)" in body
    server.stop()


def test_an_unknown_framework_is_named(launch: Launch) -> None:
    server = launch("", wait=False, CLARY_SERVING_FRAMEWORK="caffe")
    assert server.process.wait(PATIENCE) == 3
    assert "CLARY_SERVING_FRAMEWORK is 'caffe'" in server.log


def test_the_demo_model_tells_an_iris(launch: Launch, python: Path, tmp_path: Path) -> None:
    train = ROOT / "src" / "clary" / "cli" / "demo_model" / "train.py"
    done = subprocess.run([python, train, tmp_path], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["accuracy"] > 0.9
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(files) == {"model.joblib", "code/inference.py"}
    server = launch(files=files, CLARY_SERVING_FRAMEWORK="sklearn")
    flowers = {"instances": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}
    predictions = json.loads(server.invoke(json.dumps(flowers), Content_Type="application/json")[1])["predictions"]
    assert [prediction["species"] for prediction in predictions] == ["setosa", "virginica"]
    csv = server.invoke("5.1,3.5,1.4,0.2\n", Content_Type="text/csv", Accept="text/csv")[1]
    assert csv.startswith(b"setosa,0.9")
    server.stop()
