// Redisson: locks, semaphores, delayed queues, maps whose entries expire, topics, sorted sets, rate limiters, executors over Lua scripts and pub/sub.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.redisson.Redisson;
import org.redisson.api.*;
import org.redisson.api.stream.*;
import org.redisson.client.codec.StringCodec;
import org.redisson.config.Config;

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

    static RedissonClient connect() {
        Config config = new Config();
        config.setCodec(StringCodec.INSTANCE);
        config.setLockWatchdogTimeout(1500);
        config.useSingleServer().setAddress("redis://" + System.getenv("RESP_ADDR")).setConnectionMinimumIdleSize(2).setConnectionPoolSize(16);
        return Redisson.create(config);
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
        RedissonClient one = connect(), two = connect();
        one.getKeys().flushall();
        locks(one, two);
        queues(one, two);
        maps(one);
        others(one, two);
        one.shutdown(0, 1, TimeUnit.SECONDS);
        two.shutdown(0, 1, TimeUnit.SECONDS);
    }

    static void locks(RedissonClient one, RedissonClient two) throws Exception {
        RLock lock = one.getLock("lock"), other = two.getLock("lock");
        lock.lock();
        lock.lock();
        show("RLock", lock.isHeldByCurrentThread(), lock.getHoldCount(), other.isLocked(), other.tryLock(), other.tryLock(50, TimeUnit.MILLISECONDS));
        Thread.sleep(1700);
        show("renewed by the watchdog", lock.isLocked(), lock.remainTimeToLive() > 0);
        lock.unlock();
        show("still once", lock.getHoldCount());
        ExecutorService threads = Executors.newFixedThreadPool(6);
        Future<Boolean> waiting = threads.submit(() -> { boolean got = other.tryLock(10, TimeUnit.SECONDS); other.unlock(); return got; });
        until("one waits", () -> one.getTopic("redisson_lock__channel:{lock}").countSubscribers() > 0);
        lock.unlock();
        show("woken by the unlock", waiting.get(10, TimeUnit.SECONDS), lock.isLocked());
        AtomicInteger inside = new AtomicInteger(), most = new AtomicInteger();
        List<Future<?>> all = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            RLock mine = (i % 2 == 0 ? one : two).getFairLock("fair");
            all.add(threads.submit(() -> {
                for (int n = 0; n < 5; n++) {
                    mine.lock();
                    most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                    inside.decrementAndGet();
                    mine.unlock();
                }
            }));
        }
        for (Future<?> future : all) future.get(20, TimeUnit.SECONDS);
        show("fair lock of two processes", most.get());
        RReadWriteLock rw = one.getReadWriteLock("rw");
        rw.readLock().lock();
        Future<List<Boolean>> tries = threads.submit(() -> List.of(two.getReadWriteLock("rw").readLock().tryLock(), two.getReadWriteLock("rw").writeLock().tryLock()));
        show("read-write lock", tries.get());
        rw.readLock().unlock();
        RSemaphore semaphore = one.getSemaphore("semaphore");
        show("semaphore", semaphore.trySetPermits(2), semaphore.tryAcquire(2), two.getSemaphore("semaphore").tryAcquire(), semaphore.availablePermits());
        Future<Boolean> permit = threads.submit(() -> two.getSemaphore("semaphore").tryAcquire(1, Duration.ofSeconds(10)));
        semaphore.release();
        show("permit handed on", permit.get(10, TimeUnit.SECONDS));
        RCountDownLatch latch = one.getCountDownLatch("latch");
        latch.trySetCount(2);
        Future<Boolean> counted = threads.submit(() -> two.getCountDownLatch("latch").await(10, TimeUnit.SECONDS));
        latch.countDown();
        latch.countDown();
        show("latch", counted.get(10, TimeUnit.SECONDS), latch.getCount());
        threads.shutdown();
    }

    static void queues(RedissonClient one, RedissonClient two) throws Exception {
        RBlockingQueue<String> queue = one.getBlockingQueue("queue");
        RDelayedQueue<String> delayed = one.getDelayedQueue(queue);
        long start = System.nanoTime();
        delayed.offer("later", 700, TimeUnit.MILLISECONDS);
        delayed.offer("sooner", 500, TimeUnit.MILLISECONDS);
        show("RDelayedQueue", delayed.size(), queue.size(), delayed.readAll());
        show("in the order of their delays", two.getBlockingQueue("queue").poll(10, TimeUnit.SECONDS), two.getBlockingQueue("queue").poll(10, TimeUnit.SECONDS), (System.nanoTime() - start) / 1_000_000 >= 690, delayed.contains("later"));
        delayed.destroy();
        CompletableFuture<String> waiting = two.<String>getBlockingQueue("queue").takeAsync().toCompletableFuture();
        queue.offer("taken");
        show("blocked take", waiting.get(10, TimeUnit.SECONDS), queue.size());
        RBlockingDeque<String> deque = one.getBlockingDeque("deque");
        deque.addFirst("b");
        deque.addFirst("a");
        deque.addLast("c");
        show("deque", deque.readAll(), deque.pollLast(), deque.pollLastAndOfferFirstTo("queue"), queue.peek());
        RPriorityQueue<String> priority = one.getPriorityQueue("priority");
        priority.addAll(List.of("pear", "apple", "fig"));
        show("priority queue", priority.poll(), priority.readAll());
        RBoundedBlockingQueue<String> bounded = one.getBoundedBlockingQueue("bounded");
        show("bounded queue", bounded.trySetCapacity(1), bounded.offer("x"), bounded.offer("y"), bounded.poll(), bounded.remainingCapacity());
        List<String> got = new CopyOnWriteArrayList<>();
        RTopic topic = one.getTopic("topic");
        int listener = topic.addListener(String.class, (channel, message) -> got.add(channel + " " + message));
        one.getPatternTopic("top*").addListener(String.class, (pattern, channel, message) -> got.add(pattern + " " + channel + " " + message));
        show("RTopic", two.getTopic("topic").publish("hello"));
        until("received", () -> got.size() == 2);
        Collections.sort(got);
        topic.removeListener(listener);
        show("received", got);
        RReliableTopic reliable = one.getReliableTopic("reliable");
        List<String> kept = new CopyOnWriteArrayList<>();
        reliable.addListener(String.class, (channel, message) -> kept.add(message));
        two.getReliableTopic("reliable").publish("over a stream");
        until("received", () -> kept.size() == 1);
        show("reliable topic", kept);
        RStream<String, String> stream = one.getStream("stream");
        stream.createGroup(StreamCreateGroupArgs.name("group").id(StreamMessageId.ALL).makeStream());
        stream.add(StreamAddArgs.entry("n", "1"));
        Map<StreamMessageId, Map<String, String>> read = stream.readGroup("group", "me", StreamReadGroupArgs.neverDelivered());
        show("stream", read.values(), stream.getPendingInfo("group").getTotal(), stream.ack("group", read.keySet().iterator().next()));
    }

    static void maps(RedissonClient one) throws Exception {
        RMapCache<String, String> cache = one.getMapCache("cache");
        List<String> expired = new CopyOnWriteArrayList<>();
        show("RMapCache", cache.put("stays", "1"), cache.put("short", "2", 700, TimeUnit.MILLISECONDS), cache.putIfAbsent("idle", "3", 0, TimeUnit.SECONDS, 700, TimeUnit.MILLISECONDS), cache.get("short"), cache.size(), cache.fastPut("stays", "4"), cache.putIfAbsent("stays", "5"));
        until("expired", () -> cache.get("short") == null && cache.remainTimeToLive("short") < 0);
        Thread.sleep(750);
        show("what expired is gone", cache.get("idle"), cache.get("stays"), cache.containsKey("short"), cache.readAllKeySet().size() >= 1);
        RMap<String, String> plain = one.getMap("plain");
        plain.putAll(Map.of("a", "1", "b", "2"));
        show("RMap", plain.size(), plain.replace("a", "1", "9"), plain.get("a"), plain.putIfAbsent("a", "0"), plain.fastRemove("b", "none"), new TreeMap<>(plain.readAllMap()), plain.addAndGet("count", 5), plain.valueSize("a"));
        RScoredSortedSet<String> scores = one.getScoredSortedSet("scores");
        scores.addAll(Map.of("a", 1.0, "b", 2.0, "c", 3.0));
        show("RScoredSortedSet", scores.rank("b"), scores.addScore("a", 5), scores.valueRange(0, -1), scores.pollFirst(), scores.getScore("a"));
        RSetCache<String> set = one.getSetCache("setcache");
        show("RSetCache", set.add("short", 700, TimeUnit.MILLISECONDS), set.add("stays"), set.contains("short"), set.add("stays"));
        until("expired", () -> !set.contains("short"));
        RMultimap<String, String> multimap = one.getListMultimap("multi");
        show("multimap", multimap.put("k", "1"), multimap.put("k", "2"), multimap.get("k").size(), multimap.size(), multimap.removeAll("k"));
        RBucket<String> bucket = one.getBucket("bucket");
        bucket.set("v", Duration.ofSeconds(60));
        show("RBucket", bucket.get(), bucket.remainTimeToLive() > 50000, bucket.compareAndSet("v", "w"), bucket.compareAndSet("v", "x"), bucket.getAndSet("y"), bucket.setIfAbsent("z"), bucket.getAndDelete());
    }

    static void others(RedissonClient one, RedissonClient two) throws Exception {
        RAtomicLong number = one.getAtomicLong("number");
        RLongAdder adder = one.getLongAdder("adder"), same = two.getLongAdder("adder");
        adder.add(5);
        same.add(6);
        show("numbers", number.incrementAndGet(), number.compareAndSet(1, 10), number.getAndAdd(5), number.get(), one.getAtomicDouble("double").addAndGet(1.5), adder.sum());
        RRateLimiter limiter = one.getRateLimiter("limiter");
        limiter.trySetRate(RateType.OVERALL, 3, Duration.ofSeconds(60));
        show("RRateLimiter", limiter.tryAcquire(2), two.getRateLimiter("limiter").tryAcquire(1), limiter.tryAcquire(), limiter.availablePermits());
        RIdGenerator ids = one.getIdGenerator("ids");
        show("RIdGenerator", ids.tryInit(100, 10), ids.nextId(), ids.nextId(), two.getIdGenerator("ids").nextId());
        RTransaction tx = one.createTransaction(TransactionOptions.defaults());
        RMap<String, String> inside = tx.getMap("txmap");
        inside.put("k", "v");
        boolean outside = one.getMap("txmap").containsKey("k");
        tx.commit();
        show("transaction", outside, one.getMap("txmap").get("k"));
        RBatch batch = one.createBatch(BatchOptions.defaults().executionMode(BatchOptions.ExecutionMode.REDIS_WRITE_ATOMIC));
        batch.getBucket("b1").setAsync("x");
        batch.getAtomicLong("b2").incrementAndGetAsync();
        show("batch in one transaction", batch.execute().getResponses());
        RScript script = one.getScript(StringCodec.INSTANCE);
        show("script", (Object) script.eval(RScript.Mode.READ_ONLY, "return redis.call('get', KEYS[1])", RScript.ReturnType.VALUE, List.of("b1")), one.getKeys().countExists("b1", "b2", "none"), one.getKeys().deleteByPattern("b?"));
        int keys = 0;
        for (String ignored : one.getKeys().getKeys()) keys++;
        show("keys", keys == one.getKeys().count());
    }
}
