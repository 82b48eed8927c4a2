// Jedis with its pooled client over RESP2 and RESP3: commands, pipelines, transactions, blocking reads, pub/sub, streams, scripts.

import java.util.*;
import java.util.concurrent.*;
import redis.clients.jedis.*;
import redis.clients.jedis.args.ListDirection;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.*;
import redis.clients.jedis.resps.*;

class Main {
    static void show(String text, Object... values) {
        System.out.println("> " + text);
        for (Object value : values) System.out.println(value);
    }

    static Object attempt(Callable<?> call) throws Exception {
        try {
            return call.call();
        } catch (JedisDataException error) {
            return error.getMessage();
        }
    }

    static void until(String what, Callable<Boolean> condition) throws Exception {
        for (int i = 0; i < 1000; i++) {
            if (condition.call()) return;
            Thread.sleep(10);
        }
        throw new IllegalStateException("never: " + what);
    }

    static <K, V> Map<K, V> sorted(Map<K, V> map) {
        return new TreeMap<>(map);
    }

    public static void main(String[] args) {
        try {
            scenario();
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);  // a client's own threads would keep the process
        }
    }

    static void scenario() throws Exception {
        String[] address = System.getenv("RESP_ADDR").split(":");
        for (RedisProtocol protocol : new RedisProtocol[] {RedisProtocol.RESP2, RedisProtocol.RESP3}) {
            JedisClientConfig config = DefaultJedisClientConfig.builder().protocol(protocol).clientName("jedis").build();
            try (RedisClient r = RedisClient.builder().hostAndPort(address[0], Integer.parseInt(address[1])).clientConfig(config).build()) {
                run(r, protocol, new Jedis(new HostAndPort(address[0], Integer.parseInt(address[1])), config));
            }
        }
    }

    static void run(RedisClient r, RedisProtocol protocol, Jedis single) throws Exception {
        r.flushAll();
        show("Jedis " + protocol, r.ping(), single.clientGetname());
        show("strings", r.set("k", "v", SetParams.setParams().ex(60)), r.get("k"), r.get("none"), r.set("k", "w", SetParams.setParams().nx()), r.getEx("k", GetExParams.getExParams().persist()), r.ttl("k"), r.mget("k", "none"),
            r.incrByFloat("f", 1.5), r.setrange("k", 3, "xyz"), r.bitcount("k"), r.getDel("f"));
        show("hash", r.hset("h", Map.of("a", "1", "b", "two")), sorted(r.hgetAll("h")), r.hmget("h", "a", "none"), r.hincrByFloat("h", "a", 1.5), r.hscan("h", "0").getResult().size());
        show("list", r.rpush("l", "1", "2", "3"), r.lrange("l", 0, -1), r.lmove("l", "l2", ListDirection.LEFT, ListDirection.RIGHT), r.blpop(1, "none", "l2"), r.lmpop(ListDirection.RIGHT, 2, "none", "l"), r.blpop(0.01, "none"));
        show("set", r.sadd("s", "a", "b", "c"), new TreeSet<>(r.smembers("s")), r.smismember("s", "a", "x"), r.sintercard("s", "s"), r.sdiff("s", "s"));
        show("sorted set", r.zadd("z", Map.of("a", 1.5, "b", 2.0, "c", 3.0)), r.zrangeWithScores("z", 0, -1), r.zscore("z", "a"), r.zmscore("z", "a", "x"), r.zrankWithScore("z", "b"), r.zrangeByScore("z", "(1.5", "+inf"), r.zpopmin("z"), r.bzpopmax(1, "z"), r.zincrby("z", 2, "b"));
        show("wrong type", attempt(() -> r.lpush("k", "x")), attempt(() -> r.hget("k", "x")));
        try (AbstractPipeline pipeline = r.pipelined()) {
            List<Response<Long>> replies = new ArrayList<>();
            for (int i = 0; i < 1000; i++) replies.add(pipeline.incr("n:" + i % 7));
            Response<Set<String>> members = pipeline.smembers("s");
            pipeline.sync();
            show("pipeline", replies.stream().mapToLong(Response::get).sum(), members.get().size());
        }
        try (AbstractTransaction tx = r.multi()) {
            Response<String> set = tx.set("t", "1");
            Response<Long> incremented = tx.incr("t");
            show("transaction", tx.exec(), set.get(), incremented.get());
        }
        try (AbstractTransaction tx = r.transaction(false)) {
            tx.watch("k");
            r.set("k", "changed");
            tx.multi();
            tx.set("k", "never");
            show("watched key changed", tx.exec(), r.get("k"));
        }
        try (AbstractTransaction tx = r.multi()) {
            tx.set("t", "x");
            tx.incr("t");
            show("an error inside", tx.exec());
        }
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<List<String>>> waits = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            String key = "wait:" + i;
            waits.add(threads.submit(() -> r.blpop(10, key)));
        }
        until("three blocked", () -> r.info("clients").contains("blocked_clients:3"));
        for (int i = 0; i < 3; i++) r.rpush("wait:" + i, "served");
        List<Object> served = new ArrayList<>();
        for (Future<List<String>> wait : waits) served.add(wait.get());
        show("three blocked threads", served);
        List<String> got = new CopyOnWriteArrayList<>();
        JedisPubSub listener = new JedisPubSub() {
            @Override public void onMessage(String channel, String message) { got.add(channel + " " + message); if (message.equals("stop")) unsubscribe(); }
            @Override public void onPMessage(String pattern, String channel, String message) { got.add(pattern + " " + channel + " " + message); if (message.equals("stop")) punsubscribe(); }
        };
        Future<?> listening = threads.submit(() -> r.subscribe(listener, "ch", "other"));
        until("subscribed", () -> single.pubsubNumSub("ch", "other").values().stream().allMatch(n -> n == 1));
        Future<?> matching = threads.submit(() -> r.psubscribe(new JedisPubSub() {
            @Override public void onPMessage(String pattern, String channel, String message) { got.add(pattern + " " + channel + " " + message); punsubscribe(); }
        }, "c*"));
        until("subscribed", () -> single.pubsubNumPat() == 1);
        show("published", r.publish("other", "one"), r.publish("ch", "stop"));
        listening.get(10, TimeUnit.SECONDS);
        matching.get(10, TimeUnit.SECONDS);
        Collections.sort(got);
        show("received", got, r.publish("ch", "nobody"));
        show("stream", r.xadd("st", XAddParams.xAddParams().id("1-1"), Map.of("a", "1")), r.xadd("st", XAddParams.xAddParams().id("2-0").maxLen(10), Map.of("a", "2")), r.xlen("st"), r.xrange("st", "-", "+"), r.xread(XReadParams.xReadParams().count(1), Map.of("st", new StreamEntryID("1-1"))),
            r.xgroupCreate("st", "g", new StreamEntryID(0, 0), false), r.xreadGroup("g", "me", XReadGroupParams.xReadGroupParams().count(1), Map.of("st", StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY)),
            r.xpending("st", "g").getTotal(), r.xautoclaim("st", "g", "you", 0, new StreamEntryID(0, 0), XAutoClaimParams.xAutoClaimParams()).getValue().size(), r.xack("st", "g", new StreamEntryID("1-1")), r.xinfoStream("st").getLength(), r.xinfoGroups("st").get(0).getName());
        show("script", r.eval("return {KEYS[1], ARGV[1], 3, false}", List.of("k"), List.of("a")), r.evalsha(r.scriptLoad("return redis.call('get', KEYS[1])", "k"), List.of("k"), List.of()));
        for (int i = 0; i < 1000; i++) single.set("scan:" + i, "x");
        ScanIteration scan = r.scanIteration(100, "scan:*");
        Set<String> keys = new HashSet<>();
        while (!scan.isIterationCompleted()) keys.addAll(scan.nextBatch().getResult());
        show("scan", keys.size());
        byte[] blob = new byte[1_000_000];
        new Random(1).nextBytes(blob);
        show("a megabyte", r.set("blob".getBytes(), blob), Arrays.equals(blob, r.get("blob".getBytes())));
        single.close();
        threads.shutdown();
    }
}
