"""The second cache tier: adapters in Redis, shared by replicas.

Redis is only a cache: the server can generate every adapter again in milliseconds, so no request
fails because of Redis. Every call has a short timeout and passes a circuit breaker. Every value is
verified in full (`codec`). Reads are bounded, so that a huge value under one of the keys is
rejected before it fills the server's memory.

Keys, in which NS identifies hypernetwork, base model, encoder, spec and secret:

    t2l:1:NS:adapter:ID   one adapter (string, see codec), with a TTL
    t2l:1:NS:index        sorted set, member ID, score = created, microseconds

The index sorts listings, newest first, and bounds the total size. All adapters of one NS have the
same size apart from their descriptions, so a limit in bytes is a limit on the number of members.
Each write deletes the oldest members beyond the limit. This needs no `maxmemory` policy and does
not evict other users' keys. A policy does no harm: a listing skips members without a value, until
the limit or the TTL removes them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from server.adapters.adapter import Adapter, AdapterInfo
from server.adapters.breaker import CircuitBreaker
from server.adapters.codec import AdapterCodec, CorruptAdapterError, header_size
from server.observability.metrics import Metrics

log = logging.getLogger("t2l.redis")

T = TypeVar("T")

_HEADER_READ = 4096
"""Bytes of the first read of a header. Longer headers need a second read."""
_PAGE = 100
"""Minimum number of index members that each further round of a listing reads:
many may have expired.
"""
_CONNECTIONS = 16
"""Maximum connections per process. Further calls wait for one, within their timeout."""


class RedisUnavailableError(Exception):
    """A call to Redis failed. `outcome`: timeout, error, or skipped because the breaker is open."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class RedisStore:
    """The adapters of one namespace in Redis."""

    def __init__(
        self,
        client: Redis,
        codec: AdapterCodec,
        breaker: CircuitBreaker,
        metrics: Metrics,
        *,
        namespace: str,
        ttl_s: int,
        max_bytes: int,
        timeout_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Wrap a client. The store closes it.

        Args:
            client: a client with `decode_responses` off.
            codec: encodes and verifies values.
            breaker: the circuit breaker of all calls.
            metrics: counts lookups and writes.
            namespace: NS in the keys.
            ttl_s: seconds that an adapter stays after it was written.
            max_bytes: maximum bytes of all adapters of the namespace.
            timeout_s: seconds for each call, including the connection.
            now: seconds since the epoch.
        """
        self._client = client
        self._codec = codec
        self.breaker = breaker
        self._metrics = metrics
        self._prefix = f"t2l:1:{namespace}:adapter:"
        self._index = f"t2l:1:{namespace}:index"
        self._ttl_s = ttl_s
        self._max_members = max_bytes // (2 * codec.spec.num_parameters)
        self._timeout_s = timeout_s
        self._now = now

    @classmethod
    def connect(cls, url: str, timeout_s: float) -> Redis:
        """A client without retries, with a timeout on each step. Does not connect yet.

        Raises:
            ValueError: the URL is not a Redis URL.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            decode_responses=False,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        return Redis.from_pool(pool)

    async def get(self, adapter_id: str) -> Adapter | None:
        """The adapter. None if it is absent or corrupt, or if Redis fails. Never raises."""
        try:
            # GETRANGE instead of GET bounds how much of a foreign value is read.
            data = await self._call(lambda: self._read(adapter_id, self._codec.max_size + 1))
        except RedisUnavailableError as error:
            self._metrics.lookups.labels("redis", error.outcome).inc()
            return None
        if not data:
            self._metrics.lookups.labels("redis", "miss").inc()
            return None
        try:
            adapter = await asyncio.to_thread(self._codec.decode, data, adapter_id)
        except CorruptAdapterError as error:
            # The value stays: the adapter is generated again, and its write replaces the value.
            log.warning(
                "ignored a corrupt adapter in Redis: %s", error, extra={"fields": {"adapter": adapter_id}}
            )
            self._metrics.lookups.labels("redis", "corrupt").inc()
            return None
        self._metrics.lookups.labels("redis", "hit").inc()
        return adapter

    async def info(self, adapter_id: str) -> AdapterInfo | None:
        """An adapter's metadata, from its signed header.

        None where `get` returns None. Never raises.
        """
        try:
            return next(iter(await self._infos([adapter_id])), None)
        except RedisUnavailableError:
            return None

    async def put(self, adapter: Adapter) -> None:
        """Write an adapter and delete adapters beyond the limit.

        Never raises: metrics count the outcome.
        """
        if self._max_members < 1:
            self._metrics.writes.labels("too_large").inc()
            return
        data = await asyncio.to_thread(self._codec.encode, adapter)
        try:
            await self._call(lambda: self._write(adapter, data))
        except RedisUnavailableError as error:
            self._metrics.writes.labels(error.outcome).inc()
        else:
            self._metrics.writes.labels("ok").inc()

    async def delete(self, adapter_id: str) -> bool:
        """Delete an adapter. Returns whether it existed.

        Raises:
            RedisUnavailableError: Redis failed, and may still have the adapter.
        """

        async def delete() -> int:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(self._prefix + adapter_id)
                pipe.zrem(self._index, adapter_id)
                return int((await pipe.execute())[0])

        return await self._call(delete) > 0

    async def page(self, limit: int, after: tuple[int, str] | None) -> list[AdapterInfo]:
        """Up to `limit` adapters, newest first, strictly after (created_us, id).

        Raises:
            RedisUnavailableError: Redis failed.
        """
        highest = "+inf" if after is None else str(after[0])
        found: list[AdapterInfo] = []
        offset, count, more = 0, limit, True
        while more and len(found) < limit:
            ids = await self._ids(highest, offset, count)
            # Members of the cursor's microsecond are read again; those up to the cursor are
            # dropped.
            found += [i for i in await self._infos(ids) if after is None or (i.created_us, i.id) < after]
            offset, more = offset + len(ids), len(ids) == count
            count = max(limit, _PAGE)
        return found[:limit]

    async def check(self) -> bool:
        """Whether Redis answers now. Makes one cheap call, unless the breaker is open."""
        try:
            await self._call(lambda: self._client.exists(self._index))
        except RedisUnavailableError:
            return False
        return True

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _write(self, adapter: Adapter, data: bytes) -> None:
        expired = int((self._now() - self._ttl_s) * 1e6)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(self._prefix + adapter.id, data, ex=self._ttl_s)
            pipe.zadd(self._index, {adapter.id: adapter.created_us})
            pipe.zremrangebyscore(self._index, "-inf", expired)
            pipe.zrange(self._index, 0, -1 - self._max_members)  # the oldest members beyond the limit
            oldest: list[bytes] = (await pipe.execute())[-1]
        if oldest:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(*(self._prefix.encode() + member for member in oldest))
                pipe.zrem(self._index, *oldest)
                await pipe.execute()

    async def _read(self, adapter_id: str, size: int) -> bytes:
        """The first bytes of a value. Empty if there is no value."""
        return cast("bytes", await self._client.getrange(self._prefix + adapter_id, 0, size - 1))

    async def _ids(self, highest: str, offset: int, limit: int) -> list[str]:
        """Members of the index, newest first, starting at the highest score."""
        found = await self._call(
            lambda: self._client.zrevrangebyscore(self._index, highest, "-inf", start=offset, num=limit)
        )
        return [member.decode("ascii", "replace") for member in cast("list[bytes]", found)]

    async def _infos(self, ids: list[str]) -> list[AdapterInfo]:
        """The metadata of those members whose header exists and is valid."""
        infos = []
        for adapter_id, value in zip(ids, await self._call(lambda: self._read_headers(ids)), strict=True):
            try:
                header = self._codec.decode_header(value)
            except CorruptAdapterError:
                continue
            if header.id == adapter_id:
                infos.append(header.info)
        return infos

    async def _read_headers(self, ids: list[str]) -> list[bytes]:
        """The first bytes of each value, up to the end of its header or further."""
        async with self._client.pipeline(transaction=False) as pipe:
            for adapter_id in ids:
                pipe.getrange(self._prefix + adapter_id, 0, _HEADER_READ - 1)
            answers: list[bytes | Exception] = await pipe.execute(raise_on_error=False)
        # A key that holds another type is answered with an error.
        headers = [answer if isinstance(answer, bytes) else b"" for answer in answers]
        for i, head in enumerate(headers):
            if len(head) == _HEADER_READ and (size := _declared_header_size(head)) > _HEADER_READ:
                headers[i] = await self._read(ids[i], size)
        return headers

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call, within the timeout and through the breaker.

        Raises:
            RedisUnavailableError: the call failed for any reason.
        """
        if not self.breaker.allow():
            raise RedisUnavailableError("skipped")
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await call()
        except TimeoutError as error:  # redis.exceptions.TimeoutError is a RedisError, handled below
            self._failed("timeout", error)
            raise RedisUnavailableError("timeout") from error
        except ResponseError as error:  # Redis answers with an error, such as out of memory
            self.breaker.succeeded()
            log.warning("Redis returned an error, the request continues without it: %s", error)
            raise RedisUnavailableError("error") from error
        except (RedisError, OSError) as error:
            outcome = "timeout" if "Timeout" in type(error).__name__ else "error"
            self._failed(outcome, error)
            raise RedisUnavailableError(outcome) from error
        if not self.breaker.healthy:
            log.info("Redis answers again")
        self.breaker.succeeded()
        return result

    def _failed(self, outcome: str, error: Exception) -> None:
        self.breaker.failed()
        log.warning(
            "Redis does not answer (%s: %s), requests continue without it",
            outcome,
            type(error).__name__,
            extra={"fields": {"breaker": "open" if self.breaker.is_open else "closed"}},
        )


def _declared_header_size(value: bytes) -> int:
    try:
        return header_size(value)
    except CorruptAdapterError:
        return 0
