package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
)

// A program of its own, beside the faces of main: `client cluster` judges itself.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "cluster" {
		cluster()
		os.Exit(0)
	}
}

func same(got, wanted any) {
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		check(fmt.Errorf("got %v, wanted %v", got, wanted))
	}
}

func cluster() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{os.Getenv("RESP_ADDR")}})
	defer client.Close()
	check(client.FlushAll(ctx).Err())
	for n := range 100 {
		check(client.Set(ctx, fmt.Sprint("k", n), n, 0).Err())
	}
	same(client.Get(ctx, "k57").Val(), "57")
	pipe := client.Pipeline()
	for n := range 50 {
		pipe.Incr(ctx, fmt.Sprint("p", n))
	}
	done, err := pipe.Exec(ctx)
	check(err)
	same(len(done), 50)
	_, err = client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, "{t}a", 1, 0)
		pipe.Incr(ctx, "{t}a")
		return nil
	})
	check(err)
	same(client.Get(ctx, "{t}a").Val(), "2")
	same(client.MGet(ctx, "{t}a", "{t}b").Val(), "[2 <nil>]")
	keys := 0
	check(client.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		keys += int(node.DBSize(ctx).Val())
		return nil
	}))
	same(keys, 151)
	slots, err := client.ClusterSlots(ctx).Result()
	check(err)
	same(len(slots), 1)
	same(slots[0].Nodes[0].Addr, os.Getenv("RESP_ADDR"))
	fmt.Println("go-redis ClusterClient: all as it should be")
}
