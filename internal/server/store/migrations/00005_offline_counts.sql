-- What a machine has told of the use of its offline data.

-- +goose Up

-- used: sign-ins since the counters were last fresh. tries: wrong answers since the last
-- right one. shut: the reason code with which the machine refuses before it judges
-- anything, if that is not the number of tries. counted_from: when the counters were last
-- fresh; what a journal tells of earlier is over.
ALTER TABLE vaults ADD COLUMN used BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vaults ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
ALTER TABLE vaults ADD COLUMN shut TEXT NOT NULL DEFAULT '';
ALTER TABLE vaults ADD COLUMN counted_from BIGINT NOT NULL DEFAULT 0;

UPDATE vaults SET counted_from = last_mfa_at, used = use_limit - fail_limit - uses_left WHERE use_limit - fail_limit > uses_left;
