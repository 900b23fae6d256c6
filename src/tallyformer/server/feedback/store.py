"""Rated answers in a database: SQLite in a file, or whatever else SQLAlchemy reaches by a URL."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from tallyformer.errors import UsageError
from tallyformer.server.api_error import unavailable
from tallyformer.tokenizer.messages import Message

_LOGGER = logging.getLogger("tallyformer.server")
LOCK_SECONDS = 10.0
"""That SQLite waits for another process which writes."""
_MIGRATIONS = "tallyformer.server.feedback:migrations"
_MOST_TRIES = 64
"""To keep one answer: each that fails is one that another server has kept."""
_MIGRATING = 0x7A11
"""The lock of PostgreSQL that a migration holds."""
_TABLE = sa.table(
    "rated_answers",
    *(
        sa.column(name, sa.JSON if name in ("messages", "tags") else None)
        for name in (
            "answer_id",
            "choice",
            "owner",
            "user",
            "model",
            "messages",
            "answer",
            "rating",
            "corrected",
            "tags",
            "rated_at",
        )
    ),
)


@dataclass(frozen=True, kw_only=True)
class RatedAnswer:
    """One answer and what was said of it.

    Attributes:
        answer_id: as the API gave it.
        choice: which of its choices.
        owner: whose key asked.
        user: whom the client named.
        model: who answered.
        messages: the conversation before the answer.
        answer: its text.
        rating: "up" or "down", if it was rated.
        corrected: a better text, if one was given.
        tags: words on it.
        rated_at: seconds since 1970.
    """

    answer_id: str
    choice: int
    owner: str
    user: str | None
    model: str
    messages: list[Message]
    answer: str
    rating: str | None
    corrected: str | None
    tags: list[str]
    rated_at: int = field(default_factory=lambda: int(time.time()))


class FeedbackStore:
    """The database. Every call is one transaction, on the disk when it returns.

    Every call raises `ApiError`, 503, where the database does not answer.

    Args:
        url: sqlite:///FILE, or postgresql+psycopg://USER@HOST/NAME.

    Raises:
        UsageError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            # A connection that was lost, as where the database was restarted, is made again.
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                if self._engine.url.database in (None, "", ":memory:"):
                    raise UsageError(
                        "--feedback: this database would be lost with the server. Give "
                        "sqlite:///FILE"
                    )
                sa.event.listen(self._engine, "connect", _durable)
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "postgresql":
                    # Servers that start together migrate one after the other.
                    connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATING})"))
                config = Config()
                config.set_main_option("script_location", _MIGRATIONS)
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise UsageError(
                f"--feedback: the database cannot be opened ({_reason(error)}). Give "
                "sqlite:///FILE in a folder that is there, or the URL of a database whose driver "
                "is installed"
            ) from None

    def save(self, rated: RatedAnswer) -> None:
        """Keep a rated answer, in place of what was said of it before."""
        values = {name: _storable(value) for name, value in vars(rated).items()}
        with _reached():
            for _ in range(_MOST_TRIES - 1):
                # Another server has just kept the same one, which could not be seen before.
                with contextlib.suppress(sa.exc.IntegrityError):
                    return self._replace(rated, values)
            self._replace(rated, values)

    def _replace(self, rated: RatedAnswer, values: dict[str, Any]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_TABLE).where(_same(rated)))
            connection.execute(sa.insert(_TABLE).values(**values))

    def get(self, answer_id: str, choice: int, owner: str) -> RatedAnswer | None:
        """One that is kept, for its own key."""
        where = (
            _TABLE.c.answer_id == _storable(answer_id),
            _TABLE.c.choice == choice,
            _TABLE.c.owner == owner,
        )
        return next(self._rows(sa.select(_TABLE).where(*where)), None)

    def delete(self, *, owner: str, user: str | None = None, answer_id: str | None = None) -> int:
        """Delete what a key rated: one answer, or all of a user; how many there were.

        SQLite's files do not have their texts any more, unless another process reads just then.
        """
        of_user = _TABLE.c.user == _storable(user)
        which = of_user if answer_id is None else _TABLE.c.answer_id == _storable(answer_id)
        with _reached(), self._engine.begin() as connection:
            gone = sa.delete(_TABLE).where(_TABLE.c.owner == owner, which)
            count = int(connection.execute(gone).rowcount)
        if count and self._engine.dialect.name == "sqlite":
            with contextlib.suppress(sa.exc.OperationalError), self._engine.connect() as connection:
                connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
        return count

    def all(self) -> Iterator[RatedAnswer]:
        """All rated answers, the oldest first."""
        yield from self._rows(sa.select(_TABLE).order_by("rated_at", "answer_id", "choice"))

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _rows(self, query: Any) -> Iterator[RatedAnswer]:
        with _reached(), self._engine.connect() as connection:
            for row in connection.execute(query):
                yield RatedAnswer(**row._mapping)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """What the database does while this block runs; 503 where it cannot be reached."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        _LOGGER.error("database failed", extra={"fields": {"reason": _reason(error)}})
        raise unavailable(
            "The database of the ratings does not answer. Send this again", code="database"
        ) from None


def _reason(error: Exception) -> str:
    """The driver's first line: a full disk, a lock, a refused connection; it holds no values."""
    lines = str(getattr(error, "orig", "")).splitlines()
    return lines[0] if lines else "unknown reason, or the driver is not installed"


def _storable(value: Any) -> Any:
    """A text, or what holds some, without the character 0, which PostgreSQL refuses."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {name: _storable(item) for name, item in value.items()}
    return value


def _same(rated: RatedAnswer) -> Any:
    return sa.and_(_TABLE.c.answer_id == rated.answer_id, _TABLE.c.choice == rated.choice)


def _durable(connection: Any, record: Any) -> None:
    """What SQLite has acknowledged is on the disk, and readers do not stop a writer.

    What is deleted is overwritten.
    """
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.execute(f"PRAGMA busy_timeout={round(LOCK_SECONDS * 1000)}")
    cursor.close()
