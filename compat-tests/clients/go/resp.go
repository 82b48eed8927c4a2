package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

func resp() {
	for _, protocol := range []int{2, 3} {
		step("go-redis protocol %d", protocol)
		respWith(protocol)
	}
}

func respWith(protocol int) {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("RESP_ADDR"), Protocol: protocol})
	defer client.Close()
	check(client.FlushAll(ctx).Err())

	step("SET and GET")
	show(client.Set(ctx, "k", "v", time.Minute).Result())
	show(client.Get(ctx, "k").Result())
	_, err := client.Get(ctx, "missing").Result()
	fmt.Println(errors.Is(err, redis.Nil))
	ttl := client.TTL(ctx, "k").Val()
	fmt.Println(ttl > 58*time.Second && ttl <= time.Minute)

	step("hash")
	show(client.HSet(ctx, "h", "a", 1, "b", "two").Result())
	show(client.HGetAll(ctx, "h").Result())
	show(client.HIncrBy(ctx, "h", "a", 41).Result())

	step("list")
	show(client.RPush(ctx, "l", 1, 2, 3).Result())
	show(client.LRange(ctx, "l", 0, -1).Result())
	show(client.BLPop(ctx, time.Second, "nolist", "l").Result())

	step("sorted set")
	show(client.ZAdd(ctx, "z", redis.Z{Score: 1.5, Member: "a"}, redis.Z{Score: 2, Member: "b"}).Result())
	show(client.ZRangeWithScores(ctx, "z", 0, -1).Result())
	show(client.ZScore(ctx, "z", "a").Result())

	step("set")
	show(client.SAdd(ctx, "s", "x", "y").Result())
	members := client.SMembersMap(ctx, "s").Val()
	fmt.Println(len(members))

	step("pipeline")
	commands, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range 100 {
			pipe.Incr(ctx, fmt.Sprintf("n%d", i%10))
		}
		return nil
	})
	check(err)
	show(commands[99].(*redis.IntCmd).Result())

	step("transaction, retried when the watched key changed")
	attempts := 0
	err = client.Watch(ctx, func(tx *redis.Tx) error {
		attempts++
		n, _ := tx.Get(ctx, "n0").Int()
		client.Incr(ctx, "n0")
		_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, "n0", n*2, 0)
			return nil
		})
		return err
	}, "n0")
	show(client.Get(ctx, "n0").Val(), nil)
	fmt.Println(attempts, errors.Is(err, redis.TxFailedErr))

	step("wrong type")
	show(client.LPush(ctx, "k", 1).Result())

	step("pub/sub")
	subscription := client.Subscribe(ctx, "ch")
	_, err = subscription.Receive(ctx)
	check(err)
	show(client.Publish(ctx, "ch", "hello").Result())
	message, err := subscription.ReceiveMessage(ctx)
	check(err)
	fmt.Println(message.Channel, message.Payload)
	subscription.Close()

	step("scan")
	for i := range 1000 {
		client.Set(ctx, fmt.Sprintf("scan:%d", i), 1, 0)
	}
	seen := map[string]bool{}
	iterator := client.Scan(ctx, 0, "scan:*", 37).Iterator()
	for iterator.Next(ctx) {
		seen[iterator.Val()] = true
	}
	fmt.Println(len(seen), iterator.Err())
}
