-- Headers and the chain of digests hold internal keys and uids only. Public ids, owners, metadata
-- and salts live in columns that can be emptied.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- `app` is 0 for the default app. `open_calls` is a JSON list, NULL when empty.
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    uid BLOB NOT NULL UNIQUE,
    app ANY NOT NULL,
    id TEXT NOT NULL,
    user TEXT,
    base INTEGER NOT NULL,
    parent INTEGER,
    branch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    holder BLOB,
    open_turn INTEGER,
    open_calls TEXT,
    visible INTEGER NOT NULL,
    marks INTEGER NOT NULL,
    status TEXT NOT NULL,
    created INTEGER NOT NULL,
    active INTEGER NOT NULL,
    due_at INTEGER
) STRICT;
CREATE UNIQUE INDEX sessions_id ON sessions (app, id) WHERE status <> 'deleted';
CREATE INDEX sessions_user ON sessions (user, key) WHERE user IS NOT NULL;
CREATE INDEX sessions_due ON sessions (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sessions_parent ON sessions (parent) WHERE parent IS NOT NULL;

CREATE TABLE session_details (
    key INTEGER PRIMARY KEY,
    details TEXT NOT NULL
) STRICT;

-- The row id is the order of arrival and no part of any promise: a position is (session, seq).
-- AUTOINCREMENT would write one more page in every commit.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    time INTEGER NOT NULL,
    actor TEXT NOT NULL,
    turn INTEGER NOT NULL,
    format INTEGER NOT NULL DEFAULT 1,
    key_id TEXT,
    body BLOB,
    salt BLOB,
    digest BLOB NOT NULL,
    body_digest BLOB
) STRICT;
CREATE UNIQUE INDEX events_position ON events (session, seq);
CREATE INDEX events_messages ON events (session, seq) WHERE type = 'message.added';

CREATE TABLE branches (
    session INTEGER NOT NULL,
    low INTEGER NOT NULL,
    parent_session INTEGER,
    parent_low INTEGER,
    parent_high INTEGER,
    PRIMARY KEY (session, low)
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    session INTEGER NOT NULL,
    kind TEXT NOT NULL,
    high INTEGER NOT NULL,
    low INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (session, kind, high, low, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX marks_floors ON marks (session, at) WHERE kind = 'floor';

CREATE TABLE session_state (
    session INTEGER NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (session, key, seq)
) STRICT, WITHOUT ROWID;

-- `user` is 0 for app scope. A deleted value keeps its row, so that its version goes on.
CREATE TABLE shared_state (
    scope TEXT NOT NULL,
    app ANY NOT NULL,
    user ANY NOT NULL,
    key TEXT NOT NULL,
    value BLOB,
    version INTEGER NOT NULL,
    UNIQUE (scope, app, user, key)
) STRICT;

CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL,
    worker BLOB NOT NULL,
    kind TEXT NOT NULL,
    time INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX inbox_session ON inbox (session, id);

CREATE TABLE requests (
    session INTEGER NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    turn INTEGER NOT NULL,
    status TEXT NOT NULL,
    result BLOB,
    time INTEGER NOT NULL,
    UNIQUE (session, key)
) STRICT;
CREATE INDEX requests_time ON requests (time);

CREATE TABLE entities (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB,
    version INTEGER NOT NULL,
    UNIQUE (kind, key)
) STRICT;

-- `updated` is the order of the updates, not a time.
CREATE TABLE documents (
    updated INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    data TEXT NOT NULL
) STRICT;

-- Each digest covers the one before it.
CREATE TABLE receipts (
    id INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    type TEXT NOT NULL,
    body BLOB NOT NULL,
    digest BLOB NOT NULL
) STRICT;

-- Deleted sessions whose events are still to be removed; `stub` keeps their row.
CREATE TABLE removals (
    session INTEGER PRIMARY KEY,
    stub INTEGER NOT NULL
) STRICT;

INSERT INTO meta (name, value) VALUES ('incarnation', lower(hex(randomblob(16))));
