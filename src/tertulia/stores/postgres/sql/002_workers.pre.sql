-- `version` is the newest migration that the code of a worker knows, and `came` when it came; both
-- are NULL for code that is older than they are. `load` is a JSON object, what it says of itself.
-- `secret` is what others show to be let in at `url`.
ALTER TABLE tertulia.workers
    ADD COLUMN version bigint,
    ADD COLUMN came timestamptz,
    ADD COLUMN url text,
    ADD COLUMN secret text,
    ADD COLUMN load text;

-- Where something lives, to find the way to it; nothing is decided by it.
CREATE TABLE tertulia.seats (
    place text COLLATE "C" PRIMARY KEY,
    worker bytea NOT NULL
);
CREATE INDEX seats_worker ON tertulia.seats (worker);
