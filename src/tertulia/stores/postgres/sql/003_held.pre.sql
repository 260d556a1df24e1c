-- Which worker holds which sessions, to find those of a dead one. Kept by triggers, so that old
-- code keeps it too, and beside the sessions, so that a turn that begins or ends writes no index
-- of theirs.
CREATE TABLE tertulia.held (
    worker bytea NOT NULL,
    session bigint NOT NULL,
    PRIMARY KEY (worker, session)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0
);

CREATE FUNCTION tertulia.note_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.holder IS NOT NULL THEN
        DELETE FROM tertulia.held WHERE worker = OLD.holder AND session = OLD.key;
    END IF;
    IF NEW.holder IS NOT NULL THEN
        INSERT INTO tertulia.held (worker, session) VALUES (NEW.holder, NEW.key)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER sessions_held AFTER UPDATE OF holder ON tertulia.sessions FOR EACH ROW
WHEN (OLD.holder IS DISTINCT FROM NEW.holder) EXECUTE FUNCTION tertulia.note_held();

CREATE TRIGGER sessions_born_held AFTER INSERT ON tertulia.sessions FOR EACH ROW
WHEN (NEW.holder IS NOT NULL) EXECUTE FUNCTION tertulia.note_held();
