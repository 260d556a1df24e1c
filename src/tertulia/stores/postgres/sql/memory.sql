-- name: owner
SELECT id, salt FROM tertulia.memory_owners WHERE app = $1 AND "user" = $2

-- name: add_owner
INSERT INTO tertulia.memory_owners (app, "user", salt) VALUES ($1, $2, $3)
ON CONFLICT (app, "user") DO NOTHING

-- name: scopes_of_user
SELECT app, "user" FROM tertulia.memory_owners WHERE "user" = $1 ORDER BY id

-- name: put
INSERT INTO tertulia.memories (
    owner, key, content, metadata, created, updated, session, words, embedder, vector
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::tsvector, $9, $10)
ON CONFLICT (owner, key) DO UPDATE SET
    content = excluded.content, metadata = excluded.metadata, updated = excluded.updated,
    session = excluded.session, words = excluded.words, embedder = excluded.embedder,
    vector = excluded.vector
RETURNING id

-- name: drop_sources
DELETE FROM tertulia.memory_sources WHERE memory = $1

-- name: add_sources
INSERT INTO tertulia.memory_sources (session, seq, memory)
SELECT x.session, x.seq, $3 FROM unnest($1::bytea[], $2::bigint[]) AS x (session, seq)
ON CONFLICT DO NOTHING

-- name: is_open
-- (kept from being deleted until the memory of it is committed)
SELECT key FROM tertulia.sessions WHERE uid = $1 AND status <> 'deleted' FOR SHARE

-- name: are_erased
SELECT e.body IS NULL FROM unnest($1::bytea[], $2::bigint[]) AS x (session, seq)
JOIN tertulia.sessions s ON s.uid = x.session
JOIN tertulia.events e ON e.session = s.key AND e.seq = x.seq
FOR SHARE OF e

-- name: put_vector
UPDATE tertulia.memories SET embedder = $4, vector = $5
WHERE owner = $1 AND key = $2 AND content = $3

-- name: forget
DELETE FROM tertulia.memories WHERE owner = $1 AND key = ANY ($2::text[])

-- name: forget_session
DELETE FROM tertulia.memories WHERE session = $1
OR id IN (SELECT memory FROM tertulia.memory_sources WHERE session = $1)

-- name: forget_erased
DELETE FROM tertulia.memories WHERE id IN (
    SELECT m.memory FROM tertulia.sessions s
    JOIN tertulia.memory_sources m ON m.session = s.uid AND m.seq > $2 AND m.seq <= $3
    JOIN tertulia.events e ON e.session = s.key AND e.seq = m.seq
    WHERE s.key = $1 AND e.body IS NULL
)

-- name: forget_user
DELETE FROM tertulia.memories WHERE id IN (
    SELECT m.id FROM tertulia.memory_owners o JOIN tertulia.memories m ON m.owner = o.id
    WHERE o."user" = $1 LIMIT $2
)

-- name: drop_owners
DELETE FROM tertulia.memory_owners WHERE "user" = $1

-- name: columns
m.id, m.key, m.content, m.metadata, m.created, m.updated, m.session, m.embedder

-- name: of_keys
SELECT {columns} FROM tertulia.memories m WHERE m.owner = $1 AND m.key = ANY ($2::text[])

-- name: page
SELECT {columns} FROM tertulia.memories m WHERE m.owner = $1 AND m.id > $2
ORDER BY m.id LIMIT $3

-- name: with_words
SELECT {columns} FROM tertulia.memories m
WHERE m.owner = $1 AND m.words @@ $2::text::tsquery
ORDER BY ts_rank(m.words, $2::text::tsquery, 1) DESC, m.id DESC LIMIT $3

-- name: near
SELECT {columns} FROM (
    SELECT id, vector::vector <=> $3::real[]::vector AS distance FROM tertulia.memories
    WHERE owner = $1 AND embedder = $2 AND cardinality(vector) = cardinality($3::real[])
) found JOIN tertulia.memories m USING (id)
WHERE found.distance < 1 ORDER BY found.distance, m.id DESC LIMIT $4

-- name: vectors
SELECT id, vector FROM tertulia.memories
WHERE owner = $1 AND embedder = $2 AND cardinality(vector) = $3

-- name: of_ids
SELECT {columns} FROM tertulia.memories m WHERE m.id = ANY ($1::bigint[])
