-- name: bytes
SELECT pg_database_size(current_database())

-- name: tables
-- (with their indexes; the parts of a table are counted with it)
SELECT coalesce(p.relname, c.relname), sum(pg_total_relation_size(c.oid))::bigint
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
LEFT JOIN pg_class p ON p.oid = i.inhparent
WHERE c.relnamespace = 'tertulia'::regnamespace AND c.relkind = 'r'
GROUP BY 1 ORDER BY 2 DESC, 1

-- name: removals
SELECT count(*) FROM tertulia.removals

-- name: standbys
SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')

-- name: held
SELECT s.app, s.id, s.holder, s.open_turn, s.active
FROM tertulia.held h JOIN tertulia.sessions s ON s.key = h.session AND s.holder = h.worker
WHERE s.open_turn IS NOT NULL AND s.status <> 'deleted'
ORDER BY s.active, s.key LIMIT $1
