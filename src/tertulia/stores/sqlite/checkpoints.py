"""Moving the journal into the database, when it is due and does not make anyone wait long."""

from __future__ import annotations

import logging

import apsw

from tertulia.stores.sqlite.batches import Batches

DUE_PAGES = 4_000
AGAIN_PAGES = 1_000
ALARM_PAGES = 16_384
"""64 MB: some reader has not let go of its snapshot for long."""
READERS_MILLISECONDS = 100

log = logging.getLogger(__name__)


class Checkpoints:
    """Knows when; the writer's thread does it, between batches."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._due = DUE_PAGES
        self._clean = False

    def after_batch(self) -> None:
        """Copy what readers do not hold back, once the journal has grown."""
        self._clean = False
        pages = self._batches.wal_pages
        if pages < self._due:
            if pages < DUE_PAGES:
                self._due = DUE_PAGES
            return
        try:
            self._batches.db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            log.info("another process checkpoints")
        except apsw.Error:
            log.exception("the journal could not be copied into the database; it is kept")
        self._due = pages + AGAIN_PAGES
        if pages > ALARM_PAGES:
            log.warning("the journal has %d MB; a reader holds it back", pages * 4096 >> 20)

    @property
    def wanted(self) -> bool:
        """Whether an idle writer has anything to tidy up."""
        return not self._clean and self._batches.wal_pages > 0

    def truncate(self) -> bool:
        """Copy everything and empty the journal; False when readers or writers are in the way."""
        self._clean = True
        db = self._batches.db
        db.set_busy_timeout(READERS_MILLISECONDS)
        try:
            db.wal_checkpoint(None, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except (apsw.BusyError, apsw.LockedError):
            return False
        finally:
            db.set_busy_timeout(30_000)
        self._batches.wal_pages = 0
        self._due = DUE_PAGES
        return True
