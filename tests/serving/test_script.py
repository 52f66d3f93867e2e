"""Scripts, as AWS's toolkit runs them, through the real server."""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any

import pytest

from .conftest import Launch, Server

DOUBLE = """
def model_fn(model_dir):
    return 2

def predict_fn(data, model):
    return data * model
"""

HANDLERS = """
import os
import sys

LOADED = []

def model_fn(model_dir, context):
    LOADED.append(context.system_properties["model_dir"])
    return os.path.basename(model_dir)

def input_fn(data, content_type):
    if content_type == "application/x-fail":
        raise RuntimeError("cannot read that")
    if content_type == "application/x-exit":
        sys.exit("enough")
    return [type(data).__name__, len(data), content_type]

def predict_fn(data, model, context):
    return data + [context.get_request_header(0, "x-amzn-sagemaker-custom-attributes"), len(LOADED)]

def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "trace=" + str(prediction[3]))
    return repr(prediction), "text/x-repr"

def execution_parameters_fn():
    return {"MaxConcurrentTransforms": 3}
"""


def npy(values: list[float], descr: str = "<f8") -> bytes:
    """Write a one-dimensional array in NumPy's version 1 format."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({len(values)},), }}\n".encode()
    data = pickle.dumps(values) if descr == "|O" else struct.pack(f"<{len(values)}d", *values)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.fixture(scope="module")
def double(launch: Launch) -> Server:
    return launch(DOUBLE)


@pytest.fixture(scope="module")
def handlers(launch: Launch) -> Server:
    return launch(HANDLERS)


class TestDefaults:
    def test_json_in_json_out(self, double: Server) -> None:
        status, body, headers = double.invoke("[[1, 2], [3, 4]]", Content_Type="application/json")
        assert (status, json.loads(body), headers["content-type"]) == (200, [[2, 4], [6, 8]], "application/json")

    def test_a_body_without_content_type_is_json(self, double: Server) -> None:
        assert double.invoke("[1]")[:2] == (200, b"[2]")

    def test_csv_in_csv_out(self, double: Server) -> None:
        status, body, headers = double.invoke("1,2\n3,4\n", Content_Type="text/csv", Accept="text/csv")
        assert (status, body, headers["content-type"]) == (200, b"2,4\n6,8\n", "text/csv")

    def test_npy_in_npy_out(self, double: Server) -> None:
        status, body, headers = double.invoke(
            npy([1.5, 2.0]), Content_Type="application/x-npy", Accept="application/x-npy"
        )
        assert (status, headers["content-type"]) == (200, "application/x-npy")
        assert struct.unpack("<2d", body[-16:]) == (3.0, 4.0)

    def test_pickled_npy_is_refused(self, double: Server) -> None:
        status, body, _ = double.invoke(npy([1.0], descr="|O"), Content_Type="application/x-npy")
        assert status == 500
        assert b"allow_pickle" in body

    @pytest.mark.parametrize("accept", ["*/*", "application/json", "text/csv-schema, application/json"])
    def test_accept_picks_the_first_known_type(self, double: Server, accept: str) -> None:
        assert double.invoke("[1]", Accept=accept)[2]["content-type"] == "application/json"

    @pytest.mark.parametrize(
        "headers", [{"Accept": "image/png"}, {"Content_Type": "image/png"}, {"Content_Type": "text/csv; charset=utf-8"}]
    )
    def test_unsupported_formats_are_the_toolkits_500(self, double: Server, headers: dict[str, str]) -> None:
        status, body, _ = double.invoke("1", **headers)
        assert status == 500
        assert b"is not supported by this framework" in body

    def test_the_default_accept_can_be_set(self, launch: Launch) -> None:
        server = launch(DOUBLE, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
        assert server.invoke("[[1, 2]]")[1:2] == (b"2,4\n",)
        server.stop()


class TestHandlers:
    def call(self, server: Server, body: Any, **headers: str) -> list[Any]:
        status, answer, fields = server.invoke(body, **headers)
        assert (status, fields["content-type"]) == (200, "text/x-repr")
        result: list[Any] = eval(answer)
        return result

    def test_output_fn_may_name_the_content_type(self, handlers: Server) -> None:
        assert self.call(handlers, "{}") == ["str", 2, "application/json", None, 1]

    def test_the_model_is_loaded_once(self, handlers: Server) -> None:
        assert {self.call(handlers, "{}")[4] for _ in range(3)} == {1}

    def test_binary_bodies_stay_bytes(self, handlers: Server) -> None:
        body = bytes(range(256)) * 300
        assert self.call(handlers, body, Content_Type="image/png")[:3] == ["bytes", 76800, "image/png"]

    def test_an_empty_body_reaches_the_script(self, handlers: Server) -> None:
        assert self.call(handlers, b"")[:2] == ["str", 0]

    def test_a_chunked_body_is_put_together(self, handlers: Server) -> None:
        chunks = iter([b"a" * 100_000, b"b" * 5])
        got = self.call(handlers, chunks, Content_Type="image/png", Transfer_Encoding="chunked")
        assert got[:2] == ["bytes", 100_005]

    def test_context_carries_custom_attributes_both_ways(self, handlers: Server) -> None:
        _, body, headers = handlers.invoke("{}", X_Amzn_SageMaker_Custom_Attributes="c000b4f9")
        assert b"'c000b4f9'" in body
        assert headers["x-amzn-sagemaker-custom-attributes"] == "trace=c000b4f9"
        assert handlers.invoke("{}")[2]["x-amzn-sagemaker-custom-attributes"] == "trace=None"

    def test_an_exception_is_a_500_with_its_traceback_in_answer_and_log(self, handlers: Server) -> None:
        status, body, _ = handlers.invoke("x", Content_Type="application/x-fail")
        assert status == 500
        assert body.startswith(b"cannot read that\nTraceback (most recent call last)")
        assert "RuntimeError: cannot read that" in handlers.log

    def test_a_script_that_exits_leaves_the_server_running(self, handlers: Server) -> None:
        status, body, _ = handlers.invoke("x", Content_Type="application/x-exit")
        assert (status, body.split(b"\n")[0]) == (500, b"enough")
        assert self.call(handlers, "{}")[0] == "str"

    def test_execution_parameters_are_the_scripts(self, handlers: Server) -> None:
        status, body, _ = handlers.request("GET", "/execution-parameters")
        assert (status, json.loads(body)) == (200, {"MaxConcurrentTransforms": 3})


def test_transform_fn_replaces_the_three(launch: Launch) -> None:
    server = launch(
        "def model_fn(model_dir): return 1\n"
        "def transform_fn(model, data, content_type, accept): return data.upper(), accept\n"
    )
    assert server.invoke("abc", Accept="text/plain")[:2] == (200, b"ABC")
    server.stop()


def test_a_script_may_answer_with_a_status_of_its_own(launch: Launch) -> None:
    server = launch(
        "def model_fn(model_dir): return 1\n"
        "def transform_fn(model, data, content_type, accept, context):\n"
        "    context.set_response_status(code=422)\n"
        "    return b'too short', 'text/x-complaint'\n"
    )
    status, body, headers = server.invoke("abc")
    assert (status, body, headers["content-type"]) == (422, b"too short", "text/x-complaint")
    assert server.log == ""
    server.stop()


def test_warmup_runs_before_the_first_request(launch: Launch) -> None:
    server = launch(
        "seen = []\n"
        "def pre_model_fn(model_dir): seen.append('pre')\n"
        "def model_fn(model_dir): seen.append('model')\n"
        "def model_warmup_fn(model_dir, model): seen.append('warm')\n"
        "def predict_fn(data, model): return seen\n"
    )
    assert json.loads(server.invoke("[]")[1]) == ["pre", "model", "warm"]
    server.stop()


def test_the_program_can_have_another_name_and_import_its_neighbours(launch: Launch) -> None:
    files = {
        "code/serve_it.py": b"import factor\ndef model_fn(d): return factor.N\ndef predict_fn(x, m): return x * m",
        "code/factor.py": b"N = 5",
    }
    server = launch(files=files, SAGEMAKER_PROGRAM="serve_it.py")
    assert server.invoke("[2]")[1] == b"[10]"
    server.stop()
