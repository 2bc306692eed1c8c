"""What a trial logged, also while it is being written."""

from pathlib import Path

from headsearch.runs.epochs import last_epoch, read_epochs
from headsearch.training.metrics import MetricsLog


def test_a_log_is_read_as_it_was_written_and_a_resumed_epoch_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for epoch, loss in ((1, 3.0), (2, 2.0), (2, 1.5)):
        log.append("epoch", {"epoch": epoch, "loss": loss, "learning_rate": 0.1, "images_per_second": 10.0})
    log.append("rung", {"epoch": 2, "loss": 9.0})
    assert [(point.epoch, point.loss) for point in read_epochs(path)] == [(1, 3.0), (2, 1.5)]
    assert last_epoch(path) == 2


def test_a_half_written_line_and_rubbish_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"kind": "epoch", "epoch": 1, "loss": null}\n\xff\xfe\n[]\n{"kind": "epoch", "epoch": "x"}\n{"kind": "epo'
    )
    assert [(point.epoch, point.loss) for point in read_epochs(path)] == [(1, None)]
    assert last_epoch(path) == 1


def test_no_log_is_no_epochs(tmp_path: Path) -> None:
    assert read_epochs(tmp_path / "none") == ()
    assert last_epoch(tmp_path / "none") is None
