-- What the model requests of a session consumed, as its log says.

ALTER TABLE sessions ADD COLUMN requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0;

UPDATE sessions SET (requests, input_tokens, output_tokens) = (
    SELECT count(*),
        coalesce(sum(CAST(body AS TEXT) ->> '$.input_tokens'), 0),
        coalesce(sum(CAST(body AS TEXT) ->> '$.output_tokens'), 0)
    FROM events WHERE session = sessions.key AND type = 'usage' AND body IS NOT NULL
)
WHERE key IN (SELECT session FROM events WHERE type = 'usage');
