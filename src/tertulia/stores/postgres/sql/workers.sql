-- name: register
INSERT INTO tertulia.workers AS old (
    worker, lock, epoch, host, process, lease, since, heartbeat
)
VALUES ($1, $2, 1, $3, $4, $5, clock_timestamp(), clock_timestamp())
ON CONFLICT (worker) DO UPDATE SET epoch = old.epoch + 1, heartbeat = excluded.heartbeat

-- name: locked
SELECT pg_try_advisory_lock($1)

-- name: has_locked
UPDATE tertulia.workers SET since = clock_timestamp() WHERE worker = $1

-- name: renew
-- (and whether somebody else is there, who wants to hear of commits)
WITH renewed AS (
    UPDATE tertulia.workers SET heartbeat = clock_timestamp() WHERE worker = $1
)
SELECT EXISTS (
    SELECT 1 FROM tertulia.workers
    WHERE worker <> $1 AND heartbeat > clock_timestamp() - lease * interval '1 second'
)

-- name: leave
DELETE FROM tertulia.workers WHERE worker = $1

-- name: forget_old
DELETE FROM tertulia.workers WHERE heartbeat < clock_timestamp() - interval '1 day'

-- name: is_alive
-- (a restart of the server frees all locks at once: then the whole lease counts, from there)
SELECT CASE
    WHEN greatest(heartbeat, pg_postmaster_start_time())
        < clock_timestamp() - lease * interval '1 second' THEN false
    WHEN heartbeat > clock_timestamp() - $2::float8 * interval '1 second' THEN true
    WHEN since < pg_postmaster_start_time() THEN true
    ELSE NOT pg_try_advisory_xact_lock_shared(lock)
END
FROM tertulia.workers WHERE worker = $1

-- name: notify
SELECT pg_notify('tertulia', $1)

-- name: is_there
SELECT to_regclass('tertulia.meta') IS NOT NULL

-- name: meta
SELECT name, value FROM tertulia.meta

-- name: set_version
INSERT INTO tertulia.meta (name, value) VALUES ('version', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: lock_migrations
SELECT pg_advisory_xact_lock(x'54455254'::bigint)

-- name: has_vectors
SELECT to_regtype('vector') IS NOT NULL

-- name: offers_vectors
SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector')
