-- name: event_columns
session, seq, type, time, actor, turn, body, salt, digest, body_digest

-- name: head
branch = coalesce(c.branch, s.branch), seq = c.seq, digest = c.digest,
epoch = coalesce(c.epoch, s.epoch), holder = c.holder, open_turn = c.open_turn,
open_calls = c.open_calls, visible = c.visible, marks = coalesce(c.marks, s.marks),
requests = coalesce(c.requests, s.requests),
input_tokens = coalesce(c.input_tokens, s.input_tokens),
output_tokens = coalesce(c.output_tokens, s.output_tokens), active = c.active

-- name: fence
s.key = c.key AND s.seq = c.old_seq AND s.digest = c.old_digest AND s.epoch = c.old_epoch
AND s.holder IS NOT DISTINCT FROM c.old_holder AND s.status NOT IN ('deleted', 'moved')

-- name: advance
-- (only heads and events: what most changes are)
WITH moved AS (
    UPDATE tertulia.sessions s SET {head} FROM <change> c WHERE {fence} RETURNING c.n, s.key
), added AS (
    INSERT INTO tertulia.events ({event_columns})
    SELECT m.key, e.seq, e.type, e.time, e.actor, e.turn, e.body, e.salt, e.digest, e.body_digest
    FROM <event> e JOIN moved m ON m.n = e.n
)
SELECT n, key FROM moved

-- name: apply
WITH moved AS (
    UPDATE tertulia.sessions s SET {head},
        status = CASE WHEN c.rare THEN c.status ELSE s.status END,
        due_at = CASE WHEN c.rare THEN c.due_at ELSE s.due_at END,
        "user" = CASE WHEN c.rare THEN c."user" ELSE s."user" END
    FROM (SELECT * FROM <change> LEFT JOIN <rare> USING (n)) c WHERE {fence} RETURNING c.n, s.key
), birth AS MATERIALIZED (
    SELECT * FROM <birth>
), born AS (
    INSERT INTO tertulia.sessions (
        uid, app, id, base, parent, created, branch, seq, digest, epoch, holder, open_turn,
        open_calls, visible, marks, requests, input_tokens, output_tokens, active,
        status, due_at, "user"
    )
    SELECT uid, app, id, base, parent, created, branch, seq, digest, epoch, holder, open_turn,
        open_calls, visible, marks, requests, input_tokens, output_tokens, active,
        status, due_at, "user"
    FROM birth ORDER BY n
    ON CONFLICT DO NOTHING RETURNING key, uid
), done AS (
    SELECT n, key FROM moved UNION ALL SELECT b.n, born.key FROM born JOIN birth b USING (uid)
), added AS (
    INSERT INTO tertulia.events ({event_columns})
    SELECT d.key, e.seq, e.type, e.time, e.actor, e.turn, e.body, e.salt, e.digest, e.body_digest
    FROM <event> e JOIN done d USING (n)
), details AS (
    INSERT INTO tertulia.session_details (key, details)
    SELECT d.key, x.details FROM <details> x JOIN done d USING (n)
    ON CONFLICT (key) DO UPDATE SET details = excluded.details
), branches AS (
    INSERT INTO tertulia.branches (session, low, parent_session, parent_low, parent_high)
    SELECT coalesce(nullif(x.session, 0), d.key), x.low, x.parent_session, x.parent_low,
        x.parent_high
    FROM <branch> x JOIN done d USING (n)
), old_cuts AS (
    DELETE FROM tertulia.marks m USING <cut> x, done d
    WHERE d.n = x.n AND m.session = d.key AND m.kind = 'cut' AND m.high = x.old
    RETURNING m.session, m.low, m.at, x.new
), cuts AS (
    INSERT INTO tertulia.marks (session, kind, low, high, at)
    SELECT session, 'cut', low, new, at FROM old_cuts
    ON CONFLICT DO NOTHING
), marks AS (
    INSERT INTO tertulia.marks (session, kind, low, high, at)
    SELECT d.key, x.kind, x.low, x.high, x.at FROM <mark> x JOIN done d USING (n)
    ON CONFLICT DO NOTHING
), state AS (
    INSERT INTO tertulia.session_state (session, key, seq)
    SELECT d.key, x.key, x.seq FROM <state> x JOIN done d USING (n)
    ON CONFLICT DO NOTHING
), requests AS (
    INSERT INTO tertulia.requests (session, key, digest, turn, status, result, time)
    SELECT d.key, x.key, x.digest, x.turn, x.status, x.result, x.time
    FROM <request> x JOIN done d USING (n)
    ON CONFLICT (session, key) DO UPDATE
    SET digest = excluded.digest, turn = excluded.turn, status = excluded.status,
        result = excluded.result, time = excluded.time
), shared AS (
    INSERT INTO tertulia.shared_state AS old (scope, app, "user", key, value, version)
    SELECT x.scope, x.app, x."user", x.key, x.value, 1
    FROM <shared> x JOIN done d USING (n) ORDER BY x.scope, x.app, x."user", x.key
    ON CONFLICT (scope, app, "user", key) DO UPDATE
    SET value = excluded.value, version = old.version + 1
)
SELECT n, key FROM done

-- name: take_inputs
DELETE FROM tertulia.inbox WHERE id = ANY ($1::bigint[]) AND session = $2

-- name: write_shared
INSERT INTO tertulia.shared_state AS old (scope, app, "user", key, value, version)
SELECT $1, $2, $3, $4, $5, 1
WHERE $6::bigint IS NULL OR $6 = coalesce((
    SELECT version FROM tertulia.shared_state
    WHERE scope = $1 AND app = $2 AND "user" = $3 AND key = $4
), 0)
ON CONFLICT (scope, app, "user", key) DO UPDATE
SET value = excluded.value, version = old.version + 1
WHERE $6 IS NULL OR old.version = $6
RETURNING version
