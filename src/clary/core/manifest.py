"""Manifests: which of the objects below a prefix a model's data is made of.

Of manifests the API reference of S3ModelDataSource says only that they are CSV; the JSON that other operations take for
one (S3DataType ManifestFile) is read too.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator

from clary.errors import Fatal

LARGEST = 16 * 1024 * 1024
"""Bytes."""

Canonical = Callable[[str], str]
"""Gives the s3:// spelling of a URL, or raises Fatal."""


class ManifestRefused(Fatal):
    """It is no manifest, or it names what is not there."""


def chosen(manifest: bytes, url: str, prefix: str, there: Collection[str], canonical: Canonical) -> Collection[str]:
    """Give the URLs that a manifest names, each once. `there` is what lies below the prefix: nothing else may be named.

    Raises ManifestRefused, which calls the manifest by its `url`.
    """
    wanted = dict.fromkeys(_locations(manifest, url, canonical(prefix), canonical))
    if not wanted:
        raise ManifestRefused(f"{url}: the manifest names nothing")
    if missing := next((each for each in wanted if each not in there), None):
        raise ManifestRefused(f"{url} names {missing}, which is not there below {prefix}")
    return wanted


def _locations(manifest: bytes, url: str, prefix: str, canonical: Canonical) -> Iterator[str]:
    """Give the URLs in a manifest: a JSON list of a prefix and of keys below it, or CSV, each line begun by one."""
    try:
        text = manifest.decode()
        if text.lstrip().startswith("["):
            first, *keys = json.loads(text)
            prefix = canonical(first["prefix"])
        else:
            keys = [row[0].strip() for row in csv.reader(text.splitlines()) if row]
        for key in filter(None, keys):
            yield key if key.startswith("s3://") else prefix + key
    except UnicodeDecodeError as error:
        raise ManifestRefused(f"{url}: a manifest is text in UTF-8") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        message = f'{url}: a manifest is CSV, or in JSON [{{"prefix": "s3://..."}}, "key", ...]'
        raise ManifestRefused(message) from error


def listed(manifest: bytes, url: str, canonical: Canonical) -> Iterator[tuple[str, str]]:
    """Give the objects of a manifest of a transform job: the URL of each, and its key as the manifest has it.

    It is JSON, `[{"prefix": "s3://..."}, "key", ...]`; keys are put behind the prefix as they are, so a prefix without
    a slash at its end has keys that begin with one: that is not the output's. Raises ManifestRefused, which calls the
    manifest by its `url`.
    """
    try:
        first, *keys = json.loads(manifest.decode())
        prefix = canonical(first["prefix"])
        seen = dict.fromkeys(key for key in keys if isinstance(key, str) and key)
        if len(seen) < len(keys):
            raise ManifestRefused(f"{url}: each element after the prefix must be another key")
        for key in seen:
            yield canonical(prefix + key), key.removeprefix("/")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ManifestRefused(f'{url}: a manifest is JSON, [{{"prefix": "s3://..."}}, "key", ...]') from error
