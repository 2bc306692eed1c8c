"""Databases as storages: what Optuna and SQLAlchemy are told so that one that is restarted meanwhile ends no search and doubles no trial."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.distributions import distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import TrialState, create_trial

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


class Database(RDBStorage):
    """Optuna's storage, with creation that is safe to repeat, and a trial's creation and end that take one transaction each."""

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        # Here, with the study locked and before the commit, the number is known. Where it is not known whether a creation succeeded it is
        # repeated, by Optuna too: it would make a second trial.
        bare = template_trial
        if template_trial is not None and template_trial.state == TrialState.RUNNING:
            # Optuna asks the database twice for every parameter and attribute, which is most of what a trial costs here.
            bare = create_trial(state=TrialState.RUNNING)
            bare.datetime_start = template_trial.datetime_start
        trial = super()._get_prepared_new_trial(study_id, bare, session)
        if template_trial is not None and trial.number != template_trial.number:
            raise NumberTaken(f"there is a trial {template_trial.number} already")
        if template_trial is not None and bare is not template_trial:
            session.add_all(_parameters(int(trial.trial_id), template_trial))
            session.add_all(
                _attributes(int(trial.trial_id), template_trial.system_attrs, template_trial.user_attrs)
            )
        return trial

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
        with _create_scoped_session(self.scoped_session) as session:
            trial: Any = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            self.check_trial_is_updatable(trial_id, trial.state)
            trial.state = state
            trial.datetime_complete = datetime.now()
            for kind, attributes in _kinds(noted, told):
                session.execute(
                    sqlalchemy.delete(kind).where(kind.trial_id == trial_id, kind.key.in_(list(attributes)))
                )
            session.add_all(_attributes(trial_id, noted, told))
            for objective, value in enumerate(values or ()):
                stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                session.add(
                    models.TrialValueModel(
                        trial_id=trial_id, objective=objective, value=stored, value_type=kind
                    )
                )


def _parameters(trial_id: int, trial: FrozenTrial) -> Iterator[models.BaseModel]:
    """Rows of the parameters of a new trial."""
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield models.TrialParamModel(
            trial_id=trial_id,
            param_name=name,
            param_value=distribution.to_internal_repr(value),
            distribution_json=distribution_to_json(distribution),
        )


def _attributes(
    trial_id: int, noted: Mapping[str, Any], told: Mapping[str, Any]
) -> Iterator[models.BaseModel]:
    """Rows of attributes of the system and of the user."""
    for kind, attributes in _kinds(noted, told):
        for key, value in attributes.items():
            yield kind(trial_id=trial_id, key=key, value_json=json.dumps(value))


def _kinds(noted: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[tuple[Any, Mapping[str, Any]], ...]:
    return (models.TrialUserAttributeModel, told), (models.TrialSystemAttributeModel, noted)


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
