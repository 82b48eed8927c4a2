// Jedis' and Lettuce's cluster clients against the server that cluster.py started; exits non-zero at the first answer that is not as it
// should be.

import io.lettuce.core.RedisURI;
import io.lettuce.core.cluster.RedisClusterClient;
import java.util.*;
import redis.clients.jedis.*;

class Main {
    static void same(Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) throw new IllegalStateException("got " + got + ", wanted " + wanted);
    }

    public static void main(String[] args) {
        try {
            String[] address = System.getenv("RESP_ADDR").split(":");
            jedis(address[0], Integer.parseInt(address[1]));
            lettuce(address[0], Integer.parseInt(address[1]));
            System.exit(0);
        } catch (Throwable error) {
            error.printStackTrace();
            System.exit(1);  // a client's own threads would keep the process
        }
    }

    static void jedis(String host, int port) {
        try (JedisCluster cluster = new JedisCluster(new HostAndPort(host, port))) {
            same(cluster.set("k", "v"), "OK");
            same(cluster.get("k"), "v");
            for (int n = 0; n < 100; n++) cluster.set("j" + n, "" + n);
            same(cluster.get("j57"), "57");
            same(cluster.mget("{j}a", "{j}b"), Arrays.asList(null, null));
            same(cluster.eval("return redis.call('get', KEYS[1])", 1, "k"), "v");
            same(cluster.getClusterNodes().size(), 1);
            System.out.println("Jedis: all as it should be");
        }
    }

    static void lettuce(String host, int port) {
        RedisClusterClient client = RedisClusterClient.create(RedisURI.create(host, port));
        var connection = client.connect();
        var commands = connection.sync();
        same(commands.set("k", "v"), "OK");
        same(commands.get("k"), "v");
        for (int n = 0; n < 100; n++) commands.set("l" + n, "" + n);
        // It splits what is in several slots, and asks for each.
        same(commands.mget("l1", "l2").stream().map(pair -> pair.getValue()).toList(), List.of("1", "2"));
        same(commands.del("l1", "l2"), 2L);
        same(connection.getPartitions().size(), 1);
        same(connection.getPartitions().getPartition(0).getSlots().size(), 16384);
        connection.close();
        client.shutdown();
        System.out.println("Lettuce: all as it should be");
    }
}
