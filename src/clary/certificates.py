"""TLS on the public port: the certificate that was given, and what clients need to trust it."""

from __future__ import annotations

import ssl
from pathlib import Path

from clary.errors import SettingsError


def server_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """Load certificate (its chain after it) and key, both PEM; None where none were given. Raises SettingsError."""
    if not certificate:
        return None
    for flag, file in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise SettingsError(f"{flag}: {file} cannot be read: {error.strerror}") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # The password is asked for nowhere: whoever starts Clary may not be at a terminal.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"--tls-cert: {certificate} and {key} are not a PEM certificate and its unencrypted key ({error})"
        ) from error
    return context


def bundle(certificate: str) -> str:
    """Give the file that clients must be told to trust (AWS_CA_BUNDLE); empty where they know the issuer already.

    That is the certificate's own file when it, or an authority in its chain, is self-signed.
    """
    if not certificate:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    own = any(found["subject"] == found["issuer"] for found in context.get_ca_certs())
    return str(Path(certificate).absolute()) if own else ""
