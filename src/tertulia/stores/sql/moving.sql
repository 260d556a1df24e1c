-- name: session_values
s.uid, nullif(s.app, 0), s.id, s.user, s.base,
CASE WHEN s.parent IS NOT NULL
    THEN ifnull((SELECT p.uid FROM sessions p WHERE p.key = s.parent), x'') END,
s.branch, s.seq, s.digest, s.epoch, s.holder, s.open_turn, s.open_calls, s.visible, s.marks,
s.requests, s.input_tokens, s.output_tokens, s.status, s.created, s.active, s.due_at,
(SELECT d.details FROM session_details d WHERE d.key = s.key)

-- name: sessions
SELECT s.key, {session_values} FROM sessions s WHERE s.key > ? AND s.status <> 'deleted'
ORDER BY s.key LIMIT ?

-- name: session
SELECT s.key, {session_values} FROM sessions s WHERE s.uid = ?

-- name: page_events
SELECT seq, type, time, actor, turn, format, key_id, body, salt, digest, body_digest
FROM events INDEXED BY events_position WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: page_branches
SELECT b.low, CASE WHEN b.parent_session IS NOT NULL
    THEN ifnull((SELECT p.uid FROM sessions p WHERE p.key = b.parent_session), x'') END,
b.parent_low, b.parent_high
FROM branches b WHERE b.session = ? AND b.low > ? ORDER BY b.low LIMIT ?

-- name: page_marks
SELECT kind, high, low, at FROM marks
WHERE session = ? AND (kind, high, low, at) > (?, ?, ?, ?) ORDER BY kind, high, low, at LIMIT ?

-- name: page_session_state
SELECT key, seq FROM session_state WHERE session = ? AND (key, seq) > (?, ?)
ORDER BY key, seq LIMIT ?

-- name: page_requests
SELECT key, digest, turn, status, result, time FROM requests WHERE session = ? AND key > ?
ORDER BY key LIMIT ?

-- name: page_inbox
SELECT id, worker, kind, time, body FROM inbox WHERE session = ? AND id > ? ORDER BY id LIMIT ?

-- name: shared_state_values
scope, nullif(app, 0), nullif(user, 0), key, value, version

-- name: page_shared_state
SELECT scope, app, user, key, {shared_state_values} FROM shared_state
WHERE (scope, app, user, key) > (?, ?, ?, ?) ORDER BY scope, app, user, key LIMIT ?

-- name: page_entities
SELECT kind, key, value, version FROM entities
WHERE (kind, key) > (?, ?) ORDER BY kind, key LIMIT ?

-- name: page_documents
SELECT updated, id, data FROM documents WHERE updated > ? ORDER BY updated LIMIT ?

-- name: page_memory_owners
SELECT id, nullif(app, 0), nullif(user, 0), salt FROM memory_owners WHERE id > ?
ORDER BY id LIMIT ?

-- name: memory_values
nullif(o.app, 0), nullif(o.user, 0), m.key, m.content, m.metadata, m.created, m.updated, m.session,
m.embedder, m.vector

-- name: page_memories
SELECT m.id, {memory_values} FROM memories m JOIN memory_owners o ON o.id = m.owner
WHERE m.id > ? ORDER BY m.id LIMIT ?

-- name: memory_sources
SELECT session, seq FROM memory_sources WHERE memory = ? ORDER BY session, seq

-- name: find_shared_state
SELECT {shared_state_values} FROM shared_state
WHERE scope = ? AND app = ifnull(?, 0) AND user = ifnull(?, 0) AND key = ?

-- name: find_entities
SELECT kind, key, value, version FROM entities WHERE kind = ? AND key = ?

-- name: find_documents
SELECT id, data FROM documents WHERE id = ?

-- name: find_memory_owners
SELECT nullif(app, 0), nullif(user, 0), salt FROM memory_owners
WHERE app = ifnull(?, 0) AND user = ifnull(?, 0)

-- name: find_memories
SELECT m.id, {memory_values} FROM memories m JOIN memory_owners o ON o.id = m.owner
WHERE o.app = ifnull(?, 0) AND o.user = ifnull(?, 0) AND m.key = ?

-- name: swap_shared_state
INSERT INTO shared_state (scope, app, user, key, value, version)
VALUES (?, ifnull(?, 0), ifnull(?, 0), ?, ?, ?)
ON CONFLICT (scope, app, user, key)
DO UPDATE SET value = excluded.value, version = excluded.version

-- name: swap_entities
INSERT INTO entities (kind, key, value, version) VALUES (?, ?, ?, ?)
ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, version = excluded.version

-- name: swap_documents
INSERT OR REPLACE INTO documents (id, data) VALUES (?, ?)

-- name: swap_memory_owners
INSERT INTO memory_owners (app, user, salt) VALUES (ifnull(?, 0), ifnull(?, 0), ?)
ON CONFLICT (app, user) DO NOTHING

-- name: notes
SELECT key, value FROM entities WHERE kind = ? AND key > ? AND value IS NOT NULL
ORDER BY key LIMIT ?

-- name: note
SELECT value FROM entities WHERE kind = ? AND key = ?

-- name: put_note
INSERT INTO entities (kind, key, value, version) VALUES (?, ?, ?, 1)
ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, version = version + 1

-- name: drop_note
DELETE FROM entities WHERE kind = ? AND key = ?

-- name: fence
UPDATE sessions
SET status = 'moved', epoch = epoch + 1, holder = NULL, due_at = NULL
WHERE key = ? AND seq = ? AND digest = ? AND epoch = ? AND holder IS ?
  AND status IN ('open', 'ended')

-- name: unfence
UPDATE sessions SET status = ?, holder = ?, due_at = ? WHERE key = ? AND status = 'moved'

-- name: reserve
INSERT INTO sessions (
    uid, app, id, base, parent, branch, seq, digest, epoch, visible, marks, status, created, active
)
VALUES (
    ?, ifnull(?, 0), '', ?, (SELECT key FROM sessions WHERE uid = ?), ?, ?, ?, ?, -1, ?,
    'deleted', ?, ?
)

-- name: reserved
SELECT s.key, ifnull((SELECT max(seq) FROM events WHERE session = s.key), s.base), s.status
FROM sessions s WHERE s.uid = ?

-- name: clear
DELETE FROM branches WHERE session = :key;
DELETE FROM marks WHERE session = :key;
DELETE FROM session_state WHERE session = :key;
DELETE FROM requests WHERE session = :key;
DELETE FROM inbox WHERE session = :key;

-- name: put_events
INSERT OR IGNORE INTO events (
    session, seq, type, time, actor, turn, format, key_id, body, salt, digest, body_digest
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: put_branches
INSERT OR IGNORE INTO branches (session, low, parent_session, parent_low, parent_high)
VALUES (?, ?, (SELECT key FROM sessions WHERE uid = ?), ?, ?)

-- name: put_marks
INSERT OR IGNORE INTO marks (session, kind, high, low, at) VALUES (?, ?, ?, ?, ?)

-- name: put_session_state
INSERT OR IGNORE INTO session_state (session, key, seq) VALUES (?, ?, ?)

-- name: put_requests
INSERT OR IGNORE INTO requests (session, key, digest, turn, status, result, time)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: put_inbox
INSERT INTO inbox (session, worker, kind, time, body) VALUES (?, ?, ?, ?, ?)

-- name: is_taken
SELECT 1 FROM sessions WHERE app = ifnull(?, 0) AND id = ? AND status <> 'deleted'

-- name: finish
UPDATE sessions
SET id = ?, user = ?, branch = ?, seq = ?, digest = ?, epoch = ?, holder = ?, open_turn = ?,
    open_calls = ?, visible = ?, marks = ?, requests = ?, input_tokens = ?, output_tokens = ?,
    status = ?, active = ?, due_at = ?
WHERE key = ? AND status = 'deleted'

-- name: put_details
INSERT INTO session_details (key, details) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET details = excluded.details

-- name: discard
INSERT OR IGNORE INTO removals (session, stub) VALUES (?, 0)

-- name: receipts
SELECT id, time, type, body, digest,
    ifnull((SELECT o.digest FROM receipts o WHERE o.id < r.id ORDER BY o.id DESC LIMIT 1), x'')
FROM receipts r WHERE id > ? ORDER BY id LIMIT ?
