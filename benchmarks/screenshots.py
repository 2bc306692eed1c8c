"""Takes the pictures of the documentation from a run: `docs/images/overview.png` and `docs/images/head.png`. Needs Chromium.

python benchmarks/screenshots.py RUN [--out docs/images] [--dark]
"""

from __future__ import annotations

import argparse
import shutil
import threading
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from headsearch.dashboard.server import open_server
from headsearch.report.parts import Links
from headsearch.runs.run import read_run

LARGEST = 300_000
"""Bytes of a picture."""
WIDTH, HEIGHT = 1200, 1180
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--no-first-run",
]


def take(page: Page, address: str, file: Path) -> None:
    """One picture of the top of a page, once its figures are drawn. Raises `SystemExit` where it is too large for a repository."""
    page.goto(address)
    page.wait_for_selector("#live .main-svg")
    page.wait_for_timeout(1000)
    page.screenshot(path=file, animations="disabled")
    if file.stat().st_size > LARGEST:
        raise SystemExit(f"{file}: {file.stat().st_size} bytes, more than {LARGEST}")
    print(f"{file}: {file.stat().st_size // 1000} kB")


def main() -> None:
    """Serve the run and take both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    # The best head that mixes more than one block shows more than one that does not.
    ranked = read_run(options.run).ranked
    best = next((row for row in ranked if "-d1" not in row.head_id), ranked[0])
    server, address = open_server([options.run], host="127.0.0.1", port=0, token=None)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            page = browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if options.dark else "light"
            )
            base = address.url.rstrip("/")
            take(page, f"{base}/", options.out / "overview.png")
            take(page, f"{base}{Links(0).head(best.head_id)}", options.out / "head.png")
            browser.close()
    finally:
        server.close()


if __name__ == "__main__":
    main()
