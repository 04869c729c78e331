-- Each failed run is notified once to each receiver, also where the sensor is reset or killed.
CREATE TABLE run_notices (
    dagster_run_id TEXT NOT NULL,
    receiver       TEXT NOT NULL CHECK (receiver IN ('webhook', 'slack', 'mail')),
    noticed_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    tries          INTEGER NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_try_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at        TIMESTAMPTZ,
    problem        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (dagster_run_id, receiver)
);
COMMENT ON TABLE run_notices IS 'Notices of failed runs of Dagster, one for each run and receiver';
COMMENT ON COLUMN run_notices.dagster_run_id IS 'The failed run of Dagster';
COMMENT ON COLUMN run_notices.receiver IS 'Where the notice goes: webhook, slack or mail';
COMMENT ON COLUMN run_notices.noticed_at IS 'When the failure was found';
COMMENT ON COLUMN run_notices.tries IS 'How often it was sent, the try under way included';
COMMENT ON COLUMN run_notices.next_try_at IS 'When it is to be sent again while it is not sent';
COMMENT ON COLUMN run_notices.sent_at IS 'When the receiver accepted it; NULL before';
COMMENT ON COLUMN run_notices.problem IS 'Why the last try failed, without secrets; empty after a success';
