-- What only one server at a time does: provisioning, clean-up.

CREATE TABLE perses.lease (
    name   text PRIMARY KEY,
    holder text NOT NULL,
    until  timestamptz NOT NULL
);
