"""Which Clary is meant: a flag, then AWS_ENDPOINT_URL, then the default folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from clary.cli.connection import NotRunning, connect, data_flag, find, program
from tests.cli.conftest import FakeClary


def test_a_client_signs_with_the_key_pair_of_the_folder(clary: FakeClary) -> None:
    client = connect(clary.data).client("sagemaker")
    assert client.list_endpoints()["Endpoints"] == []
    assert client._get_credentials().access_key == "AKIATEST"


def test_a_proxy_of_the_environment_is_not_asked(clary: FakeClary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert connect(clary.data).client("sagemaker").list_endpoints()["Endpoints"] == []


def test_the_endpoint_variable_names_a_clary_without_a_folder(
    clary: FakeClary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", clary.url)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    connection = connect(None)
    assert (connection.url, connection.region, connection.data) == (clary.url, "eu-north-1", None)


def test_the_endpoint_variable_of_the_local_clary_brings_its_folder(
    clary: FakeClary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", clary.url + "/")
    monkeypatch.setenv("CLARY_DATA", str(clary.data))
    assert connect(None).data == clary.data


def test_a_folder_that_is_named_beats_the_endpoint_variable(clary: FakeClary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert connect(clary.data).url == clary.url
    with pytest.raises(NotRunning, match="nothing answers at AWS_ENDPOINT_URL=http:"):
        connect(None)


def test_a_key_pair_that_cannot_be_read_is_said(clary: FakeClary) -> None:
    (clary.data / "credentials").unlink()
    with pytest.raises(NotRunning, match="cannot read its key pair"):
        find(clary.data)


def test_the_data_flag_is_for_other_folders_only(tmp_path: Path) -> None:
    assert data_flag(Path("~/.clary").expanduser()) == ""
    assert data_flag(tmp_path / "my data") == f" --data '{tmp_path}/my data'"


def test_what_to_type_is_how_it_was_called_unless_the_path_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "clary"
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == str(script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "clary"
    monkeypatch.setattr("sys.argv", ["/x/main.py"])
    assert program() == "clary"
