"""The container's API for many models: paths, statuses, JSON, paging."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import PID, Many

ECHO = """
def model_fn(model_dir): return model_dir
def input_fn(data, content_type): return [data, content_type]
def predict_fn(data, model, context):
    return [model, *data, *(context.get_request_header(0, "X-Amzn-SageMaker-" + name)
                            for name in ("Target-Model", "Custom-Attributes"))]
"""


class TestPaths:
    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/ping", 200),
            ("POST", "/ping", 405),
            ("PUT", "/models", 405),
            ("PUT", "/models/one", 405),
            ("GET", "/models/one/invoke", 405),
            ("POST", "/models/one/train", 404),
            ("GET", "/models/", 404),
            ("POST", "/models//invoke", 404),
            ("POST", "/invocations", 404),
            ("GET", "/", 404),
            ("GET", "/models/one", 404),
            ("DELETE", "/models/one", 404),
            ("POST", "/models/one/invoke", 404),
        ],
    )
    def test_the_contracts_and_no_others(self, many: Many, method: str, path: str, status: int) -> None:
        assert many.server.request(method, path)[0] == status

    def test_what_is_not_loaded_is_said_in_the_words_of_awss_server(self, many: Many) -> None:
        expected = {"code": 404, "type": "ModelNotFoundException", "message": "Model not found: one"}
        for status, said in (many.invoke("one"), many.describe("one"), many.unload("one")):
            assert (status, said) == (404, expected)

    @pytest.mark.parametrize(
        "body", ["", "{", "[]", '"a"', "{}", '{"model_name": "a"}', '{"model_name": 1, "url": ""}']
    )
    def test_a_load_without_name_or_url_is_a_bad_request(self, many: Many, body: str) -> None:
        status, said = many.json("POST", "/models", body)
        assert (status, said["type"]) == (400, "BadRequestException")


class TestLife:
    def test_from_load_to_unload(self, many: Many) -> None:
        url = str(many.write("one", ECHO))
        assert many.load("one") == (200, {"status": "Workers scaled"})
        assert many.json("GET", "/models") == (200, {"models": [{"modelName": "one", "modelUrl": url}]})
        assert many.load("one")[0] == 409
        fields = {"X_Amzn_SageMaker_Target_Model": "one.tar.gz", "X_Amzn_SageMaker_Custom_Attributes": "a=b"}
        said = many.invoke("one", "7", Content_Type="text/csv", Accept="application/json", **fields)
        assert said == (200, [url, "7", "text/csv", "one.tar.gz", "a=b"])
        assert many.unload("one") == (200, {"status": 'Model "one" unregistered'})
        assert many.names() == []

    def test_a_model_is_described_with_its_processes_and_their_memory(self, many: Many) -> None:
        many.add("one", PID)
        status, said = many.describe("one")
        (worker,) = said["workers"]
        assert (status, said["modelName"], worker["status"]) == (200, "one", "READY")
        assert worker["id"] == str(many.invoke("one")[1])
        assert 1e6 < worker["memoryUsage"] < 50e6

    def test_a_folder_that_is_not_there_is_not_found(self, many: Many) -> None:
        status, said = many.load("missing")
        assert (status, said["type"]) == (404, "ModelNotFoundException")

    @pytest.mark.parametrize("name", ["0" * 64, "a" * 300, "b.tar.gz", "c_d-e"])
    def test_any_id_will_do(self, many: Many, name: str) -> None:
        url = str(many.write("model", PID))
        assert many.json("POST", "/models", json.dumps({"model_name": name, "url": url}))[0] == 200
        assert many.invoke(name)[0] == 200
        assert many.names() == [name]
        assert many.unload(name)[0] == 200


class TestPages:
    @pytest.fixture
    def three(self, many: Many) -> Many:
        for name in ("c", "a", "b"):
            many.add(name, PID)
        return many

    def test_pages_follow_each_other_by_name(self, three: Many) -> None:
        first = three.json("GET", "/models?limit=2")[1]
        assert [model["modelName"] for model in first["models"]] == ["a", "b"]
        second = three.json("GET", f"/models?limit=2&next_page_token={first['nextPageToken']}")[1]
        assert [model["modelName"] for model in second["models"]] == ["c"]
        assert "nextPageToken" not in second

    def test_the_last_page_may_be_full(self, three: Many) -> None:
        assert "nextPageToken" not in three.json("GET", "/models?limit=3")[1]

    @pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=101", "limit=x", "next_page_token=-5"])
    def test_what_makes_no_sense_is_the_default(self, three: Many, query: str) -> None:
        assert len(three.json("GET", f"/models?{query}")[1]["models"]) == 3

    def test_a_token_beyond_the_end_is_an_empty_page(self, three: Many) -> None:
        assert three.json("GET", "/models?next_page_token=9") == (200, {"models": []})


def test_who_asks_for_a_model_that_is_on_its_way_waits_for_it(many: Many) -> None:
    many.write(
        "slow", "import os, time\ndef model_fn(d): time.sleep(0.5); return os.getpid()\ndef predict_fn(x, m): return m"
    )
    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(status for status, _ in pool.map(many.load, ["slow"] * 4))
    assert statuses == [200, 409, 409, 409]
    assert len(many.describe("slow")[1]["workers"]) == 1
