-- name: advance
UPDATE sessions
SET branch = ?, seq = ?, digest = ?, epoch = ?, holder = ?, open_turn = ?, open_calls = ?,
    visible = ?, marks = ?, requests = ?, input_tokens = ?, output_tokens = ?, active = ?
WHERE key = ? AND seq = ? AND digest = ? AND epoch = ? AND holder IS ?
  AND status NOT IN ('deleted', 'moved')

-- name: change_rarely
UPDATE sessions SET status = ?, due_at = ?, user = ? WHERE key = ?

-- name: create
INSERT INTO sessions (
    branch, seq, digest, epoch, holder, open_turn, open_calls, visible, marks,
    requests, input_tokens, output_tokens, active,
    status, due_at, user, uid, app, id, base, parent, created
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: put_details
INSERT INTO session_details (key, details) VALUES (?, ?)
ON CONFLICT (key) DO UPDATE SET details = excluded.details

-- name: add_event
INSERT INTO events (
    session, seq, type, time, actor, turn, body, salt, digest, body_digest
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_branch
INSERT INTO branches (session, low, parent_session, parent_low, parent_high)
VALUES (?, ?, ?, ?, ?)

-- name: add_mark
INSERT OR IGNORE INTO marks (session, kind, low, high, at) VALUES (?, ?, ?, ?, ?)

-- name: extend_cut
UPDATE OR REPLACE marks SET high = ? WHERE session = ? AND kind = 'cut' AND high = ?

-- name: add_state
INSERT OR IGNORE INTO session_state (session, key, seq) VALUES (?, ?, ?)

-- name: write_shared
INSERT INTO shared_state (scope, app, user, key, value, version)
SELECT :scope, :app, :user, :key, :value, 1
WHERE :expect IS NULL OR :expect = ifnull(
    (SELECT version FROM shared_state
     WHERE scope = :scope AND app = :app AND user = :user AND key = :key), 0
)
ON CONFLICT (scope, app, user, key) DO UPDATE SET value = excluded.value, version = version + 1

-- name: forget_visible
WITH RECURSIVE below (key) AS (
    SELECT key FROM sessions WHERE parent = ?
    UNION
    SELECT s.key FROM sessions s JOIN below b ON s.parent = b.key
)
UPDATE sessions SET visible = -1 WHERE key IN below

-- name: erase_user
DELETE FROM shared_state WHERE scope = 'user' AND user = ?

-- name: put_input
INSERT INTO inbox (session, worker, kind, time, body) VALUES (?, ?, ?, ?, ?) RETURNING id

-- name: drop_input
DELETE FROM inbox WHERE id = ?

-- name: take_input
DELETE FROM inbox WHERE id = ? AND session = ?

-- name: put_request
INSERT INTO requests (session, key, digest, turn, status, result, time)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session, key) DO UPDATE
SET digest = excluded.digest, turn = excluded.turn, status = excluded.status,
    result = excluded.result, time = excluded.time

-- name: drop_requests
DELETE FROM requests WHERE rowid IN (
    SELECT rowid FROM requests WHERE time < ? ORDER BY time LIMIT ?
)

-- name: put_entity
INSERT INTO entities (kind, key, value, version)
SELECT :kind, :key, :value, 1
WHERE :expect = ifnull((SELECT version FROM entities WHERE kind = :kind AND key = :key), 0)
ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, version = version + 1
RETURNING version

-- name: save_document
INSERT OR REPLACE INTO documents (id, data) VALUES (?, ?)

-- name: delete_document
DELETE FROM documents WHERE id = ?

-- name: erase_bodies
UPDATE events SET body_digest = salted_digest(salt, body), body = NULL, salt = NULL
WHERE id IN (
    SELECT id FROM events
    WHERE session = :session AND seq > :low AND seq <= :high AND body IS NOT NULL
      AND (
        :types IS NULL OR type IN (SELECT value FROM json_each(:types))
        OR type GLOB 'app.*' AND 'app.*' IN (SELECT value FROM json_each(:types))
      )
    LIMIT :limit
)

-- name: newest_receipt
SELECT id, digest FROM receipts ORDER BY id DESC LIMIT 1

-- name: add_receipt
INSERT INTO receipts (id, time, type, body, digest) VALUES (?, ?, ?, ?, ?)

-- name: mark_deleted
UPDATE sessions SET status = 'deleted', id = '', user = NULL, due_at = NULL, holder = NULL
WHERE key = ? AND seq = ? AND digest = ? AND epoch = ? AND holder IS ? AND status <> 'deleted'

-- name: empty_session
DELETE FROM session_details WHERE key = :key;
DELETE FROM session_state WHERE session = :key;
DELETE FROM inbox WHERE session = :key;
DELETE FROM requests WHERE session = :key;
INSERT INTO removals (session, stub) VALUES (:key, :stub);

-- name: remove_events
DELETE FROM events WHERE id IN (SELECT id FROM events WHERE session = ? LIMIT ?)

-- name: finish_removal
DELETE FROM branches WHERE session = :key
AND 0 = (SELECT stub FROM removals WHERE session = :key);
DELETE FROM marks WHERE session = :key AND 0 = (SELECT stub FROM removals WHERE session = :key);
DELETE FROM sessions WHERE key = :key AND 0 = (SELECT stub FROM removals WHERE session = :key);
DELETE FROM removals WHERE session = :key;
