-- What each run of the recorder kept, and when it was last there with nothing to keep.
CREATE TABLE run (
    seq INTEGER PRIMARY KEY REFERENCES note,
    keep TEXT NOT NULL,
    filtered INTEGER NOT NULL,
    time INTEGER,
    time_boot INTEGER
) STRICT;
