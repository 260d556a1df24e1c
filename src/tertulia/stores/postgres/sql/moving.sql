-- name: session_values
s.uid, nullif(s.app, ''), s.id, s."user", s.base,
CASE WHEN s.parent IS NOT NULL
    THEN coalesce((SELECT p.uid FROM tertulia.sessions p WHERE p.key = s.parent), ''::bytea) END,
s.branch, s.seq, s.digest, s.epoch, s.holder, s.open_turn, s.open_calls, s.visible, s.marks,
s.requests, s.input_tokens, s.output_tokens, s.status, s.created, s.active, s.due_at,
(SELECT d.details FROM tertulia.session_details d WHERE d.key = s.key)

-- name: sessions
SELECT s.key, {session_values} FROM tertulia.sessions s WHERE s.key > $1 AND s.status <> 'deleted'
ORDER BY s.key LIMIT $2

-- name: session
SELECT s.key, {session_values} FROM tertulia.sessions s WHERE s.uid = $1

-- name: page_events
-- (of large rows few are read at once; a row that is larger than a page comes alone)
SELECT seq, type, time, actor, turn, format, key_id, body, salt, digest, body_digest FROM (
    SELECT *, sum(coalesce(octet_length(body), 0)) OVER (ORDER BY seq) AS total FROM (
        SELECT * FROM tertulia.events WHERE session = $1 AND seq > $2 ORDER BY seq LIMIT $3
    ) e
) x WHERE total - coalesce(octet_length(body), 0) <= $4 ORDER BY seq

-- name: page_branches
SELECT b.low, CASE WHEN b.parent_session IS NOT NULL THEN coalesce(
    (SELECT p.uid FROM tertulia.sessions p WHERE p.key = b.parent_session), ''::bytea
) END, b.parent_low, b.parent_high
FROM tertulia.branches b WHERE b.session = $1 AND b.low > $2 ORDER BY b.low LIMIT $3

-- name: page_marks
SELECT kind, high, low, at FROM tertulia.marks
WHERE session = $1 AND (kind, high, low, at) > ($2, $3, $4, $5)
ORDER BY kind, high, low, at LIMIT $6

-- name: page_session_state
SELECT key, seq FROM tertulia.session_state WHERE session = $1 AND (key, seq) > ($2, $3)
ORDER BY key, seq LIMIT $4

-- name: page_requests
SELECT key, digest, turn, status, result, time FROM (
    SELECT *, sum(coalesce(octet_length(result), 0)) OVER (ORDER BY key) AS total FROM (
        SELECT * FROM tertulia.requests WHERE session = $1 AND key > $2 ORDER BY key LIMIT $3
    ) r
) x WHERE total - coalesce(octet_length(result), 0) <= $4 ORDER BY key

-- name: page_inbox
SELECT id, worker, kind, time, body FROM (
    SELECT *, sum(octet_length(body)) OVER (ORDER BY id) AS total FROM (
        SELECT * FROM tertulia.inbox WHERE session = $1 AND id > $2 ORDER BY id LIMIT $3
    ) i
) x WHERE total - octet_length(body) <= $4 ORDER BY id

-- name: shared_state_values
scope, nullif(app, ''), nullif("user", ''), key, value, version

-- name: page_shared_state
SELECT scope, app, "user", key, {shared_state_values} FROM (
    SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY scope, app, "user", key) AS total
    FROM (
        SELECT * FROM tertulia.shared_state WHERE (scope, app, "user", key) > ($1, $2, $3, $4)
        ORDER BY scope, app, "user", key LIMIT $5
    ) s
) x WHERE total - coalesce(octet_length(value), 0) <= $6 ORDER BY scope, app, "user", key

-- name: page_entities
SELECT kind, key, value, version FROM (
    SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY kind, key) AS total FROM (
        SELECT * FROM tertulia.entities WHERE (kind, key) > ($1, $2) ORDER BY kind, key LIMIT $3
    ) e
) x WHERE total - coalesce(octet_length(value), 0) <= $4 ORDER BY kind, key

-- name: page_documents
SELECT updated, id, data FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY updated) AS total FROM (
        SELECT * FROM tertulia.documents WHERE updated > $1 ORDER BY updated LIMIT $2
    ) d
) x WHERE total - octet_length(data) <= $3 ORDER BY updated

-- name: page_memory_owners
SELECT id, nullif(app, ''), nullif("user", ''), salt FROM tertulia.memory_owners WHERE id > $1
ORDER BY id LIMIT $2

-- name: memory_values
nullif(o.app, ''), nullif(o."user", ''), m.key, m.content, m.metadata, m.created, m.updated,
m.session, m.embedder, m.vector,
(SELECT array_agg(x.session ORDER BY x.session, x.seq) FROM tertulia.memory_sources x
    WHERE x.memory = m.id),
(SELECT array_agg(x.seq ORDER BY x.session, x.seq) FROM tertulia.memory_sources x
    WHERE x.memory = m.id)

-- name: page_memories
SELECT m.id, {memory_values} FROM (
    SELECT *, sum(octet_length(content) + coalesce(cardinality(vector), 0) * 4) OVER (ORDER BY id)
        AS total
    FROM (SELECT * FROM tertulia.memories WHERE id > $1 ORDER BY id LIMIT $2) e
) m JOIN tertulia.memory_owners o ON o.id = m.owner
WHERE total - octet_length(content) - coalesce(cardinality(vector), 0) * 4 <= $3 ORDER BY m.id

-- name: find_shared_state
SELECT {shared_state_values} FROM tertulia.shared_state
WHERE scope = $1 AND app = coalesce($2, '') AND "user" = coalesce($3, '') AND key = $4

-- name: find_entities
SELECT kind, key, value, version FROM tertulia.entities WHERE kind = $1 AND key = $2

-- name: find_documents
SELECT id, data FROM tertulia.documents WHERE id = $1

-- name: find_memory_owners
SELECT nullif(app, ''), nullif("user", ''), salt FROM tertulia.memory_owners
WHERE app = coalesce($1, '') AND "user" = coalesce($2, '')

-- name: find_memories
SELECT {memory_values} FROM tertulia.memories m JOIN tertulia.memory_owners o ON o.id = m.owner
WHERE o.app = coalesce($1, '') AND o."user" = coalesce($2, '') AND m.key = $3

-- name: add_shared_state
INSERT INTO tertulia.shared_state (scope, app, "user", key, value, version)
VALUES ($1, coalesce($2, ''), coalesce($3, ''), $4, $5, $6) ON CONFLICT DO NOTHING

-- name: add_entities
INSERT INTO tertulia.entities (kind, key, value, version) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING

-- name: add_documents
INSERT INTO tertulia.documents (id, data) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: add_memory_owners
INSERT INTO tertulia.memory_owners (app, "user", salt)
VALUES (coalesce($1, ''), coalesce($2, ''), $3) ON CONFLICT DO NOTHING

-- name: change_shared_state
UPDATE tertulia.shared_state SET value = $5, version = $6
WHERE scope = $1 AND app = coalesce($2, '') AND "user" = coalesce($3, '') AND key = $4
  AND version = $7

-- name: change_entities
UPDATE tertulia.entities SET value = $3, version = $4 WHERE kind = $1 AND key = $2 AND version = $5

-- name: change_documents
UPDATE tertulia.documents SET data = $2, updated = DEFAULT WHERE id = $1 AND data = $3

-- name: notes
SELECT key, value FROM tertulia.entities WHERE kind = $1 AND key > $2 AND value IS NOT NULL
ORDER BY key LIMIT $3

-- name: note
SELECT value FROM tertulia.entities WHERE kind = $1 AND key = $2

-- name: put_notes
INSERT INTO tertulia.entities (kind, key, value, version)
SELECT $1, x.key, x.value, 1 FROM unnest($2::text[], $3::bytea[]) AS x (key, value)
ON CONFLICT (kind, key)
DO UPDATE SET value = excluded.value, version = tertulia.entities.version + 1

-- name: drop_notes
DELETE FROM tertulia.entities WHERE kind = $1 AND key = ANY ($2::text[])

-- name: fence
UPDATE tertulia.sessions
SET status = 'moved', epoch = epoch + 1, holder = NULL, due_at = NULL
WHERE key = $1 AND seq = $2 AND digest = $3 AND epoch = $4 AND holder IS NOT DISTINCT FROM $5
  AND status IN ('open', 'ended')

-- name: unfence
UPDATE tertulia.sessions SET status = $2, holder = $3, due_at = $4
WHERE key = $1 AND status = 'moved'

-- name: reserve
INSERT INTO tertulia.sessions (
    uid, app, id, base, parent, branch, seq, digest, epoch, visible, marks,
    requests, input_tokens, output_tokens, status, created, active
)
VALUES (
    $1, coalesce($2, ''), '', $3, (SELECT key FROM tertulia.sessions WHERE uid = $4), $5, $6, $7,
    $8, -1, $9, 0, 0, 0, 'deleted', $10, $11
)
RETURNING key

-- name: reserved
SELECT s.key, coalesce((SELECT max(seq) FROM tertulia.events WHERE session = s.key), s.base)
FROM tertulia.sessions s WHERE s.uid = $1

-- name: put_events
INSERT INTO tertulia.events (
    session, seq, type, time, actor, turn, format, key_id, body, salt, digest, body_digest
)
SELECT $1, x.* FROM unnest(
    $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::smallint[], $8::text[],
    $9::bytea[], $10::bytea[], $11::bytea[], $12::bytea[]
) AS x
ON CONFLICT DO NOTHING

-- name: put_branches
INSERT INTO tertulia.branches (session, low, parent_session, parent_low, parent_high)
SELECT $1, x.low, s.key, x.parent_low, x.parent_high
FROM unnest($2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[])
    AS x (low, parent, parent_low, parent_high)
LEFT JOIN tertulia.sessions s ON s.uid = x.parent
ON CONFLICT DO NOTHING

-- name: put_marks
INSERT INTO tertulia.marks (session, kind, high, low, at)
SELECT $1, x.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS x
ON CONFLICT DO NOTHING

-- name: put_session_state
INSERT INTO tertulia.session_state (session, key, seq)
SELECT $1, x.* FROM unnest($2::text[], $3::bigint[]) AS x
ON CONFLICT DO NOTHING

-- name: put_requests
INSERT INTO tertulia.requests (session, key, digest, turn, status, result, time)
SELECT $1, x.* FROM unnest(
    $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::bytea[], $7::bigint[]
) AS x
ON CONFLICT DO NOTHING

-- name: put_inbox
INSERT INTO tertulia.inbox (session, worker, kind, time, body, token)
SELECT $1, x.* FROM unnest(
    $2::bytea[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[]
) AS x (worker, kind, time, body, token)
ON CONFLICT DO NOTHING

-- name: is_taken
SELECT 1 FROM tertulia.sessions WHERE app = coalesce($1, '') AND id = $2 AND status <> 'deleted'

-- name: finish
UPDATE tertulia.sessions
SET id = $2, "user" = $3, branch = $4, seq = $5, digest = $6, epoch = $7, holder = $8,
    open_turn = $9, open_calls = $10, visible = $11, marks = $12, requests = $13,
    input_tokens = $14, output_tokens = $15, status = $16, active = $17, due_at = $18
WHERE key = $1 AND status = 'deleted'

-- name: put_details
INSERT INTO tertulia.session_details (key, details) VALUES ($1, $2)
ON CONFLICT (key) DO UPDATE SET details = excluded.details

-- name: discard
INSERT INTO tertulia.removals (session, stub) VALUES ($1, false) ON CONFLICT DO NOTHING

-- name: receipts
SELECT id, time, type, body, digest, coalesce(
    (SELECT o.digest FROM tertulia.receipts o WHERE o.id < r.id ORDER BY o.id DESC LIMIT 1),
    ''::bytea
)
FROM tertulia.receipts r WHERE id > $1 ORDER BY id LIMIT $2

-- name: clear_branches
DELETE FROM tertulia.branches WHERE session = $1

-- name: clear_marks
DELETE FROM tertulia.marks WHERE session = $1

-- name: clear_session_state
DELETE FROM tertulia.session_state WHERE session = $1

-- name: clear_requests
DELETE FROM tertulia.requests WHERE session = $1

-- name: clear_inbox
DELETE FROM tertulia.inbox WHERE session = $1
