// Spring AMQP over RabbitMQ's Java client: declarations, confirms with correlation and returns, listeners, direct reply-to, retries and dead letters.

import com.rabbitmq.client.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import org.springframework.amqp.AmqpRejectAndDontRequeueException;
import org.springframework.amqp.core.*;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.rabbit.connection.*;
import org.springframework.amqp.rabbit.core.*;
import org.springframework.amqp.rabbit.listener.*;
import org.springframework.amqp.rabbit.listener.adapter.MessageListenerAdapter;

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

    static String text(Message message) {
        return message == null ? "nothing" : new String(message.getBody(), StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        String[] address = System.getenv("AMQP_ADDR").split(":");
        CachingConnectionFactory factory = new CachingConnectionFactory(address[0], Integer.parseInt(address[1]));
        factory.setPublisherConfirmType(CachingConnectionFactory.ConfirmType.CORRELATED);
        factory.setPublisherReturns(true);
        RabbitAdmin admin = new RabbitAdmin(factory);
        for (String name : List.of("spring.q", "spring.dead", "spring.prio", "spring.rpc", "spring.single")) admin.deleteQueue(name);

        TopicExchange topic = new TopicExchange("spring.topic");
        Queue queue = QueueBuilder.durable("spring.q").deadLetterExchange("").deadLetterRoutingKey("spring.dead").build();
        admin.declareExchange(topic);
        admin.declareQueue(queue);
        admin.declareQueue(QueueBuilder.durable("spring.dead").lazy().build());
        admin.declareQueue(QueueBuilder.durable("spring.prio").maxPriority(10).build());
        admin.declareQueue(QueueBuilder.nonDurable("spring.rpc").expires(60000).build());
        admin.declareQueue(QueueBuilder.durable("spring.single").singleActiveConsumer().build());
        admin.declareBinding(BindingBuilder.bind(queue).to(topic).with("a.#"));
        show("a queue's properties", admin.getQueueProperties("spring.q"), admin.getQueueProperties("spring.none"));

        RabbitTemplate template = new RabbitTemplate(factory);
        template.setMandatory(true);
        List<String> confirms = new CopyOnWriteArrayList<>(), returns = new CopyOnWriteArrayList<>();
        template.setConfirmCallback((data, ack, cause) -> confirms.add(data.getId() + " " + ack));
        template.setReturnsCallback(returned -> returns.add(returned.getReplyCode() + " " + returned.getReplyText() + " " + returned.getRoutingKey()));
        for (int i = 0; i < 5; i++) template.convertAndSend("spring.topic", "a." + i, "m" + i, new CorrelationData("c" + i));
        template.convertAndSend("spring.topic", "nowhere", "lost", new CorrelationData("c5"));
        until("confirms", () -> confirms.size() == 6);
        show("confirms and returns", new TreeSet<>(confirms), returns);

        List<String> got = new CopyOnWriteArrayList<>();
        SimpleMessageListenerContainer listener = new SimpleMessageListenerContainer(factory);
        listener.setQueueNames("spring.q");
        listener.setPrefetchCount(1);
        listener.setConcurrentConsumers(1);
        listener.setReceiveTimeout(50);
        listener.setMessageListener(message -> {
            got.add(text(message) + (message.getMessageProperties().isRedelivered() ? " again" : ""));
            if (text(message).equals("m1") && !message.getMessageProperties().isRedelivered()) throw new IllegalStateException("once more");
            if (text(message).equals("m3")) throw new AmqpRejectAndDontRequeueException("never");
        });
        listener.setErrorHandler(error -> { if (error.getCause() instanceof AmqpRejectAndDontRequeueException e) throw e; throw new RuntimeException(error); });
        listener.start();
        until("listened", () -> got.size() == 6);
        listener.stop();
        show("a listener", new TreeSet<>(got));
        Message dead = template.receive("spring.dead", 5000);
        show("dead letter", text(dead), dead.getMessageProperties().getXDeathHeader().get(0).get("reason"), dead.getMessageProperties().getXDeathHeader().get(0).get("queue"));

        for (int priority : new int[] {1, 9, 5}) {
            template.convertAndSend("", "spring.prio", "p" + priority, message -> { message.getMessageProperties().setPriority(priority); return message; }, new CorrelationData("p" + priority));
        }
        until("confirms", () -> confirms.size() == 9);
        show("priorities", text(template.receive("spring.prio", 5000)), text(template.receive("spring.prio", 5000)), text(template.receive("spring.prio", 5000)));

        DirectMessageListenerContainer server = new DirectMessageListenerContainer(factory);
        server.setQueueNames("spring.rpc");
        server.setMessageListener(new MessageListenerAdapter(new Object() {
            public String handleMessage(String asked) { return asked.toUpperCase(); }
        }));
        server.start();
        RabbitTemplate asking = new RabbitTemplate(factory);
        asking.setReplyTimeout(10000);
        show("direct reply-to", asking.convertSendAndReceive("", "spring.rpc", "question"), asking.convertSendAndReceive("", "spring.rpc", "another"));
        server.stop();

        RabbitTemplate together = new RabbitTemplate(new CachingConnectionFactory(address[0], Integer.parseInt(address[1])));
        together.setChannelTransacted(true);
        together.convertAndSend("", "spring.prio", "in a transaction");
        show("transaction", text(template.receive("spring.prio", 5000)));

        // The Java client itself.
        var plain = new com.rabbitmq.client.ConnectionFactory();
        plain.setHost(address[0]);
        plain.setPort(Integer.parseInt(address[1]));
        try (com.rabbitmq.client.Connection connection = plain.newConnection()) {
            Channel channel = connection.createChannel();
            show("one active consumer", channel.basicConsume("spring.single", true, "first", new DefaultConsumer(channel)), channel.consumerCount("spring.single"));
            try {
                channel.queueDeclare("spring.prio", true, false, false, Map.of("x-max-priority", 3));
            } catch (java.io.IOException error) {
                show("another argument", ((ShutdownSignalException) error.getCause()).getReason().toString().replaceAll("channel.close", "close"));
            }
            Channel canceled = connection.createChannel();
            BlockingQueue<String> heard = new LinkedBlockingQueue<>();
            canceled.basicConsume("spring.dead", true, "watch", false, false, null, new DefaultConsumer(canceled) {
                @Override
                public void handleCancel(String tag) { heard.add(tag + " cancelled"); }
            });
            connection.createChannel().queueDelete("spring.dead");
            show("told that its queue is gone", heard.poll(5, TimeUnit.SECONDS));
        }
        for (String name : List.of("spring.q", "spring.prio", "spring.rpc", "spring.single")) admin.deleteQueue(name);
        admin.deleteExchange("spring.topic");
        factory.destroy();
        System.exit(0);
    }
}
