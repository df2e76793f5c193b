"""What a node keeps: mail, peers and invites, in one SQLite file that all its processes share.

`database` opens the file and `schema` brings it up to date; `inbox`, `outbox`, `outbox_files`
(with `attempts`), `partials`, `peers`, `addresses`, `invites`, `mappings` and `serving` hold the
SQL, as functions of a connection; `writer` runs them for an event loop, many in one commit;
`aging` is the time by which what is queued expires, `notices` says what did; `tries` and `links`
tell how peers were reached, and `upkeep` forgets what is no longer owed.

Keys of peers are 32 bytes, message IDs 16 bytes, times integers in milliseconds since 1970. No
function here reads a clock.
"""
