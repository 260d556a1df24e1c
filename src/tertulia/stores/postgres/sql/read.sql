-- name: session_columns
s.key, s.uid, s.app, s.id, s."user", s.base, s.parent, s.branch, s.seq, s.digest, s.epoch, s.holder,
s.open_turn, s.open_calls, s.visible, s.marks, s.requests, s.input_tokens, s.output_tokens,
s.status, s.created, s.active, s.due_at,
(SELECT d.details FROM tertulia.session_details d WHERE d.key = s.key)

-- name: find
SELECT {session_columns} FROM tertulia.sessions s
WHERE s.app = $1 AND s.id = $2 AND s.status <> 'deleted'

-- name: row
SELECT {session_columns} FROM tertulia.sessions s WHERE s.key = $1

-- name: rows
SELECT {session_columns} FROM tertulia.sessions s
WHERE s.key > $1 AND s.status <> 'deleted' AND ($2::text IS NULL OR s.app = $2)
ORDER BY s.key LIMIT $3

-- name: rows_of_user
SELECT {session_columns} FROM tertulia.sessions s
WHERE s.key > $1 AND s.status <> 'deleted' AND ($2::text IS NULL OR s.app = $2)
  AND s."user" = $4 AND ($5::bigint IS NULL OR s.due_at <= $5)
ORDER BY s.key LIMIT $3

-- name: rows_due
SELECT {session_columns} FROM tertulia.sessions s
WHERE s.key > $1 AND s.status <> 'deleted' AND ($2::text IS NULL OR s.app = $2)
  AND s.due_at <= $4
ORDER BY s.key LIMIT $3

-- name: children
SELECT {session_columns} FROM tertulia.sessions s WHERE s.parent = $1 ORDER BY s.key

-- name: branch_at
SELECT session, low, parent_session, parent_low, parent_high FROM tertulia.branches
WHERE session = $1 AND low < $2 ORDER BY low DESC LIMIT 1

-- name: chain
WITH RECURSIVE chain (session, low, high, depth) AS (
    SELECT $1::bigint, $2::bigint, $3::bigint, 1
    UNION ALL
    SELECT b.parent_session, b.parent_low, least(b.parent_high, c.high), c.depth + 1
    FROM chain c JOIN tertulia.branches b ON b.session = c.session AND b.low = c.low
    WHERE b.parent_session IS NOT NULL AND c.depth < $4
)
SELECT session, low, high FROM chain ORDER BY depth

-- name: floors
SELECT kind, low, high, at FROM tertulia.marks
WHERE session = $1 AND kind = 'floor' AND at > $2 AND at <= $3 AND high <= $4
ORDER BY at DESC LIMIT $5

-- name: cuts
SELECT kind, low, high, at FROM tertulia.marks
WHERE session = $1 AND kind = 'cut' AND high > $2 AND high <= $4 AND at > $2 AND at <= $3
ORDER BY high DESC LIMIT $5

-- name: holes
SELECT kind, low, high, at FROM tertulia.marks
WHERE session = $1 AND kind = 'hole' AND high <= $4 AND at > $2 AND at <= $3
ORDER BY high DESC LIMIT $5

-- name: record_columns
e.seq, e.type, e.time, e.actor, e.turn, e.body, e.salt, e.digest, e.body_digest

-- name: segments
unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS g (session, low, high, place)

-- name: within
e.session = g.session AND e.seq > g.low AND e.seq <= g.high

-- name: newest_messages
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within} AND e.type = 'message.added'
    ORDER BY e.seq DESC LIMIT $4
) r ORDER BY g.place, r.seq DESC LIMIT $4

-- name: oldest_messages
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within} AND e.type = 'message.added'
    ORDER BY e.seq LIMIT $4
) r ORDER BY g.place DESC, r.seq LIMIT $4

-- name: newest_records
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within} ORDER BY e.seq DESC LIMIT $4
) r ORDER BY g.place, r.seq DESC LIMIT $4

-- name: oldest_records
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within} ORDER BY e.seq LIMIT $4
) r ORDER BY g.place DESC, r.seq LIMIT $4

-- name: newest_chosen
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within}
      AND ($5::text[] IS NULL OR e.type = ANY ($5)) AND ($6::bigint IS NULL OR e.time >= $6)
    ORDER BY e.seq DESC LIMIT $4
) r ORDER BY g.place, r.seq DESC LIMIT $4

-- name: oldest_chosen
SELECT g.place, r.* FROM {segments} CROSS JOIN LATERAL (
    SELECT {record_columns} FROM tertulia.events e WHERE {within}
      AND ($5::text[] IS NULL OR e.type = ANY ($5)) AND ($6::bigint IS NULL OR e.time >= $6)
    ORDER BY e.seq LIMIT $4
) r ORDER BY g.place DESC, r.seq LIMIT $4

-- name: is_deleted
SELECT NOT EXISTS (SELECT 1 FROM tertulia.sessions WHERE key = $1 AND status <> 'deleted')

-- name: count_messages
SELECT coalesce(sum(r.found), 0)::bigint FROM {segments} CROSS JOIN LATERAL (
    SELECT count(*) AS found FROM tertulia.events e WHERE {within} AND e.type = 'message.added'
) r

-- name: state
SELECT {record_columns} FROM {segments} CROSS JOIN LATERAL (
    SELECT s.session, s.seq FROM tertulia.session_state s
    WHERE s.session = g.session AND s.key = $4 AND s.seq > g.low AND s.seq <= g.high
    ORDER BY s.seq DESC LIMIT 1
) newest JOIN tertulia.events e ON e.session = newest.session AND e.seq = newest.seq
ORDER BY g.place LIMIT 1

-- name: state_keys
SELECT DISTINCT ON (r.key) r.key, r.newest FROM {segments} CROSS JOIN LATERAL (
    WITH RECURSIVE keys (key) AS (
        SELECT min(s.key) FROM tertulia.session_state s WHERE s.session = g.session
        UNION ALL
        SELECT (
            SELECT min(s.key) FROM tertulia.session_state s
            WHERE s.session = g.session AND s.key > k.key
        ) FROM keys k WHERE k.key IS NOT NULL
    )
    SELECT k.key, (
        SELECT max(s.seq) FROM tertulia.session_state s
        WHERE s.session = g.session AND s.key = k.key AND s.seq > g.low AND s.seq <= g.high
    ) AS newest
    FROM keys k WHERE k.key IS NOT NULL
) r WHERE r.newest IS NOT NULL ORDER BY r.key, g.place

-- name: shared
SELECT value, version FROM tertulia.shared_state
WHERE scope = $1 AND app = $2 AND "user" = $3 AND key = $4

-- name: shared_keys
SELECT key, value, version FROM tertulia.shared_state
WHERE scope = $1 AND app = $2 AND "user" = $3 AND value IS NOT NULL ORDER BY key

-- name: inputs
SELECT id, session, worker, kind, time, body FROM tertulia.inbox WHERE session = $1 ORDER BY id

-- name: request
SELECT key, digest, turn, status, result, time FROM tertulia.requests
WHERE session = $1 AND key = $2

-- name: entity
SELECT value, version FROM tertulia.entities WHERE kind = $1 AND key = $2

-- name: receipts
SELECT id, time, type, body FROM tertulia.receipts ORDER BY id

-- name: removals
SELECT session FROM tertulia.removals

-- name: load_document
SELECT data FROM tertulia.documents WHERE id = $1

-- name: list_documents
SELECT id FROM tertulia.documents ORDER BY updated DESC

-- name: fences
SELECT s.key, s.uid, s.seq, s.digest, s.epoch, s.holder FROM tertulia.sessions s
WHERE s.key = ANY ($1::bigint[]) OR s.uid = ANY ($2::bytea[])

-- name: digests
SELECT e.session, e.seq, e.digest
FROM unnest($1::bigint[], $2::bigint[]) AS g (session, seq)
JOIN tertulia.events e ON e.session = g.session AND e.seq = g.seq
