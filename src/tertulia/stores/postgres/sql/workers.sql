-- name: alive
-- (a restart of the server frees all locks at once, and a standby that takes over has none and old
-- heartbeats: then the whole lease counts, from the start or from when workers came there)
CASE
    WHEN greatest(w.heartbeat, pg_postmaster_start_time(), CASE
        WHEN w.server <> pg_postmaster_start_time() THEN coalesce((
            SELECT seen FROM tertulia.servers WHERE started = pg_postmaster_start_time()
        ), clock_timestamp())
    END) < clock_timestamp() - w.lease * interval '1 second' THEN false
    WHEN w.heartbeat > clock_timestamp() - least(2, 0.4 * w.lease) * interval '1 second' THEN true
    WHEN w.since < pg_postmaster_start_time() THEN true
    WHEN w.server <> pg_postmaster_start_time() THEN true
    ELSE NOT pg_try_advisory_xact_lock_shared(w.lock)
END

-- name: note_server
INSERT INTO tertulia.servers (started, seen)
VALUES (pg_postmaster_start_time(), clock_timestamp())
ON CONFLICT DO NOTHING

-- name: register
INSERT INTO tertulia.workers AS old (
    worker, lock, epoch, host, process, lease, since, heartbeat, came, version, url, secret, load
)
VALUES ($1, $2, 1, $3, $4, $5, clock_timestamp(), clock_timestamp(), clock_timestamp(),
    $6, $7, $8, $9)
ON CONFLICT (worker) DO UPDATE SET epoch = old.epoch + 1, heartbeat = excluded.heartbeat,
    url = excluded.url, secret = excluded.secret, load = excluded.load

-- name: locked
SELECT pg_try_advisory_lock($1)

-- name: has_locked
UPDATE tertulia.workers SET since = clock_timestamp(), server = pg_postmaster_start_time()
WHERE worker = $1

-- name: renew
-- (and whether somebody else is there, who wants to hear of commits)
UPDATE tertulia.workers SET heartbeat = clock_timestamp(), load = $2 WHERE worker = $1
RETURNING EXISTS (
    SELECT 1 FROM tertulia.workers
    WHERE worker <> $1 AND heartbeat > clock_timestamp() - lease * interval '1 second'
)

-- name: advertise
UPDATE tertulia.workers SET url = $2, secret = $3 WHERE worker = $1

-- name: leave
DELETE FROM tertulia.workers WHERE worker = $1

-- name: is_alive
SELECT {alive} FROM tertulia.workers w WHERE w.worker = $1

-- name: columns
w.worker, w.host, w.process, {alive},
extract(epoch FROM clock_timestamp() - w.heartbeat)::float8,
(extract(epoch FROM coalesce(w.came, w.since)) * 1000000)::bigint, w.lease, w.url, w.secret, w.load

-- name: find
SELECT {columns} FROM tertulia.workers w WHERE w.worker = $1

-- name: all
SELECT {columns}, coalesce(h.count, 0), coalesce(t.count, 0) FROM tertulia.workers w
LEFT JOIN (SELECT worker, count(*) FROM tertulia.held GROUP BY worker) h USING (worker)
LEFT JOIN (SELECT worker, count(*) FROM tertulia.seats GROUP BY worker) t USING (worker)
ORDER BY coalesce(w.came, w.since), w.worker

-- name: older
SELECT w.host, w.process FROM tertulia.workers w WHERE coalesce(w.version, 0) < $1 AND {alive}
ORDER BY w.host, w.process

-- name: holders
-- (each worker that holds something, found by a step of the index for each)
holders (worker) AS (
    (SELECT worker FROM tertulia.held ORDER BY worker LIMIT 1)
    UNION ALL
    SELECT (SELECT worker FROM tertulia.held WHERE worker > h.worker ORDER BY worker LIMIT 1)
    FROM holders h WHERE h.worker IS NOT NULL
)

-- name: abandoned
-- (OFFSET 0 keeps the order of the joins: by keys, from those who are dead to what they held)
WITH RECURSIVE {holders}, dead AS MATERIALIZED (
    SELECT h.worker FROM holders h WHERE h.worker IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM tertulia.workers w WHERE w.worker = h.worker AND {alive}
    )
), left_open AS MATERIALIZED (
    SELECT d.worker, h.session FROM dead d
    CROSS JOIN LATERAL (
        SELECT session FROM tertulia.held
        WHERE worker = d.worker AND session > $2 ORDER BY session OFFSET 0
    ) h
    ORDER BY h.session
)
SELECT <session_columns> FROM left_open l
CROSS JOIN LATERAL (
    SELECT * FROM tertulia.sessions WHERE key = l.session AND holder = l.worker
        AND open_turn IS NOT NULL AND status <> 'deleted' OFFSET 0
) s
ORDER BY l.session LIMIT $1

-- name: take_seat
-- (nothing is written where it is mine, or cannot be; it need not survive a crash)
WITH seen AS MATERIALIZED (
    SELECT s.worker FROM tertulia.seats s WHERE s.place = $1 AND (
        s.worker = $2 OR s.worker IS DISTINCT FROM $3 AND EXISTS (
            SELECT 1 FROM tertulia.workers w WHERE w.worker = s.worker AND {alive}
        )
    )
), taken AS (
    INSERT INTO tertulia.seats AS s (place, worker)
    SELECT $1, $2 FROM set_config('synchronous_commit', 'off', true)
    WHERE NOT EXISTS (SELECT 1 FROM seen)
    ON CONFLICT (place) DO UPDATE SET worker = CASE
        WHEN s.worker IS DISTINCT FROM $3 AND EXISTS (
            SELECT 1 FROM tertulia.workers w WHERE w.worker = s.worker AND {alive}
        ) THEN s.worker
        ELSE excluded.worker
    END
    RETURNING worker
)
SELECT worker FROM seen UNION ALL SELECT worker FROM taken

-- name: leave_seat
DELETE FROM tertulia.seats WHERE place = $1 AND worker = $2

-- name: drop_seats
-- (of those that are gone, or have said nothing for an hour)
WITH RECURSIVE sitting (worker) AS (
    (SELECT worker FROM tertulia.seats ORDER BY worker LIMIT 1)
    UNION ALL
    SELECT (SELECT worker FROM tertulia.seats WHERE worker > s.worker ORDER BY worker LIMIT 1)
    FROM sitting s WHERE s.worker IS NOT NULL
), gone AS MATERIALIZED (
    SELECT s.worker FROM sitting s WHERE s.worker IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM tertulia.workers w
        WHERE w.worker = s.worker AND w.heartbeat > clock_timestamp() - interval '1 hour'
    )
)
DELETE FROM tertulia.seats WHERE place IN (
    SELECT place FROM gone JOIN tertulia.seats USING (worker) LIMIT $1
)

-- name: drop_held
-- (rows whose session is held otherwise by now, or gone; a session that is locked cannot be taken
-- meanwhile)
WITH others AS MATERIALIZED (
    SELECT h.worker, h.session FROM tertulia.held h JOIN tertulia.sessions s ON s.key = h.session
    WHERE s.holder IS DISTINCT FROM h.worker LIMIT $1 FOR UPDATE OF s SKIP LOCKED
), gone AS MATERIALIZED (
    SELECT h.worker, h.session FROM tertulia.held h
    WHERE NOT EXISTS (SELECT 1 FROM tertulia.sessions s WHERE s.key = h.session) LIMIT $1
)
DELETE FROM tertulia.held h USING (SELECT * FROM others UNION ALL SELECT * FROM gone) o
WHERE h.worker = o.worker AND h.session = o.session

-- name: drop_servers
DELETE FROM tertulia.servers
WHERE started <> pg_postmaster_start_time() AND seen < clock_timestamp() - interval '1 day'

-- name: drop_workers
DELETE FROM tertulia.workers WHERE worker IN (
    SELECT worker FROM tertulia.workers
    WHERE heartbeat < clock_timestamp() - interval '1 day' LIMIT $1
)

-- name: durability
SELECT current_setting('synchronous_commit'),
    coalesce(nullif(current_setting('synchronous_standby_names'), ''), 'none'),
    current_setting('fsync'), current_setting('full_page_writes'),
    current_setting('server_version')

-- name: notify
SELECT pg_notify('tertulia', $1)

-- name: states
-- (what a bell rings for: whether a session is as it was when this was last asked)
SELECT s.key, s.seq, s.epoch, s.holder, s.status, (
    SELECT max(i.id) FROM tertulia.inbox i WHERE i.session = s.key
)
FROM tertulia.sessions s WHERE s.key = ANY ($1::bigint[])

-- name: is_there
-- (by reading: a name that was not there is remembered until the next transaction)
SELECT EXISTS (
    SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'tertulia' AND c.relname = 'meta'
)

-- name: meta
SELECT name, value FROM tertulia.meta

-- name: set_meta
INSERT INTO tertulia.meta (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: lock_migrations
SELECT pg_advisory_xact_lock(x'54455254'::bigint)

-- name: limit_locks
SET LOCAL lock_timeout = '1s'

-- name: lockers
-- (who has had something of the store locked for longest)
SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type),
    extract(epoch FROM clock_timestamp() - min(a.xact_start))::float8,
    coalesce(min(l.mode || ' on ' || l.relation::regclass::text), 'an advisory lock')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
LEFT JOIN pg_class c ON c.oid = l.relation AND c.relnamespace = 'tertulia'::regnamespace
    AND c.relkind IN ('r', 'p')
WHERE l.granted AND l.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (c.oid IS NOT NULL OR l.locktype = 'advisory' AND l.mode = 'ExclusiveLock'
        AND l.objid IN (x'54455254'::bigint::oid, x'54455255'::bigint::oid))
GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 3

-- name: hold_entrance
SELECT pg_advisory_xact_lock_shared(x'54455255'::bigint)

-- name: close_entrance
SELECT pg_advisory_xact_lock(x'54455255'::bigint)

-- name: has_vectors
SELECT to_regtype('vector') IS NOT NULL

-- name: offers_vectors
SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'vector')
