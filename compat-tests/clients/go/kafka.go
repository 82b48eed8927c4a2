package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func kafka() {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	seed := kgo.SeedBrokers(os.Getenv("KAFKA_ADDR"))
	client, err := kgo.NewClient(seed, kgo.AllowAutoTopicCreation())
	check(err)
	defer client.Close()

	step("create a topic")
	create := kmsg.NewCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "go-topic", 3, 1
	create.Topics = append(create.Topics, topic)
	for range 2 {
		created, err := create.RequestWith(ctx, client)
		check(err)
		fmt.Println(created.Topics[0].Topic, kerr.ErrorForCode(created.Topics[0].ErrorCode))
	}

	for _, codec := range []struct {
		name  string
		codec kgo.CompressionCodec
	}{{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()}, {"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()}} {
		step("produce with %s", codec.name)
		producer, err := kgo.NewClient(seed, kgo.ProducerBatchCompression(codec.codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		check(err)
		for i := range int32(3) {
			results := producer.ProduceSync(ctx,
				&kgo.Record{Topic: "go-topic", Partition: i, Key: []byte("k"), Value: []byte(codec.name + " one"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}},
				&kgo.Record{Topic: "go-topic", Partition: i, Value: []byte(codec.name + " two")})
			for _, result := range results {
				fmt.Println(result.Record.Partition, result.Record.Offset, result.Err)
			}
		}
		producer.Close()
	}

	step("consume all with a group and commit")
	group, err := kgo.NewClient(seed, kgo.ConsumerGroup("go-group"), kgo.ConsumeTopics("go-topic"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	check(err)
	var lines []string
	for len(lines) < 30 && ctx.Err() == nil {
		fetches := group.PollFetches(ctx)
		fetches.EachError(func(t string, p int32, err error) { fmt.Println("error", t, p, err) })
		fetches.EachRecord(func(r *kgo.Record) {
			lines = append(lines, fmt.Sprintf("%d/%d key=%q value=%q headers=%d", r.Partition, r.Offset, r.Key, r.Value, len(r.Headers)))
		})
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	fmt.Println(group.CommitUncommittedOffsets(ctx))
	group.Close()

	step("committed offsets")
	fetch := kmsg.NewOffsetFetchRequest()
	fetch.Group = "go-group"
	groupRequest := kmsg.NewOffsetFetchRequestGroup()
	groupRequest.Group = "go-group"
	fetch.Groups = append(fetch.Groups, groupRequest)
	offsets, err := fetch.RequestWith(ctx, client)
	check(err)
	lines = nil
	for _, g := range offsets.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				lines = append(lines, fmt.Sprintf("%s/%d %d", t.Topic, p.Partition, p.Offset))
			}
		}
	}
	sort.Strings(lines)
	fmt.Println(lines)

	step("unknown topic")
	strict, err := kgo.NewClient(seed, kgo.UnknownTopicRetries(0))
	check(err)
	fmt.Println(strict.ProduceSync(ctx, &kgo.Record{Topic: "go-bad/name", Value: []byte("x")}).FirstErr())
	strict.Close()
}
