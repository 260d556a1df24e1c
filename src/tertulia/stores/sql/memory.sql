-- name: owner
SELECT id, salt FROM memory_owners WHERE app = ? AND user = ?

-- name: add_owner
INSERT INTO memory_owners (app, user, salt) VALUES (?, ?, randomblob(16))
ON CONFLICT (app, user) DO NOTHING

-- name: scopes_of_user
SELECT app, user FROM memory_owners WHERE user = ? ORDER BY id

-- name: put
INSERT INTO memories (
    owner, key, content, metadata, created, updated, session, words, embedder, vector
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (owner, key) DO UPDATE SET
    content = excluded.content, metadata = excluded.metadata, updated = excluded.updated,
    session = excluded.session, words = excluded.words, embedder = excluded.embedder,
    vector = excluded.vector

-- name: drop_sources
DELETE FROM memory_sources
WHERE memory = (SELECT id FROM memories WHERE owner = ? AND key = ?)

-- name: add_source
INSERT OR IGNORE INTO memory_sources (session, seq, memory)
SELECT ?, ?, id FROM memories WHERE owner = ? AND key = ?

-- name: is_open
SELECT 1 FROM sessions WHERE uid = ? AND status <> 'deleted'

-- name: is_erased
SELECT 1 FROM events e JOIN sessions s ON s.key = e.session
WHERE s.uid = ? AND e.seq = ? AND e.body IS NULL

-- name: put_vector
UPDATE memories SET embedder = :embedder, vector = :vector
WHERE owner = :owner AND key = :key AND content = :content

-- name: forget
DELETE FROM memories WHERE owner = :owner AND key IN (SELECT value FROM json_each(:keys))

-- name: forget_session
DELETE FROM memories WHERE session = :session
OR id IN (SELECT memory FROM memory_sources WHERE session = :session)

-- name: forget_erased
DELETE FROM memories WHERE id IN (
    SELECT m.memory FROM memory_sources m
    JOIN sessions s ON s.uid = m.session
    JOIN events e ON e.session = s.key AND e.seq = m.seq
    WHERE s.key = :session AND m.seq > :low AND m.seq <= :high AND e.body IS NULL
)

-- name: forget_all_erased
DELETE FROM memories WHERE id IN (
    SELECT m.memory FROM memory_sources m
    JOIN sessions s ON s.uid = m.session
    JOIN events e ON e.session = s.key AND e.seq = m.seq
    WHERE e.body IS NULL
)

-- name: forget_owner
DELETE FROM memories WHERE owner = ?

-- name: forget_user
DELETE FROM memories WHERE id IN (
    SELECT m.id FROM memory_owners o JOIN memories m ON m.owner = o.id WHERE o.user = ? LIMIT ?
)

-- name: drop_owners
DELETE FROM memory_owners WHERE user = ?

-- name: columns
m.id, m.key, m.content, m.metadata, m.created, m.updated, m.session, m.embedder

-- name: of_keys
SELECT {columns} FROM memories m
WHERE m.owner = :owner AND m.key IN (SELECT value FROM json_each(:keys))

-- name: page
SELECT {columns} FROM memories m WHERE m.owner = :owner AND m.id > :after
ORDER BY m.id LIMIT :limit

-- name: with_words
SELECT {columns} FROM (
    SELECT rowid AS id, rank FROM memory_words WHERE memory_words MATCH :words
) found CROSS JOIN memories m ON m.id = found.id
WHERE m.owner = :owner ORDER BY found.rank, m.id DESC LIMIT :limit

-- name: near
SELECT {columns} FROM (
    SELECT id, vec_distance_cosine(vector, :vector) AS distance FROM memories
    WHERE owner = :owner AND embedder = :embedder AND length(vector) = length(:vector)
) found CROSS JOIN memories m ON m.id = found.id
WHERE found.distance < 1 ORDER BY found.distance, m.id DESC LIMIT :limit

-- name: whole
SELECT {columns}, m.vector FROM memories m WHERE m.owner = :owner ORDER BY m.id

-- name: sources
SELECT session, seq FROM memory_sources WHERE memory = ? ORDER BY session, seq
