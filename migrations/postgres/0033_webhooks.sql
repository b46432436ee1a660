-- Addresses to which a tenant's events are sent, and the events on their way there. The secret that
-- signs them is made of the farm's secret and the webhook's id. Times are milliseconds since 1970.

CREATE TABLE webhooks (
    seq                BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_ms         BIGINT NOT NULL,
    tried_ms           BIGINT NOT NULL DEFAULT 0, -- when events were last taken, so that all have their turn
    success_ms         BIGINT,
    failure_ms         BIGINT,
    suspended_until_ms BIGINT,
    failures           BIGINT NOT NULL DEFAULT 0, -- since the last success
    id                 TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant             TEXT COLLATE "C" NOT NULL,
    url                TEXT NOT NULL,
    name               TEXT NOT NULL,
    types              TEXT NOT NULL,             -- names with a space before and after each; empty: all
    error              TEXT NOT NULL DEFAULT ''   -- of the last failure
);

CREATE INDEX webhooks_by_tenant ON webhooks (tenant, seq);

-- A row for each event and each webhook that gets it.
CREATE TABLE webhook_events (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook    BIGINT NOT NULL REFERENCES webhooks (seq) ON DELETE CASCADE,
    created_ms BIGINT NOT NULL,
    due_ms     BIGINT NOT NULL,           -- of one that is being sent: when its lease ends
    ended_ms   BIGINT,
    tries      BIGINT NOT NULL DEFAULT 0, -- raised when it is taken, so it names who has it
    tenant     TEXT COLLATE "C" NOT NULL,
    event      TEXT COLLATE "C" NOT NULL,
    type       TEXT NOT NULL,
    data       TEXT NOT NULL,
    state      TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'delivered', 'given_up')),
    error      TEXT    NOT NULL DEFAULT '', -- why it was given up
    CHECK ((ended_ms IS NULL) = (state IN ('waiting', 'sending')))
);

CREATE INDEX webhook_events_open ON webhook_events (webhook, due_ms) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_of_tenant ON webhook_events (tenant, id) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_by_age ON webhook_events (created_ms) WHERE ended_ms IS NULL;
CREATE INDEX webhook_events_sending ON webhook_events (due_ms) WHERE state = 'sending';
CREATE INDEX webhook_events_given_up ON webhook_events (webhook) WHERE state = 'given_up';
CREATE INDEX webhook_events_ended ON webhook_events (ended_ms) WHERE ended_ms IS NOT NULL;
