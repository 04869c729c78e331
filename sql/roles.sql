-- Group roles with least privilege, granted again after every migrate so that new tables are
-- covered. Give one to a login role: GRANT backtest_reader TO grafana. A user who may not create
-- roles keeps all rights to itself, and nothing fails.
DO $$
DECLARE
    s TEXT := quote_ident(current_schema());
BEGIN
    FOR i IN 1..3 LOOP
        BEGIN
            EXECUTE 'CREATE ROLE ' || (ARRAY['backtest_owner', 'backtest_writer', 'backtest_reader'])[i]
                || ' NOLOGIN';
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- roles belong to the whole server; another database made it
        END;
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO backtest_reader, backtest_writer', s);
    EXECUTE format('GRANT ALL ON SCHEMA %s, dagster TO backtest_owner', s);
    EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %s TO backtest_owner', s);
    -- Who may add triggers can set what the database stamps.
    EXECUTE format('REVOKE TRIGGER ON ALL TABLES IN SCHEMA %s FROM backtest_owner', s);
    EXECUTE format('GRANT ALL ON ALL SEQUENCES IN SCHEMA %s TO backtest_owner', s);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %s TO backtest_reader', s);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %s TO backtest_writer', s);
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %s TO backtest_writer', s);
    IF current_setting('server_version_num')::int >= 170000 THEN  -- to analyze what it has written
        EXECUTE format('GRANT MAINTAIN ON ALL TABLES IN SCHEMA %s TO backtest_writer', s);
    END IF;
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %s.schema_migrations FROM backtest_writer', s);
    EXECUTE format('REVOKE ALL ON %s.api_keys FROM backtest_reader', s);
    GRANT USAGE, CREATE ON SCHEMA dagster TO backtest_writer;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'roles not granted: %', SQLERRM;
END $$;
