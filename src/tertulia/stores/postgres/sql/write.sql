-- name: put_input
INSERT INTO tertulia.inbox (token, session, worker, kind, time, body)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (token) DO UPDATE SET kind = excluded.kind
RETURNING id

-- name: drop_inputs
DELETE FROM tertulia.inbox WHERE id = ANY ($1::bigint[])

-- name: drop_requests
DELETE FROM tertulia.requests WHERE (session, key) IN (
    SELECT session, key FROM tertulia.requests WHERE time < $1 ORDER BY time LIMIT $2
)

-- name: put_entity
INSERT INTO tertulia.entities AS old (kind, key, value, version)
SELECT $1, $2, $3, 1
WHERE $4::bigint = coalesce((
    SELECT version FROM tertulia.entities WHERE kind = $1 AND key = $2
), 0)
ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value, version = old.version + 1
WHERE old.version = $4
RETURNING version

-- name: erase_bodies
UPDATE tertulia.events SET body_digest = sha256(salt || body), body = NULL, salt = NULL
WHERE session = $1 AND seq IN (
    SELECT seq FROM tertulia.events
    WHERE session = $1 AND seq > $2 AND seq <= $3 AND body IS NOT NULL
      AND (
        $4::text[] IS NULL OR type = ANY ($4)
        OR starts_with(type, 'app.') AND 'app.*' = ANY ($4)
      )
    ORDER BY seq LIMIT $5
)

-- name: erase_shared
DELETE FROM tertulia.shared_state WHERE scope = 'user' AND "user" = $1

-- name: lock_receipts
LOCK TABLE tertulia.receipts IN EXCLUSIVE MODE

-- name: newest_receipt
SELECT id, digest FROM tertulia.receipts ORDER BY id DESC LIMIT 1

-- name: add_receipt
INSERT INTO tertulia.receipts (id, time, type, body, digest) VALUES ($1, $2, $3, $4, $5)

-- name: mark_deleted
UPDATE tertulia.sessions
SET status = 'deleted', id = '', "user" = NULL, due_at = NULL, holder = NULL
WHERE key = $1 AND seq = $2 AND digest = $3 AND epoch = $4 AND holder IS NOT DISTINCT FROM $5
  AND status <> 'deleted'

-- name: forget_visible
WITH RECURSIVE below (key) AS (
    SELECT key FROM tertulia.sessions WHERE parent = $1
    UNION
    SELECT s.key FROM tertulia.sessions s JOIN below b ON s.parent = b.key
)
UPDATE tertulia.sessions SET visible = -1 WHERE key IN (SELECT key FROM below)

-- name: empty_session
WITH details AS (
    DELETE FROM tertulia.session_details WHERE key = $1
), state AS (
    DELETE FROM tertulia.session_state WHERE session = $1
), inbox AS (
    DELETE FROM tertulia.inbox WHERE session = $1
), requests AS (
    DELETE FROM tertulia.requests WHERE session = $1
)
INSERT INTO tertulia.removals (session, stub) VALUES ($1, $2)

-- name: remove_events
DELETE FROM tertulia.events WHERE session = $1 AND seq IN (
    SELECT seq FROM tertulia.events WHERE session = $1 ORDER BY seq LIMIT $2
)

-- name: finish_removal
WITH removal AS (
    DELETE FROM tertulia.removals WHERE session = $1 RETURNING session, stub
), branches AS (
    DELETE FROM tertulia.branches b USING removal r WHERE b.session = r.session AND NOT r.stub
), marks AS (
    DELETE FROM tertulia.marks m USING removal r WHERE m.session = r.session AND NOT r.stub
)
DELETE FROM tertulia.sessions s USING removal r WHERE s.key = r.session AND NOT r.stub

-- name: save_document
INSERT INTO tertulia.documents AS old (id, data) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET data = excluded.data, updated = excluded.updated

-- name: delete_document
DELETE FROM tertulia.documents WHERE id = $1
