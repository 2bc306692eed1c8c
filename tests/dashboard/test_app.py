"""The application without a browser: addresses, downloads, and what its start does not import."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from werkzeug.test import Client

from headsearch.dashboard.app import Runs, make_app
from headsearch.dashboard.pages import VIEWS, Route, chosen_heads, content, controls, heading, navigation
from headsearch.dashboard.server import Address, open_server
from headsearch.errors import RunError
from headsearch.export import export_head, read_head
from headsearch.testing.toy_search import run_toy, toy_experiment


@pytest.fixture(scope="module")
def runs(toy_run: Path) -> Runs:
    return Runs([toy_run, toy_run])


@pytest.fixture(scope="module")
def client(runs: Runs) -> Client:
    return Client(make_app(runs).server)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (None, Route(0, "overview")),
        ("/", Route(0, "overview")),
        ("/run/1", Route(1, "overview")),
        ("/run/1/trials", Route(1, "trials")),
        ("/run/1/head/a%2Fb", Route(1, "head", "a/b")),
        ("/run/0/head/%3Cscript%3E", Route(0, "head", "<script>")),
        ("/compare", Route(0, "compare")),
        ("/run/2/trials", Route(0, "missing")),
        ("/run/-1", Route(0, "missing")),
        ("/run/²/trials", Route(0, "missing")),
        ("/run/0/nothing", Route(0, "missing")),
        ("/run/0/head", Route(0, "missing")),
        ("/etc/passwd", Route(0, "missing")),
    ],
)
def test_an_address_leads_to_a_page_or_nowhere(path: str | None, route: Route, runs: Runs) -> None:
    assert Route.parse(path, 2) == route
    assert content(route, "?x=1", runs.views)
    assert heading(route, runs.views)
    controls(route, "", runs.views)
    assert len(navigation(route, runs.views)) == 2, "runs and views"


def test_chosen_heads_are_positions_and_names_and_nothing_else() -> None:
    assert chosen_heads("?head=0%3Aa&head=1:b&head=0:a&head=x:c&head=9&head=99999999999:d") == [
        (0, "a"),
        (1, "b"),
    ]
    assert chosen_heads(None) == []


def test_a_download_is_what_export_writes(client: Client, toy_run: Path, runs: Runs, tmp_path: Path) -> None:
    best = runs.views[0].ranked[0].head_id
    answer = client.get(f"/run/0/head/{best}/head.yaml")
    assert answer.status_code == 200
    assert "attachment" in answer.headers["Content-Disposition"]
    export_head(toy_run, tmp_path / "head.yaml")
    assert answer.get_data(as_text=True) == (tmp_path / "head.yaml").read_text()
    (tmp_path / "downloaded.yaml").write_bytes(answer.data)
    assert read_head(tmp_path / "downloaded.yaml").head_id == best


@pytest.mark.parametrize("path", ["/run/0/head/none/head.yaml", "/run/0/head/nope/head.yaml", "/run/9/head/none/head.yaml",
                                  "/run/0/head/../../../run.json/head.yaml", "/assets/../page.py", "/assets/report.js/../../data.py"])  # fmt: skip
def test_what_is_not_there_is_not_served(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 or b"<!doctype html>" in answer.data.lower()
    assert b"import" not in answer.data


def test_the_start_imports_nothing_heavy_and_no_dash_is_needed_for_status(toy_run: Path) -> None:
    code = (
        "import sys\n"
        "from headsearch.runs.run import read_run\nfrom headsearch.report.status import status_panel\n"
        f"status_panel(read_run({str(toy_run)!r}))\n"
        "assert not {'dash', 'plotly'} & set(sys.modules)\n"
        "from headsearch.dashboard.server import open_server\nfrom pathlib import Path\n"
        f"server, address = open_server([Path({str(toy_run)!r})], host='127.0.0.1', port=0, token=None)\n"
        "heavy = {'torch', 'timm', 'ray', 'optuna', 'sklearn', 'scipy', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\nserver.close()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_other_hosts_get_a_token_and_an_occupied_port_is_one_line(toy_run: Path) -> None:
    server, address = open_server([toy_run], host="127.0.0.1", port=0, token=None)
    try:
        assert address.token is None
        with pytest.raises(RunError, match=f"port {address.port}: cannot be listened on.*--port"):
            open_server([toy_run], host="127.0.0.1", port=address.port, token=None)
    finally:
        server.close()
    server, address = open_server([toy_run], host="0.0.0.0", port=0, token=None)
    server.close()
    assert address.token is not None
    assert f"?token={address.token}" in address.url
    with pytest.raises(RunError, match="empty"):
        open_server([toy_run], host="127.0.0.1", port=0, token="")
    with pytest.raises(RunError, match="not an address"):
        open_server([toy_run], host="999.1.1.1", port=0, token=None)
    assert Address("127.0.0.1", 1, "a b&c").url.endswith("/?token=a%20b%26c")


@pytest.mark.parametrize("storage", [None, "journal:///{}/study.log"])
def test_every_page_of_a_run_that_may_not_be_written_is_shown_and_follows_it(
    tmp_path: Path, storage: str | None
) -> None:
    """In a folder without write permission and on a journal, with pages, downloads and changes."""
    folder = tmp_path / "place"
    folder.mkdir()
    url = storage.format(folder) if storage else None
    run_toy(folder / "run", toy_experiment(trials=3, sampler="random", storage=url))
    for file in (folder, *folder.rglob("*")):
        file.chmod(0o555 if file.is_dir() else 0o444)
    before = {
        file: (file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in folder.rglob("*")
    }
    runs = Runs([folder / "run"])
    client = Client(make_app(runs).server)
    for name in VIEWS:
        assert content(Route(0, name), "", runs.views)
    best = runs.views[0].ranked[0].head_id
    assert client.get(f"/run/0/head/{best}/head.yaml").status_code == 200
    assert runs.refresh() == runs.refresh()
    assert {
        file: (file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in folder.rglob("*")
    } == before
    for file in (folder, *folder.rglob("*")):
        file.chmod(0o755 if file.is_dir() else 0o644)
    run_toy(folder / "run", toy_experiment(trials=5, sampler="random", storage=url), resume=True)
    [before_more] = [len(view.records) for view in runs.views]
    runs.refresh()
    assert len(runs.views[0].records) > before_more
    assert runs.views[0].problems == ()


def test_a_refresh_draws_a_page_again_for_its_own_run_alone(toy_run: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(toy_run, tmp_path / name)) for name in "ab"]
    runs = Runs(copies)
    client = Client(make_app(runs).server)
    runs.refresh()

    def look(path: str, known: object) -> object:
        body = {
            "output": "version.data",
            "outputs": {"id": "version", "property": "data"},
            "inputs": [{"id": "tick", "property": "n_intervals", "value": 1}],
            "state": [
                {"id": "version", "property": "data", "value": known},
                {"id": "url", "property": "pathname", "value": path},
            ],
            "changedPropIds": ["tick.n_intervals"],
        }
        answer = client.post("/_dash-update-component", json=body)
        return None if answer.status_code == 204 else json.loads(answer.data)["response"]["version"]["data"]

    paths = ("/run/0/overview", "/run/1/overview", "/compare")
    known = {path: look(path, None) for path in paths}
    assert [look(path, known[path]) for path in paths] == [None, None, None]
    (copies[1] / "run.json").write_text("{")
    assert [look(path, known[path]) is None for path in paths] == [True, False, False]


def test_every_view_is_in_the_navigation(runs: Runs) -> None:
    text = str(navigation(Route(0, "trust"), runs.views))
    assert all(title in text for title in VIEWS.values())
