#!/usr/bin/env python3
"""Sorted sets that FlowMesh holds mostly in its tables (a memory limit of 2 MiB, so that one of some thousand members is), beside a live
Valkey: every command of sorted sets, made by chance, answers the same; after a kill, too. Its own oracle: exits non-zero at the first
difference, and names the seed.

    ranked.py [--seed N] [--rounds N]
"""


from lib.pair import beside
from lib.steps import equal, step

MEMBERS = 6000
#: All in one slot. The scores of `{z}equal` are all the same, so that it has an order by member.
SCORES, OTHER, EQUAL, PLAIN, TO = ("{z}scores", "{z}other", "{z}equal", "{z}set", "{z}to")


def score(rng):
    return rng.choice([rng.randrange(-50, 50), rng.randrange(0, MEMBERS), rng.random() * 100, "inf", "-inf"])


def member(rng):
    return f"member:{rng.randrange(MEMBERS):06}"


def scores(rng):
    """The bounds of a range."""
    low, high = sorted([rng.uniform(-60, MEMBERS), rng.uniform(-60, MEMBERS)])
    if rng.random() < 0.5:
        high = low + 20
    return rng.choice(["", "("]) + f"{low:.2f}", rng.choice(["", "("]) + f"{high:.2f}"


def members(rng):
    low, high = sorted([member(rng), member(rng)])
    return rng.choice(["[", "("]) + low, rng.choice(["[", "("]) + high


def command(rng):
    key = rng.choice([SCORES, SCORES, OTHER])
    any_key = rng.choice([SCORES, OTHER, EQUAL])
    start = rng.randrange(-MEMBERS, MEMBERS)
    stop = start + rng.randrange(0, 60)
    low, high = scores(rng)
    first, last = members(rng)
    limit = rng.choice([[], ["LIMIT", rng.randrange(0, 30), rng.randrange(-1, 40)]])
    with_scores = rng.choice([[], ["WITHSCORES"]])
    aggregate = rng.choice([[], ["AGGREGATE", rng.choice(["SUM", "MIN", "MAX"])]])
    weights = rng.choice([[], ["WEIGHTS", 2, "-0.5"]])
    return rng.choice([
        ["ZADD", key, *rng.choice([[], ["NX"], ["XX", "CH"], ["GT", "CH"], ["LT"]]), score(rng), member(rng)],
        ["ZADD", key, *(word for _ in range(rng.randrange(1, 80)) for word in (rng.randrange(MEMBERS), member(rng)))],
        ["ZADD", EQUAL, *(word for _ in range(rng.randrange(1, 80)) for word in (0, member(rng)))],
        ["ZADD", key, "INCR", rng.randrange(-9, 9), member(rng)],
        ["ZINCRBY", key, rng.randrange(-500, 500), member(rng)],
        ["ZREM", any_key, *(member(rng) for _ in range(rng.randrange(1, 40)))],
        ["ZCARD", any_key],
        ["ZSCORE", any_key, member(rng)],
        ["ZMSCORE", any_key, member(rng), "none", member(rng)],
        ["ZRANK", any_key, member(rng)],
        ["ZREVRANK", any_key, member(rng), "WITHSCORE"],
        ["ZRANGE", any_key, start, stop, *with_scores],
        ["ZREVRANGE", any_key, start, stop, *with_scores],
        ["ZRANGE", any_key, start, stop, "REV", *with_scores],
        ["ZRANGE", key, high, low, "BYSCORE", "REV", *limit, *with_scores],
        ["ZRANGEBYSCORE", key, low, high, *with_scores, *limit],
        ["ZREVRANGEBYSCORE", key, high, low, *with_scores, *limit],
        ["ZRANGEBYSCORE", key, "-inf", "+inf", "LIMIT", 0, 5],
        ["ZREVRANGEBYSCORE", key, "+inf", "-inf", "LIMIT", 0, 5],
        ["ZRANGEBYLEX", EQUAL, first, last, *limit],
        ["ZREVRANGEBYLEX", EQUAL, last, first, *limit],
        ["ZRANGE", EQUAL, "-", "+", "BYLEX", "LIMIT", 10, 5],
        ["ZCOUNT", any_key, low, high],
        ["ZCOUNT", any_key, "-inf", "+inf"],
        ["ZLEXCOUNT", EQUAL, first, last],
        ["ZPOPMIN", any_key, rng.randrange(0, 30)],
        ["ZPOPMAX", any_key, rng.randrange(0, 30)],
        ["ZPOPMIN", any_key],
        ["ZMPOP", 2, "{z}none", any_key, rng.choice(["MIN", "MAX"]), "COUNT", 3],
        ["BZPOPMIN", "{z}none", any_key, 1],
        ["BZMPOP", 1, 1, any_key, "MAX"],
        ["ZREMRANGEBYRANK", any_key, start, start + rng.randrange(0, 90)],
        ["ZREMRANGEBYSCORE", key, low, float(low.strip("(")) + 30],
        ["ZREMRANGEBYLEX", EQUAL, first, first.replace("(", "[") + "9"],
        ["ZRANGESTORE", TO, any_key, start, stop],
        ["ZUNION", 2, SCORES, OTHER, *weights, *aggregate, *with_scores],
        ["ZINTER", 2, SCORES, OTHER, *weights, *aggregate, *with_scores],
        ["ZDIFF", 2, SCORES, EQUAL, *with_scores],
        ["ZUNIONSTORE", TO, 2, OTHER, PLAIN, *weights, *aggregate],
        ["ZINTERSTORE", TO, 2, SCORES, PLAIN],
        ["ZDIFFSTORE", TO, 2, EQUAL, OTHER],
        ["ZINTERCARD", 2, SCORES, OTHER, "LIMIT", rng.randrange(0, 50)],
        ["SORT", any_key, "BY", "none", "LIMIT", 3, 4],
        ["COPY", SCORES, OTHER, "REPLACE"],
        ["COPY", EQUAL, TO, "REPLACE"],
        ["TYPE", any_key],
        ["EXISTS", SCORES, OTHER, EQUAL],
        ["RENAME", SCORES, OTHER] if rng.random() < 0.1 else ["RENAMENX", SCORES, OTHER],
    ])


def fill(both, rng):
    for key in (SCORES, OTHER):
        if both.ask("ZCARD", key) < MEMBERS / 3:
            for _ in range(MEMBERS // 100):
                both.ask("ZADD", key, *(word for _ in range(100) for word in (rng.randrange(MEMBERS), member(rng))))
    if both.ask("ZCARD", EQUAL) < MEMBERS / 3:
        for _ in range(MEMBERS // 100):
            both.ask("ZADD", EQUAL, *(word for _ in range(100) for word in (0, member(rng))))
    if not both.ask("SCARD", PLAIN):
        both.ask("SADD", PLAIN, *(f"member:{n:06}" for n in range(0, MEMBERS, 7)))


def whole(both):
    """Everything of all of them, in order and by scans."""
    for key in (SCORES, OTHER, EQUAL, TO):
        listed = both.ask("ZRANGE", key, 0, -1, "WITHSCORES")
        both.ask("ZREVRANGE", key, 0, -1)
        cursor, scanned = 0, {}
        while True:
            cursor, page = both.ours.zscan(key, cursor, count=200)
            scanned |= dict(page)
            if not cursor:
                break
        if isinstance(listed[0] if listed else (), (list, tuple)):
            listed = [word for pair in listed for word in pair]
        equal(sorted(scanned), sorted(listed[::2]))
        some = both.ours.zrandmember(key, 50) or []
        equal(set(some) <= set(scanned) and len(set(some)) == min(50, len(scanned)), True)


def dumped(both):
    """What is dumped here is what the peer restores, and the other way round."""
    for source, target in ((both.ours, both.peer), (both.peer, both.ours)):
        target.execute_command("RESTORE", "{z}restored", 0, source.execute_command("DUMP", SCORES), "REPLACE")
        equal(target.execute_command("ZRANGE", "{z}restored", 0, -1, "WITHSCORES"), source.execute_command("ZRANGE", SCORES, 0, -1, "WITHSCORES"))
        target.delete("{z}restored")


def places(both, rng):
    """The same for what stands on a map."""
    for _ in range(40):
        both.ask("GEOADD", "{z}map", *(word for n in range(100) for word in (rng.uniform(5, 15), rng.uniform(45, 55), f"place:{rng.randrange(9000)}")))
    for _ in range(20):
        at = rng.uniform(5, 15), rng.uniform(45, 55)
        both.ask("GEOSEARCH", "{z}map", "FROMLONLAT", *at, "BYRADIUS", 60, "km", "ASC", "WITHDIST", "WITHHASH")
        name = both.ask("ZRANGE", "{z}map", 5, 5)[0]
        both.ask("GEOSEARCH", "{z}map", "FROMMEMBER", name, "BYBOX", 90, 90, "km", "COUNT", 7)
        both.ask("GEOPOS", "{z}map", name, "nowhere")
        both.ask("GEODIST", "{z}map", name, both.ask("ZRANGE", "{z}map", -1, -1)[0])
        both.ask("GEOSEARCHSTORE", "{z}near", "{z}map", "FROMLONLAT", *at, "BYRADIUS", 40, "km", "STOREDIST")


def main():
    with beside() as (both, rng, rounds, restart):
        for number in range(rounds):
            step(f"round {number}")
            for _ in range(6):
                fill(both, rng)
                for _ in range(100):
                    both.ask(*command(rng))
            whole(both)
            dumped(both)
            if number % 2:
                restart()
                whole(both)
        step("places")
        places(both, rng)
        step("what goes as a whole")
        both.ask("ZREMRANGEBYRANK", SCORES, 0, -1)
        both.ask("EXISTS", SCORES)
        both.ask("ZADD", SCORES, 1, "again")
        both.ask("ZRANGE", SCORES, 0, -1, "WITHSCORES")


main()
