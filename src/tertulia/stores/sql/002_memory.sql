-- Who has memories: `app` is 0 for the default app, `user` 0 for the memory of an app itself.
CREATE TABLE memory_owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    app ANY NOT NULL,
    user ANY NOT NULL,
    salt BLOB NOT NULL,
    UNIQUE (app, user)
) STRICT;
CREATE INDEX memory_owners_user ON memory_owners (user);

-- `session` is the uid of the session that a memory was taken from. `words` are those of the text,
-- each hashed with the salt of its owner: the index below keeps no word that can be read, also not
-- where a removed row leaves a separator behind, and owners have no word in common. `vector` is of
-- 32-bit floats, made by `embedder`.
CREATE TABLE memories (
    id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    key TEXT NOT NULL,
    content TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    session BLOB,
    words TEXT NOT NULL,
    embedder TEXT,
    vector BLOB,
    UNIQUE (owner, key)
) STRICT;
CREATE INDEX memories_owner ON memories (owner);
CREATE INDEX memories_session ON memories (session) WHERE session IS NOT NULL;

-- The events that a memory was taken from.
CREATE TABLE memory_sources (
    session BLOB NOT NULL,
    seq INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    PRIMARY KEY (session, seq, memory)
) STRICT, WITHOUT ROWID;
CREATE INDEX memory_sources_memory ON memory_sources (memory);

CREATE VIRTUAL TABLE memory_words USING fts5 (
    words, content = 'memories', content_rowid = 'id', tokenize = 'ascii'
);
INSERT INTO memory_words (memory_words, rank) VALUES ('secure-delete', 1);

CREATE TRIGGER memory_added AFTER INSERT ON memories BEGIN
    INSERT INTO memory_words (rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER memory_changed AFTER UPDATE OF words ON memories BEGIN
    INSERT INTO memory_words (memory_words, rowid, words) VALUES ('delete', old.id, old.words);
    INSERT INTO memory_words (rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER memory_removed AFTER DELETE ON memories BEGIN
    INSERT INTO memory_words (memory_words, rowid, words) VALUES ('delete', old.id, old.words);
    DELETE FROM memory_sources WHERE memory = old.id;
END;
