"""The long way to call, through botocore: every protocol, credential, retry and page that it knows."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

import botocore.session
from botocore import UNSIGNED, xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
)
from botocore.loaders import Loader
from botocore.utils import parse_timestamp

from clary.cli.aws.failures import CommandFailure, ConfigurationError, ServiceError, UsageError
from clary.cli.aws.output import Pages
from clary.cli.aws.place import Place
from clary.cli.aws.shapes import Operation

CONFIGURE = 'You can {} by running "aws configure".'
DEBUG_FORMAT = "%(asctime)s - %(threadName)s - %(name)s - %(levelname)s - %(message)s"


class _Slices(Loader):  # type: ignore[misc]  # botocore has no types
    """Loads what is kept of one operation instead of the service's whole model; all else from botocore's own data."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(extra_search_paths=[self.BUILTIN_DATA_PATH], include_default_search_paths=False)
        self._operation = operation

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        kept = self._operation
        if (service_name, type_name) != (kept.service, "service-2"):
            return super().load_service_model(service_name, type_name, api_version)
        return {**kept.model, "operations": {kept.name: kept.model["operation"]}}


class Client:
    """One operation of one service, called through botocore. `timestamps` is `iso8601` or `wire`."""

    def __init__(self, operation: Operation, place: Place, options: Namespace, timestamps: str) -> None:
        self._operation = operation
        self._place = place
        self._options = options
        self._timestamps = timestamps
        self._method = xform_name(operation.name)

    def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call once. Raises CommandFailure and its kinds."""
        with _translated():
            answer: dict[str, Any] = getattr(self._client, self._method)(**request)
        answer.pop("ResponseMetadata", None)
        return answer

    @contextmanager
    def pages(self, request: dict[str, Any], paging: dict[str, Any]) -> Iterator[Pages]:
        """Call for page after page, while the context is open. Raises CommandFailure and its kinds."""
        with _translated():
            yield self._client.get_paginator(self._method).paginate(**request, PaginationConfig=paging)

    def wait(self, waiter: str, request: dict[str, Any]) -> None:
        """Wait for what a waiter of the model waits for. Raises CommandFailure where it does not come."""
        with _translated():
            self._client.get_waiter(xform_name(waiter)).wait(**request)

    def body(self, answer: dict[str, Any], member: str) -> Iterator[bytes]:
        """Give the body of an answer as it comes: the chunks of a blob, the payloads of a stream of events."""
        with _translated(), closing(answer.pop(member)) as source:
            if hasattr(source, "iter_chunks"):
                yield from source.iter_chunks(65536)
                return
            for event in source:
                for part in event.values():
                    yield part.get("Bytes", b"")

    @cached_property
    def _client(self) -> Any:
        place, options = self._place, self._options
        keys = place.credentials
        session = self._session()
        return session.create_client(
            self._operation.service,
            region_name=place.region,
            endpoint_url=place.endpoint,
            verify=False if options.no_verify_ssl else options.ca_bundle or place.ca_bundle,
            aws_access_key_id=keys.access_key_id if keys and place.found else None,
            aws_secret_access_key=keys.secret_access_key if keys and place.found else None,
            config=self._config(),
        )

    def _session(self) -> Any:
        session = botocore.session.Session(profile=self._options.profile)
        session.user_agent_name = "clary"
        session.register_component("data_loader", _Slices(self._operation))
        wire = self._timestamps != "iso8601"
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_as_sent if wire else _as_iso
        )
        if self._options.debug:
            session.set_stream_logger("botocore", logging.DEBUG, format_string=DEBUG_FORMAT)
        return session

    def _config(self) -> Any:
        facts: dict[str, Any] = {}
        for name, seconds in (
            ("read_timeout", self._options.cli_read_timeout),
            ("connect_timeout", self._options.cli_connect_timeout),
        ):
            if seconds is not None:
                facts[name] = seconds or None
        if not self._place.signed:
            facts["signature_version"] = UNSIGNED
        if self._place.found:
            facts["proxies"] = {}
        return Config(**facts)


@contextmanager
def _translated() -> Iterator[None]:
    """Give botocore's errors their kinds."""
    try:
        yield
    except ClientError as error:
        raise ServiceError(str(error)) from error
    except ParamValidationError as error:
        raise UsageError(str(error)) from error
    except NoRegionError as error:
        raise ConfigurationError(f"{error} {CONFIGURE.format('also configure your region')}") from error
    except NoCredentialsError as error:
        raise ConfigurationError(f"{error}. {CONFIGURE.format('configure credentials')}") from error
    except (ConfigParseError, ConfigNotFound) as error:
        raise ConfigurationError(str(error)) from error
    except (BotoCoreError, ValueError) as error:  # a profile that is not there and half a key pair too, as in version 2
        raise CommandFailure(str(error)) from error


def _as_sent(value: Any) -> Any:
    return value


def _as_iso(value: Any) -> str:
    return str(parse_timestamp(value).isoformat())
