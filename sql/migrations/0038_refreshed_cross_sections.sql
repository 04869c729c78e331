-- A run may be made by hand first and by the asset later: which ones are the asset's is a fact of its own.
CREATE TABLE refreshed_cross_sections (
    tf          TEXT NOT NULL,
    signal_name TEXT NOT NULL,
    run_id      UUID NOT NULL,
    PRIMARY KEY (tf, signal_name)
);
COMMENT ON TABLE refreshed_cross_sections IS
    'The run that the asset cross_sections came to last, of each cross-section and timeframe';
COMMENT ON COLUMN refreshed_cross_sections.run_id IS
    'Without a foreign key: a rebuild replaces the row of its run, and this remains';
