// Spring Session's indexed repository: sessions found by who they belong to, and its events, which come from keyspace notifications.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.core.RedisTemplate;
import org.springframework.data.redis.core.RedisCallback;
import org.springframework.data.redis.listener.*;
import org.springframework.data.redis.serializer.*;
import org.springframework.session.FindByIndexNameSessionRepository;
import org.springframework.session.Session;
import org.springframework.session.data.redis.RedisIndexedSessionRepository;
import org.springframework.session.data.redis.config.ConfigureNotifyKeyspaceEventsAction;
import org.springframework.session.events.AbstractSessionEvent;

class Main {
    static void show(String text, Object... values) {
        System.out.println("> " + text);
        for (Object value : values) System.out.println(value);
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
        RedisTemplate<String, Object> template = new RedisTemplate<>();
        template.setConnectionFactory(factory);
        template.setKeySerializer(RedisSerializer.string());
        template.setHashKeySerializer(RedisSerializer.string());
        template.setBeanClassLoader(Main.class.getClassLoader());
        template.afterPropertiesSet();
        template.execute((RedisCallback<Object>) connection -> {
            connection.serverCommands().flushAll();
            new ConfigureNotifyKeyspaceEventsAction().configure(connection);
            return null;
        });
        show("its action turns events on", template.execute((RedisCallback<Object>) connection -> connection.serverCommands().getConfig("notify-keyspace-events")));

        RedisIndexedSessionRepository repository = new RedisIndexedSessionRepository(template);
        BlockingQueue<AbstractSessionEvent> events = new LinkedBlockingQueue<>();
        repository.setApplicationEventPublisher(event -> {
            if (event instanceof AbstractSessionEvent of) events.add(of);
        });
        // Sessions are cleaned up here when they are asked to be.
        repository.setCleanupCron("-");
        repository.afterPropertiesSet();
        RedisMessageListenerContainer container = new RedisMessageListenerContainer();
        container.setConnectionFactory(factory);
        container.addMessageListener(repository, List.of(new ChannelTopic(repository.getSessionDeletedChannel()), new ChannelTopic(repository.getSessionExpiredChannel())));
        container.addMessageListener(repository, List.of(new PatternTopic(repository.getSessionCreatedChannelPrefix() + "*")));
        container.afterPropertiesSet();
        container.start();
        run(repository, events);
        container.stop();
        repository.destroy();
        template.execute((RedisCallback<Object>) connection -> { connection.serverCommands().setConfig("notify-keyspace-events", ""); return null; });
        factory.destroy();
    }

    static String next(BlockingQueue<AbstractSessionEvent> events, String id) throws Exception {
        AbstractSessionEvent event = events.poll(20, TimeUnit.SECONDS);
        if (event == null) return "none";
        return event.getClass().getSimpleName() + " " + event.getSessionId().equals(id);
    }

    static <S extends Session> void run(FindByIndexNameSessionRepository<S> repository, BlockingQueue<AbstractSessionEvent> events) throws Exception {
        String user = FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME;
        S session = repository.createSession();
        session.setAttribute(user, "alice");
        session.setAttribute("cart", new ArrayList<>(List.of(1, 2)));
        repository.save(session);
        String id = session.getId();
        show("created", next(events, id));
        show("found by its id", repository.findById(id).<Object>getAttribute("cart"));
        show("found by its user", repository.findByPrincipalName("alice").keySet().equals(Set.of(id)), repository.findByPrincipalName("bob"));
        S again = repository.findById(id);
        String changed = again.changeSessionId();
        again.setAttribute("cart", new ArrayList<>(List.of(3)));
        repository.save(again);
        show("another id", repository.findById(id), repository.findById(changed).<Object>getAttribute("cart"), repository.findByPrincipalName("alice").keySet().equals(Set.of(changed)));
        repository.deleteById(changed);
        show("deleted", next(events, changed), repository.findByPrincipalName("alice"));

        S brief = repository.createSession();
        brief.setAttribute(user, "carol");
        brief.setMaxInactiveInterval(Duration.ofSeconds(1));
        repository.save(brief);
        show("a brief one", next(events, brief.getId()), repository.findByPrincipalName("carol").size());
        show("expired", next(events, brief.getId()), repository.findById(brief.getId()), repository.findByPrincipalName("carol"));
    }
}
