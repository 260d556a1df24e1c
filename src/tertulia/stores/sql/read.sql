-- name: session_columns
s.key, s.uid, s.app, s.id, s.user, s.base, s.parent, s.branch, s.seq, s.digest, s.epoch, s.holder,
s.open_turn, s.open_calls, s.visible, s.marks, s.requests, s.input_tokens, s.output_tokens,
s.status, s.created, s.active, s.due_at,
(SELECT d.details FROM session_details d WHERE d.key = s.key)

-- name: find
SELECT {session_columns} FROM sessions s WHERE s.app = ? AND s.id = ? AND s.status <> 'deleted'

-- name: row
SELECT {session_columns} FROM sessions s WHERE s.key = ?

-- name: rows
SELECT {session_columns} FROM sessions s
WHERE s.key > :after AND s.status <> 'deleted' AND (:any_app OR s.app = :app)
ORDER BY s.key LIMIT :limit

-- name: rows_of_user
SELECT {session_columns} FROM sessions s
WHERE s.user = :user AND s.key > :after AND s.status <> 'deleted' AND (:any_app OR s.app = :app)
  AND (:due_before IS NULL OR s.due_at <= :due_before)
ORDER BY s.key LIMIT :limit

-- name: rows_due
SELECT {session_columns} FROM sessions s INDEXED BY sessions_due
WHERE s.due_at <= :due_before AND s.key > :after AND s.status <> 'deleted'
  AND (:any_app OR s.app = :app)
ORDER BY s.key LIMIT :limit

-- name: children
SELECT {session_columns} FROM sessions s WHERE s.parent = ? ORDER BY s.key

-- name: branch_at
SELECT session, low, parent_session, parent_low, parent_high FROM branches
WHERE session = ? AND low < ? ORDER BY low DESC LIMIT 1

-- name: chain
WITH RECURSIVE chain (session, low, high, depth) AS (
    SELECT :session, :low, :high, 1
    UNION ALL
    SELECT b.parent_session, b.parent_low, min(b.parent_high, c.high), c.depth + 1
    FROM chain c JOIN branches b ON b.session = c.session AND b.low = c.low
    WHERE b.parent_session IS NOT NULL AND c.depth < :limit
)
SELECT session, low, high FROM chain ORDER BY depth

-- name: floors
SELECT kind, low, high, at FROM marks INDEXED BY marks_floors
WHERE session = :session AND kind = 'floor' AND at > :low AND at <= :high AND high <= :below
ORDER BY at DESC LIMIT :limit

-- name: cuts
SELECT kind, low, high, at FROM marks
WHERE session = :session AND kind = 'cut' AND high > :low AND high <= :below
  AND at > :low AND at <= :high
ORDER BY high DESC LIMIT :limit

-- name: holes
SELECT kind, low, high, at FROM marks
WHERE session = :session AND kind = 'hole' AND high <= :below AND at > :low AND at <= :high
ORDER BY high DESC LIMIT :limit

-- name: record_columns
seq, type, time, actor, turn, body, salt, digest, body_digest

-- name: newest_messages
SELECT {record_columns} FROM events INDEXED BY events_messages
WHERE session = ? AND seq > ? AND seq <= ? AND type = 'message.added'
ORDER BY seq DESC LIMIT ?

-- name: oldest_messages
SELECT {record_columns} FROM events INDEXED BY events_messages
WHERE session = ? AND seq > ? AND seq <= ? AND type = 'message.added'
ORDER BY seq LIMIT ?

-- name: newest_records
SELECT {record_columns} FROM events INDEXED BY events_position
WHERE session = ? AND seq > ? AND seq <= ?
ORDER BY seq DESC LIMIT ?

-- name: oldest_records
SELECT {record_columns} FROM events INDEXED BY events_position
WHERE session = ? AND seq > ? AND seq <= ?
ORDER BY seq LIMIT ?

-- name: newest_chosen
SELECT {record_columns} FROM events INDEXED BY events_position
WHERE session = ? AND seq > ? AND seq <= ?
  AND (?5 IS NULL OR type IN (SELECT value FROM json_each(?5))) AND (?6 IS NULL OR time >= ?6)
ORDER BY seq DESC LIMIT ?4

-- name: oldest_chosen
SELECT {record_columns} FROM events INDEXED BY events_position
WHERE session = ? AND seq > ? AND seq <= ?
  AND (?5 IS NULL OR type IN (SELECT value FROM json_each(?5))) AND (?6 IS NULL OR time >= ?6)
ORDER BY seq LIMIT ?4

-- name: is_deleted
SELECT NOT EXISTS (SELECT 1 FROM sessions WHERE key = ? AND status <> 'deleted')

-- name: count_messages
SELECT count(*) FROM events INDEXED BY events_messages
WHERE session = ? AND seq > ? AND seq <= ? AND type = 'message.added'

-- name: state
SELECT {record_columns} FROM events
WHERE session = :session AND seq = (
    SELECT max(seq) FROM session_state
    WHERE session = :session AND key = :key AND seq > :low AND seq <= :high
)

-- name: state_keys
WITH RECURSIVE keys (key) AS (
    SELECT min(key) FROM session_state WHERE session = :session
    UNION ALL
    SELECT (SELECT min(s.key) FROM session_state s WHERE s.session = :session AND s.key > k.key)
    FROM keys k WHERE k.key IS NOT NULL
)
SELECT k.key, (
    SELECT max(s.seq) FROM session_state s
    WHERE s.session = :session AND s.key = k.key AND s.seq > :low AND s.seq <= :high
) AS newest
FROM keys k WHERE k.key IS NOT NULL AND newest IS NOT NULL

-- name: shared
SELECT value, version FROM shared_state WHERE scope = ? AND app = ? AND user = ? AND key = ?

-- name: shared_keys
SELECT key, value, version FROM shared_state
WHERE scope = ? AND app = ? AND user = ? AND value IS NOT NULL ORDER BY key

-- name: inputs
SELECT id, session, worker, kind, time, body FROM inbox WHERE session = ? ORDER BY id

-- name: request
SELECT key, digest, turn, status, result, time FROM requests WHERE session = ? AND key = ?

-- name: entity
SELECT value, version FROM entities WHERE kind = ? AND key = ?

-- name: receipts
SELECT id, time, type, body, digest FROM receipts ORDER BY id

-- name: removals
SELECT session FROM removals LIMIT 1

-- name: load_document
SELECT data FROM documents WHERE id = ?

-- name: list_documents
SELECT id FROM documents ORDER BY updated DESC

-- name: incarnation
SELECT value FROM meta WHERE name = 'incarnation'
