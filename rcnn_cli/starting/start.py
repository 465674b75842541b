"""`rcnn init`: reads a folder, says what is in it, divides its images, and writes a recipe that runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.files import cannot
from rcnn_cli.outputs import OutputFolder
from rcnn_cli.recipes.graph import Graph, Node
from rcnn_cli.recipes.recipe import LONGEST, build_recipe
from rcnn_cli.running.runner import Options, duration
from rcnn_cli.starting.differences import different_tables, list_change
from rcnn_cli.starting.division import as_divided, divide
from rcnn_cli.starting.findings import Checked, check_sets, class_lines, class_notes, counts_of, names_of
from rcnn_cli.starting.folder import find_layout
from rcnn_cli.starting.layouts import WHOLE, Layout, Part, Place, Written
from rcnn_cli.starting.search import TEST, TRAIN, VAL, Search
from rcnn_cli.starting.sizing import fitted, largest, tried
from rcnn_cli.starting.systems import SYSTEMS, Sizes, backbone, recipe_text
from rcnn_cli.starting.trial import ITERATIONS, trial
from stages.contract.errors import StageError
from stages.datasets import BadDataset
from stages.datasets.listing import Listing
from stages.file_names import file_name
from stages.images.reading import SUFFIXES
from stages.plurals import number_of

FRACTIONS = (0.6, 0.2, 0.2)

Say = Callable[[str], None]
OptionsFor = Callable[[Sequence[Node]], Options]


@dataclass(frozen=True)
class Wish:
    """What the user asks for: the system, the classes (None: all), the shares of train, val and test (None: the usual
    ones), the seed of the division, minutes that a run may take, whether images without an annotation file have no
    objects, and whether a recipe that is there already is to be measured and written anew (`force`)."""

    system: str
    classes: tuple[str, ...] | None
    fractions: tuple[float, float, float] | None
    seed: int
    minutes: float
    background: bool
    force: bool = False


def start(folder: Path, output: Path, work: Path, wish: Wish, options_for: OptionsFor, say: Say) -> bool:
    """Writes a recipe for the images in `folder`, and the lists that it names, to `output`; says what was found. False
    if the images have no annotations, so that there is nothing to write. `options_for` gives the options to run nodes
    with. Raises StageError and BadImage."""
    search = Search(folder, work, wish.classes)
    layout = found_layout(search, say)
    if layout is None:
        say(without_annotations(search.folder))
        return False
    place = Place(output, file_name(search.folder.resolve().name.lower(), LONGEST // 2))
    name = f"{place.stem}-{wish.system}.toml"
    folder_of_recipe = OutputFolder(output)
    folder_of_recipe.check([name])
    say_found(search, layout, say)
    sets = check_sets(layout, background=wish.background)
    say_checked(sets, wish, say)
    parts = divided_parts(layout, sets, wish, say)
    written = layout.written(parts, place)
    folder_of_recipe.check(written.files)
    fit = Fit(output / name, search.folder, written, len(parts[TRAIN].image_ids), wish)
    if fit.path.exists() and not wish.force:
        check_the_same(fit)
        write_lists(folder_of_recipe, written.files)
        say(f"{fit.path}: exists already, written by rcnn init; --force measures again and chooses sizes anew. Next:")
        say(f"  rcnn run {shlex.quote(str(fit.path))}")
        return True
    say_replaced(output, name, written.files, say)
    made(output)
    write_lists(folder_of_recipe, written.files)
    text, seconds = fit.recipe(work, options_for, say)
    folder_of_recipe.write(name, text)
    say(f"Written: {', '.join(str(output / file) for file in (name, *written.files))}")
    path = shlex.quote(str(output / name))
    say(f"A run will take about {duration(seconds)} on this machine. Next:\n  rcnn run {path}")
    return True


def found_layout(search: Search, say: Say) -> Layout | None:
    """As `find_layout`; says all faults of a file that has several."""
    try:
        return find_layout(search)
    except BadDataset as error:
        if error.faults is None or len(error.faults) == 1:
            raise
        for fault in error.faults.sentences():
            say(fault)
        raise StageError(
            f"{error.faults.path}: has {number_of(len(error.faults), 'problem')}, above; correct them, then run this "
            "again"
        ) from None


def made(folder: Path) -> None:
    """Makes the folder, by way of which the recipe names others. Raises StageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(f"-o {folder}: " + cannot("be created as a folder", error, "choose another place")) from error


def say_replaced(output: Path, name: str, files: Mapping[str, str], say: Say) -> None:
    """Says which other recipes are about lists that will change."""
    changed = [file for file, text in files.items() if text_of(output / file) not in ("", text)]
    recipes = [path for path in sorted(output.glob("*.toml")) if path.name != name] if changed else []
    users = [path.name for path in recipes if any(file in text_of(path) for file in files)]
    if users:
        say(
            f"Note: {', '.join(changed)} {'changes' if len(changed) == 1 else 'change'}, and with it what "
            f"{' and '.join(users)} {'is' if len(users) == 1 else 'are'} about; to keep both, choose another folder "
            "with -o"
        )


def write_lists(folder: OutputFolder, files: Mapping[str, str]) -> None:
    """Writes the lists that are not there or differ. Raises StageError."""
    for file, text in files.items():
        if text_of(folder.path / file) != text:
            folder.write(file, text)


def text_of(path: Path) -> str:
    """The text of a file; "" if there is none."""
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def say_found(search: Search, layout: Layout, say: Say) -> None:
    """Says which layout the folder has, and the notes of the search."""
    images = sum(map(len, layout.sets.values()))
    classes = len(next(iter(layout.sets.values())).classes)
    say(f"{search.folder}: {layout.words}; {number_of(images, 'image')}, {number_of(classes, 'class')}")
    for note in search.notes:
        say(f"Note: {note}")


def say_checked(sets: Mapping[str, Checked], wish: Wish, say: Say) -> None:
    """Says which classes there are, what is wrong, and which images are left out for it."""
    for checked in sets.values():
        for problem in checked.report.problems:
            say(problem)
    counts = counts_of(sets)
    for line in class_lines(counts):
        say(line)
    for note in [*class_notes(counts), *(note for one in sets.values() for note in set_notes(one))]:
        say(f"Note: {note}")


def set_notes(checked: Checked) -> list[str]:
    """What is to be said about a set's images, one sentence each."""
    notes = list(checked.report.notes)
    if checked.faulty:
        many, names = number_of(len(checked.faulty), "image"), names_of(checked, checked.faulty)
        notes.append(f"{many} left out for the problems above: {names}; correct them, and run this again")
    if checked.left_out:
        many, names = number_of(len(checked.left_out), "image"), names_of(checked, checked.left_out)
        advice = "if they show none of the classes, add --unannotated background"
        notes.append(f"{many} left out, as they have no annotation file: {names}; {advice}")
    return notes


def divided_parts(layout: Layout, sets: Mapping[str, Checked], wish: Wish, say: Say) -> dict[str, Part]:
    """The parts for training, choosing and measuring: the folder's own, else drawn; and says which."""
    if layout.divided:
        parts, notes = as_divided(sets)
        how = "Divided as in the folder"
        if wish.fractions is not None:
            notes.append("--fractions is for a folder that does not divide its images, so it changes nothing here")
    else:
        parts, notes = divide(sets[WHOLE], wish.fractions or FRACTIONS, wish.seed)
        how = f"Divided at random (seed {wish.seed}), each class as evenly as possible"
    for note in notes:
        say(f"Note: {note}")
    say(f"{how}: {', '.join(f'{len(part.image_ids):,} {WORDS[name]}' for name, part in parts.items())}")
    return parts


@dataclass(frozen=True)
class Fit:
    """A recipe that is to be at `path`, for the images in `folder`, of which so many are for training; its sizes are to
    be chosen."""

    path: Path
    folder: Path
    written: Written
    training_images: int
    wish: Wish

    def text(self, sizes: Sizes, head: str = "") -> str:
        """The recipe with these sizes; `head` is its first lines."""
        system = SYSTEMS[self.wish.system]
        description = f"{system.title} on {self.folder.resolve().name}"
        return recipe_text(head, description, self.written.tables, system, backbone(), sizes)

    def differences(self) -> list[str]:
        """What differs, but for the sizes, between the recipe and lists that are there and those that would be written,
        in words."""
        wanted = self.text(largest(SYSTEMS[self.wish.system], backbone(), self.training_images))
        text, folder = text_of(self.path), self.path.parent
        tables = different_tables(tomllib.loads(text), tomllib.loads(wanted))
        lists = {file: (text_of(folder / file), now) for file, now in self.written.files.items()}
        files = [list_change(file, before, now) for file, (before, now) in lists.items() if before not in ("", now)]
        minutes = MINUTES.search(text)
        if minutes and minutes[1] != f"{self.wish.minutes:g}":
            files.append(f"--minutes {self.wish.minutes:g} (it was {minutes[1]})")
        return [*tables, *files]

    def recipe(self, work: Path, options_for: OptionsFor, say: Say) -> tuple[str, float]:
        """The text of the recipe, its sizes fitted by a trial, and the seconds that it will take. Raises as a run."""
        system, network = SYSTEMS[self.wish.system], backbone()
        wanted = largest(system, network, self.training_images)
        small = build_recipe(self.path, tomllib.loads(self.text(tried(system, wanted, ITERATIONS))))
        options = options_for(list(Graph(small, work).nodes.values()))
        say(f"Measuring {system.title} with {network.name} on a few images, to choose its sizes ...")
        costs = trial(small, work, options)
        sizes, seconds = fitted(system, network, wanted, costs, 60 * self.wish.minutes)
        machine = f"{options.execution.device}, {number_of(options.execution.jobs, 'process')}"
        head = HEAD.format(
            title=system.title, folder=self.folder, minutes=f"{self.wish.minutes:g}", took=duration(seconds),
            machine=machine,
        )  # fmt: skip
        text = self.text(sizes, head)
        build_recipe(self.path, tomllib.loads(text))
        return text, seconds


HEAD = """\
{title} on the images in {folder}, written by `rcnn init`; yours to edit, it is not overwritten then.
Sizes were chosen for about {minutes} min by timing this machine as it was then: {took} on {machine}.
A busy machine gets smaller ones: `rcnn init` with --force on a quiet one, or with more --minutes, chooses anew."""
MINUTES = re.compile("^# Sizes were chosen for about (.+?) min ", re.MULTILINE)


def check_the_same(fit: Fit) -> None:
    """Raises StageError if the recipe that is there is not, but for its sizes, the one that would be written."""
    if found := fit.differences():
        raise StageError(
            f"{fit.path}: was written by rcnn init, which would now write another: {', '.join(found)}; add --force to "
            "replace it, or choose another folder with -o to keep both"
        )


WORDS = {TRAIN: "for training", VAL: "for choosing settings", TEST: "for measuring"}


def without_annotations(folder: Path) -> str:
    """What can be done with images alone."""
    images = len(Listing(folder, SUFFIXES).files)
    quoted = shlex.quote(str(folder))
    return f"""\
{folder}: {number_of(images, "image")} without annotations (none of data.yaml, YOLO labels, COCO's JSON or VOC's XML).
A detector is learnt from boxes that people draw, so there is no recipe to write yet.
- Draw boxes with any annotation program, export them as YOLO, COCO or Pascal VOC into this folder, and run
  `rcnn init {quoted}` again. 20 objects of each class are a beginning.
- If you have a trained recipe for these classes, it draws first boxes, to be corrected in such a program:
  `rcnn predict RECIPE.toml {quoted} --format voc -o boxes`"""
