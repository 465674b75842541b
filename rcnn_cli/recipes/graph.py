"""The graph that a recipe describes: which cache is made from which, and by what key each is known.

The graph knows no stage by name. A node is one use of a stage on one split. Stages that follow a split (propose,
extract, detect) are made once for every split that another node asks of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcnn_cli.recipes.recipe import NETWORK, Recipe, RecipeError, Use, network_table, sources_of, with_recipe_folder
from stages.contract.card import Input
from stages.contract.errors import BadSetting
from stages.contract.inputs import Inputs
from stages.contract.kinds import DATASETS, KINDS, NETWORKS, Kind
from stages.contract.settings import condition_words, holds, identity_of, nearest
from stages.file_names import file_name
from stages.networks import NetworkSource

# The wiring alone needs no numpy and no h5py: the shell completes names while a finger is on the key.
if TYPE_CHECKING:
    from cache import Identity

NONE = "none"
CACHES = "caches"  # the folder, in the work folder, that has one for each stage


@dataclass(frozen=True)
class Described:
    """What a table of the recipe describes, which needs no cache: a dataset or a network (`section`), by its name."""

    section: str
    name: str

    @property
    def table(self) -> str:
        """The table, as "datasets.train", "network" or "networks.deep"."""
        return network_table(self.name) if self.section == NETWORKS else f"{self.section}.{self.name}"


@dataclass(frozen=True)
class Node:
    """One cache to be: a use of a stage on a split, and the nodes, datasets and networks that fill its inputs."""

    use: Use
    split: str | None
    sources: Mapping[str, Node | Described]

    @property
    def name(self) -> str:
        """As messages and `status` show it: "extract@train", "train-svm"."""
        return f"{self.use.name}@{self.split}" if self.use.stage.follows_split else self.use.name

    @property
    def table(self) -> str:
        """The recipe's table with this node's settings: "extract", or "extract.test" where its split has its own."""
        return f"{self.use.name}.{self.split}" if self.split in self.use.split_settings else self.use.name

    @property
    def settings(self) -> Any:
        """The settings that hold for this node's split."""
        return self.use.settings_for(self.split)

    @property
    def wants_cache(self) -> bool:
        """Whether what it makes is to be kept: false with `cache = false`, which not all stages have."""
        return bool(getattr(self.settings, "cache", True))

    @property
    def dataset(self) -> str:
        """The recipe's dataset that its images are of: the one that its input names, which need not be its split, else
        that of the node that it reads split by split."""
        for name in self.reads_datasets():
            return name
        return next(source.dataset for source in self.upstream() if source.use.stage.follows_split)

    def reads_datasets(self) -> Iterator[str]:
        """The datasets that it reads itself."""
        for source in self.sources.values():
            if isinstance(source, Described) and source.section == DATASETS:
                yield source.name

    def upstream(self) -> Iterator[Node]:
        """The nodes that this one reads."""
        return (source for source in self.sources.values() if isinstance(source, Node))

    def made_from(self, kind: str) -> Node | None:
        """The nearest node upstream that makes this ("features", say) of the images that this one is about; None where
        there is none."""
        return next((node for node in self.image_path() if node is not self and node.use.stage.makes == kind), None)

    def image_path(self) -> Iterator[Node]:
        """The nodes that an image passes through on its way to this one's results, this one first: not those that
        learn from other images."""
        nodes: list[Node] = [self]
        while nodes:
            yield from nodes
            nodes = [source for node in nodes for source in node.upstream() if source.use.stage.follows_split]


class Graph:
    """All nodes of a recipe, inputs before what reads them."""

    def __init__(self, recipe: Recipe, work: Path, open_datasets: dict[str, Any] | None = None) -> None:
        """Raises RecipeError where an input has no provider or one of the wrong kind, or where uses form a circle.

        `open_datasets` is shared by the graphs of recipes that read the same data, so that it is opened once.
        """
        self.recipe = recipe
        self.work = work
        self.nodes: dict[str, Node] = {}
        self.open_datasets = {} if open_datasets is None else open_datasets
        self.identities: dict[str, Identity] = {}
        self.folders: dict[tuple[str, str], Path] = {}
        self.networks: dict[str, NetworkSource] = {}
        self.keys_of_items: dict[str, dict[str, str]] = {}
        for use in recipe.uses.values():
            if not use.stage.follows_split:
                self.add(use, use.split or use.stage.split, ())
        for use in recipe.uses.values():
            if use.stage.follows_split and not any(node.use is use for node in self.nodes.values()):
                self.add(use, use.split or use.stage.split or self.only_split(use), ())

    def check(self, nodes: Iterable[Node] | None = None) -> None:
        """Raises RecipeError where the settings of `nodes` (default: all) or of what they are made from do not fit
        their network, or those of the tables that they read; StageError if that may be because weights are missing."""
        needed = {
            name: self.nodes[name] for node in nodes or () for name in (source.name for source in self.needed(node))
        }
        for node in (self.nodes if nodes is None else needed).values():
            self.check_node(node)

    def check_node(self, node: Node) -> None:
        """As `check`, one node alone."""
        if node.use.stage.check is not None:
            sources = {role: self.settings_of(source) for role, source in node.sources.items()}
            try:
                node.use.stage.check(node.settings, self.recipe.network_of(node.use), sources)
            except BadSetting as error:
                for name in self.recipe.networks:  # without its file, a network's heads are unknown: that is said first
                    self.network(name)
                raise RecipeError(f"{self.recipe.path}: [{node.table}] {error}") from None
        for wanted in node.use.stage.inputs:
            source = node.sources.get(wanted.role)
            if wanted.of_trunk and isinstance(source, Node):
                self.check_trunk(node, source)

    def settings_of(self, source: Node | Described) -> Any:
        """What the recipe's table says of something that fills an input."""
        if isinstance(source, Node):
            return source.settings
        return (self.recipe.networks if source.section == NETWORKS else self.recipe.datasets)[source.name]

    def check_trunk(self, node: Node, source: Node) -> None:
        """Raises RecipeError if the network that made the `source`, an input of the node, is sure to have another trunk
        than the node's own."""
        own, other = self.recipe.network_of(node.use), self.recipe.network_of(source.use)
        if own is None or other is None or own == other:
            return
        from stages.training.frozen import trunk_differs  # imported here: it imports PyTorch

        if trunk_differs(own, other):
            theirs, ours = (self.recipe.network_table_of(use) for use in (source.use, node.use))
            raise RecipeError(
                f"{self.recipe.path}: [{node.table}] reads [{source.table}], whose network is [{theirs}], but its own "
                f"is [{ours}], with another trunk; name the same network in the inputs of both"
            )

    def only_split(self, use: Use) -> str:
        """The split of a use that nobody asks for: the test set, or the only dataset."""
        names = list(self.recipe.datasets)
        return "test" if "test" in names else names[0]

    def add(self, use: Use, split: str | None, path: tuple[str, ...]) -> Node:
        """The node of `use` on `split`, made with all that it reads. `path` is how it was reached."""
        name = f"{use.name}@{split}"
        if name in path:
            raise RecipeError(f"{self.recipe.path}: [{use.name}] needs itself ({' <- '.join([*path, name])})")
        sources = {wanted.role: self.provider(use, split, wanted, (*path, name)) for wanted in use.stage.inputs}
        node = Node(use, split, {role: source for role, source in sources.items() if source is not None})
        return self.nodes.setdefault(node.name, node)

    def provider(self, use: Use, split: str | None, wanted: Input, path: tuple[str, ...]) -> Node | Described | None:
        """What fills one input: a node, a dataset or network that a table describes, None for nothing."""
        named = use.inputs.get(wanted.role)
        settings = use.settings_for(split)
        if wanted.only_if is not None and not holds(settings, wanted.only_if):
            if named not in (None, NONE):
                setting = wanted.only_if[0]
                raise RecipeError(
                    f"{self.recipe.path}: [{use.name}] inputs.{wanted.role} = '{named}' is not read with "
                    f"{setting} = '{getattr(settings, setting)}'; remove it, or set {condition_words(wanted.only_if)}"
                )
            return None
        if wanted.counterpart is not None and use.inputs.get(wanted.counterpart[1]) in (None, NONE):
            if named not in (None, NONE):
                raise RecipeError(
                    f"{self.recipe.path}: [{use.name}] inputs.{wanted.role} = '{named}' is not read without "
                    f"inputs.{wanted.counterpart[1]}; name a dataset there, or remove it"
                )
            return None
        described = {KINDS[kind].described_by for kind in wanted.kinds}
        if DATASETS in described and wanted.optional and named in (None, NONE):
            return None
        if DATASETS in described:
            return Described(DATASETS, self.dataset_name(use, named or split))
        if named == NONE and wanted.optional:
            return None
        name = self.recipe.provider(use, wanted)
        if wanted.counterpart is not None:
            split = use.inputs[wanted.counterpart[1]]
            name = name or self.counterpart(use, wanted.counterpart[0])
        kinds = " or ".join(wanted.kinds)
        if name is None:
            if wanted.optional:
                return None
            raise RecipeError(
                f"{self.recipe.path}: [{use.name}] needs {kinds}; "
                f"add a table [{wanted.default[0] if wanted.default else kinds}], or name one in its inputs"
            )
        networks = self.recipe.networks if NETWORKS in described else {}
        if name in networks:
            return Described(NETWORKS, name)
        base, _, at = name.partition("@")
        if name == NONE and NONE not in self.recipe.uses:
            raise RecipeError(
                f"{self.recipe.path}: [{use.name}] inputs.{wanted.role} = '{NONE}': this input is required; name a "
                f"table that makes {kinds}, or leave it out"
            )
        if base not in self.recipe.uses:
            advice = nearest(base, [*self.recipe.uses, *networks])
            raise RecipeError(
                f"{self.recipe.path}: [{use.name}] inputs.{wanted.role} = '{name}' is not a table{advice}"
            )
        source = self.recipe.uses[base]
        if source.stage.makes not in wanted.kinds:
            raise RecipeError(
                f"{self.recipe.path}: [{use.name}] inputs.{wanted.role} = '{name}' makes {source.stage.makes}, "
                f"not {kinds}"
            )
        if source.stage.follows_split:
            return self.add(source, self.dataset_name(use, at or split), path)
        return self.add(source, source.split or source.stage.split, path)

    def counterpart(self, use: Use, role: str) -> str | None:
        """The table that fills the input in a role of the use, whatever the split."""
        name = self.recipe.provider(use, next(one for one in use.stage.inputs if one.role == role))
        return None if name is None else name.partition("@")[0]

    def dataset_name(self, use: Use, split: str | None) -> str:
        """`split`, if it is a dataset of the recipe."""
        if split is None or split not in self.recipe.datasets:
            advice = nearest(str(split), self.recipe.datasets)
            raise RecipeError(
                f"{self.recipe.path}: [{use.name}] works on the dataset '{split}', which the recipe does not have"
                f'{advice}; add [datasets.{split}] or say split = "..."'
            )
        return split

    def needed(self, node: Node) -> list[Node]:
        """The node and all that it is made from, inputs first, cached or not."""
        names = {node.name}
        for other in reversed(self.nodes.values()):
            if other.name in names:
                names.update(source.name for source in other.upstream())
        return [other for other in self.nodes.values() if other.name in names]

    def making(self, *kinds: str) -> list[Node]:
        """The nodes that make something of these kinds ("detections", say), inputs before what reads them."""
        return [node for node in self.nodes.values() if node.use.stage.makes in kinds]

    # What is cached

    def readers(self, node: Node) -> list[Node]:
        """The nodes that read this one."""
        return [other for other in self.nodes.values() if any(source.name == node.name for source in other.upstream())]

    def is_cached(self, node: Node) -> bool:
        """False where the recipe says `cache = false` and all that read the node read each of its items once."""
        if node.wants_cache:
            return True
        once = [
            wanted.once
            for reader in self.readers(node)
            for wanted in reader.use.stage.inputs
            if isinstance(source := reader.sources.get(wanted.role), Node) and source.name == node.name
        ]
        return not once or not all(once)

    def caches(self) -> list[Node]:
        """The nodes that are cached, inputs before what reads them."""
        return [node for node in self.nodes.values() if self.is_cached(node)]

    def uncached_sources(self, node: Node) -> list[Node]:
        """The nodes without a cache that are computed while this one is made, each once."""
        sources: dict[str, Node] = {}
        for source in node.upstream():
            if not self.is_cached(source):
                sources |= {other.name: other for other in (source, *self.uncached_sources(source))}
        return list(sources.values())

    def makers(self, nodes: Iterable[Node]) -> list[Node]:
        """The nodes, and what is computed on demand while they are made, each once."""
        makers = {maker.name: maker for node in nodes for maker in (node, *self.uncached_sources(node))}
        return list(makers.values())

    def reads(self, node: Node) -> list[Node]:
        """The caches that must be complete before the node can be made."""
        sources = (source for maker in self.makers([node]) for source in maker.upstream() if self.is_cached(source))
        return list({source.name: source for source in sources}.values())

    def select(self, use: str, split: str | None = None) -> list[Node]:
        """The nodes of the uses that are named `use` or use the stage `use`, on `split` if given."""
        chosen = [node for node in self.nodes.values() if use in (node.use.name, node.name)]
        chosen = chosen or [node for node in self.nodes.values() if node.use.stage.name == use]
        if not chosen:
            names = sorted({node.use.name for node in self.nodes.values()})
            raise RecipeError(f"{self.recipe.path}: has no table [{use}]{nearest(use, names)}")
        on_split = [node for node in chosen if split in (None, node.split)]
        if not on_split:
            tables = list(dict.fromkeys(f"[{node.use.name}]" for node in chosen))
            splits = ", ".join(dict.fromkeys(str(node.split) for node in chosen))
            no, they = ("is not", "it is") if len(tables) == 1 else ("are not", "they are")
            raise RecipeError(
                f"{self.recipe.path}: {', '.join(tables)} {no} needed on the split '{split}'; {they} on {splits}"
            )
        return on_split

    def command_making(self, node: Node, *, on_split: bool = False) -> str:
        """The command that makes the node: its stage's, `on_split` alone if so, or `rcnn run` where the stage's makes
        other tables only."""
        stage = node.use.stage.name
        if node not in self.select(stage):
            return f"rcnn run {self.recipe.arguments}"
        return f"rcnn {stage} {self.recipe.arguments}{f' --split {node.split}' if on_split else ''}"

    # Inputs that are no caches

    def described(self, source: Described, *kinds: str) -> Any:
        """The dataset, of one of these `kinds` if any is named (see `dataset`), or the network."""
        return self.network(source.name) if source.section == NETWORKS else self.dataset(source.name, *kinds)

    def dataset(self, name: str, *kinds: str) -> Any:
        """The dataset of a split, opened once. Raises RecipeError if it is of none of the `kinds` that a stage reads
        (none are named: of any)."""
        from stages.datasets import open_dataset

        table = with_recipe_folder(self.recipe.datasets[name], str(self.recipe.path.parent))
        sources = sources_of(table)
        del table["source"]
        described = f"{sources} {table}"
        if described not in self.open_datasets:
            self.open_datasets[described] = open_dataset(sources, work=self.work, options=table)
        dataset = self.open_datasets[described]
        if kinds and not any(fits(dataset) for kind in kinds if (fits := KINDS[kind].fits)):
            needed = " or ".join(KINDS[kind].holds for kind in kinds)
            raise RecipeError(
                f"{self.recipe.path}: [datasets.{name}] {', '.join(sources)} is read by a stage that "
                f"needs a dataset with {needed}; name another source, or another split for that stage"
            )
        return dataset

    def open_own_data(self) -> None:
        """Opens the datasets that are read and not drawn by the project: a wrong folder is said before all that takes
        time. Raises BadDataset."""
        from stages.datasets.sources import GENERATED

        read = {name for node in self.nodes.values() for name in node.reads_datasets()}
        for name, table in self.recipe.datasets.items():
            if name in read and any(source.partition(":")[0] not in GENERATED for source in sources_of(table)):
                self.dataset(name)

    def network(self, name: str = NETWORK) -> NetworkSource:
        """The network that [network], or [networks.NAME], describes."""
        if name not in self.networks:
            self.networks[name] = NetworkSource.from_settings(self.recipe.networks[name], network_table(name))
        return self.networks[name]

    # Keys

    def identity(self, node: Node) -> Identity:
        """All that decides the content of the node's cache (this reads datasets' and weights' checksums)."""
        if node.name not in self.identities:
            self.identities[node.name] = self.make_identity(node)
        return self.identities[node.name]

    def make_identity(self, node: Node) -> Identity:
        from cache import Identity

        stage = node.use.stage
        roles = {wanted.role: wanted for wanted in stage.inputs}
        inputs = {role: self.source_key(roles[role], source) for role, source in node.sources.items()}
        libraries = {name: installed_version(name) for name in stage.libraries}
        settings = identity_of(node.settings)
        if stage.reads_files:
            settings |= stage.load().identity(node.settings, Inputs(), self.work)
        return Identity(stage.name, stage.schema_version, settings, inputs, libraries)

    def source_key(self, wanted: Input, source: Node | Described) -> str:
        """The key of what fills an input."""
        if isinstance(source, Node):
            return self.identity(source).key
        described = self.described(source, *wanted.kinds)
        kind = kind_of(described, wanted, source)
        assert kind.key is not None
        if wanted.masks and not described.has_masks:
            raise RecipeError(
                f"{self.recipe.path}: [datasets.{source.name}] is read by a stage that needs masks; set masks = true "
                "there, or name a source that has masks"
            )
        return kind.key(described, wanted)

    def item_keys(self, node: Node) -> dict[str, str]:
        """What decides each item's record, by the item's id, as a key of 32 hex digits; none for a stage that does not
        work item by item. An item whose image or annotation cannot be read has no key.

        An image's key covers its id, its pixels and, where annotations count, its record; that of an item of a cache is
        the key there. All else is as in the cache's own identity.
        """
        if not node.use.stage.by_item:
            return {}
        if node.name not in self.keys_of_items:
            self.keys_of_items[node.name] = self.make_item_keys(node)
        return self.keys_of_items[node.name]

    def image_digests(self, node: Node) -> dict[str, str]:
        """What decides the pixels of each image that the node reads, by its id; none if its items are no images.

        Whoever decodes an image has compared its file with this.
        """
        if not node.use.stage.by_item:
            return {}
        return {
            image_id: digest
            for dataset in map(self.dataset, node.reads_datasets())
            for image_id, digest in zip(dataset.image_ids, dataset.pixel_digests, strict=True)
        }

    def make_item_keys(self, node: Node) -> dict[str, str]:
        from cache.identity import canonical_json, short_digest

        whole = self.identity(node).as_json()
        whole["inputs"] = dict(whole["inputs"])
        of_items: dict[str, dict[str, str]] = {}
        for wanted in node.use.stage.inputs:
            source = node.sources.get(wanted.role)
            if wanted.all_items:
                continue
            if isinstance(source, Node) and source.use.stage.by_item:
                of_items[wanted.role] = self.item_keys(source)
            elif isinstance(source, Described) and (keys := self.image_keys(wanted, source)) is not None:
                of_items[wanted.role] = keys
            else:
                continue
            del whole["inputs"][wanted.role]
        common = canonical_json(whole)
        ids = set.intersection(*map(set, of_items.values())) if of_items else set()
        return {
            item_id: short_digest(common, *(f"{role}={of_items[role][item_id]}" for role in of_items))
            for item_id in ids
        }

    def image_keys(self, wanted: Input, source: Described) -> dict[str, str] | None:
        """What decides each image of what a table describes, None where that has no images with keys of their own."""
        described = self.described(source)
        keys = kind_of(described, wanted, source).image_keys
        return keys(described, wanted) if keys else None

    def folder(self, node: Node) -> Path:
        """Where the node's cache is or will be: an existing folder with its key, whatever its label, else a new one."""
        stage, key = node.use.stage.name, self.identity(node).key
        known = self.folders.get((stage, key))
        if known is not None and known.is_dir():
            return known
        parent = self.work / CACHES / stage
        existing = sorted(parent.glob(f"*.{key}"))
        folder = existing[0] if existing else parent / f"{self.label(node)}.{key}"
        self.folders[stage, key] = folder
        return folder

    def label(self, node: Node) -> str:
        """The readable half of the folder's name."""
        use = "" if node.use.name == node.use.stage.name else f"-{node.use.name}"
        split = f"-{node.split}" if node.split else ""
        return file_name(f"{self.recipe.name}{use}{split}")


def kind_of(described: Any, wanted: Input, source: Described) -> Kind:
    """Which of the kinds that an input may be a table's dataset or network is."""
    kinds = [kind for name in wanted.kinds if (kind := KINDS[name]).described_by == source.section]
    return next(kind for kind in kinds if kind.fits is None or kind.fits(described))


def installed_version(distribution: str) -> str:
    """The version of an installed distribution; for OpenCV of whichever of its packages is there."""
    names = [distribution]
    if distribution.startswith("opencv"):
        names = ["opencv-contrib-python", "opencv-contrib-python-headless"]
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "absent"
