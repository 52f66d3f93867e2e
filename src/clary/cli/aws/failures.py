"""How a command fails: the exit codes of version 2 of the aws CLI, each with its kind of error.

255  anything else (the base class)
252  UsageError: the command line is wrong, and nothing was sent
253  ConfigurationError: no region, no credentials, no Clary
254  ServiceError: the service answered, with an error
"""

from __future__ import annotations

from clary.errors import ClaryError

GENERAL, USAGE, CONFIGURATION, SERVICE, INTERRUPTED = 255, 252, 253, 254, 130


class CommandFailure(ClaryError):
    """The command failed; the message is for stderr."""

    exit_code = GENERAL


class UsageError(CommandFailure):
    """The command line is not understood."""

    exit_code = USAGE


class SyntaxFailure(UsageError):
    """The command line does not name a command with its options; how to get help is printed with it."""


class ParamError(UsageError):
    """The value of an option cannot be read. `option` is as the user writes it, `--tags`."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"Error parsing parameter '{option}': {message}")


class ConfigurationError(CommandFailure):
    """What is needed besides the command line is missing or wrong."""

    exit_code = CONFIGURATION


class ServiceError(CommandFailure):
    """The service refused or failed; worded as botocore words it."""

    exit_code = SERVICE
