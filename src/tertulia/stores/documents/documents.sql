-- name: events
SELECT seq, type, time, actor, turn, body, salt, digest, body_digest FROM events
WHERE session = ? ORDER BY seq

-- name: digest
SELECT digest FROM events WHERE session = ? AND seq = ?

-- name: branches
SELECT session, low, parent_session, parent_low, parent_high FROM branches
WHERE session = ? ORDER BY low

-- name: marks
SELECT kind, low, high, at FROM marks WHERE session = ? ORDER BY at, kind, high

-- name: state
SELECT key, seq FROM session_state WHERE session = ? ORDER BY seq

-- name: requests
SELECT key, digest, turn, status, result, time FROM requests WHERE session = ? ORDER BY key

-- name: known
SELECT key, app, id FROM sessions WHERE status <> 'deleted'

-- name: key_of
SELECT key FROM sessions WHERE uid = ?

-- name: waiting
SELECT DISTINCT session FROM inbox WHERE id IN (SELECT value FROM json_each(?))

-- name: waits_here
SELECT count(*) FROM inbox WHERE session = ? AND worker = ?

-- name: put_key
INSERT OR REPLACE INTO sessions (
    key, branch, seq, digest, epoch, holder, open_turn, open_calls, visible, marks,
    requests, input_tokens, output_tokens, active,
    status, due_at, user, uid, app, id, base, parent, created
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: unload
DELETE FROM events WHERE session = :key;
DELETE FROM branches WHERE session = :key;
DELETE FROM marks WHERE session = :key;
DELETE FROM session_state WHERE session = :key;
DELETE FROM requests WHERE session = :key;
DELETE FROM inbox WHERE session = :key AND worker IS NOT :worker;

-- name: forget
DELETE FROM session_details WHERE key = :key;
DELETE FROM inbox WHERE session = :key;
DELETE FROM sessions WHERE key = :key

-- name: make_stub
UPDATE sessions SET status = 'deleted', id = '', user = NULL, due_at = NULL, holder = NULL
WHERE key = ?

-- name: drop_shared
DELETE FROM shared_state WHERE scope = ? AND app = ? AND user = ?

-- name: put_shared
INSERT INTO shared_state (scope, app, user, key, value, version) VALUES (?, ?, ?, ?, ?, ?)

-- name: shared
SELECT key, value, version FROM shared_state WHERE scope = ? AND app = ? AND user = ? ORDER BY key
