"""The dashboard and the report in a real browser: every view, live, by keyboard, dark, on a phone, and without a word to any other host."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headsearch.dashboard import pages
from headsearch.dashboard.server import open_server
from headsearch.errors import RunError
from headsearch.report.page import html_report
from headsearch.runs.run import read_run
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
playwright = pytest.importorskip("playwright.sync_api")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
NAMES = ["mixed", "live", "empty", "failures", "markup"]
MIXED, LIVE, EMPTY, FAILURES, MARKUP = range(5)
VIEWS = ["overview", "trials", "matters", "trust", "cost"]
TITLES = {view: f"{pages.VIEWS[view]}: " for view in VIEWS}
EVIL = "<img src=x onerror=alert(1)><b>bold</b>"

_LIVE = """
import sys
from pathlib import Path
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import run_toy, toy_experiment
run_toy(Path(sys.argv[1]), toy_experiment(space="paper", trials=5000, sampler="random"), ToyEvaluator(seconds_per_epoch=0.05))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def search(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """That of `live`, which does not end by itself."""
    with subprocess.Popen([sys.executable, "-c", _LIVE, str(folder / "live")]) as search:
        yield search
        search.kill()


@pytest.fixture(scope="module")
def paths(toy_run: Path, folder: Path, search: "subprocess.Popen[bytes]") -> list[Path]:
    """One run of each kind."""
    empty = Path(shutil.copytree(toy_run, folder / "empty"))
    (empty / "study.db").unlink()
    everything = dict.fromkeys(
        ("none", "vit", "mlp", "convnext", "resnet", "mixer", "swin", "gmlp", "resmlp", "poolformer"),
        "error",
    )
    with contextlib.suppress(RunError):
        run_toy(folder / "failures", toy_experiment(trials=5), ToyEvaluator(failures=everything))  # type: ignore[arg-type]
    _put_markup_in(Path(shutil.copytree(toy_run, folder / "markup")))
    while not (folder / "live" / "trials" / "1").exists():
        assert search.poll() is None
        time.sleep(0.1)
    return [toy_run, *(folder / name for name in NAMES[1:])]


def _put_markup_in(run: Path) -> None:
    """Names and reasons that a careless page would take for markup."""
    with sqlite3.connect(run / "study.db") as database:
        for identity, text in database.execute(
            "SELECT trial_system_attribute_id, value_json FROM trial_system_attributes WHERE key = 'outcome'"
        ).fetchall():
            outcome = json.loads(text)
            outcome["reason"] = outcome["reason"] and EVIL
            database.execute(
                "UPDATE trial_system_attributes SET value_json = ? WHERE trial_system_attribute_id = ?",
                (json.dumps(outcome), identity),
            )
        for identity, text in database.execute(
            "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes WHERE key = 'head_id'"
        ).fetchall():
            if json.loads(text) != "none":
                database.execute(
                    "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?",
                    (json.dumps(f"<script>alert(1)</script>{json.loads(text)}"), identity),
                )
    database.close()


@contextlib.contextmanager
def served(paths: list[Path], token: str | None = None) -> Iterator[str]:
    """The address of a dashboard, without a slash at its end."""
    server, address = open_server(paths, host="127.0.0.1", port=0, token=token, refresh=0.4)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{address.port}"
    finally:
        server.close()


@pytest.fixture(scope="module")
def base(paths: list[Path]) -> Iterator[str]:
    with served(paths) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page whose requests and complaints are written down."""

    def __init__(self, context: "playwright.BrowserContext", base: str) -> None:
        self.base, self.requests, self.complaints = base, list[str](), list[str]()
        context.on("request", lambda request: self.requests.append(request.url))
        context.on(
            "dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss())
        )
        self.page = context.new_page()
        self.page.set_default_timeout(180_000)
        self.page.on(
            "console", lambda told: told.type in ("error", "warning") and self.complaints.append(told.text)
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: str) -> "playwright.Page":
        """Load the page anew."""
        self.page.goto(self.base + path)
        self.page.wait_for_selector("#live > *")
        return self.page

    def go(self, path: str, told: str) -> "playwright.Page":
        """Go there as a link does, which spares loading plotly again; the heading then tells `told`."""
        if self.page.url == "about:blank":
            self.open(path)
        self.page.evaluate(
            "path => { history.pushState({}, '', path); dispatchEvent(new PopStateEvent('popstate')); }", path
        )
        self.page.wait_for_selector(f"#heading:has-text('{told}')")
        return self.page


@pytest.fixture
def watched(browser: "playwright.Browser", base: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    found = Watched(context, base)
    yield found
    context.close()
    assert found.complaints == []
    assert found.requests
    assert [url for url in found.requests if not url.startswith((base, "data:", "blob:"))] == []


def until(page: "playwright.Page", condition: str) -> None:
    """Wait until an expression is true. Playwright's own way to wait evaluates text in the page, which the page forbids."""
    for _ in range(3600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {condition}")


DRAWN = "!document.querySelector('.js-plotly-plot') || !!document.querySelector('.main-svg')"


def done(page: "playwright.Page") -> int:
    """Trainings that the overview says are done."""
    return int(page.locator(".tile dd").first.inner_text().split()[0])


def test_a_running_search_is_followed_without_a_reload(
    watched: Watched, search: "subprocess.Popen[bytes]"
) -> None:
    page = watched.open(f"/run/{LIVE}/overview")
    until(page, "document.querySelectorAll('#ranking tbody tr').length > 0")
    page.evaluate("window.sameDocument = true")
    before, status = done(page), page.locator("#status").inner_text()
    link = page.locator("nav a", has_text="Cost")
    link.focus()
    until(page, f"parseInt(document.querySelector('.tile dd').textContent) > {before + 1}")
    # It may have been read after the refresh that the tile's number was read before.
    until(page, f"document.querySelector('#status').innerText !== {json.dumps(status)}")
    assert page.evaluate("window.sameDocument")
    assert page.locator(".chip.good", has_text="at work").count() == 1
    # Between two trials nothing runs.
    until(
        page,
        "[...document.querySelectorAll('h2')].some(title => title.textContent.startsWith('Running now'))",
    )
    assert link.evaluate("link => link === document.activeElement"), "a refresh takes the focus from nobody"
    # All else looks at runs, not at a search.
    search.kill()


@pytest.mark.parametrize("run", [EMPTY, FAILURES, MARKUP], ids=lambda run: NAMES[run])
def test_every_view_of_any_run_has_something_to_say(watched: Watched, run: int) -> None:
    for view in VIEWS:
        page = watched.go(f"/run/{run}/{view}", TITLES[view])
        assert page.locator("h1").inner_text() == NAMES[run]
        assert page.locator("main nav, header nav").count() >= 2
        assert page.locator("[aria-current=page]").count() == 2, "the run and the view"
        assert len(page.locator("#live").inner_text()) > 40
        assert page.locator("#live script, #live img[src=x]").count() == 0
        until(page, DRAWN)
    if run == MARKUP:
        assert (
            "<script>alert(1)</script>"
            in watched.go(f"/run/{run}/trials", TITLES["trials"]).locator("#live").inner_text()
        )
    if run == EMPTY:
        assert (
            "Nothing has been trained"
            in watched.go(f"/run/{run}/overview", TITLES["overview"]).locator("#live").inner_text()
        )
    if run == FAILURES:
        assert "toy failure" in watched.go(f"/run/{run}/cost", TITLES["cost"]).locator("#live").inner_text()


def test_hover_texts_show_markup_as_text(watched: Watched) -> None:
    page = watched.open(f"/run/{MARKUP}/overview")
    point = page.locator("#pareto .points path").last
    point.hover(force=True)
    label = page.locator("#pareto .hovertext").first
    label.wait_for()
    assert "<script>alert(1)</script>" in label.inner_html().replace("&lt;", "<").replace("&gt;", ">")


def test_trials_are_sorted_and_filtered_and_the_address_says_how(watched: Watched) -> None:
    page = watched.open(f"/run/{MIXED}/trials")
    everything = page.locator("#trials-table tbody tr").count()
    for order, sign in (("ascending", 1), ("descending", -1)):
        page.locator("#trials-table thead a", has_text="k-NN %").click()
        page.wait_for_selector(f"th[aria-sort={order}]:has-text('k-NN')")
        column = [th.inner_text().split("\n")[0] for th in page.locator("#trials-table thead th").all()]
        place = next(n for n, name in enumerate(column) if name.startswith("k-NN"))
        shown = [
            row.locator("th, td").nth(place).inner_text()
            for row in page.locator("#trials-table tbody tr").all()
        ]
        scores = [sign * float(text) for text in shown if text != "-"]
        assert scores == sorted(scores)
        assert len(scores) > 10
        assert f"order={order}" in page.url or order == "ascending"
    page.get_by_label("Head or reason").fill("convnext")
    page.wait_for_url("**text=convnext**")
    until(page, f"document.querySelectorAll('#trials-table tbody tr').length < {everything}")
    assert "sort=knn" in page.url, "a filter keeps the order"
    heads = page.locator("#trials-table tbody td code").all_inner_texts()
    assert heads
    assert all("convnext" in head for head in heads)
    page.get_by_label("Head or reason").fill("")
    page.get_by_label("infeasible").check()
    page.wait_for_url("**state=infeasible**")
    until(
        page,
        "![...document.querySelectorAll('#trials-table .chip')].some(c => c.textContent !== 'infeasible')",
    )
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Family", exact=True).last.check()
    page.wait_for_selector("#trials-table th:has-text('Family')")
    address = page.url
    again = watched.open(address.removeprefix(watched.base))
    assert again.locator("#trials-table th", has_text="Family").count() == 1
    assert again.get_by_label("infeasible").is_checked()


def test_a_point_of_the_scatter_opens_its_head_and_the_download_loads(
    watched: Watched, tmp_path: Path
) -> None:
    page = watched.open(f"/run/{MIXED}/overview")
    page.wait_for_selector("#pareto .points path")
    page.locator("#pareto .points path").last.click(force=True)
    page.wait_for_url("**/head/**")
    page.locator("nav a", has_text="Overview").click()
    page.locator("#ranking tbody a").first.click()
    page.wait_for_selector(".picture")
    name = page.locator("h1").inner_text()
    assert page.locator("#config").inner_text().startswith(name.split("-")[0])
    with page.expect_download() as download:
        page.get_by_text("Download head.yaml").click()
    assert download.value.suggested_filename == "head.yaml"
    download.value.save_as(tmp_path / "head.yaml")
    import torch

    import headsearch

    head = headsearch.load_head(tmp_path / "head.yaml")
    assert head(torch.zeros(1, 64, 4, 4)).shape == (1, 64, 4, 4)


def test_heads_of_two_runs_are_compared(watched: Watched, paths: list[Path]) -> None:
    best = [row.head_id for row in read_run(paths[MIXED]).ranked[:2]]
    page = watched.open(f"/compare?head={MIXED}:{best[0]}&head={LIVE}:none")
    page.wait_for_selector("#parallel .main-svg")
    assert page.locator("h2", has_text="Runs").count() == 1
    page.locator("#compare-heads").click()
    page.get_by_text(f"2. {best[1]} (mixed)").click()
    page.wait_for_url(f"**{best[1]}**")
    page.wait_for_selector(f"th:has-text('{best[1]} (mixed)')")
    page.keyboard.press("Escape")


def test_the_keyboard_reaches_everything_and_enter_opens_a_view(watched: Watched) -> None:
    page = watched.open(f"/run/{MIXED}/overview")
    order = []
    for _ in range(20):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.textContent"))
        if order[-1] == "Trials":
            break
    assert order[0] == "Skip to the content"
    assert order[-3:] == ["markup", "Overview", "Trials"]
    page.keyboard.press("Enter")
    page.wait_for_selector("#trials-table")
    until(page, "document.activeElement.id === 'main'")
    until(page, "document.title.startsWith('Trials')")
    for field in page.locator("main input:not([aria-hidden])").all():
        assert field.evaluate("field => field.labels.length > 0 || !!field.getAttribute('aria-label')")


def luminance(page: "playwright.Page", selector: str, prop: str) -> float:
    """Relative luminance of a colour, as WCAG defines it."""
    colour = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{prop}")
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_follows_the_system_and_the_switch_is_remembered(
    browser: "playwright.Browser", base: str
) -> None:
    context = browser.new_context(color_scheme="dark")
    page = Watched(context, base).open(f"/run/{MIXED}/overview")
    for dark in (True, False, False):
        ground = luminance(page, ".card", "backgroundColor")
        assert (ground < 0.1) is dark
        for selector, prop in (
            (".verdict", "color"),
            (".note", "color"),
            (".card a", "color"),
            (".xtick text", "fill"),
            ("th", "color"),
        ):
            ink = luminance(page, selector, prop)
            contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
            assert contrast >= 4.5, f"{selector} in {'dark' if dark else 'light'}: {contrast:.1f}"
        if dark:
            page.get_by_role("button", name="Switch to light colours").click()
        else:
            page.reload()
            page.wait_for_selector(".xtick text")
    context.close()


def test_a_phone_scrolls_down_and_not_across(
    browser: "playwright.Browser", base: str, paths: list[Path]
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    watched = Watched(context, base)
    head = read_run(paths[MIXED]).ranked[0].head_id
    places = {f"/run/{MIXED}/{view}": TITLES[view] for view in VIEWS}
    places |= {f"/run/{MIXED}/head/{head}": "A head of", f"/compare?head=0:{head}&head=0:none": "Compare"}
    for path, told in places.items():
        page = watched.go(path, told)
        until(page, DRAWN)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    context.close()
    assert watched.complaints == []


def test_without_its_token_a_dashboard_shows_nothing(browser: "playwright.Browser", toy_run: Path) -> None:
    with served([toy_run], token="right") as base:
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"{base}/").status == 403  # type: ignore[union-attr]
        assert page.goto(f"{base}/?token=wrong").status == 403  # type: ignore[union-attr]
        assert "mixed" not in page.content()
        page.goto(f"{base}/run/0/trials?token=right")
        page.wait_for_selector("#trials-table")
        assert page.url == f"{base}/run/0/trials"
        context.close()


def test_a_report_opens_from_a_file_and_asks_nobody(
    browser: "playwright.Browser", paths: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_report(read_run(paths[MARKUP])), encoding="utf-8")
    context = browser.new_context(viewport={"width": 390, "height": 844})
    watched = Watched(context, file.as_uri())
    page = watched.page
    page.goto(file.as_uri())
    page.wait_for_selector("#overview .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#trials-table button", has_text="k-NN").click()
    page.wait_for_selector("#trials-table th[aria-sort=ascending]")
    everything = page.locator("#trials-table tbody tr:visible").count()
    page.get_by_label("Show trials with").fill("infeasible")
    assert 0 < page.locator("#trials-table tbody tr:visible").count() < everything
    page.locator("#ranking a").first.click()
    page.locator("details.head[open] .plot").first.scroll_into_view_if_needed()
    page.wait_for_selector("details.head[open] .main-svg")
    context.close()
    assert watched.complaints == []
    assert watched.requests == [file.as_uri()]
