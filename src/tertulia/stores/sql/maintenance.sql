-- name: replay_bodies
UPDATE events SET body = NULL, salt = NULL, body_digest = (
    SELECT old.body_digest FROM target.events old JOIN target.sessions t ON t.key = old.session
    JOIN main.sessions s ON s.uid = t.uid
    WHERE s.key = events.session AND old.seq = events.seq
)
WHERE body IS NOT NULL AND EXISTS (
    SELECT 1 FROM target.events old JOIN target.sessions t ON t.key = old.session
    JOIN main.sessions s ON s.uid = t.uid
    WHERE s.key = events.session AND old.seq = events.seq AND old.digest = events.digest
      AND old.body IS NULL
)

-- name: newer_receipts
SELECT id, time, type, body FROM target.receipts
WHERE digest NOT IN (SELECT digest FROM main.receipts) ORDER BY id

-- name: session_of_uid
SELECT key FROM sessions WHERE uid = ? AND status <> 'deleted'

-- name: users
SELECT user FROM shared_state WHERE scope = 'user'
UNION SELECT user FROM memory_owners WHERE typeof(user) = 'text'

-- name: forget_bans
-- (their kind and key: tertulia.swarm.bans)
UPDATE entities SET value = NULL, version = version + 1 WHERE kind = 'tertulia.bans' AND key = ?

-- name: renew
UPDATE meta SET value = lower(hex(randomblob(16))) WHERE name = 'incarnation'
