//! What changed of commands since they came, as far as it is served here: in which version, and what.

type Changes = &'static [(&'static str, &'static str)];

const COUNTED: Changes = &[("6.2.0", "`count` may be given.")];
const ELEMENTS: Changes = &[("2.4.0", "Several elements at once.")];
const EXCLUSIVE: Changes = &[("6.2.0", "Ends of the range may be excluded with `(`.")];
const FLUSHES: Changes = &[("4.0.0", "`ASYNC`."), ("6.2.0", "`SYNC`.")];
const FRACTIONS: Changes = &[("6.0.0", "`timeout` may have a fraction.")];
const LEGACY_PLACES: Changes = &[
    ("6.2.0", "`ANY` behind `COUNT`."),
    ("7.0.0", "Units in capital letters."),
];
const MISSING_KEYS: Changes = &[("2.8.0", "-2 for a key that is not there.")];
const CONDITIONS: Changes = &[("7.0.0", "`NX`, `XX`, `GT` and `LT`.")];
const PLACES: Changes = &[
    ("7.0.0", "Units in capital letters."),
    ("9.0.0", "`BYPOLYGON`."),
];
const READ_COUNTERS: Changes = &[("7.0.0", "`ENTRIESREAD`.")];
const REFERENCES: (&str, &str) = ("8.2.0", "`KEEPREF`, `DELREF` and `ACKED`.");
const WITH_SCORE: Changes = &[("7.2.0", "`WITHSCORE`.")];

/// In the order of their names.
pub(super) const ALL: &[(&str, Changes)] = &[
    (
        "acl|getuser",
        &[
            ("6.2.0", "Patterns of channels."),
            ("7.0.0", "Selectors; patterns are shown as rules."),
        ],
    ),
    (
        "acl|log",
        &[(
            "7.2.0",
            "Each entry has an id, and when it came and changed.",
        )],
    ),
    (
        "acl|setuser",
        &[
            ("6.2.0", "Patterns of channels."),
            (
                "7.0.0",
                "Selectors, and keys that may only be read or written.",
            ),
        ],
    ),
    ("auth", &[("6.0.0", "A username before the password.")]),
    ("bgsave", &[("3.2.2", "`SCHEDULE`.")]),
    ("bitcount", &[("7.0.0", "`BYTE` and `BIT`.")]),
    ("bitpos", &[("7.0.0", "`BYTE` and `BIT`.")]),
    ("blpop", FRACTIONS),
    ("brpop", FRACTIONS),
    ("brpoplpush", FRACTIONS),
    ("bzpopmax", FRACTIONS),
    ("bzpopmin", FRACTIONS),
    (
        "client|kill",
        &[
            ("2.8.12", "Filters, `ID` among them."),
            ("3.2.0", "`TYPE master`."),
            ("5.0.0", "`TYPE replica`, for what was `slave`."),
            ("6.2.0", "`LADDR`."),
        ],
    ),
    (
        "client|list",
        &[
            ("2.8.12", "`id` of each client."),
            ("5.0.0", "`TYPE`."),
            ("6.0.0", "`user` of each client."),
            ("6.2.0", "`ID`; `laddr`, `redir` and memory of each client."),
            ("7.0.0", "`resp` and more about memory of each client."),
            ("7.0.3", "`ssub` of each client."),
        ],
    ),
    ("client|pause", &[("6.2.0", "`WRITE` and `ALL`.")]),
    (
        "cluster|slots",
        &[
            ("4.0.0", "Ids of nodes."),
            ("7.0.0", "Further names of nodes."),
        ],
    ),
    ("command|info", &[("7.0.0", "Without names, all commands.")]),
    ("config|get", &[("7.0.0", "Several patterns at once.")]),
    ("config|set", &[("7.0.0", "Several parameters at once.")]),
    ("exists", &[("3.0.3", "Several keys at once.")]),
    ("expire", CONDITIONS),
    ("expireat", CONDITIONS),
    ("flushall", FLUSHES),
    ("flushdb", FLUSHES),
    ("geoadd", &[("6.2.0", "`CH`, `NX` and `XX`.")]),
    ("georadius", LEGACY_PLACES),
    ("georadius_ro", LEGACY_PLACES),
    ("georadiusbymember", LEGACY_PLACES),
    ("georadiusbymember_ro", LEGACY_PLACES),
    ("geosearch", PLACES),
    ("geosearchstore", PLACES),
    ("hdel", &[("2.4.0", "Several fields at once.")]),
    (
        "hello",
        &[(
            "6.2.0",
            "Without a version, it only tells about the connection.",
        )],
    ),
    ("hset", &[("4.0.0", "Several fields at once.")]),
    ("info", &[("7.0.0", "Several sections at once.")]),
    ("lpop", COUNTED),
    ("lpush", ELEMENTS),
    ("lpushx", &[("4.0.0", "Several elements at once.")]),
    ("pexpire", CONDITIONS),
    ("pexpireat", CONDITIONS),
    ("pttl", MISSING_KEYS),
    ("renamenx", &[("3.2.0", "Both names may be the same.")]),
    (
        "restore",
        &[
            ("3.0.0", "`REPLACE`."),
            ("5.0.0", "`ABSTTL`, `IDLETIME` and `FREQ`."),
        ],
    ),
    ("rpop", COUNTED),
    ("rpush", ELEMENTS),
    ("rpushx", &[("4.0.0", "Several elements at once.")]),
    ("sadd", &[("2.4.0", "Several members at once.")]),
    ("scan", &[("6.0.0", "`TYPE`.")]),
    ("script|flush", &[("6.2.0", "`ASYNC` and `SYNC`.")]),
    (
        "set",
        &[
            ("2.6.12", "`EX`, `PX`, `NX` and `XX`."),
            ("6.0.0", "`KEEPTTL`."),
            ("6.2.0", "`GET`, `EXAT` and `PXAT`."),
            ("7.0.0", "`NX` and `GET` together."),
            ("8.1.0", "`IFEQ`, of Valkey."),
            ("8.4.0", "`IFNE`, `IFDEQ` and `IFDNE`, of Redis."),
        ],
    ),
    ("shutdown", &[("7.0.0", "`NOW`, `FORCE` and `ABORT`.")]),
    (
        "slowlog|get",
        &[("4.0.0", "Address and name of the client.")],
    ),
    ("spop", &[("3.2.0", "`count` may be given.")]),
    ("srandmember", &[("2.6.0", "`count` may be given.")]),
    ("srem", &[("2.4.0", "Several members at once.")]),
    ("ttl", MISSING_KEYS),
    (
        "xadd",
        &[
            ("6.2.0", "`NOMKSTREAM`, `MINID` and `LIMIT`."),
            ("7.0.0", "Ids of which only the time is given, `ms-*`."),
            REFERENCES,
            ("8.6.0", "`IDMP` and `IDMPAUTO`."),
        ],
    ),
    (
        "xautoclaim",
        &[(
            "7.0.0",
            "Ids that were pending without an entry are in the reply.",
        )],
    ),
    ("xgroup|create", READ_COUNTERS),
    ("xgroup|setid", READ_COUNTERS),
    (
        "xinfo|consumers",
        &[(
            "7.2.0",
            "`inactive`; `idle` is since the consumer asked last.",
        )],
    ),
    ("xinfo|groups", &[("7.0.0", "`entries-read` and `lag`.")]),
    (
        "xinfo|stream",
        &[
            ("6.0.0", "`FULL`."),
            (
                "7.0.0",
                "`max-deleted-entry-id`, `entries-added`, `recorded-first-entry-id`, and of groups `entries-read` and `lag`.",
            ),
            (
                "7.2.0",
                "`active-time`; `seen-time` is when the consumer asked last.",
            ),
            ("8.6.0", "What is known of producers."),
            ("8.8.0", "`nacked-count` of groups."),
        ],
    ),
    (
        "xpending",
        &[(
            "6.2.0",
            "`IDLE`; ends of the range may be excluded with `(`.",
        )],
    ),
    ("xrange", EXCLUSIVE),
    ("xrevrange", EXCLUSIVE),
    ("xsetid", &[("7.0.0", "`ENTRIESADDED` and `MAXDELETEDID`.")]),
    ("xtrim", &[("6.2.0", "`MINID` and `LIMIT`."), REFERENCES]),
    (
        "zadd",
        &[
            ("2.4.0", "Several members at once."),
            ("3.0.2", "`XX`, `NX`, `CH` and `INCR`."),
            ("6.2.0", "`GT` and `LT`."),
        ],
    ),
    (
        "zrange",
        &[("6.2.0", "`REV`, `BYSCORE`, `BYLEX` and `LIMIT`.")],
    ),
    ("zrangebyscore", &[("2.0.0", "`WITHSCORES`.")]),
    ("zrank", WITH_SCORE),
    ("zrem", &[("2.4.0", "Several members at once.")]),
    (
        "zrevrangebyscore",
        &[("2.1.6", "Ends of the range may be excluded with `(`.")],
    ),
    ("zrevrank", WITH_SCORE),
];
