"""What callbacks are told, by the logs they leave: read back with the readers of those who show them."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headsearch.errors import ExperimentError, MissingPackage, RunError
from headsearch.experiment import parse_experiment
from headsearch.experiment.callbacks import MlflowSpec, TensorBoardSpec, WandbSpec
from headsearch.results.records import State, TrialRecord
from headsearch.runs.run import read_run
from headsearch.search.callbacks import check_callbacks
from headsearch.search.callbacks.broadcast import Broadcast
from headsearch.search.callbacks.tracker import LoggedTrial, Tracker, score_values
from headsearch.search.observer import Observer, SearchStatus
from headsearch.testing.toy import ToyEvaluator
from headsearch.testing.toy_search import results, run_toy, toy_experiment
from headsearch.training.trial import Training

SEARCH: dict[str, Any] = {
    "strategy": "proxies",
    "trials": 3,
    "finalists": 1,
    "replicates": 2,
    "sampler": "random",
}


class Interrupting(Observer):
    """Ctrl-C in the fifth epoch of a trial."""

    def __init__(self, trial: int) -> None:
        self._trial = trial

    def training_progress(self, training: Training, epoch: float, *_: object) -> None:
        if training.number == self._trial and epoch == 5:
            raise KeyboardInterrupt


def run_interrupted(
    out: Path, callback: Mapping[str, Any], evaluate: ToyEvaluator | None = None
) -> list[TrialRecord]:
    """A search that is interrupted in trial 4 and resumed."""
    experiment = toy_experiment(**SEARCH, callbacks=[dict(callback)])
    with pytest.raises(KeyboardInterrupt):
        run_toy(out, experiment, evaluate, observer=Interrupting(4))
    return run_toy(out, experiment, evaluate, resume=True)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrialRecord]]:
    out = tmp_path_factory.mktemp("tensorboard") / "run"
    records = run_interrupted(out, {"kind": "tensorboard"}, ToyEvaluator(failures={"mlp": "collapse"}))
    return out / "tensorboard", records


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_a_folder_of_every_trial_with_its_scores(
    events: tuple[Path, list[TrialRecord]],
) -> None:
    folder, records = events
    folders = {int(path.name.split("-")[0]): path for path in folder.iterdir()}
    trained = [record for record in records if record.state != "duplicate"]
    assert sorted(folders) == [record.number for record in trained]
    assert folders[0].name == "0-control-none"
    for record in trained:
        found = accumulated(folders[record.number])
        tags = found.Tags()["scalars"]
        for scores in record.rungs:
            for name, value in score_values(scores).items():
                logged = {event.step: event.value for event in found.Scalars(name)}
                assert logged[scores.epoch] == pytest.approx(value, rel=1e-6)
        if record.state == "complete":
            assert "score/linear" in tags
            # Files of two sessions of one second are read in the order of their names, in which 10 comes before 9.
            assert sorted(event.step for event in found.Scalars("score/knn")) == [1, 3, 9]
            assert ("score/discrepancy" in tags) == (record.head_id != "none")


def test_tensorboard_has_the_loss_of_every_epoch_also_of_an_interrupted_trial(
    events: tuple[Path, list[TrialRecord]],
) -> None:
    folder, _ = events
    interrupted = next(folder.glob("4-*"))
    assert len(list(interrupted.iterdir())) == 2, "a file for each session"
    found = accumulated(interrupted)
    loss = {event.step: event.value for event in found.Scalars("train/loss")}
    assert loss == pytest.approx({epoch: 1 / epoch for epoch in range(1, 10)}, rel=1e-6)


def test_tensorboard_has_hyperparameters_and_text(events: tuple[Path, list[TrialRecord]]) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorboard.util import tensor_util

    folder, records = events
    record = records[4]
    found = accumulated(next(folder.glob("4-*")))
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    described = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert described["family"].string_value == record.config.family
    assert described["depth"].number_value == record.config.depth

    def text(tag: str) -> str:
        return tensor_util.make_ndarray(found.Tensors(tag)[-1].tensor_proto).item().decode()  # type: ignore[no-any-return]

    assert "name: toy" in text("experiment")
    assert record.head_id in text("head")
    assert text("end") == "complete"
    collapsed = next(r for r in records if r.state == "infeasible")
    found = accumulated(next(folder.glob(f"{collapsed.number}-*")))
    assert text("end") == "infeasible: head embeddings collapsed (standard deviation 0.001)"


def test_mlflow_has_a_run_of_the_search_and_one_below_it_for_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder is quicker to make than a database.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "store").as_uri()
    records = run_interrupted(
        tmp_path / "run",
        {"kind": "mlflow", "tracking_uri": store, "experiment": "heads"},
        ToyEvaluator(failures={"mlp": "collapse"}),
    )
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("heads")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (search,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert search.info.status == "FINISHED"
    assert "name: toy" in search.data.tags["mlflow.note.content"]
    winner = read_run(tmp_path / "run").ranked[0]
    assert search.data.tags["headsearch.winner"] == winner.head_id
    assert search.data.tags["headsearch.verdict"] == read_run(tmp_path / "run").verdict
    assert search.data.metrics["winner/probe"] == winner.probe
    assert search.data.params["base.model"] == toy_experiment().base.model
    assert search.data.params["proxy.epochs"] == str(toy_experiment().proxy.epochs)
    report = Path(client.download_artifacts(search.info.run_id, "report.md", str(tmp_path)))
    assert winner.head_id in report.read_text()
    pictures = Path(client.download_artifacts(search.info.run_id, "figures", str(tmp_path)))
    assert {picture.stem for picture in pictures.iterdir()} == {"overview", "curves", "cost"}
    assert winner.head_id in (pictures / "overview.html").read_text()
    trials = {int(run.info.run_name.split("-")[0]): run for run in runs if run is not search}
    assert len(trials) == len(runs) - 1
    trained = [record for record in records if record.state != "duplicate"]
    assert sorted(trials) == [record.number for record in trained]
    for record in trained:
        run = trials[record.number]
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert run.data.tags["headsearch.state"] == record.state
        assert run.info.status == ("FINISHED" if record.state == "complete" else "FAILED")
        assert run.data.params["family"] == record.config.family
        assert run.data.params["seed"] == str(record.seed)
        for name in ("knn", "linear"):
            if record.state == "complete":
                assert run.data.metrics[f"score/{name}"] == getattr(record.rungs[-1], name)
    interrupted = trials[4].info.run_id
    losses = client.get_metric_history(interrupted, "train/loss")
    assert {metric.step: metric.value for metric in losses} == {epoch: 1 / epoch for epoch in range(1, 10)}
    collapsed = next(record for record in records if record.state == "infeasible")
    assert trials[collapsed.number].data.tags["headsearch.reason"] == collapsed.reason


@pytest.mark.parametrize("store", ["file", "nonsense://x", "sqlite:////proc/x.db"])
def test_an_mlflow_store_that_cannot_be_had_is_one_line_that_says_what_to_use(
    store: str, tmp_path: Path
) -> None:
    uri = (tmp_path / "store").as_uri() if store == "file" else store
    experiment = toy_experiment(**SEARCH, callbacks=[{"kind": "mlflow", "tracking_uri": uri}])
    begun = time.monotonic()
    with pytest.raises(RunError, match=r"^search.callbacks: mlflow cannot be written to: ") as raised:
        run_toy(tmp_path / "run", experiment)
    assert time.monotonic() - begun < 60
    assert "\n" not in str(raised.value)
    assert ("tracking_uri: sqlite:///mlflow.db" in str(raised.value)) == (store == "file")
    assert not (tmp_path / "run").exists()


def test_a_password_for_mlflow_is_not_written_down(tmp_path: Path) -> None:
    experiment = toy_experiment(
        **SEARCH, callbacks=[{"kind": "mlflow", "tracking_uri": "http://me:S3 cret@127.0.0.1:9"}]
    )
    with pytest.raises(RunError) as raised:
        run_toy(tmp_path / "run", experiment)
    assert "cret" not in str(raised.value)
    assert not any("cret" in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_an_mlflow_server_that_is_not_there_is_said_before_anything_is_made(tmp_path: Path) -> None:
    experiment = toy_experiment(
        **SEARCH, callbacks=[{"kind": "mlflow", "tracking_uri": "http://127.0.0.1:9"}]
    )
    with pytest.raises(RunError, match=r"^search.callbacks: mlflow cannot be written to: "):
        run_toy(tmp_path / "run", experiment)
    assert list(tmp_path.iterdir()) == []


def test_wandb_offline_leaves_a_folder_for_every_trial_under_one_id(tmp_path: Path) -> None:
    callback = {"kind": "wandb", "project": "heads", "mode": "offline"}
    records = run_interrupted(tmp_path / "run", callback)
    trained = [record.number for record in records if record.state != "duplicate"]
    logs = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    named = [log.stem.removeprefix("run-").split("-") for log in logs]
    assert len({key for key, _ in named}) == 1
    # The interrupted trial has one for each session, under the same id: they are one run once they are synced.
    assert sorted(int(number) for _, number in named) == sorted([*trained, 4])
    for log in logs:
        assert b"score/knn" in log.read_bytes()
        assert b"train/loss" in log.read_bytes()


def test_wandb_without_credentials_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    experiment = toy_experiment(**SEARCH, callbacks=[{"kind": "wandb"}])
    with pytest.raises(
        RunError, match=r"^search.callbacks: wandb has no credentials; expected WANDB_API_KEY"
    ):
        run_toy(tmp_path / "run", experiment)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = (TensorBoardSpec(), MlflowSpec(), WandbSpec())
    check_callbacks(specs)
    monkeypatch.setattr("sys.path", [])
    for kind in ("mlflow", "wandb"):
        for module in [name for name in sys.modules if name.split(".")[0] == kind]:
            monkeypatch.delitem(sys.modules, module)
    sys.path_importer_cache.clear()
    with pytest.raises(
        MissingPackage,
        match=r"^search.callbacks: mlflow is not installed; install it with: pip install 'headsearch\[mlflow\]'$",
    ):
        check_callbacks((MlflowSpec(),))


class Recording(Tracker):
    """Keeps what it is told, until it breaks."""

    name = "recording"

    def __init__(self, breaks_at: int | None = None) -> None:
        super().__init__()
        self.told: list[tuple[str, int]] = []
        self._breaks_at = breaks_at

    def _tell(self, what: str, number: int) -> None:
        if self._breaks_at == len(self.told):
            raise ConnectionResetError("the server has gone\naway")
        self.told.append((what, number))

    def begin(self, trial: LoggedTrial) -> None:
        self._tell("begin", trial.number)

    def log(self, number: int, epoch: int, values: Mapping[str, float]) -> None:
        self._tell("log", number)

    def end(self, number: int, state: State, reason: str | None) -> None:
        self._tell(state, number)

    def close(self) -> None:
        self._tell("close", -1)


def told(tmp_path: Path, name: str, callbacks: list[Recording]) -> tuple[list[TrialRecord], list[str]]:
    notes: list[str] = []

    class Notes(Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    with Broadcast(Notes(), callbacks) as broadcast:
        records = run_toy(tmp_path / name, toy_experiment(**SEARCH), observer=broadcast)
    return records, notes


def test_a_callback_that_fails_is_dropped_with_a_note_and_the_search_goes_on(tmp_path: Path) -> None:
    good, bad = Recording(), Recording(breaks_at=30)
    records, notes = told(tmp_path, "run", [bad, good])
    assert notes == ["recording failed and is switched off: the server has gone away"]
    assert len(bad.told) == 30
    assert [number for what, number in good.told if what == "complete"] == [
        record.number for record in records if record.state == "complete"
    ]
    assert good.told[-1] == ("close", -1)
    assert results(records) == results(run_toy(tmp_path / "alone", toy_experiment(**SEARCH)))


def test_every_trial_is_begun_logged_and_ended(tmp_path: Path) -> None:
    callback = Recording()
    records, _ = told(tmp_path, "run", [callback])
    for record in records:
        mine = [what for what, number in callback.told if number == record.number]
        if record.state == "duplicate":
            assert mine == []
        else:
            # Nine epochs and three rungs.
            assert mine == ["begin", *["log"] * 12, "complete"]


def test_heads_of_a_screen_are_logged_when_it_has_ended(tmp_path: Path) -> None:
    callback = Recording()
    with Broadcast(Observer(), [callback]) as broadcast:
        records = run_toy(
            tmp_path / "run",
            toy_experiment(strategy="screen", screen={"heads": 4, "batch": 4}, finalists=0, replicates=1),
            observer=broadcast,
        )
    screened = [record for record in records if record.stage == "screen"]
    assert len(screened) == 4
    for record in screened:
        mine = [what for what, number in callback.told if number == record.number]
        assert mine == ["begin", *["log"] * len(record.rungs), record.state]


def test_a_search_resumes_with_other_callbacks(tmp_path: Path) -> None:
    experiment = toy_experiment(**SEARCH)
    run_toy(tmp_path / "run", experiment)
    longer = toy_experiment(**{**SEARCH, "trials": 4}, callbacks=[{"kind": "tensorboard"}])
    records = run_toy(tmp_path / "run", longer, resume=True)
    logged = {int(path.name.split("-")[0]) for path in (tmp_path / "run" / "tensorboard").iterdir()}
    assert logged == {record.number for record in records[10:] if record.state != "duplicate"}


def test_callbacks_are_named_in_the_experiment_and_do_not_repeat() -> None:
    with pytest.raises(ExperimentError, match="callbacks must not repeat"):
        parse_experiment({"search": {"callbacks": [{"kind": "tensorboard"}, {"kind": "tensorboard"}]}})
    with pytest.raises(ExperimentError, match=r"search\.callbacks"):
        parse_experiment({"search": {"callbacks": [{"kind": "comet"}]}})


def test_nobody_pays_for_what_is_not_asked_for(tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        "from headsearch.testing.toy_search import run_toy, toy_experiment\n"
        "kinds = json.loads(sys.argv[2])\n"
        "search = dict(strategy='proxies', trials=1, finalists=0, replicates=1, callbacks=kinds)\n"
        "run_toy(Path(sys.argv[1]), toy_experiment(**search))\n"
        "print(*(m for m in ('torch', 'tensorflow', 'tensorboard', 'mlflow', 'wandb') if m in sys.modules))"
    )
    for number, (kinds, imported) in enumerate((([], []), ([{"kind": "tensorboard"}], ["tensorboard"]))):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(number)), json.dumps(kinds)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == imported


def test_status_is_passed_on(tmp_path: Path) -> None:
    class Statuses(Recording):
        def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
            self.told.append(("started", status.settled))

        def search_ended(self, status: SearchStatus) -> None:
            self.told.append(("ended", status.settled))

    callback = Statuses()
    told(tmp_path, "run", [callback])
    assert callback.told[0] == ("started", 0)
    assert callback.told[-2] == ("ended", 10)
