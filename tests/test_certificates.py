"""What clients have to be told to trust."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clary import certificates
from clary.errors import SettingsError


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority of our own, a certificate that it issued, and the two in one file."""
    folder = tmp_path_factory.mktemp("certificates")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    openssl(folder, f"req -x509 {curve} -subj /CN=root -keyout root.key -out root.pem")
    openssl(folder, f"req -x509 {curve} -subj /CN=host -CA root.pem -CAkey root.key -keyout key.pem -out leaf.pem")
    (folder / "chain.pem").write_bytes((folder / "leaf.pem").read_bytes() + (folder / "root.pem").read_bytes())
    return folder


def test_who_brings_a_root_of_its_own_says_so(made: Path) -> None:
    assert certificates.bundle(str(made / "root.pem")) == str(made / "root.pem")
    assert certificates.bundle(str(made / "chain.pem")) == str(made / "chain.pem")


def test_one_that_somebody_else_issued_is_for_the_system_to_judge(made: Path) -> None:
    assert certificates.bundle(str(made / "leaf.pem")) == ""
    assert certificates.bundle("") == ""


def test_certificate_and_key_must_belong_together(made: Path) -> None:
    assert certificates.server_context("", "") is None
    assert certificates.server_context(str(made / "chain.pem"), str(made / "key.pem")) is not None
    with pytest.raises(SettingsError, match="are not a PEM certificate and its unencrypted key"):
        certificates.server_context(str(made / "chain.pem"), str(made / "root.key"))
    with pytest.raises(SettingsError, match=r"--tls-key: .*absent cannot be read: No such file"):
        certificates.server_context(str(made / "chain.pem"), str(made / "absent"))


def test_an_encrypted_key_is_refused_without_asking_for_its_password(made: Path) -> None:
    openssl(made, "ec -in key.pem -aes128 -passout pass:secret -out locked.pem")
    with pytest.raises(SettingsError, match="unencrypted"):
        certificates.server_context(str(made / "leaf.pem"), str(made / "locked.pem"))
