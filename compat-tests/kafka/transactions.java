import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTransactionsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Java's own clients, whose transactions have an epoch each (KIP-890) where the broker says so: consume, transform, produce; tools. */
public class transactions {
    static final String SERVER = System.getenv("KAFKA_ADDR");
    static final TopicPartition OUT = new TopicPartition("jtx.out", 0);

    static void step(String text) {
        System.out.println("> " + text);
    }

    static KafkaProducer<String, String> producer(String id, int timeoutMs) {
        var producer = new KafkaProducer<String, String>(Map.of("bootstrap.servers", SERVER, "transactional.id", id, "transaction.timeout.ms", timeoutMs,
                "linger.ms", 5), new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    static KafkaConsumer<String, String> consumer(String group, String level) {
        return new KafkaConsumer<>(Map.of("bootstrap.servers", SERVER, "group.id", group, "isolation.level", level, "enable.auto.commit", false,
                "auto.offset.reset", "earliest"), new StringDeserializer(), new StringDeserializer());
    }

    static List<String> seen(String level) {
        try (var consumer = consumer("jtx.reader", level)) {
            consumer.assign(List.of(OUT));
            consumer.seekToBeginning(List.of(OUT));
            long end = consumer.endOffsets(List.of(OUT)).get(OUT);
            var found = new ArrayList<String>();
            while (consumer.position(OUT) < end)
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) found.add(record.offset() + "=" + record.value());
            return found;
        }
    }

    static <T> String attempt(Callable<T> call) {
        try {
            T done = call.call();
            return done == null ? "done" : done.toString();
        } catch (ExecutionException e) {
            return e.getCause().getClass().getSimpleName();
        } catch (Exception e) {
            return e.getClass().getSimpleName();
        }
    }

    static Callable<Void> run(Runnable what) {
        return () -> {
            what.run();
            return null;
        };
    }

    /** Waits: Kafka answers a commit before its markers are written everywhere. */
    static String state(Admin admin, String id, TransactionState wanted) throws Exception {
        for (int i = 0; ; i++) {
            var found = admin.describeTransactions(List.of(id)).description(id).get();
            if (found.state() == wanted || i == 200)
                return found.state() + " " + new TreeMap<>(Map.of("partitions", found.topicPartitions().toString(), "timeout", found.transactionTimeoutMs()));
            Thread.sleep(50);
        }
    }

    public static void main(String[] args) throws Exception {
        var admin = Admin.create(Map.of("bootstrap.servers", SERVER));
        admin.createTopics(List.of(new NewTopic("jtx.in", 2, (short) 1), new NewTopic("jtx.out", 1, (short) 1))).all().get();
        step("features");
        var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
        System.out.println("transaction.version " + features.get("transaction.version").maxVersionLevel());

        step("commit and abort in turn");
        var one = producer("jtx-1", 60000);
        for (int turn = 0; turn < 6; turn++) {
            one.beginTransaction();
            for (int n = 0; n < 2; n++) one.send(new ProducerRecord<>("jtx.out", "k", turn + "." + n));
            // What is not sent yet is never sent.
            if (turn == 4) one.flush();
            if (turn % 3 == 1) one.abortTransaction(); else one.commitTransaction();
        }
        System.out.println(state(admin, "jtx-1", TransactionState.COMPLETE_COMMIT));
        System.out.println(seen("read_committed"));
        System.out.println(seen("read_uncommitted"));

        step("a transaction that is open");
        one.beginTransaction();
        var sent = one.send(new ProducerRecord<>("jtx.out", "k", "open")).get();
        System.out.println(sent.offset() + " " + state(admin, "jtx-1", TransactionState.ONGOING));
        System.out.println(admin.describeProducers(List.of(OUT)).partitionResult(OUT).get().activeProducers().stream()
                .map(producer -> producer.currentTransactionStartOffset() + " " + producer.lastSequence()).toList());
        System.out.println("listed " + admin.listTransactions(new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))).all().get().stream()
                .map(listing -> listing.transactionalId() + " " + listing.state()).toList());
        System.out.println("end " + admin.listOffsets(Map.of(OUT, OffsetSpec.latest())).partitionResult(OUT).get().offset() + " committed "
                + admin.listOffsets(Map.of(OUT, OffsetSpec.latest()), new org.apache.kafka.clients.admin.ListOffsetsOptions(org.apache.kafka.common.IsolationLevel.READ_COMMITTED))
                .partitionResult(OUT).get().offset());
        one.abortTransaction();
        System.out.println(state(admin, "jtx-1", TransactionState.COMPLETE_ABORT));

        step("consume, transform, produce");
        try (var plain = new KafkaProducer<String, String>(Map.of("bootstrap.servers", SERVER), new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < 40; n++) plain.send(new ProducerRecord<>("jtx.in", n % 2, "k" + n, "v" + n));
        }
        try (var consumer = consumer("jtx.group", "read_committed")) {
            consumer.subscribe(List.of("jtx.in"));
            int taken = 0, turns = 0;
            while (taken < 40) {
                var records = consumer.poll(Duration.ofSeconds(1));
                if (records.isEmpty()) continue;
                one.beginTransaction();
                var offsets = new HashMap<TopicPartition, OffsetAndMetadata>();
                for (var record : records) {
                    one.send(new ProducerRecord<>("jtx.out", record.key(), "of " + record.value()));
                    offsets.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                one.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                if (turns++ == 0) {
                    // The records come again.
                    one.abortTransaction();
                    for (var at : offsets.keySet()) consumer.seek(at, 0);
                } else {
                    one.commitTransaction();
                    taken += records.count();
                }
            }
            var both = Set.of(new TopicPartition("jtx.in", 0), new TopicPartition("jtx.in", 1));
            System.out.println(new TreeMap<>(Map.of(0, consumer.committed(both).get(new TopicPartition("jtx.in", 0)).offset(), 1,
                    consumer.committed(both).get(new TopicPartition("jtx.in", 1)).offset())));
        }
        state(admin, "jtx-1", TransactionState.COMPLETE_COMMIT);
        System.out.println(seen("read_committed").stream().filter(value -> value.contains("of v")).count());

        step("fenced");
        one.beginTransaction();
        one.send(new ProducerRecord<>("jtx.out", "k", "old")).get();
        var two = producer("jtx-1", 60000);
        System.out.println(attempt(() -> {
            one.send(new ProducerRecord<>("jtx.out", "k", "too late")).get();
            return null;
        }));
        System.out.println(attempt(run(one::commitTransaction)));
        two.beginTransaction();
        two.send(new ProducerRecord<>("jtx.out", "k", "new"));
        two.commitTransaction();
        state(admin, "jtx-1", TransactionState.COMPLETE_COMMIT);
        Collection<String> last = seen("read_committed");
        System.out.println(last.stream().skip(last.size() - 1).map(value -> value.split("=")[1]).toList());
        System.out.println("fence " + attempt(() -> admin.fenceProducers(List.of("jtx-1")).all().get()));
        System.out.println(attempt(run(() -> {
            two.beginTransaction();
            two.send(new ProducerRecord<>("jtx.out", "k", "fenced"));
            two.commitTransaction();
        })));
        step("unknown");
        System.out.println(attempt(() -> admin.describeTransactions(List.of("nobody")).description("nobody").get()));
        one.close(Duration.ZERO);
        two.close(Duration.ZERO);
        admin.close();
    }
}
