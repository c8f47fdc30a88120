-- Documents, the tail of changes, and the sequence that orders them.
-- Names follow one rule (ASCII), so they compare by byte: prefix searches are ranges of the same indexes.

CREATE TABLE perses.project (
    name text COLLATE "C" PRIMARY KEY
);

CREATE SEQUENCE perses.revision AS bigint;

CREATE TABLE perses.resource (
    kind         text COLLATE "C" NOT NULL,
    project      text COLLATE "C" REFERENCES perses.project (name) ON DELETE CASCADE,
    name         text COLLATE "C" NOT NULL,
    -- The project, or '' of what belongs to none: one key for both, without nulls.
    scope        text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(project, '')) STORED,
    -- JSON as it was sent. Never queried, so it is not jsonb: that would reorder and reformat it.
    spec         text NOT NULL,
    tags         text[] NOT NULL DEFAULT '{}',
    display_name text,
    plugin_kind  text,
    origin       text NOT NULL DEFAULT 'api',
    version      bigint NOT NULL DEFAULT 0,
    revision     bigint NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (kind, scope, name)
);

-- The cascade of a deleted project, and lists of a project.
CREATE INDEX resource_project ON perses.resource (project, kind, name);

-- Names by prefix over all projects.
CREATE INDEX resource_name ON perses.resource (kind, name);

CREATE INDEX resource_updated_at ON perses.resource (updated_at);

-- One row for each write, in the transaction of the write.
CREATE TABLE perses.change (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind     text COLLATE "C" NOT NULL,
    project  text COLLATE "C",
    name     text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    deleted  boolean NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX change_xid ON perses.change (xid);

CREATE INDEX change_at ON perses.change (at);
