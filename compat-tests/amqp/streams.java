// RabbitMQ's Java client: a stream declared, published to with confirms, read from several places, and deleted under its consumer.

import com.rabbitmq.client.*;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;

class Main {
    static void show(String text, Object... values) {
        System.out.println("> " + text);
        for (Object value : values) System.out.println(value);
    }

    /** What a consumer got, as offset, key and body. */
    static class Reader extends DefaultConsumer {
        final BlockingQueue<String> got = new LinkedBlockingQueue<>();
        final CountDownLatch cancelled = new CountDownLatch(1);
        final boolean ack;

        Reader(Channel channel, boolean ack) {
            super(channel);
            this.ack = ack;
        }

        @Override public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) throws IOException {
            Object offset = properties.getHeaders().get("x-stream-offset");
            got.add(offset.getClass().getSimpleName() + " " + offset + " " + envelope.getRoutingKey() + " " + new String(body, StandardCharsets.UTF_8) + " " + properties.getHeaders().get("n"));
            if (ack) getChannel().basicAck(envelope.getDeliveryTag(), false);
        }

        @Override public void handleCancel(String tag) {
            cancelled.countDown();
        }

        List<String> take(int count) throws InterruptedException {
            List<String> taken = new ArrayList<>();
            while (taken.size() < count) {
                String next = got.poll(10, TimeUnit.SECONDS);
                if (next == null) break;
                taken.add(next);
            }
            return taken;
        }
    }

    static Reader read(Connection connection, Object offset, int prefetch, boolean ack) throws Exception {
        Channel channel = connection.createChannel();
        channel.basicQos(prefetch);
        Reader reader = new Reader(channel, ack);
        channel.basicConsume("java.stream", false, offset == null ? Map.of() : Map.of("x-stream-offset", offset), reader);
        return reader;
    }

    public static void main(String[] arguments) throws Exception {
        String[] address = System.getenv("AMQP_ADDR").split(":");
        ConnectionFactory factory = new ConnectionFactory();
        factory.setHost(address[0]);
        factory.setPort(Integer.parseInt(address[1]));
        factory.setAutomaticRecoveryEnabled(false);
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            channel.queueDelete("java.stream");
            Map<String, Object> stream = Map.of("x-queue-type", "stream", "x-max-length-bytes", 1_000_000_000L, "x-max-age", "7D");
            show("declared", channel.queueDeclare("java.stream", true, false, false, stream).getQueue());
            channel.confirmSelect();
            for (int n = 0; n < 100; n++) {
                AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder().headers(Map.of("n", n)).deliveryMode(2).build();
                channel.basicPublish("", "java.stream", properties, ("m" + n).getBytes(StandardCharsets.UTF_8));
            }
            channel.waitForConfirmsOrDie(10_000);

            Reader reader = read(connection, "first", 10, true);
            List<String> all = reader.take(100);
            show("from the first", all.size(), all.get(0), all.get(99));
            for (Object offset : List.of(97, 98L, (short) 99)) {
                reader = read(connection, offset, 10, true);
                show("from " + offset.getClass().getSimpleName() + " " + offset, reader.take(1));
            }
            reader = read(connection, new Date(System.currentTimeMillis() - 3_600_000), 10, true);
            show("from a time", reader.take(1));
            reader = read(connection, "1h", 10, true);
            show("from an hour ago", reader.take(1));
            Reader next = read(connection, "next", 10, true), nothing = read(connection, null, 10, true);
            channel.basicPublish("", "java.stream", null, "newest".getBytes(StandardCharsets.UTF_8));
            show("from the next, said and not said", next.take(1), nothing.take(1));

            Reader held = read(connection, "first", 5, false);
            show("five, then two for two acknowledged", held.take(5).size());
            held.getChannel().basicAck(2, true);
            show("two more", held.take(2));

            show("deleted");
            channel.queueDelete("java.stream");
            System.out.println(held.cancelled.await(10, TimeUnit.SECONDS));

            for (String wrong : List.of("qos", "ack", "get")) {
                channel.queueDeclare("java.stream", true, false, false, stream);
                try (Connection probe = factory.newConnection()) {
                    Channel tried = probe.createChannel();
                    if (wrong.equals("ack")) tried.basicQos(5);
                    if (wrong.equals("get")) tried.basicGet("java.stream", true);
                    else tried.basicConsume("java.stream", wrong.equals("ack"), new Reader(tried, false));
                    show(wrong, "accepted");
                } catch (IOException error) {
                    ShutdownSignalException why = (ShutdownSignalException) error.getCause();
                    Method reason = why.getReason();
                    show(wrong, reason instanceof AMQP.Channel.Close close ? "channel " + close.getReplyText() : "connection " + ((AMQP.Connection.Close) reason).getReplyText());
                } catch (AlreadyClosedException error) {
                    // The connection that ends is closed again by the block.
                }
            }
            channel.queueDelete("java.stream");
        }
    }
}
