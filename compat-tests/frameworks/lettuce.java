// Lettuce: one connection for many threads, futures in flight, transactions, pub/sub, reconnection after the server drops it, streams, RESP2 and RESP3.

import io.lettuce.core.*;
import io.lettuce.core.Consumer;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.async.RedisAsyncCommands;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.protocol.ProtocolVersion;
import io.lettuce.core.pubsub.*;
import io.lettuce.core.support.ConnectionPoolSupport;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

class Main {
    static void show(String text, Object... values) {
        System.out.println("> " + text);
        for (Object value : values) System.out.println(value);
    }

    static Object attempt(Callable<?> call) throws Exception {
        try {
            return call.call();
        } catch (RedisException error) {
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
        for (ProtocolVersion version : ProtocolVersion.values()) {
            RedisClient client = RedisClient.create(RedisURI.builder().withHost(address[0]).withPort(Integer.parseInt(address[1])).withTimeout(Duration.ofSeconds(20)).build());
            client.setOptions(ClientOptions.builder().protocolVersion(version).build());
            run(client, version);
            client.shutdown(0, 1, TimeUnit.SECONDS);
        }
    }

    static void run(RedisClient client, ProtocolVersion version) throws Exception {
        StatefulRedisConnection<String, String> connection = client.connect();
        RedisCommands<String, String> r = connection.sync();
        r.flushall();
        show("Lettuce " + version, r.ping(), r.set("k", "v", SetArgs.Builder.ex(60)), r.get("k"), r.get("none"), r.mget("k", "none"), r.set("k", "w", SetArgs.Builder.nx()), r.getex("k", GetExArgs.Builder.persist()), r.ttl("k"));
        show("hash", r.hset("h", Map.of("a", "1", "b", "two")), new TreeMap<>(r.hgetall("h")), r.hmget("h", "a", "none"), r.hrandfield("none"));
        show("list", r.rpush("l", "1", "2", "3"), r.lpos("l", "2"), r.blpop(1, "l"), r.lmpop(LMPopArgs.Builder.left().count(5), "l"), r.blpop(0.01, "l"));
        show("set", r.sadd("s", "a", "b"), new TreeSet<>(r.smembers("s")), r.smismember("s", "a", "x"), r.sintercard("s", "s"));
        show("sorted set", r.zadd("z", ScoredValue.just(1.5, "a"), ScoredValue.just(2, "b")), r.zrangeWithScores("z", 0, -1), r.zscore("z", "a"), r.zrevrangebyscore("z", Range.unbounded()), r.bzpopmin(1, "z"), r.zaddincr("z", 2, "b"));
        show("wrong type", attempt(() -> r.lpush("k", "x")));
        RedisAsyncCommands<String, String> async = connection.async();
        List<RedisFuture<Long>> futures = IntStream.range(0, 5000).mapToObj(i -> async.incr("n")).collect(Collectors.toList());
        long sum = 0;
        for (RedisFuture<Long> future : futures) sum += future.get(20, TimeUnit.SECONDS);
        show("five thousand in flight", sum);
        connection.setAutoFlushCommands(false);
        List<RedisFuture<Boolean>> batch = IntStream.range(0, 500).mapToObj(i -> async.hset("batch", "f" + i, "x")).collect(Collectors.toList());
        connection.flushCommands();
        connection.setAutoFlushCommands(true);
        show("flushed as a batch", LettuceFutures.awaitAll(20, TimeUnit.SECONDS, batch.toArray(new RedisFuture[0])), r.hlen("batch"));
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<Long>> shared = IntStream.range(0, 400).mapToObj(i -> threads.submit(() -> r.incr("shared"))).collect(Collectors.toList());
        Set<Long> values = new HashSet<>();
        for (Future<Long> future : shared) values.add(future.get());
        show("eight threads share a connection", values.size());

        StatefulRedisConnection<String, String> own = client.connect();
        own.sync().watch("k");
        r.set("k", "changed");
        own.sync().multi();
        own.sync().set("k", "never");
        show("watched key changed", own.sync().exec().wasDiscarded(), r.get("k"));
        own.sync().multi();
        own.sync().set("t", "1");
        own.sync().incr("t");
        own.sync().lpush("t", "x");
        show("transaction", own.sync().exec().stream().map(reply -> reply instanceof Throwable error ? error.getMessage() : reply).collect(Collectors.toList()));
        RedisFuture<KeyValue<String, String>> wait = own.async().blpop(10, "wait");
        until("blocked", () -> r.info("clients").contains("blocked_clients:1"));
        r.rpush("wait", "served");
        show("blocked", wait.get(10, TimeUnit.SECONDS));

        StatefulRedisPubSubConnection<String, String> pubsub = client.connectPubSub();
        List<String> got = new CopyOnWriteArrayList<>();
        pubsub.addListener(new RedisPubSubAdapter<>() {
            @Override public void message(String channel, String message) { got.add(channel + " " + message); }
            @Override public void message(String pattern, String channel, String message) { got.add(pattern + " " + channel + " " + message); }
        });
        pubsub.sync().clientSetname("listener");
        pubsub.sync().subscribe("ch");
        pubsub.sync().psubscribe("c*");
        show("published", r.publish("ch", "one"), r.pubsubChannels(), r.pubsubNumpat());
        until("received", () -> got.size() == 2);
        Collections.sort(got);
        show("received", got);

        long id = connection.sync().clientId();
        long subscriber = Long.parseLong(r.clientList().lines().filter(line -> line.contains(" name=listener ")).findFirst().get().replaceAll("^id=(\\d+).*", "$1"));
        own.sync().clientKill(KillArgs.Builder.id(id));
        own.sync().clientKill(KillArgs.Builder.id(subscriber));
        until("back again", () -> connection.sync().clientId() != id);
        until("subscribed again", () -> r.publish("ch", "after") == 2);
        show("connects and subscribes again after it was dropped", r.get("k"));

        show("stream", r.xadd("st", XAddArgs.Builder.maxlen(10), "a", "1") != null, r.xgroupCreate(XReadArgs.StreamOffset.from("st", "0"), "g"), r.xreadgroup(Consumer.from("g", "me"), XReadArgs.StreamOffset.lastConsumed("st")).get(0).getBody(), r.xpending("st", "g").getCount(),
            r.xautoclaim("st", XAutoClaimArgs.Builder.justid(Consumer.from("g", "you"), 0, "0")).getMessages().size(), r.xtrim("st", 0));
        show("script", (Object) r.eval("return redis.call('get', KEYS[1])", ScriptOutputType.VALUE, "k"), r.evalsha(r.scriptLoad("return {1, ARGV[1]}"), ScriptOutputType.MULTI, new String[0], "x"), r.scriptExists("none"));
        for (int i = 0; i < 500; i++) async.set("scan:" + i, "x");
        Set<String> keys = new HashSet<>();
        ScanIterator.scan(r, ScanArgs.Builder.matches("scan:*").limit(50)).forEachRemaining(keys::add);
        show("scan", keys.size());
        List<String> reactive = connection.reactive().set("re", "active").then(connection.reactive().get("re")).flux().collectList().block();
        show("reactive", reactive);
        Set<Object> commands = new HashSet<>(r.commandInfo("get", "set"));
        show("command info", commands.size(), r.commandCount() > 100);
        threads.shutdown();
        for (AutoCloseable open : List.of(connection, own, pubsub)) open.close();
    }
}
