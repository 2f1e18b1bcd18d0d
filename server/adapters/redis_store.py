"""The second tier: adapters in Redis, shared by replicas and outliving them.

Redis is a cache and a guest: everything in it can be written again in
milliseconds, so no request fails because of it. Every call has a short timeout
and passes a circuit breaker; every value is verified in full (`codec`); reads
are bounded, so that a huge value under one of our keys costs one refusal, not
the memory of the server.

Keys, where NS names the hypernetwork, base, encoder, spec and secret together:

    t2l:1:NS:adapter:ID   one adapter (string, see codec), with a TTL
    t2l:1:NS:index        sorted set, member ID, score = created, microseconds

The index pages listings newest first, and it bounds the total size: adapters of
one NS all take the same bytes but for their descriptions, so a cap in bytes is a
cap on members, and whoever writes deletes the oldest beyond it. That needs no
`maxmemory` policy and spares other tenants of the same Redis; setting one is
still fine, since members whose value is gone are skipped, until the cap or the TTL drops them.
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

_HEADER_GUESS = 4096
"""Bytes that hold most headers; longer ones take a second read."""
_PAGE = 100
"""Fewest members of the index that a further turn of a listing reads: many may be gone."""
_CONNECTIONS = 16
"""Most connections per process; further calls wait for one, within their timeout."""


class RedisUnavailableError(Exception):
    """Redis did not do what was asked: `outcome` is timeout, error or skipped (breaker open)."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class RedisStore:
    """Adapters of one namespace in Redis."""

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
        """Wrap a client, which the store then owns.

        Args:
            client: with `decode_responses` off.
            codec: knows spec and key.
            breaker: shared by all calls of this store.
            metrics: counts lookups and writes.
            namespace: NS in the keys.
            ttl_s: seconds that an adapter lives after it was written.
            max_bytes: cap on all adapters of the namespace together.
            timeout_s: for each call, connecting included.
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
        """A client that fails fast: no retries, and a short timeout on each step. Does not connect yet.

        Raises:
            ValueError: the URL is not one of Redis.
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
        """The adapter; None where there is none, or a corrupt one, or no Redis. Never raises."""
        try:
            # GETRANGE and not GET: it bounds what a foreign value can make us read.
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
            # Left in place: the adapter is made anew, and its write replaces the bad value.
            log.warning(
                "corrupt adapter in Redis is ignored: %s", error, extra={"fields": {"adapter": adapter_id}}
            )
            self._metrics.lookups.labels("redis", "corrupt").inc()
            return None
        self._metrics.lookups.labels("redis", "hit").inc()
        return adapter

    async def info(self, adapter_id: str) -> AdapterInfo | None:
        """What the signed header of an adapter says; None where `get` would find nothing. Never raises."""
        try:
            return next(iter(await self._infos([adapter_id])), None)
        except RedisUnavailableError:
            return None

    async def put(self, adapter: Adapter) -> None:
        """Write an adapter and delete what is then beyond the cap. Never raises: the outcome is counted."""
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
        """Delete an adapter; whether there was one.

        Raises:
            RedisUnavailableError: it may still be there.
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
            RedisUnavailableError: no answer.
        """
        highest = "+inf" if after is None else str(after[0])
        found: list[AdapterInfo] = []
        offset, turn, more = 0, limit, True
        while more and len(found) < limit:
            ids = await self._ids(highest, offset, turn)
            # Members of the same microsecond as the cursor are read again, and those before it dropped.
            found += [i for i in await self._infos(ids) if after is None or (i.created_us, i.id) < after]
            offset, more = offset + len(ids), len(ids) == turn
            turn = max(limit, _PAGE)
        return found[:limit]

    async def check(self) -> bool:
        """Whether Redis answers now (one cheap call, unless the breaker holds it back)."""
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
            pipe.zrange(self._index, 0, -1 - self._max_members)  # the oldest, all but the cap
            oldest: list[bytes] = (await pipe.execute())[-1]
        if oldest:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(*(self._prefix.encode() + member for member in oldest))
                pipe.zrem(self._index, *oldest)
                await pipe.execute()

    async def _read(self, adapter_id: str, size: int) -> bytes:
        """The first bytes of a value; none where there is no value."""
        return cast("bytes", await self._client.getrange(self._prefix + adapter_id, 0, size - 1))

    async def _ids(self, highest: str, offset: int, limit: int) -> list[str]:
        """Members of the index, newest first, from a highest score down."""
        found = await self._call(
            lambda: self._client.zrevrangebyscore(self._index, highest, "-inf", start=offset, num=limit)
        )
        return [member.decode("ascii", "replace") for member in cast("list[bytes]", found)]

    async def _infos(self, ids: list[str]) -> list[AdapterInfo]:
        """What the signed headers of those members say, where the value is there and whole."""
        infos = []
        for adapter_id, value in zip(ids, await self._call(lambda: self._heads(ids)), strict=True):
            try:
                header = self._codec.decode_header(value)
            except CorruptAdapterError:
                continue
            if header.id == adapter_id:
                infos.append(header.info)
        return infos

    async def _heads(self, ids: list[str]) -> list[bytes]:
        """The first bytes of each value, at least up to the end of its header."""
        async with self._client.pipeline(transaction=False) as pipe:
            for adapter_id in ids:
                pipe.getrange(self._prefix + adapter_id, 0, _HEADER_GUESS - 1)
            answers: list[bytes | Exception] = await pipe.execute(raise_on_error=False)
        heads = [
            answer if isinstance(answer, bytes) else b"" for answer in answers
        ]  # a foreign type is no head
        for i, head in enumerate(heads):
            if len(head) == _HEADER_GUESS and (size := _announced(head)) > _HEADER_GUESS:
                heads[i] = await self._read(ids[i], size)
        return heads

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """One call under the timeout and the breaker.

        Raises:
            RedisUnavailableError: instead of anything that went wrong.
        """
        if not self.breaker.allow():
            raise RedisUnavailableError("skipped")
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await call()
        except TimeoutError as error:  # redis.exceptions.TimeoutError is a RedisError, and is next
            self._failed("timeout", error)
            raise RedisUnavailableError("timeout") from error
        except ResponseError as error:  # out of memory, a value of a foreign type: Redis is there and says no
            self.breaker.succeeded()
            log.warning("Redis refuses (%s); the request goes on without it", error)
            raise RedisUnavailableError("error") from error
        except (RedisError, OSError) as error:
            outcome = "timeout" if "Timeout" in type(error).__name__ else "error"
            self._failed(outcome, error)
            raise RedisUnavailableError(outcome) from error
        if not self.breaker.healthy:
            log.warning("Redis answers again")
        self.breaker.succeeded()
        return result

    def _failed(self, outcome: str, error: Exception) -> None:
        self.breaker.failed()
        log.warning(
            "Redis does not answer (%s: %s); requests go on without it",
            outcome,
            type(error).__name__,
            extra={"fields": {"breaker": "open" if self.breaker.is_open else "closed"}},
        )


def _announced(value: bytes) -> int:
    try:
        return header_size(value)
    except CorruptAdapterError:
        return 0
