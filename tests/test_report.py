"""`rcnn report` on a small recipe: the command, and its page in a real headless Chromium."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rcnn_cli.main import main
from stages.pictures.palette import KINDS, SERIES, rgb
from tests.built_once import BuiltOnce
from tests.in_process import rcnn
from tests.pipeline import SMALLER, run_small, write_recipe

MORE = """
[detect-without-bbox]
stage = "detect"
inputs = { regressor = "none" }

[eval-without-bbox]
stage = "eval"
inputs = { detections = "detect-without-bbox" }
bootstrap = 50

[eval-strict]
stage = "eval"
iou = 0.7

[diagnose]
"""
PATIENCE = 180_000  # milliseconds, for a busy machine
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RUN, CLASS, KIND, SCORE, PRECISION = 0, 1, 2, 8, 9
MISSED = 5
NAMESPACE = "http://www.w3.org/2000/svg"
HOSTILE = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def made(built_once: BuiltOnce, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(recipe, work folder, page) of the small recipe with three evaluations, of which two can be compared."""

    def build(folder: Path) -> None:
        built_once.copy("small", run_small, folder)
        shutil.rmtree(folder / "work/caches/eval")
        measured = "[eval]\ncoco = true\nlocalisation = true\nbootstrap = 50\n"
        recipe = write_recipe(folder, SMALLER.replace("[eval]\n", measured) + MORE)
        rcnn("run", recipe, work=folder / "work")

    folder = built_once.copy("report", build, tmp_path_factory.mktemp("report"))
    recipe, work, page = folder / "small.toml", folder / "work", folder / "work/results/small/report/index.html"
    assert rcnn("report", recipe, work=work).stdout == f"Report: {page}\n"
    return recipe, work, page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the tests are skipped, aloud, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("no Chromium is installed: no browser tests")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, made: tuple[Path, Path, Path]) -> Iterator[Any]:
    """Opens the page from disk: a function of the options of a browser's context; whatever it complains of fails."""
    complaints: list[str] = []
    contexts = []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.goto(made[2].as_uri())
        return page

    def asked(url: str) -> None:
        if url != made[2].as_uri() and not url.startswith("data:image/jpeg;base64,"):
            complaints.append(f"asked for {url[:100]}")

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def listed(page: Path) -> dict[str, Any]:
    """The gallery's list in the page."""
    found = re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', page.read_text(), re.S)
    assert found
    told: dict[str, Any] = json.loads(found[1])
    return told


def test_the_page_is_one_file_that_names_no_other(made: tuple[Path, Path, Path]) -> None:
    text = made[2].read_text()
    assert len(text.encode()) < 20_000_000
    assert set(re.findall(r"\w+://[^\"'\s<)]*", text)) == {NAMESPACE}
    links = re.findall(r"""(?:src|href|action|poster|data)=["']([^"']*)["']""", text)
    assert links
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    assert {link[1:].partition("&")[0] for link in links if link.startswith("#")} <= set(ids)


def test_the_same_caches_give_the_same_bytes_and_are_not_read_again(made: tuple[Path, Path, Path]) -> None:
    recipe, work, page = made
    again = rcnn("report", recipe, recipe, "-o", work / "again", work=work)
    assert (work / "again/index.html").read_bytes() == page.read_bytes()
    assert "reused" not in again.stdout
    before = page.stat().st_mtime_ns
    assert "reused: its caches have not changed" in rcnn("report", recipe, work=work).stdout
    assert page.stat().st_mtime_ns == before
    changed = rcnn("report", recipe, "--set", f"description={HOSTILE}", "-o", work / "again", work=work)
    assert "reused" not in changed.stdout
    text = (work / "again/index.html").read_text()
    assert HOSTILE not in text
    assert text.count("&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;") >= 2
    assert text.count("<script") == page.read_text().count("<script")


def manifest(work: Path, cache: str) -> dict[str, Any]:
    """The summary that a stage recorded in the only cache of this name."""
    (path,) = (work / "caches").glob(f"{cache}.*/manifest.json")
    summary: dict[str, Any] = json.loads(path.read_text())["summary"]
    return summary


def test_the_page_begins_with_the_numbers_of_the_caches(opened: Any, made: tuple[Path, Path, Path]) -> None:
    """mAP as the evaluation's manifest has it, the recall as `rcnn recall` measures it, the error whose remedy gains
    most as the diagnosis's; then the sheet, before any table."""
    recipe, work, _ = made
    evaluation, diagnosis = manifest(work, "eval/small-test"), manifest(work, "diagnose/small-test")
    page = opened(viewport={"width": 1280, "height": 900})
    first = page.locator("main section").first
    assert first.get_attribute("id") == "summary"
    told = [one.split("\n") for one in first.locator("dl.headline > div").all_inner_texts()]
    assert [one[0] for one in told] == ["mAP", "Recall of the proposals", "Costliest error"]
    low, high = evaluation["bootstrap"]["map"]
    assert told[0][1] == f"{100 * evaluation['map']:.1f} %"
    objects = sum(one["positives"] for one in evaluation["classes"].values())
    assert f"{objects} objects; {100 * low:.1f} to {100 * high:.1f}" in told[0][2]
    recall = json.loads(rcnn("recall", recipe, "--json", "-o", work / "recall", work=work).stdout)[0]["recall"]
    every = next(one for one in recall if one["group"] == "all" and one["proposals"] is None)
    assert told[1][1] == f"{100 * every['recall']['0.5']:.1f} %"
    remedies = ("Loc corrected", *(f"{kind} removed" for kind in ("Loc", "Sim", "Oth", "BG")))
    gains = {name: diagnosis["remedies"][name] - diagnosis["ap"] for name in remedies}
    best = max(gains, key=lambda name: gains[name])
    assert told[2][1].strip() == f"{best.split()[0]}: {100 * gains[best]:+.1f}"
    shown = first.locator(".sheet svg")
    assert shown.count() == 8
    assert shown.first.bounding_box()["y"] < page.locator("table").first.bounding_box()["y"]
    assert shown.first.locator("rect.truth").count() > 0


def test_the_sheet_says_where_nothing_is_precise(opened: Any) -> None:
    """As many images as carry the words are counted below them; all of them show something."""
    page = opened()
    captions = page.locator(".sheet figcaption").all_inner_texts()
    bare = [one for one in captions if "none reaches 50 %" in one or "no detection" in one]
    assert len(captions) == 8
    assert bare
    note = page.locator("#summary .bare").inner_text()
    assert note.startswith("No detection on these images" if len(bare) == 8 else f"On {len(bare)} of these 8 images")
    shown = page.locator(".sheet svg").evaluate_all(
        "all => all.map(one => one.querySelectorAll('[class^=box-]').length)"
    )
    assert [count > 0 for count in shown] == ["no detection" not in one for one in captions]


def figures_of(section: str) -> list[tuple[str, str]]:
    """(SVG, caption without tags) of each image in a part of the page."""
    found = re.findall(r'<figure class="scene">(<svg.*?</svg>)\s*<figcaption>(.*?)</figcaption>', section, re.S)
    return [(svg, re.sub(r"<[^>]*>", "", caption)) for svg, caption in found]


def test_a_caption_counts_what_its_picture_shows(made: tuple[Path, Path, Path]) -> None:
    """Boxes of detections and objects, difficult ones too, and labels that have no room."""
    text = made[2].read_text()
    (sheet,) = re.findall(r'<ul class="scenes sheet">(.*?)</ul>', text, re.S)
    for svg, caption in [*figures_of(sheet), *figures_of(text.partition('<section id="images"')[2])]:
        detections, true = (len(re.findall(f'class="{name}', svg)) for name in ("box-", "box-true"))
        objects = svg.count('class="truth"')
        if counted := re.search(r"(\d+) of (\d+) found, (\d+) false", caption):
            difficult = re.search(r"false, (\d+) difficult", caption)
            to_find = objects - (int(difficult[1]) if difficult else 0)
            assert [int(one) for one in counted.groups()] == [true, to_find, detections - true]
        else:
            assert f"best {detections}, none reaches 50 %" in caption or (detections == 0 and "no detection" in caption)
        if svg in sheet:
            left_out = detections - svg.count('class="ground"')
            said = re.search(r"; (\d+) box(?:es)? without a label", caption)
            assert left_out == (int(said[1]) if said else 0)
    assert "a label that would hide another is left out" in text
    assert "Difficult objects are also dashed but do not count." in text


def test_classes_come_from_the_highest_ap_to_the_lowest(made: tuple[Path, Path, Path]) -> None:
    """With their AP; of each the best images before the worst, said beneath each."""
    results = json.loads((made[1] / "results/small/eval/results.json").read_text())["classes"]
    images = made[2].read_text().partition('<section id="images"')[2]
    first = images.partition("Class by class")[2].partition("</details>")[0]
    assert first.startswith(", from the highest AP to the lowest")
    headings = re.findall(r'<h3>(.*?) <span class="note">AP (.*?) %</span></h3>', first)
    assert len(headings) > 3
    assert [f"{100 * results[name]['ap_11']:.1f}" for name, _ in headings] == [ap for _, ap in headings]
    assert [float(ap) for _, ap in headings] == sorted((float(ap) for _, ap in headings), reverse=True)
    for part in first.split("<h3>")[1:]:
        ends = [caption.partition(":")[0] for _, caption in figures_of(part)]
        assert ends == sorted(ends)  # Best before Worst
        assert set(ends) <= {"Best", "Worst"}


def test_times_are_those_at_which_caches_were_finished(made: tuple[Path, Path, Path]) -> None:
    """A manifest knows no more of a cache that several commands made than when the last one began and ended."""
    manifests = [json.loads(path.read_text()) for path in (made[1] / "caches").glob("*/*/manifest.json")]
    ends = sorted(one["finished"].replace("T", " ").removesuffix("Z") for one in manifests)
    text = made[2].read_text()
    assert f"finished between {ends[0]} and {ends[-1]} (UTC); the commands that finished them took " in text
    assert "begun" not in text


def test_one_palette_in_tables_plots_and_gallery(opened: Any) -> None:
    """A type of error in the key, in the areas and bars of the plots, and as a box on photographs."""
    page = opened()
    for kind, colour in KINDS.items():
        if kind == "ignored":
            continue
        expected = f"rgb{rgb(colour)}"
        assert page.locator(f".patch.kind-{kind.lower()}").first.evaluate(
            "one => getComputedStyle(one).backgroundColor") == expected  # fmt: skip
        boxes = page.locator(f"svg .box-{kind.lower()}")
        if boxes.count():
            assert boxes.first.evaluate("one => getComputedStyle(one).stroke") == expected
        if kind not in ("true", "missed"):
            assert page.locator("#errors svg.plot").first.evaluate("one => one.outerHTML").count(colour) > 0
            assert page.locator("#errors .panels").nth(1).evaluate("one => one.outerHTML").count(colour) > 0
    for number, letter in enumerate("AB"):
        mark = page.locator("#precision thead .letter", has_text=letter).first
        assert mark.evaluate("one => getComputedStyle(one).borderBottomColor") == f"rgb{rgb(SERIES[number])}"
        assert SERIES[number] in page.locator("#curves svg.plot").first.evaluate("one => one.outerHTML")


def test_on_a_phone_the_first_column_keeps_its_rules_and_map_is_in_sight(opened: Any) -> None:
    page = opened(viewport={"width": 390, "height": 844})
    assert page.locator(".sheet svg").first.bounding_box()["y"] < 844
    table = page.locator("#run table").first
    headings = table.locator("thead th").all_inner_texts()
    assert headings[:3] == ["Run", "mAP, 11-point", "mAP, area"]
    cell = table.locator("tbody td").nth(1).bounding_box()
    assert cell["x"] + cell["width"] <= 390
    rules = "one => [getComputedStyle(one).borderTopWidth, getComputedStyle(one).borderBottomWidth].map(parseFloat)"
    for box in page.locator(".scroll").all():
        box.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
        heading = box.locator("thead th").first
        assert min(heading.evaluate(rules)) > 0
        if heading.is_visible():
            assert abs(heading.bounding_box()["x"] - box.bounding_box()["x"]) < 1  # it stayed
            assert heading.evaluate("one => getComputedStyle(one.closest('table')).borderCollapse") == "separate"


def test_what_is_missing_is_said(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    recipe, work, _ = made
    shutil.copytree(work / "caches", tmp_path / "caches")
    shutil.copytree(work / "datasets", tmp_path / "datasets")
    detections = next((tmp_path / "caches/detect").glob("small-test.*"))
    shutil.rmtree(detections)
    told = rcnn("report", recipe, work=tmp_path)
    assert "warning: not in the report: small: detect@test is not complete; `rcnn run" in told.stderr
    text = (tmp_path / "results/small/report/index.html").read_text()
    assert "Not in this report" in text
    assert "eval, errors and images: detect@test is not complete" in text
    assert [run["name"] for run in listed(tmp_path / "results/small/report/index.html")["runs"]] == [
        "B: eval-without-bbox"
    ]
    shutil.rmtree(tmp_path / "caches/eval")
    nothing = rcnn("report", recipe, work=tmp_path, check=False)
    assert nothing.returncode == 2
    assert nothing.stderr == f"rcnn: {recipe}: nothing is evaluated yet; run `rcnn run {recipe}` first\n"
    (tmp_path / "bare.toml").write_text(SMALLER.replace("[eval]", ""))
    bare = rcnn("report", tmp_path / "bare.toml", work=tmp_path, check=False)
    assert bare.returncode == 2
    assert "has no evaluation, so there is nothing to report; add a table [eval]" in bare.stderr


def test_what_has_no_room_is_left_out_and_said(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, work, page = made

    def report() -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["report", str(recipe), "--work", str(work), "-o", str(tmp_path)])
        return ended.value.code

    largest = max(map(len, re.findall(r'href="(data:[^"]+)"', page.read_text())))
    monkeypatch.setattr("rcnn_cli.report.page.MOST_PICTURES", 4 * largest)
    assert report() == 0
    text = (tmp_path / "index.html").read_text()
    pictures = set(re.findall(r'<image id="(picture-\d+)"', text))
    assert 2 <= len(pictures) < 8
    assert f"on {len(pictures)} of the 8 images that contain them, as the page has no room for more" in text
    assert set(re.findall(r'href="#(picture-\d+)"', text)) <= pictures
    assert {item[3] for item in listed(tmp_path / "index.html")["items"]} <= set(range(len(pictures)))
    (tmp_path / "made-from.json").unlink()
    monkeypatch.setattr("rcnn_cli.report.page.MOST_BYTES", 100_000)
    assert report() == 2
    assert "bytes, more than 100,000; name fewer recipes" in capsys.readouterr().err


def test_the_page_opens_from_disk_without_errors_or_network(opened: Any, made: tuple[Path, Path, Path]) -> None:
    page = opened(viewport={"width": 1280, "height": 900}, offline=True)
    assert page.title() == "Detection report: small"
    sections = page.locator("main section h2").all_inner_texts()
    assert [re.sub(r"\d+\s*", "", one) for one in sections] == [
        "Summary",
        "What was run",
        "Average precision",
        "Precision and recall",
        "Thresholds and confusion",
        "Errors",
        "Proposals",
        "Training",
        "Features",
        "Detections",
        "Best and worst images",
    ]
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    summary = json.loads((made[1] / "results/small/eval/results.json").read_text())
    table = page.locator("#precision table").first.inner_text()
    assert f"{100 * summary['map_11']:.1f}" in table
    assert "COCO AP, small" in table
    assert "localisation error, 5 guesses" in table
    assert re.search(r"\d to \d", table)
    assert "eval-without-bbox" in table
    assert "eval-strict" not in table  # by another rule, so in a table of its own
    assert "at an IoU of 0.7" in page.locator("#precision").inner_text()
    curves = sum(one["positives"] > 0 for one in summary["classes"].values())
    assert page.locator("#curves svg.plot").count() == 2 * curves
    assert page.locator("#operating svg.plot").count() == curves + 3 * 2
    assert page.locator("#proposals table").count() == 1
    drawn = page.locator(".tile svg.crop").first.bounding_box()
    assert drawn["width"] > 90
    sizes = page.evaluate("[...document.querySelectorAll('.store image')].map(one => one.getBBox().width)")
    assert len(sizes) == len(listed(made[2])["images"]) == 8
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input, [role=img], [role=region]')].filter(one => !("
        "one.ariaLabel || one.textContent.trim() || one.labels?.length || one.getAttribute('aria-labelledby'))).length"
    )
    assert unnamed == 0


def test_filters_and_threshold_change_what_is_shown(opened: Any, made: tuple[Path, Path, Path]) -> None:
    data = listed(made[2])
    items = data["items"]
    page = opened()

    def check(run: int, label: int, column: int, kinds: set[int]) -> list[Any]:
        threshold = float(page.locator("#threshold").input_value())
        wanted = [
            one
            for one in items
            if one[RUN] == run
            and (label < 0 or one[CLASS] == label)
            and one[KIND] in kinds
            and (one[KIND] == MISSED or one[column] >= threshold)
        ]
        every = sum(one[RUN] == run for one in items)
        assert page.locator("#count").inner_text().startswith(f"{len(wanted):,} of {every:,} shown")
        assert page.locator(".tile").count() == min(48, len(wanted))
        names = {(data["classes"][one[CLASS]], data["kinds"][one[KIND]]) for one in wanted}
        shown = page.locator(".tile").evaluate_all("all => all.map(one => [one.dataset.class, one.dataset.kind])")
        assert {tuple(one) for one in shown} <= names
        return wanted

    every = set(range(len(data["kinds"])))
    assert len(check(0, -1, PRECISION, every)) > 48
    page.locator("#threshold").fill("0.3")
    at_least = check(0, -1, PRECISION, every)
    assert page.locator("#threshold-value").inner_text() == "30 %"
    assert 0 < len(at_least) < sum(one[RUN] == 0 for one in items)
    page.get_by_role("checkbox", name="BG").uncheck()
    check(0, -1, PRECISION, every - {4})
    page.locator("#class-choice").select_option(label=data["classes"][1])
    check(0, 1, PRECISION, every - {4})
    page.locator("#class-choice").select_option("-1")
    page.get_by_role("radio", name="score").check()
    low, high = (float(page.locator("#threshold").get_attribute(name)) for name in ("min", "max"))
    assert low < high
    check(0, -1, SCORE, every - {4})
    page.locator("#threshold").fill(f"{(low + high) / 2:.2f}")
    check(0, -1, SCORE, every - {4})
    page.locator("#run-choice").select_option("1")
    check(1, -1, SCORE, every - {4})
    for kind in sorted(every - {4}):
        page.locator(f"input[name=kind][value='{kind}']").uncheck()
    assert check(1, -1, SCORE, set()) == []
    assert page.locator("#tiles").inner_text().startswith("No detection: choose another class")
    page.locator(f"input[name=kind][value='{MISSED}']").check()
    check(1, -1, SCORE, {MISSED})


def test_a_link_to_a_classs_mistakes_filters_the_gallery(opened: Any, made: tuple[Path, Path, Path]) -> None:
    """From the page and as an address that is opened; a second click works, too."""
    data = listed(made[2])
    page = opened(reduced_motion="reduce")

    def shown() -> tuple[str, int, list[str]]:
        kinds = page.locator("input[name=kind]:checked").evaluate_all("all => all.map(one => one.value)")
        label = page.locator("#class-choice option:checked").inner_text()
        return label, int(page.locator("#run-choice").input_value()), kinds

    row = page.locator("#operating table").first.locator("tbody tr").nth(2)
    name = row.locator("th").inner_text()
    for _ in range(2):
        row.get_by_role("link", name="mistakes").click()
        assert shown() == (name, 0, ["1", "2", "3", "4", "5"])
        names = page.locator(".tile").evaluate_all("all => all.map(one => one.dataset.class)")
        wanted = [one for one in data["items"] if one[RUN] == 0 and data["classes"][one[CLASS]] == name and one[KIND]]
        assert set(names) == ({name} if wanted else set())
        assert len(names) == min(48, len(wanted))
        assert abs(page.locator("#gallery").bounding_box()["y"]) < 60
        page.get_by_role("checkbox", name="true").check()
        page.locator("#class-choice").select_option("-1")
    address = made[2].as_uri() + f"#gallery&run=1&class={data['classes'][0]}&kind=BG"
    page.goto("about:blank")
    page.goto(address)
    assert shown() == (data["classes"][0], 1, ["4"])
    page.goto(made[2].as_uri() + "#gallery&run=77&class=nothing&kind=")
    assert shown() == ("all classes", 1, [])


def test_tables_are_sorted_by_a_click_on_a_heading(opened: Any) -> None:
    """Numbers from the largest, names from the first letter; again: reversed; then as it was. Means stay below."""
    page = opened()
    table = page.locator("#precision table").first
    before = table.locator("tbody").first.locator("th").all_inner_texts()
    below = table.locator("tbody").nth(1).locator("th").all_inner_texts()

    def column(place: int) -> list[str]:
        rows = table.locator("tbody").first.locator("tr")
        return rows.evaluate_all(f"all => all.map(one => one.cells[{place}].firstChild.textContent.trim())")

    heading = table.get_by_role("columnheader", name="class")
    for wanted, order in (("ascending", sorted(before)), ("descending", sorted(before)[::-1]), (None, before)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == wanted
        assert column(0) == order
    objects = table.get_by_role("columnheader", name="objects")
    objects.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert objects.get_attribute("aria-sort") == "descending"
    numbers = [float(one) for one in column(1)]
    assert numbers == sorted(numbers, reverse=True)
    aps = table.locator("thead th").nth(2)
    aps.get_by_role("button").click()
    assert objects.get_attribute("aria-sort") is None
    values = column(2)
    known = [float(one) for one in values if one != "-"]
    assert known == sorted(known, reverse=True)
    assert values == [*values[: len(known)], *["-"] * (len(values) - len(known))]
    assert table.locator("tbody").nth(1).locator("th").all_inner_texts() == below
    assert page.locator("table.matrix button").count() == 0


def test_the_matrix_is_that_of_the_table_of_confusions(made: tuple[Path, Path, Path], opened: Any) -> None:
    rows = list(csv.reader((made[1] / "results/small/eval/confusion.csv").read_text().splitlines()))
    matrix = opened().locator("table.matrix").first
    assert matrix.locator("thead th").all_text_contents() == ["true class", "counted", *rows[0][1:-1]]
    for row, shown in zip(rows[1:], matrix.locator("tbody tr").all(), strict=True):
        counts = [int(one) for one in row[1:-1]]
        assert shown.locator("th").inner_text() == row[0]
        total, *cells = shown.locator("td").all_text_contents()
        assert int(total) == sum(counts)
        for count, told in zip(counts, cells, strict=True):
            share = 100 * count / max(1, sum(counts))
            assert told == ("" if not count else f"{share:.0f}" if share >= 0.5 else "<1")


def test_objects_are_shown_on_the_map_of_features(opened: Any) -> None:
    """By the pointer, by the arrow keys, and one class alone; each with its picture."""
    page = opened(viewport={"width": 1280, "height": 900})
    points = page.evaluate("JSON.parse(document.getElementById('points-data').textContent)[0]")
    holder, card = page.locator(".map").first, page.locator(".map .card").first
    assert holder.locator(".mark").count() == len(points) > 3
    shapes = page.locator(".classes").first.locator(".mark path").evaluate_all("all => all.map(one => one.outerHTML)")
    assert len(set(re.findall(r' d="[^"]+"', "".join(shapes)))) == min(12, len(shapes))
    assert not card.is_visible()
    last = holder.locator(".mark").nth(len(points) - 1)
    last.hover()
    assert card.inner_text() == f"{points[-1][2]}, {points[-1][3]}"
    assert card.locator("img").get_attribute("src") == points[-1][4]
    size = card.locator("img").evaluate("one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])")
    assert max(size) <= 72
    page.mouse.move(0, 0)
    assert not card.is_visible()
    holder.focus()
    page.keyboard.press("ArrowRight")
    left = min(points, key=lambda one: one[0])
    assert card.inner_text() == f"{left[2]}, {left[3]}"
    page.keyboard.press("ArrowRight")
    assert card.inner_text() != f"{left[2]}, {left[3]}"
    page.keyboard.press("Escape")
    assert not card.is_visible()
    entry = page.locator(".classes button").first
    entry.click()
    assert entry.get_attribute("aria-pressed") == "true"
    others = sum(one[2] != entry.inner_text().strip() for one in points)
    assert holder.locator(".mark.faint").count() == others
    entry.click()
    assert holder.locator(".mark.faint").count() == 0


def test_next_steps_point_to_where_their_numbers_come_from(opened: Any) -> None:
    """The largest gain first; each link leads to a figure or a table with that number."""
    page = opened()
    steps = page.locator(".steps li")
    assert steps.count() > 1
    caption = page.locator("#summary .note", has_text="Evenly spaced images of the test set")
    assert caption.first.bounding_box()["y"] < page.locator(".steps").first.bounding_box()["y"]
    gains = [float(one.split()[0]) for one in page.locator(".steps li b").all_inner_texts()]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] >= 1
    for link in page.locator(".steps a").all():
        target = page.locator(link.get_attribute("href"))
        assert target.inner_text() == f"{link.inner_text()}."
    assert all(one.locator("a").count() for one in steps.all())


def test_more_are_shown_on_request(opened: Any) -> None:
    page = opened()
    page.locator("#more").click()
    assert page.locator(".tile").count() > 48
    assert page.evaluate("[...document.querySelectorAll('.tile')].indexOf(document.activeElement)") == 48


def test_the_keyboard_reaches_and_moves_everything(opened: Any) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(400):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.name || ''"))
        if page.evaluate("document.activeElement.className") == "tile":
            break
    assert page.evaluate("document.activeElement.className") == "tile"
    assert {"theme", "run-choice", "class-choice", "measure", "threshold", "kind"} <= set(seen)
    page.locator("#threshold").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    before = page.locator("#count").inner_text()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    assert page.locator("#threshold-value").inner_text() == "40 %"
    assert page.locator("#count").inner_text() != before
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#count").inner_text() == before
    page.locator(".tile").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer").evaluate("one => one.open")
    words = page.locator("#viewer-values").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-values").inner_text() != words
    page.keyboard.press("ArrowLeft")
    assert page.locator("#viewer-values").inner_text() == words
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").evaluate("one => one.open")
    assert page.evaluate("[...document.querySelectorAll('.tile')].indexOf(document.activeElement)") == 1


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_only_tables_scroll_sideways(opened: Any, width: int) -> None:
    page = opened(viewport={"width": width, "height": 700})
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth)"
                         ".map(one => one.tabIndex)")  # fmt: skip
    assert set(wide) <= {0}
    assert wide or width > 375
    page.locator(".tile").first.click()
    assert page.locator("#viewer").bounding_box()["width"] <= width


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours as the browser writes them, "rgb(1, 2, 3)"."""
    luminances = []
    for colour in (first, second):
        parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(luminances)
    return (high + 0.05) / (low + 0.05)


def colours(page: Any) -> tuple[str, list[str], str, list[str]]:
    """The ground, the colours of text on it, the ground of the controls, the colours of text on that."""
    of = "getComputedStyle(document.querySelector('{}')).{}"
    ground, panel = (page.evaluate(of.format(one, "backgroundColor")) for one in ("body", ".controls"))
    texts = [page.evaluate(of.format(one, "color")) for one in ("body", ".note", ".lead, .kicker", "td.muted", "a")]
    plots = page.locator("svg.plot text").first.evaluate("one => getComputedStyle(one).fill")
    return ground, [*texts, plots], panel, [page.evaluate(of.format(".controls legend", "color"))]


def test_light_and_dark_differ_and_can_be_read(opened: Any) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        ground, texts, panel, labels = colours(page)
        assert contrast(ground, texts[0]) > 7
        assert min(contrast(ground, one) for one in texts) >= 4.5
        assert min(contrast(panel, one) for one in labels) >= 4.5
        for place in range(8):
            line = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--series-{place}')")
            parts = [int(line.strip()[start : start + 2], 16) for start in (1, 3, 5)]
            assert contrast(ground, f"rgb{tuple(parts)}") >= 3
        grounds[scheme] = ground
    assert grounds["light"] != grounds["dark"]
    page.locator("#theme").click()
    assert colours(page)[0] == grounds["light"]
    assert page.locator("#theme").inner_text() == "Dark"
    page.reload()
    assert colours(page)[0] == grounds["light"]


def test_without_javascript_the_tables_and_images_are_there(opened: Any) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("#precision table tbody tr").count() > 10
    assert page.locator("#images svg use").first.is_visible()
    assert "The gallery needs JavaScript" in page.locator("#gallery").inner_text()
    assert not page.locator("#controls").is_visible()
    assert not page.locator("#theme").is_visible()


def test_it_prints_on_white(opened: Any) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    assert colours(page)[0] == "rgb(255, 255, 255)"
    assert not page.locator("nav.contents").is_visible()
    assert page.pdf()[:5] == b"%PDF-"
