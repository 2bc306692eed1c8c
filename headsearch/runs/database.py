"""Databases as storages: what Optuna and SQLAlchemy are told so that one that is restarted meanwhile ends no search and doubles no trial."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState

from headsearch.errors import RunError
from headsearch.runs.failures import NumberTaken, StorageAway, cause_of

if TYPE_CHECKING:
    import sqlite3

    from optuna.trial import FrozenTrial

CONNECT_SECONDS = 10
"""For a server to answer."""
SILENT_SECONDS = 30
"""Without a word from a server that was asked, after which the connection is taken for dead."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}
"""What is used where a URL names no driver."""
_EXTRAS = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mysql"}
"""Which extra of headsearch has the driver."""


_TABLES = models.BaseModel.metadata.tables
_TRIALS, _PARAMETERS, _VALUES = _TABLES["trials"], _TABLES["trial_params"], _TABLES["trial_values"]
_TOLD, _NOTED = _TABLES["trial_user_attributes"], _TABLES["trial_system_attributes"]
_STUDIES, _NOTED_OF_STUDY = _TABLES["studies"], _TABLES["study_system_attributes"]

# Statements are made once, since making one costs as much as running it.
_IS_TRIAL = _TRIALS.c.trial_id == sqlalchemy.bindparam("trial")
_LOCK_STUDY = (
    sqlalchemy.select(_STUDIES.c.study_id)
    .where(_STUDIES.c.study_id == sqlalchemy.bindparam("study"))
    .with_for_update()
)
_NUMBER_BEFORE = (
    sqlalchemy.select(_TRIALS.c.number)
    .where(_TRIALS.c.study_id == sqlalchemy.bindparam("study"))
    .where(_TRIALS.c.trial_id < sqlalchemy.bindparam("trial"))
    .order_by(_TRIALS.c.trial_id.desc())
    .limit(1)
)
_STATE = sqlalchemy.select(_TRIALS.c.state).where(_IS_TRIAL).with_for_update()
_UNFINISHED = _TRIALS.c.state.not_in([state for state in TrialState if state.is_finished()])
_END = sqlalchemy.update(_TRIALS).where(_IS_TRIAL).where(_UNFINISHED)
_CHANGE = (
    sqlalchemy.update(_NOTED)
    .where(_NOTED.c.trial_id == sqlalchemy.bindparam("trial"))
    .where(_NOTED.c.key == sqlalchemy.bindparam("name"))
    .where(sqlalchemy.exists().where(_IS_TRIAL).where(_UNFINISHED))
)
_INSERT = {table: table.insert() for table in (_TRIALS, _PARAMETERS, _VALUES, _TOLD, _NOTED)}
_REMOVE = {
    table: sqlalchemy.delete(table)
    .where(table.c.trial_id == sqlalchemy.bindparam("trial"))
    .where(table.c.key == sqlalchemy.bindparam("name"))
    for table in (_TOLD, _NOTED)
}
_STUDY_ATTRIBUTES = sqlalchemy.select(_NOTED_OF_STUDY.c.key, _NOTED_OF_STUDY.c.value_json).where(
    _NOTED_OF_STUDY.c.study_id == sqlalchemy.bindparam("study")
)


class Database(RDBStorage):
    """Optuna's storage, with creation that is safe to repeat, and what a search writes in one transaction of plain statements each: Optuna asks
    for every row again before it writes one, by way of objects, which was most of what a trial cost."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; its id. Raises `NumberTaken` where the template does not have the number that comes next."""
        if template_trial is None:
            return int(super().create_new_trial(study_id))
        trial, asked = template_trial, {"study": study_id}
        with self.engine.begin() as connection:
            if connection.execute(_LOCK_STUDY, asked).first() is None:
                raise KeyError(models.NOT_FOUND_MSG)
            row = {
                "study_id": study_id,
                "number": trial.number,
                "state": trial.state,
                "datetime_start": _utc(trial.datetime_start),
                "datetime_complete": _utc(trial.datetime_complete),
            }
            key = connection.execute(_INSERT[_TRIALS], row).inserted_primary_key
            assert key is not None, "one row was inserted"
            trial_id = int(key[0])
            # Now that others wait. Where it is not known whether a creation succeeded it is repeated: it would make a second trial.
            before = connection.execute(_NUMBER_BEFORE, {**asked, "trial": trial_id}).scalar()
            if trial.number != (0 if before is None else before + 1):
                raise NumberTaken(f"there is a trial {trial.number} already")
            parameters = [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": trial.distributions[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(trial.distributions[name]),
                }
                for name, value in trial.params.items()
            ]
            _add(connection, _PARAMETERS, parameters)
            _add(connection, _TOLD, _attributes(trial_id, trial.user_attrs))
            _add(connection, _NOTED, _attributes(trial_id, trial.system_attrs))
            _add(connection, _VALUES, _values(trial_id, trial.values))
        return trial_id

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        changed = {"trial": trial_id, "name": key, "value_json": json.dumps(value)}
        with self.engine.begin() as connection:
            if not connection.execute(_CHANGE, changed).rowcount:
                self._lock(connection, trial_id)
                _add(connection, _NOTED, _attributes(trial_id, {key: value}))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna's."""
        with self.engine.connect() as connection:
            found = connection.execute(_STUDY_ATTRIBUTES, {"study": study_id}).all()
        # Without any there may be no such study, which Optuna's raises for.
        return {key: json.loads(text) for key, text in found} or super().get_study_system_attrs(study_id)

    def end_trial(
        self,
        trial_id: int,
        noted: Mapping[str, Any],
        told: Mapping[str, Any],
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End a trial, with its values and with attributes of the system and of the user, which replace those of the same names.

        Raises:
            KeyError: there is no such trial.
            UpdateFinishedTrialError: it has ended.
        """
        with self.engine.begin() as connection:
            ended = {"trial": trial_id, "state": state, "datetime_complete": _utc(datetime.now())}
            if not connection.execute(_END, ended).rowcount:
                self._lock(connection, trial_id)
            _put(connection, _TOLD, trial_id, told)
            _put(connection, _NOTED, trial_id, noted)
            _add(connection, _VALUES, _values(trial_id, values))

    def _lock(self, connection: sqlalchemy.Connection, trial_id: int) -> None:
        """Raises `KeyError` where there is no such trial, `UpdateFinishedTrialError` where it has ended."""
        state = connection.execute(_STATE, {"trial": trial_id}).scalar()
        if state is None:
            raise KeyError(models.NOT_FOUND_MSG)
        self.check_trial_is_updatable(trial_id, state)


def _add(connection: sqlalchemy.Connection, table: sqlalchemy.Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(_INSERT[table], rows)


def _put(
    connection: sqlalchemy.Connection, table: sqlalchemy.Table, trial_id: int, attributes: Mapping[str, Any]
) -> None:
    """Attributes of a trial, in the place of those of the same names."""
    if attributes:
        connection.execute(_REMOVE[table], [{"trial": trial_id, "name": name} for name in attributes])
        _add(connection, table, _attributes(trial_id, attributes))


def _attributes(trial_id: int, attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attributes.items()
    ]


def _values(trial_id: int, values: Sequence[float] | None) -> list[dict[str, Any]]:
    rows = []
    for objective, value in enumerate(values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        rows.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
    return rows


def _utc(time: datetime | None) -> datetime | None:
    """Local time as the tables hold it."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)


def open_database(url: str, shown: str, *, reading: bool) -> Database:
    """The storage at a URL of SQLAlchemy's. `shown` is the URL as people may see it.

    Raises:
        RunError: the URL makes no sense, its driver is not installed, or the database cannot be reached.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        parsed.get_dialect()
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise RunError(
            f"search.storage: '{shown}' is not a storage URL; expected e.g. sqlite:///study.db or postgresql://me@host/database"
        ) from None
    path = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
    if reading and path is not None and not path.exists():
        raise RunError(f"search.storage: there is no file {path}")
    try:
        with warnings.catch_warnings():
            # An option that the driver would leave out of account.
            warnings.simplefilter("error", sqlalchemy.exc.SAWarning)
            # Optuna takes a URL for a template.
            storage = Database(
                parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
                engine_kwargs=_engine_options(parsed, reading=reading),
                skip_table_creation=reading,
            )
    except ImportError:
        extra = _EXTRAS.get(parsed.drivername)
        hint = f"; install it with: pip install 'headsearch[{extra}]'" if extra else ""
        raise RunError(f"search.storage: the driver for {shown} is not installed{hint}") from None
    except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
        raise RunError(f"search.storage: {shown} cannot be reached: {cause_of(error)}") from None
    except Exception as error:  # noqa: BLE001 - drivers raise what they like
        # Tables of another version, or an option of the URL, of which drivers make TypeError, ValueError, LookupError, OSError and more.
        raise RunError(f"search.storage: {shown} cannot be opened: {cause_of(error)}") from None

    sqlalchemy.event.listen(storage.engine, "handle_error", _tell_when_away)
    if path is not None:
        sqlalchemy.event.listen(storage.engine, "connect", _write_ahead)
    # The connection that made the tables is let go, so that every one in use has been told.
    storage.engine.dispose()
    return storage


def _engine_options(url: sqlalchemy.URL, *, reading: bool) -> dict[str, Any]:
    """What SQLAlchemy is told beside the URL, whose own options come first. Who reads cannot write, whatever Optuna does when it opens."""
    wanted: dict[str, Any]
    match url.drivername:
        case "postgresql+psycopg":
            wanted = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 1000 * SILENT_SECONDS}
        case "mysql+pymysql":
            wanted = {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "write_timeout": SILENT_SECONDS,
            }
            if reading:
                wanted["init_command"] = "SET SESSION TRANSACTION READ ONLY"
        case _:
            return {}
    return {
        # A connection that died while it was idle is noticed by the next write, which is then repeated.
        "pool_pre_ping": False,
        "connect_args": {key: value for key, value in wanted.items() if key not in url.query},
        "execution_options": {"postgresql_readonly": True} if reading else {},
    }


def _tell_when_away(context: sqlalchemy.engine.ExceptionContext) -> None:
    """Tell a database that may come back, or a file that another process holds just now, from a statement that is wrong."""
    original = context.original_exception
    busy = getattr(original, "sqlite_errorname", "").startswith("SQLITE_BUSY")
    # What a MySQL server says to a statement while it stops is no lost connection to SQLAlchemy.
    stopping = context.dialect.name == "mysql" and original.args[:1] in ((1053,), (1927,))
    # Without a connection, it was connecting that failed.
    if context.is_disconnect or context.connection is None or busy or stopping:
        raise StorageAway(cause_of(original)) from original


def _write_ahead(connection: sqlite3.Connection, _record: object) -> None:
    """Write ahead: readers do not hold up the writer, and a commit need not wait for the disk (26 ms on a busy one, five times a trial).

    A killed process loses nothing. After a power cut the last commits may be missing, never half of one: those trials are run again.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
