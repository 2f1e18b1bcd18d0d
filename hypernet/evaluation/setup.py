"""Loads the systems of an evaluation: the checkpoint under test,
its base model and the baselines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from hypernet.evaluation.baselines import ArrowRouting, AverageLora, MultitaskLora, OracleLora
from hypernet.evaluation.conditions import (
    BaseModelOnly,
    Condition,
    CopyInput,
    DescriptionInPrompt,
    Hyperdecoder,
    InContextLearning,
    t2l_conditions,
)
from hypernet.evaluation.eval_task import Instances
from hypernet.evaluation.prompt_forms import combined
from hypernet.evaluation.questions import Questions
from hypernet.evaluation.remote import RemoteRunner
from hypernet.evaluation.results import ResultStore
from hypernet.evaluation.runner import Runner
from hypernet.frozen import FrozenBase
from hypernet.generator import Generator
from hypernet.hardware import fastest_dtype
from hypernet.library import MANIFEST_FILE, Library
from hypernet.lora import InvalidLoraError
from hypernet.model_paths import base_model_folder, loading_model
from hypernet.packing import ChatFormat
from hypernet.peft_io import read_provenance


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The checkpoint under test and its models.

    Attributes:
        checkpoint: checkpoint folder.
        name: of the checkpoint in tables. None: see `system_name`.
        base_model, encoder: folder or hub id. None: the bundled one, or the checkpoint's.
        device: a torch device.
    """

    checkpoint: Path
    name: str | None = None
    base_model: str | None = None
    encoder: str | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """Trained adapters to compare with.

    Attributes:
        multitask: PEFT folder of one LoRA for all tasks.
        library: library of task LoRAs, for average and routing.
        oracles: TASK/ PEFT folders, each trained on the task itself.
        hyperdecoder: checkpoint that was trained with inputs as descriptions.
    """

    multitask: Path | None = None
    library: Path | None = None
    oracles: Path | None = None
    hyperdecoder: Path | None = None

    def check(self, instances: Instances) -> None:
        """Refuse oracles on instances that they were trained on.

        Raises:
            InvalidLoraError: `oracles` without held-out instances.
        """
        if self.oracles and instances != "held-out":
            raise InvalidLoraError(
                "--oracles: an oracle has trained on four fifths of its task's instances: "
                "add --instances held-out"
            )


def load_checkpoint(options: ModelOptions) -> Generator:
    """The checkpoint under test.

    Raises:
        T2lError: checkpoint, encoder or base model cannot be loaded, or do not belong together.
    """
    generator = Generator.load(options.checkpoint, options.encoder, options.device, options.base_model)
    folder = base_model_folder(options.base_model)
    generator.check_base_model(folder)
    return generator


def load_base(options: ModelOptions, generator: Generator) -> FrozenBase:
    """The base model that the checkpoint's adapters are applied to."""
    folder = base_model_folder(options.base_model)
    return FrozenBase(folder, generator.spec, options.device, fastest_dtype(options.device))


def load_runner(
    models: ModelOptions, generator: Generator, server: str | None, store: ResultStore, seed: int
) -> Runner | RemoteRunner:
    """The runner: a server, or the base model in this process.

    Raises:
        ServerError: the server cannot be reached or serves another checkpoint.
    """
    if not server:
        return Runner(load_base(models, generator), store, seed)
    folder = base_model_folder(models.base_model)
    with loading_model(folder):
        chat = ChatFormat(AutoTokenizer.from_pretrained(folder))
    return RemoteRunner(server, generator.fingerprint, folder.name, chat, store, seed)


def load_conditions(
    models: ModelOptions, baselines: BaselineOptions, generator: Generator, questions: Questions, seed: int
) -> list[Condition]:
    """Every condition whose adapters are given.

    Raises:
        LibraryError, InvalidLoraError, AdapterFileError: LoRAs are missing, malformed, or for
            another model.
    """
    system = models.name or system_name(models.checkpoint)
    found: list[Condition] = [
        *(CopyInput(), BaseModelOnly(), DescriptionInPrompt(), InContextLearning()),
        *_lora_baselines(baselines, generator),
        *([_hyperdecoder(baselines.hyperdecoder, models, generator)] if baselines.hyperdecoder else []),
        *t2l_conditions(generator, system, questions.mismatched, seed),
    ]
    return [*found, *combined(found)]


def _lora_baselines(options: BaselineOptions, generator: Generator) -> list[Condition]:
    """The conditions with trained LoRAs."""
    found: list[Condition] = []
    base = generator.base_fingerprint
    if options.multitask:
        found.append(MultitaskLora(options.multitask, generator.spec, system_name(options.multitask)))
        recorded = read_provenance(options.multitask).get("t2l.base_model", base)
        if recorded != base:
            raise InvalidLoraError(f"{options.multitask} is for base model {recorded}, not {base}")
    if options.library:
        library = Library.open(options.library, base)
        found += [AverageLora(library, generator.spec), ArrowRouting(library, generator.spec)]
    if options.oracles:
        if (options.oracles / MANIFEST_FILE).exists():
            Library.open(options.oracles, base)  # raises if it is for another base model
        found.append(OracleLora(options.oracles, generator.spec))
    return found


def _hyperdecoder(folder: Path, models: ModelOptions, tested: Generator) -> Condition:
    generator = Generator.load(folder, models.encoder, models.device, models.base_model)
    if generator.spec != tested.spec:
        raise InvalidLoraError(f"{folder} writes LoRAs of {generator.spec}, the checkpoint of {tested.spec}")
    return Hyperdecoder(system_name(folder), generator)


def system_name(checkpoint: Path) -> str:
    """Name of a checkpoint in tables: its folder, or the run for a run's `best` and `last`."""
    path = checkpoint.resolve()
    run = path.parent.name
    return {"best": run, "last": f"{run}-last"}.get(path.name, path.name)
