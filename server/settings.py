"""Everything that an operator can set: `T2L_*` in the environment, frozen, and checked before anything starts.

Only `app` and `cli` read this; every part gets plain values. The README's table
is printed from here (`t2l settings`).
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, RedisDsn, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hypernet.model_paths import DEFAULT_CHECKPOINT

PREFIX = "T2L_"
MIB = 2**20

_SERVICE_LINK = f"{PREFIX}SERVICE_HOST"
"""What Kubernetes sets, among others, in every pod beside a Service called `t2l`."""

RENAMED: dict[str, str] = {}
"""Former environment variables and the ones that replace them. A former one fails at the start."""


class Settings(BaseSettings):
    """The server's settings. Sizes in bytes and times in seconds, as the names say."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    # where
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")

    # what
    checkpoint: Path = Field(
        DEFAULT_CHECKPOINT, description="Folder of the hypernetwork. Default: `checkpoints/smollm2-135m`."
    )
    base_model: str | None = Field(
        None, description="Folder or hub id of the base model. Default: the embedded SmolLM2-135M-Instruct."
    )
    encoder: str | None = Field(
        None,
        description="What embeds descriptions: folder or hub id of a sentence encoder (after `remote-code:` if "
        "its own code may run), `base-model`, or `last-token:NAME`. Default: the embedded all-MiniLM-L6-v2, or "
        "`base-model` for a checkpoint trained so.",
    )
    model_name: str | None = Field(
        None, description="What answers call the base model. Default: its last path part."
    )
    hypernetwork_device: str = Field(
        "cpu", description="Where hypernetwork and encoder run: `cpu`, `cuda`, ..."
    )
    hypernetwork_compile: Literal["auto", "0", "1"] = Field(
        "auto",
        description="1 compiles the hypernetwork at the start, for batches of 1, 8 and `T2L_MAX_BATCH`; "
        "`auto` does so on a GPU.",
    )
    cache: Path | None = Field(
        None, description="Where unpacked models are kept. Default: `$XDG_CACHE_HOME/t2l` or `~/.cache/t2l`."
    )

    # the engine
    max_model_len: int = Field(2048, ge=16, description="Context: tokens of prompt and completion together.")
    max_loras: int = Field(8, ge=1, description="Adapters in the engine at once, so also per step.")
    max_num_seqs: int = Field(64, ge=1, description="Sequences in one engine step.")
    kv_cache_bytes: int = Field(
        512 * MIB, ge=0, description="Bytes of KV cache. 0 lets vLLM take its usual share of the device."
    )
    tensor_parallel: int = Field(1, ge=1, description="Devices that share the base model; on a CPU, processes.")
    dtype: str = Field(
        "auto",
        description="Number format of the base model, as vLLM names them. On a CPU without bf16 arithmetic "
        "`auto` is float32.",
    )
    cpu_threads: int | None = Field(
        None,
        ge=1,
        description="Threads of each process of a CPU engine. Default: its share of all cores but one.",
    )

    cpu_lora_kernel: Literal["0", "products", "1"] = Field(
        "1",
        description="1 runs adapters on a CPU with our kernel, compiled at start where there is a compiler; "
        "`products` never compiles; 0 is vLLM's own, which answers mixed batches wrongly.",
    )
    cpu_ops: Literal["0", "1"] = Field(
        "1",
        description="1 has vLLM use its own CPU kernels for norms and positions, 0 torch's small operations.",
    )
    stacked_slots: Literal["0", "1"] = Field(
        "1", description="1 loads an adapter with two copies a module, 0 with vLLM's own for every layer."
    )
    lend_weights: Literal["0", "1"] = Field(
        "0",
        description="1 leaves a new adapter on the device where it was written and tells the engine where it "
        "lies. For a hypernetwork on the engine's own GPU; not yet run on one.",
    )
    hypernetwork_threads: int = Field(
        1, ge=1, description="CPU threads of encoder and hypernetwork; more would fight the engine's."
    )

    # limits
    max_requests: int = Field(256, ge=1, description="Requests answered at once; more get 429.")
    max_queue: int = Field(256, ge=1, description="New descriptions waiting for an adapter; more get 429.")
    max_batch: int = Field(16, ge=1, description="Descriptions per pass of the hypernetwork.")
    max_body_bytes: int = Field(MIB, ge=1024, description="Largest request body; larger ones get 413.")
    request_timeout_s: float = Field(300, gt=0, description="Longest time for one request; then 503.")
    drain_timeout_s: float = Field(30, ge=0, description="After SIGTERM, how long what runs may go on.")

    exit_after_death_s: float = Field(
        10,
        ge=0,
        description="If the engine dies, how long the server says so before it exits with status 1, to be "
        "restarted.",
    )

    # the cache
    memory_bytes: int = Field(256 * MIB, ge=0, description="Adapters kept in this process, in bytes.")
    redis_url: RedisDsn | None = Field(None, description="Redis shared by replicas. Default: memory only.")
    redis_timeout_s: float = Field(0.5, gt=0, description="Longest time for one call to Redis.")
    redis_ttl_s: int = Field(7 * 86400, ge=1, description="How long an adapter stays in Redis.")
    redis_max_bytes: int = Field(
        4096 * MIB, ge=0, description="Adapters of one hypernetwork in Redis, in bytes."
    )
    redis_failures: int = Field(3, ge=1, description="Failures in a row after which Redis is left alone.")
    redis_cooldown_s: float = Field(5, gt=0, description="How long it is left alone before it is tried again.")
    write_queue_bytes: int = Field(
        256 * MIB, ge=0, description="Adapters waiting to be written to Redis, in bytes."
    )
    cache_key: SecretStr = Field(
        SecretStr("t2l"),
        description="Secret that keys adapter ids and signs values in Redis; the same on replicas. Set "
        "your own where others reach that Redis.",
    )

    # logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line per request, as text or JSON.")

    @property
    def compiles_hypernetwork(self) -> bool:
        """Whether to: on a CPU its weights are packed instead, which the compiler does not take."""
        on_gpu = not self.hypernetwork_device.startswith("cpu")
        return on_gpu if self.hypernetwork_compile == "auto" else self.hypernetwork_compile == "1"

    @model_validator(mode="after")
    def _check_one_device(self) -> Self:
        if self.lend_weights == "1" and self.tensor_parallel > 1:
            shared, ranks = env_variable("lend_weights"), env_variable("tensor_parallel")
            raise ValueError(f"{shared}=1 works with one device only: set {ranks}=1")
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: Any) -> Any:
        """A misspelt variable must not be silently ignored."""
        if _SERVICE_LINK in os.environ:
            raise ValueError(
                "Kubernetes has set variables of a Service called `t2l`, which are read as settings: give the "
                "pod `enableServiceLinks: false`, or the Service another name"
            )
        known = {env_variable(name): field for name, field in cls.model_fields.items()}
        for name in sorted(os.environ):
            if replacement := RENAMED.get(name.upper()):
                raise ValueError(
                    f"{name} is now {replacement}: set that variable instead. {known[replacement].description}"
                )
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                nearest = get_close_matches(name, known, n=1, cutoff=0)[0]
                raise ValueError(f"there is no setting {name}; the nearest is {nearest}")
        return values


def env_variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def settings_table() -> str:
    """All settings as a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "" if default is None or isinstance(default, Path) else f"`{default}`"
        rows.append(f"| `{env_variable(name)}` | {shown} | {field.description} |")
    return "\n".join(rows)
