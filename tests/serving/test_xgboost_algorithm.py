"""Algorithm mode: a Booster without a script, trained by the real XGBoost and served by the real server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import PATIENCE, Launch, Server

TRAIN = """
import pickle, sys, numpy, xgboost
x = numpy.array([[0.0, 5.0], [1.0, 5.0]] * 20, dtype=numpy.float32)
booster = xgboost.train({"base_score": 0.5}, xgboost.DMatrix(x, label=x[:, 0]), num_boost_round=30)
booster.save_model(sys.argv[1] + "/model.json")
pickle.dump(booster, open(sys.argv[1] + "/model.pkl", "wb"))
"""


@pytest.fixture(scope="module")
def trained(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("booster")
    subprocess.run([python, "-c", TRAIN, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def server(launch: Launch, trained: Path) -> Server:
    files = {"xgboost-model": (trained / "model.json").read_bytes(), "notes.txt": b"beside it"}
    return launch(files=files, CLARY_SERVING_FRAMEWORK="xgboost")


def test_csv_gives_one_line_of_scores(server: Server) -> None:
    status, body, headers = server.invoke("0,5\n1,5\n", Content_Type="text/csv; charset=utf-8")
    low, high = map(float, body.split(b","))
    assert (status, headers["content-type"]) == (200, "text/csv")
    assert low < 0.1 < 0.9 < high


def test_libsvm_is_the_default_type(server: Server) -> None:
    assert float(server.invoke("0 0:1 1:5\n")[1]) > 0.9


def test_json_and_json_lines_on_request(server: Server) -> None:
    (row,) = json.loads(server.invoke("1,5", Content_Type="text/csv", Accept="application/json")[1])["predictions"]
    lines = server.invoke("1,5\n0,5", Content_Type="text/csv", Accept="application/jsonlines")[1].splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0]) == row


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("", {"Content_Type": "text/csv"}, 204),
        ("a,b", {"Content_Type": "text/csv"}, 415),
        ("{}", {"Content_Type": "application/json"}, 415),
        ("1,5", {"Content_Type": "text/csv", "Accept": "image/png"}, 406),
        ("1,2,3", {"Content_Type": "text/csv"}, 400),
    ],
)
def test_failures_have_the_images_statuses(server: Server, body: str, headers: dict[str, str], status: int) -> None:
    assert server.invoke(body, **headers)[0] == status


def test_execution_parameters_tell_the_workers(server: Server) -> None:
    answer = json.loads(server.request("GET", "/execution-parameters")[1])
    assert answer == {"MaxConcurrentTransforms": 1, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


def test_batch_gives_a_line_per_record_and_pickles_are_read(launch: Launch, trained: Path) -> None:
    files = {"model.bin": (trained / "model.pkl").read_bytes()}
    server = launch(files=files, CLARY_SERVING_FRAMEWORK="xgboost", SAGEMAKER_BATCH="true")
    body = server.invoke("0,5\n1,5", Content_Type="text/csv")[1]
    assert body.count(b"\n") == 2
    assert body.endswith(b"\n")
    server.stop()


def test_no_model_is_explained(launch: Launch) -> None:
    server = launch(wait=False, CLARY_SERVING_FRAMEWORK="xgboost")
    assert server.process.wait(PATIENCE) == 3
    assert "no file named xgboost-model" in server.log
    assert "(nothing)" in server.log


def test_in_script_mode_the_defaults_are_xgboosts(launch: Launch, trained: Path) -> None:
    script = "import xgboost\ndef model_fn(d):\n    b = xgboost.Booster(); b.load_model(d + '/model.json'); return b\n"
    files = {"model.json": (trained / "model.json").read_bytes()}
    server = launch(script, files=files, CLARY_SERVING_FRAMEWORK="xgboost")
    assert json.loads(server.invoke("1,5", Content_Type="text/csv")[1])[0] > 0.9
    server.stop()
