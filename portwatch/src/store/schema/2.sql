-- That a recorder was still there, with nothing to keep: a row for each run, by the row it was at.
CREATE TABLE alive (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    time_boot INTEGER NOT NULL
) STRICT;
