-- Those that were held before there was a table of them; locks nothing.
INSERT INTO tertulia.held (worker, session)
SELECT holder, key FROM tertulia.sessions WHERE holder IS NOT NULL
ON CONFLICT DO NOTHING;
