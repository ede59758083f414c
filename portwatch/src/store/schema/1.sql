-- What calls have in common.
CREATE TABLE call (
    id INTEGER PRIMARY KEY,
    uses INTEGER NOT NULL,
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    error TEXT,
    errno INTEGER,
    via TEXT,
    transport TEXT NOT NULL,
    family TEXT NOT NULL,
    address TEXT,
    service TEXT,
    port_class TEXT,
    ephemeral INTEGER,
    has_peer INTEGER NOT NULL,
    peer_service TEXT,
    peer_port_class TEXT,
    peer_ephemeral INTEGER,
    auto_port INTEGER NOT NULL,
    backlog INTEGER,
    netns INTEGER,
    uid INTEGER,
    reuseaddr INTEGER,
    reuseport INTEGER,
    v6only INTEGER,
    freebind INTEGER,
    transparent INTEGER,
    bind_no_port INTEGER,
    mptcp INTEGER,
    interface TEXT,
    by_policy INTEGER NOT NULL,
    sought INTEGER NOT NULL,
    missing TEXT
) STRICT;

-- What processes run, as whom and where.
CREATE TABLE program (
    id INTEGER PRIMARY KEY,
    uses INTEGER NOT NULL,
    executable TEXT,
    args TEXT,
    uid INTEGER NOT NULL,
    user TEXT,
    cgroup TEXT,
    container TEXT,
    runtime TEXT,
    unit TEXT
) STRICT;

-- Processes, and threads with a name of their own.
CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    uses INTEGER NOT NULL,
    program INTEGER NOT NULL REFERENCES program,
    pid INTEGER NOT NULL,
    parent_pid INTEGER,
    vpid INTEGER,
    comm TEXT,
    started INTEGER
) STRICT;

-- One row a call of bind, listen or connect, or a port taken on the way, in the order of the stream.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    time_boot INTEGER NOT NULL,
    call INTEGER NOT NULL REFERENCES call,
    process INTEGER NOT NULL REFERENCES process,
    thread INTEGER,
    duration INTEGER,
    port INTEGER,
    peer_address TEXT,
    peer_port INTEGER,
    cookie INTEGER,
    inode INTEGER
) STRICT;

-- Why an event was refused.
CREATE TABLE conflict (
    seq INTEGER PRIMARY KEY REFERENCES event,
    kind TEXT NOT NULL,
    overlap TEXT,
    reason TEXT,
    holder INTEGER REFERENCES process,
    detail TEXT NOT NULL
) STRICT;

-- What is dangerous about an event that worked.
CREATE TABLE warning (
    seq INTEGER PRIMARY KEY REFERENCES event,
    detail TEXT NOT NULL
) STRICT;

-- Starts, losses and ends, in the same order.
CREATE TABLE note (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    time_boot INTEGER NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

-- Which processes a conflict or warning names, and how often: that many uses go with it.
CREATE TABLE mention (
    seq INTEGER NOT NULL REFERENCES event,
    process INTEGER NOT NULL REFERENCES process,
    times INTEGER NOT NULL,
    PRIMARY KEY (seq, process)
) STRICT, WITHOUT ROWID;
