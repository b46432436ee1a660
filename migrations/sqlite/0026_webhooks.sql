-- Addresses to which a tenant's events are sent, and the events on their way there. The secret that
-- signs them is made of the farm's secret and the webhook's id.

CREATE TABLE webhooks (
    seq                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                 TEXT    NOT NULL UNIQUE,
    tenant             TEXT    NOT NULL,
    url                TEXT    NOT NULL,
    name               TEXT    NOT NULL,
    types              TEXT    NOT NULL,            -- names with a space before and after each; empty: all
    created_ms         INTEGER NOT NULL,
    tried_ms           INTEGER NOT NULL DEFAULT 0,  -- when events were last taken, so that all have their turn
    success_ms         INTEGER,
    failure_ms         INTEGER,
    suspended_until_ms INTEGER,
    failures           INTEGER NOT NULL DEFAULT 0,  -- since the last success
    error              TEXT    NOT NULL DEFAULT ''  -- of the last failure
);

CREATE INDEX webhooks_by_tenant ON webhooks (tenant, seq);

-- A row for each event and each webhook that gets it.
CREATE TABLE webhook_events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook    INTEGER NOT NULL REFERENCES webhooks (seq) ON DELETE CASCADE,
    tenant     TEXT    NOT NULL,
    event      TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    data       TEXT    NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'delivered', 'given_up')),
    tries      INTEGER NOT NULL DEFAULT 0,          -- raised when it is taken, so it names who has it
    created_ms INTEGER NOT NULL,
    due_ms     INTEGER NOT NULL,                    -- of one that is being sent: when its lease ends
    ended_ms   INTEGER,
    error      TEXT    NOT NULL DEFAULT '', -- why it was given up
    CHECK ((ended_ms IS NULL) = (state IN ('waiting', 'sending')))
);

CREATE INDEX webhook_events_open ON webhook_events (webhook, due_ms) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_of_tenant ON webhook_events (tenant, id) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_by_age ON webhook_events (created_ms) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_sending ON webhook_events (due_ms) WHERE state = 'sending';
CREATE INDEX webhook_events_given_up ON webhook_events (webhook) WHERE state = 'given_up';
CREATE INDEX webhook_events_ended ON webhook_events (ended_ms) WHERE ended_ms IS NOT NULL;
