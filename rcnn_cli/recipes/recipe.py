"""Recipes: TOML files that describe datasets, networks and uses of stages, validated into frozen dataclasses.

[datasets.train]            # source = "voc:DIR:SPLIT", "shapes:SPLIT", ... and the source's own options
[network]                   # the network, unless a stage makes it
[networks.NAME]             # another network, for a stage whose inputs name it
[extract]                   # one use of the stage `extract`; its settings
[extract.test]              # settings that differ for the test set
[extract-again]             # a second use: stage = "extract", inputs = { proposals = "rpn" }, split = "val"
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.files import cannot
from rcnn_cli.recipes.packaged import advice
from stages.contract.card import Input, Stage
from stages.contract.catalogue import catalogue
from stages.contract.errors import StageError
from stages.contract.kinds import NETWORKS
from stages.contract.settings import all_of, build_settings, nearest, with_network, with_own
from stages.file_names import file_name
from stages.input_files import read_whole
from stages.networks import NETWORKS as CARDS
from stages.networks import NetworkSettings, PlannedNetwork, PlannedTraining, planned_network

LARGEST = 1_000_000
"""Bytes of a TOML file; nobody writes a larger one by hand."""
NOT_TOML = (ValueError, RecursionError)
"""What tomllib raises: TOMLDecodeError (a ValueError), ValueError for overlong numbers, RecursionError."""
RESERVED = ("stage", "inputs", "split")
LONGEST = 100
"""Bytes of a name that is also used for folders."""
NETWORK = "network"
"""The table of the network that a stage uses unless its inputs name another; also the kind of what it describes."""
FEATURES = "features"
"""The kind of what a network computes for regions."""
RECIPE_FOLDER = "{recipe}"
"""Stands for the recipe's folder in the tables of datasets."""
PLAIN = ("name", "description", "datasets", NETWORK, NETWORKS)


class RecipeError(StageError):
    """An invalid recipe; the message names the file and the key."""


@dataclass(frozen=True)
class Use:
    """One use of a stage: its settings (and those that differ per split), its inputs, the split it works on."""

    name: str
    stage: Stage
    settings: Any
    split_settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None

    def settings_for(self, split: str | None) -> Any:
        """The settings that apply to `split`."""
        return self.split_settings.get(split or "", self.settings)


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `datasets` maps each split's name to its table, `networks` each network's name ("network", or
    NAME of [networks.NAME]) to its settings, `uses` each table's name to its use. `changes` are those of --set."""

    path: Path
    name: str
    description: str
    datasets: Mapping[str, Mapping[str, Any]]
    networks: Mapping[str, NetworkSettings]
    uses: Mapping[str, Use]
    changes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def arguments(self) -> str:
        """What commands that messages advise are given: the path and each --set, quoted for a shell."""
        return shlex.join([str(self.path), *(word for change in self.changes for word in ("--set", change))])

    def making(self, kind: str) -> list[str]:
        """The tables whose stage makes `kind`, e.g. "detections", in the order of the file."""
        return [use.name for use in self.uses.values() if use.stage.makes == kind]

    def has(self, table: str) -> bool:
        """Whether `table` is a network or a use of the recipe."""
        return table in self.networks or table in self.uses

    def provider(self, use: Use, needed: Input) -> str | None:
        """The name of what fills an input of the use, from its table or by default; None if nothing does."""
        return use.inputs.get(needed.role) or next((table for table in needed.default if self.has(table)), None)

    def network_of(self, use: Use, path: tuple[str, ...] = ()) -> PlannedNetwork | None:
        """The network that the use trains, runs or reads features of; None if its inputs lead to none.

        `path`: the tables through which it was reached.
        """
        if use.name in path:
            return None
        read = read_networks(use)
        for needed in read:
            name = (self.provider(use, needed) or "").partition("@")[0]
            if name in self.networks:
                return planned_network(self.networks[name])
            source = self.uses.get(name)
            network = self.network_of(source, (*path, use.name)) if source is not None else None
            if source is not None and network is not None:
                return with_training(network, source) if source.stage.makes == NETWORK else network
        if use.stage.makes == NETWORK and not read:
            return PlannedNetwork(CARDS[use.settings.network], trained=False)
        return None

    def network_table_of(self, use: Use) -> str:
        """The table of the network that the use reads."""
        name = next(name for needed in read_networks(use) if (name := self.provider(use, needed)))
        return network_table(name) if name in self.networks else name

    def as_json(self) -> dict[str, Any]:
        """The resolved recipe with all defaults filled in, as recorded in each manifest."""
        uses = {}
        for use in self.uses.values():
            table: dict[str, Any] = {"stage": use.stage.name, **all_of(use.settings)}
            if use.inputs:
                table["inputs"] = dict(use.inputs)
            if use.split:
                table["split"] = use.split
            table.update({split: all_of(settings) for split, settings in use.split_settings.items()})
            uses[use.name] = table
        datasets = {name: dict(table) for name, table in self.datasets.items()}
        networks = {name: all_of(settings) for name, settings in self.networks.items()}
        network = {NETWORK: networks.pop(NETWORK)} if NETWORK in networks else {}
        others = {NETWORKS: networks} if networks else {}
        head = {"name": self.name, "description": self.description, "datasets": datasets}
        return {**head, **network, **others, **uses}


def read_networks(use: Use) -> list[Input]:
    """The inputs of a use that are networks, or made with one."""
    return [needed for needed in use.stage.inputs if {NETWORK, FEATURES} & {*needed.kinds}]


def with_training(network: PlannedNetwork, use: Use) -> PlannedNetwork:
    """As `planned_by`, with the training that the use is."""
    made = planned_by(use, network)
    training = PlannedTraining(use.stage.name, use.settings, use.split, use.inputs, made.card)
    return replace(made, trainings=(*network.trainings, training))


def planned_by(use: Use, network: PlannedNetwork) -> PlannedNetwork:
    """The network that a use makes from the `network` that it reads."""
    plans = use.stage.plans
    return network.fine_tuned if plans is None else plans(with_network(use.settings, network.card), network)


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `changes` ("extract.padding=0"). Raises RecipeError or BadSetting."""
    table = read_toml(path)
    for change in changes:
        apply_change(table, change)
    return replace(build_recipe(path, table), changes=tuple(changes))


def read_toml(path: Path, kind: str = "recipe", prefix: str = "") -> dict[str, Any]:
    """The tables of a TOML file. Raises RecipeError; its message calls the file a `kind` and proposes one that comes
    with rcnn, whose name begins with `prefix`."""
    try:
        return read_tables(path)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such {kind}{advice(path, prefix)}") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: is a folder, not a {kind}; name a file that ends in .toml") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text ({error}); save the {kind} with that encoding") from error
    except OSError as error:
        raise RecipeError(f"{path}: " + cannot("be read", error, f"name a {kind}, a text file in TOML")) from error
    except NOT_TOML as error:
        raise RecipeError(f"{path}: is not valid TOML ({error}); correct that line") from error


def read_tables(path: Path) -> dict[str, Any]:
    """The parsed content of a TOML file. Raises as `toml_text`, and NOT_TOML."""
    return tomllib.loads(toml_text(path))


def toml_text(path: Path) -> str:
    """The text of a TOML file, without the byte order mark that some editors add, and with "\\n" as line ends.

    Raises OSError and UnicodeDecodeError.
    """
    text = read_whole(path, LARGEST).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def apply_change(table: dict[str, Any], change: str) -> None:
    """Applies one `--set section.key=value`; a value that is not valid TOML is a string. Raises RecipeError."""
    name, equals, text = change.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise RecipeError(f"--set {change}: must be written section.key=value, for example --set extract.padding=0")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except NOT_TOML:
        value = text
    if keys[0] not in PLAIN and keys[0] not in table:
        known = [section for section in table if isinstance(table[section], dict)]
        raise RecipeError(f"--set {change}: the recipe has no table [{keys[0]}]{nearest(keys[0], known)}")
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {change}: '{key}' is a value, not a table")
    table[keys[-1]] = value


def build_recipe(path: Path, table: Mapping[str, Any]) -> Recipe:
    """Validates `table`, the parsed TOML of a recipe. Raises RecipeError or BadSetting."""
    datasets = table.get("datasets", {})
    if not isinstance(datasets, dict) or not datasets:
        raise RecipeError(f'{path}: has no dataset; add a table [datasets.train] with a source, such as "shapes:train"')
    for name, dataset in datasets.items():
        check_name(path, f"[datasets.{name}]", name)
        if not isinstance(dataset, dict) or not sources_of(dataset):
            raise RecipeError(
                f'{path}: [datasets.{name}] needs source = "voc:DIR:SPLIT", another kind of source, or a list of them'
            )
    uses = {name: build_use(path, name, value, datasets) for name, value in table.items() if name not in PLAIN}
    if not uses:
        raise RecipeError(f"{path}: uses no stage; add a table such as [propose]")
    networks = build_networks(path, table, uses)
    name = str(table.get("name", file_name(path.stem, LONGEST)))
    check_name(path, f"name = {name!r}", name)
    return with_networks(Recipe(path, name, str(table.get("description", "")), datasets, networks, uses))


def with_networks(recipe: Recipe) -> Recipe:
    """The recipe, its uses' settings completed by the defaults of their networks."""
    uses = dict(recipe.uses)
    for use in recipe.uses.values():
        network = recipe.network_of(use)
        if network is not None:
            of_splits = {split: with_network(own, network.card) for split, own in use.split_settings.items()}
            uses[use.name] = replace(use, settings=with_network(use.settings, network.card), split_settings=of_splits)
    return replace(recipe, uses=uses)


def network_table(name: str) -> str:
    """The name of a network's table: "network" or "networks.NAME"."""
    return name if name == NETWORK else f"{NETWORKS}.{name}"


def build_networks(path: Path, table: Mapping[str, Any], uses: Mapping[str, Use]) -> dict[str, NetworkSettings]:
    """The settings of [network] and each [networks.NAME]. Raises RecipeError, also for a name already in use."""
    named = table.get(NETWORKS, {})
    if not isinstance(named, dict):
        raise RecipeError(f"{path}: {NETWORKS} must contain tables, for example [{NETWORKS}.deep]")
    for name in named:
        check_name(path, f"[{network_table(name)}]", name)
        if name in uses or name in PLAIN:
            raise RecipeError(
                f"{path}: [{NETWORKS}.{name}]: [{name}] is already a table; give the network another name"
            )
    networks = {}
    main = {NETWORK: table[NETWORK]} if NETWORK in table else {}
    for name, network in {**main, **named}.items():
        place = network_table(name)
        if not isinstance(network, dict):
            raise RecipeError(f"{path}: {place} must be a table, [{place}]")
        networks[name] = build_settings(NetworkSettings, network, f"{path}: [{place}]")
    return networks


def check_name(path: Path, place: str, name: str) -> None:
    """Raises RecipeError if `name`, given at `place`, cannot be the name of a folder for results."""
    if file_name(name, LONGEST) != name:
        raise RecipeError(
            f"{path}: {place[:200]}: this name is also used for a folder; use only letters, digits, '-' and '_', "
            f"at most {LONGEST} bytes"
        )


def sources_of(dataset: Mapping[str, Any]) -> list[str]:
    """The sources in a dataset's table, one or several; [] if `source` is neither a string nor a list of strings."""
    source = dataset.get("source")
    sources: list[Any] = source if isinstance(source, list) else [source]
    return sources if all(isinstance(name, str) for name in sources) else []


def with_recipe_folder(dataset: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A dataset's table with RECIPE_FOLDER replaced by `folder` in its source, or sources, and in its options."""

    def replaced(value: Any) -> Any:
        if isinstance(value, list):
            return [replaced(one) for one in value]
        return value.replace(RECIPE_FOLDER, folder) if isinstance(value, str) else value

    return {key: replaced(value) for key, value in dataset.items()}


def build_use(path: Path, name: str, table: Any, datasets: Mapping[str, Any]) -> Use:
    """Validates one table of a recipe as a use of a stage. Raises RecipeError or BadSetting."""
    stages = catalogue()
    check_name(path, f"[{name}]", name)
    if not isinstance(table, dict):
        known = [*PLAIN, *stages]
        advice = f"; write it as [{name}]" if name in known else nearest(name, known)
        raise RecipeError(f"{path}: '{name}' is not a table{advice}")
    stage_name = table.get("stage", name)
    if not isinstance(stage_name, str) or stage_name not in stages:
        advice = nearest(str(stage_name), stages)
        raise RecipeError(f'{path}: [{name}] is not a stage{advice} (or name the stage with stage = "...")')
    stage = stages[stage_name]
    inputs = table.get("inputs", {})
    roles = [needed.role for needed in stage.inputs]
    if not isinstance(inputs, dict) or not all(isinstance(value, str) for value in inputs.values()):
        raise RecipeError(f'{path}: [{name}] inputs must be a table of names, such as {{ {roles[0]} = "..." }}')
    for role in inputs:
        if role not in roles:
            raise RecipeError(f"{path}: [{name}] has no input '{role}'{nearest(role, roles)}")
    split = table.get("split")
    if split is not None and (not isinstance(split, str) or split not in datasets):
        raise RecipeError(
            f"{path}: [{name}] split = {split!r} is not a dataset of this recipe{nearest(str(split), datasets)}"
        )
    common = {key: value for key, value in table.items() if key not in RESERVED and not isinstance(value, dict)}
    settings = build_settings(stage.settings, common, f"{path}: [{name}]")
    split_settings = {}
    for key, value in table.items():
        if isinstance(value, dict) and key != "inputs":
            if key not in datasets:
                raise RecipeError(f"{path}: [{name}.{key}]: the recipe has no dataset '{key}'{nearest(key, datasets)}")
            split_settings[key] = build_settings(
                stage.settings, with_own(stage.settings, common, value), f"{path}: [{name}.{key}]"
            )
    return Use(name, stage, settings, split_settings, inputs, split)
