//! What `COMMAND INFO` hints to proxies and clients of a cluster: how a command is asked of several nodes, and what it does to its keys.
//! These are facts of the protocol, the same in every server of the family.

/// Hints, and the commands that have them.
pub(super) const TIPS: &[(&str, &str)] = &[
    (
        "nondeterministic_output",
        "client|info client|list cluster|count-failure-reports cluster|getkeysinslot cluster|info cluster|links cluster|myshardid cluster|nodes \
         cluster|replicas cluster|shards cluster|slaves cluster|slots dump hrandfield hscan lastsave object|encoding object|freq object|idletime \
         object|refcount pttl spop srandmember sscan time ttl xadd xautoclaim xclaim xinfo|consumers xpending xtrim zrandmember zscan",
    ),
    (
        "nondeterministic_output request_policy:all_nodes response_policy:special",
        "latency|doctor latency|graph latency|histogram latency|history latency|latest",
    ),
    (
        "nondeterministic_output request_policy:all_shards response_policy:special",
        "function|stats info memory|doctor memory|malloc-stats memory|stats",
    ),
    (
        "nondeterministic_output request_policy:special response_policy:special",
        "scan",
    ),
    (
        "nondeterministic_output_order",
        "command command|docs command|info command|list function|list hgetall hkeys hvals module|list sdiff sinter smembers sunion",
    ),
    (
        "request_policy:all_nodes nondeterministic_output",
        "slowlog|get",
    ),
    (
        "request_policy:all_nodes response_policy:agg_sum",
        "latency|reset",
    ),
    (
        "request_policy:all_nodes response_policy:agg_sum nondeterministic_output",
        "slowlog|len",
    ),
    (
        "request_policy:all_nodes response_policy:all_succeeded",
        "acl|deluser acl|save acl|setuser client|setinfo client|setname config|resetstat config|rewrite config|set script|flush script|load slowlog|reset",
    ),
    (
        "request_policy:all_shards nondeterministic_output_order",
        "keys",
    ),
    (
        "request_policy:all_shards response_policy:agg_logical_and",
        "script|exists",
    ),
    (
        "request_policy:all_shards response_policy:agg_min",
        "wait waitaof",
    ),
    (
        "request_policy:all_shards response_policy:agg_sum",
        "dbsize",
    ),
    (
        "request_policy:all_shards response_policy:all_succeeded",
        "flushall flushdb function|delete function|flush function|load function|restore memory|purge ping",
    ),
    (
        "request_policy:all_shards response_policy:one_succeeded",
        "function|kill script|kill",
    ),
    (
        "request_policy:all_shards response_policy:special nondeterministic_output",
        "randomkey",
    ),
    ("request_policy:multi_shard", "mget"),
    (
        "request_policy:multi_shard response_policy:agg_sum",
        "del exists touch unlink",
    ),
    (
        "request_policy:multi_shard response_policy:all_succeeded",
        "mset msetex",
    ),
];

/// What happens to the keys of each place where keys stand, places behind each other, and the commands of which that is so.
pub(super) const KEY_FLAGS: &[(&str, &str)] = &[
    ("OW insert", "msetnx setnx"),
    ("OW update", "mset msetex psetex restore setex"),
    (
        "OW update|RO access",
        "bitop geosearchstore sdiffstore sinterstore sunionstore zdiffstore zinterstore zrangestore zunionstore",
    ),
    ("RM delete", "del delex delifeq unlink"),
    (
        "RO",
        "exists hexists hlen hstrlen llen memory|usage object|encoding object|freq object|idletime object|refcount scard sismember strlen touch type watch xlen \
         zcard",
    ),
    (
        "RO access",
        "bitcount bitfield_ro bitpos digest dump eval_ro evalsha_ro expiretime fcall_ro geodist geohash geopos georadius_ro georadiusbymember_ro geosearch get \
         getbit getrange hexpiretime hget hgetall hkeys hmget hpexpiretime hpttl hrandfield hscan httl hvals lcs lindex lpos lrange mget pexpiretime pttl sdiff \
         sinter sintercard smembers smismember srandmember sscan substr sunion ttl xinfo|consumers xinfo|groups xinfo|stream xpending xrange xread xreadgroup \
         xrevrange zcount zdiff zinter zintercard zlexcount zmscore zrandmember zrange zrangebylex zrangebyscore zrank zrevrange zrevrangebylex \
         zrevrangebyscore zrevrank zscan zscore zunion",
    ),
    ("RO access|OW update", "copy"),
    (
        "RO access|OW update variable_flags|OW update variable_flags",
        "georadius georadiusbymember",
    ),
    ("RO access|RO access", "sort_ro"),
    ("RO access|RO access|OW update", "sort"),
    ("RW access", "pfcount"),
    (
        "RW access delete",
        "blmpop blpop brpop bzmpop bzpopmax bzpopmin getdel hgetdel lmpop lpop rpop spop zmpop zpopmax zpopmin",
    ),
    ("RW access delete|OW insert", "renamenx"),
    ("RW access delete|OW update", "rename"),
    (
        "RW access delete|RW insert",
        "blmove brpoplpush lmove rpoplpush smove",
    ),
    ("RW access insert|RO access", "pfmerge"),
    (
        "RW access update",
        "decr decrby eval evalsha fcall getex getset hgetex hincrby hincrbyfloat incr incrby incrbyfloat increx move setbit zincrby",
    ),
    ("RW access update variable_flags", "bitfield set"),
    (
        "RW delete",
        "hdel lrem ltrim srem xackdel xautoclaim xdel xdelex xgroup|delconsumer xgroup|destroy xtrim zrem zremrangebylex zremrangebyrank zremrangebyscore",
    ),
    (
        "RW insert",
        "append hsetex hsetnx linsert lpush lpushx pfadd rpush rpushx sadd xgroup|create xgroup|createconsumer",
    ),
    (
        "RW update",
        "expire expireat geoadd hexpire hexpireat hmset hpersist hpexpire hpexpireat hset lset persist pexpire pexpireat setrange xack xadd xcfgset xclaim \
         xgroup|setid xnack xsetid zadd",
    ),
    ("not_key", "spublish ssubscribe sunsubscribe"),
];
