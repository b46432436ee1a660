-- Workers' deaths that did not count against a task, because a host had died with several of its workers. A row stays for a
-- day after the latest one.
CREATE TABLE spared_deaths (
    task   TEXT    PRIMARY KEY, -- job/index/generation of an image, or encoder/text
    deaths INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL
);

CREATE INDEX spared_deaths_by_time ON spared_deaths (at_ms);
