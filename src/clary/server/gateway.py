"""One gateway process: the front door, with S3 behind it."""

from __future__ import annotations

from clary import certificates, credentials
from clary.core.resources import Partition
from clary.core.sessions import Sessions
from clary.gateway import worker
from clary.gateway.access import Access
from clary.gateway.s3.proxy import S3Proxy
from clary.gateway.s3.service import S3
from clary.gateway.state import Limits
from clary.server.parts import allow_descriptors, container_door, keys_file, objects
from clary.settings import MIB, Settings, is_loopback


async def gateway(settings: Settings, door: int | None) -> None:
    """Be one gateway process; `door` is the descriptor of the socket that it inherited, if it did."""
    allow_descriptors()
    partition = Partition(settings.account_id, settings.region)
    owner = (settings.access_key_id, settings.secret_access_key)
    access = Access(partition, owner, keys_file(settings), Sessions(credentials.session_key(settings.data)))
    s3: S3 | S3Proxy
    if settings.s3_endpoint:
        s3 = S3Proxy(settings.s3_endpoint, settings.s3_access_key_id, settings.s3_secret_access_key, settings.region)
    else:
        s3 = S3(settings.objects)
    await worker.serve(
        worker.GatewayOptions(
            host=settings.host,
            port=settings.port,
            door=door,
            partition=partition,
            access=access if settings.auth == "sigv4" else None,
            container_door=container_door(settings),
            run=settings.run,
            tls=certificates.server_context(settings.tls_cert, settings.tls_key),
            metrics_token=settings.metrics_token or ("" if is_loopback(settings.host) else None),
            limits=Limits(
                settings.max_payload * MIB,
                settings.model_timeout,
                settings.stream_timeout,
                # Each process counts for itself. A share of at least one each: an instance always answers somebody.
                settings.instance_concurrency and max(1, settings.instance_concurrency // settings.workers),
                settings.instance_queue and max(1, settings.instance_queue // settings.workers),
            ),
        ),
        s3.handle,
        lambda: objects(settings),
    )
    if isinstance(s3, S3Proxy):
        await s3.close()
