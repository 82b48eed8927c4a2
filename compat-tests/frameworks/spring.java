// Spring over Lettuce: RedisTemplate, its cache, listeners, stream listeners and Spring Session's sessions.

import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import org.springframework.dao.DataAccessException;
import org.springframework.data.redis.cache.*;
import org.springframework.data.redis.connection.*;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.connection.stream.*;
import org.springframework.data.redis.core.*;
import org.springframework.data.redis.core.script.*;
import org.springframework.data.redis.listener.*;
import org.springframework.data.redis.serializer.*;
import org.springframework.data.redis.stream.StreamMessageListenerContainer;
import org.springframework.session.*;
import org.springframework.session.data.redis.RedisSessionRepository;

class Main {
    static void show(String text, Object... values) {
        System.out.println("> " + text);
        for (Object value : values) System.out.println(value);
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
        LettuceConnectionFactory factory = new LettuceConnectionFactory(address[0], Integer.parseInt(address[1]));
        factory.afterPropertiesSet();
        factory.start();
        StringRedisTemplate r = new StringRedisTemplate(factory);
        r.execute((RedisCallback<Object>) connection -> { connection.serverCommands().flushAll(); return null; });
        template(r);
        cache(factory, r);
        listeners(factory, r);
        sessions(factory, r);
        factory.destroy();
    }

    static void template(StringRedisTemplate r) {
        r.opsForValue().set("k", "v", Duration.ofSeconds(60));
        show("values", r.opsForValue().get("k"), r.opsForValue().setIfAbsent("k", "w"), r.opsForValue().increment("n", 5), r.opsForValue().multiGet(List.of("k", "none")), r.getExpire("k") > 50, r.persist("k"), r.getExpire("k"), r.opsForValue().getAndDelete("n"));
        r.opsForHash().putAll("h", Map.of("a", "1", "b", "2"));
        show("hashes", new TreeMap<>(r.opsForHash().entries("h")), r.opsForHash().increment("h", "a", 4), r.opsForHash().multiGet("h", List.of("a", "none")), r.opsForHash().delete("h", "b"));
        show("lists", r.opsForList().rightPushAll("l", "1", "2", "3"), r.opsForList().range("l", 0, -1), r.opsForList().leftPop("l", Duration.ofSeconds(1)), r.opsForList().move("l", RedisListCommands.Direction.RIGHT, "l2", RedisListCommands.Direction.LEFT), r.opsForList().leftPop("none", Duration.ofSeconds(1)));
        show("sets", r.opsForSet().add("s", "a", "b"), r.opsForSet().isMember("s", "a"), new TreeSet<>(r.opsForSet().members("s")), r.opsForSet().remove("s", "a"));
        show("sorted sets", r.opsForZSet().add("z", "a", 1.5), r.opsForZSet().incrementScore("z", "a", 2), r.opsForZSet().rangeWithScores("z", 0, -1), r.opsForZSet().popMin("z"));
        show("transaction", r.execute(new SessionCallback<List<Object>>() {
            @Override @SuppressWarnings({"unchecked", "rawtypes"}) public List<Object> execute(RedisOperations operations) throws DataAccessException {
                operations.multi();
                operations.opsForValue().set("t", "1");
                operations.opsForValue().increment("t");
                return operations.exec();
            }
        }));
        show("pipeline", r.executePipelined((RedisCallback<Object>) connection -> { for (int i = 0; i < 5; i++) connection.stringCommands().incr("p".getBytes()); return null; }));
        show("script", r.execute(new DefaultRedisScript<>("return redis.call('incrby', KEYS[1], ARGV[1])", Long.class), List.of("sum"), "7"), r.execute(new DefaultRedisScript<>("return redis.call('incrby', KEYS[1], ARGV[1])", Long.class), List.of("sum"), "7"));
        try {
            r.opsForList().leftPush("k", "x");
        } catch (DataAccessException error) {
            show("wrong type", error.getClass().getSimpleName(), error.getCause().getMessage());
        }
        int found = 0;
        try (Cursor<String> cursor = r.scan(ScanOptions.scanOptions().match("*").count(5).build())) {
            while (cursor.hasNext()) { cursor.next(); found++; }
        }
        show("scan", found == r.keys("*").size());
    }

    static void cache(LettuceConnectionFactory factory, StringRedisTemplate r) throws Exception {
        RedisCacheManager manager = RedisCacheManager.builder(RedisCacheWriter.lockingRedisCacheWriter(factory)).cacheDefaults(RedisCacheConfiguration.defaultCacheConfig().entryTtl(Duration.ofSeconds(60))).enableStatistics().build();
        manager.afterPropertiesSet();
        org.springframework.cache.Cache cache = manager.getCache("books");
        // Over Lettuce a cache writes, evicts and clears in the background: its caller does not see its own put at once.
        Callable<Set<String>> keys = () -> new TreeSet<>(r.keys("books*"));
        cache.put("one", "first");
        until("put", () -> keys.call().equals(Set.of("books::one")));
        show("cache", cache.get("one", String.class), cache.get("two", () -> "loaded"));
        until("loaded", () -> keys.call().equals(Set.of("books::one", "books::two")));
        show("cached", cache.get("two", String.class), cache.putIfAbsent("one", "other").get(), r.getExpire("books::one") > 50, keys.call());
        cache.evict("one");
        cache.clear();
        until("cleared", () -> keys.call().isEmpty());
        show("cleared", cache.get("two"));
    }

    static void listeners(LettuceConnectionFactory factory, StringRedisTemplate r) throws Exception {
        List<String> got = new CopyOnWriteArrayList<>();
        RedisMessageListenerContainer container = new RedisMessageListenerContainer();
        container.setConnectionFactory(factory);
        container.addMessageListener((message, pattern) -> got.add(new String(message.getChannel()) + " " + message), new ChannelTopic("news"));
        container.addMessageListener((message, pattern) -> got.add(new String(pattern) + " " + message), new PatternTopic("n*"));
        container.afterPropertiesSet();
        container.start();
        until("subscribed", () -> r.convertAndSend("news", "hello") == 2);
        until("received", () -> got.size() >= 2);
        show("message listeners", new TreeSet<>(got));
        container.destroy();
        r.opsForStream().createGroup("stream", ReadOffset.from("0"), "group");
        List<String> read = new CopyOnWriteArrayList<>();
        StreamMessageListenerContainer<String, MapRecord<String, String, String>> streams = StreamMessageListenerContainer.create(factory, StreamMessageListenerContainer.StreamMessageListenerContainerOptions.builder().pollTimeout(Duration.ofMillis(200)).build());
        streams.receiveAutoAck(Consumer.from("group", "me"), StreamOffset.create("stream", ReadOffset.lastConsumed()), record -> read.add(record.getValue().get("n")));
        streams.start();
        for (int i = 0; i < 20; i++) r.opsForStream().add("stream", Map.of("n", "" + i));
        until("read", () -> read.size() == 20);
        streams.stop();
        show("stream listener", read, r.opsForStream().pending("stream", "group").getTotalPendingMessages(), r.opsForStream().size("stream"));
    }

    static void sessions(LettuceConnectionFactory factory, StringRedisTemplate r) {
        sessions(redisSessions(factory), r);
    }

    static RedisSessionRepository redisSessions(LettuceConnectionFactory factory) {
        RedisTemplate<String, Object> template = new RedisTemplate<>();
        template.setConnectionFactory(factory);
        template.setKeySerializer(RedisSerializer.string());
        template.setHashKeySerializer(RedisSerializer.string());
        template.afterPropertiesSet();
        RedisSessionRepository sessions = new RedisSessionRepository(template);
        sessions.setDefaultMaxInactiveInterval(Duration.ofMinutes(5));
        return sessions;
    }

    static <S extends Session> void sessions(SessionRepository<S> sessions, StringRedisTemplate r) {
        S session = sessions.createSession();
        session.setAttribute("cart", new ArrayList<>(List.of(1, 2)));
        sessions.save(session);
        S again = sessions.findById(session.getId());
        show("session", (Object) again.getAttribute("cart"), again.getMaxInactiveInterval(), r.getExpire("spring:session:sessions:" + session.getId()) > 200);
        again.setAttribute("user", "me");
        again.removeAttribute("cart");
        String old = again.getId(), changed = again.changeSessionId();
        sessions.save(again);
        show("new id at login", sessions.findById(old), new TreeSet<>(sessions.findById(changed).getAttributeNames()));
        sessions.deleteById(changed);
        show("logged out", sessions.findById(changed), r.keys("spring:session:*"));
    }
}
