-- The audit log. The key is the order of pages, the index of the retention, and what makes writing a batch twice harmless.

CREATE TABLE perses.audit (
    at            timestamptz NOT NULL,
    id            bigint NOT NULL,
    username      text,
    verb          text COLLATE "C" NOT NULL,
    kind          text COLLATE "C",
    project       text COLLATE "C",
    name          text COLLATE "C",
    version       bigint,
    status        integer NOT NULL,
    client        text,
    forwarded_for text,
    user_agent    text,
    request_id    text,
    PRIMARY KEY (at, id)
);
